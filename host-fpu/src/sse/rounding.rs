//! The SSE4.1 rounding instructions: by the host's where it has them, else from the manual's words.

use super::format::Format;
use super::{HOST_MXCSR, SseResult, masked_control};
use crate::simd::{to_m128i, to_v128};
use crate::sse::ops::with_mxcsr;
use crate::{Mxcsr, V128};

/// Bit 2 of the immediate: round as MXCSR.RC says.
const IMM_USE_MXCSR: u8 = 1 << 2;
/// Bit 3 of the immediate: do not report the precision exception.
const IMM_NO_PRECISION: u8 = 1 << 3;

/// MXCSR with the rounding mode that the immediate selects.
pub(super) fn rounded_by(mxcsr: Mxcsr, imm: u8) -> u32 {
    if imm & IMM_USE_MXCSR != 0 {
        mxcsr.0
    } else {
        (mxcsr.0 & !Mxcsr::RC) | (u32::from(imm & 3) << Mxcsr::RC_SHIFT)
    }
}

/// Defines the instructions. The host's always round by MXCSR, which is loaded with the immediate's
/// mode where that has one, so one instruction serves all immediates.
macro_rules! round_ops {
    ($($name:ident $mnemonic:literal $format:ident $count:literal;)*) => {$(
        #[doc = concat!("`", $mnemonic, "` with an immediate byte whose high nibble is ignored")]
        pub fn $name(mxcsr: Mxcsr, dst: V128, src: V128, imm: u8) -> SseResult {
            let mxcsr = rounded_by(mxcsr, imm);
            let result = if std::arch::is_x86_feature_detected!("sse4.1") {
                let mut d = to_m128i(dst);
                let flags = with_mxcsr!(
                    mxcsr,
                    [concat!($mnemonic, " {d}, {s}, 4")],
                    d = inout(xmm_reg) d,
                    s = in(xmm_reg) to_m128i(src),
                );
                SseResult { value: to_v128(d), flags }
            } else {
                lanes(Format::$format, $count, Mxcsr(mxcsr), dst, src)
            };
            let hidden = if imm & IMM_NO_PRECISION != 0 { Mxcsr::PE } else { 0 };
            SseResult { flags: result.flags & !hidden, ..result }
        }
    )*};
}

round_ops! {
    roundps "roundps" Single 4; roundpd "roundpd" Double 2;
    roundss "roundss" Single 1; roundsd "roundsd" Double 1;
}

/// Rounds the lowest `count` lanes; the others are the destination's.
fn lanes(format: Format, count: u32, mxcsr: Mxcsr, dst: V128, src: V128) -> SseResult {
    let mut result = SseResult { value: dst, flags: 0 };
    for n in 0..count {
        let (value, flags) = integral(format, mxcsr, format.lane(src, n));
        format.put_lane(&mut result.value, n, value);
        result.flags |= flags;
    }
    result
}

/// Rounds a value to an integral one by MXCSR, and the flags that this raises. Denormals raise no
/// exception of their own (SDM vol. 2, ROUNDPD).
fn integral(format: Format, mxcsr: Mxcsr, value: u64) -> (u64, u32) {
    let sign = value & format.sign();
    let magnitude = value ^ sign;
    let exponent = format.exponent(value);
    if exponent == format.special() {
        let quiet = 1 << (format as u32 - 1);
        let signals = magnitude & format.significand() != 0 && magnitude & quiet == 0;
        return if signals { (value | quiet, Mxcsr::IE) } else { (value, 0) };
    }
    let is_zero = magnitude == 0 || exponent == 0 && mxcsr.0 & Mxcsr::DAZ != 0;
    if is_zero {
        return (sign, 0);
    }
    // How many bits of the significand are behind the point.
    let bias = format.special() >> 1;
    let fraction = (bias + format as u64).saturating_sub(exponent);
    let rounded = match fraction {
        0 => magnitude,
        f if f <= format as u64 => cut(magnitude, f, rounds_up(mxcsr, sign != 0, magnitude, f)),
        // Below 1: the result is 0 or 1.
        f => {
            let half = f == format as u64 + 1;
            let nearest = half && magnitude & format.significand() != 0;
            match rounds_up_small(mxcsr, sign != 0, nearest) {
                true => bias << format as u32,
                false => 0,
            }
        }
    };
    (sign | rounded, if rounded == magnitude { 0 } else { Mxcsr::PE })
}

/// The magnitude without the lowest `bits`, plus one unit if it is rounded up. A carry goes into
/// the exponent, as it should.
fn cut(magnitude: u64, bits: u64, up: bool) -> u64 {
    let unit = 1 << bits;
    (magnitude & !(unit - 1)) + if up { unit } else { 0 }
}

/// Whether a magnitude of at least 1 is rounded away from zero, of which `bits` are cut off.
fn rounds_up(mxcsr: Mxcsr, negative: bool, magnitude: u64, bits: u64) -> bool {
    let rest = magnitude & ((1 << bits) - 1);
    let half = 1 << (bits - 1);
    let odd = magnitude >> bits & 1 != 0;
    match mxcsr.0 >> Mxcsr::RC_SHIFT & 3 {
        0 => rest > half || rest == half && odd,
        1 => negative && rest != 0,
        2 => !negative && rest != 0,
        _ => false,
    }
}

/// The same of a magnitude below 1, which is not 0.
fn rounds_up_small(mxcsr: Mxcsr, negative: bool, above_half: bool) -> bool {
    match mxcsr.0 >> Mxcsr::RC_SHIFT & 3 {
        0 => above_half,
        1 => negative,
        2 => !negative,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values around those where rounding changes its mind, and all kinds of others.
    fn values(format: Format) -> Vec<u64> {
        let bits = format as u32;
        let bias = format.special() >> 1;
        let mut found = vec![0, 1, format.significand()];
        let exponents =
            [1, bias - 2, bias - 1, bias, bias + 1, bias + 7, bias + u64::from(bits) - 1];
        let more = [bias + u64::from(bits), bias + u64::from(bits) + 1, format.special()];
        for exponent in exponents.into_iter().chain(more) {
            let significand = format.significand();
            for low in [0, 1, 2, significand >> 1, (significand >> 1) + 1, significand] {
                for high in [0, 1, 2, 3] {
                    found.push(exponent << bits | low ^ high << (bits - 2));
                }
            }
            for at in 0..bits {
                found.extend([1_u64, 3, 5, 7].map(|n| exponent << bits | n << at & significand));
            }
        }
        found.iter().flat_map(|v| [*v, v | format.sign()]).collect()
    }

    #[test]
    fn what_the_manual_says_is_what_a_processor_does() {
        if !std::arch::is_x86_feature_detected!("sse4.1") {
            return;
        }
        for rc in 0..4 {
            for daz in [0, Mxcsr::DAZ] {
                let mxcsr = Mxcsr(Mxcsr::MASKS | rc << Mxcsr::RC_SHIFT | daz);
                let dst = [0x1234_5678_9abc_def0, 77];
                for v in values(Format::Double) {
                    let (src, what) = ([v, v ^ 1], format!("{v:x} {mxcsr:x?}"));
                    let pd = lanes(Format::Double, 2, mxcsr, dst, src);
                    assert_eq!(pd, roundpd(mxcsr, dst, src, IMM_USE_MXCSR), "{what}");
                    let sd = lanes(Format::Double, 1, mxcsr, dst, src);
                    assert_eq!(sd, roundsd(mxcsr, dst, src, IMM_USE_MXCSR), "{what}");
                }
                for v in values(Format::Single) {
                    let src = [v | (v ^ 1) << 32, v ^ 2 | v << 32];
                    let what = format!("{v:x} {mxcsr:x?}");
                    let ps = lanes(Format::Single, 4, mxcsr, dst, src);
                    assert_eq!(ps, roundps(mxcsr, dst, src, IMM_USE_MXCSR), "{what}");
                    let ss = lanes(Format::Single, 1, mxcsr, dst, src);
                    assert_eq!(ss, roundss(mxcsr, dst, src, IMM_USE_MXCSR), "{what}");
                }
            }
        }
    }
}
