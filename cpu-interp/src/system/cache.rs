//! Caches, of which there are none: CLFLUSH, CLFLUSHOPT, CLWB, CLZERO, INVD, WBINVD, WBNOINVD.
//!
//! Intel SDM vol. 2 and AMD APM vol. 3, by name.

use iced_x86::{Code, Instruction, Mnemonic, Register};
use trivium_cpu::state::SegmentAttributes as A;

use crate::cpu::{Cpu, Mode};
use crate::decode::context::segment_number;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

/// Bytes of a line, as CPUID says.
const LINE: u64 = 64;

/// INVD, WBINVD, WBNOINVD: nothing is to be written back.
fn all_caches(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()
}

/// CLFLUSH and its like do nothing but be able to fault as a load of a byte does, which goes
/// through code that cannot be read too.
fn flush_line(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let offset = cpu.offset(op) & address_mask(op.asize);
    let linear = line_address(cpu, op.seg, offset)?;
    cpu.probe(linear, 1, false, Rights::Program)
}

fn line_address(cpu: &mut Cpu, seg: u8, offset: u64) -> Result<u64, Stop> {
    let segment = &cpu.segments.regs[usize::from(seg)];
    let in_code = segment.attributes.has(A::CODE) && offset <= segment.limit.into();
    if in_code && !cpu.code64() {
        return Ok(offset.wrapping_add(segment.base) & 0xffff_ffff);
    }
    cpu.linear(seg, offset, 1, false)
}

/// CLZERO: zeros for the line that RAX is in.
fn zero_line(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let offset = cpu.regs[0] & address_mask(op.asize);
    let line = cpu.linear(op.seg, offset, 1, true)? & !(LINE - 1);
    if !cpu.mode.has(Mode::LONG) {
        // All of it must be in the segment, as a Zen 5 has it; it begins before the segment does
        // where the base is not a multiple of the line's size.
        let base = cpu.segments.regs[usize::from(op.seg)].base;
        cpu.linear(op.seg, line.wrapping_sub(base) & 0xffff_ffff, LINE, true)?;
    }
    // A line is within one page, so that the first store faults if any does.
    for n in 0..LINE / 8 {
        cpu.store_linear(line + 8 * n, 0_u64, Rights::Program)?;
    }
    Ok(())
}

/// The operand of CLZERO is not encoded: its address size follows from the instruction's form.
fn with_line(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    op.asize = match i.code() {
        Code::Clzerow => 2,
        Code::Clzerod => 4,
        _ => 8,
    };
    let prefix = i.segment_prefix();
    let counts = matches!(prefix, Register::FS | Register::GS) || !context.mode.has(Mode::LONG);
    op.seg = segment_number(if counts { prefix } else { Register::DS });
    op
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Invd | M::Wbinvd | M::Wbnoinvd => Selection::general(context.op(i), all_caches),
        M::Clflush | M::Clflushopt | M::Clwb => Selection::general(context.op(i), flush_line),
        M::Clzero => Selection::general(with_line(i, context), zero_line),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{CODE, DATA, TABLES, TestMachine, flat, sel};
    use trivium_cpu::Vector;
    use trivium_cpu::state::{DS, FS};

    const CLZERO: [u8; 3] = [0x0f, 0x01, 0xfc];
    /// On [RAX] or [EAX]: CLFLUSH, CLFLUSHOPT, CLWB.
    const FLUSHES: [&[u8]; 3] =
        [&[0x0f, 0xae, 0x38], &[0x66, 0x0f, 0xae, 0x38], &[0x66, 0x0f, 0xae, 0x30]];

    fn at(mut m: TestMachine, address: u64) -> TestMachine {
        m.set(|s| s.general.regs[0] = address);
        m
    }

    /// Takes a page away from all.
    fn unmapped(mut m: TestMachine) -> TestMachine {
        m.put_u64(TABLES + 0x2008, 0);
        m
    }

    #[test]
    fn flushing_a_line_faults_as_a_load_of_a_byte_does() {
        for code in FLUSHES {
            let mut m = at(TestMachine::long(code).at_cpl3(), DATA + 1);
            m.run(1);
            assert_eq!(m.state().general.rip, CODE + code.len() as u64);
            let absent = unmapped(TestMachine::long(code)).at_cpl3();
            at(absent, 0x20_0000).raises(Vector::PF, Some(4));
            at(TestMachine::long(code), 1 << 47).raises(Vector::GP, Some(0));
            let mut m = at(TestMachine::protected(code), DATA);
            m.set(|s| s.segments.regs[DS].limit = DATA as u32 - 1);
            m.raises(Vector::GP, Some(0));
        }
    }

    /// SDM vol. 2, CLFLUSH: allowed in an execute-only segment.
    #[test]
    fn flushing_goes_through_code_that_cannot_be_read() {
        for code in FLUSHES {
            let through_cs = [&[0x2e], code].concat();
            let mut m = at(TestMachine::protected(&through_cs), DATA);
            m.set(|s| s.segments.regs[1] = flat(sel::CODE, 0xc099));
            m.run(1);
            assert_eq!(m.state().general.rip, CODE + through_cs.len() as u64);
        }
    }

    #[test]
    fn clzeros_line_must_be_in_the_segment() {
        let in_segment = |base: u64, limit: u32| {
            let mut m = at(TestMachine::protected(&CLZERO), 70);
            m.set(|s| (s.segments.regs[DS].base, s.segments.regs[DS].limit) = (base, limit));
            m
        };
        in_segment(DATA, 127).run(1);
        in_segment(DATA, 126).raises(Vector::GP, Some(0));
        // 70 bytes from a base of 63 are in the third line, 7 bytes from there.
        in_segment(DATA + 63, 128).run(1);
        let mut m = at(TestMachine::protected(&CLZERO), 0);
        m.set(|s| s.segments.regs[DS].base = DATA + 3);
        m.set(|s| s.segments.regs[DS].limit = 0xffff);
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn clzero_zeroes_the_line_that_rax_is_in() {
        for at_start in [0, 1, 63] {
            let mut m = at(TestMachine::long(&CLZERO).at_cpl3(), DATA + 64 + at_start);
            m.put(DATA, &[0xff; 192]);
            m.run(1);
            assert_eq!(m.get::<64>(DATA), [0xff; 64]);
            assert_eq!(m.get::<64>(DATA + 64), [0; 64]);
            assert_eq!(m.get::<64>(DATA + 128), [0xff; 64]);
        }
        // In EAX, and in another segment.
        let mut m = at(TestMachine::long(&[0x64, 0x67, 0x0f, 0x01, 0xfc]), 5 << 32 | 0x40);
        m.set(|s| s.segments.regs[FS].base = DATA);
        m.put(DATA + 0x40, &[0xff; 64]);
        m.run(1);
        assert_eq!(m.get::<64>(DATA + 0x40), [0; 64]);
    }

    #[test]
    fn clzero_faults_as_a_store_does() {
        at(TestMachine::long(&CLZERO), 1 << 47).raises(Vector::GP, Some(0));
        let absent = unmapped(TestMachine::long(&CLZERO)).at_cpl3();
        at(absent, 0x20_0000).raises(Vector::PF, Some(6));
    }

    #[test]
    fn caches_as_a_whole_are_for_cpl0() {
        // invd; wbinvd; wbnoinvd
        let codes: [&[u8]; 3] = [&[0x0f, 0x08], &[0x0f, 0x09], &[0xf3, 0x0f, 0x09]];
        for code in codes {
            TestMachine::long(code).at_cpl3().raises(Vector::GP, Some(0));
            let mut m = TestMachine::long(code);
            m.run(1);
            assert_eq!(m.state().general.rip, CODE + code.len() as u64);
        }
    }
}
