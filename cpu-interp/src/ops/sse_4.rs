//! SSSE3 and SSE4.1 on XMM registers, PCMPGTQ, and CRC32; SSE4.2's strings are in `sse_strings`.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_host_fpu::sse::{dppd, dpps, roundpd, roundps, roundsd, roundss};
use trivium_host_fpu::{Mxcsr, SseResult, V128, simd};

use super::sse_form::{
    Byte, Compute, Double, Gpr, Half, Part, Place, Simd, SimdImm, Single, Status, Whole, Xmm,
    computations, exact, has_mmx, immediate_computations, load, plain, sse, sse_ready, sse_reg,
    store,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};

computations! {
    /// PTEST, for ZF and CF.
    Ptest |dst, src| [simd::ptest(dst, src), 0];
}

immediate_computations! {
    /// PINSRB.
    Pinsrb |dst, src, imm| simd::pinsrb(dst, src[0] as u8, imm);
    /// PINSRD.
    Pinsrd |dst, src, imm| simd::pinsrd(dst, src[0] as u32, imm);
    /// PINSRQ.
    Pinsrq |dst, src, imm| simd::pinsrq(dst, src[0], imm);
    /// PEXTRB.
    Pextrb |_dst, src, imm| [simd::pextrb(src, imm).into(), 0];
    /// PEXTRW.
    Pextrw |_dst, src, imm| [simd::pextrw(src, imm).into(), 0];
    /// PEXTRD and EXTRACTPS.
    Pextrd |_dst, src, imm| [simd::pextrd(src, imm).into(), 0];
    /// PEXTRQ.
    Pextrq |_dst, src, imm| [simd::pextrq(src, imm), 0];
    /// INSERTPS from memory, where there is no single to be chosen.
    InsertpsMem |dst, src, imm| <simd::Insertps as simd::SimdImmOp>::apply_imm(dst, src, imm & 0x3f);
}

/// Defines floating-point computations with an immediate.
macro_rules! float_computations {
    ($($(#[$doc:meta])* $name:ident |$mxcsr:ident, $dst:ident, $src:ident, $imm:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Compute for $name {
            const FLOAT: bool = true;
            fn quick(op: &Op, dst: V128, src: V128) -> SseResult {
                Self::full(Mxcsr::RESET, op, dst, src)
            }
            fn full($mxcsr: Mxcsr, op: &Op, $dst: V128, $src: V128) -> SseResult {
                let $imm = op.imm as u8;
                $body
            }
        }
    )*};
}

float_computations! {
    /// DPPS.
    Dpps |mxcsr, dst, src, imm| {
        let ([value], flags) = dpps(mxcsr, [dst], [src], imm);
        SseResult { value, flags }
    };
    /// DPPD.
    Dppd |mxcsr, dst, src, imm| dppd(mxcsr, dst, src, imm);
    /// ROUNDPS.
    Roundps |mxcsr, dst, src, imm| roundps(mxcsr, dst, src, imm);
    /// ROUNDPD.
    Roundpd |mxcsr, dst, src, imm| roundpd(mxcsr, dst, src, imm);
    /// ROUNDSS.
    Roundss |mxcsr, dst, src, imm| roundss(mxcsr, dst, src, imm);
    /// ROUNDSD.
    Roundsd |mxcsr, dst, src, imm| roundsd(mxcsr, dst, src, imm);
}

/// The instructions on two vectors that go by the same name as what computes them.
macro_rules! by_name {
    ($i:ident, $context:ident: $($part:ident: $($name:ident)*;)*) => {
        match $i.mnemonic() {
            $($(Mnemonic::$name => {
                Some(sse_reg::<$part, Xmm, Xmm, Simd<simd::$name>>($i, $context))
            })*)*
            _ => None,
        }
    };
}

fn lanes(i: &Instruction, context: &Context) -> Option<Selection> {
    by_name! { i, context:
        Whole:
            Pabsb Pabsw Pabsd Psignb Psignw Psignd Phaddw Phaddd Phaddsw Phsubw Phsubd Phsubsw
            Pmulhrsw Pmaddubsw
            Pmulld Pmuldq Pminsb Pmaxsb Pminuw Pmaxuw Pminsd Pmaxsd Pminud Pmaxud
            Pcmpeqq Pcmpgtq Packusdw Phminposuw;
        Double: Pmovsxbw Pmovsxwd Pmovsxdq Pmovzxbw Pmovzxwd Pmovzxdq;
        Single: Pmovsxbd Pmovsxwq Pmovzxbd Pmovzxwq;
        Half: Pmovsxbq Pmovzxbq;
    }
}

fn with_immediate(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let from_memory = i.op_kind(1) == OpKind::Memory;
    let select = match i.mnemonic() {
        M::Pshufb => sse::<Whole, Xmm, Xmm, Simd<simd::Pshufb>>,
        M::Palignr => sse::<Whole, Xmm, Xmm, SimdImm<simd::Palignr>>,
        M::Pblendw => sse_reg::<Whole, Xmm, Xmm, SimdImm<simd::Pblendw>>,
        M::Blendps => sse_reg::<Whole, Xmm, Xmm, SimdImm<simd::Blendps>>,
        M::Blendpd => sse_reg::<Whole, Xmm, Xmm, SimdImm<simd::Blendpd>>,
        M::Mpsadbw => sse_reg::<Whole, Xmm, Xmm, SimdImm<simd::Mpsadbw>>,
        M::Insertps if from_memory => plain::<Single, Xmm, Xmm, InsertpsMem>,
        M::Insertps => plain::<Single, Xmm, Xmm, SimdImm<simd::Insertps>>,
        M::Ptest => sse_reg::<Whole, Status, Xmm, Ptest>,
        M::Pinsrb => sse_reg::<Byte, Xmm, Gpr, Pinsrb>,
        M::Pinsrd => sse_reg::<Single, Xmm, Gpr, Pinsrd>,
        M::Pinsrq => sse_reg::<Double, Xmm, Gpr, Pinsrq>,
        M::Dpps => plain::<Whole, Xmm, Xmm, Dpps>,
        M::Dppd => plain::<Whole, Xmm, Xmm, Dppd>,
        _ => return None,
    };
    Some(select(i, context))
}

fn rounding(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let select = match i.mnemonic() {
        M::Roundps => plain::<Whole, Xmm, Xmm, Roundps>,
        M::Roundpd => plain::<Whole, Xmm, Xmm, Roundpd>,
        M::Roundss => plain::<Single, Xmm, Xmm, Roundss>,
        M::Roundsd => plain::<Double, Xmm, Xmm, Roundsd>,
        _ => return None,
    };
    Some(select(i, context))
}

/// Moves a lane to a general register or memory.
fn extract<P: Part, C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    sse_ready(cpu)?;
    let lane = C::quick(op, [0; 2], Xmm::get(cpu, op.src)).value;
    if op.has_mem() {
        return store::<P>(cpu, op, lane);
    }
    Gpr::put(cpu, op.dst, lane);
    Ok(())
}

/// Blends by XMM0.
fn blend(cpu: &mut Cpu, op: &Op, choose: fn(V128, V128, V128) -> V128) -> Result<(), Stop> {
    sse_ready(cpu)?;
    let src = if op.has_mem() { load::<Whole>(cpu, op)? } else { Xmm::get(cpu, op.src) };
    let value = choose(Xmm::get(cpu, op.dst), src, Xmm::get(cpu, 0));
    Xmm::put(cpu, op.dst, value);
    Ok(())
}

fn pblendvb(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    blend(cpu, op, simd::pblendvb)
}

fn blendvps(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    blend(cpu, op, simd::blendvps)
}

fn blendvpd(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    blend(cpu, op, simd::blendvpd)
}

/// The polynomial of CRC32 (iSCSI's), bit-reversed.
const CRC32C: u32 = 0x82f6_3b78;

/// CRC32: adds `N` bytes of the source to the remainder in the destination.
fn crc32<P: Part, const N: usize>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let src =
        if op.has_mem() { load::<P>(cpu, op)?[0] } else { cpu.reg(op.src, op.src_shift, N as u8) };
    let mut crc = cpu.regs[usize::from(op.dst)] as u32;
    for byte in src.to_le_bytes().into_iter().take(N) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { CRC32C } else { 0 };
        }
    }
    cpu.regs[usize::from(op.dst)] = crc.into();
    Ok(())
}

fn general(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    let function: GeneralFn = match i.code() {
        C::Pextrb_r32m8_xmm_imm8 | C::Pextrb_r64m8_xmm_imm8 => extract::<Byte, Pextrb>,
        C::Pextrw_r32m16_xmm_imm8 | C::Pextrw_r64m16_xmm_imm8 => extract::<Half, Pextrw>,
        C::Pextrd_rm32_xmm_imm8 => extract::<Single, Pextrd>,
        C::Pextrq_rm64_xmm_imm8 => extract::<Double, Pextrq>,
        C::Extractps_rm32_xmm_imm8 | C::Extractps_r64m32_xmm_imm8 => extract::<Single, Pextrd>,
        C::Pblendvb_xmm_xmmm128 => pblendvb,
        C::Blendvps_xmm_xmmm128 => blendvps,
        C::Blendvpd_xmm_xmmm128 => blendvpd,
        C::Crc32_r32_rm8 | C::Crc32_r64_rm8 => crc32::<Byte, 1>,
        C::Crc32_r32_rm16 => crc32::<Half, 2>,
        C::Crc32_r32_rm32 => crc32::<Single, 4>,
        C::Crc32_r64_rm64 => crc32::<Double, 8>,
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    if has_mmx(i) {
        return None;
    }
    general(i, context)
        .or_else(|| lanes(i, context))
        .or_else(|| with_immediate(i, context))
        .or_else(|| rounding(i, context))
}
