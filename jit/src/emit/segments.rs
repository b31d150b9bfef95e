//! Segment registers: what is pushed of them, loads that change nothing, SWAPGS.
//!
//! Kernels load DS and ES with what is there already, over and over. Such a load changes nothing if
//! its selector is the present one and the descriptor is still what it was made from.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};
use trivium_cpu::state::{GS, Msrs, Segment, SegmentAttributes, Segments, TableRegister};
use trivium_interp::Cpu;
use trivium_interp::cpu::{Mode, SEG_BASE};

use super::memory::At;
use super::{Emitted, Emitter};
use crate::regs::{at, near};
use crate::x87::selector;

const SEGMENTS: usize = offset_of!(Cpu, segments);
const GDT_BASE: i32 = at(SEGMENTS + offset_of!(Segments, gdtr) + offset_of!(TableRegister, base));
const GDT_LIMIT: i32 = at(SEGMENTS + offset_of!(Segments, gdtr) + offset_of!(TableRegister, limit));
const OTHER_GS_BASE: i32 = at(offset_of!(Cpu, msrs) + offset_of!(Msrs, kernel_gs_base));

/// The descriptor of a segment of 4 GiB from 0 on, but for its attributes.
const FLAT: i64 = 0x000f_0000_0000_ffff;

/// Parts of a selector: the table's indicator, the descriptor's number, the requestor's privilege.
const LOCAL: i32 = 4;
const NUMBER: i32 = 0xfff8;
const RPL: i32 = 3;

/// The place of a part of a segment register in the state.
const fn part(segment: usize, offset: usize) -> i32 {
    at(SEGMENTS + offset_of!(Segments, regs) + size_of::<Segment>() * segment + offset)
}

impl Emitter {
    /// PUSH of a segment register, of the mode's usual size.
    pub(super) fn push_segment(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        if i.stack_pointer_increment() != -word {
            return Emitted::Not;
        }
        let from = selector(i.op0_register().number());
        let at = self.reach_stack(-word, true, op);
        dynasm!(self.asm ; .arch x64 ; movzx ecx, WORD [r14 + from]);
        let At { base, plus, .. } = at;
        match self.notes.pushes_word && word == 4 {
            true => dynasm!(self.asm ; .arch x64 ; mov [Rq(base) + r9 + plus], cx),
            false => self.store_word(at, 1),
        }
        self.move_stack(-word);
        Emitted::Done
    }

    /// MOV to DS or ES from a register.
    pub(super) fn load_segment(&mut self, i: &Instruction, op: u8) -> Emitted {
        let Some(segment) = self.reloaded(i).filter(|_| i.op1_kind() == OpKind::Register) else {
            return Emitted::Not;
        };
        let from = self.in_register(i.op1_register(), 8);
        dynasm!(self.asm ; .arch x64 ; movzx r8d, Rw(from));
        self.load_again(segment, op);
        Emitted::Done
    }

    /// POP of DS or ES.
    pub(super) fn pop_segment(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        let usual = i.stack_pointer_increment() == word;
        let Some(segment) = self.reloaded(i).filter(|_| usual) else { return Emitted::Not };
        let At { base, plus, .. } = self.reach_stack(0, false, op);
        dynasm!(self.asm ; .arch x64 ; movzx r8d, WORD [Rq(base) + r9 + plus]);
        self.load_again(segment, op);
        self.move_stack(word);
        Emitted::Done
    }

    /// The number of the segment register that an instruction loads, if it is known to be flat.
    fn reloaded(&self, i: &Instruction) -> Option<usize> {
        let register = i.op0_register();
        let flat = self.mode.has(Mode::FLAT) && !self.mode.has(Mode::LONG);
        let data = matches!(register, Register::DS | Register::ES);
        let host = self.routines.host.bmi2();
        (flat && data && host && !self.mode.has(Mode::USER)).then(|| register.number())
    }

    /// Goes on if a load of a flat segment register with the selector in R8 changes nothing.
    fn load_again(&mut self, segment: usize, op: u8) {
        self.only_at_cpl_0(op);
        let out = self.resume(op);
        let attributes = part(segment, offset_of!(Segment, attributes));
        dynasm!(self.asm
            ; .arch x64
            ; movzx ecx, WORD [r14 + selector(segment)]
            ; not rcx
            ; lea rcx, [rcx + r8 + 1]
        );
        self.unless_zero(out);
        // Of the global table, and not its first.
        dynasm!(self.asm ; .arch x64 ; mov ecx, LOCAL ; pext ecx, r8d, ecx);
        self.unless_zero(out);
        dynasm!(self.asm
            ; .arch x64
            ; mov ecx, NUMBER
            ; pext ecx, r8d, ecx
            ; jrcxz >refused
            ; lea r9, [rcx * 8 + 7]
            ; movzx ecx, WORD [r14 + GDT_LIMIT]
            ; not r9
            ; lea rcx, [rcx + r9 + 1]
            ; shrx rcx, rcx, r14
            ; jrcxz >inside
            ; refused:
        );
        self.jump_out(out);
        // The privilege that it asks for is not less than the segment's.
        dynasm!(self.asm
            ; .arch x64
            ; inside:
            ; mov ecx, RPL
            ; pext r9d, r8d, ecx
            ; mov ecx, 3 << 5
            ; not r9
            ; movzx r8d, WORD [r14 + attributes]
            ; pext ecx, r8d, ecx
            ; lea rcx, [rcx + r9 + 1]
            ; shrx rcx, rcx, r14
        );
        self.unless_zero(out);
        dynasm!(self.asm
            ; .arch x64
            ; movzx r8d, WORD [r14 + selector(segment)]
            ; mov ecx, NUMBER
            ; pext r8d, r8d, ecx
            ; mov rcx, [r14 + GDT_BASE]
            ; lea r8d, [rcx + r8 * 8]
        );
        self.probe(8, 1, false, out);
        dynasm!(self.asm
            ; .arch x64
            ; mov rcx, [r8 + r9]
            ; movzx r8d, WORD [r14 + attributes]
            // Bits 40 to 55 of the descriptor.
            ; rorx r8, r8, 24
            ; not r8
            ; lea rcx, [rcx + r8 + 1]
            ; mov r8, QWORD -FLAT
            ; lea rcx, [rcx + r8]
        );
        self.unless_zero(out);
    }

    /// SWAPGS.
    pub(super) fn swap_gs(&mut self, op: u8) -> Emitted {
        self.only_at_cpl_0(op);
        let base = part(GS, offset_of!(Segment, base));
        dynasm!(self.asm
            ; .arch x64
            ; mov r8, [r14 + base]
            ; mov r9, [r14 + OTHER_GS_BASE]
            ; mov [r14 + base], r9
            ; mov [BYTE r14 + near(SEG_BASE + GS as u8)], r9
            ; mov [r14 + OTHER_GS_BASE], r8
        );
        Emitted::Done
    }
}

// They are bits 40 to 55 of a descriptor, but for those of the limit.
const _: () = assert!(SegmentAttributes::ALL == 0xf0ff);
