//! The flags of arithmetic whose overflow or underflow exception is unmasked.
//!
//! Instructions run here with everything masked, and so the host reports precision for the masked
//! response: infinity, or a denormal. Unmasked, precision is that of the result rounded as if its
//! exponent were unbounded (SDM vol. 1, 4.9.1.4 to 4.9.1.6). It comes from the same instruction on
//! operands whose exponents are moved to where neither happens.

use super::SseResult;
use crate::{Mxcsr, V128};

/// How an instruction's lanes can overflow or underflow.
#[derive(Clone, Copy)]
pub struct Lanes {
    /// The same instruction on the lowest lane alone.
    pub scalar: fn(u32, V128, V128) -> SseResult,
    /// What the lanes of its sources are.
    pub format: Format,
    /// How many there are.
    pub count: u32,
    /// Which operands' exponents matter.
    pub kind: Kind,
}

/// A floating-point format, by its significand's bits without the integer bit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Single precision.
    Single = 23,
    /// Double precision.
    Double = 52,
}

/// What an instruction does to exponents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Products and quotients: significands alone decide on the result's.
    Product,
    /// Sums and differences: the exponents' difference counts. What is tiny is exact.
    Sum,
    /// A conversion to a narrower format of the second source.
    Conversion,
}

impl Format {
    fn bits(self) -> u32 {
        match self {
            Self::Single => 32,
            Self::Double => 64,
        }
    }

    /// The sign bit.
    pub fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// The bits of the significand.
    pub fn significand(self) -> u64 {
        (1 << self as u32) - 1
    }

    /// The largest biased exponent, which infinities and NaNs have.
    pub fn special(self) -> u64 {
        (1 << (self.bits() - 1 - self as u32)) - 1
    }

    /// The biased exponent.
    pub fn exponent(self, value: u64) -> u64 {
        value >> self as u32 & self.special()
    }

    /// A lane of a vector.
    pub fn lane(self, vector: V128, n: u32) -> u64 {
        let at = n * self.bits();
        let word = if at < 64 { vector[0] } else { vector[1] };
        word >> (at & 63) & (u64::MAX >> (64 - self.bits()))
    }

    /// Writes a lane of a vector.
    pub fn put_lane(self, vector: &mut V128, n: u32, value: u64) {
        let at = n * self.bits();
        let word = if at < 64 { &mut vector[0] } else { &mut vector[1] };
        let mask = u64::MAX >> (64 - self.bits()) << (at & 63);
        *word = *word & !mask | value << (at & 63);
    }

    /// The same significand with an exponent of 0, that is 1 to 2.
    fn to_one(self, value: u64) -> u64 {
        let mut significand = value & self.significand();
        if self.exponent(value) == 0 && significand != 0 {
            let leading = 63 - significand.leading_zeros();
            significand = significand << (self as u32 - leading) & self.significand();
        }
        significand | (self.special() >> 1) << self as u32
    }
}

impl Lanes {
    /// The exceptions that the lanes raise.
    #[cold]
    pub fn flags(&self, mxcsr: Mxcsr, dst: V128, src: V128) -> u32 {
        (0..self.count).fold(0, |flags, n| {
            let (a, b) = (self.format.lane(dst, n), self.format.lane(src, n));
            flags | self.lane_flags(mxcsr, a, b)
        })
    }

    fn lane_flags(&self, mxcsr: Mxcsr, a: u64, b: u64) -> u32 {
        let unmasked = mxcsr.unmasked();
        let run = |mxcsr, a, b| (self.scalar)(mxcsr, [a, 0], [b, 0]).flags;
        let mut flags = run(mxcsr.0, a, b);
        if unmasked & Mxcsr::UE != 0 {
            // FTZ tells of results that are tiny and exact, which are reported, too (4.9.1.5).
            let tiny = run(mxcsr.0 | Mxcsr::FTZ, a, b) & Mxcsr::UE;
            flags = run(mxcsr.0 & !Mxcsr::FTZ, a, b) | tiny;
        }
        if flags & unmasked & (Mxcsr::OE | Mxcsr::UE) == 0 {
            return flags;
        }
        let exact = match self.kind {
            Kind::Sum if flags & Mxcsr::UE != 0 => true,
            Kind::Sum => self.is_sum_exact(mxcsr, a, b),
            Kind::Product | Kind::Conversion => {
                run(mxcsr.0, self.format.to_one(a), self.format.to_one(b)) & Mxcsr::PE == 0
            }
        };
        flags & !Mxcsr::PE | if exact { 0 } else { Mxcsr::PE }
    }

    /// Whether a sum that overflows would be exact with a larger exponent.
    fn is_sum_exact(&self, mxcsr: Mxcsr, a: u64, b: u64) -> bool {
        /// Room for the carry of a sum.
        const ROOM: u64 = 2;
        let small = [a, b].into_iter().find(|&v| self.format.exponent(v) <= ROOM);
        match small {
            // Too far below the other to be a part of the result, unless it is nothing at all.
            Some(v) => {
                let is_zero = v << (65 - self.format.bits()) == 0;
                is_zero || mxcsr.0 & Mxcsr::DAZ != 0 && self.format.exponent(v) == 0
            }
            None => {
                let [a, b] = [a, b].map(|v| v - (ROOM << self.format as u32));
                (self.scalar)(mxcsr.0, [a, 0], [b, 0]).flags & Mxcsr::PE == 0
            }
        }
    }
}
