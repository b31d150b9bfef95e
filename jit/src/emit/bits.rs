//! BT, BTS, BTR and BTC of a bit string in memory, of which a register says which bit.

use dynasmrt::{DynasmApi, dynasm};
use iced_x86::{Instruction, OpKind, Register};
use trivium_interp::cpu::Mode;

use super::copy::name_memory;
use super::{Emitted, Emitter, Way};
use crate::regs::{like, number_of};

impl Emitter {
    /// Emits one of these: the address of the element that has the bit, then the instruction on that
    /// element with the bit's number in it.
    pub(super) fn bit_string(&mut self, i: &Instruction, op: u8) -> Emitted {
        let size = i.memory_size().size();
        let long = self.mode.has(Mode::LONG);
        let short = long && i.memory_base().size().max(i.memory_index().size()) == 4;
        // Where the element is, the segment's limit must be asked for.
        if size < 4 || short || i.op1_kind() != OpKind::Register || !self.is_plain(i, true) {
            return Emitted::Not;
        }
        self.linear_address(i, 0);
        let number = self.in_register(i.op1_register(), 9);
        match size {
            8 => dynasm!(self.asm
                ; .arch x64
                ; mov ecx, 6
                ; sarx r9, Rq(number), rcx
                ; lea r8, [r8 + r9 * 8]
            ),
            _ => dynasm!(self.asm
                ; .arch x64
                ; movsxd r9, Rd(number)
                ; mov ecx, 5
                ; sarx r9, r9, rcx
                ; lea r8, [r8 + r9 * 4]
            ),
        }
        if !long {
            dynasm!(self.asm ; .arch x64 ; mov r8d, r8d);
        }
        let write = super::writes(self.accesses[0]);
        let plus = self.reach(Way::Alone, size, write, op);
        dynasm!(self.asm ; .arch x64 ; lea r8, [r8 + r9 + plus]);
        let number = self.in_register(i.op1_register(), 9);
        let bits = 8 * size as i32 - 1;
        dynasm!(self.asm ; .arch x64 ; mov ecx, bits ; pext rcx, Rq(number), rcx);
        let mut host = *i;
        name_memory(&mut host, 0, None);
        host.set_op1_register(like(i.op1_register(), number_of(Register::RCX)));
        if self.raw(&host) { Emitted::Done } else { Emitted::Not }
    }
}
