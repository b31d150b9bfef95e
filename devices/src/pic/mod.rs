//! The two cascaded 8259A interrupt controllers.

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, IrqLine, PortIo};

use crate::access::byte_only;

/// The two cascaded 8259A interrupt controllers.
pub struct Pic {
    intr: IrqLine,
}

impl Pic {
    /// Two controllers whose output is `intr`.
    #[must_use]
    pub fn new(intr: IrqLine) -> Self {
        Self { intr }
    }

    /// Drives interrupt input `n` (0 to 15) to `high`.
    pub fn set_irq(&mut self, n: u8, high: bool) {
        if n < 16 {
            self.intr.set(high);
        }
    }

    /// The INTA cycle: gives the vector.
    pub fn acknowledge(&mut self) -> u8 {
        self.intr.set(false);
        0
    }
}

impl PortIo for Pic {
    fn read(&mut self, _: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }

    fn write(&mut self, _: u16, width: AccessWidth, _: u32) -> BusResult<()> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }
}

impl Device for Pic {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {}
}

mod save_restore {
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::Pic;

    const VERSION: u32 = 1;

    impl SaveRestore for Pic {
        fn save(&self) -> Section {
            let Self { intr: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
