//! MMX, with what SSE to SSSE3 added to it. MMX registers are the mantissas of the x87 registers.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_host_fpu::{SseResult, V128, simd, sse as fp};

use super::sse_form::{
    Compute, Double, Float, Gpr, Half, Mm, Mmx, MmxShift, Single, Whole, Xmm, enter_mmx, exact,
    has_mmx, immediate_computations, mmx_ready, plain, plain_store,
};
use super::sse_moves::{LowDouble, LowSingle, Move};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

immediate_computations! {
    /// PSHUFW.
    Pshufw |_dst, src, imm| [simd::pshufw(src[0], imm), 0];
    /// PINSRW.
    Pinsrw |dst, src, imm| [simd::pinsrw_mmx(dst[0], src[0] as u16, imm), 0];
    /// PEXTRW.
    Pextrw |_dst, src, imm| [simd::pextrw_mmx(src[0], imm).into(), 0];
    /// PALIGNR.
    Palignr |dst, src, imm| [simd::palignr_mmx(dst[0], src[0], imm), 0];
}

/// The instructions on two MMX registers that go by the same name as what computes them.
macro_rules! by_name {
    ($i:ident, $context:ident: $($part:ident: $($name:ident)*;)*) => {
        match $i.mnemonic() {
            $($(Mnemonic::$name => {
                Some(plain::<$part, Mm, Mm, Mmx<simd::$name>>($i, $context))
            })*)*
            _ => None,
        }
    };
}

fn lanes(i: &Instruction, context: &Context) -> Option<Selection> {
    by_name! { i, context:
        Double:
            Pxor Por Pand Pandn Pcmpeqb Pcmpeqw Pcmpeqd Pcmpgtb Pcmpgtw Pcmpgtd
            Paddb Paddw Paddd Paddq Paddsb Paddsw Paddusb Paddusw
            Psubb Psubw Psubd Psubq Psubsb Psubsw Psubusb Psubusw
            Pmullw Pmulhw Pmulhuw Pmuludq Pmaddwd Pavgb Pavgw Psadbw
            Pminub Pmaxub Pminsw Pmaxsw Packsswb Packssdw Packuswb
            Punpckhbw Punpckhwd Punpckhdq
            Pabsb Pabsw Pabsd Psignb Psignw Psignd Pshufb Pmulhrsw Pmaddubsw
            Phaddw Phaddd Phaddsw Phsubw Phsubd Phsubsw;
        Single: Punpcklbw Punpcklwd Punpckldq;
    }
}

fn shifts(i: &Instruction, context: &Context) -> Option<Selection> {
    macro_rules! shift {
        ($name:ident) => {
            if i.op_kind(1) == OpKind::Immediate8 {
                plain::<Double, Mm, Mm, MmxShift<simd::$name>>(i, context)
            } else {
                plain::<Double, Mm, Mm, Mmx<simd::$name>>(i, context)
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
        _ => return None,
    })
}

fn moves(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    let stores = i.op_kind(0) == OpKind::Memory;
    let select = match i.code() {
        C::Movd_mm_rm32 => plain::<Single, Mm, Gpr, LowSingle>,
        C::Movq_mm_rm64 => plain::<Double, Mm, Gpr, LowDouble>,
        C::Movd_rm32_mm if stores => plain_store::<Single, Mm>,
        C::Movd_rm32_mm => plain::<Single, Gpr, Mm, LowSingle>,
        C::Movq_rm64_mm | C::Movq_mmm64_mm | C::Movntq_m64_mm if stores => {
            plain_store::<Double, Mm>
        }
        C::Movq_rm64_mm => plain::<Double, Gpr, Mm, LowDouble>,
        C::Movq_mm_mmm64 | C::Movq_mmm64_mm => plain::<Double, Mm, Mm, Move>,
        _ => return None,
    };
    Some(select(i, context))
}

fn with_immediate(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let select = match i.mnemonic() {
        M::Pshufw => plain::<Double, Mm, Mm, Pshufw>,
        M::Pinsrw => plain::<Half, Mm, Gpr, Pinsrw>,
        M::Pextrw => plain::<Half, Gpr, Mm, Pextrw>,
        M::Palignr => plain::<Double, Mm, Mm, Palignr>,
        _ => return None,
    };
    Some(select(i, context))
}

/// Conversions. From memory they have nothing to do with MMX; for CVTPI2PS that is what AMD's
/// processors do, while Intel's manual says it of CVTPI2PD alone.
fn conversions(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let from_memory = i.op_kind(1) == OpKind::Memory;
    let select = match i.mnemonic() {
        M::Cvtpi2ps if from_memory => plain::<Double, Xmm, Xmm, Float<fp::CvtPi2Ps>>,
        M::Cvtpi2ps => plain::<Double, Xmm, Mm, Float<fp::CvtPi2Ps>>,
        M::Cvtps2pi => plain::<Double, Mm, Xmm, Float<fp::CvtPs2Pi>>,
        M::Cvttps2pi => plain::<Double, Mm, Xmm, Float<fp::CvttPs2Pi>>,
        M::Cvtpi2pd if from_memory => plain::<Double, Xmm, Xmm, Float<fp::CvtPi2Pd>>,
        M::Cvtpi2pd => plain::<Double, Xmm, Mm, Float<fp::CvtPi2Pd>>,
        M::Cvtpd2pi => plain::<Whole, Mm, Xmm, Float<fp::CvtPd2Pi>>,
        M::Cvttpd2pi => plain::<Whole, Mm, Xmm, Float<fp::CvttPd2Pi>>,
        _ => return None,
    };
    Some(select(i, context))
}

/// EMMS and FEMMS: the x87 registers are empty again.
pub(super) fn emms(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    mmx_ready(cpu)?;
    enter_mmx(cpu);
    cpu.x87.tags = 0xffff;
    Ok(())
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    if i.mnemonic() == Mnemonic::Emms {
        return Some(Selection::general(context.op(i), emms));
    }
    if !has_mmx(i) {
        return conversions(i, context);
    }
    lanes(i, context)
        .or_else(|| moves(i, context))
        .or_else(|| shifts(i, context))
        .or_else(|| with_immediate(i, context))
        .or_else(|| conversions(i, context))
}
