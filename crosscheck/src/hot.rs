//! Any code, and any changes to it and to its page tables, on the JIT and on the interpreter: both
//! must do the same.
//!
//! For fuzzing, and for tests. Bytes become code of any mode, in pages of 4 KiB that are all
//! accessible to all. It is run in slices of a few instructions; between them pages are mapped
//! elsewhere, code is written as by a device, breakpoints are set, and interrupts come, the same on
//! both. After each slice the states are compared, at the end RAM is.

mod loops;
mod platform;
mod side;
mod snippets;
pub(crate) mod vague;

use std::sync::Arc;

use trivium_cpu::bits::{cr0, rflags};
use trivium_cpu::state::{CS, SS, SegmentAttributes};
use trivium_cpu::{CpuState, Exit};
use trivium_jit::{DEFAULT_MEMORY, Host};
use trivium_memory::{GuestMemory, GuestPhysAddr};

use crate::anything::{self, CODE, CODE_SIZE};
pub use loops::{check_loops, compare_loops, loop_guest};
use platform::Platform;
use side::{Hot, Side};

/// Slices of a run, and the most instructions in one.
const SLICES: u64 = 10;
const LONGEST: u64 = 160;
/// Bytes of memory for translated code in which not all of it finds room.
const LITTLE_MEMORY: usize = 64 << 10;

/// The host of a run: in every fourth one without what processors of before 2013 lack.
fn host(choice: u8) -> Host {
    match choice >> 4 & 3 {
        0 => "no-bmi2,no-bmi1,no-lzcnt,no-movbe,no-adx,no-avx2".parse().unwrap_or_default(),
        _ => Host::default(),
    }
}

/// What makes a run what it is.
struct Plan {
    head: [u8; 8],
    code: Vec<u8>,
    /// How often a block is interpreted before it is translated.
    warm: u32,
    /// After how many instructions at most what is being run may be translated with what follows it.
    quantum: u32,
}

impl Plan {
    fn new(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let mut head = *head;
        // Half of them what is translated most: 64-bit and flat 32-bit code, with paging and without.
        if let Some(&mode) = [7, 8, 7, 8, 7, 4, 5, 9, 2].get(usize::from(head[0] >> 4)) {
            head[0] = mode;
        }
        let code = snippets::code(rest, CODE_SIZE as usize);
        (!code.is_empty()).then(|| Self {
            head,
            code,
            warm: u32::from(head[5] & 3),
            quantum: [16, 40, 160, 4000][usize::from(head[5] >> 2 & 3)],
        })
    }

    /// The JIT, or the interpreter.
    fn side(&self, hot: bool) -> Side {
        let platform = Platform::new(u64::from_le_bytes(self.head));
        let mut state = anything::initial_state(&self.head, &platform);
        // Most of memory is of no interest.
        for (number, register) in state.general.regs.iter_mut().enumerate() {
            if number % 4 != 0 {
                *register = side::DATA - 0x800 + (*register & 0x5fff);
            }
            if number >= 13 {
                // Upper halves that are to go.
                *register |= !0 << 44;
            }
        }
        self.choose_segments(&mut state);
        let (warm, quantum) = (self.warm, self.quantum);
        // In every other case so little that code is given up now and then.
        let memory = if self.head[1] & 1 == 0 { DEFAULT_MEMORY } else { LITTLE_MEMORY };
        let host = host(self.head[5]);
        let hot = hot.then(|| Hot { warm, quantum, superblocks: Arc::default(), memory, host });
        Side::new(|memory| self.furnish(memory), platform, &state, hot)
    }

    /// Gives segments bases and limits, in most of the modes that are not flat, and in some that are.
    fn choose_segments(&self, state: &mut CpuState) {
        use SegmentAttributes as A;
        let protected = state.control.cr0 & cr0::PE != 0;
        let v86 = state.general.rflags & rflags::VM != 0;
        let code = state.segments.regs[CS].attributes;
        let mut random = Random(u64::from_le_bytes(self.head) >> 3 | 1);
        random.any();
        let seldom = if code.has(A::DB) { 4 } else { 1 };
        if code.has(A::L) || random.below(seldom) != 0 {
            return;
        }
        for (number, segment) in state.segments.regs.iter_mut().enumerate() {
            let data = side::DATA;
            segment.base = match number {
                CS => random.pick(&[0, 0, 0, 0x10, 0x100, 0x1000]),
                _ => random.pick(&[
                    0,
                    0,
                    0x10,
                    0x1000,
                    data - 0x1_0000,
                    data,
                    data + 0xff0,
                    0xf_f800,
                ]),
            };
            if !protected || v86 {
                segment.selector = (segment.base >> 4) as u16;
            }
            if v86 {
                continue;
            }
            let whole = segment.limit;
            let limits = [whole, whole, whole, 0xffff, 0x7fff, 0x70ff, 0x1fff, 0xffff_ffff];
            segment.limit = random.pick(&limits);
            if protected && number != CS {
                let kinds =
                    [A::WRITABLE, A::WRITABLE, A::WRITABLE, A::WRITABLE | A::EXPAND_DOWN, 0];
                let usual = segment.attributes.0 & !(A::WRITABLE | A::EXPAND_DOWN);
                let kind = if number == SS { A::WRITABLE } else { random.pick(&kinds) };
                segment.attributes = A(usual | kind);
            }
        }
    }

    fn furnish(&self, memory: &GuestMemory) {
        anything::furnish_mode(memory, self.head[0], &self.code);
        side::furnish_tables(memory);
        let endless = self.code.iter().copied().cycle().take(0x1000).collect::<Vec<u8>>();
        for page in 0..4 {
            // It lies in RAM.
            let _ = memory.write(GuestPhysAddr(side::DATA + 0x1000 * page), &endless);
        }
    }

    /// What happens before a slice, and how many instructions it has.
    fn slice(&self, number: u64) -> (Event, u64) {
        let mut random = Random(u64::from_le_bytes(self.head) ^ number << 56 | 1);
        let event = match random.below(12) {
            0 | 1 => Event::Interrupt(random.any() as u8),
            2 | 3 => {
                let page = random.pick(&[CODE, CODE, side::DATA, side::DATA + 0x1000]);
                let bytes = random.any().to_le_bytes()[..1 + random.below(4) as usize].to_vec();
                Event::Write(page + random.below(0x1000 - 8), bytes)
            }
            4 | 5 => {
                let to = random.pick(&[CODE, side::DATA, side::DATA + 0x3000, 0, 0xff_f000]);
                let rights = random.pick(&[7, 7, 7, 5, 3, 1, 0, 0x67]);
                Event::Map(side::DATA + 0x1000 * random.below(4), to, rights)
            }
            6 => Event::Breakpoint(
                CODE + random.below(0x800),
                random.pick(&[0x401, 0xd_0402, 0xf_0401]),
            ),
            7 => Event::SingleStep(1 + random.below(8)),
            _ => Event::None,
        };
        (event, 1 + random.below(LONGEST))
    }
}

/// What happens from outside before a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    None,
    /// An interrupt of this vector.
    Interrupt(u8),
    /// A device writes to guest-physical memory.
    Write(u64, Vec<u8>),
    /// A linear page leads to this guest-physical one, with these rights; the TLB is flushed.
    Map(u64, u64, u64),
    /// A breakpoint: DR0 and DR7.
    Breakpoint(u64, u64),
    /// So many instructions with RFLAGS.TF set at first.
    SingleStep(u64),
    /// All of these.
    All(Vec<Event>),
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn any(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.any() >> 16) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Both did the same, for so many instructions at most.
    Alike(u64),
    /// Nothing can be said: it ran into what is undefined, or did not end.
    Vague(&'static str),
    /// They did not.
    Differ(String),
}

/// Runs bytes on both.
///
/// # Panics
/// The host gives no memory.
#[must_use]
pub fn compare(bytes: &[u8]) -> Found {
    let Some(plan) = Plan::new(bytes) else { return Found::Vague("no code") };
    match run(&plan, SLICES, u64::MAX) {
        Outcome::Alike(instructions) => Found::Alike(instructions),
        Outcome::Exhausted => Found::Vague("a repeated instruction without an end"),
        Outcome::Differ(slice, differences) => judge(&plan, slice, differences),
    }
}

/// What came of some slices.
enum Outcome {
    /// Both did the same, for so many instructions at most.
    Alike(u64),
    /// They asked too much of the platform.
    Exhausted,
    /// They did not, in the slice of this number.
    Differ(u64, Vec<String>),
}

/// Runs so many slices on both, the last of them with no more than `most` instructions.
fn run(plan: &Plan, slices: u64, most: u64) -> Outcome {
    let each = (0..slices).map(|number| {
        let (event, count) = plan.slice(number);
        (event, if number + 1 == slices { count.min(most) } else { count })
    });
    run_sides([plan.side(true), plan.side(false)], each)
}

/// Runs slices on both sides: what happens before each, and its instructions.
fn run_sides(mut sides: [Side; 2], slices: impl Iterator<Item = (Event, u64)>) -> Outcome {
    let mut instructions = 0;
    let mut slices = slices.enumerate().peekable();
    while let Some((number, (event, count))) = slices.next() {
        let exits = sides.each_mut().map(|side| side.slice(&event, count));
        if sides.iter().any(Side::is_exhausted) {
            return Outcome::Exhausted;
        }
        instructions += count;
        let states = sides.each_mut().map(Side::state);
        let mut differences: Vec<String> =
            states[0].differences(&states[1]).iter().map(ToString::to_string).collect();
        if exits[0] != exits[1] {
            differences.push(format!("{:?} and {:?}", exits[0], exits[1]));
        }
        let last = slices.peek().is_none() || exits[0] == Exit::Shutdown;
        if differences.is_empty() && last {
            differences = memory_differences(&sides);
        }
        if !differences.is_empty() {
            return Outcome::Differ(number as u64, differences);
        }
        if last {
            break;
        }
    }
    Outcome::Alike(instructions)
}

fn memory_differences(sides: &[Side; 2]) -> Vec<String> {
    const PAGE: usize = 0x1000;
    let [ours, theirs] = sides.each_ref().map(Side::ram);
    let mut page = [0; PAGE];
    let mut found = Vec::new();
    for start in (0..side::RAM_SIZE as usize).step_by(PAGE) {
        ours.read_slice(start, &mut page);
        if theirs.equals(start, &page) {
            continue;
        }
        let bytes = page.iter().zip(start..).map(|(byte, at)| (at, *byte, theirs.load::<u8>(at)));
        let differing = bytes.filter(|(_, a, b)| a != b);
        found.extend(differing.map(|(at, a, b)| format!("memory {at:#x}: {a:#x} and {b:#x}")));
    }
    found.truncate(8);
    found
}

/// Whether the interpreter, instruction by instruction up to a slice, meets what is undefined; and
/// after how many instructions of the slice the two part.
fn judge(plan: &Plan, slice: u64, differences: Vec<String>) -> Found {
    let mut side = plan.side(false);
    let mut trace = Vec::new();
    for number in 0..=slice {
        let (event, count) = plan.slice(number);
        trace.push(format!("slice {number}: {event:?}, {count} instructions"));
        for n in 0..count {
            let at = side.state().general.rip;
            let next = side.instruction(at);
            let before = if n == 0 { event.clone() } else { Event::None };
            side.happen(&before);
            let tables = side.tables();
            side.slice(&Event::None, 1);
            if side.tables() != tables {
                // Which translations are cached is the processor's own affair, until they are
                // flushed: Intel SDM vol. 3A, 4.10.2.3.
                return Found::Vague("page tables that were written");
            }
            // An exception does not count: what counts is its handler's first instruction.
            let delivered = side.delivered();
            if next.is_none() && delivered.is_none() {
                return Found::Vague("translations that the tables no longer have");
            }
            let handler = delivered.map(|vector| CODE + 7 * u64::from(vector));
            let first = handler.and_then(|at| side.instruction(at));
            let both = next.into_iter().chain(first);
            let texts: Vec<_> = both.clone().map(|i| format!("{:#x} {i}", i.ip())).collect();
            trace.push(format!("{n}: {}", texts.join("; ")));
            if both.into_iter().any(|i| vague::is_vague(&i)) {
                return Found::Vague("what is undefined");
            }
        }
    }
    let count = plan.slice(slice).1;
    let first = (1..=count).find_map(|most| match run(plan, slice + 1, most) {
        Outcome::Differ(_, differences) => Some((most, differences)),
        _ => None,
    });
    let (most, differences) = first.unwrap_or((count, differences));
    let end = trace.len().saturating_sub((count - most) as usize);
    let start = end.saturating_sub(60);
    let mode = anything::mode_number(plan.head[0]);
    let about = format!("mode {mode}, warm {}, slice {slice}, part by {most}", plan.warm);
    Found::Differ(format!("{about}\n{}\n{}", trace[start..end].join("\n"), differences.join("\n")))
}

/// Runs bytes on both, and fails if they differ.
///
/// # Panics
/// They do.
pub fn check(bytes: &[u8]) {
    if let Found::Differ(report) = compare(bytes) {
        panic!("JIT and interpreter differ on {bytes:02x?}\n{report}");
    }
}

/// Bytes for [`compare`] that depend on a seed alone.
#[must_use]
pub fn random_bytes(seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    random.any();
    let length = 16 + random.below(120);
    (0..length).map(|_| (random.any() >> 13) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_page_tables_that_were_written_do_is_open_until_translations_are_flushed() {
        // The guest runs over its own, and what it has used of them is still translated, or not.
        let found = compare(&random_bytes(2956));
        assert_eq!(found, Found::Vague("page tables that were written"));
    }

    #[test]
    fn the_jit_does_what_the_interpreter_does_with_any_code_and_any_changes_to_it() {
        let default = if cfg!(debug_assertions) { 300 } else { 6000 };
        let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
        let cases = number("TRIVIUM_HOT_CASES").unwrap_or(default);
        let first = number("TRIVIUM_HOT_FIRST").unwrap_or(0);
        let (mut alike, mut failures) = (0, Vec::new());
        for seed in first..first + cases {
            match compare(&random_bytes(seed)) {
                Found::Alike(_) => alike += 1,
                Found::Vague(_) => {}
                Found::Differ(report) => failures.push(format!("seed {seed}: {report}")),
            }
        }
        let shown = failures.iter().take(3).cloned().collect::<Vec<_>>().join("\n\n");
        assert!(failures.is_empty(), "{} of {cases} differ\n{shown}", failures.len());
        assert!(alike * 2 > cases, "{alike} of {cases} say something");
    }
}
