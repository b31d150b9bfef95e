//! The 8254 interval timer and port 61h.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

use crate::access::byte_only;

/// The 8254 interval timer and port 61h.
pub struct Pit {
    clock: Arc<dyn Clock>,
    out0: IrqLine,
}

impl Pit {
    /// A timer whose channel 0 drives `out0`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, out0: IrqLine) -> Self {
        Self { clock, out0 }
    }
}

impl PortIo for Pit {
    fn read(&mut self, _: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }

    fn write(&mut self, _: u16, width: AccessWidth, _: u32) -> BusResult<()> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }
}

impl Timed for Pit {
    fn deadline(&self) -> Option<VmTime> {
        None
    }

    fn fire(&mut self, _: VmTime) {}
}

impl Device for Pit {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {}
}

mod save_restore {
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::Pit;

    const VERSION: u32 = 1;

    impl SaveRestore for Pit {
        fn save(&self) -> Section {
            let Self { clock: _, out0: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
