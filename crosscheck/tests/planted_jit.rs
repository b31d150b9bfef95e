//! Bugs planted in what the JIT emits are found by holding it against the interpreter.

use trivium_crosscheck::hot::{self, Found};
use trivium_jit::planted::{BUGS, Bug, plant};

/// Each is found within so many cases.
const CASES: u64 = 1500;

/// The number of the case that finds a bug: one on which JIT and interpreter differ with the bug
/// and agree without it.
fn find(bug: Bug) -> Option<u64> {
    (0..CASES).find(|&case| {
        let bytes = hot::random_bytes(case);
        plant(Some(bug));
        let differs = matches!(hot::compare(&bytes), Found::Differ(_));
        plant(None);
        differs && !matches!(hot::compare(&bytes), Found::Differ(_))
    })
}

#[test]
fn every_bug_planted_in_what_is_emitted_is_found() {
    let mut missed = Vec::new();
    for &bug in BUGS {
        match find(bug) {
            Some(case) => println!("{bug:?}: case {case}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
