//! 3DNow! and its extensions: single precision, in pairs in MMX registers.
//!
//! AMD, 3DNow! Technology Manual (21928) and AMD Extensions to the 3DNow! and MMX Instruction Sets
//! (22466); APM vol. 5. There are no flags, exceptions or modes: results are rounded to nearest,
//! saturate at the largest number and are zero below the smallest normal one. Denormal operands
//! are zeros. What operands with an exponent of all ones give is undefined; here they are the
//! numbers that follow on the largest.
//!
//! The manual says how far the estimates of PFRCP and PFRSQRT may be off (14 and 15 bits) and not
//! which they are, nor in which form the first steps of the iteration hand over theirs. Here the
//! estimates are those nearest to the true value, and a first step that finds nothing beyond their
//! rounding to correct says so: the sequences of the manual give the number nearest to the true
//! value, or one beside it.

use iced_x86::{Instruction, Mnemonic};
use trivium_host_fpu::{SseResult, V128};

use super::mmx::emms;
use super::sse_form::{Compute, Double, Mm, computations, exact, plain};
use crate::decode::{Context, Selection};
use crate::op::Op;

const SIGN: u32 = 1 << 31;
/// The largest number.
const LARGEST: u32 = 0x7f7f_ffff;
/// The smallest number above zero.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;
/// From here on reciprocals are zero.
const LARGE: f64 = 1.0 / SMALLEST;
/// A correction below this is but the rounding of estimates that are as good as they can be.
const ROUNDING: f64 = 1.0 / (1 << 22) as f64;

/// The bits by which exponents of double precision are greater, and fractions longer.
const BIAS: u64 = 1023 - 127;
const FRACTION: u64 = 52 - 23;

/// What a single is worth.
fn value(single: u32) -> f64 {
    let (sign, rest) = (u64::from(single & SIGN) << 32, u64::from(single & !SIGN));
    let normal = rest >> 23 != 0;
    f64::from_bits(sign | if normal { (rest << FRACTION) + (BIAS << 52) } else { 0 })
}

/// The single nearest to a value that is none of infinity and NaN. Rounding twice does no harm: a
/// double has more than twice the bits of a single.
fn single(value: f64) -> u32 {
    let sign = if value.is_sign_negative() { SIGN } else { 0 };
    match value.abs() {
        small if small < SMALLEST => sign,
        number => sign | (number as f32).to_bits().min(LARGEST),
    }
}

/// A sum; a difference of equals has the sign of the first.
fn add(a: f64, b: f64) -> u32 {
    let sum = a + b;
    if sum == 0.0 && a != 0.0 { single(0.0_f64.copysign(a)) } else { single(sum) }
}

fn sub(a: f64, b: f64) -> u32 {
    add(a, -b)
}

fn mul(a: f64, b: f64) -> u32 {
    single(a * b)
}

/// The greater or smaller one; a zero is always positive.
fn chosen(value: f64) -> u32 {
    if value == 0.0 { 0 } else { single(value) }
}

fn max(a: f64, b: f64) -> u32 {
    chosen(if a > b { a } else { b })
}

fn min(a: f64, b: f64) -> u32 {
    chosen(if a < b { a } else { b })
}

fn mask(holds: bool) -> u32 {
    if holds { !0 } else { 0 }
}

/// PFRCP.
fn reciprocal(b: f64) -> u32 {
    match b.abs() {
        0.0 => single(0.0_f64.copysign(b)) | LARGEST,
        large if large >= LARGE => single(0.0_f64.copysign(b)),
        _ => single(1.0 / b),
    }
}

/// PFRSQRT: of the absolute value, with the sign of the operand.
fn reciprocal_root(b: f64) -> u32 {
    match b.abs() {
        0.0 => single(0.0_f64.copysign(b)) | LARGEST,
        number => single((1.0 / number.sqrt()).copysign(b)),
    }
}

/// What an estimate is to be multiplied by.
fn correction(factor: f64) -> u32 {
    single(if (factor - 1.0).abs() < ROUNDING { 1.0 } else { factor })
}

/// PFRCPIT1: of an estimate of 1/b.
fn reciprocal_step(b: f64, estimate: f64) -> u32 {
    correction(2.0 - b * estimate)
}

/// PFRSQIT1: of an estimate of the root of 1/b, given its square.
fn root_step(b: f64, square: f64) -> u32 {
    correction((3.0 - (b * square).abs()) / 2.0)
}

/// An integer as single, rounded towards zero.
fn from_integer(integer: i32) -> u32 {
    let kept = f64::from(integer).to_bits() >> FRACTION << FRACTION;
    single(f64::from_bits(kept))
}

/// The low and the high doubleword.
fn pair(v: V128) -> [u32; 2] {
    [v[0] as u32, (v[0] >> 32) as u32]
}

fn join([low, high]: [u32; 2]) -> V128 {
    [u64::from(low) | u64::from(high) << 32, 0]
}

/// The values of the low and the high single.
fn values(v: V128) -> [f64; 2] {
    pair(v).map(value)
}

fn both(dst: V128, src: V128, f: fn(f64, f64) -> u32) -> V128 {
    let ([a0, a1], [b0, b1]) = (values(dst), values(src));
    join([f(a0, b0), f(a1, b1)])
}

/// One result of the two singles of the destination and one of those of the source.
fn across(dst: V128, src: V128, low: fn(f64, f64) -> u32, high: fn(f64, f64) -> u32) -> V128 {
    let ([a0, a1], [b0, b1]) = (values(dst), values(src));
    join([low(a0, a1), high(b0, b1)])
}

/// The result for the low single, twice.
fn twice(src: V128, f: fn(f64) -> u32) -> V128 {
    let result = f(values(src)[0]);
    join([result, result])
}

/// PMULHRW: the high half of a product of words, rounded.
fn multiply_words(dst: V128, src: V128) -> V128 {
    let word = |v: V128, n: u32| i32::from((v[0] >> (16 * n)) as i16);
    let product = |n| (word(dst, n) * word(src, n) + 0x8000) >> 16;
    [(0..4).fold(0, |all, n| all | u64::from(product(n) as u16) << (16 * n)), 0]
}

computations! {
    /// PFADD.
    Pfadd |dst, src| both(dst, src, add);
    /// PFSUB.
    Pfsub |dst, src| both(dst, src, sub);
    /// PFSUBR.
    Pfsubr |dst, src| both(src, dst, sub);
    /// PFMUL, and PFRCPIT2: an estimate times its correction.
    Pfmul |dst, src| both(dst, src, mul);
    /// PFMAX.
    Pfmax |dst, src| both(dst, src, max);
    /// PFMIN.
    Pfmin |dst, src| both(dst, src, min);
    /// PFCMPEQ.
    Pfcmpeq |dst, src| both(dst, src, |a, b| mask(a == b));
    /// PFCMPGE.
    Pfcmpge |dst, src| both(dst, src, |a, b| mask(a >= b));
    /// PFCMPGT.
    Pfcmpgt |dst, src| both(dst, src, |a, b| mask(a > b));
    /// PFACC.
    Pfacc |dst, src| across(dst, src, add, add);
    /// PFNACC.
    Pfnacc |dst, src| across(dst, src, sub, sub);
    /// PFPNACC.
    Pfpnacc |dst, src| across(dst, src, sub, add);
    /// PFRCP.
    Pfrcp |_dst, src| twice(src, reciprocal);
    /// PFRSQRT.
    Pfrsqrt |_dst, src| twice(src, reciprocal_root);
    /// PFRCPIT1.
    Pfrcpit1 |dst, src| both(dst, src, reciprocal_step);
    /// PFRSQIT1.
    Pfrsqit1 |dst, src| both(dst, src, root_step);
    /// PF2ID. Conversions of Rust's saturate, as this does.
    Pf2id |_dst, src| join(values(src).map(|v| v as i32 as u32));
    /// PF2IW.
    Pf2iw |_dst, src| join(values(src).map(|v| i32::from(v as i16) as u32));
    /// PI2FD.
    Pi2fd |_dst, src| join(pair(src).map(|n| from_integer(n as i32)));
    /// PI2FW.
    Pi2fw |_dst, src| join(pair(src).map(|n| from_integer(i32::from(n as i16))));
    /// PMULHRW.
    Pmulhrw |dst, src| multiply_words(dst, src);
    /// PAVGUSB: PAVGB under its first name.
    Pavgusb |dst, src| {
        let byte = |v: V128, n: u32| v[0] >> (8 * n) & 0xff;
        [(0..8).fold(0, |all, n| all | (byte(dst, n) + byte(src, n)).div_ceil(2) << (8 * n)), 0]
    };
    /// PSWAPD.
    Pswapd |_dst, src| [src[0].rotate_left(32), 0];
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    macro_rules! pairs {
        ($($mnemonic:ident => $computation:ident,)*) => {
            match i.mnemonic() {
                M::Femms => return Some(Selection::general(context.op(i), emms)),
                $(M::$mnemonic => plain::<Double, Mm, Mm, $computation>,)*
                _ => return None,
            }
        };
    }
    let select = pairs! {
        Pfadd => Pfadd,
        Pfsub => Pfsub,
        Pfsubr => Pfsubr,
        Pfmul => Pfmul,
        Pfmax => Pfmax,
        Pfmin => Pfmin,
        Pfcmpeq => Pfcmpeq,
        Pfcmpge => Pfcmpge,
        Pfcmpgt => Pfcmpgt,
        Pfacc => Pfacc,
        Pfnacc => Pfnacc,
        Pfpnacc => Pfpnacc,
        Pfrcp => Pfrcp,
        Pfrsqrt => Pfrsqrt,
        Pfrcpit1 => Pfrcpit1,
        Pfrsqit1 => Pfrsqit1,
        Pfrcpit2 => Pfmul,
        Pf2id => Pf2id,
        Pf2iw => Pf2iw,
        Pi2fd => Pi2fd,
        Pi2fw => Pi2fw,
        Pmulhrw => Pmulhrw,
        Pavgusb => Pavgusb,
        Pswapd => Pswapd,
    };
    Some(select(i, context))
}

#[cfg(test)]
#[path = "amd3d_tests.rs"]
mod tests;
