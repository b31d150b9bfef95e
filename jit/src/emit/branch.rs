//! Where blocks end: branches, calls and returns.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind};
use trivium_interp::Cpu;
use trivium_interp::cpu::Mode;
use trivium_interp::native::{Native, NativeJumps};

use super::{Ahead, Emitted, Emitter, Way};
use crate::enter::Exit;
use crate::planted::{self, Bug};
use crate::regs::{Home, RCX, at, near, number_of};

const NATIVE: i32 = at(offset_of!(Cpu, native));
const JUMP_MASK: i32 = NATIVE + offset_of!(Native, jump_mask) as i32;
const JUMPS: i32 = NATIVE + offset_of!(Native, jumps) as i32;
const TARGET: i32 = NATIVE + offset_of!(Native, target) as i32;
const CODE: i32 = NATIVE + offset_of!(Native, code) as i32;
const JUMP_CODE: i32 = offset_of!(NativeJumps, codes) as i32;
const _: () = assert!(offset_of!(NativeJumps, tags) == 0);

impl Emitter {
    /// Goes on to the block at `rip`, by a link.
    pub(crate) fn go_on(&mut self, slot: u8, rip: u64) {
        if self.ahead == Some(Ahead::Link(slot)) {
            return;
        }
        self.note_x87(None);
        let out = self.stub(Exit::Follow { block: self.block, slot }, Some(rip));
        self.jump_out(out);
        self.note_link(slot, out);
    }

    /// Goes on to the block after an instruction.
    pub(crate) fn go_on_after(&mut self, i: &Instruction) {
        let next = self.next_ip(i);
        self.go_on(1, next);
    }

    /// The target of a direct near branch of the mode's usual size, if it can be one.
    fn target(&self, i: &Instruction) -> Option<u64> {
        let kind = match self.word() {
            8 => OpKind::NearBranch64,
            4 => OpKind::NearBranch32,
            _ => OpKind::NearBranch16,
        };
        let target = i.near_branch_target();
        let good = match self.mode.has(Mode::LONG) {
            true => target.wrapping_add(1 << 47) >> 48 == 0,
            false => target <= u64::from(self.limit),
        };
        (i.op0_kind() == kind && good).then_some(target)
    }

    /// RIP of the instruction after one.
    fn next_ip(&self, i: &Instruction) -> u64 {
        let next = i.next_ip();
        if self.mode.has(Mode::LONG) { next } else { next & 0xffff_ffff }
    }

    pub(super) fn jmp(&mut self, i: &Instruction, op: u8) -> Emitted {
        match self.target(i) {
            Some(target) => self.go_on(0, target),
            None => {
                self.stay_home();
                if !self.indirect_target(i, op) {
                    return Emitted::Not;
                }
                self.check_target(op);
                self.find_jump(op);
                dynasm!(self.asm ; .arch x64 ; jmp QWORD [r9 + JUMP_CODE]);
            }
        }
        Emitted::Ended
    }

    pub(super) fn call(&mut self, i: &Instruction, op: u8) -> Emitted {
        let target = self.target(i);
        let goes_on = self.ahead == Some(Ahead::Link(0));
        let next = self.next_ip(i);
        let is_beyond = !self.mode.has(Mode::LONG) && next > u64::from(self.limit);
        if goes_on && target.is_none() || is_beyond {
            return Emitted::Not;
        }
        if !goes_on {
            self.stay_home();
        }
        if target.is_none() {
            if !self.indirect_target(i, op) {
                return Emitted::Not;
            }
            self.check_target(op);
            self.find_jump(op);
            dynasm!(self.asm
                ; .arch x64
                ; mov rcx, [r9 + JUMP_CODE]
                ; mov [r14 + CODE], rcx
            );
        }
        let word = self.word();
        let at = self.reach_stack(-word, true, op);
        self.store_constant(at, next);
        self.move_stack(-word);
        if goes_on {
            return Emitted::Ended;
        }
        match i32::try_from(next.wrapping_neg() as i64) {
            Ok(negated) => dynasm!(self.asm ; .arch x64 ; push DWORD negated),
            Err(_) => {
                self.constant(1, next.wrapping_neg());
                dynasm!(self.asm ; .arch x64 ; push rcx);
            }
        }
        match target {
            Some(target) => {
                let out = self.stub(Exit::Follow { block: self.block, slot: 0 }, Some(target));
                dynasm!(self.asm ; .arch x64 ; call =>out);
                self.note_parted();
                self.note_link(0, out);
            }
            None => dynasm!(self.asm ; .arch x64 ; call QWORD [r14 + CODE]),
        }
        dynasm!(self.asm ; .arch x64 ; lea rsp, [rsp + 8]);
        self.go_on(1, next);
        Emitted::Ended
    }

    pub(super) fn ret(&mut self, i: &Instruction, op: u8) -> Emitted {
        use iced_x86::Code;
        let word = self.word();
        let extra = match (i.code(), word) {
            (Code::Retnq, 8) | (Code::Retnd, 4) | (Code::Retnw, 2) => 0,
            (Code::Retnq_imm16, 8) | (Code::Retnd_imm16, 4) | (Code::Retnw_imm16, 2) => {
                i32::from(i.immediate16())
            }
            _ => return Emitted::Not,
        };
        let extra = if planted::has(Bug::RetDropsNothing) { 0 } else { extra };
        if self.ahead.is_none() {
            self.stay_home();
        }
        let at = self.reach_stack(0, false, op);
        self.load_target(at);
        self.check_target(op);
        if let Some(Ahead::Return(rip)) = self.ahead {
            let out = self.stub(Exit::Resume { block: self.block, op }, None);
            self.constant(1, rip.wrapping_neg());
            dynasm!(self.asm ; .arch x64 ; lea rcx, [rcx + r8] ; jrcxz >expected);
            if !planted::has(Bug::ReturnNotCompared) {
                self.jump_out(out);
            }
            dynasm!(self.asm ; .arch x64 ; expected:);
            self.move_stack(word + extra);
            return Emitted::Ended;
        }
        dynasm!(self.asm
            ; .arch x64
            // What the call has left there, which was one of the host too.
            ; mov rcx, [rsp + 8]
            ; lea rcx, [rcx + r8]
            ; jrcxz >paired
        );
        self.find_jump(op);
        self.move_stack(word + extra);
        dynasm!(self.asm ; .arch x64 ; jmp QWORD [r9 + JUMP_CODE] ; paired:);
        self.move_stack(word + extra);
        dynasm!(self.asm ; .arch x64 ; ret);
        Emitted::Ended
    }

    /// Puts the target of an indirect branch into R8; false if that is not to be done here.
    fn indirect_target(&mut self, i: &Instruction, op: u8) -> bool {
        let word = self.word();
        match i.op0_kind() {
            OpKind::Register if i.op0_register().size() as i32 == word => {
                let number = number_of(i.op0_register());
                match (self.homes.of(number), word) {
                    (Home::Host(host), 8) => dynasm!(self.asm ; .arch x64 ; mov r8, Rq(host)),
                    (Home::Host(host), 2) => dynasm!(self.asm ; .arch x64 ; movzx r8d, Rw(host)),
                    (Home::Host(host), _) => dynasm!(self.asm ; .arch x64 ; mov r8d, Rd(host)),
                    (Home::Memory, 8) => {
                        dynasm!(self.asm ; .arch x64 ; mov r8, [BYTE r14 + near(number)])
                    }
                    (Home::Memory, _) => {
                        dynasm!(self.asm ; .arch x64 ; mov r8d, [BYTE r14 + near(number)])
                    }
                }
            }
            OpKind::Memory
                if i.memory_size().size() as i32 == word
                    && i.is_jmp_near_indirect() | i.is_call_near_indirect()
                    && self.has_way(i, false) =>
            {
                let size = (word as usize, 1);
                let at = self.direct(i);
                let at = at.filter(|&at| self.reach_directly(at, Way::Alone, size, false, op));
                let at = at.unwrap_or_else(|| self.operand(i, Way::Alone, size, false, op));
                self.load_target(at);
            }
            _ => return false,
        }
        true
    }

    /// Finds the code for the RIP in R8: R9 is then its tag's address. If there is none, the
    /// interpreter does the operation.
    fn find_jump(&mut self, op: u8) {
        let out = self.stub(Exit::Jump { block: self.block, op }, None);
        self.routines.host.jump_slot(&mut self.asm, JUMP_MASK);
        dynasm!(self.asm
            ; .arch x64
            ; mov rcx, [r14 + JUMPS]
            ; lea r9, [rcx + r9 * 8]
            ; mov rcx, [r9]
            ; lea rcx, [rcx + r8]
            ; jrcxz >hit
            ; mov [r14 + TARGET], r8
        );
        self.jump_out(out);
        dynasm!(self.asm ; .arch x64 ; hit:);
    }

    /// LOOP, LOOPE, LOOPNE and JrCXZ.
    pub(super) fn counted(&mut self, i: &Instruction) -> Emitted {
        let Some(target) = self.target(i) else { return Emitted::Not };
        // Processors disagree on repeat prefixes of these.
        if i.has_rep_prefix() || i.has_repne_prefix() {
            return Emitted::Not;
        }
        let Home::Host(host) = self.homes.of(RCX) else { return Emitted::Not };
        let next = self.next_ip(i);
        let counts = !i.is_jcx_short();
        let less = if counts { -1 } else { 0 };
        match counter_size(i) {
            2 => dynasm!(self.asm
                ; .arch x64
                ; lea ecx, [Rq(host) + less]
                ; mov Rw(host), cx
                ; movzx ecx, cx
            ),
            4 if counts => dynasm!(self.asm
                ; .arch x64
                ; lea ecx, [Rq(host) + less]
                ; mov Rd(host), ecx
            ),
            4 => dynasm!(self.asm ; .arch x64 ; mov ecx, Rd(host)),
            _ => dynasm!(self.asm ; .arch x64 ; lea rcx, [Rq(host) + less] ; mov Rq(host), rcx),
        }
        // To the end of the way that is mostly taken; elsewhere the other begins.
        let is_zero_way = self.asm.new_dynamic_label();
        let (zero, other) =
            if counts { ((1, next), (0, target)) } else { ((0, target), (1, next)) };
        let ahead = |(slot, _): (u8, u64)| self.ahead == Some(Ahead::Link(slot));
        let (zero_is_ahead, other_is_ahead) = (ahead(zero), ahead(other));
        dynasm!(self.asm ; .arch x64 ; jrcxz =>is_zero_way);
        let by_flag = match i.mnemonic() {
            Mnemonic::Loope => {
                dynasm!(self.asm ; .arch x64 ; jnz =>is_zero_way);
                true
            }
            Mnemonic::Loopne => {
                dynasm!(self.asm ; .arch x64 ; jz =>is_zero_way);
                true
            }
            _ => false,
        };
        debug_assert!(counts || !by_flag);
        let leave = |emitter: &mut Self, (slot, rip): (u8, u64)| {
            let out = emitter.stub(Exit::Follow { block: emitter.block, slot }, Some(rip));
            emitter.jump_out(out);
            emitter.note_link(slot, out);
        };
        if other_is_ahead {
            let on = self.asm.new_dynamic_label();
            dynasm!(self.asm ; .arch x64 ; jmp =>on ; =>is_zero_way);
            leave(self, zero);
            dynasm!(self.asm ; .arch x64 ; =>on);
        } else {
            leave(self, other);
            dynasm!(self.asm ; .arch x64 ; =>is_zero_way);
            if !zero_is_ahead {
                leave(self, zero);
            }
        }
        Emitted::Ended
    }

    pub(super) fn jcc(&mut self, i: &Instruction) -> Emitted {
        let Some(target) = self.target(i) else { return Emitted::Not };
        let next = self.next_ip(i);
        let mut condition = *i;
        let (slot, rip) = match self.ahead {
            // Mostly it is taken.
            Some(Ahead::Link(0)) => {
                condition.negate_condition_code();
                (1, next)
            }
            _ => (0, target),
        };
        let out = self.stub(Exit::Follow { block: self.block, slot }, Some(rip));
        macro_rules! jump {
            ($($condition:ident $name:ident),*) => {
                match condition.condition_code() {
                    $(ConditionCode::$condition => dynasm!(self.asm ; .arch x64 ; $name =>out),)*
                    ConditionCode::None => return Emitted::Not,
                }
            };
        }
        jump!(o jo, no jno, b jb, ae jae, e je, ne jne, be jbe, a ja, s js, ns jns, p jp, np jnp,
              l jl, ge jge, le jle, g jg);
        self.note_parted();
        self.note_link(slot, out);
        if slot == 0 {
            self.go_on(1, next);
        }
        Emitted::Ended
    }
}

/// The bytes of the register that counts for LOOP and JrCXZ.
fn counter_size(i: &Instruction) -> u8 {
    use iced_x86::Code::*;
    match i.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX
        | Loopne_rel8_16_CX | Loopne_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => 2,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX
        | Loopne_rel8_16_RCX | Loopne_rel8_64_RCX | Jrcxz_rel8_16 | Jrcxz_rel8_64 => 8,
        _ => 4,
    }
}
