//! MOV, MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, and the sign extensions of RAX.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_cpu::model::Quirk;

use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Addressing, Int};
use crate::op::{Handler, Op, Stop};
use crate::{load, modify, next, pick, pick_size, store};

fn reg_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let value = T::get(cpu, op.src, op.src_shift);
    T::set(cpu, op.dst, op.dst_shift, value);
    next!(cpu, rest, block, links)
}

fn reg_imm<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    T::set(cpu, op.dst, op.dst_shift, op.imm & T::MASK);
    next!(cpu, rest, block, links)
}

fn reg_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let value: u64 = load!(A, T, cpu, op, rest, block).into();
    T::set(cpu, op.dst, op.dst_shift, value);
    next!(cpu, rest, block, links)
}

fn mem_reg<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let value = T::get(cpu, op.src, op.src_shift);
    store!(A, T, T::of(value), cpu, op, rest, block);
    next!(cpu, rest, block, links)
}

fn mem_imm<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    store!(A, T, T::of(op.imm), cpu, op, rest, block);
    next!(cpu, rest, block, links)
}

/// Extends `value` from the width of `F`.
#[inline(always)]
fn extend<F: Int, const SIGNED: bool>(value: u64) -> u64 {
    if SIGNED {
        let up = 63 - F::SIGN;
        ((value << up) as i64 >> up) as u64
    } else {
        value
    }
}

fn extend_reg<T: Int, F: Int, const SIGNED: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let value = extend::<F, SIGNED>(F::get(cpu, op.src, op.src_shift));
    T::set(cpu, op.dst, 0, value & T::MASK);
    next!(cpu, rest, block, links)
}

fn extend_mem<A: Addressing, T: Int, F: Int, const SIGNED: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let value: u64 = load!(A, F, cpu, op, rest, block).into();
    T::set(cpu, op.dst, 0, extend::<F, SIGNED>(value) & T::MASK);
    next!(cpu, rest, block, links)
}

fn lea<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = A::offset(cpu, op);
    T::set(cpu, op.dst, 0, offset & T::MASK);
    next!(cpu, rest, block, links)
}

fn xchg_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let a = T::get(cpu, op.dst, op.dst_shift);
    let b = T::get(cpu, op.src, op.src_shift);
    T::set(cpu, op.dst, op.dst_shift, b);
    T::set(cpu, op.src, op.src_shift, a);
    next!(cpu, rest, block, links)
}

/// XCHG with memory is locked whether it says so or not. Intel SDM vol. 2, XCHG.
fn xchg_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let new = T::get(cpu, op.src, op.src_shift);
    let mut seen = cpu.ram.load::<T>(offset);
    let old: u64 = loop {
        let found = T::compare_exchange(cpu, offset, seen, T::of(new));
        if found == seen {
            break found.into();
        }
        seen = found;
    };
    T::set(cpu, op.src, op.src_shift, old);
    next!(cpu, rest, block, links)
}

fn cmov_reg<T: Int, const C: u8>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let from = if cpu.flags.test::<C>() { op.src } else { op.dst };
    // A 32-bit destination is zero-extended even when the condition is false.
    let value = T::get(cpu, from, 0);
    T::set(cpu, op.dst, 0, value);
    next!(cpu, rest, block, links)
}

fn cmov_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let loaded: u64 = load!(A, T, cpu, op, rest, block).into();
    let taken = cpu.flags.test_number(op.aux);
    let value = if taken { loaded } else { T::get(cpu, op.dst, 0) };
    T::set(cpu, op.dst, 0, value);
    next!(cpu, rest, block, links)
}

fn set_reg<const C: u8>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let value = u64::from(cpu.flags.test::<C>());
    u8::set(cpu, op.dst, op.dst_shift, value);
    next!(cpu, rest, block, links)
}

fn set_mem(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = u8::from(cpu.flags.test_number(op.aux));
    cpu.store_operand(op, value)
}

fn bswap<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let value = T::get(cpu, op.dst, 0);
    let swapped = value.swap_bytes() >> (63 - T::SIGN);
    // The result for 16 bits is undefined; processors give 0.
    T::set(cpu, op.dst, 0, if T::BYTES == 2 { 0 } else { swapped });
    next!(cpu, rest, block, links)
}

fn movbe_load(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = cpu.load_sized(op.seg, cpu.offset(op), op.size)?;
    let swapped = value.swap_bytes() >> (64 - 8 * u32::from(op.size));
    cpu.set_reg(op.dst, 0, op.size, swapped);
    Ok(())
}

fn movbe_store(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = cpu.reg(op.src, 0, op.size);
    let swapped = value.swap_bytes() >> (64 - 8 * u32::from(op.size));
    cpu.store_sized(op.seg, cpu.offset(op), op.size, swapped)
}

const RAX: u8 = 0;
const RDX: u8 = 2;

/// CBW, CWDE, CDQE: from the lower half of RAX to `T`.
fn extend_rax<T: Int, F: Int>(
    cpu: &mut Cpu,
    _: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let value = extend::<F, true>(F::get(cpu, RAX, 0));
    T::set(cpu, RAX, 0, value & T::MASK);
    next!(cpu, rest, block, links)
}

/// CWD, CDQ, CQO: the sign of RAX to all of RDX.
fn sign_to_rdx<T: Int>(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sign = T::get(cpu, RAX, 0) >> T::SIGN & 1;
    T::set(cpu, RDX, 0, sign.wrapping_neg() & T::MASK);
    next!(cpu, rest, block, links)
}

fn mov(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut op = context.op(i);
    let kind = context.address_kind(&op);
    let special = |n: u32| {
        let r = i.op_register(n);
        i.op_kind(n) == OpKind::Register && !r.is_gpr()
    };
    if special(0) || special(1) {
        return None;
    }
    let direct = matches!(
        i.code(),
        Code::Mov_AL_moffs8 | Code::Mov_AX_moffs16 | Code::Mov_EAX_moffs32 | Code::Mov_RAX_moffs64
    );
    Some(match (i.op_kind(0), i.op_kind(1)) {
        (OpKind::Register, OpKind::Register) => {
            Selection::register(op, pick_size!(op.size, reg_reg))
        }
        (OpKind::Register, OpKind::Memory) => {
            debug_assert!(!direct || op.has_mem());
            op.prefixes |= Op::LOAD;
            Selection::memory(op, pick!(kind, op.size, reg_mem))
        }
        (OpKind::Memory, OpKind::Register) => {
            op.prefixes |= Op::STORE;
            Selection::memory(op, pick!(kind, op.size, mem_reg))
        }
        (OpKind::Memory, _) => {
            op.prefixes |= Op::STORE_IMMEDIATE;
            Selection::memory(op, pick!(kind, op.size, mem_imm))
        }
        _ => Selection::register(op, pick_size!(op.size, reg_imm)),
    })
}

fn extending<const SIGNED: bool>(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    let kind = context.address_kind(&op);
    if op.has_mem() {
        if !SIGNED {
            op.prefixes |= Op::LOAD;
        }
        let run = match i.memory_size().size() {
            // Of MOVSXD with 16-bit operands a Zen 5 reads four bytes.
            _ if i.code() == Code::Movsxd_r16_rm16
                && context.vendor.has(Quirk::MovsxdReadsDoubleword) =>
            {
                pick!(kind, op.size, extend_mem, u32, SIGNED)
            }
            1 => pick!(kind, op.size, extend_mem, u8, SIGNED),
            2 => pick!(kind, op.size, extend_mem, u16, SIGNED),
            _ => pick!(kind, op.size, extend_mem, u32, SIGNED),
        };
        return Selection::memory(op, run);
    }
    let run = match i.op_register(1).size() {
        1 => pick_size!(op.size, extend_reg, u8, SIGNED),
        2 => pick_size!(op.size, extend_reg, u16, SIGNED),
        _ => pick_size!(op.size, extend_reg, u32, SIGNED),
    };
    Selection::register(op, run)
}

fn xchg(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    let kind = context.address_kind(&op);
    if op.has_mem() {
        if i.op_kind(1) == OpKind::Memory {
            (op.src, op.src_shift) = (op.dst, op.dst_shift);
        }
        return Selection::memory(op, pick!(kind, op.size, xchg_mem));
    }
    Selection::register(op, pick_size!(op.size, xchg_reg))
}

/// The condition's number of a CMOVcc, SETcc or Jcc.
#[must_use]
pub fn condition_number(i: &Instruction) -> Option<u8> {
    use iced_x86::ConditionCode as C;
    Some(match i.condition_code() {
        C::None => return None,
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        C::g => 15,
    })
}

/// Picks the instance of a handler that is generic over the condition's number alone, or over the
/// size and it.
#[macro_export]
#[doc(hidden)]
macro_rules! pick_condition {
    (@all $number:expr, |$c:ident| $body:expr) => {
        $crate::pick_condition!(@list $number, $c, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@list $number:expr, $c:ident, $body:expr, $($n:literal)*) => {
        match $number {
            $($n => { const $c: u8 = $n; $body })*
            _ => { const $c: u8 = 15; $body }
        }
    };
}

fn conditional_move(i: &Instruction, context: &Context, number: u8) -> Selection {
    let mut op = context.op(i);
    op.aux = number;
    let kind = context.address_kind(&op);
    if op.has_mem() {
        return Selection::memory(op, pick!(kind, op.size, cmov_mem));
    }
    let run: Handler = pick_condition!(@all number, |C| pick_size!(op.size, cmov_reg, C));
    Selection::register(op, run)
}

fn conditional_set(i: &Instruction, context: &Context, number: u8) -> Selection {
    let mut op = context.op(i);
    op.aux = number;
    if op.has_mem() {
        return Selection::general(op, set_mem);
    }
    Selection::register(op, pick_condition!(@all number, |C| set_reg::<C>))
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let plain = |run: Handler| Selection::register(context.op(i), run);
    Some(match i.mnemonic() {
        M::Mov => return mov(i, context),
        M::Movzx => extending::<false>(i, context),
        M::Movsx | M::Movsxd => extending::<true>(i, context),
        M::Lea => {
            let mut op = context.op(i);
            // LEA uses no segment, and its address may have any form.
            op.seg = 3;
            let kind = context.address_kind(&op);
            Selection::register(op, pick!(kind, op.size, lea))
        }
        M::Xchg => xchg(i, context),
        M::Bswap => {
            let op = context.op(i);
            Selection::register(op, pick_size!(op.size, bswap))
        }
        M::Movbe if i.op_kind(0) == OpKind::Register => {
            Selection::general(context.op(i), movbe_load)
        }
        M::Movbe => Selection::general(context.op(i), movbe_store),
        M::Cbw => plain(extend_rax::<u16, u8>),
        M::Cwde => plain(extend_rax::<u32, u16>),
        M::Cdqe => plain(extend_rax::<u64, u32>),
        M::Cwd => plain(sign_to_rdx::<u16>),
        M::Cdq => plain(sign_to_rdx::<u32>),
        M::Cqo => plain(sign_to_rdx::<u64>),
        _ => return conditional(i, context),
    })
}

fn conditional(i: &Instruction, context: &Context) -> Option<Selection> {
    let number = condition_number(i)?;
    match i.code().condition_code() {
        _ if i.is_jcc_short_or_near() => None,
        _ if is_set(i) => Some(conditional_set(i, context, number)),
        _ if is_move(i) => Some(conditional_move(i, context, number)),
        _ => None,
    }
}

fn is_set(i: &Instruction) -> bool {
    i.op_count() == 1
        && i.code() as usize >= Code::Seto_rm8 as usize
        && i.code() as usize <= Code::Setg_rm8 as usize
}

fn is_move(i: &Instruction) -> bool {
    i.op_count() == 2
        && i.code() as usize >= Code::Cmovo_r16_rm16 as usize
        && i.code() as usize <= Code::Cmovg_r64_rm64 as usize
}
