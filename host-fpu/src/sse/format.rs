//! Binary floating-point formats of SSE and AVX, and lanes of vectors that hold such numbers.

use crate::{Mxcsr, V128};

/// A floating-point format, by its significand's bits without the integer bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Half precision.
    Half = 10,
    /// Single precision.
    Single = 23,
    /// Double precision.
    Double = 52,
}

impl Format {
    /// The bits of a lane.
    pub fn bits(self) -> u32 {
        match self {
            Self::Half => 16,
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

    /// The bit that makes a NaN quiet.
    pub fn quiet(self) -> u64 {
        1 << (self as u32 - 1)
    }

    /// Whether it is a NaN.
    pub fn is_nan(self, value: u64) -> bool {
        self.exponent(value) == self.special() && value & self.significand() != 0
    }

    /// Whether it is a signalling NaN.
    pub fn signals(self, value: u64) -> bool {
        self.is_nan(value) && value & self.quiet() == 0
    }

    /// An operand as arithmetic takes it: denormals are zero with DAZ, and raise DE without.
    pub fn operand(self, mxcsr: Mxcsr, value: u64) -> (u64, u32) {
        if self.exponent(value) != 0 || value & self.significand() == 0 {
            return (value, 0);
        }
        match mxcsr.0 & Mxcsr::DAZ != 0 {
            true => (value & self.sign(), 0),
            false => (value, Mxcsr::DE),
        }
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
    pub fn to_one(self, value: u64) -> u64 {
        let mut significand = value & self.significand();
        if self.exponent(value) == 0 && significand != 0 {
            let leading = 63 - significand.leading_zeros();
            significand = significand << (self as u32 - leading) & self.significand();
        }
        significand | (self.special() >> 1) << self as u32
    }
}
