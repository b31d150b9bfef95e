//! Machines that run step by step beside others: on the caller's thread, with their RAM followed page
//! by page instead of copied.

use trivium_chipset::{Clock, Section, VmTime};
use trivium_cpu::{CpuError, CpuState};
use trivium_memory::PAGE_SIZE;

use super::compare::Whole;
use crate::error::{MachineError, RestoreError};
use crate::machine::Machine;
use crate::run::{Run, RunEnd};

/// The state of a machine without its RAM.
#[derive(Debug, Clone, PartialEq)]
pub struct Frozen {
    /// The present moment of virtual time.
    pub now: VmTime,
    /// The processors.
    pub cpus: Vec<CpuState>,
    /// The devices by name.
    pub devices: Vec<(String, Section)>,
}

impl Frozen {
    /// In what another state differs from this one, a line each: empty exactly if they are equal.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let this = Whole { now: self.now, cpus: &self.cpus, devices: &self.devices };
        let that = Whole { now: other.now, cpus: &other.cpus, devices: &other.devices };
        this.differences(&that)
    }
}

impl Machine {
    /// The state without RAM.
    ///
    /// # Errors
    /// A processor's host interface failed.
    pub fn freeze(&mut self) -> Result<Frozen, CpuError> {
        self.settle();
        let (now, cpus) = (self.parts.clock.now(), self.save_cpus()?);
        Ok(Frozen { now, cpus, devices: self.board.save_devices() })
    }

    /// Puts such a state back. RAM is the caller's: it must be as it was, and be so before.
    ///
    /// # Errors
    /// As [`Self::restore`].
    pub fn thaw(&mut self, state: &Frozen) -> Result<(), RestoreError> {
        let (saved, have) = (state.cpus.len(), self.vcpus.len());
        if saved != have {
            return Err(RestoreError::Cpus { saved, have });
        }
        self.settle();
        self.parts.clock.set(state.now);
        self.board.restore_devices(&state.devices)?;
        for (vcpu, cpu) in self.vcpus.iter_mut().zip(&state.cpus) {
            vcpu.load(cpu)?;
        }
        Ok(())
    }

    /// The pages of RAM that were written since the last call, by number. The processors' TLBs are
    /// empty then.
    ///
    /// # Errors
    /// A processor's host interface failed.
    pub fn take_dirty(&mut self) -> Result<Vec<usize>, CpuError> {
        for vcpu in &mut self.vcpus {
            let state = vcpu.save()?;
            vcpu.load(&state)?;
        }
        let pages = (self.ram_size() / PAGE_SIZE) as usize;
        Ok(self.parts.memory.dirty().take().into_iter().filter(|&page| page < pages).collect())
    }

    /// Size of RAM in bytes. It is at the beginning of the memory's arena.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.parts.layout.ram_size()
    }

    /// [`Self::run_until`] under `icount` on the calling thread, which must have a stack of
    /// [`crate::STACK_SIZE`] bytes.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_here(&mut self, limit: VmTime) -> Result<Option<RunEnd>, MachineError> {
        self.run_to(Run { limit: Some(limit), here: true, ..Run::default() })
    }

    /// [`Self::run_here`], but only until the processor first comes back.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_to_exit(&mut self, limit: VmTime) -> Result<Option<RunEnd>, MachineError> {
        self.run_to(Run { limit: Some(limit), here: true, once: true, ..Run::default() })
    }

    /// [`Self::run_here`], but only to where translated code is cut, if that is wanted
    /// ([`crate::BlockLimits::cut_after`]).
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_to_cut(&mut self, limit: VmTime) -> Result<Option<RunEnd>, MachineError> {
        self.run_to(Run { limit: Some(limit), here: true, cut: true, ..Run::default() })
    }
}
