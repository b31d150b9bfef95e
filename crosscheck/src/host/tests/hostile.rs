//! Cases that loop, kill, and write where they should not: each costs itself and no other.

use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::host::arena::{ARENA_AT, OUTPUT, SIGNAL_STACK, SIZE};

/// rep stosb from here on.
fn spray(at: u64, len: u64) -> Case {
    let mut spray = case(&[0xf3, 0xaa]);
    (spray.state.regs[7], spray.state.regs[1], spray.state.regs[0]) = (at, len, 0x5a);
    spray
}

/// Cases that end, each in its own way: eax = n
fn good(n: u32) -> Case {
    let mut code = vec![0xb8];
    code.extend(n.to_le_bytes());
    case(&code)
}

fn is_good(n: u32, outcome: &Outcome) -> bool {
    outcome.stop == exception(3, 0, 0) && outcome.state.regs[0] == u64::from(n)
}

#[test]
fn cases_around_a_bad_one_keep_their_outcomes() {
    let mut loops = case(&[0xeb, 0xfe]);
    loops.state.rflags |= 1 << 18;
    let bad = [
        loops,
        spray(ARENA_AT, SIZE as u64),
        spray(ARENA_AT + SIGNAL_STACK as u64, 0x1_0000),
        spray(ARENA_AT + OUTPUT as u64, 0x8000),
        spray(ARENA_AT, 0x1000),
    ];
    let (mut engine, mut reference) = (engine(), engine());
    for (kind, bad) in bad.iter().enumerate() {
        let mut cases: Vec<Case> = (0..40).map(good).collect();
        cases[17] = bad.clone();
        let outcomes = engine.run(&cases).unwrap();
        for (n, outcome) in (0..).zip(&outcomes).filter(|(n, _)| *n != 17) {
            assert!(is_good(n, outcome), "bad case {kind}, case {n}: {:?}", outcome.stop);
        }
        match (kind, &outcomes[17].stop) {
            (0, Stop::Endless) | (1.., Stop::Lost(_)) => {}
            // What is written anew afterwards: a signal's frame, the case's own outcome.
            (2 | 3, Stop::Exception { .. }) => {}
            (_, stop) => panic!("bad case {kind}: {stop:?}"),
        }
        assert!(is_good(5, &reference.run(&[good(5)]).unwrap()[0]));
    }
}

#[test]
fn loops_end_in_every_form() {
    let codes: [&[u8]; 4] = [
        &[0xeb, 0xfe],
        // pushfq; popfq; jmp
        &[0x9c, 0x9d, 0xeb, 0xfc],
        // A loop without a stack: xor esp, esp; jmp $
        &[0x31, 0xe4, 0xeb, 0xfe],
        // std; mov ecx, -1; loop $
        &[0xfd, 0x48, 0xc7, 0xc1, 0xff, 0xff, 0xff, 0xff, 0xe2, 0xfe],
    ];
    for code in codes {
        assert_eq!(engine().run(&[case(code)]).unwrap()[0].stop, Stop::Endless);
    }
}

#[test]
fn a_long_case_is_not_taken_for_endless_and_comes_to_no_harm() {
    // mov ecx, 2,000,000; dec ecx; jnz: a tick of the timer meets it, or none.
    let mut long = case(&[0xb9, 0x80, 0x84, 0x1e, 0, 0xff, 0xc9, 0x75, 0xfc]);
    long.state.rflags |= 0x20_4000;
    long.state.zmm[3] = [7, 8, 0, 0, 0, 0, 0, 0];
    let outcomes = engine().run(&vec![long.clone(); 40]).unwrap();
    for outcome in outcomes {
        assert_eq!((outcome.stop, outcome.state.rip), (exception(3, 0, 0), CODE.start + 10));
        assert_eq!((outcome.state.zmm, outcome.state.rflags), (long.state.zmm.clone(), 0x20_4246));
    }
}

#[test]
fn stacks_may_point_anywhere() {
    for rsp in [0, 8, 1, !0, 1 << 63, 0x7fff_ffff_f000, ARENA_AT + SIGNAL_STACK as u64 + 0x8000] {
        let mut fault = case(&[0x0f, 0x0b]);
        fault.state.regs[4] = rsp;
        let done = run(&fault);
        assert_eq!((done.stop, done.state.regs[4]), (exception(6, 0, 0), rsp));
    }
}

#[test]
fn killing_the_child_loses_no_outcome() {
    let mut engine = engine();
    let cases: Vec<Case> = (0..20_000).map(good).collect();
    let (stop, stopped) = mpsc::channel::<()>();
    let children = format!("/proc/self/task/{}/children", rustix::thread::gettid().as_raw_pid());
    let mut process = engine.process();
    let killer = std::thread::spawn(move || {
        let mut kills = 0;
        while stopped.recv_timeout(Duration::from_millis(50)).is_err() {
            // The first child by what the engine says, later ones where the kernel lists them.
            let later = std::fs::read_to_string(&children).unwrap_or_default();
            let target = process.take().map_or(later, |p| p.to_string());
            if !target.trim().is_empty() {
                let kill = Command::new("kill").arg("-9").args(target.split_whitespace()).status();
                kills += u32::from(kill.is_ok_and(|k| k.success()));
            }
        }
        kills
    });
    let outcomes = engine.run(&cases).unwrap();
    stop.send(()).unwrap();
    let kills = killer.join().unwrap();
    assert!(kills > 0, "the batch was over before the first kill");
    assert_eq!(outcomes.len(), cases.len());
    assert!((0..).zip(&outcomes).all(|(n, o)| is_good(n, o)));
}

#[test]
fn the_child_has_no_files_and_little_memory() {
    let mut engine = engine();
    engine.run(&[good(1)]).unwrap();
    let process = engine.process().unwrap();
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap();
    assert_eq!(name, "trivium-host\n");
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    assert_eq!(files, 0);
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let own = |line: &&str| !line.contains("memfd:trivium") && !line.contains("[v");
    let foreign: Vec<&str> = maps.lines().filter(own).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}
