//! The parallel port at 378h with a printer that is always ready: the standard port, as the IBM
//! PC's Technical Reference has it ("IBM Parallel Printer Adapter").

mod save_restore;
#[cfg(test)]
mod tests;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusError, BusResult, Device, IrqLine, PortIo};

use crate::access::{byte_only, low_byte};

bitflags! {
    /// The control register, as written: 1 asserts the line, whatever its polarity.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Control: u8 {
        /// -STROBE: the data are valid.
        const STROBE = 1 << 0;
        /// -AUTO FD XT: the printer feeds a line after each.
        const AUTO_FEED = 1 << 1;
        /// -INIT: 0 initializes the printer.
        const NOT_INIT = 1 << 2;
        /// -SLCT IN: the printer is selected.
        const SELECT_IN = 1 << 3;
        /// IRQ enable.
        const IRQ_ENABLE = 1 << 4;
    }
}

bitflags! {
    /// The status register: the levels of the lines, but for BUSY, which is inverted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Status: u8 {
        /// -ERROR.
        const NOT_ERROR = 1 << 3;
        /// SLCT: the printer is on line.
        const SELECTED = 1 << 4;
        /// PE: out of paper.
        const PAPER_END = 1 << 5;
        /// -ACK.
        const NOT_ACK = 1 << 6;
        /// BUSY, inverted.
        const NOT_BUSY = 1 << 7;
    }
}

/// Bits of the status register that no line drives.
const STATUS_UNUSED: u8 = 0b0000_0111;
/// Bits of the control register that are not there.
const CONTROL_UNUSED: u8 = 0b1110_0000;
/// Offsets of the registers.
const DATA: u16 = 0;
const STATUS: u16 = 1;
const CONTROL: u16 = 2;

/// The printer's end of the cable.
pub trait ParallelBackend: Send {
    /// The host prints a byte.
    fn print(&mut self, byte: u8);
}

/// The port. It has no EPP or ECP registers, and data go one way.
pub struct ParallelPort {
    base: u16,
    data: u8,
    control: Control,
    irq: IrqLine,
    printer: Box<dyn ParallelBackend>,
}

impl ParallelPort {
    /// How many ports there are.
    pub const PORTS: u16 = 3;

    /// A port with a printer. -ACK drives `irq` when the program enables that.
    #[must_use]
    pub fn new(base: u16, irq: IrqLine, printer: Box<dyn ParallelBackend>) -> Self {
        Self { base, data: 0, control: Control::empty(), irq, printer }
    }

    /// The printer takes bytes as soon as they come, so it is never seen busy but while it is held
    /// in initialization, and -ACK is never seen low.
    fn status(&self) -> Status {
        let mut status = Status::NOT_ERROR | Status::SELECTED | Status::NOT_ACK;
        status.set(Status::NOT_BUSY, self.control.contains(Control::NOT_INIT));
        status
    }

    fn write_control(&mut self, control: Control) {
        let rising = control - self.control;
        let falling = self.control - control;
        self.control = control;
        if falling.contains(Control::IRQ_ENABLE) {
            self.irq.set(false);
        }
        let listens = control.contains(Control::NOT_INIT | Control::SELECT_IN);
        if rising.contains(Control::STROBE) && listens {
            self.printer.print(self.data);
            self.acknowledge();
        }
    }

    /// A pulse of -ACK, whose end interrupts.
    fn acknowledge(&self) {
        if self.control.contains(Control::IRQ_ENABLE) {
            self.irq.edge();
        }
    }
}

impl PortIo for ParallelPort {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        let value = match port.wrapping_sub(self.base) {
            DATA => self.data,
            STATUS => self.status().bits() | STATUS_UNUSED,
            CONTROL => self.control.bits() | CONTROL_UNUSED,
            _ => return Err(BusError::NoRegister),
        };
        Ok(value.into())
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        let value = low_byte(value);
        match port.wrapping_sub(self.base) {
            DATA => self.data = value,
            // The lines are the printer's.
            STATUS => {}
            CONTROL => self.write_control(Control::from_bits_truncate(value)),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Device for ParallelPort {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.data = 0;
        self.write_control(Control::empty());
    }
}
