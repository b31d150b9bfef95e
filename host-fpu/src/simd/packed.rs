//! MMX, SSE and SSE2 instructions that work lane by lane, and the packs and unpacks.

use super::{SimdOp, mmx_form, to_m128i, to_v128};
use crate::V128;
use core::arch::x86_64::*;

/// Defines instructions: name, intrinsic of two vectors, and how the MMX form follows.
macro_rules! packed_ops {
    ($($name:ident $intrinsic:ident $mmx:ident $($of:ident)?;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl SimdOp for $name {
            #[inline(always)]
            fn apply(dst: V128, src: V128) -> V128 {
                // SAFETY: the intrinsic needs SSE2, which every x86-64 host has.
                to_v128(unsafe { $intrinsic(to_m128i(dst), to_m128i(src)) })
            }
        }
        mmx_form!($mmx $($of)? $name);
    )*};
}

packed_ops! {
    Paddb _mm_add_epi8 low; Paddw _mm_add_epi16 low; Paddd _mm_add_epi32 low;
    Paddq _mm_add_epi64 low;
    Paddsb _mm_adds_epi8 low; Paddsw _mm_adds_epi16 low;
    Paddusb _mm_adds_epu8 low; Paddusw _mm_adds_epu16 low;
    Psubb _mm_sub_epi8 low; Psubw _mm_sub_epi16 low; Psubd _mm_sub_epi32 low;
    Psubq _mm_sub_epi64 low;
    Psubsb _mm_subs_epi8 low; Psubsw _mm_subs_epi16 low;
    Psubusb _mm_subs_epu8 low; Psubusw _mm_subs_epu16 low;
    Pmullw _mm_mullo_epi16 low; Pmulhw _mm_mulhi_epi16 low; Pmulhuw _mm_mulhi_epu16 low;
    Pmuludq _mm_mul_epu32 low; Pmaddwd _mm_madd_epi16 low;
    Pavgb _mm_avg_epu8 low; Pavgw _mm_avg_epu16 low; Psadbw _mm_sad_epu8 low;
    Pminub _mm_min_epu8 low; Pmaxub _mm_max_epu8 low;
    Pminsw _mm_min_epi16 low; Pmaxsw _mm_max_epi16 low;
    Pcmpeqb _mm_cmpeq_epi8 low; Pcmpeqw _mm_cmpeq_epi16 low; Pcmpeqd _mm_cmpeq_epi32 low;
    Pcmpgtb _mm_cmpgt_epi8 low; Pcmpgtw _mm_cmpgt_epi16 low; Pcmpgtd _mm_cmpgt_epi32 low;
    Pand _mm_and_si128 low; Pandn _mm_andnot_si128 low; Por _mm_or_si128 low;
    Pxor _mm_xor_si128 low;
    Psllw _mm_sll_epi16 low; Pslld _mm_sll_epi32 low; Psllq _mm_sll_epi64 low;
    Psrlw _mm_srl_epi16 low; Psrld _mm_srl_epi32 low; Psrlq _mm_srl_epi64 low;
    Psraw _mm_sra_epi16 low; Psrad _mm_sra_epi32 low;
    Packsswb _mm_packs_epi16 joined; Packssdw _mm_packs_epi32 joined;
    Packuswb _mm_packus_epi16 joined;
    Punpcklbw _mm_unpacklo_epi8 low; Punpcklwd _mm_unpacklo_epi16 low;
    Punpckldq _mm_unpacklo_epi32 low; Punpcklqdq _mm_unpacklo_epi64 none;
    Punpckhbw _mm_unpackhi_epi8 high_of Punpcklbw;
    Punpckhwd _mm_unpackhi_epi16 high_of Punpcklwd;
    Punpckhdq _mm_unpackhi_epi32 high_of Punpckldq; Punpckhqdq _mm_unpackhi_epi64 none;
}

/// Shifts by an immediate are the shifts by a register whose low quadword holds it.
#[inline(always)]
pub fn shift_imm<Op: SimdOp>(dst: V128, imm: u8) -> V128 {
    Op::apply(dst, [u64::from(imm), 0])
}

/// `pslldq`: shifts left by bytes.
#[inline(always)]
pub fn pslldq(dst: V128, imm: u8) -> V128 {
    byte_shift(dst, imm, u128::checked_shl)
}

/// `psrldq`: shifts right by bytes.
#[inline(always)]
pub fn psrldq(dst: V128, imm: u8) -> V128 {
    byte_shift(dst, imm, u128::checked_shr)
}

#[inline(always)]
fn byte_shift(dst: V128, imm: u8, shift: impl Fn(u128, u32) -> Option<u128>) -> V128 {
    let v = shift(super::lanes::whole(dst), u32::from(imm) * 8).unwrap_or(0);
    [v as u64, (v >> 64) as u64]
}
