//! Loops on the JIT and on the interpreter: what it makes superblocks of.
//!
//! Random code has hardly any. These are loops of some blocks, that are run long enough, with all
//! that may happen to a superblock between: pages that are mapped elsewhere or taken away, code that
//! is overwritten, interrupts, breakpoints, budgets that end within.

mod assemble;
mod body;
mod choices;
mod machine;
mod program;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trivium_cpu::CpuState;
use trivium_jit::DEFAULT_MEMORY;
use trivium_memory::GuestMemory;

use super::platform::Platform;
use super::side::{self, Hot, Side};
use super::{Event, Found, LITTLE_MEMORY, Outcome, run_sides};
use crate::anything;
use choices::Choices;
use machine::{ASK, CODE, DATA, DATA_SIZE, Kind, OTHER, STACK, WISH};
use program::Program;

/// Slices of a run at most, and the most instructions in one.
const SLICES: u64 = 16;
const LONGEST: u64 = 3000;

/// What makes a run what it is.
struct Plan {
    kind: Kind,
    program: Program,
    seed: u64,
    /// How often a block is interpreted before it is translated, and after how many instructions at
    /// most what is run may be translated with what follows it.
    warm: u32,
    quantum: u32,
    slices: Vec<(Event, u64)>,
}

impl Plan {
    fn new(bytes: &[u8]) -> Self {
        let mut choices = Choices::new(bytes);
        let choices = &mut choices;
        let kind = Kind::choose(choices);
        let program = program::make(choices, kind);
        let seed = choices.any();
        let warm = choices.below(3) as u32;
        let quantum = choices.pick(&[8, 20, 50, 50, 100, 300]);
        let number = 3 + choices.below(SLICES - 3);
        let slices = (0..number).map(|_| slice(choices, kind, &program)).collect();
        Self { kind, program, seed, warm, quantum, slices }
    }

    fn side(&self, superblocks: Option<&Arc<AtomicU64>>) -> Side {
        let platform = Platform::new(self.seed);
        let furnish = |memory: &GuestMemory| {
            anything::furnish_mode(memory, self.kind.mode, &[]);
            side::furnish_tables(memory);
            machine::furnish(memory, self.kind, &self.program, self.seed);
        };
        let state = machine::state(self.kind, &self.program, self.seed, &platform);
        let (warm, quantum) = (self.warm, self.quantum);
        let memory = if self.seed & 3 == 0 { LITTLE_MEMORY } else { DEFAULT_MEMORY };
        let host = super::host((self.seed >> 2) as u8);
        let hot = superblocks.map(|made| {
            let superblocks = made.clone();
            Hot { warm, quantum, superblocks, memory, host }
        });
        Side::new(furnish, platform, &state, hot)
    }
}

/// What happens before a slice, and how many instructions it has.
fn slice(choices: &mut Choices<'_>, kind: Kind, program: &Program) -> (Event, u64) {
    let rip = |choices: &mut Choices<'_>| match program.blocks.len() as u64 {
        0 => program.start,
        n => program.blocks[choices.below(n) as usize],
    };
    let event = match choices.below(16) {
        0 | 1 => Event::Interrupt(0xa0 + choices.below(8) as u8),
        2 | 3 => {
            let (page, entry) = mapping(choices, kind);
            Event::Map(page, entry & !0xfff, entry & 0xfff)
        }
        4..=6 => {
            let (page, entry) = mapping(choices, kind);
            let flushed = if choices.chance(10) { page } else { 0 };
            let wish: Vec<u8> = [kind.entry(page), entry, flushed]
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect();
            Event::All(vec![Event::Write(WISH, wish), Event::Interrupt(ASK)])
        }
        7 | 8 if !program.spots.is_empty() => {
            let spot = program.spots[choices.below(program.spots.len() as u64) as usize];
            Event::Write(spot, vec![choices.any() as u8])
        }
        9 => {
            let at = DATA + choices.below(0x8000);
            Event::Write(at, choices.any().to_le_bytes().to_vec())
        }
        10 => Event::Breakpoint(rip(choices), 0x401),
        11 => {
            let at = DATA + 0x1ff0 + choices.below(0x4000) & !7;
            Event::Breakpoint(at, choices.pick(&[0xd_0402, 0xf_0401, 0x9_0402, 0x400]))
        }
        12 => Event::SingleStep(1),
        _ => Event::None,
    };
    let count = match choices.below(4) {
        0 => 1 + choices.below(60),
        1 => 1 + choices.below(500),
        _ => 1 + choices.below(LONGEST),
    };
    (event, count)
}

/// A page and what its entry is to be.
fn mapping(choices: &mut Choices<'_>, kind: Kind) -> (u64, u64) {
    let page = match choices.below(8) {
        0 | 1 => CODE + 0x4000 * choices.below(3) + 0x1000 * choices.below(2),
        2 => (STACK & !0xfff) - 0x1000 * choices.below(2),
        _ => DATA + 0x1000 + 0x1000 * choices.below(7),
    };
    let is_stack = page & !0xffff == STACK & !0xffff;
    let rights = match is_stack && !kind.stack_may_fault() {
        true => 7,
        false => choices.pick(&[7, 7, 7, 5, 0x67, 0]),
    };
    let other = if is_stack { 0 } else { choices.pick(&[0, OTHER, OTHER]) };
    let to = if is_stack && choices.chance(8) { 0x7_0000 | page & 0xf000 } else { page ^ other };
    (page, to | rights)
}

/// Makes of bytes a loop as a guest for a machine, to which nothing happens: the processor's state,
/// and what memory holds from address 0 on.
///
/// # Panics
/// The host gives no memory.
#[must_use]
pub fn loop_guest(bytes: &[u8]) -> (CpuState, Vec<u8>) {
    let plan = Plan::new(bytes);
    let mut side = plan.side(None);
    let mut memory = side.memory();
    memory.truncate((DATA + 2 * DATA_SIZE) as usize);
    (side.state(), memory)
}

/// Makes of bytes a loop and what happens to it, and runs it on both. Gives what came of it, and how
/// many superblocks there were.
///
/// # Panics
/// The host gives no memory.
#[must_use]
pub fn compare_loops(bytes: &[u8]) -> (Found, u64) {
    let plan = Plan::new(bytes);
    let made = Arc::new(AtomicU64::new(0));
    let found = match run(&plan, plan.slices.len(), u64::MAX, &made) {
        Outcome::Alike(instructions) => Found::Alike(instructions),
        Outcome::Exhausted => Found::Vague("a repeated instruction without an end"),
        Outcome::Differ(slice, differences) => judge(&plan, slice as usize, &differences),
    };
    (found, made.load(Ordering::Relaxed))
}

fn run(plan: &Plan, slices: usize, most: u64, made: &Arc<AtomicU64>) -> Outcome {
    let sides = [plan.side(Some(made)), plan.side(None)];
    let last = slices - 1;
    let slices = plan.slices.iter().take(slices).enumerate();
    let slices = slices.map(|(number, (event, count))| {
        (event.clone(), if number == last { (*count).min(most) } else { *count })
    });
    run_sides(sides, slices)
}

/// Tells where the two part.
fn judge(plan: &Plan, slice: usize, differences: &[String]) -> Found {
    let count = plan.slices[slice].1;
    let differs = |most| {
        let run = run(plan, slice + 1, most, &Arc::default());
        if let Outcome::Differ(_, differences) = run { Some(differences) } else { None }
    };
    // What is not the same mostly stays so.
    let (mut low, mut high) = (0, count);
    while low + 1 < high {
        let middle = low.midpoint(high);
        (low, high) = if differs(middle).is_some() { (low, middle) } else { (middle, high) };
    }
    let first = differs(high).unwrap_or_else(|| differences.to_vec());
    let trace = trace(plan, slice, high);
    let about = format!(
        "{:?}, warm {}, quantum {}, slice {slice}, part by {high}",
        plan.kind, plan.warm, plan.quantum
    );
    Found::Differ(format!("{about}\n{}\n{}", trace.join("\n"), first.join("\n")))
}

/// The last instructions up to a place in a slice, and what happened before.
fn trace(plan: &Plan, slice: usize, count: u64) -> Vec<String> {
    let mut side = plan.side(None);
    let mut trace = Vec::new();
    for (number, (event, number_of)) in plan.slices.iter().take(slice + 1).enumerate() {
        trace.push(format!("slice {number}: {event:?}, {number_of} instructions"));
        if number < slice {
            side.slice(event, *number_of);
            continue;
        }
        for n in 0..count {
            let at = side.state().general.rip;
            let text = side.instruction(at).map_or(String::new(), |i| i.to_string());
            if n + 60 > count {
                trace.push(format!("{n}: {at:#x} {text}"));
            }
            side.slice(if n == 0 { event } else { &Event::None }, 1);
        }
    }
    trace
}

/// Makes of bytes a loop, runs it on both, and fails if they differ.
///
/// # Panics
/// They do.
pub fn check_loops(bytes: &[u8]) {
    if let (Found::Differ(report), _) = compare_loops(bytes) {
        panic!("JIT and interpreter differ on {bytes:02x?}\n{report}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_do_what_the_interpreter_does() {
        let default = if cfg!(debug_assertions) { 150 } else { 3000 };
        let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
        let cases = number("TRIVIUM_LOOP_CASES").unwrap_or(default);
        let first: u64 = number("TRIVIUM_LOOP_FIRST").unwrap_or(0);
        let (mut with, mut all, mut failures) = (0, 0, Vec::new());
        for seed in first..first + cases {
            let (found, made) = compare_loops(&seed.to_le_bytes());
            with += u64::from(made > 0);
            if made == 0 && std::env::var_os("TRIVIUM_LOOP_TRACE").is_some() {
                let plan = Plan::new(&seed.to_le_bytes());
                println!("seed {seed}, {:?}\n{}", plan.kind, trace(&plan, 1, 900).join("\n"));
            }
            all += made;
            if let Found::Differ(report) = found {
                failures.push(format!("seed {seed}: {report}"));
            }
        }
        println!("{with} of {cases} cases make superblocks, {all} of them");
        let shown = failures.iter().take(3).cloned().collect::<Vec<_>>().join("\n\n");
        assert!(failures.is_empty(), "{} of {cases} differ\n{shown}", failures.len());
        assert!(with * 2 > cases, "{with} of {cases} cases make superblocks");
    }
}
