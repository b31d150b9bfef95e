//! BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags::{CF, PF, ZF};

use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Addressing, Int, Rights};
use crate::op::{Op, Stop};
use crate::{load, next, pick, pick_size};

/// What becomes of the bit; for the `WHAT` of handlers and [`Op::aux`].
mod what {
    pub const TEST: u8 = 0;
    pub const SET: u8 = 1;
    pub const RESET: u8 = 2;
    pub const COMPLEMENT: u8 = 3;
}

#[inline(always)]
fn changed(value: u64, bit: u64, what: u8) -> u64 {
    match what {
        what::SET => value | bit,
        what::RESET => value & !bit,
        what::COMPLEMENT => value ^ bit,
        _ => value,
    }
}

fn bit_reg<T: Int, const WHAT: u8, const BY_REG: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let number = if BY_REG { T::get(cpu, op.src, 0) } else { op.imm } & u64::from(T::SIGN);
    let value = T::get(cpu, op.dst, 0);
    if WHAT != what::TEST {
        T::set(cpu, op.dst, 0, changed(value, 1 << number, WHAT));
    }
    cpu.flags.set_some(CF, value >> number & 1);
    next!(cpu, rest, block, links)
}

/// The memory forms. A bit number in a register reaches beyond the operand, in both directions.
fn bit_mem(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let width = u64::from(op.size) * 8;
    let mut offset = cpu.offset(op);
    let number = if op.aux & BY_REG != 0 {
        let index = cpu.reg(op.src, 0, op.size);
        let up = 64 - width as u32;
        let signed = (index << up) as i64 >> up;
        let bytes = signed.div_euclid(width as i64) * i64::from(op.size);
        offset = offset.wrapping_add(bytes as u64) & crate::mem::address_mask(op.asize);
        index & (width - 1)
    } else {
        op.imm & (width - 1)
    };
    let which = op.aux & 3;
    let value = match which {
        what::TEST => cpu.load_sized(op.seg, offset, op.size)?,
        _ => cpu.update_sized(op, offset, |value| changed(value, 1 << number, which))?,
    };
    cpu.flags.set_some(CF, value >> number & 1);
    Ok(())
}

/// For [`Op::aux`]: the number is in a register.
const BY_REG: u8 = 4;

impl Cpu {
    /// Replaces the value at `offset` of an operation's segment by a function of it, locked if the
    /// operation is; gives the old value.
    ///
    /// # Errors
    /// #GP, #SS, #PF; nothing was changed.
    pub fn update_sized(
        &mut self,
        op: &Op,
        offset: u64,
        new: impl Fn(u64) -> u64,
    ) -> Result<u64, Stop> {
        match op.size {
            1 => self.update::<u8>(op, offset, new),
            2 => self.update::<u16>(op, offset, new),
            4 => self.update::<u32>(op, offset, new),
            _ => self.update::<u64>(op, offset, new),
        }
    }

    fn update<T: Int + crate::mem::Scalar>(
        &mut self,
        op: &Op,
        offset: u64,
        new: impl Fn(u64) -> u64,
    ) -> Result<u64, Stop> {
        let linear = self.linear(op.seg, offset, T::BYTES as u64, true)?;
        self.probe(linear, T::BYTES as u64, true, Rights::Program)?;
        if op.prefixes & Op::LOCK != 0
            && let Some(place) = self.tlb_write::<T>(linear)
        {
            let mut seen = self.ram.load::<T>(place);
            loop {
                let found = T::compare_exchange(self, place, seen, T::of(new(seen.into())));
                if found == seen {
                    return Ok(found.into());
                }
                seen = found;
            }
        }
        let old: T = self.load_linear(linear, Rights::Program)?;
        self.store_linear(linear, T::of(new(old.into())), Rights::Program)?;
        Ok(old.into())
    }
}

/// A scan or count: from a value cut to the width, the result and ZF and CF in their places; no
/// result leaves the destination as it is.
pub trait Scan {
    /// The instruction.
    fn apply<T: Int>(a: u64) -> (Option<u64>, u64);
}

macro_rules! scan {
    ($name:ident, $t:ident, |$a:ident| $body:expr) => {
        /// The instruction of this name.
        pub struct $name;
        impl Scan for $name {
            #[inline(always)]
            fn apply<$t: Int>($a: u64) -> (Option<u64>, u64) {
                $body
            }
        }
    };
}
/// PF of a result.
#[inline(always)]
fn parity(result: u32) -> u64 {
    if (result as u8).count_ones() & 1 == 0 { PF } else { 0 }
}

/// BSF and BSR leave the destination when the source is zero, as AMD documents and Intel does. ZF is
/// that of the source; PF, which is undefined, that of the result, as AMD's Zen processors have it.
#[inline(always)]
fn found(a: u64, index: u32) -> (Option<u64>, u64) {
    if a == 0 { (None, ZF | PF) } else { (Some(index.into()), parity(index)) }
}
scan!(Bsf, T, |a| found(a, a.trailing_zeros()));
scan!(Bsr, T, |a| found(a, 63_u32.wrapping_sub(a.leading_zeros())));
scan!(Tzcnt, T, |a| {
    let count = u64::from(a.trailing_zeros()).min(u64::from(T::SIGN) + 1);
    (Some(count), if a == 0 { CF } else { 0 } | if count == 0 { ZF } else { 0 })
});
scan!(Lzcnt, T, |a| {
    let count = u64::from(a.leading_zeros()) - (63 - u64::from(T::SIGN));
    (Some(count), if a == 0 { CF } else { 0 } | if count == 0 { ZF } else { 0 })
});
scan!(Popcnt, T, |a| (Some(a.count_ones().into()), if a == 0 { ZF } else { 0 }));

#[inline(always)]
fn finish<T: Int, S: Scan>(cpu: &mut Cpu, op: &Op, a: u64) {
    let (result, flags) = S::apply::<T>(a);
    match result {
        Some(result) => T::set(cpu, op.dst, 0, result),
        None => {
            // On processors of both makers this zero-extends no 32-bit register either.
        }
    }
    cpu.flags.set_explicit(flags);
}

fn scan_reg<T: Int, S: Scan>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a = T::get(cpu, op.src, 0);
    finish::<T, S>(cpu, op, a);
    next!(cpu, rest, block, links)
}

fn scan_mem<A: Addressing, T: Int, S: Scan>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a: u64 = load!(A, T, cpu, op, rest, block).into();
    finish::<T, S>(cpu, op, a);
    next!(cpu, rest, block, links)
}

fn scanning<S: Scan>(i: &Instruction, context: &Context) -> Selection {
    let op = context.op(i);
    let kind = context.address_kind(&op);
    if op.has_mem() {
        Selection::memory(op, pick!(kind, op.size, scan_mem, S))
    } else {
        Selection::register(op, pick_size!(op.size, scan_reg, S))
    }
}

fn bit<const WHAT: u8>(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    let by_reg = i.op_kind(1) == OpKind::Register;
    if op.has_mem() {
        op.aux = WHAT | if by_reg { BY_REG } else { 0 };
        return Selection::general(op, bit_mem);
    }
    let run = if by_reg {
        pick_size!(op.size, bit_reg, WHAT, true)
    } else {
        pick_size!(op.size, bit_reg, WHAT, false)
    };
    // The flags besides CF are kept, though the manual leaves some of them undefined.
    Selection::register(op, run).with_conditional_flags()
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Bt => bit::<{ what::TEST }>(i, context),
        M::Bts => bit::<{ what::SET }>(i, context),
        M::Btr => bit::<{ what::RESET }>(i, context),
        M::Btc => bit::<{ what::COMPLEMENT }>(i, context),
        M::Bsf => scanning::<Bsf>(i, context),
        M::Bsr => scanning::<Bsr>(i, context),
        M::Tzcnt => scanning::<Tzcnt>(i, context),
        M::Lzcnt => scanning::<Lzcnt>(i, context),
        M::Popcnt => scanning::<Popcnt>(i, context),
        _ => return None,
    })
}
