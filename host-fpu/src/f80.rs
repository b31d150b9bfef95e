//! The 80-bit double extended format and what needs no FPU: sign operations and classification.

/// A double extended-precision value, bit for bit (Intel SDM vol. 1, 4.2.2). Any of the 2^80
/// encodings may occur, the unsupported ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct F80 {
    /// The significand with its explicit integer bit 63.
    pub mantissa: u64,
    /// Sign in bit 15, biased exponent (bias 16383) in bits 14:0.
    pub sign_exponent: u16,
}

impl F80 {
    /// +0.0
    pub const ZERO: F80 = F80::from_bits(0, 0);
    /// +1.0
    pub const ONE: F80 = F80::from_bits(0x3fff, 1 << 63);
    /// The real indefinite, which masked invalid operations give.
    pub const INDEFINITE: F80 = F80::from_bits(0xffff, 3 << 62);

    const SIGN: u16 = 0x8000;
    const EXPONENT: u16 = 0x7fff;
    const INTEGER_BIT: u64 = 1 << 63;

    /// A value from its sign and exponent word and its significand.
    pub const fn from_bits(sign_exponent: u16, mantissa: u64) -> Self {
        F80 { mantissa, sign_exponent }
    }

    /// A value from the ten bytes that FLD m80 reads.
    pub const fn from_bytes(b: [u8; 10]) -> Self {
        F80 {
            mantissa: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            sign_exponent: u16::from_le_bytes([b[8], b[9]]),
        }
    }

    /// The ten bytes that FSTP m80 writes.
    pub const fn to_bytes(self) -> [u8; 10] {
        let m = self.mantissa.to_le_bytes();
        let s = self.sign_exponent.to_le_bytes();
        [m[0], m[1], m[2], m[3], m[4], m[5], m[6], m[7], s[0], s[1]]
    }

    /// FABS: clears the sign, of any encoding, without exceptions.
    #[must_use]
    pub const fn abs(self) -> Self {
        F80 { sign_exponent: self.sign_exponent & !Self::SIGN, ..self }
    }

    /// FCHS: inverts the sign, of any encoding, without exceptions.
    #[must_use]
    pub const fn chs(self) -> Self {
        F80 { sign_exponent: self.sign_exponent ^ Self::SIGN, ..self }
    }

    /// FXAM of a register that is not empty: C3, C2, C1 and C0 in their places in the status word
    /// (SDM vol. 2, FXAM). The interpreter handles the empty class, which is C3 and C0.
    pub const fn examine(self) -> u16 {
        use crate::x87::status::{C0, C1, C2, C3};
        let sign = if self.sign_exponent & Self::SIGN != 0 { C1 } else { 0 };
        let integer_bit = self.mantissa & Self::INTEGER_BIT != 0;
        let class = match (self.sign_exponent & Self::EXPONENT, integer_bit) {
            (0, _) if self.mantissa == 0 => C3,
            (0, _) => C3 | C2,
            (_, false) => 0,
            (Self::EXPONENT, true) if self.mantissa == Self::INTEGER_BIT => C2 | C0,
            (Self::EXPONENT, true) => C0,
            (_, true) => C2,
        };
        sign | class
    }

    /// The tag that FNSTENV and FNSAVE show for this value in a register that is not empty:
    /// 0 valid, 1 zero, 2 special (SDM vol. 1, 8.1.7).
    pub const fn tag(self) -> u16 {
        let exponent = self.sign_exponent & Self::EXPONENT;
        if exponent == 0 && self.mantissa == 0 {
            1
        } else if exponent == 0
            || exponent == Self::EXPONENT
            || self.mantissa & Self::INTEGER_BIT == 0
        {
            2
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::F80;
    use crate::x87::status::{C0, C1, C2, C3};

    #[test]
    fn fxam_classes_of_table_3_36() {
        let cases = [
            (F80::from_bits(0x3fff, 1 << 62), 0, "unsupported"),
            (F80::from_bits(0x7fff, 0), 0, "pseudo-infinity"),
            (F80::INDEFINITE, C1 | C0, "NaN"),
            (F80::ONE, C2, "normal"),
            (F80::ONE.chs(), C1 | C2, "negative normal"),
            (F80::from_bits(0x7fff, 1 << 63), C2 | C0, "infinity"),
            (F80::ZERO.chs(), C1 | C3, "zero"),
            (F80::from_bits(0, 1), C3 | C2, "denormal"),
            (F80::from_bits(0, 1 << 63), C3 | C2, "pseudo-denormal"),
        ];
        for (value, class, name) in cases {
            assert_eq!(value.examine(), class, "{name}");
        }
    }

    #[test]
    fn tags_tell_valid_zero_and_special() {
        assert_eq!(F80::ONE.tag(), 0);
        assert_eq!(F80::ZERO.chs().tag(), 1);
        assert_eq!(F80::INDEFINITE.tag(), 2);
        assert_eq!(F80::from_bits(0, 1).tag(), 2);
        assert_eq!(F80::from_bits(0x3fff, 1).tag(), 2);
    }

    #[test]
    fn bytes_round_trip() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        assert_eq!(F80::from_bytes(bytes).to_bytes(), bytes);
    }
}
