//! The MC146818 real-time clock and its CMOS memory.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

use crate::access::byte_only;

/// Seconds since 1970-01-01 00:00:00, in the time zone that the clock is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixSeconds(pub u64);

/// The sizes of RAM that firmware leaves in CMOS memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CmosMemory {
    /// RAM below 4 GiB, in bytes, from address 0.
    pub below_4g: u64,
    /// RAM from 4 GiB on, in bytes.
    pub above_4g: u64,
}

/// The MC146818 real-time clock and its CMOS memory.
pub struct Rtc {
    clock: Arc<dyn Clock>,
    irq: IrqLine,
}

impl Rtc {
    /// A clock that shows `start` at the machine's start.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        irq: IrqLine,
        start: UnixSeconds,
        memory: CmosMemory,
    ) -> Self {
        Self { clock, irq }
    }
}

impl PortIo for Rtc {
    fn read(&mut self, _: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }

    fn write(&mut self, _: u16, width: AccessWidth, _: u32) -> BusResult<()> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }
}

impl Timed for Rtc {
    fn deadline(&self) -> Option<VmTime> {
        None
    }

    fn fire(&mut self, _: VmTime) {}
}

impl Device for Rtc {
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

    use super::Rtc;

    const VERSION: u32 = 1;

    impl SaveRestore for Rtc {
        fn save(&self) -> Section {
            let Self { clock: _, irq: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
