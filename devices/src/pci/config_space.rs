//! The 256 bytes of a function's configuration space, with which bits software may write.
//! PCI Local Bus Specification 2.1, chapter 6.

use trivium_chipset::StateError;

use super::bar::Bar;

/// Bytes of configuration space.
const SIZE: usize = 256;

/// Registers of the type 00h header.
pub mod reg {
    /// Command, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u8 = 0x06;
    /// Where the list of capabilities begins (revision 2.2).
    pub const CAPABILITIES: u8 = 0x34;
    /// Interrupt line, 8 bits: of no effect, for software to take notes.
    pub const INTERRUPT_LINE: u8 = 0x3c;
}

/// Bits of the command register's low byte.
pub mod command {
    /// The function answers at its ports.
    pub const IO_SPACE: u8 = 1 << 0;
    /// The function answers at its memory.
    pub const MEMORY_SPACE: u8 = 1 << 1;
    /// The function may be a bus master.
    pub const BUS_MASTER: u8 = 1 << 2;
}

/// Bits of the status register.
pub mod status {
    /// There is a list of capabilities.
    pub const CAPABILITIES: u16 = 1 << 4;
    /// Received master abort: nobody answered this function as a master.
    pub const MASTER_ABORT: u16 = 1 << 13;
}

/// What a function is: the read-only head of its configuration space.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class, programming interface: 24 bits.
    pub class: u32,
    /// 80h in function 0 of a device with several functions.
    pub header_type: u8,
    /// Which of INTA# to INTD# (1 to 4) the function drives; 0 for none.
    pub interrupt_pin: u8,
}

/// A register that is not plain read-only zero: its reset value, and which bits can be written.
#[derive(Debug, Clone, Copy)]
pub struct Register {
    /// Where it begins; a register does not cross a double word.
    pub offset: u8,
    /// 1, 2 or 4 bytes.
    pub bytes: u8,
    /// Value after reset.
    pub reset: u32,
    /// Bits that software can write.
    pub writable: u32,
    /// Bits that are cleared by writing ones.
    pub clear: u32,
    /// Bits that the function itself changes.
    pub volatile: u32,
}

impl Register {
    const fn new(offset: u8, bytes: u8, reset: u32, writable: u32) -> Self {
        Self { offset, bytes, reset, writable, clear: 0, volatile: 0 }
    }

    /// A byte register.
    #[must_use]
    pub const fn byte(offset: u8, reset: u8, writable: u8) -> Self {
        Self::new(offset, 1, reset as u32, writable as u32)
    }

    /// A 16-bit register.
    #[must_use]
    pub const fn word(offset: u8, reset: u16, writable: u16) -> Self {
        Self::new(offset, 2, reset as u32, writable as u32)
    }

    /// A 32-bit register.
    #[must_use]
    pub const fn dword(offset: u8, reset: u32, writable: u32) -> Self {
        Self::new(offset, 4, reset, writable)
    }

    /// The same register, of which writing ones clears these bits.
    #[must_use]
    pub const fn cleared_by_ones(self, clear: u32) -> Self {
        Self { clear, ..self }
    }

    /// The same register, of which the function itself changes these bits.
    #[must_use]
    pub const fn changing(self, volatile: u32) -> Self {
        Self { volatile, ..self }
    }

    /// The status register of the header: bits 8 and 11 to 15 are cleared by writing ones.
    #[must_use]
    pub const fn status(reset: u16) -> Self {
        Self::word(reg::STATUS, reset, 0).cleared_by_ones(0xf900)
    }
}

/// A function's configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpace {
    data: [u8; SIZE],
    writable: [u8; SIZE],
    clear: [u8; SIZE],
    volatile: [u8; SIZE],
}

impl ConfigSpace {
    /// Configuration space in its reset state.
    #[must_use]
    pub fn new(identity: &Identity, registers: &[Register]) -> Self {
        let none = [0; SIZE];
        let mut space = Self { data: none, writable: none, clear: none, volatile: none };
        let &Identity { vendor, device, revision, class, header_type, interrupt_pin } = identity;
        let class = class << 8 | u32::from(revision);
        for register in [
            Register::word(0x00, vendor, 0),
            Register::word(0x02, device, 0),
            Register::dword(0x08, class, 0),
            Register::byte(0x0e, header_type, 0),
            Register::byte(0x3d, interrupt_pin, 0),
        ] {
            space.define(&register);
        }
        for register in registers {
            space.define(register);
        }
        space
    }

    fn define(&mut self, register: &Register) {
        let bytes = usize::from(register.bytes);
        let first = usize::from(register.offset);
        copy(&mut self.data, first, register.reset, bytes);
        copy(&mut self.writable, first, register.writable, bytes);
        copy(&mut self.clear, first, register.clear, bytes);
        copy(&mut self.volatile, first, register.volatile, bytes);
    }

    /// The same with base address registers.
    #[must_use]
    pub fn with_bars(mut self, bars: &[Bar]) -> Self {
        for register in bars.iter().flat_map(Bar::registers).flatten() {
            self.define(&register);
        }
        self
    }

    /// Adds a capability at the end of the function's list: its ID, where it is (a multiple of 4,
    /// 40h or more), and what follows ID and pointer. Revision 2.2, section 6.7.
    pub fn add_capability(&mut self, id: u8, offset: u8, body: &[Register]) {
        let mut last = reg::CAPABILITIES;
        // A list of capabilities has not more entries than there is room for.
        for _ in 0..SIZE / 4 {
            match self.byte(last) {
                0 => break,
                next => last = next.wrapping_add(1),
            }
        }
        self.define(&Register::byte(last, offset, 0));
        self.define(&Register::byte(offset, id, 0));
        for register in body {
            self.define(register);
        }
        let low = self.byte(reg::STATUS) | status::CAPABILITIES as u8;
        self.set_byte(reg::STATUS, low);
    }

    /// The double word that holds `offset`.
    #[must_use]
    pub fn dword(&self, offset: u8) -> u32 {
        load(&self.data, offset)
    }

    /// One byte.
    #[must_use]
    pub fn byte(&self, offset: u8) -> u8 {
        self.data[usize::from(offset)]
    }

    /// Puts the double word that holds `offset`, whatever software may write.
    pub fn set_dword(&mut self, offset: u8, value: u32) {
        copy(&mut self.data, usize::from(offset & !3), value, 4);
    }

    /// Puts a byte, whatever software may write.
    pub fn set_byte(&mut self, offset: u8, value: u8) {
        self.data[usize::from(offset)] = value;
    }

    /// A write by software: of the bits in `mask`, those that can be written.
    pub fn write(&mut self, offset: u8, value: u32, mask: u32) {
        let old = self.dword(offset);
        let writable = load(&self.writable, offset) & mask;
        let cleared = load(&self.clear, offset) & mask & value;
        let new = ((old & !writable) | (value & writable)) & !cleared;
        copy(&mut self.data, usize::from(offset & !3), new, 4);
    }

    /// The bytes, to be saved.
    #[must_use]
    pub fn to_saved(&self) -> Vec<u8> {
        self.data.to_vec()
    }

    /// Checks saved bytes: they must be of the same function, and differ from its present state
    /// only where registers can change.
    ///
    /// # Errors
    /// They are of another function, or are no configuration space.
    pub fn check_saved(&self, saved: &[u8]) -> Result<[u8; SIZE], StateError> {
        let data: [u8; SIZE] =
            saved.try_into().map_err(|_| StateError::Impossible("Not 256 bytes"))?;
        let masks = self.writable.iter().zip(&self.clear).zip(&self.volatile);
        let changeable = masks.map(|((writable, clear), volatile)| writable | clear | volatile);
        let fixed = changeable.zip(data.iter().zip(&self.data)).all(|(c, (a, b))| a & !c == b & !c);
        fixed.then_some(data).ok_or(StateError::Impossible("Another PCI function"))
    }

    /// Takes bytes that [`Self::check_saved`] has passed.
    pub fn set_saved(&mut self, data: [u8; SIZE]) {
        self.data = data;
    }
}

/// The double word around `offset`, little-endian.
fn load(bytes: &[u8; SIZE], offset: u8) -> u32 {
    let first = usize::from(offset & !3);
    (0..4).fold(0, |value, i| value | u32::from(bytes[first + i]) << (8 * i))
}

/// Puts the low `count` bytes of a value; bytes beyond the space are lost.
fn copy(bytes: &mut [u8; SIZE], first: usize, value: u32, count: usize) {
    for (byte, new) in bytes.iter_mut().skip(first).zip(value.to_le_bytes()).take(count) {
        *byte = new;
    }
}
