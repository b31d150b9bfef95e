//! Packed integers, logic and shuffles on XMM registers: SSE2, and what later extensions add.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_host_fpu::{SseResult, V128, simd};

use super::sse_form::{
    Compute, Gpr, Half, LowHalf, Shift, Simd, SimdImm, Single, Whole, Xmm, exact, has_mmx,
    immediate_computations, sse, sse_reg,
};
use crate::decode::{Context, Selection};
use crate::op::Op;

immediate_computations! {
    /// PSLLDQ.
    Pslldq |dst, _src, imm| simd::pslldq(dst, imm);
    /// PSRLDQ.
    Psrldq |dst, _src, imm| simd::psrldq(dst, imm);
    /// PINSRW.
    Pinsrw |dst, src, imm| simd::pinsrw(dst, src[0] as u16, imm);
    /// PEXTRW.
    Pextrw |_dst, src, imm| [simd::pextrw(src, imm).into(), 0];
}

/// The instructions on two vectors that go by the same name as what computes them.
macro_rules! by_name {
    ($i:ident, $context:ident: $($part:ident: $($name:ident)*;)*) => {
        match $i.mnemonic() {
            $($(Mnemonic::$name => Some(sse::<$part, Xmm, Xmm, Simd<simd::$name>>($i, $context)),)*)*
            _ => None,
        }
    };
}

fn lanes(i: &Instruction, context: &Context) -> Option<Selection> {
    by_name! { i, context:
        Whole: Pxor Por Pand Pandn Pcmpeqb Pcmpeqw Pcmpeqd Pcmpgtb Pcmpgtw Pcmpgtd
        Paddb Paddw Paddd Paddq Paddsb Paddsw Paddusb Paddusw
        Psubb Psubw Psubd Psubq Psubsb Psubsw Psubusb Psubusw
        Pmullw Pmulhw Pmulhuw Pmuludq Pmaddwd Pavgb Pavgw Psadbw
        Pminub Pmaxub Pminsw Pmaxsw Packsswb Packssdw Packuswb
        Punpckhbw Punpckhwd Punpckhdq Punpckhqdq;
        LowHalf: Punpcklbw Punpcklwd Punpckldq Punpcklqdq;
    }
}

/// The floating-point instructions that do what integer ones do.
fn bitwise(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let select = match i.mnemonic() {
        M::Andps | M::Andpd => sse::<Whole, Xmm, Xmm, Simd<simd::Pand>>,
        M::Andnps | M::Andnpd => sse::<Whole, Xmm, Xmm, Simd<simd::Pandn>>,
        M::Orps | M::Orpd => sse::<Whole, Xmm, Xmm, Simd<simd::Por>>,
        M::Xorps | M::Xorpd => sse::<Whole, Xmm, Xmm, Simd<simd::Pxor>>,
        M::Unpcklps => sse::<LowHalf, Xmm, Xmm, Simd<simd::Punpckldq>>,
        M::Unpckhps => sse::<Whole, Xmm, Xmm, Simd<simd::Punpckhdq>>,
        M::Unpcklpd => sse::<LowHalf, Xmm, Xmm, Simd<simd::Punpcklqdq>>,
        M::Unpckhpd => sse::<Whole, Xmm, Xmm, Simd<simd::Punpckhqdq>>,
        M::Rcpps => sse_reg::<Whole, Xmm, Xmm, Simd<simd::RcpPs>>,
        M::Rcpss => sse_reg::<Single, Xmm, Xmm, Simd<simd::RcpSs>>,
        M::Rsqrtps => sse_reg::<Whole, Xmm, Xmm, Simd<simd::RsqrtPs>>,
        M::Rsqrtss => sse_reg::<Single, Xmm, Xmm, Simd<simd::RsqrtSs>>,
        _ => return None,
    };
    Some(select(i, context))
}

fn shifts(i: &Instruction, context: &Context) -> Option<Selection> {
    macro_rules! shift {
        ($name:ident) => {
            if i.op_kind(1) == OpKind::Immediate8 {
                sse_reg::<Whole, Xmm, Xmm, Shift<simd::$name>>(i, context)
            } else {
                sse_reg::<LowHalf, Xmm, Xmm, Simd<simd::$name>>(i, context)
            }
        };
    }
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Psllw => shift!(Psllw),
        M::Pslld => shift!(Pslld),
        M::Psllq => shift!(Psllq),
        M::Psrlw => shift!(Psrlw),
        M::Psrld => shift!(Psrld),
        M::Psrlq => shift!(Psrlq),
        M::Psraw => shift!(Psraw),
        M::Psrad => shift!(Psrad),
        M::Pslldq => sse_reg::<Whole, Xmm, Xmm, Pslldq>(i, context),
        M::Psrldq => sse_reg::<Whole, Xmm, Xmm, Psrldq>(i, context),
        _ => return None,
    })
}

fn shuffles(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Pshufd => sse::<Whole, Xmm, Xmm, SimdImm<simd::Pshufd>>(i, context),
        M::Pshuflw => sse::<Whole, Xmm, Xmm, SimdImm<simd::Pshuflw>>(i, context),
        M::Pshufhw => sse::<Whole, Xmm, Xmm, SimdImm<simd::Pshufhw>>(i, context),
        M::Shufps => sse::<Whole, Xmm, Xmm, SimdImm<simd::Shufps>>(i, context),
        M::Shufpd => sse::<Whole, Xmm, Xmm, SimdImm<simd::Shufpd>>(i, context),
        M::Pinsrw => sse_reg::<Half, Xmm, Gpr, Pinsrw>(i, context),
        M::Pextrw if i.op_kind(0) == OpKind::Register => {
            sse_reg::<Half, Gpr, Xmm, Pextrw>(i, context)
        }
        _ => return None,
    })
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    if has_mmx(i) {
        return None;
    }
    lanes(i, context)
        .or_else(|| bitwise(i, context))
        .or_else(|| shuffles(i, context))
        .or_else(|| shifts(i, context))
}
