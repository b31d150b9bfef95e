//! The arithmetic flags, kept as the last operation's operands and result until somebody asks.

use trivium_cpu::bits::rflags;

/// What the fields of [`Flags`] mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `result` holds the flags themselves.
    Explicit,
    /// `a + b` (+ carry) = `result`.
    Add,
    /// `a - b` = `result`.
    Sub,
    /// The same with a borrow that was taken off too.
    Borrow,
    /// CF = OF = AF = 0.
    Logic,
    /// `result` = something + 1; `b` is CF.
    Inc,
    /// `result` = something - 1; `b` is CF.
    Dec,
    /// `a` holds CF, OF and AF in their places; the rest is of `result`.
    Result,
}

/// The lazy flags. Operands and result are zero-extended from the operation's width.
#[derive(Debug, Clone, Copy)]
pub struct Flags {
    kind: Kind,
    /// Number of the sign bit: 7, 15, 31 or 63.
    sign: u8,
    a: u64,
    b: u64,
    result: u64,
}

impl Default for Flags {
    fn default() -> Self {
        Self { kind: Kind::Explicit, sign: 63, a: 0, b: 0, result: 0 }
    }
}

/// Conditions by their number in Jcc, SETcc and CMOVcc; odd ones negate the one before.
pub mod cond {
    #![allow(missing_docs)] // The names are the manual's suffixes.
    pub const O: u8 = 0;
    pub const B: u8 = 2;
    pub const E: u8 = 4;
    pub const BE: u8 = 6;
    pub const S: u8 = 8;
    pub const P: u8 = 10;
    pub const L: u8 = 12;
    pub const LE: u8 = 14;
}

impl Flags {
    /// Records an operation.
    #[inline(always)]
    pub fn set(&mut self, kind: Kind, sign: u8, a: u64, b: u64, result: u64) {
        self.kind = kind;
        self.sign = sign;
        self.a = a;
        self.b = b;
        self.result = result;
    }

    /// Records a result whose CF, OF and AF are 0.
    #[inline(always)]
    pub fn set_logic(&mut self, sign: u8, result: u64) {
        self.kind = Kind::Logic;
        self.sign = sign;
        self.result = result;
    }

    /// Records a result; `cf_of_af` holds these flags in their places.
    #[inline(always)]
    pub fn set_result(&mut self, sign: u8, result: u64, cf_of_af: u64) {
        self.kind = Kind::Result;
        self.sign = sign;
        self.a = cf_of_af;
        self.result = result;
    }

    /// Sets all six from their places in RFLAGS.
    #[inline(always)]
    pub fn set_explicit(&mut self, flags: u64) {
        self.kind = Kind::Explicit;
        self.result = flags & rflags::STATUS;
    }

    /// Sets those in `mask` from their places in `flags`, and keeps the others.
    pub fn set_some(&mut self, mask: u64, flags: u64) {
        self.set_explicit(self.get() & !mask | flags & mask);
    }

    /// All six in their places.
    #[must_use]
    pub fn get(&self) -> u64 {
        if self.kind == Kind::Explicit {
            return self.result;
        }
        u64::from(self.cf()) * rflags::CF
            | u64::from(self.pf()) * rflags::PF
            | u64::from(self.af()) * rflags::AF
            | u64::from(self.zf()) * rflags::ZF
            | u64::from(self.sf()) * rflags::SF
            | u64::from(self.of()) * rflags::OF
    }

    #[inline(always)]
    fn at_sign(&self, value: u64) -> bool {
        value >> self.sign & 1 != 0
    }

    /// CF.
    #[inline(always)]
    #[must_use]
    pub fn cf(&self) -> bool {
        let Self { a, b, result, .. } = *self;
        match self.kind {
            Kind::Explicit => result & rflags::CF != 0,
            Kind::Add => self.at_sign(a & b | (a | b) & !result),
            Kind::Sub | Kind::Borrow => self.at_sign(!a & b | (!a | b) & result),
            Kind::Logic => false,
            Kind::Inc | Kind::Dec => b != 0,
            Kind::Result => a & rflags::CF != 0,
        }
    }

    /// OF.
    #[inline(always)]
    #[must_use]
    pub fn of(&self) -> bool {
        let Self { a, b, result, .. } = *self;
        match self.kind {
            Kind::Explicit => result & rflags::OF != 0,
            Kind::Add => self.at_sign((a ^ result) & (b ^ result)),
            Kind::Sub | Kind::Borrow => self.at_sign((a ^ b) & (a ^ result)),
            Kind::Logic => false,
            Kind::Inc => result == 1 << self.sign,
            Kind::Dec => result == (1 << self.sign) - 1,
            Kind::Result => a & rflags::OF != 0,
        }
    }

    /// AF.
    #[must_use]
    pub fn af(&self) -> bool {
        let Self { a, b, result, .. } = *self;
        match self.kind {
            Kind::Explicit => result & rflags::AF != 0,
            Kind::Add | Kind::Sub | Kind::Borrow => (a ^ b ^ result) & 0x10 != 0,
            Kind::Logic => false,
            Kind::Inc => result & 15 == 0,
            Kind::Dec => result & 15 == 15,
            Kind::Result => a & rflags::AF != 0,
        }
    }

    /// ZF.
    #[inline(always)]
    #[must_use]
    pub fn zf(&self) -> bool {
        match self.kind {
            Kind::Explicit => self.result & rflags::ZF != 0,
            _ => self.result == 0,
        }
    }

    /// SF.
    #[inline(always)]
    #[must_use]
    pub fn sf(&self) -> bool {
        match self.kind {
            Kind::Explicit => self.result & rflags::SF != 0,
            _ => self.at_sign(self.result),
        }
    }

    /// PF.
    #[inline(always)]
    #[must_use]
    pub fn pf(&self) -> bool {
        match self.kind {
            Kind::Explicit => self.result & rflags::PF != 0,
            _ => (self.result as u8).count_ones() & 1 == 0,
        }
    }

    /// Condition number `C`.
    #[inline(always)]
    #[must_use]
    pub fn test<const C: u8>(&self) -> bool {
        if self.kind == Kind::Sub && C != 8 && C != 9 {
            return compare::<C>(self.a, self.b, self.result, self.sign);
        }
        let positive = match C & 14 {
            cond::O => self.of(),
            cond::B => self.cf(),
            cond::E => self.zf(),
            cond::BE => self.cf() || self.zf(),
            cond::S => self.sf(),
            cond::P => self.pf(),
            cond::L => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        positive ^ (C & 1 != 0)
    }

    /// Condition number `number`, 0 to 15.
    #[must_use]
    pub fn test_number(&self, number: u8) -> bool {
        let positive = match number & 14 {
            cond::O => self.of(),
            cond::B => self.cf(),
            cond::E => self.zf(),
            cond::BE => self.cf() || self.zf(),
            cond::S => self.sf(),
            cond::P => self.pf(),
            cond::L => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        positive ^ (number & 1 != 0)
    }
}

/// Condition `C` after a compare of `a` with `b`, both zero-extended from width `sign + 1`.
#[inline(always)]
#[must_use]
pub fn compare<const C: u8>(a: u64, b: u64, result: u64, sign: u8) -> bool {
    let up = 63 - sign;
    let (signed_a, signed_b) = ((a << up) as i64, (b << up) as i64);
    let positive = match C & 14 {
        cond::O => ((a ^ b) & (a ^ result)) >> sign & 1 != 0,
        cond::B => a < b,
        cond::E => a == b,
        cond::BE => a <= b,
        cond::S => result >> sign & 1 != 0,
        cond::P => (result as u8).count_ones() & 1 == 0,
        cond::L => signed_a < signed_b,
        _ => signed_a <= signed_b,
    };
    positive ^ (C & 1 != 0)
}

/// Condition `C` after TEST with this result.
#[inline(always)]
#[must_use]
pub fn tested<const C: u8>(result: u64, sign: u8) -> bool {
    let negative = result >> sign & 1 != 0;
    let positive = match C & 14 {
        cond::O | cond::B => false,
        cond::E | cond::BE => result == 0,
        cond::S | cond::L => negative,
        cond::P => (result as u8).count_ones() & 1 == 0,
        _ => result == 0 || negative,
    };
    positive ^ (C & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the host's own ADD, SUB, INC and DEC give.
    fn host(kind: Kind, a: u8, b: u8, carry: bool) -> (u8, u64) {
        let (wide, result) = match kind {
            Kind::Add => (u16::from(a) + u16::from(b), a.wrapping_add(b)),
            Kind::Sub => (u16::from(a).wrapping_sub(u16::from(b)), a.wrapping_sub(b)),
            Kind::Inc => (u16::from(carry) << 8, a.wrapping_add(1)),
            _ => (u16::from(carry) << 8, a.wrapping_sub(1)),
        };
        let signed = match kind {
            Kind::Add => i16::from(a as i8) + i16::from(b as i8),
            Kind::Sub => i16::from(a as i8) - i16::from(b as i8),
            Kind::Inc => i16::from(a as i8) + 1,
            _ => i16::from(a as i8) - 1,
        };
        let low = match kind {
            Kind::Add => (a & 15) + (b & 15) > 15,
            Kind::Sub => a & 15 < b & 15,
            Kind::Inc => a & 15 == 15,
            _ => a & 15 == 0,
        };
        let flags = u64::from(wide >> 8 & 1) * rflags::CF
            | u64::from(result.count_ones() % 2 == 0) * rflags::PF
            | u64::from(low) * rflags::AF
            | u64::from(result == 0) * rflags::ZF
            | u64::from(result > 127) * rflags::SF
            | u64::from(signed != i16::from(signed as i8)) * rflags::OF;
        (result, flags)
    }

    #[test]
    fn flags_of_every_byte_operation_follow_their_definition() {
        for kind in [Kind::Add, Kind::Sub, Kind::Inc, Kind::Dec] {
            for a in 0..=255_u8 {
                for b in 0..=255_u8 {
                    let carry = b & 1 != 0;
                    let (result, expected) = host(kind, a, b, carry);
                    let mut flags = Flags::default();
                    let b = match kind {
                        Kind::Inc | Kind::Dec => u64::from(carry),
                        _ => u64::from(b),
                    };
                    flags.set(kind, 7, u64::from(a), b, u64::from(result));
                    assert_eq!(flags.get(), expected, "{kind:?} {a:#x} {b:#x}");
                    check_conditions(&flags, expected);
                }
            }
        }
    }

    /// The conditions by their definition over the six flags: Intel SDM vol. 1, appendix B.
    fn by_definition(number: u8, f: u64) -> bool {
        let has = |bit| f & bit != 0;
        let less = has(rflags::SF) != has(rflags::OF);
        let positive = match number >> 1 {
            0 => has(rflags::OF),
            1 => has(rflags::CF),
            2 => has(rflags::ZF),
            3 => has(rflags::CF) || has(rflags::ZF),
            4 => has(rflags::SF),
            5 => has(rflags::PF),
            6 => less,
            _ => less || has(rflags::ZF),
        };
        positive != (number & 1 == 1)
    }

    fn check_conditions(flags: &Flags, expected: u64) {
        macro_rules! check {
            ($($c:literal)*) => {$(
                assert_eq!(flags.test::<$c>(), by_definition($c, expected), "{} {flags:?}", $c);
                assert_eq!(flags.test_number($c), by_definition($c, expected));
            )*};
        }
        check!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    }

    #[test]
    fn explicit_and_logic_flags_read_back() {
        let mut flags = Flags::default();
        flags.set_explicit(rflags::CF | rflags::SF);
        flags.set_some(rflags::CF | rflags::OF, rflags::OF);
        assert_eq!(flags.get(), rflags::SF | rflags::OF);
        check_conditions(&flags, flags.get());
        flags.set_logic(31, 0x8000_0000);
        assert_eq!(flags.get(), rflags::SF | rflags::PF);
        check_conditions(&flags, flags.get());
    }
}
