//! The 256 bytes of a function's configuration space, with which bits software may write.
//! PCI Local Bus Specification 2.1, chapter 6.

use trivium_chipset::StateError;

/// Bytes of configuration space.
const SIZE: usize = 256;

/// Registers of the type 00h header.
pub mod reg {
    /// Command, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Interrupt line, 8 bits: of no effect, for software to take notes.
    pub const INTERRUPT_LINE: u8 = 0x3c;
}

/// What a function is: the read-only head of its configuration space.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
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
    pub offset: u8,
    /// 1, 2 or 4 bytes.
    pub bytes: u8,
    pub reset: u32,
    pub writable: u32,
    /// Bits that are cleared by writing ones.
    pub clear: u32,
}

impl Register {
    /// A byte register.
    pub const fn byte(offset: u8, reset: u8, writable: u8) -> Self {
        Self { offset, bytes: 1, reset: reset as u32, writable: writable as u32, clear: 0 }
    }

    /// A 16-bit register.
    pub const fn word(offset: u8, reset: u16, writable: u16) -> Self {
        Self { offset, bytes: 2, reset: reset as u32, writable: writable as u32, clear: 0 }
    }

    /// A 32-bit register.
    pub const fn dword(offset: u8, reset: u32, writable: u32) -> Self {
        Self { offset, bytes: 4, reset, writable, clear: 0 }
    }

    /// The status register of the header: bits 8 and 11 to 15 are cleared by writing ones.
    pub const fn status(reset: u16) -> Self {
        Self { offset: 0x06, bytes: 2, reset: reset as u32, writable: 0, clear: 0xf900 }
    }
}

/// A function's configuration space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpace {
    data: [u8; SIZE],
    writable: [u8; SIZE],
    clear: [u8; SIZE],
}

impl ConfigSpace {
    /// Configuration space in its reset state.
    pub fn new(identity: &Identity, registers: &[Register]) -> Self {
        let mut space = Self { data: [0; SIZE], writable: [0; SIZE], clear: [0; SIZE] };
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
    }

    /// The double word that holds `offset`.
    pub fn dword(&self, offset: u8) -> u32 {
        load(&self.data, offset)
    }

    /// One byte.
    pub fn byte(&self, offset: u8) -> u8 {
        self.data[usize::from(offset)]
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
    pub fn to_saved(&self) -> Vec<u8> {
        self.data.to_vec()
    }

    /// Checks saved bytes: they must be of the same function, and differ from its present state
    /// only where registers can change.
    pub fn check_saved(&self, saved: &[u8]) -> Result<[u8; SIZE], StateError> {
        let data: [u8; SIZE] =
            saved.try_into().map_err(|_| StateError::Impossible("Not 256 bytes"))?;
        let changeable = self.writable.iter().zip(&self.clear).map(|(w, c)| w | c);
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
