//! Running user-level code alone; see [`crate::island`].

use std::time::{Duration, Instant};

use kvm_bindings::{kvm_vcpu_events, kvm_xsave};
use trivium_cpu::CpuBus;
use trivium_cpu::bits::cr4;
use trivium_cpu::state::CpuState;

use super::{KvmExit, KvmVcpu};
use crate::error::{Cannot, KvmError, call};
use crate::ioctls::HostExit;
use crate::island::{EXCEPTION_PORT, Frame, Island, PORTS, SYSCALL_PORT, is_eligible};
use crate::state::{from_regs, from_sregs, from_xsave, to_regs, to_sregs, to_xsave};

/// How an island has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct UserExit {
    /// The state now.
    pub state: Box<CpuState>,
    /// Why.
    pub reason: UserEnd,
    /// How long the code has run.
    pub inside: Duration,
}

/// Why an island has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserEnd {
    /// An exception; its handler is the guest's.
    Exception,
    /// SYSCALL.
    Syscall,
    /// Others want the CPU.
    Attention,
    /// KVM cannot do an instruction.
    Cannot,
}

impl KvmVcpu {
    /// Whether a state is user-level code that can be run alone.
    #[must_use]
    pub fn is_user(state: &CpuState) -> bool {
        is_eligible(state)
    }

    /// Whether a program has run here whose state nobody has taken.
    #[must_use]
    pub fn has_user_state(&self) -> bool {
        self.user_state
    }

    /// Runs user-level code from this state, up to whatever is not user-level code. Memory may have
    /// been changed by others before. `None` if the guest's tables leave no room.
    ///
    /// # Errors
    /// A call failed.
    pub fn run_user(
        &mut self,
        state: &CpuState,
        bus: &dyn CpuBus,
    ) -> Result<Option<UserExit>, KvmError> {
        self.slots.refresh(&mut *self.io)?;
        let phys_bits = self.model.phys_bits;
        let mut island = self.take_island()?;
        // An INT1 ends it.
        island.set_count(0);
        let inside = island.enter(state, self.slots.memory(), phys_bits);
        let result = match inside {
            Some(inside) => self.run_inside(&island, state, &inside, bus).map(Some),
            None => Ok(None),
        };
        self.island = Some(island);
        result
    }

    pub(super) fn take_island(&mut self) -> Result<Island, KvmError> {
        match self.island.take() {
            Some(island) => Ok(island),
            None => Island::new(self.model.phys_bits)
                .map_err(|_| KvmError::Lacks("memory for user-level code")),
        }
    }

    fn run_inside(
        &mut self,
        island: &Island,
        before: &CpuState,
        inside: &CpuState,
        bus: &dyn CpuBus,
    ) -> Result<UserExit, KvmError> {
        // A slot that is made anew makes KVM forget what it has made of page tables.
        self.slots.place_island(&mut *self.io, island.ram(), island.gpa(), island.size())?;
        self.put_user(inside)?;
        self.user_state = true;
        let begin = Instant::now();
        let (reason, port) = self.user_loop(bus)?;
        let spent = begin.elapsed();
        let mut now = *inside;
        let io = &mut *self.io;
        now.general = from_regs(&io.regs().map_err(call("KVM_GET_REGS"))?);
        from_sregs(&mut now, &io.sregs().map_err(call("KVM_GET_SREGS"))?);
        let xsave = io.xsave().map_err(call("KVM_GET_XSAVE"))?;
        from_xsave(&mut now, &xsave, self.layout);
        if uses_avx512(&xsave) && !std::mem::replace(&mut self.avx512_told, true) {
            log::warn!(
                "A program uses AVX-512, which the CPU model lacks: under KVM it sees the host's CPUID; use --accel jit for it"
            );
        }
        let frame = self.frame(island, &now, port)?;
        let state = island.leave(before, &now, frame);
        self.user_state = false;
        Ok(UserExit { state: Box::new(state), reason, inside: spent })
    }

    /// The frame that an exception has left, if the code inside has come to its handler.
    pub(super) fn frame(
        &self,
        island: &Island,
        now: &CpuState,
        port: u16,
    ) -> Result<Option<Frame>, KvmError> {
        if now.segments.cpl == 3 || island.is_syscall(now.general.rip) {
            return Ok(None);
        }
        match island.frame(now.general.regs[4], port) {
            Some(frame) => Ok(Some(frame)),
            None => Err(KvmError::Lacks("exceptions of user-level code as processors have them")),
        }
    }

    /// Only what may have changed since the last island, if that was the last that KVM ran.
    pub(super) fn put_user(&mut self, inside: &CpuState) -> Result<(), KvmError> {
        let same_machine =
            self.user_msrs.is_some_and(|msrs| msrs == (inside.msrs, inside.control.xcr0));
        let mut inside = *inside;
        if !self.machine_tsc {
            // RDTSC raises #GP, and another CPU knows the time.
            inside.control.cr4 |= cr4::TSD;
        }
        if !same_machine {
            self.put_state(&inside)?;
            self.user_msrs = Some((inside.msrs, inside.control.xcr0));
            return Ok(());
        }
        let io = &mut *self.io;
        io.set_sregs(&to_sregs(&inside, self.apic_base, 0)).map_err(call("KVM_SET_SREGS"))?;
        io.set_xsave(&to_xsave(&inside, self.layout)).map_err(call("KVM_SET_XSAVE"))?;
        io.set_regs(&to_regs(&inside.general)).map_err(call("KVM_SET_REGS"))?;
        io.set_events(&kvm_vcpu_events::default()).map_err(call("KVM_SET_VCPU_EVENTS"))
    }

    /// Why it has ended, and the port of the handler that did.
    fn user_loop(&mut self, bus: &dyn CpuBus) -> Result<(UserEnd, u16), KvmError> {
        self.set_tsc_if_due(bus)?;
        self.io.set_request_window(false);
        loop {
            if !self.kicker.enter() {
                return Ok((UserEnd::Attention, EXCEPTION_PORT));
            }
            self.incomplete = false;
            self.counts.runs += 1;
            let exit = self.io.run();
            self.kicker.leave();
            let exit = match exit {
                Ok(exit) => exit,
                Err(error) => {
                    log::debug!("KVM_RUN fails: {error}");
                    return Ok((UserEnd::Cannot, EXCEPTION_PORT));
                }
            };
            let ended = match exit {
                HostExit::Io { write: true, port: SYSCALL_PORT, .. } => {
                    Some((UserEnd::Syscall, SYSCALL_PORT))
                }
                HostExit::Io { write: true, port, .. } if PORTS.contains(&port) => {
                    Some((UserEnd::Exception, port))
                }
                HostExit::Interrupted | HostExit::Again => None,
                other => match self.serve(other, bus)? {
                    None => None,
                    Some(KvmExit::Cannot(Cannot::Internal { .. })) => {
                        Some((UserEnd::Cannot, EXCEPTION_PORT))
                    }
                    Some(KvmExit::Cannot(reason)) => {
                        return Err(KvmError::Cannot { place: self.at(), reason });
                    }
                    Some(KvmExit::Exit(_)) => {
                        return Err(KvmError::Lacks("exceptions of user-level code"));
                    }
                },
            };
            if ended.is_some_and(|(end, _)| end != UserEnd::Cannot) {
                self.incomplete = true;
            }
            self.complete(bus)?;
            if let Some(end) = ended {
                return Ok(end);
            }
        }
    }
}

/// Whether an image has mask registers or the parts of vectors above 256 bits in use: components 5 to 7
/// of XSTATE_BV. Intel SDM vol. 1, 13.4.2.
fn uses_avx512(xsave: &kvm_xsave) -> bool {
    xsave.region[128] & 0b1110_0000 != 0
}
