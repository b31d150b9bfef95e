//! XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_cpu::bits::rflags::ZF;
use trivium_cpu::model::Quirk;

use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::flags::Kind;
use crate::mem::{Addressing, Int, Rights};
use crate::op::{Op, Stop};
use crate::{modify, next, pick, pick_size};

const RAX: u8 = 0;

fn xadd_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let a = T::get(cpu, op.dst, op.dst_shift);
    let b = T::get(cpu, op.src, op.src_shift);
    let result = a.wrapping_add(b) & T::MASK;
    cpu.flags.set(Kind::Add, T::SIGN, a, b, result);
    // The source first: where both are one register, the sum stays.
    T::set(cpu, op.src, op.src_shift, a);
    T::set(cpu, op.dst, op.dst_shift, result);
    next!(cpu, rest, block, links)
}

fn xadd_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let b = T::get(cpu, op.src, op.src_shift);
    let mut seen = cpu.ram.load::<T>(offset);
    let (a, result) = loop {
        let a: u64 = seen.into();
        let result = a.wrapping_add(b) & T::MASK;
        let found = T::compare_exchange(cpu, offset, seen, T::of(result));
        if found == seen {
            break (a, result);
        }
        seen = found;
    };
    cpu.flags.set(Kind::Add, T::SIGN, a, b, result);
    T::set(cpu, op.src, op.src_shift, a);
    next!(cpu, rest, block, links)
}

/// What CMPXCHG does to flags and RAX once it has found `a` at its destination.
#[inline(always)]
fn compared<T: Int>(cpu: &mut Cpu, a: u64) {
    let expected = T::get(cpu, RAX, 0);
    let result = expected.wrapping_sub(a) & T::MASK;
    cpu.flags.set(Kind::Sub, T::SIGN, expected, a, result);
    if result != 0 {
        T::set(cpu, RAX, 0, a);
    }
}

fn cmpxchg_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let a = T::get(cpu, op.dst, op.dst_shift);
    let new = T::get(cpu, op.src, op.src_shift);
    let equal = T::get(cpu, RAX, 0) == a;
    compared::<T>(cpu, a);
    // Intel's processors write the destination in any case (SDM vol. 2, CMPXCHG), which zero-extends
    // 32 bits; AMD's leave a register that is not exchanged as it is.
    if equal || op.aux == ALWAYS_WRITES {
        T::set(cpu, op.dst, op.dst_shift, if equal { new } else { a });
    }
    next!(cpu, rest, block, links)
}

/// For [`Op::aux`] of CMPXCHG with registers.
const ALWAYS_WRITES: u8 = 1;

fn cmpxchg_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let new = T::of(T::get(cpu, op.src, op.src_shift));
    let expected = T::of(T::get(cpu, RAX, 0));
    let found: u64 = T::compare_exchange(cpu, offset, expected, new).into();
    compared::<T>(cpu, found);
    next!(cpu, rest, block, links)
}

fn set_zf(cpu: &mut Cpu, equal: bool) {
    cpu.flags.set_some(ZF, if equal { ZF } else { 0 });
}

fn cmpxchg8b(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let [expected, new] =
        [[RAX, 2], [3, 1]].map(|[low, high]| cpu.reg(low, 0, 4) | cpu.reg(high, 0, 4) << 32);
    let offset = cpu.offset(op);
    // The destination is written in any case. Intel SDM vol. 2, CMPXCHG8B.
    let found = cpu.update_sized(op, offset, |old| if old == expected { new } else { old })?;
    if found != expected {
        cpu.set_reg(RAX, 0, 4, found & 0xffff_ffff);
        cpu.set_reg(2, 0, 4, found >> 32);
    }
    set_zf(cpu, found == expected);
    Ok(())
}

fn cmpxchg16b(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let [expected, new] = [[RAX, 2], [3, 1]]
        .map(|[low, high]| [cpu.regs[usize::from(low)], cpu.regs[usize::from(high)]]);
    let linear = cpu.linear(op.seg, cpu.offset(op), 16, true)?;
    if linear % 16 != 0 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.probe(linear, 16, true, Rights::Program)?;
    let found = match cpu.tlb_write::<[u64; 2]>(linear) {
        Some(place) => cpu.ram.compare_exchange_u128(place, expected, new),
        None => {
            let old: [u64; 2] = cpu.load_linear(linear, Rights::Program)?;
            let value = if old == expected { new } else { old };
            cpu.store_linear(linear, value, Rights::Program)?;
            old
        }
    };
    if found != expected {
        cpu.regs[usize::from(RAX)] = found[0];
        cpu.regs[2] = found[1];
    }
    set_zf(cpu, found == expected);
    Ok(())
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let op = || context.op(i);
    Some(match i.mnemonic() {
        M::Xadd | M::Cmpxchg => {
            let mut op = op();
            op.aux = if context.vendor.has(Quirk::CmpxchgAlwaysWrites) { ALWAYS_WRITES } else { 0 };
            let kind = context.address_kind(&op);
            match (i.mnemonic(), op.has_mem()) {
                (M::Xadd, false) => Selection::register(op, pick_size!(op.size, xadd_reg)),
                (M::Xadd, true) => Selection::memory(op, pick!(kind, op.size, xadd_mem)),
                (_, false) => Selection::register(op, pick_size!(op.size, cmpxchg_reg)),
                (_, true) => Selection::memory(op, pick!(kind, op.size, cmpxchg_mem)),
            }
        }
        M::Cmpxchg8b => {
            let mut op = op();
            op.size = 8;
            Selection::general(op, cmpxchg8b)
        }
        M::Cmpxchg16b => Selection::general(op(), cmpxchg16b),
        _ => return None,
    })
}

#[cfg(test)]
#[path = "atomic_tests.rs"]
mod tests;
