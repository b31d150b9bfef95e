//! VEX moves: whole registers, parts, masks, and the instructions that zero.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_host_fpu::{V128, simd};

use super::form::{
    V256, general, get, is_wide, load_part, load_vector, put, ready, require_alignment, store_part,
    store_vector, three, two,
};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{GeneralFn, Op, Stop};
use crate::ops::sse_form::{Double, High, Part, Single, Whole};
use crate::ops::sse_moves::{
    HighToLow, LowToHigh, Movshdup, Movsldup, PutHigh, PutLow, PutSingle, masked_store,
};

fn bytes(op: &Op) -> u64 {
    if is_wide(op) { 32 } else { 16 }
}

fn stores(i: &Instruction) -> bool {
    i.op_kind(0) == OpKind::Memory
}

/// Loads or moves a whole register.
fn load_whole<const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let value = if op.has_mem() {
        if ALIGNED {
            require_alignment(cpu, op, bytes(op))?;
        }
        load_vector(cpu, op, bytes(op))?
    } else {
        masked_to(op, get(cpu, op.src))
    };
    put(cpu, op.dst, value);
    Ok(())
}

/// The part of a register that the instruction moves.
fn masked_to(op: &Op, [low, high]: V256) -> V256 {
    [low, if is_wide(op) { high } else { [0; 2] }]
}

/// Stores a whole register.
fn store_whole<const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    if ALIGNED {
        require_alignment(cpu, op, bytes(op))?;
    }
    let value = get(cpu, op.src);
    store_vector(cpu, op, value, bytes(op))
}

/// Loads a part; the rest of the register is zero.
fn load_alone<P: Part>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let value = load_part::<P>(cpu, op)?;
    put(cpu, op.dst, [value, [0; 2]]);
    Ok(())
}

/// Stores a part.
fn store_alone<P: Part>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let value = get(cpu, op.src)[0];
    store_part::<P>(cpu, op, value)
}

fn whole(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match (i.mnemonic(), stores(i)) {
        (M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntdqa, false) => load_whole::<true>,
        (M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu, false) => load_whole::<false>,
        (M::Vmovaps | M::Vmovapd | M::Vmovdqa, true) => store_whole::<true>,
        (M::Vmovntps | M::Vmovntpd | M::Vmovntdq, true) => store_whole::<true>,
        (M::Vmovups | M::Vmovupd | M::Vmovdqu, true) => store_whole::<false>,
        _ => return None,
    };
    Some(general(i, context, function))
}

/// VMOVD and VMOVQ.
fn quad(i: &Instruction, context: &Context) -> Option<Selection> {
    use Code as C;
    Some(general(
        i,
        context,
        match i.code() {
            C::VEX_Vmovd_xmm_rm32 => from_register::<Single, 4>,
            C::VEX_Vmovq_xmm_rm64 => from_register::<Double, 8>,
            C::VEX_Vmovd_rm32_xmm => to_register::<Single, 4>,
            C::VEX_Vmovq_rm64_xmm => to_register::<Double, 8>,
            C::VEX_Vmovq_xmm_xmmm64 if i.op_kind(1) == OpKind::Memory => load_alone::<Double>,
            C::VEX_Vmovq_xmmm64_xmm if stores(i) => store_alone::<Double>,
            C::VEX_Vmovq_xmm_xmmm64 | C::VEX_Vmovq_xmmm64_xmm => low_quad,
            _ => return None,
        },
    ))
}

fn from_register<P: Part, const SIZE: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let value = match op.has_mem() {
        true => load_part::<P>(cpu, op)?,
        false => [cpu.reg(op.src, 0, SIZE), 0],
    };
    put(cpu, op.dst, [value, [0; 2]]);
    Ok(())
}

fn to_register<P: Part, const SIZE: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let value = get(cpu, op.src)[0];
    if op.has_mem() {
        return store_part::<P>(cpu, op, value);
    }
    let mask = if SIZE == 4 { 0xffff_ffff } else { !0 };
    cpu.regs[usize::from(op.dst)] = value[0] & mask;
    Ok(())
}

fn low_quad(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let [low, _] = get(cpu, op.src);
    put(cpu, op.dst, [[low[0], 0], [0; 2]]);
    Ok(())
}

fn parts(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let two_operands = i.op_count() == 2;
    let function: GeneralFn = match (i.mnemonic(), stores(i)) {
        (M::Vmovss, true) => store_alone::<Single>,
        (M::Vmovsd, true) => store_alone::<Double>,
        (M::Vmovss, false) if two_operands => load_alone::<Single>,
        (M::Vmovsd, false) if two_operands => load_alone::<Double>,
        (M::Vmovss, false) => three::<Single, PutSingle>,
        (M::Vmovsd, false) => three::<Double, PutLow>,
        (M::Vmovlps | M::Vmovlpd, true) => store_alone::<Double>,
        (M::Vmovhps | M::Vmovhpd, true) => store_alone::<High>,
        (M::Vmovlps | M::Vmovlpd, false) => three::<Double, PutLow>,
        (M::Vmovhps | M::Vmovhpd, false) => three::<High, PutHigh>,
        (M::Vmovlhps, _) => three::<Whole, LowToHigh>,
        (M::Vmovhlps, _) => three::<Whole, HighToLow>,
        (M::Vmovsldup, _) => two::<Whole, Movsldup>,
        (M::Vmovshdup, _) => two::<Whole, Movshdup>,
        (M::Vmovddup, _) => duplicate,
        (M::Vmovmskps, _) => signs::<4>,
        (M::Vmovmskpd, _) => signs::<8>,
        (M::Vmaskmovdqu, _) => masked_bytes,
        (M::Vzeroupper, _) => |cpu, _| zero(cpu, false),
        (M::Vzeroall, _) => |cpu, _| zero(cpu, true),
        _ => return None,
    };
    let mut selection = general(i, context, function);
    match i.mnemonic() {
        M::Vmaskmovdqu => {
            selection.op.asize = match i.op_kind(0) {
                OpKind::MemorySegDI => 2,
                OpKind::MemorySegEDI => 4,
                _ => 8,
            };
        }
        M::Vmovmskps | M::Vmovmskpd => {
            selection.op.aux = u8::from(i.op_register(1).is_ymm());
        }
        _ => {}
    }
    Some(selection)
}

fn duplicate(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let [low, high] = match (op.has_mem(), is_wide(op)) {
        (false, _) => get(cpu, op.src),
        (true, true) => load_vector(cpu, op, 32)?,
        (true, false) => [load_part::<Double>(cpu, op)?, [0; 2]],
    };
    let value = [[low[0]; 2], [high[0]; 2]];
    put(cpu, op.dst, masked_to(op, value));
    Ok(())
}

/// VMOVMSKPS and VMOVMSKPD; `aux` says whether the source has 256 bits.
fn signs<const SIZE: u32>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let of = |v: V128| if SIZE == 4 { simd::movmskps(v) } else { simd::movmskpd(v) };
    let [low, high] = get(cpu, op.src);
    let high = if op.aux != 0 { of(high) } else { 0 };
    cpu.regs[usize::from(op.dst)] = u64::from(of(low) | high << (16 / SIZE));
    Ok(())
}

fn masked_bytes(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let (value, mask) = (get(cpu, op.src)[0], get(cpu, op.aux2)[0]);
    masked_store(cpu, op, (value, mask), 16)
}

/// VZEROALL and VZEROUPPER, of the registers that the mode has.
fn zero(cpu: &mut Cpu, all: bool) -> Result<(), Stop> {
    ready(cpu)?;
    let count = if cpu.code64() { 16 } else { 8 };
    for number in 0..count {
        let [low, _] = get(cpu, number);
        put(cpu, number, [if all { [0; 2] } else { low }, [0; 2]]);
    }
    Ok(())
}

/// VMASKMOVPS and the like: lanes of `SIZE` bytes whose mask is negative. Others are not accessed
/// and cannot fault.
fn masked(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(general(
        i,
        context,
        match (i.mnemonic(), stores(i)) {
            (M::Vmaskmovps | M::Vpmaskmovd, false) => masked_load::<4>,
            (M::Vmaskmovpd | M::Vpmaskmovq, false) => masked_load::<8>,
            (M::Vmaskmovps | M::Vpmaskmovd, true) => masked_lanes::<4>,
            (M::Vmaskmovpd | M::Vpmaskmovq, true) => masked_lanes::<8>,
            _ => return None,
        },
    ))
}

/// The lanes that a mask chooses, by their byte offset.
fn chosen<const SIZE: usize>(op: &Op, mask: V256) -> Vec<usize> {
    let bytes = to_bytes(mask);
    let end = if is_wide(op) { 32 } else { 16 };
    (0..end).step_by(SIZE).filter(|at| bytes[at + SIZE - 1] & 0x80 != 0).collect()
}

/// A register's bytes.
pub fn to_bytes(value: V256) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(value.as_flattened()) {
        *to = word.to_le_bytes();
    }
    bytes
}

/// A register of these bytes.
pub fn from_bytes(bytes: &[u8; 32]) -> V256 {
    let mut words = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
    std::array::from_fn(|_| std::array::from_fn(|_| words.next().unwrap_or_default()))
}

/// The linear address of the lane `at` bytes into the operand. Each lane has an effective address
/// of its own, cut to the address size.
fn lane_address(cpu: &mut Cpu, op: &Op, at: usize, size: usize, write: bool) -> Result<u64, Stop> {
    let offset = cpu.offset(op).wrapping_add(at as u64) & address_mask(op.asize);
    cpu.linear(op.seg, offset, size as u64, write)
}

fn masked_load<const SIZE: usize>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let mut value = [0; 32];
    for at in chosen::<SIZE>(op, get(cpu, op.src)) {
        let linear = lane_address(cpu, op, at, SIZE, false)?;
        if SIZE == 4 {
            let lane: u32 = cpu.load_linear(linear, Rights::Unaligned)?;
            value[at..at + 4].copy_from_slice(&lane.to_le_bytes());
        } else {
            let lane: u64 = cpu.load_linear(linear, Rights::Unaligned)?;
            value[at..at + 8].copy_from_slice(&lane.to_le_bytes());
        }
    }
    put(cpu, op.dst, from_bytes(&value));
    Ok(())
}

/// The mask is operand 1, the value operand 2.
fn masked_lanes<const SIZE: usize>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let lanes = chosen::<SIZE>(op, get(cpu, op.src));
    let value = to_bytes(get(cpu, op.aux2));
    let mut places = [0; 8];
    for (place, at) in places.iter_mut().zip(&lanes) {
        *place = lane_address(cpu, op, *at, SIZE, true)?;
        cpu.probe(*place, SIZE as u64, true, Rights::Unaligned)?;
    }
    for (place, at) in places.into_iter().zip(lanes) {
        if SIZE == 4 {
            let lane = value[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
            cpu.store_linear(place, lane, Rights::Unaligned)?;
        } else {
            let lane = value[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
            cpu.store_linear(place, lane, Rights::Unaligned)?;
        }
    }
    Ok(())
}

/// Chooses functions for the instructions of this group.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    whole(i, context)
        .or_else(|| quad(i, context))
        .or_else(|| parts(i, context))
        .or_else(|| masked(i, context))
}
