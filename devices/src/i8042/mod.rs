//! The 8042 keyboard controller with a PS/2 keyboard.

use std::sync::Arc;

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, IrqLine, PortIo};

use crate::access::byte_only;
use crate::power::PowerSink;
use crate::sys::A20Sink;

/// The 8042 keyboard controller with a PS/2 keyboard.
pub struct I8042 {
    irq1: IrqLine,
    irq12: IrqLine,
    a20: Arc<dyn A20Sink>,
    power: Arc<dyn PowerSink>,
}

impl I8042 {
    /// A controller with a keyboard and no mouse.
    #[must_use]
    pub fn new(
        irq1: IrqLine,
        irq12: IrqLine,
        a20: Arc<dyn A20Sink>,
        power: Arc<dyn PowerSink>,
    ) -> Self {
        Self { irq1, irq12, a20, power }
    }

    /// Keys were pressed or released: bytes of scan code set 2.
    pub fn key(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }
}

impl PortIo for I8042 {
    fn read(&mut self, _: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }

    fn write(&mut self, _: u16, width: AccessWidth, _: u32) -> BusResult<()> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }
}

impl Device for I8042 {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {}
}

mod save_restore {
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::I8042;

    const VERSION: u32 = 1;

    impl SaveRestore for I8042 {
        fn save(&self) -> Section {
            let Self { irq1: _, irq12: _, a20: _, power: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
