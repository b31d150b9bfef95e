//! x87 instructions on registers alone: roots, remainders, scaling, transcendentals, constants.

use super::status::{C0, C1, C2, C3, CONDITIONS};
use super::{
    Code, X87Env, X87Result, load_a, load_b, pop_q, pop_r, run, run_one, x87_code, x87_pair_code,
};
use crate::F80;

/// An instruction that replaces ST(0).
pub trait X87Unary {
    /// Computes on ST(0). FSIN and FCOS out of range set C2 and give ST(0) back.
    fn apply(env: X87Env, st0: F80) -> X87Result;
}

/// An instruction on ST(0) and ST(1) with one result.
pub trait X87Binary {
    /// Computes on ST(0) and ST(1). FPREM, FPREM1 and FSCALE replace ST(0); FYL2X, FYL2XP1 and
    /// FPATAN pop and replace the new ST(0).
    fn apply(env: X87Env, st0: F80, st1: F80) -> X87Result;
}

/// What an instruction gives that replaces ST(0) and then pushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X87Pair {
    /// The pushed value, the new ST(0): significand (FXTRACT), cosine (FSINCOS), 1.0 (FPTAN).
    pub pushed: F80,
    /// What replaces the old ST(0), the new ST(1): exponent (FXTRACT), sine (FSINCOS), tangent (FPTAN).
    pub replaced: F80,
    /// As [`X87Result::status`]. With C2 set by FSINCOS and FPTAN nothing is replaced or pushed.
    pub status: u16,
    /// As [`X87Result::conditions`].
    pub conditions: u16,
}

/// An instruction that replaces ST(0) and pushes.
pub trait X87Extract {
    /// Computes on ST(0).
    fn apply(env: X87Env, st0: F80) -> X87Pair;
}

/// Defines instructions on one register.
macro_rules! unary_ops {
    ($($name:ident $mnemonic:literal $conditions:expr;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        x87_code!($name, [load_a!(), $mnemonic], [pop_r!()], $conditions);
        impl X87Unary for $name {
            #[inline(always)]
            fn apply(env: X87Env, st0: F80) -> X87Result {
                run_one::<$name>(env, st0, F80::ZERO)
            }
        }
    )*};
}

unary_ops! {
    Fsqrt "fsqrt" C1;
    Frndint "frndint" C1;
    F2xm1 "f2xm1" C1;
    Fsin "fsin" C1 | C2;
    Fcos "fcos" C1 | C2;
}

/// Defines instructions on two registers and what they leave on the stack.
macro_rules! binary_ops {
    ($($name:ident $mnemonic:literal $out:tt;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        x87_code!($name, [load_b!(), load_a!(), $mnemonic], $out);
        impl X87Binary for $name {
            #[inline(always)]
            fn apply(env: X87Env, st0: F80, st1: F80) -> X87Result {
                run_one::<$name>(env, st0, st1)
            }
        }
    )*};
}

binary_ops! {
    Fscale "fscale" [pop_r!(), "fstp st(0)"];
    Fyl2x "fyl2x" [pop_r!()];
    Fyl2xp1 "fyl2xp1" [pop_r!()];
    Fpatan "fpatan" [pop_r!()];
}

/// A remainder after code that sets C3 and C0 to `CODES`: 1 for C0, 2 for C3.
struct After<Op, const CODES: u8>(core::marker::PhantomData<Op>);

/// Defines remainders. For operands without one they leave C0 and C3 as they are, and the manuals
/// leave them undefined; so they are set to the guest's beforehand.
macro_rules! remainder_ops {
    ($($name:ident $mnemonic:literal;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`; it reads C0 and C3 of [`X87Env::status`]")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        // One is greater than zero, zero less than one and equal to zero; all registers are empty.
        remainder_ops!(@after 0, $name $mnemonic ["fldz", "fld1", "fucompp"]);
        remainder_ops!(@after 1, $name $mnemonic ["fld1", "fldz", "fucompp"]);
        remainder_ops!(@after 2, $name $mnemonic ["fldz", "fldz", "fucompp"]);
        remainder_ops!(@after 3, $name $mnemonic ["fxam"]);
        impl X87Binary for $name {
            fn apply(env: X87Env, st0: F80, st1: F80) -> X87Result {
                match (env.status & C3 != 0, env.status & C0 != 0) {
                    (false, false) => run_one::<After<$name, 0>>(env, st0, st1),
                    (false, true) => run_one::<After<$name, 1>>(env, st0, st1),
                    (true, false) => run_one::<After<$name, 2>>(env, st0, st1),
                    (true, true) => run_one::<After<$name, 3>>(env, st0, st1),
                }
            }
        }
    )*};
    (@after $codes:literal, $name:ident $mnemonic:literal [$($set:literal),*]) => {
        x87_code!(After<$name, $codes>, [$($set,)* load_b!(), load_a!(), $mnemonic],
            [pop_r!(), "fstp st(0)"], CONDITIONS);
    };
}

remainder_ops! {
    Fprem "fprem";
    Fprem1 "fprem1";
}

/// Defines instructions with two results. FSINCOS and FPTAN push only if C2 stays clear, so they
/// have no quick form.
macro_rules! extract_ops {
    ($($name:ident $mnemonic:literal $has_quick:literal $conditions:expr;)*) => {$(
        #[doc = concat!("`", $mnemonic, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;
        x87_pair_code!($name, $has_quick, $conditions, [load_a!(), $mnemonic], [pop_r!(), pop_q!()]);
        impl X87Extract for $name {
            #[inline(always)]
            fn apply(env: X87Env, st0: F80) -> X87Pair {
                let raw = run::<$name>(env, st0, F80::ZERO);
                X87Pair { pushed: raw.r, replaced: raw.q, status: raw.status, conditions: <$name>::CONDITIONS }
            }
        }
    )*};
}

extract_ops! {
    Fxtract "fxtract" true C1;
    Fsincos "fsincos" false C1 | C2;
    Fptan "fptan" false C1 | C2;
}

/// Defines the functions that give constants, which raise nothing.
macro_rules! constants {
    ($($name:ident $code:ident $value:literal;)*) => {$(
        struct $code;
        x87_code!($code, [stringify!($name)], [pop_r!()]);

        #[doc = concat!("`", stringify!($name), "`: ", $value, ", rounded as the control word says.")]
        #[inline]
        pub fn $name(control: u16) -> F80 {
            $code::quick(control, F80::ZERO, F80::ZERO).r
        }
    )*};
}

constants! {
    fldl2t Fldl2t "log2(10)";
    fldl2e Fldl2e "log2(e)";
    fldpi Fldpi "pi";
    fldlg2 Fldlg2 "log10(2)";
    fldln2 Fldln2 "ln(2)";
}
