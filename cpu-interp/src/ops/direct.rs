//! Direct stores: MOVDIRI, MOVDIR64B. Without caches they are stores like others.
//!
//! Intel SDM vol. 2, by name.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_cpu::state::ES;

use super::sse_form::{Double, Gpr, Single, sse_store};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

/// Bytes that MOVDIR64B moves.
const SIZE: u64 = 64;

/// MOVDIR64B: to where the register says in ES, which must be a multiple of 64.
fn movdir64b(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let to = cpu.regs[usize::from(op.dst)] & address_mask(op.size);
    let to = cpu.linear(ES as u8, to, SIZE, true)?;
    if !to.is_multiple_of(SIZE) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let from = cpu.linear(op.seg, cpu.offset(op), SIZE, false)?;
    let mask = if cpu.code64() { !0 } else { 0xffff_ffff };
    let mut values = [[0; 2]; SIZE as usize / 16];
    for (value, at) in values.iter_mut().zip((0..).step_by(16)) {
        *value = cpu.load_linear::<[u64; 2]>(from.wrapping_add(at) & mask, Rights::Unaligned)?;
    }
    // The line is within one page, so that the first store faults if any does.
    for (value, at) in values.into_iter().zip((0..).step_by(16)) {
        cpu.store_linear(to + at, value, Rights::Unaligned)?;
    }
    Ok(())
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    Some(match i.mnemonic() {
        Mnemonic::Movdiri if i.memory_size().size() == 8 => sse_store::<Double, Gpr>(i, context),
        Mnemonic::Movdiri => sse_store::<Single, Gpr>(i, context),
        Mnemonic::Movdir64b => Selection::general(context.op(i), movdir64b),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::{CODE, DATA, TABLES, TestMachine};
    use trivium_cpu::Vector;

    /// movdir64b rdi, [rsi]
    const MOVDIR64B: [u8; 5] = [0x66, 0x0f, 0x38, 0xf8, 0x3e];

    fn with(code: &[u8], to: u64, from: u64) -> TestMachine {
        let mut m = TestMachine::long(code);
        m.set(|s| {
            s.general.regs[7] = to;
            s.general.regs[6] = from;
        });
        m
    }

    #[test]
    fn movdir64b_moves_64_bytes_from_any_address() {
        let mut m = with(&MOVDIR64B, DATA + 64, DATA + 257);
        let bytes: [u8; 64] = std::array::from_fn(|n| n as u8 + 1);
        m.put(DATA + 257, &bytes);
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 5);
        assert_eq!(m.get::<64>(DATA + 64), bytes);
        assert_eq!((m.get::<8>(DATA + 56), m.get::<8>(DATA + 128)), ([0; 8], [0; 8]));
        // The address size decides how much of the register counts: movdir64b edi, [esi]
        let code = [&[0x67], &MOVDIR64B[..]].concat();
        let mut m = with(&code, 1 << 32 | DATA, DATA + 64);
        m.put(DATA + 64, &bytes);
        m.run(1);
        assert_eq!(m.get::<64>(DATA), bytes);
    }

    #[test]
    fn movdir64b_wants_an_aligned_destination_and_faults_as_a_store() {
        with(&MOVDIR64B, DATA + 32, DATA).raises(Vector::GP, Some(0));
        with(&MOVDIR64B, 1 << 47, DATA).raises(Vector::GP, Some(0));
        let unmapped = |to, from| {
            let mut m = with(&MOVDIR64B, to, from).at_cpl3();
            m.put_u64(TABLES + 0x2008, 0);
            m
        };
        unmapped(0x20_0000, DATA).raises(Vector::PF, Some(6));
        unmapped(DATA, 0x20_0000).raises(Vector::PF, Some(4));
    }

    #[test]
    fn movdiri_stores_a_register() {
        // movdiri [rdi], esi; movdiri [rdi+8], rsi
        let code = [0x0f, 0x38, 0xf9, 0x37, 0x48, 0x0f, 0x38, 0xf9, 0x77, 0x08];
        let mut m = with(&code, DATA, 0x0123_4567_89ab_cdef);
        m.put_u64(DATA, !0);
        m.run(2);
        let found = [m.get_u64(DATA), m.get_u64(DATA + 8)];
        assert_eq!(found, [0xffff_ffff_89ab_cdef, 0x0123_4567_89ab_cdef]);
        // With a register there is no such instruction.
        TestMachine::long(&[0x0f, 0x38, 0xf9, 0xf7]).raises(Vector::UD, None);
    }
}
