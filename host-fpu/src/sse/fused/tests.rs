//! Fused instructions in integers against those of this host, and F16C likewise.

use super::*;
use crate::sse::{from_half, to_half};

/// What an instruction is.
pub(super) trait Known: FusedOp {
    const FUSED: Fused;
    const NAME: &str;
}

/// A generator of numbers (Marsaglia, Xorshift RNGs).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A value of any class, mostly where something happens to sums of products.
    fn value(&mut self, format: Format) -> u64 {
        let bits = format as u32;
        let bias = format.special() >> 1;
        let pick = self.next();
        let exponent = match pick & 15 {
            0 => 0,
            1 => 1,
            2 => format.special(),
            3 => format.special() - 1,
            4 => bias / 2 + (pick >> 8 & 7),
            5 => bias + bias / 2 - (pick >> 8 & 3),
            6 => u64::from(bits) + (pick >> 8 & 3),
            7..12 => bias + (pick >> 8 & 7) - 4,
            _ => self.next() & format.special(),
        };
        let significand = match pick >> 4 & 7 {
            0 => 0,
            1 => 1,
            2 => format.significand(),
            3 => 1 << (self.next() % u64::from(bits)),
            4 => format.significand() & !(1 << (self.next() % u64::from(bits))),
            _ => self.next() & format.significand(),
        };
        (pick & format.sign()) | exponent << bits | significand
    }

    fn vector(&mut self, format: Format) -> V128 {
        let mut v = [0; 2];
        for n in 0..128 / format.bits() {
            format.put_lane(&mut v, n, self.value(format));
        }
        v
    }

    /// Rounding, DAZ and FTZ, all masked.
    fn mxcsr(&mut self) -> Mxcsr {
        Mxcsr(Mxcsr::MASKS | self.next() as u32 & (Mxcsr::RC | Mxcsr::DAZ | Mxcsr::FTZ))
    }
}

fn lowest(fused: &Fused, mut result: SseResult) -> SseResult {
    for n in fused.count..128 / fused.format.bits() {
        fused.format.put_lane(&mut result.value, n, 0);
    }
    result
}

fn compare<O: Known>() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let fused = O::FUSED;
    for n in 0..20_000 {
        let mxcsr = random.mxcsr();
        let [x, y, mut z] = std::array::from_fn(|_| random.vector(fused.format));
        // Sums that cancel.
        if n % 4 == 0 {
            let product = FmaddPs::apply(Mxcsr::RESET, x, y, [0; 2]).value;
            let double = FmaddPd::apply(Mxcsr::RESET, x, y, [0; 2]).value;
            z = if fused.format == Format::Single { product } else { double };
            z = z.map(|v| v ^ random.next() & 0x8000_0001_8000_0001);
        }
        let computed = lowest(&fused, fused.compute(mxcsr, x, y, z));
        let host = lowest(&fused, O::apply(mxcsr, x, y, z));
        assert_eq!(
            computed,
            host,
            "{} {mxcsr:x?} {x:x?} {y:x?} {z:x?}: {:x?} {:x?}",
            O::NAME,
            computed.value,
            host.value
        );
    }
}

#[test]
fn fused_arithmetic_in_integers_is_what_a_processor_does() {
    if !std::arch::is_x86_feature_detected!("fma") {
        return;
    }
    macro_rules! all {
        ($($name:ident)*) => { $(compare::<$name>();)* };
    }
    all! {
        FmaddPs FmaddPd FmaddSs FmaddSd FmsubPs FmsubPd FmsubSs FmsubSd
        FnmaddPs FnmaddPd FnmaddSs FnmaddSd FnmsubPs FnmsubPd FnmsubSs FnmsubSd
        FmaddsubPs FmaddsubPd FmsubaddPs FmsubaddPd
    }
}

/// SDM vol. 1, 14.5: one rounding. (1 + 2^-30)^2 - 1 is 2^-29 + 2^-60, of which a rounded product
/// would leave 2^-29.
#[test]
fn a_product_is_not_rounded_before_the_sum() {
    let (x, minus_one) = ([0x3ff0_0000_0040_0000, 0], [0xbff0_0000_0000_0000, 0]);
    let exact = SseResult { value: [0x3e20_0000_0020_0000, 0], flags: 0 };
    assert_eq!(FmaddSd::FUSED.compute(Mxcsr::RESET, x, x, minus_one), exact);
    assert_eq!(FmaddSd::apply(Mxcsr::RESET, x, x, minus_one).flags, 0);
}

/// SDM vol. 1, 4.9.1.4 and 4.9.1.5: unmasked, precision is that of an unbounded exponent, and what
/// is tiny and exact is reported.
#[test]
fn unmasked_overflow_and_underflow_tell_of_precision_apart() {
    let run = |unmasked: u32, x, y, z| {
        let mxcsr = Mxcsr(Mxcsr::MASKS & !(unmasked << 7));
        FmaddSd::apply(mxcsr, [x, 0], [y, 0], [z, 0]).flags
    };
    let (max, two, half) = (0x7fef_ffff_ffff_ffff, 2_f64.to_bits(), 0.5_f64.to_bits());
    assert_eq!(run(0, max, two, 0), Mxcsr::OE | Mxcsr::PE);
    assert_eq!(run(Mxcsr::OE, max, two, 0), Mxcsr::OE);
    assert_eq!(run(Mxcsr::OE, max, 3_f64.to_bits(), 0), Mxcsr::OE | Mxcsr::PE);
    let least_normal = 0x0010_0000_0000_0000;
    assert_eq!(run(0, least_normal, half, 0), 0);
    assert_eq!(run(Mxcsr::UE, least_normal, half, 0), Mxcsr::UE);
}

fn host_from_half(src: V128) -> SseResult {
    let mxcsr = Mxcsr::MASKS;
    let mut d = to_m128i([0; 2]);
    let flags = with_mxcsr!(
        mxcsr, ["vcvtph2ps {d}, {s}"], d = inout(xmm_reg) d, s = in(xmm_reg) to_m128i(src),
    );
    SseResult { value: to_v128(d), flags }
}

fn host_to_half(mxcsr: Mxcsr, src: V128) -> SseResult {
    let mxcsr = mxcsr.0;
    let mut d = to_m128i([0; 2]);
    let flags = with_mxcsr!(
        mxcsr, ["vcvtps2ph {d}, {s}, 4"], d = inout(xmm_reg) d, s = in(xmm_reg) to_m128i(src),
    );
    SseResult { value: to_v128(d), flags }
}

#[test]
fn every_half_becomes_the_single_that_a_processor_makes_of_it() {
    if !std::arch::is_x86_feature_detected!("f16c") {
        return;
    }
    for half in 0..=u64::from(u16::MAX) {
        assert_eq!(from_half([half, 0]), host_from_half([half, 0]), "{half:x}");
    }
}

#[test]
fn singles_become_the_halves_that_a_processor_makes_of_them() {
    if !std::arch::is_x86_feature_detected!("f16c") {
        return;
    }
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..200_000 {
        let mxcsr = random.mxcsr();
        // Exponents that halves have, and those around them.
        let mut near = |n: u64| {
            let exponent = 127 - 27 + random.next() % 46;
            (exponent << 23 | random.next() & 0x807f_f000 | n) & 0xffff_ffff
        };
        let near = [near(0) | near(1) << 32, near(0x1000) | near(0) << 32];
        for src in [random.vector(Format::Single), near] {
            let (computed, host) = (to_half(mxcsr, src, 4), host_to_half(mxcsr, src));
            assert_eq!(computed, host, "{mxcsr:x?} {src:x?}");
            let by_immediate = to_half(Mxcsr(mxcsr.0 & !Mxcsr::RC), src, mxcsr.rounding() as u8);
            assert_eq!(by_immediate, host, "{mxcsr:x?} {src:x?}");
        }
    }
}

/// SDM vol. 2, VCVTPS2PH: FTZ has no effect; unmasked exceptions are reported.
#[test]
fn the_least_single_is_nothing_as_half() {
    let denormal = to_half(Mxcsr::RESET, [1, 0], 0);
    assert_eq!(denormal, SseResult { value: [0; 2], flags: Mxcsr::DE | Mxcsr::UE | Mxcsr::PE });
    let up = to_half(Mxcsr(Mxcsr::MASKS | Mxcsr::FTZ), [1, 0], 2);
    assert_eq!(up.value, [1, 0]);
}
