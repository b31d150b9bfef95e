//! The compiled loops: each a ROM, and a program of the host with the same machine code.

/// A compiled loop, of 20 to 150 million instructions (that depends on the C compiler).
pub struct Loop {
    /// Its name, unique among all images; it ends in `-32` for 32-bit code, and in `-large-pages`
    /// where memory is not mapped with 4 KiB pages.
    pub name: &'static str,
    /// What it spends its time with.
    pub group: Group,
    /// 64 for long mode, 32 for protected mode; both with paging.
    pub bits: u32,
    /// Whether it needs a processor with AVX.
    pub avx: bool,
    /// The image of the ROM.
    pub rom: &'static [u8],
    /// A static executable for Linux that prints the same lines.
    pub program: &'static [u8],
}

/// What a loop spends its time with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// General registers.
    General,
    /// Floating point, or vectors.
    Vector,
}

/// Every loop.
pub static LOOPS: &[Loop] = include!(concat!(env!("OUT_DIR"), "/loops.rs"));
