//! Running user-level code instruction by instruction; see [`crate::stepper`].

use trivium_cpu::bits::rflags;
use trivium_cpu::{CpuBus, CpuState};

use super::KvmVcpu;
use crate::error::{KvmError, call};
use crate::ioctls::HostExit;
use crate::island::{DEBUG_PORT, EXCEPTION_PORT, Island, PORTS};
use crate::state::{from_regs, from_sregs, from_xsave};

/// How instructions that were to be counted have ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StepExit {
    /// The state now.
    pub(crate) state: Box<CpuState>,
    /// How many have been completed.
    pub(crate) done: u64,
    /// The next has raised an exception, or cannot be done.
    pub(crate) stopped: bool,
}

/// Says how many instructions are to be run from an address; none to end.
pub(crate) type Next<'a> = dyn FnMut(u64) -> u64 + 'a;

impl KvmVcpu {
    /// Runs `first` instructions of user-level code from this state, and then as many as `next`
    /// says. `anew` if page tables may have changed since the last time. `None` if the guest's
    /// tables leave no room.
    ///
    /// # Errors
    /// A call failed.
    pub(crate) fn run_steps(
        &mut self,
        state: &CpuState,
        anew: bool,
        first: u64,
        next: &mut Next<'_>,
        bus: &dyn CpuBus,
    ) -> Result<Option<StepExit>, KvmError> {
        self.slots.refresh(&mut *self.io)?;
        let mut island = self.take_island()?;
        let inside = match anew {
            true => island.enter(state, self.slots.memory(), self.model.phys_bits),
            false => Some(island.enter_again(state)),
        };
        let result = match inside {
            Some(inside) => {
                self.count_inside(&island, state, inside, anew, first, next, bus).map(Some)
            }
            None => Ok(None),
        };
        self.island = Some(island);
        result
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what run_steps was given, and what it has made of it"
    )]
    fn count_inside(
        &mut self,
        island: &Island,
        before: &CpuState,
        mut inside: CpuState,
        anew: bool,
        first: u64,
        next: &mut Next<'_>,
        bus: &dyn CpuBus,
    ) -> Result<StepExit, KvmError> {
        if anew {
            self.slots.place_island(&mut *self.io, island.ram(), island.gpa(), island.size())?;
        }
        inside.general.rflags |= rflags::TF;
        self.put_user(&inside)?;
        let (mut done, mut count) = (0, first);
        let (stopped, port) = loop {
            island.set_count(count);
            let port = self.counted()?;
            let completed = count - island.count().min(count);
            done += completed;
            if port != Some(DEBUG_PORT) || completed != count {
                break (true, port.unwrap_or(EXCEPTION_PORT));
            }
            count = next(island.debug_rip());
            if count == 0 {
                break (false, DEBUG_PORT);
            }
        };
        self.incomplete = true;
        self.complete(bus)?;
        let io = &mut *self.io;
        let mut now = inside;
        now.general = from_regs(&io.regs().map_err(call("KVM_GET_REGS"))?);
        from_sregs(&mut now, &io.sregs().map_err(call("KVM_GET_SREGS"))?);
        from_xsave(&mut now, &io.xsave().map_err(call("KVM_GET_XSAVE"))?, self.layout);
        let frame = self.frame(island, &now, port)?;
        let mut state = island.leave(before, &now, frame);
        state.general.rflags &= !rflags::TF;
        state.events.pending_debug = 0;
        // No x87 instruction was among them.
        state.x87 = before.x87;
        Ok(StepExit { state: Box::new(state), done, stopped })
    }

    /// Runs until a handler of the island's ends it; the handler's port, if one has.
    fn counted(&mut self) -> Result<Option<u16>, KvmError> {
        loop {
            self.counts.runs += 1;
            match self.io.run().map_err(call("KVM_RUN"))? {
                HostExit::Io { write: true, port, .. } if PORTS.contains(&port) => {
                    return Ok(Some(port));
                }
                HostExit::Interrupted | HostExit::Again => {}
                other => {
                    log::debug!("KVM ends counted instructions: {other:?}");
                    return Ok(None);
                }
            }
        }
    }
}
