//! The x87 unit. Its arithmetic is the host's (`trivium-host-fpu`); here are the register stack,
//! tags, exceptions and images. Intel SDM vol. 1, chapter 8.

mod arith;
mod control;
mod convert;
mod fast;
#[cfg(test)]
mod fast_tests;
mod image;
#[cfg(test)]
mod image_tests;
#[cfg(test)]
mod tests;
mod transfer;

use iced_x86::Instruction;
use trivium_cpu::bits::cr0;
use trivium_cpu::state::{CS, X87Register};
use trivium_cpu::{Exception, Vector};
use trivium_host_fpu::F80;
use trivium_host_fpu::x87::{X87Env, X87Result, status};

use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop, StopReason};

/// Busy: mirrors ES since the 387.
const BUSY: u16 = 1 << 15;
const TOP_SHIFT: u32 = 11;
const TOP_MASK: u16 = 7 << TOP_SHIFT;
/// The tag of an empty register.
const EMPTY: u16 = 3;

impl Cpu {
    /// Checks that an x87 instruction may be executed: #NM if the unit is not to be used, #MF if
    /// an unmasked exception of an earlier one waits.
    #[inline]
    fn x87_begin(&mut self) -> Result<(), Stop> {
        if self.x87_blocked {
            return Err(self.raise(Exception::plain(Vector::NM)));
        }
        self.x87_check_pending()
    }

    /// Raises what an unmasked exception of an earlier instruction does: #MF, or FERR# with CR0.NE
    /// clear. Intel SDM vol. 1, 8.7 and appendix D.
    ///
    /// A processor that asserts FERR# stops until an interrupt comes or the board asserts IGNNE#.
    /// The interrupt is at once on a PC, so the instruction is begun again after a look at
    /// interrupts, and the next time executed as with IGNNE#, which the interrupt's handler has the
    /// board assert.
    ///
    /// # Errors
    /// These.
    #[inline]
    pub(crate) fn x87_check_pending(&mut self) -> Result<(), Stop> {
        if self.x87.status & status::ES == 0 { Ok(()) } else { self.x87_pending() }
    }

    #[cold]
    fn x87_pending(&mut self) -> Result<(), Stop> {
        if self.control.cr0 & cr0::NE != 0 {
            return Err(self.raise(Exception::plain(Vector::MF)));
        }
        if self.ferr {
            return Ok(());
        }
        (self.ferr, self.ferr_changed) = (true, true);
        self.look = true;
        self.stop = StopReason::Again;
        Err(Stop)
    }

    /// FERR# goes away with the last unmasked exception. To be called after what may clear one.
    pub(crate) fn x87_release_ferr(&mut self) {
        if self.ferr && self.x87.status & status::ES == 0 {
            (self.ferr, self.ferr_changed) = (false, true);
            self.look = true;
            self.leave = true;
        }
    }

    /// Notes where the unit's last instruction was, for the handlers of its exceptions. `imm` holds
    /// its opcode.
    fn x87_note(&mut self, op: &Op) {
        self.x87.last_opcode = op.imm as u16;
        self.x87.last_ip = self.rip;
        self.x87.last_cs = self.segments.regs[CS].selector;
        if op.has_mem() {
            self.x87.last_dp = self.offset(op);
            self.x87.last_ds = self.segments.regs[usize::from(op.seg) % 6].selector;
        }
    }

    #[inline(always)]
    fn x87_env(&self) -> X87Env {
        X87Env { control: self.x87.control, status: self.x87.status }
    }

    #[inline(always)]
    fn x87_top(&self) -> u8 {
        (self.x87.status >> TOP_SHIFT & 7) as u8
    }

    #[inline(always)]
    fn x87_set_top(&mut self, top: u8) {
        self.x87.status = self.x87.status & !TOP_MASK | u16::from(top & 7) << TOP_SHIFT;
    }

    /// The number of the register that is ST(i).
    #[inline(always)]
    fn x87_physical(&self, i: u8) -> usize {
        usize::from((self.x87_top() + i) & 7)
    }

    #[inline(always)]
    fn x87_is_empty(&self, i: u8) -> bool {
        self.x87.tags >> (2 * self.x87_physical(i)) & 3 == EMPTY
    }

    #[inline(always)]
    fn x87_get(&self, i: u8) -> F80 {
        let X87Register { mantissa, sign_exponent } = self.x87.regs[self.x87_physical(i)];
        F80 { mantissa, sign_exponent }
    }

    #[inline(always)]
    fn x87_set(&mut self, i: u8, value: F80) {
        let n = self.x87_physical(i);
        let F80 { mantissa, sign_exponent } = value;
        self.x87.regs[n] = X87Register { mantissa, sign_exponent };
        self.x87_set_tag(n, value.tag());
    }

    #[inline(always)]
    fn x87_set_tag(&mut self, physical: usize, tag: u16) {
        let at = 2 * (physical & 7);
        self.x87.tags = self.x87.tags & !(3 << at) | tag << at;
    }

    #[inline(always)]
    fn x87_pop(&mut self) {
        let n = self.x87_physical(0);
        self.x87_set_tag(n, EMPTY);
        self.x87_set_top(self.x87_top().wrapping_add(1));
    }

    fn x87_pop_times(&mut self, times: u8) {
        for _ in 0..times {
            self.x87_pop();
        }
    }

    /// Pushes a value that an instruction gave; a full stack is a fault. Whether it was pushed.
    fn x87_push(&mut self, value: F80) -> bool {
        let new_top = self.x87_top().wrapping_sub(1) & 7;
        let free = self.x87.tags >> (2 * new_top) & 3 == EMPTY;
        if !free && !self.x87_stack_fault(true) {
            return false;
        }
        self.x87_set_top(new_top);
        self.x87_set(0, if free { value } else { F80::INDEFINITE });
        free
    }

    /// Records a stack overflow or underflow. Whether it is masked, so that the instruction goes on
    /// with the indefinite. Intel SDM vol. 1, 8.5.1.1.
    fn x87_stack_fault(&mut self, overflow: bool) -> bool {
        let c1 = if overflow { status::C1 } else { 0 };
        self.x87.status = self.x87.status & !status::C1 | status::IE | status::SF | c1;
        let masked = self.x87.control & status::IE != 0;
        if !masked {
            self.x87.status |= status::ES | BUSY;
        }
        masked
    }

    /// Takes over the flags and condition codes of a result. Whether the result may be written.
    fn x87_take<T>(&mut self, result: &X87Result<T>) -> bool {
        self.x87_take_status(result.status, result.conditions);
        !trivium_host_fpu::x87::is_vetoed(self.x87.control, result.status)
    }

    fn x87_take_status(&mut self, new: u16, conditions: u16) {
        let merged = self.x87.status & !conditions | new;
        self.x87.status = if merged & status::ES != 0 { merged | BUSY } else { merged };
    }

    /// ES and B follow the flags and masks after one of them was loaded.
    fn x87_update_summary(&mut self) {
        let pending = self.x87.status & !self.x87.control & status::EXCEPTIONS != 0;
        let summary = status::ES | BUSY;
        self.x87.status = self.x87.status & !summary | if pending { summary } else { 0 };
        self.x87_release_ferr();
    }
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut selection = arith::select(i, context)
        .or_else(|| transfer::select(i, context))
        .or_else(|| control::select(i, context))
        .or_else(|| image::select(i, context))?;
    selection.op.imm = context.fop.into();
    if let Some(handler) = fast::handler(i, context, &selection.op) {
        selection.op.run = handler;
    }
    Some(selection)
}
