//! All state goes in and comes out as it was.

use trivium_cpu::state::X87Register;

use super::*;
use crate::state::UserState;

/// A state in which no two parts are alike.
fn motley() -> UserState {
    let mut state = UserState { rflags: 0x24_4ed7, ..UserState::default() };
    for (n, register) in (1..).zip(state.regs.iter_mut()) {
        *register = n * 0x0101_2345_6789_abcd;
    }
    state.fs_base = 0x1234_5678_9abc;
    state.gs_base = 0xffff_fedc_ba98_7654;
    state.selectors[4] = selector::DATA;
    state.selectors[5] = selector::CODE32;
    state.mxcsr = 0xbfbf;
    state.x87.control = 0x27f;
    state.x87.status = 0x5d00 & !0x8000 | 0x4000;
    for (n, register) in (1..).zip(state.x87.regs.iter_mut()) {
        *register = X87Register { mantissa: 1 << 63 | n, sign_exponent: 0x3f00 + n as u16 };
    }
    state.x87.tags = 0b00_11_00_00_11_11_00_00;
    state
}

fn comes_back(before: &UserState, code: &[u8]) -> UserState {
    let case = Case { state: before.clone(), ..case(code) };
    let done = run(&case);
    assert_eq!(done.stop, exception(3, 0, 0));
    done.state
}

#[test]
fn what_no_instruction_changes_stays() {
    let before = motley();
    let mut after = comes_back(&before, &[]);
    assert_eq!(after.rip, before.rip + 1);
    after.rip = before.rip;
    assert_eq!(after, before);
}

#[test]
fn vectors_go_in_and_out() {
    let engine = engine();
    let (registers, words) = match (engine.has_avx512(), engine.encoder.xsave.has_avx()) {
        (true, _) => (32, 8),
        (_, true) => (16, 4),
        _ => (16, 2),
    };
    let mut before = motley();
    for (n, register) in (1..).zip(before.zmm[..registers].iter_mut()) {
        for (k, word) in (1..).zip(register[..words].iter_mut()) {
            *word = n << 32 | k;
        }
    }
    if engine.has_avx512() {
        before.opmask = [1, 2, 3, 4, 5, 6, 7, 1 << 63];
    }
    let mut after = comes_back(&before, &[]);
    after.rip = before.rip;
    assert_eq!(after, before);
    if engine.encoder.xsave.has_avx() {
        // vzeroupper
        let after = comes_back(&before, &[0xc5, 0xf8, 0x77]);
        for (n, register) in after.zmm[..16].iter().enumerate() {
            assert_eq!(register[..2], before.zmm[n][..2]);
            assert_eq!(register[2..], [0; 6]);
        }
    }
}

#[test]
fn x87_pointers_of_a_pending_exception_go_in_and_out() {
    let mut before = motley();
    before.x87.status |= 0x8081;
    before.x87.control = 0x27e;
    before.x87.last_ip = 0x1234_5678_9abc;
    before.x87.last_dp = 0x5678_1234_5678;
    before.x87.last_opcode = 0x765;
    let mut after = comes_back(&before, &[]);
    after.rip = before.rip;
    assert_eq!(after, before);
}

#[test]
fn instructions_see_what_went_in() {
    let mut before = motley();
    before.regs[4] = STACK.start + 0x800;
    before.fs_base = DATA.start;
    // mov fs:[8], gs; rdgsbase rax; pushfq; pop rcx; mov edx, ds
    let code =
        [0x64, 0x8c, 0x2c, 0x25, 8, 0, 0, 0, 0xf3, 0x48, 0x0f, 0xae, 0xc8, 0x9c, 0x59, 0x8c, 0xda];
    before.rflags &= !(1 << 18);
    let after = comes_back(&before, &code);
    assert_eq!(after.regs[..3], [before.gs_base, before.rflags, u64::from(selector::DATA)]);
}
