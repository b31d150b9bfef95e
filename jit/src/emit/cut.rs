//! Ways out before each instruction, for those who look for the one that goes wrong: code that is
//! translated with what follows it is as it is only when it is run as a whole, so it cannot be looked
//! at by giving it less to run.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use trivium_interp::Cpu;
use trivium_interp::native::Native;

use super::Emitter;
use crate::enter::Exit;
use crate::regs::at;

const NATIVE: i32 = at(offset_of!(Cpu, native));
const RESERVE: i32 = NATIVE + offset_of!(Native, reserve) as i32;
const CUT: i32 = NATIVE + offset_of!(Native, cut) as i32;

impl Emitter {
    /// Leaves before an operation if so little is left of the quantum and its reserve that it is to be
    /// cut here: `rest` instructions of the block have been taken from the quantum and not been run.
    pub(crate) fn cut_before(&mut self, op: u8, rest: i32) {
        self.note_x87(None);
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        let not_run = self.later + rest;
        dynasm!(self.asm
            ; .arch x64
            ; pushfq
            ; push rax
            ; mov rax, [r14 + RESERVE]
            ; lea rax, [rax + r11 + not_run]
            ; cmp rax, [r14 + CUT]
            ; pop rax
            ; jg >on
            ; popfq
        );
        self.jump_out(out);
        dynasm!(self.asm ; .arch x64 ; on: ; popfq);
    }
}
