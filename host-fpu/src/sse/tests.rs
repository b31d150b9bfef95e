//! SSE results against the manuals' tables and against the host's own SSE3 and SSE4.1 instructions.

use super::*;
use core::arch::asm;

const ONE: u64 = 0x3ff0_0000_0000_0000;
const THREE: u64 = 0x4008_0000_0000_0000;
const INF: u64 = 0x7ff0_0000_0000_0000;
const MAX: u64 = 0x7fef_ffff_ffff_ffff;
const MIN_NORMAL: u64 = 0x0010_0000_0000_0000;
const DENORMAL: u64 = 1;
const HALF: u64 = 0x3fe0_0000_0000_0000;
const INDEFINITE: u64 = 0xfff8_0000_0000_0000;
const SIGN: u64 = 1 << 63;
const QUIET: u64 = 1 << 51;
const SNAN: u64 = 0x7ff0_0000_0000_1234;
const QNAN: u64 = 0x7ff8_0000_0000_5678;

const IE: u32 = Mxcsr::IE;
const DE: u32 = Mxcsr::DE;
const ZE: u32 = Mxcsr::ZE;
const OE: u32 = Mxcsr::OE;
const UE: u32 = Mxcsr::UE;
const PE: u32 = Mxcsr::PE;

fn rounding(rc: u32) -> Mxcsr {
    Mxcsr(Mxcsr::MASKS | rc << Mxcsr::RC_SHIFT)
}

/// The host's control bits.
fn host_control() -> u32 {
    let mut mxcsr = 0_u32;
    // SAFETY: STMXCSR writes four bytes to a live local.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack)) };
    mxcsr & !Mxcsr::FLAGS
}

/// The low quadword and flags of an instruction on scalars, checking that the host's MXCSR is kept.
fn low<Op: SseOp>(mxcsr: Mxcsr, a: u64, b: u64) -> (u64, u32) {
    let r = Op::apply(mxcsr, [a, 0], [b, 0]);
    assert_eq!(host_control(), Mxcsr::MASKS);
    (r.value[0], r.flags)
}

/// [`low`] under the reset control bits.
fn reset<Op: SseOp>(a: u64, b: u64) -> (u64, u32) {
    low::<Op>(Mxcsr::RESET, a, b)
}

#[test]
fn one_third_in_each_rounding_mode() {
    let third = 0x3fd5_5555_5555_5555;
    for (rc, ulp) in [(0, 0), (1, 0), (2, 1), (3, 0)] {
        assert_eq!(low::<DivSd>(rounding(rc), ONE, THREE), (third + ulp, PE), "RC {rc}");
        let (one, three) = (u64::from(1_f32.to_bits()), u64::from(3_f32.to_bits()));
        let single = if rc == 0 || rc == 2 { 0x3eaa_aaab } else { 0x3eaa_aaaa };
        assert_eq!(low::<DivSs>(rounding(rc), one, three), (single, PE), "RC {rc}");
    }
}

#[test]
fn nan_results_of_table_4_7() {
    let cases = [
        (SNAN, QNAN, SNAN | QUIET, IE, "SNaN and QNaN: first operand, quieted"),
        (QNAN, SNAN, QNAN, IE, "QNaN and SNaN: first operand"),
        (SNAN, SNAN + 1, SNAN | QUIET, IE, "two SNaNs: first operand, quieted"),
        (QNAN, QNAN + 1, QNAN, 0, "two QNaNs: first operand"),
        (SNAN, ONE, SNAN | QUIET, IE, "SNaN and a value"),
        (ONE, SNAN, SNAN | QUIET, IE, "a value and SNaN"),
        (ONE, QNAN, QNAN, 0, "a value and QNaN"),
    ];
    for (a, b, value, flags, name) in cases {
        assert_eq!(reset::<AddSd>(a, b), (value, flags), "{name}");
        assert_eq!(reset::<MulSd>(a, b), (value, flags), "{name}");
    }
}

#[test]
fn masked_responses_to_invalid_operations() {
    assert_eq!(reset::<SubSd>(INF, INF), (INDEFINITE, IE));
    assert_eq!(reset::<MulSd>(0, INF), (INDEFINITE, IE));
    assert_eq!(reset::<DivSd>(0, 0), (INDEFINITE, IE));
    assert_eq!(reset::<DivSd>(INF, INF), (INDEFINITE, IE));
    assert_eq!(reset::<SqrtSd>(0, ONE | SIGN), (INDEFINITE, IE));
    assert_eq!(reset::<SqrtSd>(0, SIGN), (SIGN, 0), "the root of -0 is -0");
}

#[test]
fn masked_responses_to_division_by_zero_overflow_and_underflow() {
    assert_eq!(reset::<DivSd>(ONE, SIGN), (INF | SIGN, ZE));
    for (rc, positive, negative) in [(0, INF, INF), (1, MAX, INF), (2, INF, MAX), (3, MAX, MAX)] {
        assert_eq!(low::<AddSd>(rounding(rc), MAX, MAX), (positive, OE | PE));
        assert_eq!(low::<AddSd>(rounding(rc), MAX | SIGN, MAX | SIGN), (negative | SIGN, OE | PE));
    }
    assert_eq!(reset::<MulSd>(MIN_NORMAL, MIN_NORMAL), (0, UE | PE));
    assert_eq!(low::<MulSd>(rounding(2), MIN_NORMAL, MIN_NORMAL), (1, UE | PE));
}

#[test]
fn denormals_under_daz_and_ftz() {
    let daz = Mxcsr(Mxcsr::MASKS | Mxcsr::DAZ);
    let ftz = Mxcsr(Mxcsr::MASKS | Mxcsr::FTZ);
    assert_eq!(reset::<AddSd>(DENORMAL, 0), (DENORMAL, DE));
    assert_eq!(low::<AddSd>(daz, DENORMAL | SIGN, SIGN), (SIGN, 0), "the sign is kept, no DE");
    assert_eq!(low::<MulSd>(ftz, MIN_NORMAL | SIGN, HALF), (SIGN, UE | PE), "flushed");
    assert_eq!(reset::<MulSd>(MIN_NORMAL, HALF), (MIN_NORMAL >> 1, 0), "exact: no UE when masked");
}

#[test]
fn unmasked_underflow_is_reported_for_exact_results_and_disables_ftz() {
    let unmasked = Mxcsr(Mxcsr::MASKS & !Mxcsr::UM);
    let with_ftz = Mxcsr(unmasked.0 | Mxcsr::FTZ);
    for mxcsr in [unmasked, with_ftz] {
        let (value, flags) = low::<MulSd>(mxcsr, MIN_NORMAL, HALF);
        assert_eq!((value, flags), (MIN_NORMAL >> 1, UE));
        assert_eq!(mxcsr.raise(flags), (Mxcsr(mxcsr.0 | UE), true));
        assert_eq!(low::<MulSd>(mxcsr, ONE, HALF), (HALF, 0));
    }
}

/// SDM vol. 1, 4.9.1.4 to 4.9.1.6: the precision of an unmasked overflow or underflow is that of the
/// result with an unbounded exponent.
#[test]
fn unmasked_overflow_and_underflow_are_exact_unless_the_significand_is_not() {
    let unmasked = Mxcsr(Mxcsr::MASKS & !((OE | UE) << 7));
    let (half, third) = (HALF, 0x3fd5_5555_5555_5555);
    assert_eq!(low::<AddSd>(unmasked, MAX, MAX).1, OE);
    assert_eq!(low::<AddSd>(unmasked, MAX, MAX - 1).1, OE | PE);
    assert_eq!(low::<AddSd>(rounding(2), MAX, DENORMAL).1, OE | DE | PE);
    let up = Mxcsr(unmasked.0 | 2 << Mxcsr::RC_SHIFT);
    assert_eq!(low::<AddSd>(up, MAX, DENORMAL).1, OE | DE | PE);
    assert_eq!(low::<MulSd>(unmasked, MAX, 2_f64.to_bits()).1, OE);
    assert_eq!(low::<MulSd>(unmasked, MAX, MAX).1, OE | PE);
    assert_eq!(low::<MulSd>(unmasked, MIN_NORMAL, half).1, UE);
    assert_eq!(low::<MulSd>(unmasked, DENORMAL, half).1, UE | DE, "nothing of it is lost");
    assert_eq!(low::<MulSd>(unmasked, MIN_NORMAL, third).1, UE, "a third's significand fits");
    assert_eq!(low::<MulSd>(unmasked, MIN_NORMAL + 1, third).1, UE | PE);
    assert_eq!(low::<DivSd>(unmasked, MIN_NORMAL, THREE).1, UE | PE);
    assert_eq!(low::<DivSd>(unmasked, MAX, MIN_NORMAL).1, OE);
    let huge = 1e300_f64.to_bits();
    assert_eq!(low::<CvtSd2Ss>(unmasked, 0, huge & !0x1fff_ffff).1, OE);
    assert_eq!(low::<CvtSd2Ss>(unmasked, 0, huge).1, OE | PE);
    let lanes = MulPd::apply(unmasked, [MAX, ONE], [2_f64.to_bits(), third]);
    assert_eq!(lanes.flags, OE, "lanes are told apart");
    let lanes = DivPd::apply(unmasked, [MAX, ONE], [half, THREE]);
    assert_eq!(lanes.flags, OE | PE, "the other lane is not exact");
    assert_eq!(HaddPd::apply(unmasked, [MAX, MAX], [ONE, ONE]).flags, OE);
}

#[test]
fn unmasked_exceptions_before_computation_hide_those_after() {
    let zero_divide_unmasked = Mxcsr(Mxcsr::MASKS & !(ZE << 7));
    let r = DivPd::apply(zero_divide_unmasked, [ONE, ONE], [0, THREE]);
    assert_eq!(r.flags, ZE | PE);
    assert_eq!(zero_divide_unmasked.raise(r.flags), (Mxcsr(zero_divide_unmasked.0 | ZE), true));
    assert_eq!(Mxcsr::RESET.raise(r.flags), (Mxcsr(Mxcsr::MASKS | ZE | PE), false));
}

#[test]
fn scalar_forms_keep_the_upper_part() {
    let r = AddSd::apply(Mxcsr::RESET, [ONE, 77], [ONE, 88]);
    assert_eq!(r.value, [2_f64.to_bits(), 77]);
    let r = SqrtSs::apply(Mxcsr::RESET, [0xaaaa_aaaa_0000_0000, 77], [0x4080_0000, 88]);
    assert_eq!(r.value, [0xaaaa_aaaa_4000_0000, 77]);
}

#[test]
fn min_and_max_give_the_second_operand_for_zeros_and_nans() {
    assert_eq!(reset::<MinSd>(0, SIGN), (SIGN, 0));
    assert_eq!(reset::<MinSd>(SIGN, 0), (0, 0));
    assert_eq!(reset::<MaxSd>(QNAN, ONE), (ONE, IE));
    assert_eq!(reset::<MaxSd>(ONE, SNAN), (SNAN, IE), "not quieted");
}

#[test]
fn comisd_flags_of_the_manual() {
    let (zf, pf, cf) = (1 << 6, 1 << 2, 1);
    assert_eq!(reset::<ComiSd>(THREE, ONE), (0, 0));
    assert_eq!(reset::<ComiSd>(ONE, THREE), (cf, 0));
    assert_eq!(reset::<ComiSd>(SIGN, 0), (zf, 0));
    assert_eq!(reset::<ComiSd>(ONE, QNAN), (zf | pf | cf, IE));
    assert_eq!(reset::<UcomiSd>(ONE, QNAN), (zf | pf | cf, 0));
    assert_eq!(reset::<UcomiSd>(SNAN, ONE), (zf | pf | cf, IE));
    assert_eq!(low::<UcomiSs>(rounding(3), 1, 0), (0, DE));
}

#[test]
fn compare_predicates_of_table_3_1() {
    /// Whether the predicate holds for less, equal, greater, unordered, and the flags for a QNaN.
    fn check<const P: u8>(holds: [bool; 4], qnan_flags: u32) {
        let mask = |b: bool| if b { u64::MAX } else { 0 };
        let pairs = [(ONE, THREE), (ONE, ONE), (THREE, ONE)];
        for ((a, b), holds) in pairs.into_iter().zip(holds) {
            assert_eq!(reset::<CmpSd<P>>(a, b), (mask(holds), 0), "predicate {P}");
        }
        assert_eq!(reset::<CmpSd<P>>(ONE, QNAN), (mask(holds[3]), qnan_flags), "predicate {P}");
    }
    check::<0>([false, true, false, false], 0);
    check::<1>([true, false, false, false], IE);
    check::<2>([true, true, false, false], IE);
    check::<3>([false, false, false, true], 0);
    check::<4>([true, false, true, true], 0);
    check::<5>([false, true, true, true], IE);
    check::<6>([false, false, true, true], IE);
    check::<7>([true, true, true, false], 0);
}

#[test]
fn conversions_to_integers_round_or_truncate() {
    let two_and_a_half = 2.5_f64.to_bits();
    for (rc, rounded) in [(0, 2), (1, 2), (2, 3), (3, 2)] {
        assert_eq!(low::<CvtSd2Si32>(rounding(rc), 0, two_and_a_half), (rounded, PE));
        assert_eq!(low::<CvttSd2Si32>(rounding(rc), 0, two_and_a_half), (2, PE));
    }
    let minus = (-1.5_f64).to_bits();
    assert_eq!(reset::<CvttSd2Si64>(0, minus), (u64::MAX, PE));
    assert_eq!(reset::<CvttSd2Si32>(0, minus), (u64::from(u32::MAX), PE), "zero-extended");
}

#[test]
fn conversions_out_of_range_give_the_integer_indefinite() {
    let too_large = 2_147_483_648_f64.to_bits();
    assert_eq!(reset::<CvtSd2Si32>(0, too_large), (0x8000_0000, IE));
    assert_eq!(reset::<CvtSd2Si64>(0, too_large), (0x8000_0000, 0));
    assert_eq!(reset::<CvttSd2Si64>(0, QNAN), (SIGN, IE));
    assert_eq!(reset::<CvttSs2Si32>(0, 0x7f80_0000), (0x8000_0000, IE));
    let r = CvtPd2Dq::apply(Mxcsr::RESET, [7, 7], [too_large, ONE]);
    assert_eq!((r.value, r.flags), ([0x0000_0001_8000_0000, 0], IE));
}

#[test]
fn conversions_from_integers_use_their_operand_size() {
    let r = CvtSi2Sd32::apply(Mxcsr::RESET, [0, 5], [0x1_ffff_ffff, 0]);
    assert_eq!((r.value, r.flags), ([(-1_f64).to_bits(), 5], 0));
    assert_eq!(reset::<CvtSi2Sd64>(0, i64::MAX as u64), (2_f64.powi(63).to_bits(), PE));
    assert_eq!(low::<CvtSi2Sd64>(rounding(3), 0, i64::MAX as u64).0, 0x43df_ffff_ffff_ffff);
}

#[test]
fn conversions_between_formats_quiet_nans_and_report_range() {
    assert_eq!(reset::<CvtSd2Ss>(0, MAX), (0x7f80_0000, OE | PE));
    assert_eq!(reset::<CvtSd2Ss>(0, 0x7ff0_0000_2000_0000), (0x7fc0_0001, IE));
    assert_eq!(reset::<CvtSs2Sd>(0, 0x7f80_0001), (0x7ff8_0000_2000_0000, IE));
    assert_eq!(reset::<CvtSs2Sd>(0, 1), (0x36a0_0000_0000_0000, DE));
}

#[test]
fn mmx_conversions_use_half_vectors() {
    let r = CvtPi2Ps::apply(Mxcsr::RESET, [9, 8], [0xffff_ffff_0000_0002, u64::MAX]);
    assert_eq!((r.value, r.flags), ([0xbf80_0000_4000_0000, 8], 0));
    let r = CvtPs2Pi::apply(Mxcsr::RESET, [9, 8], [0xbf80_0000_4000_0000, QNAN]);
    assert_eq!((r.value[0], r.flags), (0xffff_ffff_0000_0002, 0));
    let r = CvttPd2Pi::apply(Mxcsr::RESET, [9, 8], [2.9_f64.to_bits(), ONE]);
    assert_eq!((r.value[0], r.flags), (0x0000_0001_0000_0002, PE));
}

/// Operands of every class, in singles and doubles.
fn patterns() -> Vec<V128> {
    let singles: [u32; 8] = [
        0x3f80_0000,
        0xc040_0000,
        0x7f80_0001,
        0xffc0_0002,
        0x7f80_0000,
        0x0000_0003,
        0x8000_0000,
        0x7f7f_ffff,
    ];
    let doubles = [ONE, SNAN, QNAN | SIGN, INF, DENORMAL | SIGN, MAX, 0];
    let mut all: Vec<V128> = Vec::new();
    for (i, a) in singles.iter().enumerate() {
        for b in &singles {
            let lane = |x: u32, y: u32| u64::from(x) | u64::from(y) << 32;
            all.push([lane(*a, *b), lane(*b, singles[(i + 3) % 8])]);
        }
    }
    for a in doubles {
        all.extend(doubles.map(|b| [a, b]));
    }
    all
}

/// Compares an implementation with the host's instruction over all patterns.
macro_rules! check_with_host {
    ($feature:tt, $instruction:literal, |$mxcsr:ident, $d:ident, $s:ident| $ours:expr) => {
        if !std::arch::is_x86_feature_detected!($feature) {
            println!("SKIP: the host lacks {}", $feature);
            return;
        }
        for $d in patterns() {
            for $s in patterns() {
                let $mxcsr = Mxcsr::RESET;
                let mut value = to_m128i($d);
                let (control, mut after) = (Mxcsr::MASKS, 0_u32);
                // SAFETY: the host has the instruction; MXCSR is loaded with its own control
                // bits and stored to a live local.
                unsafe {
                    asm!("ldmxcsr [{c}]", concat!($instruction), "stmxcsr [{a}]",
                        c = in(reg) &raw const control, a = in(reg) &raw mut after,
                        d = inout(xmm_reg) value, s = in(xmm_reg) to_m128i($s), options(nostack));
                }
                let host = SseResult { value: to_v128(value), flags: after & Mxcsr::FLAGS };
                assert_eq!($ours, host, "{} {:x?} {:x?}", $instruction, $d, $s);
            }
        }
    };
}
use crate::simd::{to_m128i, to_v128};

#[test]
fn sse3_forms_equal_the_hosts() {
    check_with_host!("sse3", "haddps {d}, {s}", |m, d, s| HaddPs::apply(m, d, s));
    check_with_host!("sse3", "hsubps {d}, {s}", |m, d, s| HsubPs::apply(m, d, s));
    check_with_host!("sse3", "haddpd {d}, {s}", |m, d, s| HaddPd::apply(m, d, s));
    check_with_host!("sse3", "hsubpd {d}, {s}", |m, d, s| HsubPd::apply(m, d, s));
    check_with_host!("sse3", "addsubps {d}, {s}", |m, d, s| AddSubPs::apply(m, d, s));
    check_with_host!("sse3", "addsubpd {d}, {s}", |m, d, s| AddSubPd::apply(m, d, s));
}

/// With the flags of all steps together, as they are in MXCSR.
fn single_dpps(mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
    let ([value], flags) = dpps(mxcsr, [dst], [src], imm);
    SseResult { value, flags: Mxcsr::RESET.raise(flags).0.0 & Mxcsr::FLAGS }
}

fn single_dppd(mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
    let result = dppd(mxcsr, dst, src, imm);
    SseResult { flags: Mxcsr::RESET.raise(result.flags).0.0 & Mxcsr::FLAGS, ..result }
}

#[test]
fn dot_products_equal_the_hosts() {
    check_with_host!("sse4.1", "dpps {d}, {s}, 0xf1", |m, d, s| single_dpps(m, d, s, 0xf1));
    check_with_host!("sse4.1", "dpps {d}, {s}, 0x7a", |m, d, s| single_dpps(m, d, s, 0x7a));
    check_with_host!("sse4.1", "dppd {d}, {s}, 0x33", |m, d, s| single_dppd(m, d, s, 0x33));
    check_with_host!("sse4.1", "dppd {d}, {s}, 0x12", |m, d, s| single_dppd(m, d, s, 0x12));
}

/// As Zen 4 does: a denormal operand of the sum hides that sum's precision, but not the products'.
#[test]
fn a_dot_products_unmasked_exceptions_hide_no_earlier_ones() {
    let denormals_unmasked = Mxcsr(Mxcsr::MASKS & !(DE << 7));
    let third = 0x3eaa_aaab_u64;
    let (_, flags) = dpps(
        denormals_unmasked,
        [[third << 32 | 0x0080_0000, 0]],
        [[third << 32 | third, 0]],
        0x31,
    );
    let (mxcsr, raised) = denormals_unmasked.raise(flags);
    assert_eq!((mxcsr.0 & Mxcsr::FLAGS, raised), (DE | UE | PE, true));
}

#[test]
fn rounding_follows_the_immediate_or_mxcsr() {
    let minus_1_5 = (-1.5_f64).to_bits();
    let round = |mxcsr, imm| {
        let r = roundsd(mxcsr, [0, 4], [minus_1_5, 5], imm);
        assert_eq!(host_control(), Mxcsr::MASKS);
        assert_eq!(r.value[1], 4);
        (f64::from_bits(r.value[0]), r.flags)
    };
    assert_eq!(round(rounding(3), 0), (-2.0, PE));
    assert_eq!(round(rounding(3), 1), (-2.0, PE));
    assert_eq!(round(rounding(1), 2), (-1.0, PE));
    assert_eq!(round(rounding(1), 3), (-1.0, PE));
    assert_eq!(round(rounding(1), 4), (-2.0, PE));
    assert_eq!(round(rounding(2), 4 + 8), (-1.0, 0));
}
