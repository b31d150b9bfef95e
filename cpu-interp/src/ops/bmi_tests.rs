//! Tests of BMI1 and BMI2: results and flags that a Zen 5 gives.

use trivium_cpu::Vector;
use trivium_cpu::bits::rflags::{AF, CF, PF, SF, STATUS, ZF};

use crate::testing::{DATA, TestMachine};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;

/// Runs an instruction with these RCX and RDX; gives RAX and the arithmetic flags.
fn run(code: &[u8], rcx: u64, rdx: u64) -> (u64, u64) {
    let mut found = [0, STATUS].map(|flags| {
        let mut m = TestMachine::long(code);
        m.set(|state| {
            state.general.regs[RAX] = !0;
            state.general.regs[RCX] = rcx;
            state.general.regs[RDX] = rdx;
            state.general.rflags |= flags;
        });
        m.run(1);
        (m.reg(RAX), m.state().general.rflags & STATUS)
    });
    // Flags are all written, or none is.
    if found[0].1 != found[1].1 {
        assert_eq!((found[0].1, found[1].1), (0, STATUS));
        found[0].1 = u64::MAX;
    }
    assert_eq!(found[0].0, found[1].0);
    found[0]
}

/// Flags are kept.
const KEPT: u64 = u64::MAX;

#[test]
fn andn_and_bzhi_and_bextr() {
    // andn eax, ecx, edx; andn rax, rcx, rdx.
    let (andn32, andn64) = ([0xc4, 0xe2, 0x70, 0xf2, 0xc2], [0xc4, 0xe2, 0xf0, 0xf2, 0xc2]);
    assert_eq!(run(&andn32, !0, 0x8000_0000), (0, PF | ZF));
    assert_eq!(run(&andn32, 0, 0x8000_0000_0000_0010), (0x10, 0));
    assert_eq!(run(&andn64, 0, 0x8000_0000_0000_0010), (0x8000_0000_0000_0010, SF));
    assert_eq!(run(&andn64, 0xff00, 0x1_ff03), (0x1_0003, PF));
    // bzhi eax, ecx, edx; bzhi rax, rcx, rdx.
    let (bzhi32, bzhi64) = ([0xc4, 0xe2, 0x68, 0xf5, 0xc1], [0xc4, 0xe2, 0xe8, 0xf5, 0xc1]);
    assert_eq!(run(&bzhi32, !0, 0x20), (0xffff_ffff, CF | PF | SF));
    assert_eq!(run(&bzhi64, !0, 0x20), (0xffff_ffff, PF));
    assert_eq!(run(&bzhi64, !0, 0x3f), (!0 >> 1, PF));
    assert_eq!(run(&bzhi32, !0, 5), (0x1f, 0));
    assert_eq!(run(&bzhi64, 0x13, 0xff), (0x13, CF));
    assert_eq!(run(&bzhi64, 0x13, 0x105), (0x13, 0), "of the index the low byte counts");
    // bextr eax, ecx, edx; bextr rax, rcx, rdx.
    let (bextr32, bextr64) = ([0xc4, 0xe2, 0x68, 0xf7, 0xc1], [0xc4, 0xe2, 0xe8, 0xf7, 0xc1]);
    assert_eq!(run(&bextr32, !0, 0x2000), (0xffff_ffff, PF | AF));
    assert_eq!(run(&bextr64, !0, 0x4000), (!0, PF | AF));
    assert_eq!(run(&bextr64, 0x13, 0x800), (0x13, AF));
    assert_eq!(run(&bextr32, !0, 0x830), (0, PF | AF | ZF));
    assert_eq!(run(&bextr64, !0, 0x830), (0xff, PF | AF));
    assert_eq!(run(&bextr64, !0, 0xff3f), (1, AF));
    assert_eq!(run(&bextr64, !0, 0x0140), (0, PF | AF | ZF));
}

#[test]
fn the_lowest_set_bit() {
    let code = |reg: u8, wide: u8| [0xc4, 0xe2, 0x78 | wide, 0xf3, 0xc1 | reg << 3];
    // VEX.vvvv is RAX: BLSR is /1, BLSMSK /2, BLSI /3.
    let blsr = |rcx| run(&code(1, 0), rcx, 0);
    assert_eq!(blsr(0), (0, CF | PF | ZF));
    assert_eq!(blsr(0x8000_0000), (0, PF | ZF));
    assert_eq!(blsr(0xffff_ffff_0000_0000), (0, CF | PF | ZF));
    assert_eq!(run(&code(1, 0x80), 0xffff_ffff_0000_0000, 0), (0xffff_fffe_0000_0000, PF | SF));
    let blsmsk = |rcx| run(&code(2, 0), rcx, 0);
    assert_eq!(blsmsk(0), (0xffff_ffff, CF | PF | SF));
    assert_eq!(blsmsk(0x10), (0x1f, 0));
    assert_eq!(run(&code(2, 0x80), 0, 0), (!0, CF | PF | SF));
    assert_eq!(run(&code(2, 0x80), 1 << 63, 0), (!0, PF | SF));
    let blsi = |rcx| run(&code(3, 0), rcx, 0);
    assert_eq!(blsi(0), (0, PF | ZF));
    assert_eq!(blsi(0x30), (0x10, CF));
    assert_eq!(blsi(0x8000_0000), (0x8000_0000, CF | PF | SF));
    assert_eq!(run(&code(3, 0x80), 0xffff_ffff_0000_0000, 0), (0x1_0000_0000, CF | PF));
}

/// Intel SDM vol. 2B, PDEP and PEXT, figures 4-10 and 4-11.
#[test]
fn bits_are_deposited_and_extracted() {
    // pdep rax, rcx, rdx; pext rax, rcx, rdx.
    let (pdep, pext) = ([0xc4, 0xe2, 0xf3, 0xf5, 0xc2], [0xc4, 0xe2, 0xf2, 0xf5, 0xc2]);
    assert_eq!(run(&pdep, 0b1011, 0b1010_0110), (0b1000_0110, KEPT));
    assert_eq!(run(&pext, 0b1000_0111, 0b1010_0110), (0b1011, KEPT));
    assert_eq!(run(&pdep, !0, 0x8000_0000_0000_0001), (0x8000_0000_0000_0001, KEPT));
    assert_eq!(run(&pext, !0, !0), (!0, KEPT));
    assert_eq!(run(&[0xc4, 0xe2, 0x72, 0xf5, 0xc2], !0, !0), (0xffff_ffff, KEPT));
}

#[test]
fn shifts_and_rotates_without_flags() {
    // sarx, shlx, shrx eax, ecx, edx.
    let code = |pp: u8| [0xc4, 0xe2, 0x68 | pp, 0xf7, 0xc1];
    assert_eq!(run(&code(2), 0x8000_0000, 0x23), (0xf000_0000, KEPT));
    assert_eq!(run(&code(1), 0x8000_0001, 0x23), (8, KEPT));
    assert_eq!(run(&code(3), 0x8000_0001, 0x20), (0x8000_0001, KEPT));
    assert_eq!(run(&code(0x82), 1 << 63, 0x7f), (!0, KEPT));
    // rorx eax, ecx, imm8; rorx rax, rcx, imm8.
    assert_eq!(run(&[0xc4, 0xe3, 0x7b, 0xf0, 0xc1, 0x24], 0x1234_5678, 0), (0x8123_4567, KEPT));
    assert_eq!(run(&[0xc4, 0xe3, 0xfb, 0xf0, 0xc1, 0x44], 0xf, 0), (0xf << 60, KEPT));
    assert_eq!(run(&[0xc4, 0xe3, 0xfb, 0xf0, 0xc1, 0x40], 0xf, 0), (0xf, KEPT));
}

/// Intel SDM vol. 2B, MULX: if the destinations are one, it holds the high half.
#[test]
fn mulx_multiplies_by_rdx() {
    // mulx rax, rbx, rcx; mulx eax, ebx, ecx; mulx rax, rax, rcx.
    for (code, high, low) in [
        ([0xc4, 0xe2, 0xe3, 0xf6, 0xc1], !0 - 1, Some(1)),
        ([0xc4, 0xe2, 0x63, 0xf6, 0xc1], 0xffff_fffe, Some(1)),
        ([0xc4, 0xe2, 0xfb, 0xf6, 0xc1], !0 - 1, None),
    ] {
        let mut m = TestMachine::long(&code);
        m.set(|state| {
            state.general.regs[RCX] = !0;
            state.general.regs[RDX] = !0;
            state.general.rflags |= STATUS;
        });
        m.run(1);
        assert_eq!(m.reg(RAX), high);
        assert_eq!(low.unwrap_or_default(), if low.is_some() { m.reg(RBX) } else { 0 });
        assert_eq!(m.state().general.rflags & STATUS, STATUS);
    }
}

#[test]
fn sources_in_memory() {
    // andn rax, rcx, [rbx]; bextr rax, [rbx], rcx; rorx eax, [rbx], 8; mulx rax, rcx, [rbx].
    let cases: [(&[u8], u64, u64); 4] = [
        (&[0xc4, 0xe2, 0xf0, 0xf2, 0x03], 0xf0, 0x1122_3344_5566_7708),
        (&[0xc4, 0xe2, 0xf0, 0xf7, 0x03], 0x0808, 0x77),
        (&[0xc4, 0xe3, 0x7b, 0xf0, 0x03, 8], 0, 0x8855_6677),
        (&[0xc4, 0xe2, 0xf3, 0xf6, 0x03], 0, 0x0891_19a2),
    ];
    for (code, rcx, expected) in cases {
        let mut m = TestMachine::long(code);
        m.put_u64(DATA, 0x1122_3344_5566_7788);
        m.set(|state| {
            state.general.regs[RCX] = rcx;
            state.general.regs[RDX] = 0x8000_0000;
            state.general.regs[RBX] = DATA;
        });
        m.run(1);
        assert_eq!(m.reg(RAX), expected, "{code:x?}");
    }
}

/// Intel SDM vol. 2A, 2.8: no VEX prefix in real and virtual-8086 mode; VEX.L must be 0.
#[test]
fn vex_is_undefined_outside_protected_mode_and_l_must_be_zero() {
    let andn = [0xc4, 0xe2, 0x70, 0xf2, 0xc2];
    let mut m = TestMachine::real(&andn);
    assert_eq!(m.run_to_handler(), Vector::UD as u8);
    TestMachine::protected(&andn).in_v86(3).raises(Vector::UD, None);
    TestMachine::long(&[0xc4, 0xe2, 0x74, 0xf2, 0xc2]).raises(Vector::UD, None);
    let mut m = TestMachine::protected(&andn);
    m.set(|state| state.general.regs[RDX] = 5);
    m.run(1);
    assert_eq!(m.reg(RAX), 5);
}

/// What AMD documents and Intel's processors do: BSF and BSR of zero change no register.
#[test]
fn bsf_and_bsr_of_zero_change_no_register() {
    for code in [[0x0f, 0xbc, 0xc1], [0x0f, 0xbd, 0xc1]] {
        assert_eq!(run(&code, 0xffff_ffff_0000_0000, 0), (!0, ZF | PF));
        assert_eq!(run(&code, 1, 0), (0, PF));
        assert_eq!(run(&code, 0x10, 0), (4, 0));
    }
}
