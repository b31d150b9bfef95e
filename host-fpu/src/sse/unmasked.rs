//! The flags of arithmetic whose overflow or underflow exception is unmasked.
//!
//! Instructions run here with everything masked, and so the host reports precision for the masked
//! response: infinity, or a denormal. Unmasked, precision is that of the result rounded as if its
//! exponent were unbounded (SDM vol. 1, 4.9.1.4 to 4.9.1.6). It comes from the same instruction on
//! operands whose exponents are moved to where neither happens.

use super::SseResult;
use super::format::Format;
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
