//! x87 basic arithmetic and comparisons with every kind of source operand.

use super::status::CONDITIONS;
use super::{X87Env, X87Result, load_a, load_b, no_r, pop_r, put_b, run, run_one, x87_code};
use crate::F80;

/// A single-precision real in memory, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Real32(pub u32);

/// A double-precision real in memory, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Real64(pub u64);

/// A source operand: a register ([`F80`]), [`Real32`], [`Real64`], `i16` or `i32`; for loads also `i64`.
pub trait Operand: Copy {
    /// The operand's bytes as the low part of a mantissa.
    #[doc(hidden)]
    fn into_memory(self) -> F80;
}

/// A memory operand's bytes where the code reads them.
const fn memory(bits: u64) -> F80 {
    F80::from_bits(0, bits)
}

impl Operand for F80 {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        self
    }
}

impl Operand for Real32 {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        memory(u64::from(self.0))
    }
}

impl Operand for Real64 {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        memory(self.0)
    }
}

impl Operand for i16 {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        memory(u64::from(self as u16))
    }
}

impl Operand for i32 {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        memory(u64::from(self as u32))
    }
}

impl Operand for i64 {
    #[inline(always)]
    fn into_memory(self) -> F80 {
        memory(self as u64)
    }
}

/// FADD, FSUB, FSUBR, FMUL, FDIV or FDIVR with a source operand of one kind.
pub trait X87Arith<Src: Operand> {
    /// `dst op src`; the reversed forms compute `src op dst`. Forms whose destination is ST(i)
    /// (FADD, FSUB, FDIV ... ST(i), ST(0)) pass ST(i) as `dst` and ST(0) as `src`.
    fn apply(env: X87Env, dst: F80, src: Src) -> X87Result;
}

/// FCOM or FUCOM with a source operand of one kind.
pub trait X87Compare<Src: Operand> {
    /// Compares ST(0) with `src`: what [`X87Result::status`] holds, changing all condition codes
    /// (C1 to 0). FCOMI changes C1 only; [`eflags`](super::eflags) gives its result.
    fn apply(env: X87Env, st0: F80, src: Src) -> u16;
}

/// Names the code of one instruction and operand kind.
struct Form<Op, Src>(core::marker::PhantomData<(Op, Src)>);

/// Defines arithmetic instructions: the mnemonics for real and for integer operands.
macro_rules! arith_ops {
    ($($name:ident $real:literal $integer:literal;)*) => {$(
        #[doc = concat!("`", $real, "`, `", $integer, "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        arith_ops!(@form $name, F80,
            [load_b!(), load_a!(), concat!($real, " st(0), st(1)")],
            [pop_r!(), "fstp st(0)"]);
        arith_ops!(@memory $name, Real32, concat!($real, " dword ptr [rsp - 48]"));
        arith_ops!(@memory $name, Real64, concat!($real, " qword ptr [rsp - 48]"));
        arith_ops!(@memory $name, i16, concat!($integer, " word ptr [rsp - 48]"));
        arith_ops!(@memory $name, i32, concat!($integer, " dword ptr [rsp - 48]"));
    )*};
    (@memory $name:ident, $src:ty, $instruction:expr) => {
        arith_ops!(@form $name, $src, [load_a!(), put_b!(), $instruction], [pop_r!()]);
    };
    (@form $name:ident, $src:ty, $code:tt, $out:tt) => {
        x87_code!(Form<$name, $src>, $code, $out);
        impl X87Arith<$src> for $name {
            #[inline(always)]
            fn apply(env: X87Env, dst: F80, src: $src) -> X87Result {
                run_one::<Form<$name, $src>>(env, dst, src.into_memory())
            }
        }
    };
}

arith_ops! {
    Fadd "fadd" "fiadd";
    Fsub "fsub" "fisub";
    Fsubr "fsubr" "fisubr";
    Fmul "fmul" "fimul";
    Fdiv "fdiv" "fidiv";
    Fdivr "fdivr" "fidivr";
}

/// `fcom`, `ficom`, `fcomi`: any NaN is an invalid operation.
#[derive(Clone, Copy, Debug)]
pub struct Fcom;

/// `fucom`, `fucomi`: quiet NaNs compare as unordered without an exception.
#[derive(Clone, Copy, Debug)]
pub struct Fucom;

/// Defines comparisons; rows of instruction, operand kind, code that pops ST(0) and ST(1).
macro_rules! compare_ops {
    ($($name:ident $src:ty: $code:tt;)*) => {$(
        x87_code!(Form<$name, $src>, $code, [no_r!()], CONDITIONS);
        impl X87Compare<$src> for $name {
            #[inline(always)]
            fn apply(env: X87Env, st0: F80, src: $src) -> u16 {
                run::<Form<$name, $src>>(env, st0, src.into_memory()).status
            }
        }
    )*};
}

compare_ops! {
    Fcom F80: [load_b!(), load_a!(), "fcompp"];
    Fcom Real32: [load_a!(), put_b!(), "fcomp dword ptr [rsp - 48]"];
    Fcom Real64: [load_a!(), put_b!(), "fcomp qword ptr [rsp - 48]"];
    Fcom i16: [load_a!(), put_b!(), "ficomp word ptr [rsp - 48]"];
    Fcom i32: [load_a!(), put_b!(), "ficomp dword ptr [rsp - 48]"];
    Fucom F80: [load_b!(), load_a!(), "fucompp"];
}

struct FtstCode;
x87_code!(FtstCode, [load_a!(), "ftst"], [no_r!(), "fstp st(0)"], CONDITIONS);

/// `ftst`: compares ST(0) with +0.0; the status as [`X87Compare::apply`] gives it.
#[inline(always)]
pub fn ftst(env: X87Env, st0: F80) -> u16 {
    run::<FtstCode>(env, st0, F80::ZERO).status
}
