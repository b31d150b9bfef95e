//! Port E9h, the debug console that Bochs introduced: bytes written go to the host, and a read gives
//! E9h, by which guests detect it.

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, PortIo};

use crate::access::{byte_only, low_byte};

/// Where the debug console's bytes go.
pub trait DebugConsoleBackend: Send {
    /// Takes one byte.
    fn write(&mut self, byte: u8);
}

/// Port E9h. It has no state of its own.
pub struct DebugConsole {
    backend: Box<dyn DebugConsoleBackend>,
}

impl DebugConsole {
    /// The port's number.
    pub const PORT: u16 = 0xe9;
    /// What a read gives.
    const SIGNATURE: u8 = 0xe9;

    /// A console whose bytes go to `backend`.
    #[must_use]
    pub fn new(backend: Box<dyn DebugConsoleBackend>) -> Self {
        Self { backend }
    }
}

impl PortIo for DebugConsole {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match port {
            Self::PORT => Ok(Self::SIGNATURE.into()),
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        match port {
            Self::PORT => self.backend.write(low_byte(value)),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Device for DebugConsole {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    /// There is nothing to reset.
    fn reset(&mut self) {}
}

mod save_restore {
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::DebugConsole;

    const VERSION: u32 = 1;

    impl SaveRestore for DebugConsole {
        fn save(&self) -> Section {
            let Self { backend: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
