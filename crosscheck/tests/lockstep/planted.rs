//! Every planted bug, of the interpreter and of the JIT: each is found, brought down to the
//! instruction, and shown again from the file.

use std::cell::Cell;
use std::time::{Duration, Instant};

use trivium_cpu::bits::cr0;
use trivium_cpu::state::{DS, ES, FS, SegmentAttributes};
use trivium_crosscheck::lockstep::{
    self, Found, LockstepError, LockstepFile, Pair, Sync, Verdict, Wish,
};
use trivium_interp::planted as interp;
use trivium_jit::planted as jit;
use trivium_machine::{Accel, Frozen};

use crate::duels::{Arounds, BOTH, Guest, duel, on_large_stack, side};

/// Longer than it takes to locate a bug.
const MINUTE: Duration = Duration::from_secs(60);

/// The most instructions that a bug of translated code is brought down to, after others: a branch and
/// what is counted with it, or one that leads where nothing is translated.
const MOST: u64 = 8;

/// Loops that come upon bugs of superblocks that the ROM does not, by their numbers.
const LOOPS: &[u64] = &[0, 10, 18, 56, 61, 195];

thread_local! {
    /// What is planted while the broken machine runs.
    static JIT: Cell<Option<jit::Bug>> = const { Cell::new(None) };
    static INTERP: Cell<Option<&'static interp::Bug>> = const { Cell::new(None) };
}

fn break_jit(begins: bool) {
    jit::plant(JIT.get().filter(|_| begins));
}

fn break_interp(begins: bool) {
    interp::plant(INTERP.get().filter(|_| begins));
}

/// Both interpreters are to run instruction by instruction.
fn slow_interp(begins: bool) {
    interp::plant(begins.then_some(&interp::HARMLESS));
}

/// What a machine is broken with, and the CPUs.
struct Broken {
    accels: [Accel; 2],
    arounds: Arounds,
}

const BROKEN_JIT: Broken = Broken { accels: BOTH, arounds: [None, Some(break_jit)] };
const BROKEN_INTERP: Broken =
    Broken { accels: [Accel::Interp; 2], arounds: [Some(slow_interp), Some(break_interp)] };

impl Broken {
    /// What is found in a guest, within so many instructions that are compared every so often.
    fn find(&self, guest: &Guest, every: u64, limit: u64) -> Option<Found> {
        let sync = Sync::Every(every);
        let (verdict, mut pair) = duel(guest, self.accels, self.arounds, sync, limit);
        match verdict {
            Verdict::Diverged(difference) => Some(lockstep::locate(&mut pair, difference).unwrap()),
            _ => None,
        }
    }

    /// Whether a file of what was found shows the same to who reads it.
    fn again(&self, found: &Found, guest: &Guest) -> bool {
        let cpus = ["interp", "broken"].map(str::to_owned);
        let text = LockstepFile::new(found, cpus, Vec::new(), guest.image()).to_text().unwrap();
        assert!(text.len() < 2 << 20, "{} bytes", text.len());
        let file = LockstepFile::parse(&text).unwrap();
        let sides = [0, 1].map(|n| side(self.accels[n], guest, self.arounds[n]));
        let state = file.state().unwrap();
        let seen = file.run(&state, sides).unwrap();
        // A store that goes astray leaves no trace in the log of what was written, and stays there: what
        // is found later may have other values then.
        let name = |line: &String| line.rsplit_once(": ").map(|(place, _)| place.to_owned());
        let places: Vec<_> = found.differences.iter().map(name).collect();
        seen.iter().any(|line| places.contains(&name(line)))
    }
}

/// Looks for each bug, and fails if one is not found, or not as it must be: what is wrong with what
/// was found of it, if anything is.
fn each<B: Copy>(
    bugs: impl Iterator<Item = B>,
    name: impl Fn(B) -> String,
    find: impl Fn(B) -> Option<(Guest, Found)>,
    broken: &Broken,
    judge: impl Fn(B, &Found) -> Option<String>,
) {
    let mut missed = Vec::new();
    for bug in bugs {
        let (name, start) = (name(bug), Instant::now());
        let Some((guest, found)) = find(bug) else {
            missed.push(format!("{name}: not found"));
            println!("{name}: not found, {:?}", start.elapsed());
            continue;
        };
        let took = start.elapsed();
        println!("{name}: {took:?}\n{}", lockstep::render(&found, ["interp", "broken"]));
        if took > MINUTE {
            missed.push(format!("{name}: {took:?}"));
        }
        if let Some(wrong) = judge(bug, &found) {
            missed.push(format!("{name}: {wrong}"));
        } else if !broken.again(&found, &guest) {
            missed.push(format!("{name}: its file does not show it"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn bugs_planted_in_the_interpreter_are_located_to_the_instruction() {
    on_large_stack(|| {
        let find = |bug| {
            INTERP.set(Some(bug));
            let guest = Guest::Rom(trivium_test_roms::VARIETY);
            BROKEN_INTERP.find(&guest, 100_000, 800_000).map(|found| (guest, found))
        };
        let judge = |_: &interp::Bug, found: &Found| {
            let single = found.is_small && found.instructions == 1;
            (!single).then(|| format!("{} instructions", found.instructions))
        };
        let bugs = interp::BUGS.iter().filter(|bug| !WHEN_LOADED.contains(&bug.name));
        each(bugs, |bug| bug.name.to_owned(), find, &BROKEN_INTERP, judge);
    });
}

/// Bugs of no instruction: a state is not taken over as it is.
const WHEN_LOADED: &[&str] = &[
    "data segments end a byte later",
    "segments do not expand down",
    "read-only segments can be written",
    "alignment is not checked",
];

/// What DS, ES and FS are made: selectors of the LDT with a limit; one cannot be written, and one
/// expands down.
fn with_segments(frozen: &mut Frozen) {
    let kinds =
        [(DS, 0), (ES, SegmentAttributes::WRITABLE | SegmentAttributes::EXPAND_DOWN), (FS, 0)];
    for (n, kind) in kinds {
        let segment = &mut frozen.cpus[0].segments.regs[n];
        segment.selector = 0x0f;
        segment.limit = 0xfff;
        segment.attributes =
            SegmentAttributes(SegmentAttributes::S | SegmentAttributes::P | 3 << 5 | 1 | kind);
    }
    frozen.cpus[0].control.cr0 |= cr0::AM;
}

#[test]
fn bugs_planted_where_a_state_is_loaded_are_seen_before_the_first_instruction() {
    on_large_stack(|| {
        for name in WHEN_LOADED {
            INTERP.set(interp::BUGS.iter().find(|bug| bug.name == *name));
            let guest = Guest::Rom(trivium_test_roms::VARIETY);
            let mut sides = BROKEN_INTERP.arounds.map(|around| side(Accel::Interp, &guest, around));
            for side in &mut sides {
                let mut frozen = side.machine.freeze().unwrap();
                with_segments(&mut frozen);
                let around = side.around.as_mut().unwrap();
                around(true);
                side.machine.thaw(&frozen).unwrap();
                around(false);
            }
            let mut pair = Pair::new(sides).unwrap();
            let result = lockstep::run(&mut pair, Sync::default(), |_| Wish::Stop);
            let Err(LockstepError::Start(what)) = result else { panic!("{name}: {result:?}") };
            println!("{name}: {what}");
            assert!(what.contains("segments") || what.contains("cr0"), "{name}: {what}");
        }
    });
}

#[test]
fn bugs_planted_in_what_is_emitted_are_located() {
    on_large_stack(|| {
        let find = |bug| {
            JIT.set(Some(bug));
            let guest = Guest::Rom(trivium_test_roms::VARIETY);
            BROKEN_JIT.find(&guest, 200_000, 600_000).map(|found| (guest, found))
        };
        let judge = |_: jit::Bug, found: &Found| {
            let small = found.is_small && found.suspects() <= MOST;
            (!small).then(|| format!("{} instructions", found.suspects()))
        };
        each(jit::BUGS.iter().copied(), |bug| format!("{bug:?}"), find, &BROKEN_JIT, judge);
    });
}

#[test]
fn bugs_planted_in_segmented_code_are_located() {
    on_large_stack(|| {
        let find = |bug| {
            JIT.set(Some(bug));
            let guest = Guest::Rom(trivium_test_roms::SEGMENTS);
            BROKEN_JIT.find(&guest, 100_000, 2_000_000).map(|found| (guest, found))
        };
        let judge = |_: jit::Bug, found: &Found| {
            let single = found.is_small && found.suspects() == 1;
            (!single).then(|| format!("{} instructions", found.suspects()))
        };
        each(jit::SEGMENT_BUGS.iter().copied(), |bug| format!("{bug:?}"), find, &BROKEN_JIT, judge);
    });
}

#[test]
fn bugs_planted_in_superblocks_are_located() {
    on_large_stack(|| {
        let find = |bug| {
            JIT.set(Some(bug));
            let loops = LOOPS.iter().map(|&number| Guest::of_loop(number));
            let guests = std::iter::once(Guest::Rom(trivium_test_roms::HOT)).chain(loops);
            guests.into_iter().find_map(|guest| {
                let found = BROKEN_JIT.find(&guest, 500_000, 6_000_000)?;
                Some((guest, found))
            })
        };
        let judge = |_: jit::Bug, found: &Found| {
            let few = found.can_be_repeated() && found.suspects() <= MOST;
            (!few).then(|| format!("{} instructions", found.suspects()))
        };
        let bugs = jit::SUPERBLOCK_BUGS.iter().copied();
        each(bugs, |bug| format!("{bug:?}"), find, &BROKEN_JIT, judge);
    });
}
