//! Cases on the interpreter, with what the manuals say of them.

use super::*;
use crate::case::{CaseId, Kind, LdtEntry};
use crate::layout::{CODE, DATA, READ_ONLY, selector};
use crate::outcome::Change;
use crate::state::UserState;

fn case(code: &[u8]) -> Case {
    Case {
        id: CaseId::default(),
        kind: Kind::Manual,
        width: Width::Bits64,
        code_at: CODE.start,
        code: code.to_vec(),
        state: UserState::default(),
        memory: Vec::new(),
        ldt: Vec::new(),
        limit: 100,
    }
}

fn run(case: &Case) -> Outcome {
    let model = CpuModel::by_name("max").unwrap();
    let mut engine = VcpuEngine::interpreter(model).unwrap();
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

#[test]
fn a_loop_that_runs_hot_is_translated_as_such_and_ends_alike() {
    // mov ecx, 60; add rax, rcx; test al, 1; jz +3; lea rax, [rax + 1]; dec ecx; jnz to the add
    let code = [
        0xb9, 60, 0, 0, 0, 0x48, 0x01, 0xc8, 0xa8, 1, 0x74, 4, 0x48, 0x8d, 0x40, 1, 0xff, 0xc9,
        0x75, 0xf1,
    ];
    let case = Case { limit: 1000, ..case(&code) };
    let model = CpuModel::by_name("max").unwrap();
    let mut engine = VcpuEngine::hot(model, 3).unwrap();
    let hot = engine.run(std::slice::from_ref(&case)).unwrap();
    assert_eq!(hot[0], run(&case));
    assert_eq!((engine.take_hot(), engine.take_hot()), (1, 0));
}

#[test]
fn what_a_case_has_changed_is_gone_when_the_next_begins() {
    // mov [rdi], rax, on a line of the case's own and beside it
    let mut one = case(&[0x48, 0x89, 0x07]);
    one.state.regs[7] = DATA.start + 0x103c;
    one.state.regs[0] = u64::MAX;
    one.memory = vec![crate::case::Patch { address: DATA.start + 0x1030, bytes: vec![7; 16] }];
    let model = CpuModel::by_name("max").unwrap();
    let mut engine = VcpuEngine::interpreter(model).unwrap();
    // mov rax, [rdi]
    let mut other = case(&[0x48, 0x8b, 0x07]);
    other.state.regs[7] = DATA.start + 0x103c;
    let fresh = engine.run(std::slice::from_ref(&other)).unwrap();
    let both = engine.run(&[one, other]).unwrap();
    assert_eq!(both[0].changes.len(), 1);
    assert_eq!(both[1], fresh[0]);
}

#[test]
fn tf_ends_a_case_after_one_instruction() {
    let mut one = case(&[0x90, 0x90]);
    one.state.rflags |= 1 << 8;
    let done = run(&one);
    assert_eq!((done.stop, done.state.rip), (exception(1, 0, 0), CODE.start + 1));
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
    assert_eq!(store(1 << 63).stop, exception(13, 0, 0));
    let there = store(DATA.start + 0x123);
    let changed = Change { address: DATA.start + 0x123, bytes: vec![0] };
    assert_eq!(there.changes, [changed]);
    let mut fetch = case(&[0xb8, 1, 2]);
    fetch.code_at = CODE.end() - 3;
    fetch.state.rip = fetch.code_at;
    assert_eq!(run(&fetch).stop, exception(14, 0x14, CODE.end()));
}

#[test]
fn segments_of_the_local_descriptor_table_have_limits() {
    let entry = LdtEntry {
        base: DATA.start as u32,
        limit: 0xfff,
        pages: false,
        code: false,
        open: true,
        expand_down: false,
        big: true,
        present: true,
    };
    let code = LdtEntry { base: CODE.start as u32, code: true, big: false, limit: 0x1fff, ..entry };
    let load = |at: u64| {
        let mut load = case(&[0x8b, 0x07]); // mov ax, [bx]
        load.width = Width::Bits16;
        load.ldt = vec![Some(code), Some(entry)];
        load.state.selectors[CS_NUMBER] = selector::local(0);
        load.state.selectors[3] = selector::local(1);
        load.state.rip = 0;
        load.state.regs[3] = at;
        run(&load)
    };
    assert_eq!(load(0xffe).stop, exception(3, 0, 0));
    assert_eq!(load(0xfff).stop, exception(13, 0, 0));
}

const CS_NUMBER: usize = 1;

#[test]
fn a_system_call_is_told_from_an_exception() {
    let done = run(&case(&[0x0f, 0x05]));
    assert_eq!(done.stop, Stop::Syscall);
    assert_eq!(done.state.rip, CODE.start + 2);
    assert_eq!(run(&case(&[0xcd, 0x80])).stop, Stop::Syscall);
    assert_eq!(run(&case(&[0xcd, 0x81])).stop, exception(13, 0x81 * 8 + 2, 0));
}

#[test]
fn an_endless_loop_is_given_up() {
    assert_eq!(run(&case(&[0xeb, 0xfe])).stop, Stop::Endless);
}

#[test]
fn hot_cases_begin_each_time_from_the_same_state() {
    // add qword ptr [rdi], rax; add rax, [rdi]; jmp to the next instruction; inc byte ptr [rdi + 8]
    let code = [0x48, 0x01, 0x07, 0x48, 0x03, 0x07, 0xeb, 0x00, 0xfe, 0x47, 0x08];
    let mut counting = case(&code);
    counting.state.regs[0] = 3;
    counting.state.regs[7] = DATA.start;
    let model = CpuModel::by_name("max").unwrap();
    let mut hot = VcpuEngine::hot(model, 20).unwrap();
    let outcomes = hot.run(&[counting.clone(), counting.clone()]).unwrap();
    assert_eq!(outcomes[0], run(&counting));
    assert_eq!(outcomes[1], outcomes[0]);
}
