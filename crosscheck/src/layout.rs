//! The address space of a case: the same on every engine.
//!
//! All that is not listed in [`REGIONS`] is not mapped. The regions below 2 GiB serve code of
//! every width; 16-bit code reaches them through segments of the local descriptor table.

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;

/// What user code may do with a region; it may read all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Its first address, on a page boundary.
    pub start: u64,
    /// Bytes, whole pages.
    pub len: u64,
    /// Whether it may be written.
    pub write: bool,
    /// Whether it may be executed.
    pub execute: bool,
    /// What its bytes are when a case begins, but for the case's own.
    pub fill: Fill,
}

/// The bytes of a region before a case puts its own there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// INT3 (CCh): what goes astray ends.
    Int3,
    /// [`pattern`].
    Pattern,
}

/// Code that cannot be written.
pub const CODE: Region =
    Region { start: 0x4000_0000, len: 2 * PAGE, write: false, execute: true, fill: Fill::Int3 };
/// Code that may modify itself.
pub const OPEN_CODE: Region =
    Region { start: 0x4100_0000, len: 2 * PAGE, write: true, execute: true, fill: Fill::Int3 };
/// Data.
pub const DATA: Region =
    Region { start: 0x5000_0000, len: 4 * PAGE, write: true, execute: false, fill: Fill::Pattern };
/// Data that cannot be written: the page after [`DATA`]. What follows it is not mapped.
pub const READ_ONLY: Region =
    Region { start: 0x5000_4000, len: PAGE, write: false, execute: false, fill: Fill::Pattern };
/// Stack.
pub const STACK: Region =
    Region { start: 0x6000_0000, len: 2 * PAGE, write: true, execute: false, fill: Fill::Pattern };
/// Data above 4 GiB, for 64-bit code.
pub const HIGH: Region = Region {
    start: 0x1234_5000_0000,
    len: 2 * PAGE,
    write: true,
    execute: false,
    fill: Fill::Pattern,
};

/// All that is mapped.
pub const REGIONS: [Region; 6] = [CODE, OPEN_CODE, DATA, READ_ONLY, STACK, HIGH];

/// Entries of the local descriptor table; those that a case does not set are zero.
pub const LDT_ENTRIES: usize = 16;

/// Selectors of the global descriptor table that user code may load: those of Linux.
pub mod selector {
    /// 32-bit code.
    pub const CODE32: u16 = 0x23;
    /// Data and stack.
    pub const DATA: u16 = 0x2b;
    /// 64-bit code.
    pub const CODE64: u16 = 0x33;

    /// The selector of an entry of the local descriptor table, at privilege level 3.
    #[must_use]
    pub const fn local(entry: u16) -> u16 {
        entry << 3 | 7
    }
}

impl Region {
    /// The first address behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Whether an address is in it.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end()
    }

    /// Its bytes when a case begins, but for the case's own.
    #[must_use]
    pub fn initial(&self) -> Vec<u8> {
        match self.fill {
            Fill::Int3 => vec![0xcc; self.len as usize],
            Fill::Pattern => (self.start..self.end()).map(pattern).collect(),
        }
    }
}

/// The region of an address.
#[must_use]
pub fn region_of(address: u64) -> Option<&'static Region> {
    REGIONS.iter().find(|r| r.contains(address))
}

/// A byte for an address: no two neighbours are alike, and no page is like another.
#[must_use]
pub const fn pattern(address: u64) -> u8 {
    let mixed = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}
