//! ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT; and compares fused with the
//! conditional branch after them.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::block::{Block, BlockCache, follow};
use crate::cpu::Cpu;
use crate::decode::{Compare, Context, Fuse, Selection};
use crate::flags::{Kind, compare, tested};
use crate::mem::{Addressing, Int};
use crate::op::{Handler, Op};
use crate::{load, modify, next, pick, pick_size};

/// A two-operand operation.
pub trait Alu {
    /// Whether the result goes to the destination.
    const WRITES: bool = true;
    /// The result, not yet cut to the width.
    fn apply(cpu: &Cpu, a: u64, b: u64) -> u64;
    /// Records the flags; all values are cut to the width.
    fn record(cpu: &mut Cpu, sign: u8, a: u64, b: u64, result: u64);
}

macro_rules! alu {
    ($name:ident, $writes:literal, |$cpu:ident, $a:ident, $b:ident| $result:expr, $kind:ident) => {
        /// The operation of this name.
        pub struct $name;
        impl Alu for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn apply($cpu: &Cpu, $a: u64, $b: u64) -> u64 {
                $result
            }
            #[inline(always)]
            fn record(cpu: &mut Cpu, sign: u8, a: u64, b: u64, result: u64) {
                alu!(@record $kind, cpu, sign, a, b, result);
            }
        }
    };
    (@record Logic, $cpu:ident, $sign:ident, $a:ident, $b:ident, $result:ident) => {
        let _ = ($a, $b);
        $cpu.flags.set_logic($sign, $result);
    };
    (@record $kind:ident, $cpu:ident, $sign:ident, $a:ident, $b:ident, $result:ident) => {
        $cpu.flags.set(Kind::$kind, $sign, $a, $b, $result);
    };
}
alu!(Add, true, |_cpu, a, b| a.wrapping_add(b), Add);
alu!(Adc, true, |cpu, a, b| a.wrapping_add(b).wrapping_add(u64::from(cpu.flags.cf())), Add);
alu!(Sub, true, |_cpu, a, b| a.wrapping_sub(b), Sub);
alu!(Sbb, true, |cpu, a, b| a.wrapping_sub(b).wrapping_sub(u64::from(cpu.flags.cf())), Borrow);
alu!(Cmp, false, |_cpu, a, b| a.wrapping_sub(b), Sub);
alu!(And, true, |_cpu, a, b| a & b, Logic);
alu!(Or, true, |_cpu, a, b| a | b, Logic);
alu!(Xor, true, |_cpu, a, b| a ^ b, Logic);
alu!(Test, false, |_cpu, a, b| a & b, Logic);

/// Where the second operand comes from.
const REG: bool = false;
const IMM: bool = true;

#[inline(always)]
fn second<T: Int, const FROM: bool>(cpu: &Cpu, op: &Op) -> u64 {
    if FROM == IMM { op.imm & T::MASK } else { T::get(cpu, op.src, op.src_shift) }
}

fn to_reg<T: Int, O: Alu, const FROM: bool, const FLAGS: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a = T::get(cpu, op.dst, op.dst_shift);
    let b = second::<T, FROM>(cpu, op);
    let result = O::apply(cpu, a, b) & T::MASK;
    if FLAGS {
        O::record(cpu, T::SIGN, a, b, result);
    }
    if O::WRITES {
        T::set(cpu, op.dst, op.dst_shift, result);
    }
    next!(cpu, rest, block, links)
}

fn reg_from_mem<A: Addressing, T: Int, O: Alu, const FLAGS: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let b: u64 = load!(A, T, cpu, op, rest, block).into();
    let a = T::get(cpu, op.dst, op.dst_shift);
    let result = O::apply(cpu, a, b) & T::MASK;
    if FLAGS {
        O::record(cpu, T::SIGN, a, b, result);
    }
    if O::WRITES {
        T::set(cpu, op.dst, op.dst_shift, result);
    }
    next!(cpu, rest, block, links)
}

fn to_mem<A: Addressing, T: Int, O: Alu, const FROM: bool, const FLAGS: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let a: u64 = cpu.ram.load::<T>(offset).into();
    let b = second::<T, FROM>(cpu, op);
    let result = O::apply(cpu, a, b) & T::MASK;
    cpu.ram.store(offset, T::of(result));
    if FLAGS {
        O::record(cpu, T::SIGN, a, b, result);
    }
    next!(cpu, rest, block, links)
}

/// CMP and TEST with a memory operand first: it is only read.
fn test_mem<A: Addressing, T: Int, O: Alu, const FROM: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a: u64 = load!(A, T, cpu, op, rest, block).into();
    let b = second::<T, FROM>(cpu, op);
    let result = O::apply(cpu, a, b) & T::MASK;
    O::record(cpu, T::SIGN, a, b, result);
    next!(cpu, rest, block, links)
}

fn locked<A: Addressing, T: Int, O: Alu, const FROM: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let b = second::<T, FROM>(cpu, op);
    let mut seen = cpu.ram.load::<T>(offset);
    let (a, result) = loop {
        let a: u64 = seen.into();
        let result = O::apply(cpu, a, b) & T::MASK;
        let found = T::compare_exchange(cpu, offset, seen, T::of(result));
        if found == seen {
            break (a, result);
        }
        seen = found;
    };
    O::record(cpu, T::SIGN, a, b, result);
    next!(cpu, rest, block, links)
}

/// A one-operand operation.
pub trait Unary {
    /// Whether it writes flags.
    const FLAGS: bool = true;
    /// The result, not yet cut to the width.
    fn apply(a: u64) -> u64;
    /// Records the flags.
    fn record(cpu: &mut Cpu, sign: u8, a: u64, result: u64);
}

macro_rules! unary {
    ($name:ident, $flags:literal, |$a:ident| $result:expr, |$cpu:ident, $sign:ident, $r:ident| $record:expr) => {
        /// The operation of this name.
        pub struct $name;
        impl Unary for $name {
            const FLAGS: bool = $flags;
            #[inline(always)]
            fn apply($a: u64) -> u64 {
                $result
            }
            #[inline(always)]
            fn record($cpu: &mut Cpu, $sign: u8, $a: u64, $r: u64) {
                let _ = ($sign, $a, $r, &$cpu);
                $record
            }
        }
    };
}
unary!(Inc, true, |a| a.wrapping_add(1), |cpu, sign, result| {
    let carry = u64::from(cpu.flags.cf());
    cpu.flags.set(Kind::Inc, sign, 0, carry, result);
});
unary!(Dec, true, |a| a.wrapping_sub(1), |cpu, sign, result| {
    let carry = u64::from(cpu.flags.cf());
    cpu.flags.set(Kind::Dec, sign, 0, carry, result);
});
unary!(Neg, true, |a| a.wrapping_neg(), |cpu, sign, result| {
    cpu.flags.set(Kind::Sub, sign, 0, a, result)
});
unary!(Not, false, |a| !a, |cpu, sign, result| ());

fn unary_reg<T: Int, O: Unary, const FLAGS: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a = T::get(cpu, op.dst, op.dst_shift);
    let result = O::apply(a) & T::MASK;
    if FLAGS && O::FLAGS {
        O::record(cpu, T::SIGN, a, result);
    }
    T::set(cpu, op.dst, op.dst_shift, result);
    next!(cpu, rest, block, links)
}

fn unary_mem<A: Addressing, T: Int, O: Unary, const LOCKED: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let mut seen = cpu.ram.load::<T>(offset);
    let (a, result) = loop {
        let a: u64 = seen.into();
        let result = O::apply(a) & T::MASK;
        if !LOCKED {
            cpu.ram.store(offset, T::of(result));
            break (a, result);
        }
        let found = T::compare_exchange(cpu, offset, seen, T::of(result));
        if found == seen {
            break (a, result);
        }
        seen = found;
    };
    if O::FLAGS {
        O::record(cpu, T::SIGN, a, result);
    }
    next!(cpu, rest, block, links)
}

fn compare_and_branch<T: Int, const FROM: bool, const C: u8>(
    cpu: &mut Cpu,
    op: &Op,
    _: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a = T::get(cpu, op.dst, op.dst_shift);
    let b = second::<T, FROM>(cpu, op);
    let result = a.wrapping_sub(b) & T::MASK;
    cpu.flags.set(Kind::Sub, T::SIGN, a, b, result);
    branch(compare::<C>(a, b, result, T::SIGN), cpu, op, block, links)
}

fn test_and_branch<T: Int, const FROM: bool, const C: u8>(
    cpu: &mut Cpu,
    op: &Op,
    _: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let result = T::get(cpu, op.dst, op.dst_shift) & second::<T, FROM>(cpu, op);
    cpu.flags.set_logic(T::SIGN, result);
    branch(tested::<C>(result, T::SIGN), cpu, op, block, links)
}

/// The end of a fused operation: the target is in `disp`.
#[inline(always)]
fn branch(taken: bool, cpu: &mut Cpu, op: &Op, block: &Block, links: &BlockCache) {
    if taken {
        follow(cpu, op.disp, 0, block, links)
    } else {
        let next = block.rip.wrapping_add(op.off as u64).wrapping_add(u64::from(op.len));
        follow(cpu, next & cpu.ip_mask, 1, block, links)
    }
}

/// The handler that does a compare of this form and the branch on condition `number` after it.
#[must_use]
pub fn fused(compare: Compare, size: u8, number: u8) -> Handler {
    macro_rules! with_condition {
        ($f:ident, $from:ident, $($c:literal)*) => {
            match number & 15 {
                $($c => pick_size!(size, $f, $from, $c),)*
                _ => pick_size!(size, $f, $from, 15),
            }
        };
    }
    match compare {
        Compare::CmpReg => {
            with_condition!(compare_and_branch, REG, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
        }
        Compare::CmpImm => {
            with_condition!(compare_and_branch, IMM, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
        }
        Compare::TestReg => {
            with_condition!(test_and_branch, REG, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
        }
        Compare::TestImm => {
            with_condition!(test_and_branch, IMM, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
        }
    }
}

/// What an instruction's two operands are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    RegReg,
    RegImm,
    RegMem,
    MemReg,
    MemImm,
}

fn shape(i: &Instruction) -> Shape {
    match (i.op_kind(0), i.op_kind(1)) {
        (OpKind::Memory, OpKind::Register) => Shape::MemReg,
        (OpKind::Memory, _) => Shape::MemImm,
        (_, OpKind::Register) => Shape::RegReg,
        (_, OpKind::Memory) => Shape::RegMem,
        _ => Shape::RegImm,
    }
}

/// Chooses among the handlers of an operation that writes its destination.
fn writing<O: Alu>(i: &Instruction, context: &Context) -> Selection {
    let op = context.op(i);
    let kind = context.address_kind(&op);
    match shape(i) {
        Shape::RegReg => Selection::register(op, pick_size!(op.size, to_reg, O, REG, true))
            .or_without_flags(pick_size!(op.size, to_reg, O, REG, false)),
        Shape::RegImm => Selection::register(op, pick_size!(op.size, to_reg, O, IMM, true))
            .or_without_flags(pick_size!(op.size, to_reg, O, IMM, false)),
        Shape::RegMem => Selection::memory(op, pick!(kind, op.size, reg_from_mem, O, true))
            .or_without_flags(pick!(kind, op.size, reg_from_mem, O, false)),
        Shape::MemReg if op.prefixes & Op::LOCK != 0 => {
            Selection::memory(op, pick!(kind, op.size, locked, O, REG))
        }
        Shape::MemImm if op.prefixes & Op::LOCK != 0 => {
            Selection::memory(op, pick!(kind, op.size, locked, O, IMM))
        }
        Shape::MemReg => Selection::memory(op, pick!(kind, op.size, to_mem, O, REG, true))
            .or_without_flags(pick!(kind, op.size, to_mem, O, REG, false)),
        Shape::MemImm => Selection::memory(op, pick!(kind, op.size, to_mem, O, IMM, true))
            .or_without_flags(pick!(kind, op.size, to_mem, O, IMM, false)),
    }
}

/// Chooses among the handlers of CMP or TEST.
fn testing<O: Alu>(
    i: &Instruction,
    context: &Context,
    by_reg: Compare,
    by_imm: Compare,
) -> Selection {
    let op = context.op(i);
    let kind = context.address_kind(&op);
    match shape(i) {
        Shape::RegReg => Selection::register(op, pick_size!(op.size, to_reg, O, REG, true))
            .or_without_flags(pick_size!(op.size, to_reg, O, REG, false))
            .with_fuse(Fuse::Compare(by_reg)),
        Shape::RegImm => Selection::register(op, pick_size!(op.size, to_reg, O, IMM, true))
            .or_without_flags(pick_size!(op.size, to_reg, O, IMM, false))
            .with_fuse(Fuse::Compare(by_imm)),
        Shape::RegMem => Selection::memory(op, pick!(kind, op.size, reg_from_mem, O, true)),
        Shape::MemReg => Selection::memory(op, pick!(kind, op.size, test_mem, O, REG)),
        Shape::MemImm => Selection::memory(op, pick!(kind, op.size, test_mem, O, IMM)),
    }
}

fn unary<O: Unary>(i: &Instruction, context: &Context) -> Selection {
    let op = context.op(i);
    let kind = context.address_kind(&op);
    if !op.has_mem() {
        Selection::register(op, pick_size!(op.size, unary_reg, O, true))
            .or_without_flags(pick_size!(op.size, unary_reg, O, false))
    } else if op.prefixes & Op::LOCK != 0 {
        Selection::memory(op, pick!(kind, op.size, unary_mem, O, true))
    } else {
        Selection::memory(op, pick!(kind, op.size, unary_mem, O, false))
    }
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Add => writing::<Add>(i, context),
        M::Adc => writing::<Adc>(i, context),
        M::Sub => writing::<Sub>(i, context),
        M::Sbb => writing::<Sbb>(i, context),
        M::And => writing::<And>(i, context),
        M::Or => writing::<Or>(i, context),
        M::Xor => writing::<Xor>(i, context),
        M::Cmp => testing::<Cmp>(i, context, Compare::CmpReg, Compare::CmpImm),
        M::Test => testing::<Test>(i, context, Compare::TestReg, Compare::TestImm),
        M::Inc => unary::<Inc>(i, context),
        M::Dec => unary::<Dec>(i, context),
        M::Neg => unary::<Neg>(i, context),
        M::Not => unary::<Not>(i, context),
        _ => return None,
    })
}
