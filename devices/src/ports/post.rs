//! Port 80h, where firmware leaves its power-on self-test codes. It is a plain register: the page
//! register of no DMA channel (82371SB data sheet, 2.5.1).

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, PortIo, guest_log};

use crate::access::{byte_only, low_byte};

/// Port 80h.
#[derive(Debug, Default)]
pub struct PostPort {
    code: u8,
}

impl PostPort {
    /// The port's number.
    pub const PORT: u16 = 0x80;

    /// A port that holds code 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The last code written.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Notes a code. Linux writes here for a delay of about a microsecond: only changes are logged.
    fn set(&mut self, code: u8) {
        if code != self.code {
            guest_log!(Debug, "POST code {code:02x}h");
        }
        self.code = code;
    }
}

impl PortIo for PostPort {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match port {
            Self::PORT => Ok(self.code.into()),
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        match port {
            Self::PORT => self.set(low_byte(value)),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Device for PostPort {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.code = 0;
    }
}

mod save_restore {
    use serde::{Deserialize, Serialize};
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::PostPort;

    const VERSION: u32 = 1;

    #[derive(Serialize, Deserialize)]
    struct Saved {
        code: u8,
    }

    impl SaveRestore for PostPort {
        fn save(&self) -> Section {
            let Self { code } = self;
            Section::encode(VERSION, &Saved { code: *code })
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            let Saved { code } = section.decode(VERSION)?;
            self.code = code;
            Ok(())
        }
    }
}
