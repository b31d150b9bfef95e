//! SSSE3, lane by lane.

use super::lanes::{Lane, bytes, from_bytes, whole, zip};
use super::shuffle::imm_ops;
use super::{MmxOp, SimdImmOp, SimdOp, to_m128i, to_v128};
use crate::V128;

/// Defines instructions by what they do to two vectors.
macro_rules! vector_ops {
    ($($name:ident $mmx:ident |$dst:ident, $src:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl $crate::simd::SimdOp for $name {
            #[inline(always)]
            fn apply($dst: $crate::V128, $src: $crate::V128) -> $crate::V128 {
                $body
            }
        }
        $crate::simd::mmx_form!($mmx $name);
    )*};
}
pub(super) use vector_ops;

/// Combines neighbouring lanes of two vectors, those of `a` first.
#[inline(always)]
fn horizontal<T, const N: usize>(a: V128, b: V128, f: impl Fn(T, T) -> T) -> V128
where
    T: Lane<Array = [T; N]>,
{
    let (a, b) = (T::split(a), T::split(b));
    let pair = |v: &[T; N], i: usize| f(v[2 * i % N], v[(2 * i + 1) % N]);
    T::join(core::array::from_fn(|i| if i < N / 2 { pair(&a, i) } else { pair(&b, i - N / 2) }))
}

/// Defines the sign operation of one lane type.
macro_rules! sign {
    ($ty:ty, $dst:expr, $src:expr) => {
        zip::<$ty>($dst, $src, |a, b| match b.signum() {
            0 => 0,
            1 => a,
            _ => a.wrapping_neg(),
        })
    };
}

/// The 16 low bits of (a * b) / 2^15, rounded.
#[inline(always)]
fn multiply_high_rounded(a: i16, b: i16) -> i16 {
    ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16
}

/// Sums of products of unsigned and signed bytes, saturated.
#[inline(always)]
fn multiply_add_bytes(dst: V128, src: V128) -> V128 {
    zip::<i16>(dst, src, |a, b| {
        let ([a0, a1], [b0, b1]) = (a.to_le_bytes(), b.to_le_bytes());
        let product = |u: u8, s: u8| i32::from(u) * i32::from(s as i8);
        let sum = product(a0, b0) + product(a1, b1);
        sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
    })
}

vector_ops! {
    Pabsb low |_dst, src| zip::<i8>(src, src, |a, _| a.wrapping_abs());
    Pabsw low |_dst, src| zip::<i16>(src, src, |a, _| a.wrapping_abs());
    Pabsd low |_dst, src| zip::<i32>(src, src, |a, _| a.wrapping_abs());
    Psignb low |dst, src| sign!(i8, dst, src);
    Psignw low |dst, src| sign!(i16, dst, src);
    Psignd low |dst, src| sign!(i32, dst, src);
    Phaddw joined |dst, src| horizontal(dst, src, i16::wrapping_add);
    Phaddd joined |dst, src| horizontal(dst, src, i32::wrapping_add);
    Phaddsw joined |dst, src| horizontal(dst, src, i16::saturating_add);
    Phsubw joined |dst, src| horizontal(dst, src, i16::wrapping_sub);
    Phsubd joined |dst, src| horizontal(dst, src, i32::wrapping_sub);
    Phsubsw joined |dst, src| horizontal(dst, src, i16::saturating_sub);
    Pmulhrsw low |dst, src| zip::<i16>(dst, src, multiply_high_rounded);
    Pmaddubsw low |dst, src| multiply_add_bytes(dst, src);
}

/// `Pshufb`
#[derive(Clone, Copy, Debug)]
pub struct Pshufb;

/// A byte of `from`, or zero if the index has bit 7 set.
#[inline(always)]
fn pick<const N: usize>(from: &[u8; N], index: u8) -> u8 {
    if index & 0x80 != 0 { 0 } else { from[usize::from(index) % N] }
}

/// What PSHUFB does, for hosts without it.
pub(super) fn shuffle_bytes(dst: V128, src: V128) -> V128 {
    let from = bytes(dst);
    from_bytes(bytes(src).map(|i| pick(&from, i)))
}

impl SimdOp for Pshufb {
    #[inline(always)]
    fn apply(dst: V128, src: V128) -> V128 {
        if !std::arch::is_x86_feature_detected!("ssse3") {
            return shuffle_bytes(dst, src);
        }
        let mut d = to_m128i(dst);
        // SAFETY: the host has SSSE3; the instruction touches nothing but its destination. As
        // assembly it is in line even where SSSE3 is not enabled for the build.
        unsafe {
            core::arch::asm!(
                "pshufb {d}, {s}",
                d = inout(xmm_reg) d,
                s = in(xmm_reg) to_m128i(src),
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        to_v128(d)
    }
}

impl MmxOp for Pshufb {
    #[inline(always)]
    fn apply_mmx(dst: u64, src: u64) -> u64 {
        let from = dst.to_le_bytes();
        u64::from_le_bytes(src.to_le_bytes().map(|i| pick(&from, i)))
    }
}

imm_ops! {
    Palignr |dst, src, imm| {
        let bits = u32::from(imm) * 8;
        let v = match bits {
            0 => whole(src),
            1..128 => whole(src) >> bits | whole(dst) << (128 - bits),
            _ => whole(dst).checked_shr(bits - 128).unwrap_or(0),
        };
        [v as u64, (v >> 64) as u64]
    };
}

/// The MMX form of `palignr`.
#[inline(always)]
pub fn palignr_mmx(dst: u64, src: u64, imm: u8) -> u64 {
    whole([src, dst]).checked_shr(u32::from(imm) * 8).unwrap_or(0) as u64
}
