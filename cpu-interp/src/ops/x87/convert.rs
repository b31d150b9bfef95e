//! Conversions that need no floating-point unit, as they raise nothing or only inexactness: most
//! loads, and most stores when rounding to nearest. The others are left to the host's unit, which
//! takes five times as long. Intel SDM vol. 1, 4.2.2 and 4.8.4.

use trivium_host_fpu::F80;
use trivium_host_fpu::x87::status::{C1, PE};
use trivium_host_fpu::x87::{Operand, Real32, Real64, control};

use crate::mem::Int;

const INTEGER_BIT: u64 = 1 << 63;
const SIGN: u16 = 0x8000;

/// A real format in memory, as an integer of its bits.
pub trait Real: Int {
    /// The same for the host's unit.
    type Source: Operand;
    /// Bits of the fraction.
    const FRACTION: u32;
    /// What exponents differ by from those of the double extended format.
    const BIAS: u16;

    /// The bits as an operand.
    fn source(self) -> Self::Source;

    /// The format's exponent with all bits set, of infinities and NaNs.
    #[inline(always)]
    fn top_exponent() -> u16 {
        (Self::MASK >> Self::FRACTION) as u16 >> 1
    }

    /// A zero or normal number in double extended format. Others may raise something.
    #[inline(always)]
    fn extend(self) -> Option<F80> {
        let bits: u64 = self.into();
        let sign = if bits >> Self::SIGN & 1 != 0 { SIGN } else { 0 };
        let exponent = (bits >> Self::FRACTION) as u16 & Self::top_exponent();
        let fraction = bits << (63 - Self::FRACTION) & !INTEGER_BIT;
        if exponent == 0 && fraction == 0 {
            Some(F80::from_bits(sign, 0))
        } else if exponent == 0 || exponent == Self::top_exponent() {
            None
        } else {
            Some(F80::from_bits(sign | exponent + Self::BIAS, fraction | INTEGER_BIT))
        }
    }

    /// A zero or a number that stays normal, rounded to nearest; and what the status word then
    /// shows of PE and C1. `None` if the control word asks for something else.
    #[inline(always)]
    fn narrow(control: u16, value: F80) -> Option<(Self, u16)> {
        let sign = u64::from(value.sign_exponent >> 15) << (Self::SIGN & 63);
        let exponent = (value.sign_exponent & !SIGN).wrapping_sub(Self::BIAS);
        if value.mantissa == 0 && value.sign_exponent & !SIGN == 0 {
            return Some((Self::of(sign), 0));
        }
        // Numbers with the highest exponent may become infinite.
        let is_normal = (1..Self::top_exponent() - 1).contains(&exponent);
        if !is_normal || value.mantissa & INTEGER_BIT == 0 {
            return None;
        }
        let lost = value.mantissa << (Self::FRACTION + 1);
        let kept = value.mantissa >> (63 - Self::FRACTION);
        if lost != 0 && control & (control::RC | PE) != PE {
            return None;
        }
        let up = lost > INTEGER_BIT || lost == INTEGER_BIT && kept & 1 != 0;
        let status = match (lost != 0, up) {
            (false, _) => 0,
            (true, false) => PE,
            (true, true) => PE | C1,
        };
        // `kept` has the integer bit, which makes one more of the exponent; so may the rounding.
        let magnitude = (u64::from(exponent - 1) << Self::FRACTION) + kept + u64::from(up);
        Some((Self::of(sign | magnitude), status))
    }
}

impl Real for u32 {
    type Source = Real32;
    const FRACTION: u32 = 23;
    const BIAS: u16 = 0x3fff - 0x7f;
    #[inline(always)]
    fn source(self) -> Real32 {
        Real32(self)
    }
}

impl Real for u64 {
    type Source = Real64;
    const FRACTION: u32 = 52;
    const BIAS: u16 = 0x3fff - 0x3ff;
    #[inline(always)]
    fn source(self) -> Real64 {
        Real64(self)
    }
}

/// A sign-extended integer in double extended format, which holds them all.
#[inline(always)]
pub fn from_integer(value: i64) -> F80 {
    if value == 0 {
        return F80::ZERO;
    }
    let magnitude = value.unsigned_abs();
    let zeros = magnitude.leading_zeros();
    let sign = if value < 0 { SIGN } else { 0 };
    F80::from_bits(sign | (0x3fff + 63 - zeros as u16), magnitude << zeros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivium_host_fpu::x87::{X87Env, X87Load, X87Store};

    const ENV: X87Env = X87Env { control: control::INIT, status: 0 };

    /// Values around what matters for rounding and ranges.
    fn values() -> impl Iterator<Item = F80> {
        let exponents = [0_u16, 1, 0x3c00, 0x3c01, 0x3c02, 0x3f80, 0x3f81, 0x3f82, 0x3fff];
        let high = [0x407d, 0x407e, 0x407f, 0x43fd, 0x43fe, 0x43ff, 0x7fff];
        let tails = [0_u64, 1, 0x3ff, 0x400, 0x401, 0x7ff, 0x800, 0xbff, 0xc00, 0xc01];
        exponents.into_iter().chain(high).flat_map(move |exponent| {
            tails.into_iter().flat_map(move |tail| {
                let single = (tail & 0xf) | tail >> 10 << 39;
                let mantissas = [0, tail, INTEGER_BIT | tail, INTEGER_BIT | single, !tail, !0];
                mantissas.into_iter().flat_map(move |mantissa| {
                    [0, SIGN].map(|sign| F80::from_bits(sign | exponent, mantissa))
                })
            })
        })
    }

    #[test]
    fn narrowing_is_what_the_hosts_unit_does() {
        for value in values() {
            if let Some((bits, status)) = <u64 as Real>::narrow(ENV.control, value) {
                let real = Real64::store(ENV, value);
                assert_eq!((Real64(bits), status), (real.value, real.status), "{value:x?}");
            }
            if let Some((bits, status)) = <u32 as Real>::narrow(ENV.control, value) {
                let real = Real32::store(ENV, value);
                assert_eq!((Real32(bits), status), (real.value, real.status), "{value:x?}");
            }
        }
    }

    #[test]
    fn extending_is_what_the_hosts_unit_does() {
        for value in values() {
            let double = Real64::store(ENV, value).value;
            if let Some(extended) = double.0.extend() {
                assert_eq!(extended, double.load(ENV).value, "{double:x?}");
            }
            let single = Real32::store(ENV, value).value;
            if let Some(extended) = single.0.extend() {
                assert_eq!(extended, single.load(ENV).value, "{single:x?}");
            }
        }
        assert_eq!(1.5_f64.to_bits().extend(), Some(F80::from_bits(0x3fff, 3 << 62)));
        assert_eq!(f64::INFINITY.to_bits().extend(), None);
        assert_eq!(1_u32.extend(), None);
    }

    #[test]
    fn integers_are_what_the_hosts_unit_loads() {
        for value in [0, 1, -1, 2, 0x7fff_ffff, -0x8000_0000, i64::MAX, i64::MIN, 0x1234_5678_9abc]
        {
            assert_eq!(from_integer(value), value.load(ENV).value, "{value}");
        }
    }
}
