//! SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags::{CF, OF};

use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Addressing, Int};
use crate::op::{Op, Stop};
use crate::{modify, next, pick, pick_size};

const RCX: u8 = 1;

/// A shift or rotate of `T` by `count`, 1 to 63 (31 for narrow operands), recording flags.
pub trait Shift {
    /// Only CF and OF change (rotates), so that the other flags are to be kept.
    const ROTATES: bool;
    /// The result and its CF and OF in their places. `a` is cut to the width, the result need not.
    fn apply<T: Int>(cpu: &Cpu, a: u64, count: u32) -> (u64, u64);
}

fn carry(bit: u64) -> u64 {
    bit & 1
}

/// OF as bit 11 of RFLAGS from bit 0 of `bit`.
fn overflow(bit: u64) -> u64 {
    (bit & 1) << 11
}

/// SHL.
pub struct Shl;
impl Shift for Shl {
    const ROTATES: bool = false;
    #[inline(always)]
    fn apply<T: Int>(_: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let result = a << (count & 63);
        let width = u32::from(T::SIGN) + 1;
        let out = if count > width { 0 } else { a >> (width - count) & 1 };
        (result, carry(out) | overflow(result >> T::SIGN ^ out))
    }
}

/// SHR.
pub struct Shr;
impl Shift for Shr {
    const ROTATES: bool = false;
    #[inline(always)]
    fn apply<T: Int>(_: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let result = a >> (count & 63);
        (result, carry(a >> (count.wrapping_sub(1) & 63)) | overflow(a >> T::SIGN))
    }
}

/// SAR.
pub struct Sar;
impl Shift for Sar {
    const ROTATES: bool = false;
    #[inline(always)]
    fn apply<T: Int>(_: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let up = 63 - T::SIGN;
        let signed = (a << up) as i64 >> up;
        let result = signed >> (count & 63);
        (result as u64, carry((signed >> (count.wrapping_sub(1) & 63)) as u64))
    }
}

/// ROL.
pub struct Rol;
impl Shift for Rol {
    const ROTATES: bool = true;
    #[inline(always)]
    fn apply<T: Int>(_: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let width = u32::from(T::SIGN) + 1;
        let by = count % width;
        let result = if by == 0 { a } else { a << by | a >> (width - by) };
        (result, carry(result) | overflow(result >> T::SIGN ^ result))
    }
}

/// ROR.
pub struct Ror;
impl Shift for Ror {
    const ROTATES: bool = true;
    #[inline(always)]
    fn apply<T: Int>(_: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let width = u32::from(T::SIGN) + 1;
        let by = count % width;
        let result = if by == 0 { a } else { a >> by | a << (width - by) };
        let top = result >> T::SIGN;
        (result, carry(top) | overflow(top ^ result >> (T::SIGN - 1)))
    }
}

/// RCL.
pub struct Rcl;
impl Shift for Rcl {
    const ROTATES: bool = true;
    #[inline(always)]
    fn apply<T: Int>(cpu: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let width = u32::from(T::SIGN) + 1;
        let wide = u128::from(a) | u128::from(cpu.flags.cf()) << width;
        let by = count % (width + 1);
        let result = wide << by | wide >> (width + 1 - by);
        let out = (result >> width) as u64;
        let result = result as u64;
        (result, carry(out) | overflow(result >> T::SIGN ^ out))
    }
}

/// RCR.
pub struct Rcr;
impl Shift for Rcr {
    const ROTATES: bool = true;
    #[inline(always)]
    fn apply<T: Int>(cpu: &Cpu, a: u64, count: u32) -> (u64, u64) {
        let width = u32::from(T::SIGN) + 1;
        let wide = u128::from(a) | u128::from(cpu.flags.cf()) << width;
        let by = count % (width + 1);
        let result = wide >> by | wide << (width + 1 - by);
        let out = (result >> width) as u64;
        let result = result as u64;
        (result, carry(out) | overflow(result >> T::SIGN ^ result >> (T::SIGN - 1)))
    }
}

/// The count: CL or an immediate, cut to 5 bits, or 6 for 64-bit operands.
#[inline(always)]
fn count<T: Int, const BY_CL: bool>(cpu: &Cpu, op: &Op) -> u32 {
    let count = if BY_CL { cpu.regs[usize::from(RCX)] } else { op.imm };
    count as u32 & if T::BYTES == 8 { 63 } else { 31 }
}

#[inline(always)]
fn record<T: Int, S: Shift>(cpu: &mut Cpu, result: u64, flags: u64) {
    if S::ROTATES {
        cpu.flags.set_some(CF | OF, flags);
    } else {
        cpu.flags.set_result(T::SIGN, result, flags);
    }
}

fn shift_reg<T: Int, S: Shift, const BY_CL: bool, const FLAGS: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let count = count::<T, BY_CL>(cpu, op);
    let a = T::get(cpu, op.dst, op.dst_shift);
    // A count of 0 changes no flags, but still zero-extends a 32-bit register.
    if count == 0 {
        T::set(cpu, op.dst, op.dst_shift, a);
    } else {
        let (result, flags) = S::apply::<T>(cpu, a, count);
        let result = result & T::MASK;
        T::set(cpu, op.dst, op.dst_shift, result);
        if FLAGS {
            record::<T, S>(cpu, result, flags);
        }
    }
    next!(cpu, rest, block, links)
}

fn shift_mem<A: Addressing, T: Int, S: Shift, const BY_CL: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let offset = modify!(A, T, cpu, op, rest, block);
    let count = count::<T, BY_CL>(cpu, op);
    if count != 0 {
        let a: u64 = cpu.ram.load::<T>(offset).into();
        let (result, flags) = S::apply::<T>(cpu, a, count);
        let result = result & T::MASK;
        cpu.ram.store(offset, T::of(result));
        record::<T, S>(cpu, result, flags);
    }
    next!(cpu, rest, block, links)
}

fn shift<S: Shift>(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    let by_cl = i.op_kind(1) == OpKind::Register;
    let kind = context.address_kind(&op);
    if op.has_mem() {
        let run = if by_cl {
            pick!(kind, op.size, shift_mem, S, true)
        } else {
            pick!(kind, op.size, shift_mem, S, false)
        };
        return Selection::memory(op, run).with_conditional_flags();
    }
    if by_cl {
        let selection = Selection::register(op, pick_size!(op.size, shift_reg, S, true, true))
            .or_without_flags(pick_size!(op.size, shift_reg, S, true, false));
        return selection.with_conditional_flags();
    }
    op.imm &= if op.size == 8 { 63 } else { 31 };
    let selection = Selection::register(op, pick_size!(op.size, shift_reg, S, false, true));
    if op.imm == 0 {
        return selection.with_conditional_flags();
    }
    selection.or_without_flags(pick_size!(op.size, shift_reg, S, false, false))
}

/// SHLD and SHRD of `size` bytes: `count` is not zero. Gives the result and CF and OF.
fn double(left: bool, a: u64, b: u64, count: u32, size: u8) -> (u64, u64) {
    let width = u32::from(size) * 8;
    let sign = width - 1;
    // For counts beyond 16 the result of 16-bit operands is undefined; the pattern repeats.
    let (high, low) = if left { (a, b) } else { (b, a) };
    let wide = u128::from(high) << width | u128::from(low);
    let by = if width == 16 { count % 32 } else { count };
    let (result, out) = if left {
        let wide = if by > width { wide | u128::from(high) << (2 * width) } else { wide };
        ((wide << by >> width) as u64, (wide >> (2 * width - by)) as u64)
    } else {
        let wide = if by > width { wide | u128::from(low) << (2 * width) } else { wide };
        ((wide >> by) as u64, (wide >> (by - 1)) as u64)
    };
    let result = result & crate::cpu::mask_of(width);
    (result, carry(out) | overflow((result ^ a) >> sign))
}

/// For [`Op::aux`] of SHLD and SHRD.
mod form {
    pub const LEFT: u8 = 1;
    pub const BY_CL: u8 = 2;
}

fn double_shift(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mask = if op.size == 8 { 63 } else { 31 };
    let by = if op.aux & form::BY_CL != 0 { cpu.regs[usize::from(RCX)] } else { op.imm };
    let count = by as u32 & mask;
    let offset = cpu.offset(op);
    let a = if op.has_mem() {
        let linear = cpu.linear(op.seg, offset, op.size.into(), true)?;
        cpu.probe(linear, op.size.into(), true, crate::mem::Rights::Program)?;
        cpu.load_sized(op.seg, offset, op.size)?
    } else {
        cpu.reg(op.dst, 0, op.size)
    };
    let b = cpu.reg(op.src, 0, op.size);
    if count == 0 {
        if !op.has_mem() {
            cpu.set_reg(op.dst, 0, op.size, a);
        }
        return Ok(());
    }
    let (result, flags) = double(op.aux & form::LEFT != 0, a, b, count, op.size);
    if op.has_mem() {
        cpu.store_sized(op.seg, offset, op.size, result)?;
    } else {
        cpu.set_reg(op.dst, 0, op.size, result);
    }
    cpu.flags.set_result(op.size * 8 - 1, result, flags);
    Ok(())
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let doubled = |left: u8| {
        let mut op = context.op(i);
        let by_cl = i.op_kind(2) == OpKind::Register;
        op.aux = left | if by_cl { form::BY_CL } else { 0 };
        Selection::general(op, double_shift)
    };
    Some(match i.mnemonic() {
        M::Shl | M::Sal => shift::<Shl>(i, context),
        M::Shr => shift::<Shr>(i, context),
        M::Sar => shift::<Sar>(i, context),
        M::Rol => shift::<Rol>(i, context),
        M::Ror => shift::<Ror>(i, context),
        M::Rcl => shift::<Rcl>(i, context),
        M::Rcr => shift::<Rcr>(i, context),
        M::Shld => doubled(form::LEFT),
        M::Shrd => doubled(0),
        _ => return None,
    })
}
