//! 3DNow! as its manual has it.

use trivium_cpu::Vector;
use trivium_cpu::bits::cr0;
use trivium_cpu::model::CpuModel;

use super::*;
use crate::testing::{DATA, TestMachine};

const ONE: u32 = 0x3f80_0000;
const TWO: u32 = 0x4000_0000;
const MINUS_LARGEST: u32 = LARGEST | SIGN;
const TINIEST: u32 = 0x0080_0000;
const DENORMAL: u32 = 0x007f_ffff;

fn phenom(code: &[u8]) -> TestMachine {
    let mut m = TestMachine::long_with(CpuModel::by_name("phenom").unwrap(), code);
    m.set(|s| s.general.regs[7] = DATA);
    m
}

/// What `0F 0F C1 opcode` makes of MM0 and MM1.
fn run(opcode: u8, dst: [u32; 2], src: [u32; 2]) -> [u32; 2] {
    let mut m = phenom(&[0x0f, 0x0f, 0xc1, opcode]);
    m.set(|s| {
        s.x87.regs[0].mantissa = join(dst)[0];
        s.x87.regs[1].mantissa = join(src)[0];
        s.x87.status = 5 << 11;
        s.x87.tags = 0xffff;
    });
    m.run(1);
    let x87 = m.state().x87;
    assert_eq!((x87.status, x87.tags, x87.regs[0].sign_exponent), (0, 0, 0xffff), "an MMX write");
    pair([x87.regs[0].mantissa, 0])
}

/// The same for the low halves alone.
fn low(opcode: u8, dst: u32, src: u32) -> u32 {
    run(opcode, [dst, 0], [src, 0])[0]
}

const PFADD: u8 = 0x9e;
const PFSUB: u8 = 0x9a;
const PFSUBR: u8 = 0xaa;
const PFMUL: u8 = 0xb4;
const PFMAX: u8 = 0xa4;
const PFMIN: u8 = 0x94;
const PFRCP: u8 = 0x96;
const PFRSQRT: u8 = 0x97;
const PFRCPIT1: u8 = 0xa6;
const PFRSQIT1: u8 = 0xa7;
const PFRCPIT2: u8 = 0xb6;

fn f(value: f32) -> u32 {
    value.to_bits()
}

#[test]
fn sums_saturate_and_underflow_to_zero() {
    let rows = [
        (PFADD, f(1.5), f(2.25), f(3.75)),
        (PFADD, LARGEST, LARGEST, LARGEST),
        (PFADD, MINUS_LARGEST, MINUS_LARGEST, MINUS_LARGEST),
        (PFADD, DENORMAL, DENORMAL, 0),
        (PFADD, DENORMAL | SIGN, ONE, ONE),
        // Both zeros: the sign is the AND of the signs.
        (PFADD, SIGN, SIGN, SIGN),
        (PFADD, 0, SIGN, 0),
        // Less than 2^-126: the sign of the greater one.
        (PFADD, TINIEST | SIGN, TINIEST + 1, 0),
        (PFADD, TINIEST, (TINIEST + 1) | SIGN, SIGN),
        // Equals: the sign of source 1.
        (PFADD, ONE | SIGN, ONE, SIGN),
        (PFADD, ONE, ONE | SIGN, 0),
        (PFSUB, f(1.0), f(3.0), f(-2.0)),
        (PFSUB, 0, 0, 0),
        (PFSUB, 0, TWO, TWO | SIGN),
        (PFSUBR, f(1.0), f(3.0), f(2.0)),
        (PFMUL, f(-3.0), f(0.5), f(-1.5)),
        (PFMUL, LARGEST, TWO | SIGN, MINUS_LARGEST),
        (PFMUL, TINIEST, f(-0.5), SIGN),
        (PFMUL, ONE | SIGN, 0, SIGN),
        // The nearest, and the even one of two that are as near.
        (PFADD, ONE, f(f32::EPSILON / 2.0), ONE),
        (PFADD, ONE + 1, f(f32::EPSILON / 2.0), ONE + 2),
    ];
    for (opcode, dst, src, result) in rows {
        assert_eq!(low(opcode, dst, src), result, "{opcode:#x} {dst:#x} {src:#x}");
    }
}

#[test]
fn the_greater_and_the_smaller_one_are_never_a_negative_zero() {
    let rows = [
        (PFMAX, ONE, TWO, TWO),
        (PFMAX, TWO, ONE | SIGN, TWO),
        (PFMAX, SIGN, ONE | SIGN, 0),
        (PFMAX, SIGN, SIGN, 0),
        (PFMAX, 0, DENORMAL, 0),
        (PFMIN, ONE, TWO, ONE),
        (PFMIN, TWO, ONE | SIGN, ONE | SIGN),
        (PFMIN, SIGN, ONE, 0),
        (PFMIN, SIGN, SIGN, 0),
    ];
    for (opcode, dst, src, result) in rows {
        assert_eq!(low(opcode, dst, src), result, "{opcode:#x} {dst:#x} {src:#x}");
    }
}

#[test]
fn comparisons_make_masks() {
    let (eq, ge, gt) = (0xb0, 0x90, 0xa0);
    let all = |dst, src| [eq, ge, gt].map(|opcode| low(opcode, dst, src));
    assert_eq!(all(ONE, ONE), [!0, !0, 0]);
    assert_eq!(all(TWO, ONE), [0, !0, !0]);
    assert_eq!(all(ONE | SIGN, ONE), [0, 0, 0]);
    assert_eq!(all(SIGN, 0), [!0, !0, 0], "zeros are equal");
    assert_eq!(all(0, DENORMAL), [!0, !0, 0]);
}

#[test]
fn accumulations_take_both_of_one_operand() {
    let (dst, src) = ([f(1.0), f(2.0)], [f(8.0), f(16.0)]);
    assert_eq!(run(0xae, dst, src), [f(3.0), f(24.0)], "PFACC");
    assert_eq!(run(0x8a, dst, src), [f(-1.0), f(-8.0)], "PFNACC");
    assert_eq!(run(0x8e, dst, src), [f(-1.0), f(24.0)], "PFPNACC");
    assert_eq!(run(0xbb, dst, src), [f(16.0), f(8.0)], "PSWAPD");
}

#[test]
fn conversions_truncate_and_saturate() {
    let convert = |opcode, src| run(opcode, [0, 0], src);
    let (pf2id, pf2iw, pi2fd, pi2fw) = (0x1d, 0x1c, 0x0d, 0x0c);
    assert_eq!(convert(pf2id, [f(-1.75), f(1.75)]), [!0, 1]);
    assert_eq!(convert(pf2id, [f(2147483648.0), f(-2147483648.0)]), [0x7fff_ffff, 0x8000_0000]);
    assert_eq!(convert(pf2id, [DENORMAL, MINUS_LARGEST]), [0, 0x8000_0000]);
    assert_eq!(convert(pf2iw, [f(-1.75), f(32767.9)]), [!0, 0x7fff]);
    assert_eq!(convert(pf2iw, [f(32768.0), f(-40000.0)]), [0x7fff, 0xffff_8000]);
    assert_eq!(convert(pi2fd, [!0, 0x7fff_ffff]), [f(-1.0), 0x4eff_ffff]);
    assert_eq!(convert(pi2fd, [0x8000_0001, 0]), [0xceff_ffff, 0]);
    // The words above are ignored.
    assert_eq!(convert(pi2fw, [0x1234_8000, 0xffff_0003]), [f(-32768.0), f(3.0)]);
}

#[test]
fn pmulhrw_and_pavgusb_round() {
    let (dst, src) = ([0x7fff_8000, 0x0001_ffff], [0x7fff_8000, 0x7fff_8000]);
    // 3fff0001h, 40000000h, 7fffh and 8000h, each with 8000h added.
    assert_eq!(run(0xb7, dst, src), [0x3fff_4000, 0x0000_0001]);
    assert_eq!(run(0xbf, [0x00ff_0102, 0], [0x01ff_0203, 0])[0], 0x01ff_0203, "PAVGUSB");
}

/// Numbers all over the range, always the same.
fn numbers(count: usize) -> impl Iterator<Item = u32> {
    let mut state = 0x1234_5678_9abc_def1_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u32
    })
    .filter(|n| (1..=252).contains(&(n >> 23 & 0xff)))
    .take(count)
}

fn low_of(v: V128) -> u32 {
    pair(v)[0]
}

fn is_within(result: u32, exact: f64, bits: i32) -> bool {
    ((value(result) - exact) / exact).abs() < 2.0_f64.powi(-bits)
}

#[test]
fn pfrcp_is_good_to_14_bits_and_pfrsqrt_to_15() {
    for b in numbers(100_000) {
        let exact = value(b);
        assert!(is_within(reciprocal(exact), 1.0 / exact, 14), "{b:#x}");
        let root = (1.0 / exact.abs().sqrt()).copysign(exact);
        assert!(is_within(reciprocal_root(exact), root, 15), "{b:#x}");
    }
}

#[test]
fn the_sequences_of_the_manual_are_right_to_the_last_place() {
    let of = |n: u32| [u64::from(n), 0];
    for n in numbers(100_000) {
        let b = of(n);
        let pfmul = |dst, src| of(low_of(both(dst, src, mul)));
        let x0 = of(low_of(twice(b, reciprocal)));
        let x1 = both(b, x0, reciprocal_step);
        let quotient = low_of(pfmul(x1, x0));
        assert!(quotient.abs_diff(single(1.0 / value(n))) <= 1, "1/{n:#x}: {quotient:#x}");
        let x0 = of(low_of(twice(b, reciprocal_root)));
        let x2 = both(b, pfmul(x0, x0), root_step);
        let root = low_of(pfmul(x2, x0));
        let exact = single((1.0 / value(n).abs().sqrt()).copysign(value(n)));
        assert!(root.abs_diff(exact) <= 1, "root of 1/{n:#x}: {root:#x}");
    }
}

#[test]
fn estimates_that_are_poorer_get_twice_the_bits() {
    for n in numbers(10_000) {
        let b = value(n);
        let poor = value(reciprocal(b) & !0x3ff);
        let better = value(mul(value(reciprocal_step(b, poor)), poor));
        assert!(((better - 1.0 / b) * b).abs() < 2.0_f64.powi(-22), "{n:#x}");
    }
}

#[test]
fn estimates_of_zero_and_of_the_largest() {
    assert_eq!(run(PFRCP, [0, 0], [SIGN, ONE]), [MINUS_LARGEST; 2], "for both halves");
    assert_eq!(run(PFRCP, [0, 0], [0x7e80_0000, ONE]), [0, 0], "from 2^126 on");
    assert_eq!(run(PFRCP, [0, 0], [f(-4.0), ONE]), [f(-0.25); 2]);
    assert_eq!(run(PFRSQRT, [0, 0], [0, ONE]), [LARGEST; 2]);
    assert_eq!(run(PFRSQRT, [0, 0], [f(-4.0), ONE]), [f(-0.5); 2], "the sign stays");
    let steps = [PFRCPIT1, PFRSQIT1].map(|opcode| low(opcode, f(4.0), f(0.25)));
    assert_eq!(steps, [ONE; 2]);
    assert_eq!(low(PFRCPIT2, ONE, f(0.25)), f(0.25));
}

#[test]
fn femms_empties_the_registers() {
    let mut m = phenom(&[0x0f, 0x0e]);
    m.set(|s| s.x87.tags = 0);
    m.run(1);
    assert_eq!(m.state().x87.tags, 0xffff);
}

#[test]
fn faults_are_those_of_mmx() {
    // pfadd mm0, [rdi]
    let codes: [&[u8]; 2] = [&[0x0f, 0x0f, 0x07, PFADD], &[0x0f, 0x0e]];
    for code in codes {
        for (bit, vector) in [(cr0::EM, Vector::UD), (cr0::TS, Vector::NM)] {
            let mut m = phenom(code);
            m.set(|s| s.control.cr0 |= bit);
            m.raises(vector, None);
        }
        TestMachine::long(code).raises(Vector::UD, None);
    }
    let mut m = phenom(&[0x0f, 0x0f, 0x07, PFADD]);
    m.put_u64(DATA, u64::from(ONE));
    m.run(1);
    assert_eq!(m.state().x87.regs[0].mantissa as u32, ONE);
    // An opcode that means nothing.
    phenom(&[0x0f, 0x0f, 0xc1, 0x00]).raises(Vector::UD, None);
}
