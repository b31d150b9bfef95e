//! REP MOVS and REP STOS of less than a page, done by the host's own.

use std::mem::offset_of;

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use trivium_cpu::bits::rflags;
use trivium_interp::Cpu;
use trivium_interp::cpu::Mode;
use trivium_interp::native::Native;

use super::system::SYSTEM_FLAGS;
use super::{Emitted, Emitter, Way};
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

/// Whether an instruction loads, stores, and the bytes of its element, if it is one of MOVS, STOS and
/// LODS without a prefix.
fn single(i: &Instruction, word: i32) -> Option<(bool, bool, usize)> {
    use Mnemonic as M;
    let (loads, stores, size) = match i.mnemonic() {
        M::Movsb => (true, true, 1),
        M::Movsw => (true, true, 2),
        M::Movsd => (true, true, 4),
        M::Movsq => (true, true, 8),
        M::Stosb => (false, true, 1),
        M::Stosw => (false, true, 2),
        M::Stosd => (false, true, 4),
        M::Stosq => (false, true, 8),
        M::Lodsb => (true, false, 1),
        M::Lodsw => (true, false, 2),
        M::Lodsd => (true, false, 4),
        M::Lodsq => (true, false, 8),
        _ => return None,
    };
    let (to, from) = match word {
        8 => (OpKind::MemoryESRDI, OpKind::MemorySegRSI),
        _ => (OpKind::MemoryESEDI, OpKind::MemorySegESI),
    };
    let from_usual = i.op1_kind() == from && i.memory_segment() == Register::DS;
    let usual = (!stores || i.op0_kind() == to) && (!loads || from_usual);
    (usual && !i.has_rep_prefix() && !i.has_repne_prefix()).then_some((loads, stores, size))
}

impl Emitter {
    /// Emits a repeated string instruction; the interpreter does those that are long, go backwards
    /// or leave a page.
    pub(super) fn string(&mut self, i: &Instruction, op: u8) -> Emitted {
        let Some(Repeated { copies, scale }) = repeated(i, self.word()) else {
            return self.single_string(i, op);
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
        );
        self.forwards_only(out);
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

    /// MOVS, STOS and LODS of one element.
    fn single_string(&mut self, i: &Instruction, op: u8) -> Emitted {
        let Some((loads, stores, size)) = single(i, self.word()) else { return Emitted::Not };
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        self.forwards_only(out);
        if loads {
            self.string_pointer(6);
            let plus = self.reach(Way::Alone, size, false, op);
            let to = if stores { 1 } else { 0 };
            match size {
                1 => dynasm!(self.asm ; .arch x64 ; mov Rb(to), [r8 + r9 + plus]),
                2 => dynasm!(self.asm ; .arch x64 ; mov Rw(to), [r8 + r9 + plus]),
                4 => dynasm!(self.asm ; .arch x64 ; mov Rd(to), [r8 + r9 + plus]),
                _ => dynasm!(self.asm ; .arch x64 ; mov Rq(to), [r8 + r9 + plus]),
            }
        }
        if stores {
            if loads {
                dynasm!(self.asm ; .arch x64 ; mov [r14 + DESTINATION], rcx);
            }
            self.string_pointer(7);
            let plus = self.reach(Way::Alone, size, true, op);
            if loads {
                dynasm!(self.asm ; .arch x64 ; mov rcx, [r14 + DESTINATION]);
            }
            let from = if loads { 1 } else { 0 };
            match size {
                1 => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9 + plus], Rb(from)),
                2 => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9 + plus], Rw(from)),
                4 => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9 + plus], Rd(from)),
                _ => dynasm!(self.asm ; .arch x64 ; mov [r8 + r9 + plus], Rq(from)),
            }
        }
        for (register, moves) in [(6, loads), (7, stores)] {
            match self.mode.has(Mode::LONG) {
                _ if !moves => {}
                true => dynasm!(self.asm
                    ; .arch x64
                    ; lea Rq(register), [Rq(register) + size as i32]
                ),
                false => dynasm!(self.asm
                    ; .arch x64
                    ; lea Rd(register), [Rq(register) + size as i32]
                ),
            }
        }
        Emitted::Done
    }

    /// Leaves if strings go backwards.
    fn forwards_only(&mut self, out: DynamicLabel) {
        dynasm!(self.asm
            ; .arch x64
            ; mov r9d, rflags::DF as i32
            ; mov rcx, [r14 + SYSTEM_FLAGS]
            ; pext rcx, rcx, r9
        );
        self.unless_zero(out);
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
