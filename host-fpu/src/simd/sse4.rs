//! SSE4.1 and SSE4.2 integer instructions, lane by lane, and blends.

use super::SimdImmOp;
use super::lanes::{Lane, bytes, from_bytes, zip};
use super::shuffle::imm_ops;
use super::ssse3::vector_ops;
use crate::V128;

/// A signed doubleword saturated to an unsigned word.
#[inline(always)]
fn saturate_unsigned(x: i32) -> u16 {
    x.clamp(0, i32::from(u16::MAX)) as u16
}

/// Widens the low lanes of a vector, as many as fit.
macro_rules! widen {
    ($from:ty => $to:ty, $src:expr) => {{
        let lanes = <$from>::split($src);
        <$to>::join(core::array::from_fn(|i| <$to>::from(lanes[i])))
    }};
}

/// The smallest word and the index of its first occurrence.
#[inline(always)]
fn minimum_position(src: V128) -> V128 {
    let words = u16::split(src);
    let (mut min, mut index) = (words[0], 0_u64);
    for (i, &w) in (0_u64..).zip(&words) {
        if w < min {
            (min, index) = (w, i);
        }
    }
    [u64::from(min) | index << 16, 0]
}

vector_ops! {
    Pmulld none |dst, src| zip::<u32>(dst, src, u32::wrapping_mul);
    Pmuldq none |dst, src| zip::<i64>(dst, src, |a, b| i64::from(a as i32) * i64::from(b as i32));
    Pminsb none |dst, src| zip::<i8>(dst, src, i8::min);
    Pmaxsb none |dst, src| zip::<i8>(dst, src, i8::max);
    Pminuw none |dst, src| zip::<u16>(dst, src, u16::min);
    Pmaxuw none |dst, src| zip::<u16>(dst, src, u16::max);
    Pminsd none |dst, src| zip::<i32>(dst, src, i32::min);
    Pmaxsd none |dst, src| zip::<i32>(dst, src, i32::max);
    Pminud none |dst, src| zip::<u32>(dst, src, u32::min);
    Pmaxud none |dst, src| zip::<u32>(dst, src, u32::max);
    Pcmpeqq none |dst, src| zip::<i64>(dst, src, |a, b| -i64::from(a == b));
    Pcmpgtq none |dst, src| zip::<i64>(dst, src, |a, b| -i64::from(a > b));
    Packusdw none |dst, src| {
        let (a, b) = (i32::split(dst), i32::split(src));
        u16::join(core::array::from_fn(|i| saturate_unsigned(if i < 4 { a[i] } else { b[i - 4] })))
    };
    Phminposuw none |_dst, src| minimum_position(src);
    Pmovsxbw none |_dst, src| widen!(i8 => i16, src);
    Pmovsxbd none |_dst, src| widen!(i8 => i32, src);
    Pmovsxbq none |_dst, src| widen!(i8 => i64, src);
    Pmovsxwd none |_dst, src| widen!(i16 => i32, src);
    Pmovsxwq none |_dst, src| widen!(i16 => i64, src);
    Pmovsxdq none |_dst, src| widen!(i32 => i64, src);
    Pmovzxbw none |_dst, src| widen!(u8 => u16, src);
    Pmovzxbd none |_dst, src| widen!(u8 => u32, src);
    Pmovzxbq none |_dst, src| widen!(u8 => u64, src);
    Pmovzxwd none |_dst, src| widen!(u16 => u32, src);
    Pmovzxwq none |_dst, src| widen!(u16 => u64, src);
    Pmovzxdq none |_dst, src| widen!(u32 => u64, src);
}

/// Takes lanes of `src` where the immediate has a bit, from bit 0 up, else of `dst`.
macro_rules! blend {
    ($ty:ty, $dst:expr, $src:expr, $imm:expr) => {{
        let (a, b) = (<$ty>::split($dst), <$ty>::split($src));
        <$ty>::join(core::array::from_fn(|i| if $imm >> i & 1 != 0 { b[i] } else { a[i] }))
    }};
}

/// Sums of absolute differences of four bytes of `src` and of four at eight offsets in `dst`.
#[inline(always)]
fn sums_of_differences(dst: V128, src: V128, imm: u8) -> V128 {
    let (a, b) = (bytes(dst), bytes(src));
    let (a0, b0) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    let sum = |i: usize| (0..4).map(|j| u16::from(a[a0 + i + j].abs_diff(b[b0 + j]))).sum();
    u16::join(core::array::from_fn(sum))
}

// INSERTPS with a memory operand ignores the source selection: pass the single as the low part of
// `src` and clear the immediate's bits 7:6.
imm_ops! {
    Pblendw |dst, src, imm| blend!(u16, dst, src, imm);
    Blendps |dst, src, imm| blend!(u32, dst, src, imm);
    Blendpd |dst, src, imm| blend!(u64, dst, src, imm);
    Mpsadbw |dst, src, imm| sums_of_differences(dst, src, imm);
    Insertps |dst, src, imm| {
        let mut lanes = u32::split(dst);
        lanes[usize::from(imm >> 4 & 3)] = u32::split(src)[usize::from(imm >> 6)];
        blend!(u32, u32::join(lanes), [0, 0], imm)
    };
}

/// `pblendvb`: bytes of `src` where the mask's (XMM0's) byte is negative, else of `dst`.
#[inline(always)]
pub fn pblendvb(dst: V128, src: V128, mask: V128) -> V128 {
    let (a, b, m) = (bytes(dst), bytes(src), bytes(mask));
    from_bytes(core::array::from_fn(|i| if m[i] & 0x80 != 0 { b[i] } else { a[i] }))
}

/// `blendvps`: as [`pblendvb`], by singles.
#[inline(always)]
pub fn blendvps(dst: V128, src: V128, mask: V128) -> V128 {
    let (a, b, m) = (u32::split(dst), u32::split(src), i32::split(mask));
    u32::join(core::array::from_fn(|i| if m[i] < 0 { b[i] } else { a[i] }))
}

/// `blendvpd`: as [`pblendvb`], by doubles.
#[inline(always)]
pub fn blendvpd(dst: V128, src: V128, mask: V128) -> V128 {
    core::array::from_fn(|i| if mask[i] >> 63 != 0 { src[i] } else { dst[i] })
}

/// `ptest`: ZF (`dst & src` is zero) and CF (`!dst & src` is zero) in their places in EFLAGS; the
/// other status flags are cleared.
#[inline(always)]
pub fn ptest(dst: V128, src: V128) -> u64 {
    let zf = dst[0] & src[0] | dst[1] & src[1] == 0;
    let cf = !dst[0] & src[0] | !dst[1] & src[1] == 0;
    u64::from(zf) << 6 | u64::from(cf)
}
