//! The buses a device may sit on.

use thiserror::Error;

/// Why a device did not take part in a bus cycle. The bus then behaves as if nobody had answered:
/// reads give all ones, writes are lost, and the access is logged at a limited rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BusError {
    /// No register lives at this address.
    #[error("No register here")]
    NoRegister,
    /// The register exists, but not for this width or alignment.
    #[error("Register does not take this width")]
    Width,
}

/// What a bus cycle gives back; see [`BusError`] for what the bus does with errors.
pub type BusResult<T> = Result<T, BusError>;

/// The width of a port access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessWidth {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits.
    Dword,
}

impl AccessWidth {
    /// The width in bytes: 1, 2 or 4.
    #[must_use]
    pub fn bytes(self) -> u16 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }

    /// The bits of a value of this width.
    #[must_use]
    pub fn mask(self) -> u32 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Dword => 0xffff_ffff,
        }
    }
}

/// I/O ports. `port` is the absolute port number. The bus hands on the width the CPU used; a device
/// with 8-bit registers only answers [`BusError::Width`] to wider accesses, and the bus then splits
/// them into byte cycles at consecutive ports, as the ISA bridge does.
pub trait PortIo {
    /// Reads a port; the value's upper bits beyond `width` are ignored.
    ///
    /// # Errors
    /// No register, or not of this width.
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32>;

    /// Writes a port; the value's upper bits beyond `width` are zero.
    ///
    /// # Errors
    /// No register, or not of this width.
    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()>;
}

/// Memory-mapped registers. `offset` counts from the start of the range the device was mapped at;
/// `data` is 1 to 64 bytes long, little-endian, and may be misaligned: guests are hostile.
pub trait Mmio {
    /// Reads `data.len()` bytes.
    ///
    /// # Errors
    /// No register, or not of this width.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> BusResult<()>;

    /// Writes `data`.
    ///
    /// # Errors
    /// No register, or not of this width.
    fn write(&mut self, offset: u64, data: &[u8]) -> BusResult<()>;
}

/// The 256 bytes of a PCI function's configuration space, by aligned double words.
pub trait PciConfig {
    /// Reads the double word at `offset` (0, 4, ... 252).
    fn read(&mut self, offset: u8) -> u32;

    /// Writes the bytes of the double word at `offset` that `mask` selects (ff per byte enabled);
    /// `value` is already shifted into place.
    fn write(&mut self, offset: u8, value: u32, mask: u32);
}
