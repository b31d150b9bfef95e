//! Tells the platform of each exit from KVM_RUN, where it wants to know.

use trivium_cpu::{CpuBus, ExitReason};

use super::{KvmExit, KvmVcpu};
use crate::error::KvmError;
use crate::ioctls::HostExit;

impl KvmVcpu {
    /// [`KvmVcpu::serve`], told of. What it takes to ask where the guest is does not count.
    pub(super) fn serve_traced(
        &mut self,
        exit: HostExit,
        bus: &dyn CpuBus,
    ) -> Result<Option<KvmExit>, KvmError> {
        // HLT and shutdown are seen by whoever called `run`.
        if !bus.traces_exits() || matches!(exit, HostExit::Halt | HostExit::Shutdown) {
            return self.serve(exit, bus);
        }
        let reason = match exit {
            HostExit::WindowOpen => ExitReason::InterruptWindow,
            HostExit::TaskPriority => ExitReason::TaskPriority,
            HostExit::Debug => ExitReason::Debug,
            HostExit::Interrupted => ExitReason::Attention,
            _ => ExitReason::Other,
        };
        let (linear, bits) = self.whereabouts();
        bus.exit_begins(linear, bits, 0);
        let served = self.serve(exit, bus);
        bus.exit_ends(reason);
        served
    }

    /// The linear address of RIP and the width of the code; zeroes if KVM does not tell.
    fn whereabouts(&mut self) -> (u64, u8) {
        let (Ok(regs), Ok(sregs)) = (self.io.regs(), self.io.sregs()) else { return (0, 0) };
        match (sregs.cs.l, sregs.cs.db) {
            (1, _) => (regs.rip, 64),
            (_, 1) => (sregs.cs.base.wrapping_add(regs.rip) & 0xffff_ffff, 32),
            _ => (sregs.cs.base.wrapping_add(regs.rip) & 0xffff_ffff, 16),
        }
    }
}
