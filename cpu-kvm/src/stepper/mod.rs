//! KVM with an exact count of instructions, for whoever holds it against another CPU.
//!
//! KVM counts no instructions. User-level code can be counted all the same: with RFLAGS.TF set the
//! processor comes to a handler after each instruction, on every KVM that runs such code, and the
//! handler counts (see [`crate::island`]). So 64-bit code at CPL 3 is run by the host's processor, as
//! many instructions as are asked for; all else, and what is [KVM's own](own), by another CPU, which
//! keeps the state.
//!
//! To count is slow, so samples are taken: of every so many instructions the first few. Which these are
//! goes by virtual time alone, so that whoever runs a machine again from an earlier state has the
//! same on KVM.

mod own;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use trivium_cpu::walk::{Access, Paging, probe};
use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, CpuState, Exit, Kick, Vcpu};
use trivium_memory::{GuestMemory, GuestPhysAddr, PAGE_SIZE};

use crate::probe::Behaviour;
use crate::vcpu::KvmVcpu;

pub use own::{OWN, Own};

/// The longest run of instructions that are looked at together, in bytes.
const STRETCH: u64 = 256;
/// How many instructions another CPU runs between two looks at whether the guest is at user level.
const LOOK: u64 = 16;

/// Which instructions KVM is given, if they are user-level code: of every `every` instructions the
/// first `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many.
    pub first: u64,
    /// Of how many.
    pub every: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { first: 200, every: 20_000 }
    }
}

impl Sample {
    /// All instructions.
    pub const ALL: Self = Self { first: 1, every: 1 };

    /// How many instructions from a moment on are KVM's, and if none, how many are not.
    fn at(self, now: u64) -> Result<u64, u64> {
        if self.first >= self.every {
            return Ok(u64::MAX);
        }
        let phase = now % self.every;
        match self.first.checked_sub(phase) {
            Some(left) if left > 0 => Ok(left),
            _ => Err(self.every - phase),
        }
    }
}

/// What is counted: instructions, by who has run them and why.
#[derive(Debug, Clone, Default)]
pub struct Steps {
    /// The host's processor, under KVM.
    pub native: u64,
    /// Times that a state went into KVM.
    pub stretches: u64,
    /// The other CPU, as they were not in the sample.
    pub unsampled: u64,
    /// As they were no 64-bit code at CPL 3.
    pub elsewhere: u64,
    /// As they raise an exception, or KVM could not do them.
    pub faults: u64,
    /// As they are KVM's own, by their kind in [`OWN`].
    pub own: [u64; OWN.len()],
}

/// KVM and the CPU that runs what is not to be KVM's.
pub struct Stepper {
    kvm: KvmVcpu,
    other: Box<dyn Vcpu>,
    memory: Arc<GuestMemory>,
    phys_bits: u8,
    sample: Sample,
    steps: Steps,
    /// Nothing but user-level code has run since KVM was last told of page tables.
    tables_known: bool,
}

/// What the instructions at some place are.
enum Ahead {
    /// So many can be run on KVM.
    Native(u64),
    /// The first is KVM's own.
    Own(usize),
    /// The first cannot be read.
    Unread,
}

/// Reads a guest's code.
struct Code {
    paging: Paging,
    memory: Arc<GuestMemory>,
}

impl Code {
    /// The bytes at an address, as far as they are there.
    fn read(&self, start: u64) -> Vec<u8> {
        let access = Access { write: false, fetch: true, user: true, ac: false };
        let mut bytes = Vec::with_capacity(STRETCH as usize);
        while (bytes.len() as u64) < STRETCH {
            let linear = start.wrapping_add(bytes.len() as u64);
            let Ok(place) = probe(&self.paging, &self.memory, linear, access) else { break };
            let in_page = PAGE_SIZE - linear % PAGE_SIZE;
            let from = bytes.len();
            bytes.resize(from + in_page.min(STRETCH - from as u64) as usize, 0);
            if self.memory.read(GuestPhysAddr(place.gpa), &mut bytes[from..]).is_err() {
                bytes.truncate(from);
                break;
            }
        }
        bytes
    }

    /// What is ahead, up to the next branch.
    fn ahead(&self, rip: u64) -> Ahead {
        let bytes = self.read(rip);
        let mut count = 0;
        for instruction in Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE) {
            if count > 0 && instruction.is_invalid() {
                // Its end is beyond what was read, perhaps.
                break;
            }
            match own::kind(&instruction) {
                Some(kind) if count == 0 => return Ahead::Own(kind),
                Some(_) => break,
                None => count += 1,
            }
            if instruction.flow_control() != FlowControl::Next {
                break;
            }
        }
        if count == 0 { Ahead::Unread } else { Ahead::Native(count) }
    }
}

impl Stepper {
    /// What this host's KVM must do.
    pub const NEEDED: [Behaviour; 2] = [Behaviour::UserFaults, Behaviour::R3Step];

    /// `other` must keep budgets exactly; `memory` is that of both, addresses have `phys_bits`.
    #[must_use]
    pub fn new(
        kvm: KvmVcpu,
        other: Box<dyn Vcpu>,
        memory: Arc<GuestMemory>,
        phys_bits: u8,
        sample: Sample,
    ) -> Self {
        let (steps, tables_known) = (Steps::default(), false);
        Self { kvm, other, memory, phys_bits, sample, steps, tables_known }
    }

    /// What is counted since it was made.
    #[must_use]
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Runs instructions on the host's processor, up to so many, and one on the other CPU that comes
    /// after them if it is not KVM's. How many that were in all.
    fn native(
        &mut self,
        state: &CpuState,
        bus: &dyn CpuBus,
        most: u64,
    ) -> Result<(u64, Option<Exit>), CpuError> {
        let paging = Paging::from_state(&state.control, self.phys_bits);
        let code = Code { paging, memory: self.memory.clone() };
        let mut left = most;
        let mut last = Ahead::Native(0);
        let mut next = |rip: u64| {
            last = code.ahead(rip);
            let Ahead::Native(count) = last else { return 0 };
            let count = count.min(left);
            left -= count;
            count
        };
        let first = next(state.general.rip);
        let mut done = 0;
        let mut stopped = false;
        if first > 0 {
            let anew = !std::mem::replace(&mut self.tables_known, true);
            let run = self.kvm.run_steps(state, anew, first, &mut next, bus)?;
            self.steps.stretches += 1;
            // What was stored is for others to see, code among it.
            self.kvm.collect_dirty()?;
            if let Some(run) = run {
                self.other.load(&run.state)?;
                done = run.done;
                stopped = run.stopped;
            } else {
                stopped = true;
            }
            self.steps.native += done;
            bus.retire(done);
        }
        if done == most {
            return Ok((done, None));
        }
        match last {
            _ if stopped => self.steps.faults += 1,
            Ahead::Own(kind) => self.steps.own[kind] += 1,
            Ahead::Native(_) | Ahead::Unread => self.steps.faults += 1,
        }
        let exit = self.other.run(bus, Budget { instructions: 1 })?;
        Ok((done + 1, Some(exit).filter(|&exit| exit != Exit::Budget)))
    }

    /// Runs so many instructions on the other CPU.
    fn others(&mut self, bus: &dyn CpuBus, count: u64) -> Result<Exit, CpuError> {
        self.tables_known = false;
        self.other.run(bus, Budget { instructions: count })
    }
}

impl Vcpu for Stepper {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        let mut left = budget.instructions;
        loop {
            // Interrupts and all that others want.
            let exit = self.other.run(bus, Budget { instructions: 0 })?;
            if exit != Exit::Budget || left == 0 {
                return Ok(exit);
            }
            let done = match self.sample.at(bus.tsc()) {
                Err(until) => {
                    let count = until.min(left);
                    self.steps.unsampled += count;
                    let exit = self.others(bus, count)?;
                    if exit != Exit::Budget {
                        return Ok(exit);
                    }
                    count
                }
                Ok(sampled) => {
                    let state = self.other.save()?;
                    let most = sampled.min(left);
                    if KvmVcpu::is_user(&state) {
                        let (done, exit) = self.native(&state, bus, most)?;
                        if let Some(exit) = exit {
                            return Ok(exit);
                        }
                        done
                    } else {
                        let count = most.min(LOOK);
                        self.steps.elsewhere += count;
                        let exit = self.others(bus, count)?;
                        if exit != Exit::Budget {
                            return Ok(exit);
                        }
                        count
                    }
                }
            };
            left -= done.min(left);
        }
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.other.kicker()
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        self.other.save()
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.tables_known = false;
        self.other.load(state)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_budget: true }
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        let Steps { native, stretches, unsampled, elsewhere, faults, own } = &self.steps;
        log::info!(
            "The host's processor has run {native} instructions under KVM, in {stretches} stretches"
        );
        log::info!(
            "Not on KVM: {elsewhere} instructions in the sample that are no 64-bit code at CPL 3, {unsampled} not in it, {faults} that raise exceptions"
        );
        for (own, count) in OWN.iter().zip(own).filter(|(_, count)| **count > 0) {
            log::info!("Not on KVM: {count} of: {} ({})", own.what, own.why);
        }
    }
}
