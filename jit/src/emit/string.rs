//! REP MOVS and REP STOS of less than a page, done by the host's own.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use trivium_cpu::bits::rflags;
use trivium_interp::Cpu;
use trivium_interp::cpu::Mode;
use trivium_interp::native::Native;

use super::system::SYSTEM_FLAGS;
use super::{Emitted, Emitter};
use crate::enter::Exit;
use crate::regs::{RCX_HOME, at};

/// Where the host's address of the destination is kept meanwhile.
const DESTINATION: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, code) as i32;

/// What a repeated string instruction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Repeated {
    /// It copies; else it fills.
    copies: bool,
    /// Log2 of an element's bytes.
    scale: u8,
}

/// What an instruction of code with addresses of `word` bytes is, if it is one of these.
fn repeated(i: &Instruction, word: i32) -> Option<Repeated> {
    use Mnemonic as M;
    let (copies, scale) = match i.mnemonic() {
        M::Movsb => (true, 0),
        M::Movsw => (true, 1),
        M::Movsd => (true, 2),
        M::Movsq => (true, 3),
        M::Stosb => (false, 0),
        M::Stosw => (false, 1),
        M::Stosd => (false, 2),
        M::Stosq => (false, 3),
        _ => return None,
    };
    let (to, from) = match word {
        8 => (OpKind::MemoryESRDI, OpKind::MemorySegRSI),
        _ => (OpKind::MemoryESEDI, OpKind::MemorySegESI),
    };
    let usual = i.op0_kind() == to
        && (!copies || i.op1_kind() == from && i.memory_segment() == Register::DS);
    (usual && i.has_rep_prefix()).then_some(Repeated { copies, scale })
}

impl Emitter {
    /// Emits a repeated string instruction; the interpreter does those that are long, go backwards
    /// or leave a page.
    pub(super) fn string(&mut self, i: &Instruction, op: u8) -> Emitted {
        let Some(Repeated { copies, scale }) = repeated(i, self.word()) else {
            return Emitted::Not;
        };
        let long = self.mode.has(Mode::LONG);
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        let done = self.asm.new_dynamic_label();
        match long {
            true => dynasm!(self.asm ; .arch x64 ; mov rcx, Rq(RCX_HOME)),
            false => dynasm!(self.asm ; .arch x64 ; mov ecx, Rd(RCX_HOME)),
        }
        dynasm!(self.asm
            ; .arch x64
            ; jrcxz >none
            ; shrx rcx, Rq(RCX_HOME), r14
            ; jrcxz >short
        );
        self.jump_out(out);
        dynasm!(self.asm
            ; .arch x64
            ; none:
            ; jmp =>done
            ; short:
            // More than a page would reach what an empty entry of the TLB has as its own.
            ; mov r9d, i32::from(scale)
            ; shlx r9, Rq(RCX_HOME), r9
            ; shrx rcx, r9, r14
            ; jrcxz >fits
        );
        self.jump_out(out);
        dynasm!(self.asm
            ; .arch x64
            ; fits:
            ; mov r9d, rflags::DF as i32
            ; mov rcx, [r14 + SYSTEM_FLAGS]
            ; pext rcx, rcx, r9
            ; jrcxz >forwards
        );
        self.jump_out(out);
        dynasm!(self.asm ; .arch x64 ; forwards:);
        self.string_pointer(7);
        self.probe_string(scale, true, op);
        if copies {
            dynasm!(self.asm ; .arch x64 ; lea r8, [r8 + r9] ; mov [r14 + DESTINATION], r8);
            self.string_pointer(6);
            self.probe_string(scale, false, op);
            dynasm!(self.asm
                ; .arch x64
                ; lea r8, [r8 + r9]
                ; xchg rsi, r8
                ; mov r9, rdi
                ; mov rdi, [r14 + DESTINATION]
            );
        } else {
            dynasm!(self.asm ; .arch x64 ; lea r8, [r8 + r9] ; mov r9, rdi ; mov rdi, r8);
        }
        dynasm!(self.asm ; .arch x64 ; mov rcx, Rq(RCX_HOME));
        match (copies, scale) {
            (true, 0) => dynasm!(self.asm ; .arch x64 ; rep movsb),
            (true, 1) => dynasm!(self.asm ; .arch x64 ; rep movsw),
            (true, 2) => dynasm!(self.asm ; .arch x64 ; rep movsd),
            (true, _) => dynasm!(self.asm ; .arch x64 ; rep movsq),
            (false, 0) => dynasm!(self.asm ; .arch x64 ; rep stosb),
            (false, 1) => dynasm!(self.asm ; .arch x64 ; rep stosw),
            (false, 2) => dynasm!(self.asm ; .arch x64 ; rep stosd),
            (false, _) => dynasm!(self.asm ; .arch x64 ; rep stosq),
        }
        self.advance(7, 9, scale);
        if copies {
            self.advance(6, 8, scale);
        }
        dynasm!(self.asm ; .arch x64 ; mov Rd(RCX_HOME), 0 ; =>done);
        Emitted::Done
    }

    /// Puts the guest's RDI or RSI into R8.
    fn string_pointer(&mut self, register: u8) {
        match self.mode.has(Mode::LONG) {
            true => dynasm!(self.asm ; .arch x64 ; mov r8, Rq(register)),
            false => dynasm!(self.asm ; .arch x64 ; mov r8d, Rd(register)),
        }
    }

    /// Gives a pointer what it was, which is in another register, and what the count says more.
    fn advance(&mut self, register: u8, was: u8, scale: u8) {
        match scale {
            0 => dynasm!(self.asm ; .arch x64 ; mov rcx, Rq(RCX_HOME)),
            1 => dynasm!(self.asm ; .arch x64 ; lea rcx, [Rq(RCX_HOME) * 2]),
            2 => dynasm!(self.asm ; .arch x64 ; lea rcx, [Rq(RCX_HOME) * 4]),
            _ => dynasm!(self.asm ; .arch x64 ; lea rcx, [Rq(RCX_HOME) * 8]),
        }
        match self.mode.has(Mode::LONG) {
            true => dynasm!(self.asm ; .arch x64 ; lea Rq(register), [Rq(was) + rcx]),
            false => dynasm!(self.asm ; .arch x64 ; lea Rd(register), [Rq(was) + rcx]),
        }
    }
}
