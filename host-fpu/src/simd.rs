//! SIMD that has neither flags nor a control register: integers, logic and moves within vectors.
//!
//! Instructions with two operands are marker types. Those that exist for MMX registers implement
//! [`MmxOp`], too. SSE2 comes from the host's intrinsics, which every x86-64 host has; later
//! extensions are computed lane by lane and need nothing of the host.

mod lanes;
mod packed;
mod shuffle;
mod sse4;
mod ssse3;
#[cfg(test)]
mod tests;

pub use packed::*;
pub use shuffle::*;
pub use sse4::*;
pub use ssse3::*;

use crate::V128;
use core::arch::x86_64::__m128i;

/// An instruction on two XMM operands.
pub trait SimdOp {
    /// The new destination.
    fn apply(dst: V128, src: V128) -> V128;
}

/// An instruction on two XMM operands and an immediate byte.
pub trait SimdImmOp {
    /// The new destination.
    fn apply_imm(dst: V128, src: V128, imm: u8) -> V128;
}

/// The MMX form of an instruction.
pub trait MmxOp {
    /// The new destination.
    fn apply_mmx(dst: u64, src: u64) -> u64;
}

/// A vector as the intrinsics take it.
#[inline(always)]
pub(crate) fn to_m128i(v: V128) -> __m128i {
    // SAFETY: both types are 16 bytes of plain data; every bit pattern is valid for either.
    unsafe { core::mem::transmute::<V128, __m128i>(v) }
}

/// A vector as registers are kept.
#[inline(always)]
pub(crate) fn to_v128(v: __m128i) -> V128 {
    // SAFETY: both types are 16 bytes of plain data; every bit pattern is valid for either.
    unsafe { core::mem::transmute::<__m128i, V128>(v) }
}

/// How the MMX form follows from the XMM form.
macro_rules! mmx_form {
    // The low half of the result depends on the low halves of the operands only.
    (low $name:ident) => {
        impl $crate::simd::MmxOp for $name {
            #[inline(always)]
            fn apply_mmx(dst: u64, src: u64) -> u64 {
                <$name as $crate::simd::SimdOp>::apply([dst, 0], [src, 0])[0]
            }
        }
    };
    // The low half of the result depends on all of the first operand.
    (joined $name:ident) => {
        impl $crate::simd::MmxOp for $name {
            #[inline(always)]
            fn apply_mmx(dst: u64, src: u64) -> u64 {
                <$name as $crate::simd::SimdOp>::apply([dst, src], [0, 0])[0]
            }
        }
    };
    // The result is the high half of the counterpart that works on low halves.
    (high_of $low:ident $name:ident) => {
        impl $crate::simd::MmxOp for $name {
            #[inline(always)]
            fn apply_mmx(dst: u64, src: u64) -> u64 {
                <$low as $crate::simd::SimdOp>::apply([dst, 0], [src, 0])[1]
            }
        }
    };
    (none $name:ident) => {};
}
use mmx_form;
