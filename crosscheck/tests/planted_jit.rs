//! Bugs planted in what the JIT emits are found by holding it against the interpreter.

use trivium_crosscheck::hot::{self, Found};
use trivium_jit::planted::{BUGS, Bug, SEGMENT_BUGS, SUPERBLOCK_BUGS, plant};

/// Each is found within so many cases.
const CASES: u64 = 6000;

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

/// The same, among loops.
fn find_in_loops(bug: Bug) -> Option<u64> {
    let differs = |case: u64| matches!(hot::compare_loops(&case.to_le_bytes()).0, Found::Differ(_));
    (0..CASES).find(|&case| {
        plant(Some(bug));
        let differs_with = differs(case);
        plant(None);
        differs_with && !differs(case)
    })
}

#[test]
fn every_bug_planted_in_superblocks_is_found() {
    let mut missed = Vec::new();
    for &bug in SUPERBLOCK_BUGS {
        match find_in_loops(bug) {
            Some(case) => println!("{bug:?}: loop {case}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn every_bug_planted_in_what_is_emitted_is_found() {
    let mut missed = Vec::new();
    for &bug in BUGS.iter().chain(SEGMENT_BUGS) {
        match find(bug) {
            Some(case) => println!("{bug:?}: case {case}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
