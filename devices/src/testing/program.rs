//! Any byte string as a program of steps.

use trivium_chipset::{AccessWidth, Device};

use super::{Fixture, Step, check};

/// The most steps of a program; what follows is not looked at.
const MAX_STEPS: usize = 256;
/// Calls at deadlines within a step: a program must not take long.
const MAX_FIRES: u32 = 32;

/// Where a device's registers are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Space {
    /// I/O ports.
    pub ports: &'static [u16],
    /// Offsets of registers in memory.
    pub mmio: &'static [u64],
    /// It has a PCI configuration space.
    pub pci: bool,
}

impl Space {
    /// Only I/O ports.
    #[must_use]
    pub const fn ports(ports: &'static [u16]) -> Self {
        Self { ports, mmio: &[], pci: false }
    }

    /// Only registers in memory.
    #[must_use]
    pub const fn mmio(mmio: &'static [u64]) -> Self {
        Self { ports: &[], mmio, pci: false }
    }

    /// A PCI function, which may have ports.
    #[must_use]
    pub const fn pci(ports: &'static [u16]) -> Self {
        Self { ports, mmio: &[], pci: true }
    }
}

/// A kind of access.
#[derive(Clone, Copy)]
enum Bus {
    Port,
    Memory,
    Configuration,
}

/// A program that is being read.
struct Reader<'a> {
    bytes: std::slice::Iter<'a, u8>,
    space: &'a Space,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.bytes.next().copied()
    }

    /// The next `N` bytes, those beyond the end zero.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte().unwrap_or(0))
    }

    fn dword(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn bus(&mut self) -> Option<Bus> {
        let Space { ports, mmio, pci } = self.space;
        let known = [
            (!ports.is_empty(), Bus::Port),
            (!mmio.is_empty(), Bus::Memory),
            (*pci, Bus::Configuration),
        ];
        let known: Vec<_> = known.iter().filter(|(there, _)| *there).map(|(_, bus)| *bus).collect();
        match known[..] {
            [] => None,
            [only] => Some(only),
            _ => known.get(usize::from(self.byte()?) % known.len()).copied(),
        }
    }

    /// One of the known places, or now and then any.
    fn place<T: Copy>(&mut self, known: &[T], any: fn(&mut Self) -> T) -> Option<T> {
        match self.byte()? {
            0xff => Some(any(self)),
            n => known.get(usize::from(n) % known.len().max(1)).copied(),
        }
    }

    fn access(&mut self, write: bool) -> Option<Step> {
        Some(match self.bus()? {
            Bus::Port => {
                let port = self.place(self.space.ports, |r| u16::from_le_bytes(r.array()))?;
                let width = self.width();
                match write {
                    true => Step::PortWrite(port, width, self.value(width)),
                    false => Step::PortRead(port, width),
                }
            }
            Bus::Memory => {
                let offset = self.place(self.space.mmio, |r| u64::from_le_bytes(r.array()))?;
                let length = self.length();
                match write {
                    true => Step::MmioWrite(offset, self.bytes(length)),
                    false => Step::MmioRead(offset, length),
                }
            }
            Bus::Configuration => {
                let (offset, mask) = (self.byte()? & 0xfc, self.byte()?);
                let mask = (0..4).filter(|n| mask & 1 << n == 0).map(|n| 0xff << (8 * n)).sum();
                match write {
                    true => Step::ConfigWrite(offset, self.dword() & mask, mask),
                    false => Step::ConfigRead(offset),
                }
            }
        })
    }

    fn width(&mut self) -> AccessWidth {
        match self.byte() {
            Some(0xf0..0xf8) => AccessWidth::Word,
            Some(0xf8..) => AccessWidth::Dword,
            _ => AccessWidth::Byte,
        }
    }

    fn value(&mut self, width: AccessWidth) -> u32 {
        match width {
            AccessWidth::Byte => self.byte().unwrap_or(0).into(),
            AccessWidth::Word => u16::from_le_bytes(self.array()).into(),
            AccessWidth::Dword => self.dword(),
        }
    }

    /// Mostly 4 or 8, else 1 to 64.
    fn length(&mut self) -> usize {
        match self.byte() {
            Some(n @ 1..=64) => n.into(),
            Some(0xe0..) => 8,
            _ => 4,
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte().unwrap_or(0)).collect()
    }

    /// Nanoseconds: from one to centuries.
    fn span(&mut self) -> u64 {
        let [exponent, mantissa] = self.array();
        u64::from(mantissa) << (exponent % 56)
    }

    fn step(&mut self) -> Option<Step> {
        Some(match self.byte()? {
            0x00..0x40 => self.access(false)?,
            0x40..0xa0 => self.access(true)?,
            0xa0..0xc0 => Step::Advance(self.span()),
            0xc0..0xd0 => Step::NextDeadline,
            0xd0..0xf0 => Step::Poke(self.byte()?),
            0xf0..0xf8 => Step::SaveRestore,
            0xf8..0xfc => {
                let [low, high, to] = self.array();
                Step::Corrupt(u16::from_le_bytes([low, high]).into(), to)
            }
            0xfc.. => Step::Reset,
        })
    }
}

/// The steps that a byte string stands for.
pub(super) fn steps(space: &Space, bytes: &[u8]) -> Vec<Step> {
    let mut reader = Reader { bytes: bytes.iter(), space };
    std::iter::from_fn(|| reader.step()).take(MAX_STEPS).collect()
}

/// Runs a byte string as a program; see [`check`].
pub(super) fn run<D: Device>(space: &Space, fixture: fn() -> Fixture<D>, bytes: &[u8]) {
    check(|| fixture().with_max_fires(MAX_FIRES), &steps(space, bytes));
}
