//! The stack: PUSH, POP, LEAVE, LEA.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Code, Instruction, OpKind, Register};
use trivium_interp::Cpu;
use trivium_interp::cpu::Mode;
use trivium_interp::native::Native;

use super::memory::At;
use super::{Emitted, Emitter, Way};
use crate::planted::{self, Bug};
use crate::regs::{Home, RSP_HOME, at, near, number_of};

/// Where a word is kept on its way to the stack.
const PASSING: i32 = at(offset_of!(Cpu, native)) + offset_of!(Native, code) as i32;

impl Emitter {
    /// Bytes of the mode's usual stack slot; in code that is not flat, of the present instruction's.
    pub(super) fn word(&self) -> i32 {
        match self.mode.has(Mode::LONG) {
            true => 8,
            false if self.is_flat() => 4,
            false => self.slot,
        }
    }

    /// Puts RSP plus something into R8, as wide as the stack pointer.
    pub(super) fn stack_address(&mut self, plus: i32) {
        self.add(8, RSP_HOME, plus);
    }

    /// Moves the stack pointer.
    pub(super) fn move_stack(&mut self, by: i32) {
        if !self.mode.has(Mode::STACK32) && !self.mode.has(Mode::LONG) {
            dynasm!(self.asm ; .arch x64 ; lea ecx, [Rq(RSP_HOME) + by]);
            return match planted::has(Bug::WholeStackPointer) {
                true => dynasm!(self.asm ; .arch x64 ; mov Rd(RSP_HOME), ecx),
                false => dynasm!(self.asm ; .arch x64 ; mov Rw(RSP_HOME), cx),
            };
        }
        self.add(RSP_HOME, RSP_HOME, by);
    }

    /// Puts a register plus something into another, as wide as the stack pointer.
    fn add(&mut self, to: u8, from: u8, plus: i32) {
        match (self.word(), i8::try_from(plus)) {
            (8, Ok(plus)) => dynasm!(self.asm ; .arch x64 ; lea Rq(to), [BYTE Rq(from) + plus]),
            (8, Err(_)) => dynasm!(self.asm ; .arch x64 ; lea Rq(to), [Rq(from) + plus]),
            (_, Ok(plus)) => dynasm!(self.asm ; .arch x64 ; lea Rd(to), [BYTE Rq(from) + plus]),
            (_, Err(_)) => dynasm!(self.asm ; .arch x64 ; lea Rd(to), [Rq(from) + plus]),
        }
    }

    pub(super) fn push(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        let value = match i.op0_kind() {
            OpKind::Register if i.op0_register().is_gpr() => {
                if i.op0_register().size() as i32 != word {
                    return Emitted::Not;
                }
                None
            }
            OpKind::Register if i.op0_register().is_segment_register() => {
                return self.push_segment(i, op);
            }
            OpKind::Memory if i.memory_size().size() as i32 == word && self.has_way(i, false) => {
                return self.push_memory(i, op);
            }
            OpKind::Immediate8to64 | OpKind::Immediate32to64 if word == 8 => Some(i.immediate(0)),
            OpKind::Immediate8to32 | OpKind::Immediate32 if word == 4 => Some(i.immediate(0)),
            OpKind::Immediate8to16 | OpKind::Immediate16 if word == 2 => Some(i.immediate(0)),
            _ => return Emitted::Not,
        };
        let early = planted::has(Bug::PushMovesFirst);
        if early {
            self.move_stack(-word);
        }
        let at = self.reach_stack(if early { 0 } else { -word }, true, op);
        match value {
            Some(value) => self.store_constant(at, value),
            None => {
                let from = self.in_register(i.op0_register(), 1);
                self.store_word(at, from);
            }
        }
        if !early {
            self.move_stack(-word);
        }
        Emitted::Done
    }

    /// PUSH of a word in memory, which is loaded first.
    fn push_memory(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        // The span that it may be in has its place on the stack in mind.
        let at = self.operand(i, Way::Alone, (word as usize, 1), false, op);
        self.load_word(at, 1);
        dynasm!(self.asm ; .arch x64 ; mov [r14 + PASSING], rcx);
        let at = self.reach_stack(-word, true, op);
        dynasm!(self.asm ; .arch x64 ; mov rcx, [r14 + PASSING]);
        self.store_word(at, 1);
        self.move_stack(-word);
        Emitted::Done
    }

    /// Reaches a word of the stack, so far from where its pointer leads; gives the displacement.
    pub(super) fn reach_stack(&mut self, plus: i32, write: bool, op: u8) -> At {
        let way = self.way(1);
        let at = At::sum(RSP_HOME, plus);
        let size = self.word() as usize;
        if !self.is_flat() {
            return self.segmented_stack(at, size, write, op);
        }
        if self.reach_directly(at, way, (size, 1), write, op) {
            return at;
        }
        self.stack_address(plus - way.back());
        At::sum(8, self.reach(way, size, write, op))
    }

    /// Stores a register at the sum of an address and R9.
    pub(super) fn store_word(&mut self, At { base, plus, .. }: At, from: u8) {
        match (self.word(), i8::try_from(plus)) {
            (2, _) => dynasm!(self.asm ; .arch x64 ; mov [Rq(base) + r9 + plus], Rw(from)),
            (8, Ok(plus)) => {
                dynasm!(self.asm ; .arch x64 ; mov [BYTE Rq(base) + r9 + plus], Rq(from))
            }
            (8, Err(_)) => dynasm!(self.asm ; .arch x64 ; mov [Rq(base) + r9 + plus], Rq(from)),
            (_, Ok(plus)) => {
                dynasm!(self.asm ; .arch x64 ; mov [BYTE Rq(base) + r9 + plus], Rd(from))
            }
            (_, Err(_)) => dynasm!(self.asm ; .arch x64 ; mov [Rq(base) + r9 + plus], Rd(from)),
        }
    }

    /// Stores a number there. RCX may be overwritten.
    pub(super) fn store_constant(&mut self, at: At, value: u64) {
        let At { base, plus, .. } = at;
        match (self.word(), i32::try_from(value as i64)) {
            (8, Ok(value)) => {
                dynasm!(self.asm ; .arch x64 ; mov QWORD [Rq(base) + r9 + plus], value);
            }
            (4, _) => {
                dynasm!(self.asm ; .arch x64 ; mov DWORD [Rq(base) + r9 + plus], value as i32);
            }
            _ => {
                self.constant(1, value);
                self.store_word(at, 1);
            }
        }
    }

    /// Loads a register from there, as instructions do: of 16 bits, the others stay.
    pub(super) fn load_word(&mut self, At { base, plus, .. }: At, into: u8) {
        match (self.word(), i8::try_from(plus)) {
            (2, _) => dynasm!(self.asm ; .arch x64 ; mov Rw(into), [Rq(base) + r9 + plus]),
            (8, Ok(plus)) => {
                dynasm!(self.asm ; .arch x64 ; mov Rq(into), [BYTE Rq(base) + r9 + plus])
            }
            (8, Err(_)) => dynasm!(self.asm ; .arch x64 ; mov Rq(into), [Rq(base) + r9 + plus]),
            (_, Ok(plus)) => {
                dynasm!(self.asm ; .arch x64 ; mov Rd(into), [BYTE Rq(base) + r9 + plus])
            }
            (_, Err(_)) => dynasm!(self.asm ; .arch x64 ; mov Rd(into), [Rq(base) + r9 + plus]),
        }
    }

    pub(super) fn pop(&mut self, i: &Instruction, op: u8) -> Emitted {
        let word = self.word();
        let to = i.op0_register();
        if i.op0_kind() == OpKind::Register && to.is_segment_register() {
            return self.pop_segment(i, op);
        }
        let fits = i.op0_kind() == OpKind::Register && to.is_gpr() && to.size() as i32 == word;
        if !fits {
            return Emitted::Not;
        }
        if number_of(to) == 4 {
            return match word == 2 && self.mode.has(Mode::STACK32) {
                // What is above 16 bits is what was popped from, moved on.
                true => Emitted::Not,
                false => self.pop_stack_pointer(op),
            };
        }
        let at = self.reach_stack(0, false, op);
        let number = number_of(to);
        match self.homes.of(number) {
            Home::Host(host) => self.load_word(at, host),
            Home::Memory => {
                self.load_word(at, 1);
                dynasm!(self.asm ; .arch x64 ; mov [BYTE r14 + near(number)], rcx);
            }
        }
        self.move_stack(word);
        Emitted::Done
    }

    /// POP of the stack pointer, which is what was popped.
    fn pop_stack_pointer(&mut self, op: u8) -> Emitted {
        let at = self.reach_stack(0, false, op);
        self.load_word(at, RSP_HOME);
        Emitted::Done
    }

    pub(super) fn leave_frame(&mut self, i: &Instruction, op: u8) -> Emitted {
        let is_usual = matches!((i.code(), self.word()), (Code::Leaveq, 8) | (Code::Leaved, 4));
        if !self.is_flat() {
            return self.segmented_leave(op);
        }
        if !is_usual {
            return Emitted::Not;
        }
        let way = self.way(1);
        match self.word() {
            8 => dynasm!(self.asm ; .arch x64 ; lea r8, [rbp - way.back()]),
            _ => dynasm!(self.asm ; .arch x64 ; lea r8d, [rbp - way.back()]),
        }
        let plus = self.reach(way, self.word() as usize, false, op);
        let at = At::sum(8, plus);
        match self.word() {
            8 => dynasm!(self.asm ; .arch x64 ; lea Rq(RSP_HOME), [rbp + 8]),
            _ => dynasm!(self.asm ; .arch x64 ; lea Rd(RSP_HOME), [rbp + 4]),
        }
        self.load_word(at, 5);
        Emitted::Done
    }

    pub(super) fn lea(&mut self, i: &Instruction) -> Emitted {
        let to = i.op0_register();
        let number = number_of(to);
        if !self.mode.has(Mode::LONG) && (to.size() == 2 || self.address_size(i) == 2) {
            return self.short_lea(i);
        }
        // 16 bits in 64-bit code.
        if to.size() < 4 {
            return Emitted::Not;
        }
        // An address of 32 bits in a register of 64, or the other way round, is cut to 32 either way.
        let narrow = to.size() == 4
            || i.memory_base().size().max(i.memory_index().size()) == 4
            || i.memory_base() == Register::None
                && i.memory_index() == Register::None
                && i.memory_displ_size() == 4;
        let into = match self.homes.of(number) {
            Home::Host(host) => host,
            Home::Memory => 8,
        };
        self.part_of_address(i, 0, into, narrow);
        if self.homes.of(number) == Home::Memory {
            dynasm!(self.asm ; .arch x64 ; mov [BYTE r14 + near(number)], r8);
        }
        Emitted::Done
    }
}
