//! Running a machine: a thread for each processor, one for timers and the host's input, and why
//! they come to an end.
//!
//! Under `icount` the processors' thread serves timers and input itself, between instructions: it
//! runs exactly up to the next deadline, so that every run is the same.

use std::time::{Duration, Instant};

use trivium_chipset::{Clock, VmTime, guest_log};
use trivium_cpu::{Budget, CpuState, Exit, Vcpu, walk};
use trivium_memory::GuestPhysAddr;

use crate::board::{PcBoard, VcpuBus};
use crate::config::{ClockMode, TraceCategories};
use crate::control::Request;
use crate::error::MachineError;
use crate::exits::{ExitTrace, Way};
use crate::handle::MachineHandle;
use crate::machine::Machine;
use crate::switch::Turns;
use crate::time::MachineClock;

/// Stack of a processor's thread, in bytes: handlers that are not tail-called take it.
pub const STACK_SIZE: usize = 16 << 20;
/// How long the thread that serves timers rests at least between two rounds of them. It is less
/// than a host's timers are late by.
const LEAST_REST: Duration = Duration::from_micros(20);
/// The most bytes of code that are shown of a processor that has shut down.
const CODE_BYTES: usize = 16;

/// Why a run has ended.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// The guest has switched the machine off.
    PowerOff,
    /// The guest wants a reset, and [`crate::MachineConfig::no_reboot`] is set.
    Reset,
    /// The guest has written to `isa-debug-exit`: `(value << 1) | 1`.
    DebugExit(u32),
    /// A triple fault, and [`crate::MachineConfig::no_reboot`] is set.
    Shutdown {
        /// The processor's number.
        cpu: usize,
        /// Its state.
        state: Box<CpuState>,
        /// The code at its RIP, as far as it can be read.
        code: Vec<u8>,
    },
    /// [`crate::MachineHandle::stop`] was called.
    Stopped,
}

/// How a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    /// Virtual time ends here.
    pub(crate) limit: Option<VmTime>,
    /// On the calling thread. Under `icount` only.
    pub(crate) here: bool,
    /// Only until the processor first comes back.
    pub(crate) once: bool,
    /// Only until the processor comes back with a part of its budget left: where its code is cut.
    pub(crate) cut: bool,
}

/// What all threads of a run share.
struct Session<'a> {
    board: &'a PcBoard,
    clock: &'a MachineClock,
    messages: &'a crossbeam_channel::Receiver<crate::handle::Message>,
    exits: Option<&'a ExitTrace>,
    run: Run,
    turns: Option<&'a Turns>,
    handle: &'a MachineHandle,
}

impl Machine {
    /// Runs the guest until something ends it.
    ///
    /// # Errors
    /// A processor cannot go on for a reason that is not the guest's, or the host refuses
    /// something.
    pub fn run(&mut self) -> Result<RunEnd, MachineError> {
        loop {
            if let Some(end) = self.run_to(Run::default())? {
                return Ok(end);
            }
        }
    }

    /// Runs the guest until something ends it or virtual time reaches `limit`: then there is
    /// nothing to tell. Under `icount` it stops there exactly.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_until(&mut self, limit: VmTime) -> Result<Option<RunEnd>, MachineError> {
        self.run_to(Run { limit: Some(limit), ..Run::default() })
    }

    pub(crate) fn run_to(&mut self, run: Run) -> Result<Option<RunEnd>, MachineError> {
        loop {
            self.parts.clock.start();
            self.board.enter_kernel_chips()?;
            let result = self.run_threads(run);
            let left = self.board.leave_kernel_chips();
            self.parts.clock.stop();
            self.parts.trace.flush();
            let request = self.parts.control.take_request();
            result?;
            left?;
            match request {
                None | Some(Request::Failure | Request::Limit) => return Ok(None),
                Some(Request::PowerOff) => return Ok(Some(RunEnd::PowerOff)),
                Some(Request::Exit(status)) => return Ok(Some(RunEnd::DebugExit(status))),
                Some(Request::Stop) => return Ok(Some(RunEnd::Stopped)),
                Some(Request::Reset) if self.no_reboot => return Ok(Some(RunEnd::Reset)),
                Some(Request::Shutdown(cpu)) if self.no_reboot => {
                    return self.shutdown(cpu).map(Some);
                }
                Some(Request::Reset) => guest_log!(Info, "The guest resets the machine"),
                Some(Request::Shutdown(cpu)) => {
                    guest_log!(
                        Warn,
                        "Processor {cpu} has shut down (triple fault): the machine is reset"
                    );
                }
            }
            self.reset()?;
        }
    }

    fn shutdown(&mut self, cpu: usize) -> Result<RunEnd, MachineError> {
        let state = match self.vcpus.get_mut(cpu) {
            Some(vcpu) => vcpu.save()?,
            None => CpuState::default(),
        };
        let code = self.code_at_rip(&state);
        Ok(RunEnd::Shutdown { cpu, state: Box::new(state), code })
    }

    /// The bytes at a processor's RIP, as far as they can be read.
    #[must_use]
    pub fn code_at_rip(&self, state: &CpuState) -> Vec<u8> {
        let memory = &self.parts.memory;
        let paging = walk::Paging::from_state(&state.control, self.boot.model.phys_bits);
        let access = walk::Access { write: false, fetch: true, user: false, ac: false };
        let base = state.segments.regs[trivium_cpu::state::CS].base;
        let start = base.wrapping_add(state.general.rip);
        let byte = |at: usize| {
            let linear = start.wrapping_add(at as u64);
            let place = walk::probe(&paging, memory, linear, access).ok()?;
            let mut byte = [0];
            memory.read(GuestPhysAddr(place.gpa), &mut byte).ok()?;
            Some(byte[0])
        };
        (0..CODE_BYTES).map_while(byte).collect()
    }

    /// Runs all threads until one of them asks for an end.
    fn run_threads(&mut self, run: Run) -> Result<(), MachineError> {
        let Self { parts, board, vcpus, messages, clock_mode, exit_trace, turns, handle, .. } =
            self;
        let (clock, turns, exits) = (&parts.clock, turns.as_ref(), exit_trace.as_ref());
        let session = Session { board, clock, messages, exits, run, turns, handle };
        let (session, mode) = (&session, *clock_mode);
        if let (true, [vcpu], ClockMode::Icount { .. }) = (run.here, &mut vcpus[..], mode) {
            return session.run_vcpu(&mut **vcpu, 0, mode);
        }
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let mut result = Ok(());
            for (cpu, vcpu) in vcpus.iter_mut().enumerate() {
                let body = move || session.run_vcpu(&mut **vcpu, cpu, mode);
                let builder =
                    std::thread::Builder::new().name(format!("cpu{cpu}")).stack_size(STACK_SIZE);
                match builder.spawn_scoped(scope, body) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        result = Err(MachineError::Thread(error));
                        parts.control.request(Request::Failure);
                    }
                }
            }
            if mode == ClockMode::Real {
                session.serve_events();
            }
            for thread in threads {
                result = result.and(thread.join().unwrap_or(Err(MachineError::Panicked)));
            }
            result
        })
    }
}

/// Ends the run if its thread does not come to its own end.
struct EndOnPanic<'a>(&'a PcBoard);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.control.request(Request::Failure);
        }
    }
}

impl Session<'_> {
    /// The thread of a processor.
    fn run_vcpu(
        &self,
        vcpu: &mut dyn Vcpu,
        cpu: usize,
        mode: ClockMode,
    ) -> Result<(), MachineError> {
        let _end = EndOnPanic(self.board);
        let result = match mode {
            ClockMode::Real => self.run_vcpu_real(vcpu, cpu),
            ClockMode::Icount { sleep } => self.run_vcpu_icount(vcpu, cpu, sleep),
        };
        if result.is_err() {
            self.board.control.request(Request::Failure);
        }
        result
    }

    fn run_vcpu_real(&self, vcpu: &mut dyn Vcpu, cpu: usize) -> Result<(), MachineError> {
        let way = Way::new(VcpuBus { board: self.board, cpu }, self.exits);
        let control = &self.board.control;
        while !control.is_requested() {
            let exit = way.run(vcpu, Budget::UNLIMITED)?;
            self.trace_exit(vcpu, cpu, exit)?;
            match exit {
                Exit::Budget | Exit::Kicked => {}
                Exit::Halted | Exit::WaitForSipi => {
                    if let Some(processor) = control.processors().get(cpu) {
                        processor.parker.sleep(None);
                    }
                }
                Exit::Shutdown => control.request(Request::Shutdown(cpu)),
            }
        }
        Ok(())
    }

    /// The thread that serves timers and the host's input.
    fn serve_events(&self) {
        let control = &self.board.control;
        while !control.is_requested() {
            self.serve_messages();
            let now = self.clock.now();
            if self.reached_limit(now) {
                return;
            }
            self.fire_due_and_rest(now);
            self.take_turns(now);
            let next = earlier(self.next_event(), self.next_turn(now));
            match self.clock.sleep_until(next) {
                Some(0) => {}
                span => control.events.sleep(span.map(Duration::from_nanos)),
            }
        }
    }

    /// Calls devices at their deadlines, and rests before the next ones: a guest may set timers to
    /// fire every few nanoseconds, and the host is not to spend a processor on that. What is due
    /// meanwhile comes late, as if the host were slow.
    fn fire_due_and_rest(&self, now: VmTime) {
        let fired = self.board.fire_due(now);
        let soon = now.saturating_add(LEAST_REST.as_nanos() as u64);
        if fired && self.board.timers.refresh().is_some_and(|next| next < soon) {
            self.board.control.events.sleep(Some(LEAST_REST));
        }
    }

    fn serve_messages(&self) {
        while let Ok(message) = self.messages.try_recv() {
            self.board.handle(message);
        }
    }

    /// When a device is due, or the run ends.
    fn next_event(&self) -> Option<VmTime> {
        earlier(self.board.timers.refresh(), self.run.limit)
    }

    /// When processors change their CPUs.
    fn next_turn(&self, now: VmTime) -> Option<VmTime> {
        self.turns.map(|turns| turns.next(now))
    }

    /// Lets processors change their CPUs if it is time.
    fn take_turns(&self, now: VmTime) {
        if self.turns.is_some_and(|turns| turns.has_come(now)) {
            self.handle.switch_cpu();
        }
    }

    /// Ends the run if virtual time is over.
    fn reached_limit(&self, now: VmTime) -> bool {
        let reached = self.run.limit.is_some_and(|limit| limit <= now);
        if reached {
            self.board.control.request(Request::Limit);
        }
        reached
    }

    /// All processors' thread under `icount`. There is one processor yet.
    fn run_vcpu_icount(
        &self,
        vcpu: &mut dyn Vcpu,
        cpu: usize,
        sleep: bool,
    ) -> Result<(), MachineError> {
        let way = Way::new(VcpuBus { board: self.board, cpu }, self.exits);
        let control = &self.board.control;
        while !control.is_requested() {
            self.serve_messages();
            let now = self.clock.now();
            self.board.fire_due(now);
            if self.reached_limit(now) {
                break;
            }
            self.take_turns(now);
            let next = earlier(self.next_event(), self.next_turn(now));
            // An instruction takes a nanosecond.
            let budget = next.map_or(Budget::UNLIMITED, |next| Budget {
                instructions: next.nanos_since(now).max(1),
            });
            let exit = way.run(vcpu, budget)?;
            self.trace_exit(vcpu, cpu, exit)?;
            match exit {
                Exit::Budget | Exit::Kicked => {}
                Exit::Halted | Exit::WaitForSipi if control.is_requested() => {}
                Exit::Halted | Exit::WaitForSipi => self.idle(cpu, sleep),
                Exit::Shutdown => control.request(Request::Shutdown(cpu)),
            }
            let ended = budget.instructions <= self.clock.now().nanos_since(now);
            if self.run.once || self.run.cut && exit == Exit::Budget && !ended {
                control.request(Request::Limit);
            }
        }
        Ok(())
    }

    /// The guest has nothing to do until the next deadline, or until somebody wakes it.
    fn idle(&self, cpu: usize, sleep: bool) {
        let now = self.clock.now();
        let next = self.next_event();
        let Some(processor) = self.board.control.processors().get(cpu) else { return };
        let Some(next) = next else {
            processor.parker.sleep(None);
            return;
        };
        if !sleep {
            self.clock.set(next.max(now));
            return;
        }
        let span = Duration::from_nanos(next.nanos_since(now));
        let start = Instant::now();
        processor.parker.sleep(Some(span));
        let passed = start.elapsed().min(span).as_nanos() as u64;
        self.clock.set(now.saturating_add(passed));
    }

    fn trace_exit(&self, vcpu: &mut dyn Vcpu, cpu: usize, exit: Exit) -> Result<(), MachineError> {
        if self.board.trace.wants(TraceCategories::CPU) {
            let state = vcpu.save()?;
            let (cs, rip) =
                (state.segments.regs[trivium_cpu::state::CS].selector, state.general.rip);
            let now = self.clock.now();
            self.board.trace.line(format_args!("cpu: {now} {cpu} {exit:?} at {cs:04x}:{rip:x}"));
        }
        Ok(())
    }
}

/// The earlier of two moments that may not come.
fn earlier(a: Option<VmTime>, b: Option<VmTime>) -> Option<VmTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
