//! VEX integers and logic, lane by lane.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_host_fpu::{SseResult, V128, simd};

use super::form::{
    extract, from_general, general, get, is_wide, load_part, load_vector, put, ready, three, two,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};
use crate::ops::sse_4::{
    InsertpsMem, Pextrb, Pextrd, Pextrq, Pextrw as PextrwMem, Pinsrb, Pinsrd, Pinsrq,
};
use crate::ops::sse_form::{
    Byte, Compute, Double, Half, Part, Shift, Simd, SimdImm, Single, Whole, computations, exact,
};
use crate::ops::sse_int::{Pinsrw, Pslldq, Psrldq};

/// The instructions with two sources: mnemonic, and what SSE's computes.
macro_rules! binary {
    ($i:ident, $context:ident: $($mnemonic:ident $op:ident)*) => {
        match $i.mnemonic() {
            $(Mnemonic::$mnemonic => {
                Some(general($i, $context, three::<Whole, Simd<simd::$op>>))
            })*
            _ => None,
        }
    };
}

fn lanes(i: &Instruction, context: &Context) -> Option<Selection> {
    binary! { i, context:
        Vpxor Pxor Vpor Por Vpand Pand Vpandn Pandn
        Vxorps Pxor Vxorpd Pxor Vorps Por Vorpd Por
        Vandps Pand Vandpd Pand Vandnps Pandn Vandnpd Pandn
        Vunpcklps Punpckldq Vunpckhps Punpckhdq Vunpcklpd Punpcklqdq Vunpckhpd Punpckhqdq
        Vpcmpeqb Pcmpeqb Vpcmpeqw Pcmpeqw Vpcmpeqd Pcmpeqd Vpcmpeqq Pcmpeqq
        Vpcmpgtb Pcmpgtb Vpcmpgtw Pcmpgtw Vpcmpgtd Pcmpgtd Vpcmpgtq Pcmpgtq
        Vpaddb Paddb Vpaddw Paddw Vpaddd Paddd Vpaddq Paddq
        Vpaddsb Paddsb Vpaddsw Paddsw Vpaddusb Paddusb Vpaddusw Paddusw
        Vpsubb Psubb Vpsubw Psubw Vpsubd Psubd Vpsubq Psubq
        Vpsubsb Psubsb Vpsubsw Psubsw Vpsubusb Psubusb Vpsubusw Psubusw
        Vpmullw Pmullw Vpmulhw Pmulhw Vpmulhuw Pmulhuw Vpmuludq Pmuludq Vpmuldq Pmuldq
        Vpmulld Pmulld Vpmulhrsw Pmulhrsw Vpmaddwd Pmaddwd Vpmaddubsw Pmaddubsw
        Vpavgb Pavgb Vpavgw Pavgw Vpsadbw Psadbw
        Vpminub Pminub Vpmaxub Pmaxub Vpminsw Pminsw Vpmaxsw Pmaxsw Vpminsb Pminsb Vpmaxsb Pmaxsb
        Vpminuw Pminuw Vpmaxuw Pmaxuw Vpminsd Pminsd Vpmaxsd Pmaxsd Vpminud Pminud Vpmaxud Pmaxud
        Vpacksswb Packsswb Vpackssdw Packssdw Vpackuswb Packuswb Vpackusdw Packusdw
        Vpunpcklbw Punpcklbw Vpunpcklwd Punpcklwd Vpunpckldq Punpckldq Vpunpcklqdq Punpcklqdq
        Vpunpckhbw Punpckhbw Vpunpckhwd Punpckhwd Vpunpckhdq Punpckhdq Vpunpckhqdq Punpckhqdq
        Vpsignb Psignb Vpsignw Psignw Vpsignd Psignd Vpshufb Pshufb
        Vphaddw Phaddw Vphaddd Phaddd Vphaddsw Phaddsw
        Vphsubw Phsubw Vphsubd Phsubd Vphsubsw Phsubsw
    }
}

/// Those with one source or an immediate.
fn others(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let from_memory = i.op_count() > 2 && i.op_kind(2) == OpKind::Memory;
    Some(general(
        i,
        context,
        match i.mnemonic() {
            M::Vpabsb => two::<Whole, Simd<simd::Pabsb>>,
            M::Vpabsw => two::<Whole, Simd<simd::Pabsw>>,
            M::Vpabsd => two::<Whole, Simd<simd::Pabsd>>,
            M::Vphminposuw => two::<Whole, Simd<simd::Phminposuw>>,
            M::Vpshufd => two::<Whole, SimdImm<simd::Pshufd>>,
            M::Vpshuflw => two::<Whole, SimdImm<simd::Pshuflw>>,
            M::Vpshufhw => two::<Whole, SimdImm<simd::Pshufhw>>,
            M::Vshufps => three::<Whole, SimdImm<simd::Shufps>>,
            M::Vshufpd => shufpd,
            M::Vpalignr => three::<Whole, SimdImm<simd::Palignr>>,
            M::Vpblendw => three::<Whole, SimdImm<simd::Pblendw>>,
            M::Vmpsadbw => mpsadbw,
            M::Vinsertps if from_memory => three::<Single, InsertpsMem>,
            M::Vinsertps => three::<Single, SimdImm<simd::Insertps>>,
            M::Vpslldq => two::<Whole, Pslldq>,
            M::Vpsrldq => two::<Whole, Psrldq>,
            M::Vpinsrb => from_general::<Byte, Pinsrb>,
            M::Vpinsrw => from_general::<Half, Pinsrw>,
            M::Vpinsrd => from_general::<Single, Pinsrd>,
            M::Vpinsrq => from_general::<Double, Pinsrq>,
            M::Vpextrb => extract::<Byte, Pextrb>,
            M::Vpextrw => extract::<Half, PextrwMem>,
            M::Vpextrd | M::Vextractps => extract::<Single, Pextrd>,
            M::Vpextrq => extract::<Double, Pextrq>,
            M::Vpmovmskb => move_mask,
            _ => return None,
        },
    ))
}

/// The immediate's bits 2 and 3 are those of the upper half.
fn by_half(cpu: &mut Cpu, op: &Op, f: fn(V128, V128, u8) -> V128, shift: u8) -> Result<(), Stop> {
    ready(cpu)?;
    let a = get(cpu, op.src);
    let b = match op.has_mem() {
        true => load_vector(cpu, op, if is_wide(op) { 32 } else { 16 })?,
        false => get(cpu, op.aux2),
    };
    let imm = op.imm as u8;
    let high = if is_wide(op) { f(a[1], b[1], imm >> shift) } else { [0; 2] };
    put(cpu, op.dst, [f(a[0], b[0], imm), high]);
    Ok(())
}

fn shufpd(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    by_half(cpu, op, <simd::Shufpd as simd::SimdImmOp>::apply_imm, 2)
}

fn mpsadbw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    by_half(cpu, op, <simd::Mpsadbw as simd::SimdImmOp>::apply_imm, 3)
}

/// VPMOVMSKB.
fn move_mask(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    // Of an XMM source the upper half is not looked at.
    let [low, high] = get(cpu, op.src);
    let high = if op.aux == WIDE { simd::pmovmskb(high) } else { 0 };
    cpu.regs[usize::from(op.dst)] = u64::from(simd::pmovmskb(low) | high << 16);
    Ok(())
}

/// For [`Op::aux`] of [`move_mask`].
const WIDE: u8 = 1;

/// Shifts by an immediate or by the low quadword of an XMM register or memory.
fn shifts(i: &Instruction, context: &Context) -> Option<Selection> {
    macro_rules! shift {
        ($($mnemonic:ident $name:ident)*) => {
            match i.mnemonic() {
                $(Mnemonic::$mnemonic if i.op_kind(2) == OpKind::Immediate8 => {
                    two::<Whole, Shift<simd::$name>> as GeneralFn
                })*
                $(Mnemonic::$mnemonic => counted::<Simd<simd::$name>>,)*
                _ => return None,
            }
        };
    }
    let function = shift! {
        Vpsllw Psllw Vpslld Pslld Vpsllq Psllq
        Vpsrlw Psrlw Vpsrld Psrld Vpsrlq Psrlq
        Vpsraw Psraw Vpsrad Psrad
    };
    Some(general(i, context, function))
}

/// The count has 128 bits for both halves.
fn counted<C: Compute>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let count = match op.has_mem() {
        true => load_vector(cpu, op, 16)?[0],
        false => get(cpu, op.aux2)[0],
    };
    let [low, high] = get(cpu, op.src);
    let high = if is_wide(op) { C::quick(op, high, count).value } else { [0; 2] };
    put(cpu, op.dst, [C::quick(op, low, count).value, high]);
    Ok(())
}

/// Lanes of 32 bits.
pub fn singles(v: V128) -> [u32; 4] {
    [v[0] as u32, (v[0] >> 32) as u32, v[1] as u32, (v[1] >> 32) as u32]
}

/// A vector of lanes of 32 bits.
pub fn from_singles([a, b, c, d]: [u32; 4]) -> V128 {
    [u64::from(a) | u64::from(b) << 32, u64::from(c) | u64::from(d) << 32]
}

/// Combines lanes of 32 bits.
fn zip(a: V128, b: V128, f: impl Fn(u32, u32) -> u32) -> V128 {
    let (a, b) = (singles(a), singles(b));
    from_singles(std::array::from_fn(|n| f(a[n], b[n])))
}

computations! {
    /// VPSLLVD.
    Vpsllvd |a, b| zip(a, b, |x, n| x.checked_shl(n).unwrap_or(0));
    /// VPSRLVD.
    Vpsrlvd |a, b| zip(a, b, |x, n| x.checked_shr(n).unwrap_or(0));
    /// VPSRAVD.
    Vpsravd |a, b| zip(a, b, |x, n| (x as i32 >> n.min(31)) as u32);
    /// VPSLLVQ.
    Vpsllvq |a, b| [0, 1].map(|n| if b[n] > 63 { 0 } else { a[n] << b[n] });
    /// VPSRLVQ.
    Vpsrlvq |a, b| [0, 1].map(|n| if b[n] > 63 { 0 } else { a[n] >> b[n] });
}

fn variable_shifts(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(general(
        i,
        context,
        match i.mnemonic() {
            M::Vpsllvd => three::<Whole, Vpsllvd>,
            M::Vpsllvq => three::<Whole, Vpsllvq>,
            M::Vpsrlvd => three::<Whole, Vpsrlvd>,
            M::Vpsrlvq => three::<Whole, Vpsrlvq>,
            M::Vpsravd => three::<Whole, Vpsravd>,
            _ => return None,
        },
    ))
}

/// Widening moves: mnemonic, what memory holds for 128 bits and for 256, bytes of a source lane
/// half, and what SSE4.1's computes.
fn widening(i: &Instruction, context: &Context) -> Option<Selection> {
    macro_rules! table {
        ($($mnemonic:ident $narrow:ident $wide:ident $bytes:literal $op:ident)*) => {
            match i.mnemonic() {
                $(Mnemonic::$mnemonic => widen::<$narrow, $wide, simd::$op, $bytes> as GeneralFn,)*
                _ => return None,
            }
        };
    }
    let function = table! {
        Vpmovsxbw Double Whole 8 Pmovsxbw Vpmovzxbw Double Whole 8 Pmovzxbw
        Vpmovsxwd Double Whole 8 Pmovsxwd Vpmovzxwd Double Whole 8 Pmovzxwd
        Vpmovsxdq Double Whole 8 Pmovsxdq Vpmovzxdq Double Whole 8 Pmovzxdq
        Vpmovsxbd Single Double 4 Pmovsxbd Vpmovzxbd Single Double 4 Pmovzxbd
        Vpmovsxwq Single Double 4 Pmovsxwq Vpmovzxwq Single Double 4 Pmovzxwq
        Vpmovsxbq Half Single 2 Pmovsxbq Vpmovzxbq Half Single 2 Pmovzxbq
    };
    Some(general(i, context, function))
}

fn widen<N: Part, W: Part, O: simd::SimdOp, const BYTES: u32>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<(), Stop> {
    ready(cpu)?;
    let src = match (op.has_mem(), is_wide(op)) {
        (false, _) => get(cpu, op.src)[0],
        (true, false) => load_part::<N>(cpu, op)?,
        (true, true) => load_part::<W>(cpu, op)?,
    };
    let all = u128::from(src[0]) | u128::from(src[1]) << 64;
    let upper = all >> (8 * BYTES);
    let upper = O::apply([0; 2], [upper as u64, (upper >> 64) as u64]);
    put(cpu, op.dst, [O::apply([0; 2], src), if is_wide(op) { upper } else { [0; 2] }]);
    Ok(())
}

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut selection = lanes(i, context)
        .or_else(|| others(i, context))
        .or_else(|| shifts(i, context))
        .or_else(|| variable_shifts(i, context))
        .or_else(|| widening(i, context))?;
    let wide = Code::VEX_Vpmovmskb_r32_ymm == i.code() || Code::VEX_Vpmovmskb_r64_ymm == i.code();
    if wide {
        selection.op.aux = WIDE;
    }
    Some(selection)
}
