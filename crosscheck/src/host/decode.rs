//! Reads outcomes from the child's records. The child may have been overwritten by a case, so no
//! length or offset in them is trusted.

use super::arena::{LINE, REGION_BYTES};
use super::encode::{Memory, place};
use super::record::{LINE_ENTRY, context, outcome as field};
use super::xsave::Xsave;
use trivium_cpu::bits::rflags;

use crate::case::Case;
use crate::layout::{self, REGIONS, selector};
use crate::outcome::{self, Change, Outcome, Stop};
use crate::state::UserState;

/// The first address that programs cannot have.
const USER_END: u64 = 0x7fff_ffff_f000;

/// INT1, also known as ICEBP.
const INT1: u8 = 0xf1;
/// The prefixes that it may have: segments, operand and address size, REP and REPNE.
const PREFIXES: [u8; 10] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3];

/// Reads records.
pub(super) struct Decoder {
    xsave: Xsave,
    memory: Memory,
    /// INT1 tells of itself instead of the next instruction.
    pub int1_tells_of_itself: bool,
}

/// Outcomes that make no sense: something wrote over them.
#[derive(Debug)]
pub(super) struct Garbled;

impl Decoder {
    pub(super) fn new(xsave: Xsave) -> Self {
        Self { xsave, memory: Memory::new(), int1_tells_of_itself: false }
    }

    /// The outcome of the case with this number, and what is left of the records behind its own.
    pub(super) fn take<'a>(
        &mut self,
        case: &Case,
        tag: u64,
        records: &'a [u8],
    ) -> Result<(Outcome, &'a [u8]), Garbled> {
        if word(records, field::TAG) != tag {
            return Err(Garbled);
        }
        let size = usize::try_from(word(records, field::SIZE)).map_err(|_| Garbled)?;
        let (record, rest) = records.split_at_checked(size).ok_or(Garbled)?;
        let lines_at = field::XSAVE + self.xsave.size;
        let lines_end = usize::try_from(word(record, field::LINES_END)).map_err(|_| Garbled)?;
        let lines = record.get(lines_at..lines_end).ok_or(Garbled)?;
        let mut state = self.state(record);
        let changes = self.changes(case, lines)?;
        let stop = stop(case, &state, record);
        if matches!(stop, Stop::Exception { vector: 1, .. }) && self.int1_tells_of_itself {
            self.pass_int1(case, &mut state, &changes);
        }
        Ok((Outcome { stop, state, changes }, rest))
    }

    /// Moves RIP behind INT1, if that is what ended the case: a single step ends elsewhere.
    fn pass_int1(&self, case: &Case, state: &mut UserState, changes: &[Change]) {
        if state.rflags & rflags::TF != 0 && state.rip != case.state.rip {
            return;
        }
        let byte = |n: u64| {
            let at = linear(case, state.selectors[1], state.rip.wrapping_add(n));
            let changed = changes.iter().find_map(|c| {
                let offset = usize::try_from(at.checked_sub(c.address)?).ok()?;
                c.bytes.get(offset)
            });
            changed.or_else(|| self.memory.before.get(place(at)?)).copied()
        };
        let code64 = state.selectors[1] == selector::CODE64;
        let is_prefix = |b: u8| PREFIXES.contains(&b) || code64 && b & 0xf0 == 0x40;
        let opcode = (0..15).find(|&n| !byte(n).is_some_and(is_prefix));
        if let Some(n) = opcode.filter(|&n| byte(n) == Some(INT1)) {
            state.rip = state.rip.wrapping_add(n + 1);
        }
    }

    fn state(&self, record: &[u8]) -> UserState {
        let mut state = UserState::default();
        let context = &record[field::CONTEXT..];
        for (n, &register) in context::ORDER.iter().enumerate() {
            state.regs[register] = word(context, 8 * n);
        }
        state.rip = word(context, context::RIP);
        state.rflags = word(context, context::RFLAGS);
        let selectors = word(record, field::SELECTORS).to_le_bytes();
        let [es, ds, fs, gs] = [0, 2, 4, 6].map(|n| half(&selectors, n));
        let (cs, ss) = (half(context, context::CS), half(context, context::SS));
        state.selectors = [es, cs, ss, ds, fs, gs];
        if state.selectors[1] != selector::CODE64 {
            // Other code has no upper half of RSP; what the frame has there is the kernel's.
            state.regs[4] &= 0xffff_ffff;
        }
        state.fs_base = word(record, field::BASES);
        state.gs_base = word(record, field::BASES + 8);
        self.xsave.get(&record[field::XSAVE..field::XSAVE + self.xsave.size], &mut state);
        state
    }

    /// What memory has become: the lines that the child sent are not what their regions are filled
    /// with, all others are.
    fn changes(&mut self, case: &Case, lines: &[u8]) -> Result<Vec<Change>, Garbled> {
        self.memory.begin(case);
        let mut sent = Vec::new();
        for entry in lines.chunks(LINE_ENTRY) {
            let place = usize::try_from(word(entry, 0)).map_err(|_| Garbled)?;
            let bytes = entry.get(8..LINE_ENTRY).ok_or(Garbled)?;
            if place >= REGION_BYTES || !place.is_multiple_of(LINE) {
                return Err(Garbled);
            }
            sent.push((place / LINE, bytes));
        }
        if !sent.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Garbled);
        }
        let mut all: Vec<usize> = sent.iter().map(|(line, _)| *line).collect();
        all.extend(&self.memory.lines);
        all.sort_unstable();
        all.dedup();
        let mut sent = sent.into_iter().peekable();
        let mut found = Vec::new();
        for line in all {
            let before = &self.memory.before[line * LINE..(line + 1) * LINE];
            let after = sent.next_if(|(l, _)| *l == line);
            let after = after.map_or_else(|| self.memory.pristine_line(line), |(_, bytes)| bytes);
            outcome::changes(address(line), before, after, &mut found);
        }
        Ok(found)
    }
}

/// The linear address of a line.
fn address(line: usize) -> u64 {
    let mut offset = (line * LINE) as u64;
    for region in &REGIONS {
        if offset < region.len {
            return region.start + offset;
        }
        offset -= region.len;
    }
    0
}

fn stop(case: &Case, state: &UserState, record: &[u8]) -> Stop {
    let context = &record[field::CONTEXT..];
    let signal = word(record, field::INFO) as i32;
    match signal {
        libc::SIGPROF => Stop::Endless,
        libc::SIGSYS if went_astray(case, state, record) => {
            Stop::Lost("Linux made a system call of it that is none of the case's".to_owned())
        }
        libc::SIGSYS => Stop::Syscall,
        _ => {
            let vector = word(context, context::VECTOR) as u8;
            let cr2 = if vector == 14 { word(context, context::CR2) } else { 0 };
            // Linux sets the bit of present pages for all addresses of its own, so that nobody
            // learns what it has there. For a case there is nothing.
            let hidden = if vector == 14 && cr2 >= USER_END { 1 } else { 0 };
            let error = word(context, context::ERROR) as u32 & !hidden;
            Stop::Exception { vector, error, cr2 }
        }
    }
}

/// Whether a system call was not one of the case's own instructions: SYSCALL and SYSENTER of 32-bit
/// code come back in the vDSO, of which there is none, and Linux emulates its vsyscall page.
fn went_astray(case: &Case, state: &UserState, record: &[u8]) -> bool {
    let behind = word(record, field::INFO + 16);
    let last = linear(case, state.selectors[1], behind.wrapping_sub(1));
    !layout::region_of(last).is_some_and(|r| r.execute)
}

/// The linear address of an offset in the code segment.
fn linear(case: &Case, cs: u16, offset: u64) -> u64 {
    if cs == selector::CODE64 {
        return offset;
    }
    super::check::code_base(case, cs).wrapping_add(offset) & 0xffff_ffff
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}
