//! The two cascaded 8259A interrupt controllers of a PC, as in the 82371SB (PIIX3): master at 20h,
//! slave at A0h on the master's IR2, ELCR at 4D0h and 4D1h.

mod chip;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, IrqLine, PortIo, guest_log};

use self::chip::Chip;
pub use self::registers::PicRegisters;
use crate::access::{byte_only, low_byte};

/// Master, A0 = 0 (and 21h with A0 = 1).
const MASTER: u16 = 0x20;
/// Slave, A0 = 0 (and A1h with A0 = 1).
const SLAVE: u16 = 0xa0;
/// ELCR1, edge/level control of the master's pins.
const ELCR1: u16 = 0x4d0;
/// ELCR2, edge/level control of the slave's pins.
const ELCR2: u16 = 0x4d1;

/// ELCR1's writable bits: IRQ0, IRQ1 and the cascade are always edge-triggered.
const ELCR1_MASK: u8 = 0xf8;
/// ELCR2's writable bits: IRQ8 and IRQ13 are always edge-triggered.
const ELCR2_MASK: u8 = 0xde;

/// The master's pin that the slave's INT drives.
const CASCADE: u8 = 2;

/// What the processor reads when nobody drives the data bus.
const NOBODY: u8 = 0xff;

/// The address bits that choose no register.
const UNDECODED: u16 = 0x1c;

const fn ports() -> [u16; 34] {
    let mut ports = [ELCR1; 34];
    ports[1] = ELCR2;
    let mut n = 0;
    while n < 32 {
        let chip = if n & 1 == 0 { MASTER } else { SLAVE };
        ports[n + 2] = chip + (n as u16 >> 1 & 1) + (n as u16 >> 2 << 2);
        n += 1;
    }
    ports
}

/// The port that a register is known by.
fn undecoded(port: u16) -> u16 {
    match port & !UNDECODED {
        known @ (MASTER | 0x21 | SLAVE | 0xa1) => known,
        _ => port,
    }
}

/// The pair of interrupt controllers.
#[derive(Debug)]
pub struct Pic {
    master: Chip,
    slave: Chip,
    /// The level of the master's INT, as last driven.
    int: bool,
    intr: IrqLine,
}

impl Pic {
    /// The ports of the pair. Those of each controller are there eight times, since address bits 2
    /// to 4 are not decoded (82371SB data sheet, "ISA-compatible registers").
    pub const PORTS: [u16; 34] = ports();

    /// Two controllers that await initialization; the master's INT drives `intr`.
    #[must_use]
    pub fn new(intr: IrqLine) -> Self {
        Self { master: Chip::new(), slave: Chip::new(), int: false, intr }
    }

    /// Drives interrupt input `n` (0 to 15; 2 is the cascade and no input). A request lasts only
    /// while its input is high, as the data sheet says: a pulse that ends before the CPU's
    /// acknowledge cycle becomes a spurious IRQ7 or nothing.
    pub fn set_irq(&mut self, n: u8, high: bool) {
        match n {
            CASCADE => return,
            0..=7 => self.master.set_line(n, high),
            8..=15 => self.slave.set_line(n - 8, high),
            _ => return,
        }
        self.update();
    }

    /// The CPU's interrupt acknowledge cycle: gives the vector, which is that of IRQ7 (or IRQ15) if
    /// the request has gone.
    pub fn acknowledge(&mut self) -> u8 {
        // INT falls with the first INTA pulse, and rises again if there is more to announce.
        self.drive(false);
        let ir = self.master.acknowledge();
        let vector = if self.master.is_slave_pin(ir) {
            self.acknowledge_slave(ir)
        } else {
            self.master.vector(ir)
        };
        self.update();
        vector
    }

    /// The master has put `number` on CAS0 to CAS2: the slave of that number gives the vector. If
    /// there is none, nobody drives the data bus.
    fn acknowledge_slave(&mut self, number: u8) -> u8 {
        if !self.slave.is_addressed(number) {
            guest_log!(Warn, "8259A: ICW3 names a slave that is not there");
            return NOBODY;
        }
        let ir = self.slave.acknowledge();
        self.master.set_line(CASCADE, false);
        self.slave.vector(ir)
    }

    /// Whether INT is high: the CPU should run the acknowledge cycle when it takes interrupts.
    #[must_use]
    pub fn has_interrupt(&self) -> bool {
        self.int
    }

    /// Makes the INT pins follow the registers.
    fn update(&mut self) {
        self.master.set_line(CASCADE, self.slave.pending().is_some());
        self.drive(self.master.pending().is_some());
    }

    fn drive(&mut self, high: bool) {
        if self.int != high {
            self.int = high;
            self.intr.set(high);
        }
    }

    /// Reads a register.
    ///
    /// # Errors
    /// The port is not one of [`Self::PORTS`].
    pub fn read_port(&mut self, port: u16) -> BusResult<u8> {
        let value = match undecoded(port) {
            MASTER => self.master.read(false),
            0x21 => self.master.read(true),
            SLAVE => self.read_slave(false),
            0xa1 => self.read_slave(true),
            ELCR1 => self.master.elcr,
            ELCR2 => self.slave.elcr,
            _ => return Err(BusError::NoRegister),
        };
        self.update();
        Ok(value)
    }

    /// A poll is the slave's acknowledge: its INT falls before it may rise again.
    fn read_slave(&mut self, a0: bool) -> u8 {
        if self.slave.poll {
            self.master.set_line(CASCADE, false);
        }
        self.slave.read(a0)
    }

    /// Writes a register.
    ///
    /// # Errors
    /// The port is not one of [`Self::PORTS`].
    pub fn write_port(&mut self, port: u16, value: u8) -> BusResult<()> {
        match undecoded(port) {
            MASTER => self.master.write(false, value),
            0x21 => self.master.write(true, value),
            SLAVE => self.slave.write(false, value),
            0xa1 => self.slave.write(true, value),
            ELCR1 => self.master.elcr = value & ELCR1_MASK,
            ELCR2 => self.slave.elcr = value & ELCR2_MASK,
            _ => return Err(BusError::NoRegister),
        }
        self.update();
        Ok(())
    }
}

impl PortIo for Pic {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        self.read_port(port).map(u32::from)
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        self.write_port(port, low_byte(value))
    }
}

impl Device for Pic {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.master.reset();
        self.slave.reset();
        self.update();
    }
}
