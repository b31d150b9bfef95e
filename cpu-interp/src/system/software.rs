//! Instructions that raise interrupts and exceptions: INT n, INT3, INTO, INT1, BOUND, UD0 to UD2.
//!
//! Intel SDM vol. 2, INT n; vol. 3A, 20.3.3.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::{cr4, rflags};
use trivium_cpu::{Exception, Vector};

use super::interrupt::{Source, enter_real_at, is_wide_tss, software};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::Rights;
use crate::op::{Op, Stop};

fn int(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let vector = op.imm as u8;
    if !cpu.v86() {
        return software(cpu, vector, Source::Software);
    }
    if cpu.control.cr4 & cr4::VME != 0 && !is_intercepted(cpu, vector)? {
        return redirected(cpu, vector);
    }
    if cpu.iopl() < 3 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    software(cpu, vector, Source::Software)
}

/// Whether the interrupt redirection map of the TSS says that the monitor wants an INT n. Intel SDM
/// vol. 3A, 20.3.3.
fn is_intercepted(cpu: &mut Cpu, vector: u8) -> Result<bool, Stop> {
    let tr = cpu.segments.tr;
    if !is_wide_tss(&tr) || tr.limit < 103 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let at = cpu.table_address(tr.base, IO_MAP);
    let map = u64::from(cpu.load_linear::<u16>(at, Rights::Processor)?);
    // The 32 bytes below the I/O map.
    let Some(offset) = (map + u64::from(vector / 8)).checked_sub(32) else {
        return Err(cpu.raise(Exception::gp(0)));
    };
    if offset > tr.limit.into() {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let at = cpu.table_address(tr.base, offset);
    let byte = cpu.load_linear::<u8>(at, Rights::Processor)?;
    Ok(byte >> (vector & 7) & 1 != 0)
}

/// Offset in the TSS of the offset of the I/O map.
pub(super) const IO_MAP: u64 = 102;

/// To the program's own handler, by the table at linear address 0.
fn redirected(cpu: &mut Cpu, vector: u8) -> Result<(), Stop> {
    let pointer = cpu.load_linear::<u32>(4 * u64::from(vector), Rights::Processor)?;
    let mut flags = cpu.rflags();
    let full = cpu.iopl() == 3;
    if !full {
        let virtual_if = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
        flags = flags & !rflags::IF | rflags::IOPL | virtual_if;
    }
    cpu.next_rip = enter_real_at(cpu, pointer, cpu.next_rip, flags)?;
    cpu.system_flags &= !if full { rflags::IF } else { rflags::VIF };
    Ok(())
}

fn int3(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    software(cpu, Vector::BP as u8, Source::Software)
}

fn into(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    match cpu.flags.of() {
        true => software(cpu, Vector::OF as u8, Source::Software),
        false => Ok(()),
    }
}

fn int1(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    software(cpu, Vector::DB as u8, Source::Int1)
}

/// The bounds are signed, and both inside.
fn bound(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.offset(op);
    let next = at.wrapping_add(op.size.into()) & crate::mem::address_mask(op.asize);
    let lower = cpu.load_sized(op.seg, at, op.size)?;
    let upper = cpu.load_sized(op.seg, next, op.size)?;
    let index = cpu.reg(op.dst, 0, op.size);
    let signed = |value: u64| match op.size {
        2 => i64::from(value as i16),
        _ => i64::from(value as i32),
    };
    match signed(index) < signed(lower) || signed(index) > signed(upper) {
        true => Err(cpu.raise(Exception::plain(Vector::BR))),
        false => Ok(()),
    }
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let op = context.op(i);
    Some(match i.mnemonic() {
        M::Int => Selection::general_end(op, int),
        M::Int3 => Selection::general_end(op, int3),
        M::Into => Selection::general_end(op, into),
        M::Int1 => Selection::general_end(op, int1),
        M::Bound => Selection::general(op, bound),
        M::Ud0 | M::Ud1 | M::Ud2 => crate::ops::control::undefined(),
        _ => return None,
    })
}
