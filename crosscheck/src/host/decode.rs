//! Reads outcomes from the child's records. The child may have been overwritten by a case, so no
//! length or offset in them is trusted.

use super::arena::{LINE, REGION_BYTES};
use super::encode::Memory;
use super::record::{LINE_ENTRY, context, outcome as field};
use super::xsave::Xsave;
use crate::case::{Case, Width};
use crate::layout::{self, REGIONS};
use crate::outcome::{self, Change, Outcome, Stop};
use crate::state::UserState;

/// The first address that programs cannot have.
const USER_END: u64 = 0x7fff_ffff_f000;

/// Reads records.
pub(super) struct Decoder {
    xsave: Xsave,
    memory: Memory,
}

/// Outcomes that make no sense: something wrote over them.
#[derive(Debug)]
pub(super) struct Garbled;

impl Decoder {
    pub(super) fn new(xsave: Xsave) -> Self {
        Self { xsave, memory: Memory::new() }
    }

    /// The outcome of a case, and what is left of the records behind its own.
    pub(super) fn take<'a>(
        &mut self,
        case: &Case,
        records: &'a [u8],
    ) -> Result<(Outcome, &'a [u8]), Garbled> {
        let size = usize::try_from(word(records, field::SIZE)).map_err(|_| Garbled)?;
        let (record, rest) = records.split_at_checked(size).ok_or(Garbled)?;
        let lines_at = field::XSAVE + self.xsave.size;
        let lines_end = usize::try_from(word(record, field::LINES_END)).map_err(|_| Garbled)?;
        let lines = record.get(lines_at..lines_end).ok_or(Garbled)?;
        let state = self.state(record);
        let outcome = Outcome {
            stop: stop(case, &state, record),
            state,
            changes: self.changes(case, lines)?,
        };
        Ok((outcome, rest))
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
        libc::SIGSYS if went_astray(case, state) => {
            Stop::Lost("a system call of 32-bit code ends in the kernel's own page".to_owned())
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

/// Whether a system call has come back elsewhere: SYSCALL and SYSENTER of 32-bit code do, in the
/// vDSO, and there is none.
fn went_astray(case: &Case, state: &UserState) -> bool {
    let base = match case.width {
        Width::Bits64 => 0,
        _ => super::check::code_base(case, state.selectors[1]),
    };
    let linear = base.wrapping_add(state.rip.wrapping_sub(1));
    let linear = if case.width == Width::Bits64 { linear } else { linear & 0xffff_ffff };
    !layout::region_of(linear).is_some_and(|r| r.execute)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}
