//! MUL, IMUL, DIV, IDIV.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags::{CF, OF};
use trivium_cpu::{Exception, Vector};

use crate::block::{Block, BlockCache};
use crate::cpu::{Cpu, mask_of};
use crate::decode::{Context, Selection};
use crate::mem::{Addressing, Int};
use crate::op::{Op, Stop};
use crate::{load, next, pick, pick_size};

const RAX: u8 = 0;
const RDX: u8 = 2;

/// The value as a signed number of width `sign + 1`.
#[inline(always)]
fn signed(value: u64, sign: u8) -> i64 {
    let up = 63 - sign;
    (value << up) as i64 >> up
}

/// The product cut to the width, and CF and OF if that lost something.
#[inline(always)]
fn multiply<T: Int>(a: u64, b: u64) -> (u64, u64) {
    if T::BYTES == 8 {
        let (result, lost) = (a as i64).overflowing_mul(b as i64);
        return (result as u64, if lost { CF | OF } else { 0 });
    }
    let product = signed(a, T::SIGN).wrapping_mul(signed(b, T::SIGN));
    let result = product as u64 & T::MASK;
    (result, if signed(result, T::SIGN) == product { 0 } else { CF | OF })
}

fn imul_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let (result, flags) = multiply::<T>(T::get(cpu, op.dst, 0), T::get(cpu, op.src, 0));
    T::set(cpu, op.dst, 0, result);
    cpu.flags.set_result(T::SIGN, result, flags);
    next!(cpu, rest, block, links)
}

fn imul_reg_imm<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let (result, flags) = multiply::<T>(T::get(cpu, op.src, 0), op.imm & T::MASK);
    T::set(cpu, op.dst, 0, result);
    cpu.flags.set_result(T::SIGN, result, flags);
    next!(cpu, rest, block, links)
}

fn imul_mem<A: Addressing, T: Int, const IMM: bool>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let a: u64 = load!(A, T, cpu, op, rest, block).into();
    let b = if IMM { op.imm & T::MASK } else { T::get(cpu, op.dst, 0) };
    let (result, flags) = multiply::<T>(a, b);
    T::set(cpu, op.dst, 0, result);
    cpu.flags.set_result(T::SIGN, result, flags);
    next!(cpu, rest, block, links)
}

/// The only operand of the one-operand forms.
fn operand(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
    if op.has_mem() {
        cpu.load_sized(op.seg, cpu.offset(op), op.size)
    } else {
        Ok(cpu.reg(op.dst, op.dst_shift, op.size))
    }
}

/// Writes a double-width value to rDX:rAX, or to AX for bytes.
fn set_pair(cpu: &mut Cpu, size: u8, low: u64, high: u64) {
    if size == 1 {
        cpu.set_reg(RAX, 0, 2, low & 0xff | (high & 0xff) << 8);
    } else {
        cpu.set_reg(RAX, 0, size, low);
        cpu.set_reg(RDX, 0, size, high);
    }
}

fn mul<const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let b = operand(cpu, op)?;
    let a = cpu.reg(RAX, 0, op.size);
    let bits = u32::from(op.size) * 8;
    let (mask, sign) = (mask_of(bits), (bits - 1) as u8);
    let product = if SIGNED {
        (i128::from(signed(a, sign)) * i128::from(signed(b, sign))) as u128
    } else {
        u128::from(a) * u128::from(b)
    };
    let (low, high) = (product as u64 & mask, (product >> bits) as u64 & mask);
    set_pair(cpu, op.size, low, high);
    let plain = if SIGNED { signed(low, sign) as i128 as u128 == product } else { high == 0 };
    cpu.flags.set_result(sign, low, if plain { 0 } else { CF | OF });
    Ok(())
}

/// rDX:rAX, or AX for bytes, zero-extended.
fn pair(cpu: &Cpu, size: u8) -> u128 {
    if size == 1 {
        return u128::from(cpu.reg(RAX, 0, 2));
    }
    let high = u128::from(cpu.reg(RDX, 0, size));
    high << (u32::from(size) * 8) | u128::from(cpu.reg(RAX, 0, size))
}

fn div(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let divisor = operand(cpu, op)?;
    let dividend = pair(cpu, op.size);
    let mask = mask_of(u32::from(op.size) * 8);
    // Most dividends fit in 64 bits, and the host divides those much faster.
    let (quotient, remainder) = match (u64::try_from(dividend), divisor) {
        (_, 0) => return Err(cpu.raise(Exception::plain(Vector::DE))),
        (Ok(dividend), _) => (u128::from(dividend / divisor), dividend % divisor),
        (Err(_), _) => {
            let divisor = u128::from(divisor);
            (dividend / divisor, (dividend % divisor) as u64)
        }
    };
    if quotient > u128::from(mask) {
        return Err(cpu.raise(Exception::plain(Vector::DE)));
    }
    set_pair(cpu, op.size, quotient as u64, remainder);
    Ok(())
}

fn idiv(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let bits = u32::from(op.size) * 8;
    let sign = (bits - 1) as u8;
    let divisor = i128::from(signed(operand(cpu, op)?, sign));
    let up = 128 - 2 * bits;
    let dividend = (pair(cpu, op.size) << up) as i128 >> up;
    let quotient = match (i64::try_from(dividend), divisor) {
        (_, 0) => None,
        (Ok(small), _) if small != i64::MIN => {
            Some((i128::from(small / divisor as i64), i128::from(small % divisor as i64)))
        }
        // -2^127 / -1 does not fit even here.
        _ => dividend.checked_div(divisor).map(|q| (q, dividend % divisor)),
    };
    let fits = |q: i128| q >= -(1 << (bits - 1)) && q < 1 << (bits - 1);
    match quotient {
        Some((quotient, remainder)) if fits(quotient) => {
            set_pair(cpu, op.size, quotient as u64, remainder as u64);
            Ok(())
        }
        _ => Err(cpu.raise(Exception::plain(Vector::DE))),
    }
}

fn imul(i: &Instruction, context: &Context) -> Selection {
    let op = context.op(i);
    let kind = context.address_kind(&op);
    match (i.op_count(), i.op_count() > 1 && i.op_kind(1) == OpKind::Memory) {
        (1, _) => Selection::general(op, mul::<true>),
        (2, false) => Selection::register(op, pick_size!(op.size, imul_reg)),
        (2, true) => Selection::memory(op, pick!(kind, op.size, imul_mem, false)),
        (_, false) => Selection::register(op, pick_size!(op.size, imul_reg_imm)),
        (_, true) => Selection::memory(op, pick!(kind, op.size, imul_mem, true)),
    }
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Imul => imul(i, context),
        M::Mul => Selection::general(context.op(i), mul::<false>),
        M::Div => Selection::general(context.op(i), div),
        M::Idiv => Selection::general(context.op(i), idiv),
        _ => return None,
    })
}
