//! Cases on this processor, with what the manuals say of them.

mod hostile;
mod itself;
mod segments;
mod state;
mod strict;

use super::*;
use crate::case::{LdtEntry, Patch};
use crate::layout::{CODE, DATA, OPEN_CODE, READ_ONLY, STACK, selector};
use crate::outcome::Change;

fn case(code: &[u8]) -> Case {
    Case { code: code.to_vec(), ..probe_case() }
}

fn engine() -> HostEngine {
    HostEngine::new().unwrap()
}

/// The outcome of a case that leaves no traces: run twice, it ends the same.
fn run(case: &Case) -> Outcome {
    let mut engine = engine();
    assert_eq!(engine.refuses(case), None);
    let twice = engine.run(&[case.clone(), case.clone()]).unwrap();
    assert_eq!(twice[0], twice[1], "a case leaves traces");
    twice.into_iter().next().unwrap()
}

fn exception(vector: u8, error: u32, cr2: u64) -> Stop {
    Stop::Exception { vector, error, cr2 }
}

#[test]
fn code_that_is_done_ends_by_a_breakpoint() {
    // mov eax, 5; add al, ah
    let done = run(&case(&[0xb8, 5, 2, 0, 0, 0x00, 0xe0]));
    assert_eq!(done.stop, exception(3, 0, 0));
    assert_eq!(done.state.regs[0], 0x207);
    assert_eq!(done.state.rip, CODE.start + 8, "behind INT3");
    assert!(done.changes.is_empty());
}

/// Code in 64-bit mode, the vector that it raises, the error code, and how far RIP has got.
const RAISES: [(&str, &[u8], u8, u32, u64); 20] = [
    ("div by zero", &[0x31, 0xc9, 0xf7, 0xf1], 0, 0, 2),
    ("int3", &[0xcc], 3, 0, 1),
    ("int 3", &[0xcd, 3], 3, 0, 2),
    ("int 4", &[0xcd, 4], 4, 0, 2),
    ("int 1", &[0xcd, 1], 13, 10, 0),
    ("int 255", &[0xcd, 255], 13, 2042, 0),
    ("ud2", &[0x0f, 0x0b], 6, 0, 0),
    ("into", &[0xce], 6, 0, 0),
    ("hlt", &[0xf4], 13, 0, 0),
    ("cli", &[0xfa], 13, 0, 0),
    ("in al, dx", &[0xec], 13, 0, 0),
    ("mov ds, 12h", &[0xb8, 0x12, 0, 0, 0, 0x8e, 0xd8], 13, 0x10, 5),
    ("mov ss, 0", &[0x31, 0xc0, 0x8e, 0xd0], 13, 0, 2),
    ("lock nop", &[0xf0, 0x90], 6, 0, 0),
    ("mov rax, cr0", &[0x0f, 0x20, 0xc0], 13, 0, 0),
    ("load from 2^63", &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x8a, 0], 13, 0, 10),
    ("push at 2^63", &[0x48, 0xbc, 8, 0, 0, 0, 0, 0, 0, 0x80, 0x50], 12, 0, 10),
    ("movaps, misaligned", &[0x0f, 0x28, 0x44, 0x24, 1], 13, 0, 0),
    ("fifteen bytes and one", &[0x66; 16], 13, 0, 0),
    ("load from 0", &[0x31, 0xc0, 0x8a, 0], 14, 4, 2),
];

#[test]
fn exceptions_have_their_vectors_and_error_codes() {
    for (name, code, vector, error, at) in RAISES {
        let done = run(&case(code));
        assert_eq!(done.stop, exception(vector, error, 0), "{name}");
        assert_eq!(done.state.rip - CODE.start, at, "{name}");
    }
}

#[test]
fn page_faults_have_their_error_codes() {
    let store = |to: u64| {
        let mut store = case(&[0x88, 0x07]); // mov [rdi], al
        store.state.regs[7] = to;
        run(&store)
    };
    assert_eq!(store(READ_ONLY.start).stop, exception(14, 7, READ_ONLY.start));
    assert_eq!(store(READ_ONLY.end()).stop, exception(14, 6, READ_ONLY.end()));
    let kernel = 0xffff_9000_0000_0000;
    assert_eq!(store(kernel).stop, exception(14, 6, kernel));
    let there = store(DATA.start + 0x123);
    assert_eq!(there.changes, [Change { address: DATA.start + 0x123, bytes: vec![0] }]);
    let mut fetch = case(&[0xb8, 1, 2]);
    fetch.code_at = CODE.end() - 3;
    fetch.state.rip = fetch.code_at;
    assert_eq!(run(&fetch).stop, exception(14, 0x14, CODE.end()));
    fetch.state.rip = DATA.start;
    assert_eq!(run(&fetch).stop, exception(14, 0x15, DATA.start), "data is not executed");
}

#[test]
fn floating_point_exceptions_come_where_they_are_unmasked() {
    let mut divide = case(&[0xf3, 0x0f, 0x5e, 0xc1]); // divss xmm0, xmm1
    divide.state.zmm[0][0] = 0x3f80_0000;
    divide.state.mxcsr = 0x1f80 & !0x200;
    let done = run(&divide);
    assert_eq!((done.stop, done.state.rip), (exception(19, 0, 0), CODE.start));
    assert_eq!(done.state.mxcsr & 0x3f, 4);
    // fld1; fldz; fdivp; nop; fwait
    let mut divide = case(&[0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x90, 0x9b]);
    divide.state.x87.control = 0x37f & !4;
    let done = run(&divide);
    assert_eq!((done.stop, done.state.rip), (exception(16, 0, 0), CODE.start + 7));
    assert_eq!(done.state.x87.status & 0xbfff, 0x8084 | 6 << 11);
    assert_eq!(done.state.x87.last_ip, CODE.start + 4);
}

#[test]
fn int1_tells_of_the_next_instruction() {
    for (code, end) in [(&[0xf1][..], 1), (&[0x66, 0x48, 0xf1], 3), (&[0x90, 0xf1], 2)] {
        let done = run(&case(code));
        assert_eq!((done.stop, done.state.rip), (exception(1, 0, 0), CODE.start + end));
    }
}

#[test]
fn tf_ends_a_case_after_one_instruction() {
    let mut one = case(&[0x90, 0x90]);
    one.state.rflags |= 1 << 8;
    let done = run(&one);
    assert_eq!((done.stop, done.state.rip), (exception(1, 0, 0), CODE.start + 1));
}

#[test]
fn ac_checks_alignment() {
    let mut load = case(&[0x8b, 0x44, 0x24, 1]); // mov eax, [rsp + 1]
    load.state.rflags |= 1 << 18;
    let done = run(&load);
    assert_eq!((done.stop, done.state.rip), (exception(17, 0, 0), CODE.start));
    assert_ne!(done.state.rflags & 1 << 18, 0);
}

#[test]
fn no_system_call_of_a_case_is_made() {
    // exit_group(0), kill(0, SIGKILL)
    for number in [231u8, 62] {
        let mut call = case(&[0xb8, number, 0, 0, 0, 0x31, 0xff, 0xbe, 9, 0, 0, 0, 0x0f, 0x05]);
        let done = run(&call);
        assert_eq!(done.stop, Stop::Syscall);
        assert_eq!((done.state.rip, done.state.regs[1]), (CODE.start + 14, CODE.start + 14));
        assert_eq!(done.state.regs[11], done.state.rflags);
        // int 80h: exit
        call.code = vec![0xb8, 1, 0, 0, 0, 0xcd, 0x80];
        assert_eq!(run(&call).stop, Stop::Syscall);
    }
}
