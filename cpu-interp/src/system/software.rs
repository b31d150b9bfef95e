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
    cpu.single_step = false;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, DATA, IDT, STACK, STACK0, TSS, TestMachine, gate, sel};

    #[test]
    fn int3_and_into_push_the_next_instruction() {
        let mut m = TestMachine::protected(&[0xcc]);
        assert_eq!(m.run_to_exception(), (3, CODE as u32 + 1));
        let mut m = TestMachine::protected(&[0xce]);
        m.set(|s| s.general.rflags |= rflags::OF);
        assert_eq!(m.run_to_exception(), (4, CODE as u32 + 1));
        // RF is not set in the image of a trap.
        assert_eq!(m.get_u32(STACK - 4), 0x802);
        let mut m = TestMachine::protected(&[0xce]);
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 1);
    }

    #[test]
    fn int1_needs_no_permission() {
        let mut m = TestMachine::protected(&[0xf1]).at_cpl3();
        m.put_u64(IDT + 8, gate(sel::CODE, crate::testing::HANDLERS + 16, 0x8e));
        assert_eq!(m.run_to_exception(), (1, CODE as u32 + 1));
    }

    #[test]
    fn bound_is_signed_and_includes_both_ends() {
        // bound eax, [0xb000]
        for (index, good) in [(-5_i32, true), (7, true), (-6, false), (8, false)] {
            let mut m = TestMachine::protected(&[0x62, 0x05, 0, 0xb0, 0, 0]);
            m.put(DATA, &(-5_i32).to_le_bytes());
            m.put(DATA + 4, &7_i32.to_le_bytes());
            m.set(|s| s.general.regs[0] = u64::from(index as u32));
            if good {
                m.run(1);
                assert_eq!(m.state().general.rip, CODE + 6);
            } else {
                m.raises(Vector::BR, None);
            }
        }
    }

    #[test]
    fn undefined_instructions() {
        for code in [&[0x0f, 0x0b][..], &[0x0f, 0xb9, 0xc0], &[0x0f, 0xff, 0xc0]] {
            TestMachine::long(code).raises(Vector::UD, None);
        }
    }

    #[test]
    fn int_n_in_virtual_8086_mode_needs_iopl_3() {
        TestMachine::protected(&[0xcd, 0x21]).in_v86(2).raises(Vector::GP, Some(0));
        let mut m = TestMachine::protected(&[0xcd, 0x21]).in_v86(3);
        assert_eq!(m.run_to_handler(), 0x21);
        assert_eq!(m.get_u32(STACK0 - 36), CODE as u32 + 2);
        // INT3 does not.
        let mut m = TestMachine::protected(&[0xcc]).in_v86(0);
        assert_eq!(m.run_to_handler(), 3);
    }

    /// INT 21h in virtual-8086 mode: gives where it led, and what was pushed as FLAGS.
    fn method(vme: bool, iopl: u64, intercepted: bool) -> (u64, u32) {
        let mut m = TestMachine::protected(&[0xcd, 0x21]).in_v86(iopl);
        m.put(TSS + 102, &136_u16.to_le_bytes());
        m.put(TSS + 104 + 0x21 / 8, &[u8::from(intercepted) << 1]);
        m.put(4 * 0x21, &[0x34, 0x12, 0, 0x01]);
        m.put(0x1000 + 0x1234, &[0xf4]);
        m.set(|s| {
            s.control.cr4 |= if vme { cr4::VME } else { 0 };
            s.segments.tr.limit = 200;
            s.general.rflags |= rflags::VIF | rflags::TF;
        });
        m.run(1);
        let state = m.state();
        let rip = state.general.rip;
        let pushed =
            if rip == 0x1234 { m.get_u16(STACK - 2).into() } else { m.get_u32(STACK0 - 28) };
        assert_eq!(state.general.rflags & rflags::TF, 0);
        (rip, pushed)
    }

    #[test]
    fn software_interrupts_of_virtual_8086_code_go_where_table_20_2_says() {
        let handler = |vector: u64| crate::testing::HANDLERS + 16 * vector;
        // Method 1: VME clear, IOPL 3. Methods 2 and 3 and 4.
        assert_eq!(method(false, 3, false), (handler(0x21), 0xa_3102));
        // A fault is no instruction: the first of its handler, HLT, is.
        assert_eq!(method(false, 0, false).0, handler(13) + 1);
        assert_eq!(method(true, 2, true).0, handler(13) + 1);
        assert_eq!(method(true, 3, true), (handler(0x21), 0xa_3102));
        // Method 5: as they are. Method 6: IOPL 3, and VIF in the place of IF.
        assert_eq!(method(true, 3, false), (0x1234, 0x3102));
        assert_eq!(method(true, 0, false), (0x1234, 0x3302));
    }

    #[test]
    fn virtual_mode_extensions_redirect_to_the_program() {
        let mut m = TestMachine::protected(&[0xcd, 0x21]).in_v86(0);
        m.put(TSS + 102, &136_u16.to_le_bytes());
        m.put(4 * 0x21, &[0x34, 0x12, 0, 0x01]);
        m.set(|s| {
            s.control.cr4 |= cr4::VME;
            s.segments.tr.limit = 200;
            s.general.rflags |= rflags::VIF;
        });
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.segments.regs[1].selector), (0x1234, 0x100));
        assert_eq!((m.get_u16(STACK - 2), m.get_u16(STACK - 6)), (0x3202, CODE as u16 + 2));
        assert_eq!(state.general.rflags & (rflags::VIF | rflags::VM), rflags::VM);
        // The map has this one for the monitor.
        let mut m = TestMachine::protected(&[0xcd, 0x21]).in_v86(0);
        m.put(TSS + 102, &136_u16.to_le_bytes());
        m.put(TSS + 104 + 0x21 / 8, &[2]);
        m.set(|s| {
            s.control.cr4 |= cr4::VME;
            s.segments.tr.limit = 200;
        });
        m.raises(Vector::GP, Some(0));
    }
}
