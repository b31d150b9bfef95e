//! BMI1 and BMI2. Intel SDM vol. 2; AMD64 APM vol. 3.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::Exception;
use trivium_cpu::bits::rflags::{CF, SF, ZF};

use crate::cpu::{Cpu, mask_of};
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};

/// An operand that may be in memory; `register` if it is not.
fn operand(cpu: &mut Cpu, op: &Op, register: u8) -> Result<u64, Stop> {
    match op.has_mem() {
        true => cpu.load_sized(op.seg, cpu.offset(op), op.size),
        false => Ok(cpu.reg(register, 0, op.size)),
    }
}

/// #UD where there are no VEX prefixes: real and virtual-8086 mode.
fn ready(cpu: &mut Cpu) -> Result<(), Stop> {
    match cpu.protected() && !cpu.v86() {
        true => Ok(()),
        false => Err(cpu.raise(Exception::ud())),
    }
}

fn bits(op: &Op) -> u32 {
    u32::from(op.size) * 8
}

/// Writes a result and its flags: ZF and SF by it, CF as given, OF clear. AF and PF are undefined.
fn finish(cpu: &mut Cpu, op: &Op, result: u64, cf: bool) {
    cpu.set_reg(op.dst, 0, op.size, result);
    let zf = if result == 0 { ZF } else { 0 };
    let sf = if result >> (bits(op) - 1) & 1 != 0 { SF } else { 0 };
    cpu.flags.set_explicit(zf | sf | if cf { CF } else { 0 });
}

/// The first source is a register, the second may be in memory.
fn andn(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let b = operand(cpu, op, op.aux2)?;
    let result = !cpu.reg(op.src, 0, op.size) & b;
    finish(cpu, op, result, false);
    Ok(())
}

/// BLSI, BLSMSK, BLSR: what is computed, and whether CF says that the source is zero or that it is
/// not.
fn lowest(cpu: &mut Cpu, op: &Op, f: fn(u64) -> u64, cf_of_zero: bool) -> Result<(), Stop> {
    ready(cpu)?;
    let source = operand(cpu, op, op.src)?;
    let result = f(source) & mask_of(bits(op));
    finish(cpu, op, result, (source == 0) == cf_of_zero);
    Ok(())
}

/// The source may be in memory, the control is a register.
fn bextr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let source = operand(cpu, op, op.src)?;
    let control = cpu.reg(op.aux2, 0, op.size);
    let (start, length) = ((control & 0xff) as u32, (control >> 8 & 0xff) as u32);
    let result = source.checked_shr(start).unwrap_or(0) & mask_of(length.min(64));
    cpu.set_reg(op.dst, 0, op.size, result);
    cpu.flags.set_explicit(if result == 0 { ZF } else { 0 });
    Ok(())
}

fn bzhi(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let source = operand(cpu, op, op.src)?;
    let index = (cpu.reg(op.aux2, 0, op.size) & 0xff) as u32;
    finish(cpu, op, source & mask_of(index.min(64)), index >= bits(op));
    Ok(())
}

/// RDX by the source: the high half goes to operand 0, the low one to operand 1.
fn mulx(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let source = operand(cpu, op, op.aux2)?;
    let product = u128::from(cpu.reg(RDX, 0, op.size)) * u128::from(source);
    let mask = mask_of(bits(op));
    cpu.set_reg(op.src, 0, op.size, product as u64 & mask);
    cpu.set_reg(op.dst, 0, op.size, (product >> bits(op)) as u64 & mask);
    Ok(())
}

const RDX: u8 = 2;

/// PDEP and PEXT: the mask may be in memory.
fn scatter(cpu: &mut Cpu, op: &Op, f: fn(u64, u64) -> u64) -> Result<(), Stop> {
    ready(cpu)?;
    let mask = operand(cpu, op, op.aux2)?;
    let result = f(cpu.reg(op.src, 0, op.size), mask);
    cpu.set_reg(op.dst, 0, op.size, result);
    Ok(())
}

/// The low bits of `source`, at the places of the bits of `mask`.
fn deposit(source: u64, mask: u64) -> u64 {
    let (mut left, mut result, mut source) = (mask, 0, source);
    while left != 0 {
        let lowest = left & left.wrapping_neg();
        result |= if source & 1 != 0 { lowest } else { 0 };
        source >>= 1;
        left &= left - 1;
    }
    result
}

/// The bits of `source` at the places of the bits of `mask`, together.
fn extract(source: u64, mask: u64) -> u64 {
    let (mut left, mut result, mut place) = (mask, 0, 0);
    while left != 0 {
        result |= u64::from(source >> left.trailing_zeros() & 1) << place;
        place += 1;
        left &= left - 1;
    }
    result
}

/// Shifts without flags: `count` is operand 2.
fn shift(cpu: &mut Cpu, op: &Op, f: fn(u64, u32, u32) -> u64) -> Result<(), Stop> {
    ready(cpu)?;
    let source = operand(cpu, op, op.src)?;
    let count = cpu.reg(op.aux2, 0, op.size) as u32 & (bits(op) - 1);
    let result = f(source, count, bits(op)) & mask_of(bits(op));
    cpu.set_reg(op.dst, 0, op.size, result);
    Ok(())
}

fn sarx(source: u64, count: u32, bits: u32) -> u64 {
    let unused = 64 - bits;
    ((source << unused) as i64 >> unused >> count) as u64
}

fn rorx(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    ready(cpu)?;
    let source = operand(cpu, op, op.src)?;
    let result = match op.size {
        8 => source.rotate_right(op.imm as u32 & 63),
        _ => (source as u32).rotate_right(op.imm as u32 & 31).into(),
    };
    cpu.set_reg(op.dst, 0, op.size, result);
    Ok(())
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match i.mnemonic() {
        M::Andn => andn,
        M::Bextr if i.op_kind(2) == OpKind::Register => bextr,
        M::Blsi => |cpu, op| lowest(cpu, op, |x| x & x.wrapping_neg(), false),
        M::Blsmsk => |cpu, op| lowest(cpu, op, |x| x ^ x.wrapping_sub(1), true),
        M::Blsr => |cpu, op| lowest(cpu, op, |x| x & x.wrapping_sub(1), true),
        M::Bzhi => bzhi,
        M::Mulx => mulx,
        M::Pdep => |cpu, op| scatter(cpu, op, deposit),
        M::Pext => |cpu, op| scatter(cpu, op, extract),
        M::Rorx => rorx,
        M::Sarx => |cpu, op| shift(cpu, op, sarx),
        M::Shlx => |cpu, op| shift(cpu, op, |x, n, _| x << n),
        M::Shrx => |cpu, op| shift(cpu, op, |x, n, _| x >> n),
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deposit_and_extract_are_as_in_the_manuals_figures() {
        // Intel SDM vol. 2, PDEP and PEXT, their example figures' principle on bytes.
        assert_eq!(deposit(0b1011, 0b1010_0101), 0b1000_0101);
        assert_eq!(extract(0b1000_0101, 0b1010_0101), 0b1011);
        for mask in [0, !0, 0x8000_0000_0000_0001, 0x00ff_f0f0_1234_5678] {
            let all = extract(!0, mask);
            assert_eq!(all, mask_of(mask.count_ones()));
            assert_eq!(deposit(all, mask), mask);
        }
    }

    #[test]
    fn an_arithmetic_shift_spreads_the_sign_of_its_size() {
        assert_eq!(sarx(0x8000_0000, 4, 32) & 0xffff_ffff, 0xf800_0000);
        assert_eq!(sarx(0x8000_0000, 4, 64), 0x0800_0000);
    }
}
