//! A case in the making.

use trivium_cpu::model::FeatureSet;

use super::random::Rng;
use super::segments::{self, FS, GS, SS};
use super::state;
use crate::case::{Case, CaseId, Kind, LdtEntry, Patch, Width};
use crate::layout::{CODE, OPEN_CODE, region_of};
use crate::state::UserState;

/// Number of RSP among the general registers.
pub(super) const RSP: u8 = 4;

/// A case in the making.
pub(super) struct Draft {
    pub rng: Rng,
    pub width: Width,
    pub state: UserState,
    pub memory: Vec<Patch>,
    /// Empty if the host grants none.
    pub ldt: Vec<Option<LdtEntry>>,
    /// General registers that must keep their values, a bit for each.
    pub pinned: u16,
    /// Vector registers that must.
    pub pinned_vectors: u16,
    /// Linear address of the code.
    pub code_at: u64,
    pub limit: u32,
}

impl Draft {
    /// A case with any state, all of whose segments are good.
    pub fn new(mut rng: Rng, width: Width, features: FeatureSet, ldt: bool) -> Self {
        let state = state::any(&mut rng, width, features);
        let ldt = if ldt { segments::table() } else { Vec::new() };
        let mut draft = Self {
            rng,
            width,
            state,
            memory: Vec::new(),
            ldt,
            pinned: 0,
            pinned_vectors: 0,
            code_at: CODE.start,
            limit: 4096,
        };
        state::choose_segments(&mut draft);
        state::choose_stack(&mut draft);
        draft
    }

    /// Whether there is a table of local descriptors.
    pub const fn has_ldt(&self) -> bool {
        !self.ldt.is_empty()
    }

    /// A selector that an instruction may try to load.
    pub fn any_selector(&mut self) -> u16 {
        let ldt = self.has_ldt();
        segments::any_selector(&mut self.rng, ldt)
    }

    /// General registers of this width.
    pub const fn registers(&self) -> u64 {
        match self.width {
            Width::Bits64 => 16,
            _ => 8,
        }
    }

    /// The bits of a general register that code of this width can have.
    pub const fn register_mask(&self) -> u64 {
        match self.width {
            Width::Bits64 => u64::MAX,
            _ => 0xffff_ffff,
        }
    }

    /// Gives a register a value that it must keep. `bits` of it count; the others stay.
    pub fn pin_low(&mut self, register: u8, bits: u32, value: u64) {
        let mask = (u64::MAX >> (64 - bits)) & self.register_mask();
        let n = usize::from(register & 15);
        self.state.regs[n] = self.state.regs[n] & !mask | value & mask;
        self.pinned |= 1 << n;
    }

    /// Gives a register a value that it must keep.
    pub fn pin(&mut self, register: u8, value: u64) {
        self.pin_low(register, 64, value);
    }

    /// Whether a register must keep its value.
    pub const fn is_pinned(&self, register: u8) -> bool {
        self.pinned >> (register & 15) & 1 != 0
    }

    /// The entry that a segment register selects, if it is of the local table.
    pub fn local(&self, segment: usize) -> Option<LdtEntry> {
        let selector = self.state.selectors[segment];
        let entry = self.ldt.get(usize::from(selector >> 3)).copied().flatten();
        entry.filter(|_| selector & 4 != 0)
    }

    /// The linear address where a segment begins.
    pub fn base(&self, segment: usize) -> u64 {
        match (self.width, segment) {
            (Width::Bits64, FS) => self.state.fs_base,
            (Width::Bits64, GS) => self.state.gs_base,
            (Width::Bits64, _) => 0,
            _ => self.local(segment).map_or(0, |e| u64::from(e.base)),
        }
    }

    /// Bits of the stack pointer that count.
    pub fn stack_bits(&self) -> u32 {
        match self.width {
            Width::Bits64 => 64,
            _ if self.local(SS).is_some_and(|e| !e.big) => 16,
            _ => 32,
        }
    }

    /// The linear address of an offset in a segment.
    pub fn linear(&self, segment: usize, offset: u64) -> u64 {
        let sum = self.base(segment).wrapping_add(offset);
        if self.width == Width::Bits64 { sum } else { sum & 0xffff_ffff }
    }

    /// Puts bytes into memory, as far as it is mapped and not code.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = address;
        while !rest.is_empty() {
            let len = match region_of(at) {
                Some(region) => {
                    let len = rest.len().min((region.end() - at) as usize);
                    if *region != CODE && *region != OPEN_CODE {
                        self.memory.push(Patch { address: at, bytes: rest[..len].to_vec() });
                    }
                    len
                }
                None => 1,
            };
            rest = &rest[len..];
            at = at.wrapping_add(len as u64);
        }
    }

    /// Puts a value of so many bytes into memory.
    pub fn put_value(&mut self, address: u64, value: u64, size: usize) {
        let bytes = value.to_le_bytes();
        self.put(address, &bytes[..size.min(8)]);
    }

    /// RIP of a linear address of code.
    pub fn rip_of(&self, linear: u64) -> u64 {
        let offset = linear.wrapping_sub(self.base(segments::CS));
        if self.width == Width::Bits64 { offset } else { offset & 0xffff_ffff }
    }

    /// The case.
    pub fn finish(mut self, id: CaseId, kind: Kind, code: Vec<u8>) -> Case {
        self.state.rip = self.rip_of(self.code_at);
        Case {
            id,
            kind,
            width: self.width,
            code_at: self.code_at,
            code,
            state: self.state,
            memory: self.memory,
            ldt: self.ldt,
            limit: self.limit,
        }
    }
}
