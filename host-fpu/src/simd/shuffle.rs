//! Shuffles by an immediate, moves of masks and of single lanes, and approximations.

use super::lanes::Lane;
use super::{SimdImmOp, SimdOp, to_m128i, to_v128};
use crate::V128;
use core::arch::x86_64::*;

/// Picks a lane for each two-bit field of an immediate.
#[inline(always)]
fn select<T: Copy>(from: [T; 4], imm: u8) -> [T; 4] {
    core::array::from_fn(|i| from[usize::from(imm >> (2 * i) & 3)])
}

/// Shuffles the four words of a quadword: the MMX instruction `pshufw`.
#[inline(always)]
pub fn pshufw(src: u64, imm: u8) -> u64 {
    let word = |i: u32| src >> (16 * (imm >> (2 * i) & 3)) & 0xffff;
    word(0) | word(1) << 16 | word(2) << 32 | word(3) << 48
}

/// Defines instructions on two vectors and an immediate.
macro_rules! imm_ops {
    ($($name:ident |$dst:ident, $src:ident, $imm:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl SimdImmOp for $name {
            #[inline(always)]
            fn apply_imm($dst: V128, $src: V128, $imm: u8) -> V128 {
                $body
            }
        }
    )*};
}
pub(super) use imm_ops;

imm_ops! {
    Pshufd |_dst, src, imm| u32::join(select(u32::split(src), imm));
    Pshuflw |_dst, src, imm| [pshufw(src[0], imm), src[1]];
    Pshufhw |_dst, src, imm| [src[0], pshufw(src[1], imm)];
    Shufps |dst, src, imm| {
        let (low, high) = (select(u32::split(dst), imm), select(u32::split(src), imm));
        u32::join([low[0], low[1], high[2], high[3]])
    };
    Shufpd |dst, src, imm| [dst[usize::from(imm & 1)], src[usize::from(imm >> 1 & 1)]];
}

/// `pmovmskb`: the sign bits of the 16 bytes. The MMX form is that of a zero-extended quadword.
#[inline(always)]
pub fn pmovmskb(src: V128) -> u32 {
    // SAFETY: the intrinsic needs SSE2, which every x86-64 host has.
    unsafe { _mm_movemask_epi8(to_m128i(src)) as u32 }
}

/// `movmskps`: the sign bits of the four singles.
#[inline(always)]
pub fn movmskps(src: V128) -> u32 {
    // SAFETY: the intrinsics need SSE2, which every x86-64 host has.
    unsafe { _mm_movemask_ps(_mm_castsi128_ps(to_m128i(src))) as u32 }
}

/// `movmskpd`: the sign bits of the two doubles.
#[inline(always)]
pub fn movmskpd(src: V128) -> u32 {
    (src[0] >> 63 | src[1] >> 63 << 1) as u32
}

/// Defines the moves of one lane from and to a general register or memory, whose immediate counts
/// modulo the number of lanes.
macro_rules! lane_moves {
    ($($insert:ident $extract:ident $ty:ty, $n:literal;)*) => {$(
        #[doc = concat!("`", stringify!($insert), "`")]
        #[inline(always)]
        pub fn $insert(dst: V128, value: $ty, imm: u8) -> V128 {
            let mut lanes = <$ty>::split(dst);
            lanes[usize::from(imm) % $n] = value;
            <$ty>::join(lanes)
        }

        #[doc = concat!("`", stringify!($extract), "`")]
        #[inline(always)]
        pub fn $extract(src: V128, imm: u8) -> $ty {
            <$ty>::split(src)[usize::from(imm) % $n]
        }
    )*};
}

lane_moves! {
    pinsrb pextrb u8, 16;
    pinsrw pextrw u16, 8;
    pinsrd pextrd u32, 4;
    pinsrq pextrq u64, 2;
}

/// The MMX form of `pinsrw`.
#[inline(always)]
pub fn pinsrw_mmx(dst: u64, value: u16, imm: u8) -> u64 {
    pinsrw([dst, 0], value, imm & 3)[0]
}

/// The MMX form of `pextrw`.
#[inline(always)]
pub fn pextrw_mmx(src: u64, imm: u8) -> u16 {
    pextrw([src, 0], imm & 3)
}

/// Defines the approximations, which ignore MXCSR and raise nothing. Their results are the host's;
/// the manuals bound only the relative error, by 1.5 * 2^-12.
macro_rules! approximations {
    ($($name:ident $intrinsic:ident $scalar:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl SimdOp for $name {
            #[inline(always)]
            fn apply(dst: V128, src: V128) -> V128 {
                // SAFETY: the intrinsics need SSE2, which every x86-64 host has.
                let r = to_v128(unsafe {
                    _mm_castps_si128($intrinsic(_mm_castsi128_ps(to_m128i(src))))
                });
                if $scalar {
                    [dst[0] >> 32 << 32 | u64::from(r[0] as u32), dst[1]]
                } else {
                    r
                }
            }
        }
    )*};
}

approximations! {
    RcpPs _mm_rcp_ps false; RcpSs _mm_rcp_ss true;
    RsqrtPs _mm_rsqrt_ps false; RsqrtSs _mm_rsqrt_ss true;
}
