//! Numbers of unbounded range and precision enough, and their rounding to a format as SSE and AVX
//! instructions round: what follows from MXCSR, in integers (Intel SDM vol. 1, 4.8.4 and 4.9.1).

use super::format::Format;
use crate::Mxcsr;

/// A finite number: a magnitude of at most 126 bits times a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub negative: bool,
    pub magnitude: u128,
    pub exponent: i32,
}

impl Number {
    /// The bits that a normalised magnitude has: two less than there are, for sums.
    const BITS: u32 = 126;

    /// What a finite lane stands for.
    pub fn of(format: Format, value: u64) -> Self {
        let field = format.exponent(value);
        let integer = u64::from(field != 0) << format as u32;
        Self {
            negative: value & format.sign() != 0,
            magnitude: u128::from(value & format.significand() | integer),
            exponent: field.max(1) as i32 - bias(format) - format as i32,
        }
    }

    /// The product, which is exact if both have at most 63 bits.
    pub fn times(self, other: Self) -> Self {
        Self {
            negative: self.negative != other.negative,
            magnitude: self.magnitude * other.magnitude,
            exponent: self.exponent + other.exponent,
        }
    }

    /// The sum. What is too far below the other to be exact is in the lowest bit. `negative_zero`
    /// is the sign of the difference of equal numbers.
    pub fn plus(self, other: Self, negative_zero: bool) -> Self {
        match (self.magnitude, other.magnitude) {
            (0, 0) if self.negative == other.negative => return self,
            (0, 0) => return Self { negative: negative_zero, ..self },
            (_, 0) => return self,
            (0, _) => return other,
            _ => {}
        }
        let (a, b) = (self.normalised(), other.normalised());
        let (large, small) =
            if (a.exponent, a.magnitude) >= (b.exponent, b.magnitude) { (a, b) } else { (b, a) };
        let aligned = small.shifted_down(large.exponent.abs_diff(small.exponent));
        let magnitude = match large.negative == small.negative {
            true => large.magnitude + aligned,
            false => large.magnitude - aligned,
        };
        let negative = if magnitude == 0 { negative_zero } else { large.negative };
        Self { negative, magnitude, exponent: large.exponent }
    }

    fn normalised(self) -> Self {
        let up = self.magnitude.leading_zeros() - (u128::BITS - Self::BITS);
        Self { magnitude: self.magnitude << up, exponent: self.exponent - up as i32, ..self }
    }

    /// The magnitude divided by a power of two. The lowest bit is set if something is cut off.
    fn shifted_down(self, by: u32) -> u128 {
        if by >= Self::BITS {
            return 1;
        }
        let down = self.magnitude >> by;
        down | u128::from(down << by != self.magnitude)
    }

    /// The nearest number of the format by MXCSR's rounding mode, and the flags that this raises.
    /// Where they are of unmasked overflow or underflow, the number does not matter.
    pub fn round(self, format: Format, mxcsr: Mxcsr) -> (u64, u32) {
        let sign = if self.negative { format.sign() } else { 0 };
        if self.magnitude == 0 {
            return (sign, 0);
        }
        let top = (u128::BITS - 1 - self.magnitude.leading_zeros()) as i32;
        let excess = top - format as i32;
        let field = self.exponent + top + bias(format);
        let (rounded, inexact) = self.cut(excess, mxcsr);
        let carry = (rounded >> (format as u32 + 1)) as i32;
        let precision = if inexact { Mxcsr::PE } else { 0 };
        if field + carry < 1 {
            let (value, flags) = self.tiny(excess + 1 - field, mxcsr, precision);
            return (sign | value, flags);
        }
        if field + carry >= format.special() as i32 {
            return (sign | self.too_large(format, mxcsr), overflow(mxcsr, precision));
        }
        (sign | (((field - 1) as u64) << format as u32).wrapping_add(rounded), precision)
    }

    /// A number that would be below the least normal one if it could (SDM vol. 1, 4.9.1.5), of
    /// whose magnitude `excess` bits are cut off.
    fn tiny(self, excess: i32, mxcsr: Mxcsr, precision: u32) -> (u64, u32) {
        if mxcsr.unmasked() & Mxcsr::UE != 0 {
            return (0, Mxcsr::UE | precision);
        }
        if mxcsr.0 & Mxcsr::FTZ != 0 {
            return (0, Mxcsr::UE | Mxcsr::PE);
        }
        let (denormal, inexact) = self.cut(excess, mxcsr);
        (denormal, if inexact { Mxcsr::UE | Mxcsr::PE } else { 0 })
    }

    /// The masked response to overflow: infinity, or the largest number (SDM vol. 1, table 4-11).
    fn too_large(self, format: Format, mxcsr: Mxcsr) -> u64 {
        let infinity = format.special() << format as u32;
        match mxcsr.rounding() {
            Mxcsr::NEAREST => infinity,
            Mxcsr::DOWN if self.negative => infinity,
            Mxcsr::UP if !self.negative => infinity,
            _ => infinity - 1,
        }
    }

    /// The magnitude without its lowest bits, rounded, and whether it was inexact. What is left
    /// fits into 64 bits. A negative count adds zeroes.
    fn cut(self, bits: i32, mxcsr: Mxcsr) -> (u64, bool) {
        let Ok(bits) = u32::try_from(bits) else {
            return ((self.magnitude << bits.unsigned_abs()) as u64, false);
        };
        // All is far below half a unit if so much is cut off.
        let (magnitude, bits) = if bits > Self::BITS { (1, 2) } else { (self.magnitude, bits) };
        let kept = (magnitude >> bits) as u64;
        let rest = magnitude & ((1 << bits) - 1);
        let half = (1 << bits) >> 1;
        let up = match mxcsr.rounding() {
            Mxcsr::NEAREST => rest > half || rest == half && rest != 0 && kept & 1 != 0,
            Mxcsr::DOWN => self.negative && rest != 0,
            Mxcsr::UP => !self.negative && rest != 0,
            _ => false,
        };
        (kept + u64::from(up), rest != 0)
    }
}

fn bias(format: Format) -> i32 {
    (format.special() >> 1) as i32
}

fn overflow(mxcsr: Mxcsr, precision: u32) -> u32 {
    let masked = mxcsr.unmasked() & Mxcsr::OE == 0;
    Mxcsr::OE | if masked { Mxcsr::PE } else { precision }
}
