//! The 16550A serial port.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

use crate::access::byte_only;

/// The far end of the serial line.
pub trait SerialBackend: Send {
    /// Takes one character.
    fn transmit(&mut self, byte: u8);

    /// The line goes into the break condition, or out of it. Ignored unless wanted.
    fn set_break(&mut self, _on: bool) {}
}

/// The 16550A serial port.
pub struct Uart16550 {
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    backend: Box<dyn SerialBackend>,
}

impl Uart16550 {
    /// A port whose output goes to `backend`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, irq: IrqLine, backend: Box<dyn SerialBackend>) -> Self {
        Self { clock, irq, backend }
    }

    /// Characters arrive on the line; says how many fitted.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let _ = bytes;
        0
    }

    /// A break arrives on the line.
    pub fn receive_break(&mut self) {}

    /// Whether [`Self::receive`] would take a byte.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        false
    }
}

impl PortIo for Uart16550 {
    fn read(&mut self, _: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }

    fn write(&mut self, _: u16, width: AccessWidth, _: u32) -> BusResult<()> {
        byte_only(width)?;
        Err(BusError::NoRegister)
    }
}

impl Timed for Uart16550 {
    fn deadline(&self) -> Option<VmTime> {
        None
    }

    fn fire(&mut self, _: VmTime) {}
}

impl Device for Uart16550 {
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

    use super::Uart16550;

    const VERSION: u32 = 1;

    impl SaveRestore for Uart16550 {
        fn save(&self) -> Section {
            let Self { clock: _, irq: _, backend: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
