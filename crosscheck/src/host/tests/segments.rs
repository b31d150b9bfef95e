//! 32-bit and 16-bit code, and segments of the local descriptor table.

use super::*;
use crate::case::Width;

const ES: usize = 0;
const CS: usize = 1;
const SS: usize = 2;
const DS: usize = 3;
const RSP: usize = 4;

fn code32(code: &[u8]) -> Case {
    let mut case = case(code);
    case.width = Width::Bits32;
    case.state.selectors[CS] = selector::CODE32;
    case
}

fn segment(base: u64, limit: u32) -> LdtEntry {
    LdtEntry {
        base: base as u32,
        limit,
        pages: false,
        code: false,
        open: true,
        expand_down: false,
        big: false,
        present: true,
    }
}

/// 16-bit code with segments for code, data and stack, and one more.
fn code16(code: &[u8], other: LdtEntry) -> Case {
    let mut case = case(code);
    case.width = Width::Bits16;
    let code = LdtEntry { code: true, ..segment(CODE.start, 0x1fff) };
    let (data, stack) = (segment(DATA.start, 0xfff), segment(STACK.start, 0x1fff));
    case.ldt = [code, data, stack, other].map(Some).to_vec();
    let [code, data, stack] = [0, 1, 2].map(selector::local);
    case.state.selectors = [data, code, stack, data, 0, 0];
    (case.state.rip, case.state.regs[RSP]) = (0, 0x1000);
    case
}

fn skips(case: &Case) -> bool {
    let reason = engine().refuses(case);
    if let Some(reason) = reason {
        println!("SKIP: {reason}");
    }
    reason.is_some()
}

#[test]
fn code_of_32_bits_runs() {
    // inc eax; push eax; into
    let mut case = code32(&[0x40, 0x50, 0xce]);
    case.state.regs[0] = 0x7fff_ffff;
    let done = run(&case);
    assert_eq!((done.stop, done.state.rip), (exception(4, 0, 0), CODE.start + 3));
    assert_eq!((done.state.regs[0], done.state.regs[RSP]), (0x8000_0000, 0x6000_0ffc));
    // bound eax, [edi]
    let mut case = code32(&[0x62, 0x07]);
    (case.state.regs[0], case.state.regs[7]) = (0x7fff_ffff, DATA.start);
    case.memory = vec![Patch { address: DATA.start, bytes: vec![0; 8] }];
    let done = run(&case);
    assert_eq!((done.stop, done.state.rip), (exception(5, 0, 0), CODE.start));
}

#[test]
fn far_jumps_change_the_width() {
    // jmp far 33h:OPEN_CODE; there: mov rax, rsp, which 32-bit code takes for two instructions.
    let mut case = code32(&[0xea, 0, 0, 0, 0x41, 0x33, 0]);
    case.memory = vec![Patch { address: OPEN_CODE.start, bytes: vec![0x48, 0x89, 0xe0] }];
    let done = run(&case);
    assert_eq!((done.stop, done.state.rip), (exception(3, 0, 0), OPEN_CODE.start + 4));
    assert_eq!(done.state.regs[0], done.state.regs[RSP]);
    assert_eq!(done.state.selectors[CS], selector::CODE64);
}

#[test]
fn code_of_16_bits_runs() {
    // mov ax, sp; push ax; mov [2], ax
    let case = code16(&[0x89, 0xe0, 0x50, 0xa3, 2, 0], segment(0, 0));
    if skips(&case) {
        return;
    }
    let done = run(&case);
    assert_eq!((done.stop, done.state.rip), (exception(3, 0, 0), 7));
    assert_eq!((done.state.regs[0], done.state.regs[RSP]), (0x1000, 0xffe));
    let changes: Vec<_> = done.changes.iter().map(|c| c.address).collect();
    assert_eq!(changes, [DATA.start + 2, STACK.start + 0xffe]);
    assert_eq!(done.state.selectors, case.state.selectors);
}

#[test]
fn limits_are_kept() {
    // mov ax, [bx]; push es:[si] for the stack
    let load = |at: u64, data: LdtEntry| {
        let mut case = code16(&[0x8b, 0x07], data);
        case.state.selectors[DS] = selector::local(3);
        case.state.regs[3] = at;
        case
    };
    let data = segment(DATA.start, 0xfff);
    if skips(&load(0, data)) {
        return;
    }
    let stop = |at, data| run(&load(at, data)).stop;
    assert_eq!(stop(0xffe, data), exception(3, 0, 0));
    assert_eq!(stop(0xfff, data), exception(13, 0, 0));
    // Intel SDM vol. 3A, 5.3: offsets up to the limit are outside, B gives the upper end.
    let down = LdtEntry { expand_down: true, ..data };
    assert_eq!(stop(0xfff, down), exception(13, 0, 0));
    assert_eq!(stop(0x1000, down), exception(3, 0, 0));
    assert_eq!(stop(0xffff, down), exception(13, 0, 0));
    let mut far = load(0xffff, LdtEntry { big: true, ..down });
    far.state.regs[3] = 0x2ffe;
    assert_eq!(run(&far).stop, exception(3, 0, 0));
    // Stack: #SS. mov ax, [bp]
    let mut stack = code16(&[0x8b, 0x46, 0], data);
    stack.state.regs[5] = 0x1fff;
    assert_eq!(run(&stack).stop, exception(12, 0, 0));
    // mov [bx], ax into what may not be written
    let mut store = load(0, LdtEntry { open: false, ..data });
    store.code = vec![0x89, 0x07];
    assert_eq!(run(&store).stop, exception(13, 0, 0));
    // Code up to the limit, and then no further.
    let mut code = code16(&[0x90], data);
    code.ldt[0] = Some(LdtEntry { limit: 0, ..code.ldt[0].unwrap() });
    let done = run(&code);
    assert_eq!((done.stop, done.state.rip), (exception(13, 0, 0), 1));
}

#[test]
fn loads_of_segments_are_checked() {
    // mov ax, 1fh; mov ds, ax
    let load = |register: u8, entry: Option<LdtEntry>| {
        let mut load = code16(&[0xb8, 0x1f, 0, 0x8e, 0xc0 | register << 3], segment(0, 0));
        load.ldt[3] = entry;
        load
    };
    let data = segment(DATA.start, 0xfff);
    if skips(&load(0, None)) {
        return;
    }
    let stop = |register: usize, entry| run(&load(register as u8, entry)).stop;
    let absent = LdtEntry { present: false, ..data };
    assert_eq!(stop(DS, Some(absent)), exception(11, 0x1c, 0));
    assert_eq!(stop(SS, Some(absent)), exception(12, 0x1c, 0));
    assert_eq!(stop(ES, None), exception(13, 0x1c, 0));
    let empty = LdtEntry { base: 0, limit: 0, open: false, ..absent };
    assert_eq!(stop(ES, Some(empty)), exception(11, 0x1c, 0));
    let closed = LdtEntry { code: true, open: false, ..data };
    assert_eq!(stop(ES, Some(closed)), exception(13, 0x1c, 0), "code that may not be read");
    assert_eq!(stop(SS, Some(LdtEntry { open: false, ..data })), exception(13, 0x1c, 0));
    let done = run(&load(DS as u8, Some(data)));
    assert_eq!((done.stop, done.state.selectors[DS]), (exception(3, 0, 0), 0x1f));
}

#[test]
fn a_table_lasts_for_its_case_only() {
    let entry = segment(DATA.start, 0xfff);
    let with = code16(&[0xb8, 0x1f, 0, 0x8e, 0xd8], entry);
    if skips(&with) {
        return;
    }
    let mut without = case(&[0xb8, 0x1f, 0, 0, 0, 0x8e, 0xd8]);
    let done = engine().run(&[with.clone(), without.clone(), with]).unwrap();
    let stops: Vec<_> = done.into_iter().map(|o| o.stop).collect();
    let end = exception(3, 0, 0);
    assert_eq!(stops, [end.clone(), exception(13, 0x1c, 0), end]);
    without.ldt = vec![Some(LdtEntry { code: true, expand_down: true, ..entry })];
    assert!(engine().refuses(&without).is_some(), "conforming");
}

#[test]
fn what_cannot_be_entered_is_refused() {
    let refused = |change: fn(&mut Case)| {
        let mut bad = code16(&[0x90], segment(0, 0));
        change(&mut bad);
        let why = engine().refuses(&bad);
        // It is harmless all the same.
        let outcome = engine().run(&[bad]).unwrap().remove(0);
        assert_eq!(Some(outcome.stop), why.map(|w| Stop::Lost(w.to_owned())));
    };
    refused(|c| c.state.selectors[CS] = selector::local(1));
    refused(|c| c.state.selectors[CS] = selector::CODE64);
    refused(|c| c.state.selectors[SS] = 0);
    refused(|c| c.state.selectors[DS] = 3);
    refused(|c| c.state.selectors[DS] = selector::local(9));
    refused(|c| c.state.rip = 0x2000);
    refused(|c| c.state.rflags |= 0x3000);
    refused(|c| c.state.mxcsr = 0x1_0000);
    refused(|c| c.state.fs_base = 1 << 47);
    refused(|c| c.code_at = CODE.end());
    refused(|c| c.ldt = vec![None; 17]);
    refused(|c| c.memory = vec![Patch { address: DATA.end() + 0xfff, bytes: vec![0; 2] }]);
}
