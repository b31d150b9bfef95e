//! F16C: conversions between half and single precision. Intel SDM vol. 2, VCVTPH2PS and VCVTPS2PH.

use iced_x86::{Code, Instruction};
use trivium_host_fpu::sse::{from_half, to_half};
use trivium_host_fpu::{Mxcsr, SseResult};

use super::form::{
    general, get, is_wide, load_part, load_vector, put, ready, store_part, store_vector,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::Rights;
use crate::op::{GeneralFn, Op, Stop};
use crate::ops::sse_form::{Double, raise_float};

/// VCVTPH2PS: four or eight halves become singles.
fn widen(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let src = match (op.has_mem(), is_wide(op)) {
        (true, true) => load_vector(cpu, op, 16)?[0],
        (true, false) => load_part::<Double>(cpu, op)?,
        (false, _) => get(cpu, op.src)[0],
    };
    let low = from_half([src[0], 0]);
    let high = match is_wide(op) {
        true => from_half([src[1], 0]),
        false => SseResult { value: [0; 2], flags: 0 },
    };
    raise_float(cpu, low.flags | high.flags)?;
    put(cpu, op.dst, [low.value, high.value]);
    Ok(())
}

/// VCVTPS2PH: four or, if `WIDE`, eight singles become halves.
fn narrow<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let (mxcsr, imm) = (Mxcsr(cpu.vector.mxcsr), op.imm as u8);
    let src = get(cpu, op.src);
    let low = to_half(mxcsr, src[0], imm);
    let high = match WIDE {
        true => to_half(mxcsr, src[1], imm),
        false => SseResult { value: [0; 2], flags: 0 },
    };
    let value = [low.value[0], high.value[0]];
    if op.has_mem() {
        check_store(cpu, op, if WIDE { 16 } else { 8 })?;
    }
    raise_float(cpu, low.flags | high.flags)?;
    match (op.has_mem(), WIDE) {
        (false, _) => put(cpu, op.dst, [value, [0; 2]]),
        (true, true) => store_vector(cpu, op, [value, [0; 2]], 16)?,
        (true, false) => store_part::<Double>(cpu, op, value)?,
    }
    Ok(())
}

/// What the store can raise goes before what the conversion raises, on Zen 4.
fn check_store(cpu: &mut Cpu, op: &Op, bytes: u64) -> Result<(), Stop> {
    let offset = cpu.offset(op);
    let linear = cpu.linear(op.seg, offset, bytes, true)?;
    cpu.check_alignment(linear, bytes)?;
    cpu.probe(linear, bytes, true, Rights::Unaligned)
}

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let function: GeneralFn = match i.code() {
        Code::VEX_Vcvtph2ps_xmm_xmmm64 | Code::VEX_Vcvtph2ps_ymm_xmmm128 => widen,
        Code::VEX_Vcvtps2ph_xmmm64_xmm_imm8 => narrow::<false>,
        Code::VEX_Vcvtps2ph_xmmm128_ymm_imm8 => narrow::<true>,
        _ => return None,
    };
    Some(general(i, context, function))
}
