//! Writes cases as records for the child.

use super::arena::{self, INPUT, LINE, REGION_BYTES, child_address};
use super::record::{LDT_ENTRY, LINE_ENTRY, case as field, context, ucontext};
use super::xsave::Xsave;
use crate::case::{Case, LdtEntry};
use crate::layout::{LDT_ENTRIES, REGIONS};

/// RFLAGS that `rt_sigreturn` does not load: NT and ID.
const FLAGS_APART: u64 = 1 << 14 | 1 << 21;
/// RFLAGS that are always set: IF and the reserved bit 1.
const FLAGS_ALWAYS: u64 = 0x202;

/// What the regions are filled with, one behind the other.
pub(super) fn pristine() -> Vec<u8> {
    REGIONS.iter().flat_map(|r| r.initial()).collect()
}

/// The place of an address in the regions, one behind the other.
pub(super) fn place(address: u64) -> Option<usize> {
    let mut before = 0;
    for region in &REGIONS {
        if region.contains(address) {
            return Some(before + (address - region.start) as usize);
        }
        before += region.len as usize;
    }
    None
}

/// Memory as it is when a case begins.
pub(super) struct Memory {
    /// What regions are filled with.
    pristine: Vec<u8>,
    /// The same with the case's own bytes.
    pub before: Vec<u8>,
    /// Lines in which the two may differ, in the order in which they were touched.
    pub lines: Vec<usize>,
    touched: Vec<bool>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let pristine = pristine();
        let (before, touched) = (pristine.clone(), vec![false; REGION_BYTES / LINE]);
        Self { pristine, before, lines: Vec::new(), touched }
    }

    /// Makes it that of a case.
    pub(super) fn begin(&mut self, case: &Case) {
        self.restore();
        for (address, bytes) in case.patches() {
            // A patch lies in one region, which `refuses` sees to.
            let Some(at) = place(address) else { continue };
            let Some(to) = self.before.get_mut(at..at + bytes.len()) else { continue };
            to.copy_from_slice(bytes);
            if bytes.is_empty() {
                continue;
            }
            for line in at / LINE..=(at + bytes.len() - 1) / LINE {
                if !std::mem::replace(&mut self.touched[line], true) {
                    self.lines.push(line);
                }
            }
        }
    }

    fn restore(&mut self) {
        for line in self.lines.drain(..) {
            let bytes = line * LINE..(line + 1) * LINE;
            self.before[bytes.clone()].copy_from_slice(&self.pristine[bytes]);
            self.touched[line] = false;
        }
    }

    /// The bytes of a line before any case.
    pub(super) fn pristine_line(&self, line: usize) -> &[u8] {
        &self.pristine[line * LINE..(line + 1) * LINE]
    }
}

/// Writes records.
pub(super) struct Encoder {
    pub xsave: Xsave,
    memory: Memory,
    /// The child's local descriptor table after the records so far.
    ldt: [Option<LdtEntry>; LDT_ENTRIES],
    /// The records so far.
    pub bytes: Vec<u8>,
    /// The number of the next record.
    pub tag: u64,
}

impl Encoder {
    pub(super) fn new(xsave: Xsave) -> Self {
        let (memory, bytes) = (Memory::new(), Vec::new());
        Self { xsave, memory, ldt: [None; LDT_ENTRIES], bytes, tag: 1 }
    }

    /// A new child has an empty local descriptor table.
    pub(super) fn forget_child(&mut self) {
        self.ldt = [None; LDT_ENTRIES];
    }

    /// Begins a batch.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Adds a case, if there is room for it. There is for one, whatever it is.
    pub(super) fn add(&mut self, case: &Case) -> bool {
        self.memory.begin(case);
        let start = self.bytes.len();
        let lines_at = (field::XSAVE + self.xsave.frame_size()).next_multiple_of(LINE);
        let lines = self.memory.lines.len();
        let ldt_at = lines_at + lines * LINE_ENTRY;
        let size = (ldt_at + LDT_ENTRIES * LDT_ENTRY).next_multiple_of(LINE);
        if start + size > arena::INPUT_SIZE {
            return false;
        }
        self.bytes.resize(start + size, 0);
        let ldt_count = self.descriptors(case, start + ldt_at);
        let record = &mut self.bytes[start..];
        let s = &case.state;
        put(record, field::SIZE, size as u64);
        put(record, field::LINE_COUNT, lines as u64);
        put(record, field::LINES, lines_at as u64);
        put(record, field::LDT_COUNT, ldt_count as u64);
        put(record, field::LDT, ldt_at as u64);
        let [es, _, _, ds, fs, gs] = s.selectors.map(u64::from);
        put(record, field::SELECTORS, es | ds << 16 | fs << 32 | gs << 48);
        put(record, field::BASES, s.fs_base);
        put(record, field::BASES + 8, s.gs_base);
        put(record, field::TAG, self.tag);
        put(record, field::FLAGS, s.rflags & FLAGS_APART | FLAGS_ALWAYS);
        frame(case, &mut record[field::FRAME + 8..], child_address(INPUT + start + field::XSAVE));
        self.xsave.put(s, &mut record[field::XSAVE..field::XSAVE + self.xsave.frame_size()]);
        let entries = record[lines_at..].chunks_exact_mut(LINE_ENTRY);
        for (entry, &line) in entries.zip(&self.memory.lines) {
            put(entry, 0, (line * LINE) as u64);
            entry[8..].copy_from_slice(&self.memory.before[line * LINE..(line + 1) * LINE]);
        }
        self.tag += 1;
        true
    }

    /// Writes what makes the child's table that of the case; gives the number of entries.
    fn descriptors(&mut self, case: &Case, at: usize) -> usize {
        let mut count = 0;
        for (n, have) in self.ldt.iter_mut().enumerate() {
            let want = case.ldt.get(n).copied().flatten();
            if *have != want {
                let bytes = user_desc(n, want);
                self.bytes[at + count * LDT_ENTRY..][..LDT_ENTRY].copy_from_slice(&bytes);
                *have = want;
                count += 1;
            }
        }
        count
    }
}

/// The `ucontext` through which the case is entered.
fn frame(case: &Case, frame: &mut [u8], xsave: u64) {
    // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS.
    put(frame, ucontext::FLAGS, 7);
    put(frame, ucontext::STACK, child_address(arena::SIGNAL_STACK));
    put(frame, ucontext::STACK + 8, SS_AUTODISARM);
    put(frame, ucontext::STACK + 16, arena::SIGNAL_STACK_SIZE as u64);
    put(frame, ucontext::MASK, !super::setup::signals_taken());
    let context = &mut frame[ucontext::CONTEXT..ucontext::MASK];
    let s = &case.state;
    for (n, &register) in context::ORDER.iter().enumerate() {
        put(context, 8 * n, s.regs[register]);
    }
    put(context, context::RIP, s.rip);
    put(context, context::RFLAGS, s.rflags);
    let [_, cs, ss, ..] = s.selectors;
    context[context::CS..][..2].copy_from_slice(&cs.to_le_bytes());
    context[context::SS..][..2].copy_from_slice(&ss.to_le_bytes());
    put(context, context::XSAVE, xsave);
}

/// The alternate stack is not in use while a signal is handled, wherever RSP points.
const SS_AUTODISARM: u64 = 1 << 31;

/// What `modify_ldt` takes. Linux, arch/x86/include/uapi/asm/ldt.h.
fn user_desc(number: usize, entry: Option<LdtEntry>) -> [u8; LDT_ENTRY] {
    const READ_EXEC_ONLY: u32 = 1 << 3;
    const NOT_PRESENT: u32 = 1 << 5;
    const USEABLE: u32 = 1 << 6;
    let empty = READ_EXEC_ONLY | NOT_PRESENT;
    let (base, limit, flags) = entry.map_or((0, 0, empty), |e| {
        let contents = u32::from(e.code) << 1 | u32::from(e.expand_down);
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let flags = u32::from(e.big)
            | contents << 1
            | bit(!e.open, READ_EXEC_ONLY)
            | bit(e.pages, 1 << 4)
            | bit(!e.present, NOT_PRESENT);
        // The one that would be taken for a request to clear the entry gets its AVL bit set.
        let odd = (e.base, e.limit, flags) == (0, 0, empty);
        (e.base, e.limit, flags | bit(odd, USEABLE))
    });
    let mut bytes = [0; LDT_ENTRY];
    for (to, word) in bytes.chunks_exact_mut(4).zip([number as u32, base, limit, flags]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}
