//! What engines run: code, and the state and memory that it begins with.

use serde::{Deserialize, Serialize};

use crate::state::UserState;

/// Where a case comes from: these three make it anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CaseId {
    /// The campaign's seed.
    pub seed: u64,
    /// The number of the case in it.
    pub index: u64,
}

/// What a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One instruction, made from the table of all encodings.
    Encoding,
    /// Random bytes.
    Bytes,
    /// Several instructions.
    Sequence,
    /// Several instructions that a loop repeats.
    Loop,
    /// Code that modifies itself.
    Modifying,
    /// A repeated string instruction that a fault ends half-way.
    Repeat,
    /// Written by hand, or minimised.
    Manual,
}

/// Width of code, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // The names say it.
pub enum Width {
    Bits16,
    Bits32,
    Bits64,
}

impl Width {
    /// 16, 32 or 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bits16 => 16,
            Self::Bits32 => 32,
            Self::Bits64 => 64,
        }
    }
}

/// An entry of the local descriptor table, with what Linux's `modify_ldt` lets a program choose:
/// privilege level 3, accessed, not conforming, not 64-bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LdtEntry {
    /// Base address.
    pub base: u32,
    /// The limit's 20 bits.
    pub limit: u32,
    /// The limit counts pages (G).
    pub pages: bool,
    /// A code segment, else data.
    pub code: bool,
    /// Data that may be written, or code that may be read.
    pub open: bool,
    /// Data that expands down.
    pub expand_down: bool,
    /// 32-bit (D/B).
    pub big: bool,
    /// Present.
    pub present: bool,
}

impl LdtEntry {
    /// The descriptor as it lies in memory. Intel SDM vol. 3A, 3.4.5.
    #[must_use]
    pub const fn descriptor(&self) -> u64 {
        let (base, limit) = (self.base as u64, self.limit as u64);
        let kind =
            (self.code as u64) << 3 | (self.expand_down as u64) << 2 | (self.open as u64) << 1 | 1;
        // S, and DPL 3.
        let access = kind | 0x70 | (self.present as u64) << 7;
        let flags = (self.big as u64) << 2 | (self.pages as u64) << 3;
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | access << 40
            | (limit >> 16 & 15) << 48
            | flags << 52
            | (base >> 24) << 56
    }
}

/// Bytes at an address in one of the [regions](crate::layout::REGIONS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Linear address of the first.
    pub address: u64,
    /// They.
    pub bytes: Vec<u8>,
}

/// A case: run it until it ends by an exception.
///
/// Behind its code lies INT3, so code that is done ends by #BP; with TF in RFLAGS it ends by #DB
/// after one instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Where it comes from.
    pub id: CaseId,
    /// What it is about.
    pub kind: Kind,
    /// Width of the code that CS selects.
    pub width: Width,
    /// Linear address of the code, in [`CODE`](crate::layout::CODE) or
    /// [`OPEN_CODE`](crate::layout::OPEN_CODE). It may end where the region does.
    pub code_at: u64,
    /// The code.
    pub code: Vec<u8>,
    /// State at the start.
    pub state: UserState,
    /// Memory where it is not what the region is filled with; the code not included.
    pub memory: Vec<Patch>,
    /// The first entries of the local descriptor table; `None` is an empty one.
    pub ldt: Vec<Option<LdtEntry>>,
    /// An engine that counts gives up after so many instructions, the INT3 behind the code included.
    pub limit: u32,
}

impl Case {
    /// All bytes that lie in memory when the case begins and are not what regions are filled with.
    pub fn patches(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let memory = self.memory.iter().map(|p| (p.address, p.bytes.as_slice()));
        memory.chain([(self.code_at, self.code.as_slice())])
    }
}
