//! VEX floating point: arithmetic, conversions, rounding, dot products.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_host_fpu::sse::dpps;
use trivium_host_fpu::{Mxcsr, SseOp, SseResult, sse as fp};

use super::form::{
    from_general, general, get, is_wide, load_part, load_vector, put, ready, three, to_general, two,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};
use crate::ops::sse_4::{Dppd, Dpps, Roundpd, Roundps, Roundsd, Roundss};
use crate::ops::sse_float;
use crate::ops::sse_form::{Double, Float, Gpr, Simd, Single, Status, Whole, raise_float};

/// The instructions with two sources: mnemonic, what memory holds, what is computed.
macro_rules! binary {
    ($i:ident, $context:ident: $($mnemonic:ident $part:ident $op:ident)*) => {
        match $i.mnemonic() {
            $(Mnemonic::$mnemonic => {
                Some(general($i, $context, three::<$part, Float<fp::$op>>))
            })*
            _ => None,
        }
    };
}

fn arithmetic(i: &Instruction, context: &Context) -> Option<Selection> {
    binary! { i, context:
        Vaddps Whole AddPs Vaddpd Whole AddPd Vaddss Single AddSs Vaddsd Double AddSd
        Vsubps Whole SubPs Vsubpd Whole SubPd Vsubss Single SubSs Vsubsd Double SubSd
        Vmulps Whole MulPs Vmulpd Whole MulPd Vmulss Single MulSs Vmulsd Double MulSd
        Vdivps Whole DivPs Vdivpd Whole DivPd Vdivss Single DivSs Vdivsd Double DivSd
        Vminps Whole MinPs Vminpd Whole MinPd Vminss Single MinSs Vminsd Double MinSd
        Vmaxps Whole MaxPs Vmaxpd Whole MaxPd Vmaxss Single MaxSs Vmaxsd Double MaxSd
        Vsqrtss Single SqrtSs Vsqrtsd Double SqrtSd
        Vcvtss2sd Single CvtSs2Sd Vcvtsd2ss Double CvtSd2Ss
        Vhaddps Whole HaddPs Vhaddpd Whole HaddPd Vhsubps Whole HsubPs Vhsubpd Whole HsubPd
        Vaddsubps Whole AddSubPs Vaddsubpd Whole AddSubPd
    }
}

/// Those with one source, and those that SSE4.1 brought.
fn others(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    use trivium_host_fpu::simd;
    Some(general(
        i,
        context,
        match i.mnemonic() {
            M::Vsqrtps => two::<Whole, Float<fp::SqrtPs>>,
            M::Vsqrtpd => two::<Whole, Float<fp::SqrtPd>>,
            M::Vcvtdq2ps => two::<Whole, Float<fp::CvtDq2Ps>>,
            M::Vcvtps2dq => two::<Whole, Float<fp::CvtPs2Dq>>,
            M::Vcvttps2dq => two::<Whole, Float<fp::CvttPs2Dq>>,
            M::Vcvtps2pd => widen::<fp::CvtPs2Pd>,
            M::Vcvtdq2pd => widen::<fp::CvtDq2Pd>,
            M::Vcvtpd2ps => narrow::<fp::CvtPd2Ps>,
            M::Vcvtpd2dq => narrow::<fp::CvtPd2Dq>,
            M::Vcvttpd2dq => narrow::<fp::CvttPd2Dq>,
            M::Vroundps => two::<Whole, Roundps>,
            M::Vroundpd => two::<Whole, Roundpd>,
            M::Vroundss => three::<Single, Roundss>,
            M::Vroundsd => three::<Double, Roundsd>,
            M::Vdpps => dot_product,
            M::Vdppd => three::<Whole, Dppd>,
            M::Vrcpps => two::<Whole, Simd<simd::RcpPs>>,
            M::Vrcpss => three::<Single, Simd<simd::RcpSs>>,
            M::Vrsqrtps => two::<Whole, Simd<simd::RsqrtPs>>,
            M::Vrsqrtss => three::<Single, Simd<simd::RsqrtSs>>,
            M::Vldmxcsr => load_mxcsr,
            M::Vstmxcsr => store_mxcsr,
            _ => return None,
        },
    ))
}

fn load_mxcsr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    sse_float::load_mxcsr(cpu, op)
}

fn store_mxcsr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    sse_float::store_mxcsr(cpu, op)
}

/// Conversions from and to general registers, and compares that set flags.
fn scalars(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    Some(general(
        i,
        context,
        match i.code() {
            C::VEX_Vcomiss_xmm_xmmm32 => to_general::<Single, Status, Float<fp::ComiSs>>,
            C::VEX_Vcomisd_xmm_xmmm64 => to_general::<Double, Status, Float<fp::ComiSd>>,
            C::VEX_Vucomiss_xmm_xmmm32 => to_general::<Single, Status, Float<fp::UcomiSs>>,
            C::VEX_Vucomisd_xmm_xmmm64 => to_general::<Double, Status, Float<fp::UcomiSd>>,
            C::VEX_Vcvtsi2ss_xmm_xmm_rm32 => from_general::<Single, Float<fp::CvtSi2Ss32>>,
            C::VEX_Vcvtsi2ss_xmm_xmm_rm64 => from_general::<Double, Float<fp::CvtSi2Ss64>>,
            C::VEX_Vcvtsi2sd_xmm_xmm_rm32 => from_general::<Single, Float<fp::CvtSi2Sd32>>,
            C::VEX_Vcvtsi2sd_xmm_xmm_rm64 => from_general::<Double, Float<fp::CvtSi2Sd64>>,
            C::VEX_Vcvtss2si_r32_xmmm32 => to_general::<Single, Gpr, Float<fp::CvtSs2Si32>>,
            C::VEX_Vcvtss2si_r64_xmmm32 => to_general::<Single, Gpr, Float<fp::CvtSs2Si64>>,
            C::VEX_Vcvtsd2si_r32_xmmm64 => to_general::<Double, Gpr, Float<fp::CvtSd2Si32>>,
            C::VEX_Vcvtsd2si_r64_xmmm64 => to_general::<Double, Gpr, Float<fp::CvtSd2Si64>>,
            C::VEX_Vcvttss2si_r32_xmmm32 => to_general::<Single, Gpr, Float<fp::CvttSs2Si32>>,
            C::VEX_Vcvttss2si_r64_xmmm32 => to_general::<Single, Gpr, Float<fp::CvttSs2Si64>>,
            C::VEX_Vcvttsd2si_r32_xmmm64 => to_general::<Double, Gpr, Float<fp::CvttSd2Si32>>,
            C::VEX_Vcvttsd2si_r64_xmmm64 => to_general::<Double, Gpr, Float<fp::CvttSd2Si64>>,
            _ => return None,
        },
    ))
}

/// VDPPS, whose halves take each step together.
fn dot_product(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !is_wide(op) {
        return three::<Whole, Dpps>(cpu, op);
    }
    ready(cpu)?;
    let b = match op.has_mem() {
        true => load_vector(cpu, op, 32)?,
        false => get(cpu, op.aux2),
    };
    let mxcsr = Mxcsr(cpu.vector.mxcsr);
    let (value, flags) = dpps(mxcsr, get(cpu, op.src), b, op.imm as u8);
    raise_float(cpu, flags)?;
    put(cpu, op.dst, value);
    Ok(())
}

/// Two or four narrow lanes become as many wide ones.
fn widen<O: SseOp>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let src = match (op.has_mem(), is_wide(op)) {
        (true, true) => load_vector(cpu, op, 16)?[0],
        (true, false) => load_part::<Double>(cpu, op)?,
        (false, _) => get(cpu, op.src)[0],
    };
    let mxcsr = Mxcsr(cpu.vector.mxcsr);
    let low = O::apply(mxcsr, [0; 2], [src[0], 0]);
    let mut value = [low.value, [0; 2]];
    let mut flags = low.flags;
    if is_wide(op) {
        let high = O::apply(mxcsr, [0; 2], [src[1], 0]);
        (value[1], flags) = (high.value, flags | high.flags);
    }
    raise_float(cpu, flags)?;
    put(cpu, op.dst, value);
    Ok(())
}

/// For [`Op::aux`] of the narrowing conversions: the source has 256 bits.
const WIDE_SOURCE: u8 = 1;

/// Two or four wide lanes become as many narrow ones.
fn narrow<O: SseOp>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let wide = op.aux == WIDE_SOURCE;
    let src = match op.has_mem() {
        true => load_vector(cpu, op, if wide { 32 } else { 16 })?,
        false => get(cpu, op.src),
    };
    let mxcsr = Mxcsr(cpu.vector.mxcsr);
    let low = O::apply(mxcsr, [0; 2], src[0]);
    let high = match wide {
        true => O::apply(mxcsr, [0; 2], src[1]),
        false => SseResult { value: [0; 2], flags: 0 },
    };
    raise_float(cpu, low.flags | high.flags)?;
    put(cpu, op.dst, [[low.value[0], high.value[0]], [0; 2]]);
    Ok(())
}

/// Sets [`WIDE_SOURCE`], which the size of the destination does not tell.
fn mark_source(i: &Instruction, selection: &mut Selection) {
    use Code as C;
    let wide = matches!(
        i.code(),
        C::VEX_Vcvtpd2ps_xmm_ymmm256 | C::VEX_Vcvtpd2dq_xmm_ymmm256 | C::VEX_Vcvttpd2dq_xmm_ymmm256
    );
    if wide {
        selection.op.aux = WIDE_SOURCE;
    }
}

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut selection =
        arithmetic(i, context).or_else(|| others(i, context)).or_else(|| scalars(i, context))?;
    mark_source(i, &mut selection);
    Some(selection)
}
