//! SSE to SSE3 floating point: arithmetic, compares and conversions, and MXCSR.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_host_fpu::sse as fp;

use super::sse_form::{Double, Float, Gpr, Single, Status, Whole, Xmm, sse, sse_ready, sse_reg};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

/// The instructions from XMM registers or memory to XMM registers, with what they load.
macro_rules! vectors {
    ($i:ident, $context:ident: $($mnemonic:ident $part:ident $op:ident)*) => {
        match $i.mnemonic() {
            $(Mnemonic::$mnemonic => {
                Some(sse::<$part, Xmm, Xmm, Float<fp::$op>>($i, $context))
            })*
            _ => None,
        }
    };
}

fn vectors(i: &Instruction, context: &Context) -> Option<Selection> {
    vectors! { i, context:
        Addps Whole AddPs Addpd Whole AddPd Addss Single AddSs Addsd Double AddSd
        Subps Whole SubPs Subpd Whole SubPd Subss Single SubSs Subsd Double SubSd
        Mulps Whole MulPs Mulpd Whole MulPd Mulss Single MulSs Mulsd Double MulSd
        Divps Whole DivPs Divpd Whole DivPd Divss Single DivSs Divsd Double DivSd
        Minps Whole MinPs Minpd Whole MinPd Minss Single MinSs Minsd Double MinSd
        Maxps Whole MaxPs Maxpd Whole MaxPd Maxss Single MaxSs Maxsd Double MaxSd
        Sqrtps Whole SqrtPs Sqrtpd Whole SqrtPd Sqrtss Single SqrtSs Sqrtsd Double SqrtSd
        Cvtps2pd Double CvtPs2Pd Cvtpd2ps Whole CvtPd2Ps
        Cvtss2sd Single CvtSs2Sd Cvtsd2ss Double CvtSd2Ss
        Cvtdq2ps Whole CvtDq2Ps Cvtps2dq Whole CvtPs2Dq Cvttps2dq Whole CvttPs2Dq
        Cvtdq2pd Double CvtDq2Pd Cvtpd2dq Whole CvtPd2Dq Cvttpd2dq Whole CvttPd2Dq
        Haddps Whole HaddPs Haddpd Whole HaddPd Hsubps Whole HsubPs Hsubpd Whole HsubPd
        Addsubps Whole AddSubPs Addsubpd Whole AddSubPd
    }
}

/// COMISx and UCOMISx, and the conversions from and to general registers.
fn scalars(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    let select = match i.code() {
        C::Comiss_xmm_xmmm32 => sse::<Single, Status, Xmm, Float<fp::ComiSs>>,
        C::Comisd_xmm_xmmm64 => sse::<Double, Status, Xmm, Float<fp::ComiSd>>,
        C::Ucomiss_xmm_xmmm32 => sse::<Single, Status, Xmm, Float<fp::UcomiSs>>,
        C::Ucomisd_xmm_xmmm64 => sse::<Double, Status, Xmm, Float<fp::UcomiSd>>,
        C::Cvtsi2ss_xmm_rm32 => sse::<Single, Xmm, Gpr, Float<fp::CvtSi2Ss32>>,
        C::Cvtsi2ss_xmm_rm64 => sse::<Double, Xmm, Gpr, Float<fp::CvtSi2Ss64>>,
        C::Cvtsi2sd_xmm_rm32 => sse::<Single, Xmm, Gpr, Float<fp::CvtSi2Sd32>>,
        C::Cvtsi2sd_xmm_rm64 => sse::<Double, Xmm, Gpr, Float<fp::CvtSi2Sd64>>,
        C::Cvtss2si_r32_xmmm32 => sse_reg::<Single, Gpr, Xmm, Float<fp::CvtSs2Si32>>,
        C::Cvtss2si_r64_xmmm32 => sse_reg::<Single, Gpr, Xmm, Float<fp::CvtSs2Si64>>,
        C::Cvtsd2si_r32_xmmm64 => sse_reg::<Double, Gpr, Xmm, Float<fp::CvtSd2Si32>>,
        C::Cvtsd2si_r64_xmmm64 => sse_reg::<Double, Gpr, Xmm, Float<fp::CvtSd2Si64>>,
        C::Cvttss2si_r32_xmmm32 => sse::<Single, Gpr, Xmm, Float<fp::CvttSs2Si32>>,
        C::Cvttss2si_r64_xmmm32 => sse::<Single, Gpr, Xmm, Float<fp::CvttSs2Si64>>,
        C::Cvttsd2si_r32_xmmm64 => sse::<Double, Gpr, Xmm, Float<fp::CvttSd2Si32>>,
        C::Cvttsd2si_r64_xmmm64 => sse::<Double, Gpr, Xmm, Float<fp::CvttSd2Si64>>,
        _ => return None,
    };
    Some(select(i, context))
}

/// CMPPS, CMPPD, CMPSS, CMPSD. Of the predicate the low three bits count.
fn compares(i: &Instruction, context: &Context) -> Option<Selection> {
    macro_rules! by_predicate {
        ($part:ident $op:ident) => {
            match i.immediate8() & 7 {
                0 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<0>>>,
                1 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<1>>>,
                2 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<2>>>,
                3 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<3>>>,
                4 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<4>>>,
                5 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<5>>>,
                6 => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<6>>>,
                _ => sse_reg::<$part, Xmm, Xmm, Float<fp::$op<7>>>,
            }
        };
    }
    let select = match i.code() {
        Code::Cmpps_xmm_xmmm128_imm8 => by_predicate!(Whole CmpPs),
        Code::Cmppd_xmm_xmmm128_imm8 => by_predicate!(Whole CmpPd),
        Code::Cmpss_xmm_xmmm32_imm8 => by_predicate!(Single CmpSs),
        Code::Cmpsd_xmm_xmmm64_imm8 => by_predicate!(Double CmpSd),
        _ => return None,
    };
    Some(select(i, context))
}

/// LDMXCSR.
pub(super) fn load_mxcsr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    sse_ready(cpu)?;
    let value: u32 = cpu.load_operand(op)?;
    if value & !cpu.model.mxcsr_mask() != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.vector.mxcsr = value;
    Ok(())
}

/// STMXCSR.
pub(super) fn store_mxcsr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    sse_ready(cpu)?;
    cpu.store_operand(op, cpu.vector.mxcsr)
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    match i.mnemonic() {
        Mnemonic::Ldmxcsr => Some(Selection::general(context.op(i), load_mxcsr)),
        Mnemonic::Stmxcsr => Some(Selection::general(context.op(i), store_mxcsr)),
        _ => vectors(i, context).or_else(|| scalars(i, context)).or_else(|| compares(i, context)),
    }
}
