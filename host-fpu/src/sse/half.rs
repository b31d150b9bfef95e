//! F16C: conversions between half and single precision, in integers, as few hosts lack them and
//! none is needed.
//!
//! Intel SDM vol. 1, 14.4, and vol. 2, VCVTPH2PS and VCVTPS2PH.

use super::SseResult;
use super::format::Format;
use super::round::Number;
use super::rounding::rounded_by;
use crate::{Mxcsr, V128};

/// Converts each lane.
fn lanes(from: Format, to: Format, src: V128, convert: impl Fn(u64) -> (u64, u32)) -> SseResult {
    const LANES: u32 = 4;
    let mut result = SseResult { value: [0; 2], flags: 0 };
    for n in 0..LANES {
        let (value, flags) = convert(from.lane(src, n));
        to.put_lane(&mut result.value, n, value);
        result.flags |= flags;
    }
    result
}

/// An infinity or NaN, which becomes quiet, in another format: the upper bits of the significand stay.
fn special(from: Format, to: Format, value: u64) -> (u64, u32) {
    let significand = value & from.significand();
    let sign = if value & from.sign() != 0 { to.sign() } else { 0 };
    let infinity = sign | to.special() << to as u32;
    if significand == 0 {
        return (infinity, 0);
    }
    let payload = significand << (63 - from as u32) >> (63 - to as u32);
    (infinity | payload | to.quiet(), if from.signals(value) { Mxcsr::IE } else { 0 })
}

/// `vcvtph2ps` of the low four halves. All but signalling NaNs are exact; MXCSR has no influence.
#[must_use]
pub fn from_half(src: V128) -> SseResult {
    let (from, to) = (Format::Half, Format::Single);
    lanes(from, to, src, |value| match from.exponent(value) == from.special() {
        true => special(from, to, value),
        false => Number::of(from, value).round(to, Mxcsr::RESET),
    })
}

/// `vcvtps2ph` with an immediate byte of which three bits matter; four halves in `value[0]`. DAZ has
/// its effect, FTZ has none.
#[must_use]
pub fn to_half(mxcsr: Mxcsr, src: V128, imm: u8) -> SseResult {
    let (from, to) = (Format::Single, Format::Half);
    let control = Mxcsr(rounded_by(mxcsr, imm) & !Mxcsr::FTZ);
    lanes(from, to, src, |value| {
        if from.exponent(value) == from.special() {
            return special(from, to, value);
        }
        let (value, denormal) = from.operand(mxcsr, value);
        let (half, flags) = Number::of(from, value).round(to, control);
        (half, flags | denormal)
    })
}
