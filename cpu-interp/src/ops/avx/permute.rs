//! VEX broadcasts, permutations and blends, which move lanes between the halves.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_host_fpu::{SseResult, V128, simd};

use super::form::{
    V256, general, get, is_wide, load_part, load_vector, put, ready, store_vector, three, two,
};
use super::integer::{from_singles, singles};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};
use crate::ops::sse_form::{
    Byte, Compute, Double, Half, Part, Single, Whole, computations, exact, immediate_computations,
};

/// One of four singles, by the low two bits of a selector.
fn pick(from: V128, by: u32) -> u32 {
    singles(from)[(by & 3) as usize]
}

computations! {
    /// VPERMILPS by a vector.
    Permilps |a, b| from_singles(singles(b).map(|by| pick(a, by)));
    /// VPERMILPD by a vector.
    Permilpd |a, b| b.map(|by| a[(by >> 1 & 1) as usize]);
}

immediate_computations! {
    /// VPERMILPS by an immediate.
    PermilpsImm |_dst, src, imm| {
        from_singles(std::array::from_fn(|n| pick(src, u32::from(imm) >> (2 * n))))
    };
}

fn broadcasts(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(general(
        i,
        context,
        match i.mnemonic() {
            M::Vbroadcastss | M::Vpbroadcastd => broadcast::<Single>,
            M::Vbroadcastsd | M::Vpbroadcastq => broadcast::<Double>,
            M::Vpbroadcastb => broadcast::<Byte>,
            M::Vpbroadcastw => broadcast::<Half>,
            M::Vbroadcastf128 | M::Vbroadcasti128 => |cpu, op| {
                ready(cpu)?;
                let [low, _] = load_vector(cpu, op, 16)?;
                put(cpu, op.dst, [low; 2]);
                Ok(())
            },
            _ => return None,
        },
    ))
}

/// The lowest lane, as `P` has it, in all lanes.
fn broadcast<P: Part>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let lane = match op.has_mem() {
        true => load_part::<P>(cpu, op)?,
        false => P::widen(P::narrow(get(cpu, op.src)[0])),
    };
    let all = (0..64).step_by(size_of::<P::Value>() * 8).fold(0, |all, at| all | lane[0] << at);
    let high = if is_wide(op) { [all; 2] } else { [0; 2] };
    put(cpu, op.dst, [[all; 2], high]);
    Ok(())
}

/// The second operand of an instruction on 256 bits with two, or the third of one with three.
fn wide_source(cpu: &mut Cpu, op: &Op, register: u8) -> Result<V256, Stop> {
    ready(cpu)?;
    if op.has_mem() { load_vector(cpu, op, 32) } else { Ok(get(cpu, register)) }
}

fn permutations(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let by_immediate = i.op_kind(i.op_count().saturating_sub(1)) == OpKind::Immediate8;
    Some(general(
        i,
        context,
        match i.mnemonic() {
            M::Vpermilps if by_immediate => two::<Whole, PermilpsImm>,
            M::Vpermilpd if by_immediate => permilpd_imm,
            M::Vpermilps => three::<Whole, Permilps>,
            M::Vpermilpd => three::<Whole, Permilpd>,
            M::Vperm2f128 | M::Vperm2i128 => perm2,
            M::Vpermq | M::Vpermpd => permq,
            M::Vpermd | M::Vpermps => permd,
            M::Vinsertf128 | M::Vinserti128 => insert,
            M::Vextractf128 | M::Vextracti128 => extract,
            M::Vpblendd => blend_singles,
            M::Vblendps => blend_singles,
            M::Vblendpd => blend_doubles,
            M::Vpblendvb => |cpu, op| blend_by_register(cpu, op, simd::pblendvb),
            M::Vblendvps => |cpu, op| blend_by_register(cpu, op, simd::blendvps),
            M::Vblendvpd => |cpu, op| blend_by_register(cpu, op, simd::blendvpd),
            _ => return None,
        },
    ))
}

/// A bit of the immediate for each double.
fn permilpd_imm(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let source = match op.has_mem() {
        true => load_vector(cpu, op, if is_wide(op) { 32 } else { 16 })?,
        false => get(cpu, op.src),
    };
    let double = |half: usize, n: usize| source[half][(op.imm >> (2 * half + n) & 1) as usize];
    let high = if is_wide(op) { [double(1, 0), double(1, 1)] } else { [0; 2] };
    put(cpu, op.dst, [[double(0, 0), double(0, 1)], high]);
    Ok(())
}

fn perm2(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = wide_source(cpu, op, op.aux2)?;
    let [a0, a1] = get(cpu, op.src);
    let halves = [a0, a1, b[0], b[1]];
    let half = |by: u64| if by & 8 != 0 { [0; 2] } else { halves[(by & 3) as usize] };
    put(cpu, op.dst, [half(op.imm), half(op.imm >> 4)]);
    Ok(())
}

fn permq(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let source = wide_source(cpu, op, op.src)?;
    let words = source.as_flattened();
    let word = |n: usize| words[(op.imm >> (2 * n) & 3) as usize];
    put(cpu, op.dst, [[word(0), word(1)], [word(2), word(3)]]);
    Ok(())
}

/// The indices are operand 1, the lanes operand 2.
fn permd(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let source = wide_source(cpu, op, op.aux2)?;
    let indices = get(cpu, op.src);
    let lanes = source.map(singles);
    let lane = |by: u32| lanes[(by >> 2 & 1) as usize][(by & 3) as usize];
    put(cpu, op.dst, indices.map(|half| from_singles(singles(half).map(lane))));
    Ok(())
}

fn insert(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let half = match op.has_mem() {
        true => load_vector(cpu, op, 16)?[0],
        false => get(cpu, op.aux2)[0],
    };
    let mut value = get(cpu, op.src);
    value[(op.imm & 1) as usize] = half;
    put(cpu, op.dst, value);
    Ok(())
}

fn extract(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let half = get(cpu, op.src)[(op.imm & 1) as usize];
    if op.has_mem() {
        return store_vector(cpu, op, [half, [0; 2]], 16);
    }
    put(cpu, op.dst, [half, [0; 2]]);
    Ok(())
}

/// Both sources of a blend.
fn sources(cpu: &mut Cpu, op: &Op) -> Result<(V256, V256), Stop> {
    ready(cpu)?;
    let b = match op.has_mem() {
        true => load_vector(cpu, op, if is_wide(op) { 32 } else { 16 })?,
        false => get(cpu, op.aux2),
    };
    Ok((get(cpu, op.src), b))
}

/// Writes what is computed of each half of two sources.
fn by_halves(cpu: &mut Cpu, op: &Op, f: impl Fn(usize, V128, V128) -> V128) -> Result<(), Stop> {
    let (a, b) = sources(cpu, op)?;
    let high = if is_wide(op) { f(1, a[1], b[1]) } else { [0; 2] };
    put(cpu, op.dst, [f(0, a[0], b[0]), high]);
    Ok(())
}

fn blend_singles(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let imm = op.imm as u8;
    by_halves(cpu, op, |half, a, b| {
        <simd::Blendps as simd::SimdImmOp>::apply_imm(a, b, imm >> (4 * half))
    })
}

fn blend_doubles(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let imm = op.imm as u8;
    by_halves(cpu, op, |half, a, b| {
        <simd::Blendpd as simd::SimdImmOp>::apply_imm(a, b, imm >> (2 * half))
    })
}

/// Blends by the signs of the register that the immediate names.
fn blend_by_register(
    cpu: &mut Cpu,
    op: &Op,
    choose: fn(V128, V128, V128) -> V128,
) -> Result<(), Stop> {
    let mask = get(cpu, op.aux);
    by_halves(cpu, op, |half, a, b| choose(a, b, mask[half]))
}

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    broadcasts(i, context).or_else(|| permutations(i, context))
}
