//! Tells the platform of each time that the guest's code is left, where it wants to know.

use trivium_cpu::state::{CS, SegmentAttributes};
use trivium_cpu::{Exit, ExitReason, walk};
use trivium_memory::GuestPhysAddr;

use super::{Interpreter, Position, Served, Session};
use crate::cpu::Mode;
use crate::op::StopReason;

impl Interpreter {
    /// [`Interpreter::serve`], told of.
    pub(super) fn serve_traced(&mut self, at: &Position, session: &mut Session<'_>) -> Served {
        if !session.traced {
            return self.serve(at, session);
        }
        let reason = match self.cpu.stop {
            StopReason::Miss => ExitReason::TlbMiss,
            StopReason::MmioRead => ExitReason::MmioRead,
            StopReason::Exception => ExitReason::Exception,
            StopReason::System => ExitReason::System,
            _ => ExitReason::Lookup,
        };
        let linear = self.cpu.code_address(self.cpu.rip);
        let code = if reason == ExitReason::System { self.code_at(linear) } else { 0 };
        session.bus.exit_begins(linear, self.bits(), code);
        let served = self.serve(at, session);
        session.bus.exit_ends(reason);
        served
    }

    /// [`Interpreter::look`], told of.
    pub(super) fn look_traced(&mut self, session: &mut Session<'_>) -> Option<Exit> {
        if !session.traced {
            return self.look(session);
        }
        session.bus.exit_begins(self.cpu.code_address(self.cpu.rip), self.bits(), 0);
        let exit = self.look(session);
        session.bus.exit_ends(ExitReason::Attention);
        exit
    }

    /// The width of the code.
    fn bits(&self) -> u8 {
        let code = self.cpu.segments.regs[CS].attributes;
        match (self.cpu.mode.has(Mode::LONG), code.has(SegmentAttributes::DB)) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        }
    }

    /// The first eight bytes at a linear address, without a trace in page tables or TLB; zeroes where
    /// they cannot be read.
    fn code_at(&self, linear: u64) -> u64 {
        let cpu = &self.cpu;
        let paging = walk::Paging::from_state(&cpu.control, cpu.model.phys_bits);
        let access = walk::Access { write: false, fetch: true, user: false, ac: false };
        let mut bytes = [0; 8];
        let in_page = 0x1000 - (linear & 0xfff) as usize;
        let (first, second) = bytes.split_at_mut(in_page.min(8));
        for (linear, part) in [(linear, first), (linear.wrapping_add(in_page as u64), second)] {
            let place = walk::probe(&paging, &cpu.memory, linear, access);
            let read = place.map(|place| cpu.memory.read(GuestPhysAddr(place.gpa), part));
            if !matches!(read, Ok(Ok(()))) {
                part.fill(0);
            }
        }
        u64::from_le_bytes(bytes)
    }
}
