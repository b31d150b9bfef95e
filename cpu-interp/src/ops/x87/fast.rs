//! Handlers for the most frequent x87 instructions. Where anything is out of the ordinary (a fault,
//! a pending exception, an operand that raises something in a conversion), they leave the
//! instruction to its general function, before anything has changed.

use iced_x86::{Code, Instruction};
use trivium_cpu::state::CS;
use trivium_host_fpu::F80;
use trivium_host_fpu::x87::{
    Fadd, Fdiv, Fdivr, Fmul, Fsub, Fsubr, X87Arith, X87Result, is_vetoed, status,
};

use super::convert::{Real, from_integer};
use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::Context;
use crate::mem::{Addressing, Int};
use crate::op::{Handler, Op, general};
use crate::{load, next, pick_address, store};

/// Leaves the instruction to its general function. Inlined, that would cost handlers the saving of
/// registers on their usual way.
#[cold]
#[inline(never)]
fn unusual(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    general(cpu, op, rest, block, links)
}

/// Whether nothing is to be raised before the instruction.
#[inline(always)]
fn is_ready(cpu: &Cpu) -> bool {
    !cpu.x87_blocked && cpu.x87.status & status::ES == 0
}

/// As [`Cpu::x87_note`], of an instruction without memory operand.
#[inline(always)]
fn note(cpu: &mut Cpu, op: &Op, block: &Block) {
    cpu.x87.last_opcode = op.imm as u16;
    cpu.x87.last_ip = block.rip.wrapping_add(op.off as u64);
    cpu.x87.last_cs = cpu.segments.regs[CS].selector;
}

/// As [`Cpu::x87_note`], of an instruction with a memory operand.
#[inline(always)]
fn note_memory<A: Addressing>(cpu: &mut Cpu, op: &Op, block: &Block) {
    note(cpu, op, block);
    cpu.x87.last_dp = A::offset(cpu, op);
    cpu.x87.last_ds = cpu.segments.regs[usize::from(op.seg % 6)].selector;
}

/// Pushes onto a stack with room.
#[inline(always)]
fn push(cpu: &mut Cpu, value: F80) {
    cpu.x87.status &= !status::C1;
    cpu.x87_set_top(cpu.x87_top().wrapping_sub(1));
    cpu.x87_set(0, value);
}

/// Takes over a result as ST(i). Whether it was written.
#[inline(always)]
fn write(cpu: &mut Cpu, i: u8, result: &X87Result) -> bool {
    let merged = result.merge(cpu.x87.status);
    cpu.x87.status = merged | (merged & status::ES) << 8;
    let vetoed = is_vetoed(cpu.x87.control, result.status);
    if !vetoed {
        cpu.x87_set(i, result.value);
    }
    !vetoed
}

/// FLD m32, FLD m64.
fn load_real<A: Addressing, T: Real>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || !cpu.x87_is_empty(7) {
        return unusual(cpu, op, rest, block, links);
    }
    let bits = load!(A, T, cpu, op, rest, block);
    let Some(value) = bits.extend() else {
        return unusual(cpu, op, rest, block, links);
    };
    note_memory::<A>(cpu, op, block);
    push(cpu, value);
    next!(cpu, rest, block, links)
}

/// FILD.
fn load_integer<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || !cpu.x87_is_empty(7) {
        return unusual(cpu, op, rest, block, links);
    }
    let bits: u64 = load!(A, T, cpu, op, rest, block).into();
    note_memory::<A>(cpu, op, block);
    let unused = 63 - T::SIGN;
    push(cpu, from_integer((bits << unused) as i64 >> unused));
    next!(cpu, rest, block, links)
}

/// FST and FSTP m32 and m64.
fn store_real<A: Addressing, T: Real, const POP: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || cpu.x87_is_empty(0) {
        return unusual(cpu, op, rest, block, links);
    }
    let Some((bits, flags)) = T::narrow(cpu.x87.control, cpu.x87_get(0)) else {
        return unusual(cpu, op, rest, block, links);
    };
    store!(A, T, bits, cpu, op, rest, block);
    note_memory::<A>(cpu, op, block);
    cpu.x87.status = cpu.x87.status & !status::C1 | flags;
    if POP {
        cpu.x87_pop();
    }
    next!(cpu, rest, block, links)
}

/// FLD ST(i).
fn load_register(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    if !is_ready(cpu) || !cpu.x87_is_empty(7) || cpu.x87_is_empty(op.aux) {
        return unusual(cpu, op, rest, block, links);
    }
    note(cpu, op, block);
    let value = cpu.x87_get(op.aux);
    push(cpu, value);
    next!(cpu, rest, block, links)
}

/// FLD1 and FLDZ.
fn load_constant<const ONE: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || !cpu.x87_is_empty(7) {
        return unusual(cpu, op, rest, block, links);
    }
    note(cpu, op, block);
    push(cpu, if ONE { F80::ONE } else { F80::ZERO });
    next!(cpu, rest, block, links)
}

/// FST and FSTP ST(i).
fn store_register<const POP: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || cpu.x87_is_empty(0) {
        return unusual(cpu, op, rest, block, links);
    }
    note(cpu, op, block);
    cpu.x87.status &= !status::C1;
    cpu.x87_set(op.aux, cpu.x87_get(0));
    if POP {
        cpu.x87_pop();
    }
    next!(cpu, rest, block, links)
}

/// FXCH.
fn exchange(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    if !is_ready(cpu) || cpu.x87_is_empty(0) || cpu.x87_is_empty(op.aux) {
        return unusual(cpu, op, rest, block, links);
    }
    note(cpu, op, block);
    cpu.x87.status &= !status::C1;
    let (first, second) = (cpu.x87_get(0), cpu.x87_get(op.aux));
    cpu.x87_set(0, second);
    cpu.x87_set(op.aux, first);
    next!(cpu, rest, block, links)
}

/// Arithmetic with m32 and m64.
fn arith_memory<A: Addressing, O: X87Arith<T::Source>, T: Real>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || cpu.x87_is_empty(0) {
        return unusual(cpu, op, rest, block, links);
    }
    let source = load!(A, T, cpu, op, rest, block).source();
    note_memory::<A>(cpu, op, block);
    let result = O::apply(cpu.x87_env(), cpu.x87_get(0), source);
    write(cpu, 0, &result);
    next!(cpu, rest, block, links)
}

/// Arithmetic between registers.
fn arith_registers<O: X87Arith<F80>, const POP: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    if !is_ready(cpu) || cpu.x87_is_empty(op.dst) || cpu.x87_is_empty(op.src) {
        return unusual(cpu, op, rest, block, links);
    }
    note(cpu, op, block);
    let result = O::apply(cpu.x87_env(), cpu.x87_get(op.dst), cpu.x87_get(op.src));
    if write(cpu, op.dst, &result) && POP {
        cpu.x87_pop();
    }
    next!(cpu, rest, block, links)
}

fn transfer(i: &Instruction, context: &Context, op: &Op) -> Option<Handler> {
    use Code::*;
    let kind = context.address_kind(op);
    Some(match i.code() {
        Fld_m32fp => pick_address!(kind, load_real, u32),
        Fld_m64fp => pick_address!(kind, load_real, u64),
        Fild_m16int => pick_address!(kind, load_integer, u16),
        Fild_m32int => pick_address!(kind, load_integer, u32),
        Fild_m64int => pick_address!(kind, load_integer, u64),
        Fst_m32fp => pick_address!(kind, store_real, u32, false),
        Fst_m64fp => pick_address!(kind, store_real, u64, false),
        Fstp_m32fp => pick_address!(kind, store_real, u32, true),
        Fstp_m64fp => pick_address!(kind, store_real, u64, true),
        Fld_sti => load_register,
        Fst_sti => store_register::<false>,
        Fstp_sti => store_register::<true>,
        Fld1 => load_constant::<true>,
        Fldz => load_constant::<false>,
        Fxch_st0_sti => exchange,
        _ => return None,
    })
}

fn arith(i: &Instruction, context: &Context, op: &Op) -> Option<Handler> {
    use Code::*;
    let kind = context.address_kind(op);
    Some(match i.code() {
        Fadd_m32fp => pick_address!(kind, arith_memory, Fadd, u32),
        Fmul_m32fp => pick_address!(kind, arith_memory, Fmul, u32),
        Fsub_m32fp => pick_address!(kind, arith_memory, Fsub, u32),
        Fsubr_m32fp => pick_address!(kind, arith_memory, Fsubr, u32),
        Fdiv_m32fp => pick_address!(kind, arith_memory, Fdiv, u32),
        Fdivr_m32fp => pick_address!(kind, arith_memory, Fdivr, u32),
        Fadd_m64fp => pick_address!(kind, arith_memory, Fadd, u64),
        Fmul_m64fp => pick_address!(kind, arith_memory, Fmul, u64),
        Fsub_m64fp => pick_address!(kind, arith_memory, Fsub, u64),
        Fsubr_m64fp => pick_address!(kind, arith_memory, Fsubr, u64),
        Fdiv_m64fp => pick_address!(kind, arith_memory, Fdiv, u64),
        Fdivr_m64fp => pick_address!(kind, arith_memory, Fdivr, u64),
        Fadd_st0_sti | Fadd_sti_st0 => arith_registers::<Fadd, false>,
        Fmul_st0_sti | Fmul_sti_st0 => arith_registers::<Fmul, false>,
        Fsub_st0_sti | Fsub_sti_st0 => arith_registers::<Fsub, false>,
        Fsubr_st0_sti | Fsubr_sti_st0 => arith_registers::<Fsubr, false>,
        Fdiv_st0_sti | Fdiv_sti_st0 => arith_registers::<Fdiv, false>,
        Fdivr_st0_sti | Fdivr_sti_st0 => arith_registers::<Fdivr, false>,
        Faddp_sti_st0 => arith_registers::<Fadd, true>,
        Fmulp_sti_st0 => arith_registers::<Fmul, true>,
        Fsubp_sti_st0 => arith_registers::<Fsub, true>,
        Fsubrp_sti_st0 => arith_registers::<Fsubr, true>,
        Fdivp_sti_st0 => arith_registers::<Fdiv, true>,
        Fdivrp_sti_st0 => arith_registers::<Fdivr, true>,
        _ => return None,
    })
}

/// The handler of an instruction, if it has one of its own.
pub fn handler(i: &Instruction, context: &Context, op: &Op) -> Option<Handler> {
    transfer(i, context, op).or_else(|| arith(i, context, op))
}
