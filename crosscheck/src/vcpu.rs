//! The engine around a virtual CPU: a small machine whose handlers halt.
//!
//! A case runs at privilege level 3 in long mode, as under a 64-bit kernel: its regions are mapped
//! for it, and all else is the supervisor's. Each vector has a handler of one HLT, so where the
//! CPU halts says what happened, and the frame on the supervisor's stack says to whom.

mod guest;
mod ram;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trivium_cpu::model::{CpuModel, Feature};
use trivium_cpu::{Budget, CpuState, Exit, NullBus, Vcpu};
use trivium_interp::{Interpreter, Topology};
use trivium_jit::{Jit, JitOptions};
use trivium_memory::GuestMemory;

use crate::case::{Case, Width};
use crate::engine::{Engine, EngineError};
use crate::outcome::{Outcome, Stop};
use guest::Event;
use ram::Ram;

const JIT: &str = "jit";

/// How often a block is interpreted before it is translated, where cases are run more than once.
const HOT_WARM: u32 = 1;
/// After how many instructions, and how often, a block is to be met then to be the beginning of a
/// superblock: cases are short.
const HOT_QUANTUM: u32 = 5;
const HOT_TIMES: u32 = 1;

const TOPOLOGY: Topology =
    Topology { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };

/// Runs cases on a virtual CPU.
pub struct VcpuEngine {
    name: &'static str,
    vcpu: Box<dyn Vcpu>,
    model: Arc<CpuModel>,
    ram: Ram,
    /// How often each case is run, from the same state; each run must do as the first.
    runs: u32,
    /// Superblocks that were made, and cases that had some since that was last asked.
    superblocks: Arc<AtomicU64>,
    hot: u64,
}

impl VcpuEngine {
    /// An engine around the CPU that `make` makes for a memory and a scratch page in it.
    ///
    /// # Errors
    /// The host refuses memory.
    pub fn new(
        name: &'static str,
        model: CpuModel,
        make: impl FnOnce(Arc<GuestMemory>, Arc<CpuModel>, usize) -> Box<dyn Vcpu>,
    ) -> Result<Self, EngineError> {
        let unavailable = |reason: String| EngineError::Unavailable { engine: name, reason };
        if !model.has(Feature::Lm) {
            let reason = format!("CPU model '{}' has no long mode", model.name);
            return Err(unavailable(reason));
        }
        let model = Arc::new(model);
        let ram = Ram::new().map_err(|e| unavailable(e.to_string()))?;
        let scratch = ram.scratch();
        let vcpu = make(ram.memory(), model.clone(), scratch);
        Ok(Self { name, vcpu, model, ram, runs: 1, superblocks: Arc::default(), hot: 0 })
    }

    /// The interpreter.
    ///
    /// # Errors
    /// The host refuses memory.
    pub fn interpreter(model: CpuModel) -> Result<Self, EngineError> {
        Self::new("interp", model, |memory, model, scratch| {
            Box::new(Interpreter::new(memory, model, TOPOLOGY, scratch))
        })
    }

    /// The JIT, which translates whatever it can before it is run for the first time: so what is
    /// compared is translated code.
    ///
    /// # Errors
    /// The host refuses memory, or that it be executed.
    pub fn jit(model: CpuModel) -> Result<Self, EngineError> {
        let jit = Jit::new()
            .map_err(|e| EngineError::Unavailable { engine: JIT, reason: e.to_string() })?;
        Self::new(JIT, model, |memory, model, scratch| {
            let interpreter = Interpreter::new(memory, model, TOPOLOGY, scratch);
            Box::new(interpreter.with_translator(Box::new(jit)).with_warm(0))
        })
    }

    /// The JIT, with each case run so often. The first runs are interpreted, then it is translated,
    /// and then it is as hot as that makes it. Where a run does not do as the first, that is its
    /// outcome.
    ///
    /// # Errors
    /// As [`Self::jit`].
    pub fn hot(model: CpuModel, runs: u32) -> Result<Self, EngineError> {
        let superblocks = Arc::<AtomicU64>::default();
        let counted = Some(superblocks.clone());
        let jit = Jit::with_options(&JitOptions { superblocks: counted, ..JitOptions::default() })
            .map_err(|e| EngineError::Unavailable { engine: JIT, reason: e.to_string() })?;
        let engine = Self::new(JIT, model, |memory, model, scratch| {
            let interpreter = Interpreter::new(memory, model, TOPOLOGY, scratch);
            let cpu = interpreter.with_translator(Box::new(jit)).with_warm(HOT_WARM);
            Box::new(cpu.with_hot(HOT_QUANTUM, HOT_TIMES))
        })?;
        Ok(Self { runs, superblocks, ..engine })
    }

    fn run_case(&mut self, case: &Case) -> Result<Outcome, EngineError> {
        let superblocks = self.superblocks.load(Ordering::Relaxed);
        self.ram.begin(case);
        let state = guest::initial_state(case, &self.model);
        let first = self.run_once(case, &state)?;
        let mut outcome = first.clone();
        for _ in 1..self.runs {
            if outcome != first || outcome.stop == Stop::Endless {
                break;
            }
            self.ram.rewind();
            outcome = self.run_once(case, &state)?;
        }
        self.ram.end();
        self.hot += u64::from(self.superblocks.load(Ordering::Relaxed) != superblocks);
        Ok(outcome)
    }

    fn run_once(&mut self, case: &Case, state: &CpuState) -> Result<Outcome, EngineError> {
        let failed = |name| {
            move |e: trivium_cpu::CpuError| EngineError::Host {
                engine: name,
                source: std::io::Error::other(e),
            }
        };
        self.vcpu.load(state).map_err(failed(self.name))?;
        // The handler's HLT counts too.
        let budget = Budget { instructions: u64::from(case.limit) + 1 };
        let exit = self.vcpu.run(&NullBus::new(), budget).map_err(failed(self.name))?;
        let after = self.vcpu.save().map_err(failed(self.name))?;
        Ok(self.outcome(exit, &after))
    }

    fn outcome(&mut self, exit: Exit, after: &CpuState) -> Outcome {
        let (stop, state) = match (exit, guest::event(after)) {
            (Exit::Halted, Some(Event::Exception(vector))) => {
                let (state, error) = guest::interrupted(after, vector, &self.ram);
                let cr2 = if vector == 14 { after.control.cr2 } else { 0 };
                // Of the supervisor's own pages a program cannot know that they are there.
                let hidden = if cr2 >> 47 != 0 { 1 } else { 0 };
                let error = error & !hidden;
                let stop = match vector {
                    0x80 => Stop::Syscall,
                    _ => Stop::Exception { vector, error, cr2 },
                };
                (stop, state)
            }
            (Exit::Halted, Some(Event::Syscall)) => (Stop::Syscall, guest::after_syscall(after)),
            (Exit::Budget, _) => (Stop::Endless, guest::user_state(after)),
            _ => (Stop::Shutdown, guest::user_state(after)),
        };
        Outcome { stop, state, changes: self.ram.changes() }
    }
}

impl Engine for VcpuEngine {
    fn name(&self) -> &'static str {
        self.name
    }

    fn refuses(&self, case: &Case) -> Option<&'static str> {
        // The scheme of addresses has the code segments of 32-bit code at 4 GiB and below only.
        let far = case.width != Width::Bits64 && case.state.rip >> 32 != 0;
        far.then_some("RIP is beyond 4 GiB in code that is not 64-bit")
    }

    fn steps_otherwise(&self) -> bool {
        // What is stepped is interpreted.
        self.name == JIT
    }

    fn has_avx512(&self) -> bool {
        false
    }

    fn take_hot(&mut self) -> u64 {
        std::mem::take(&mut self.hot)
    }

    fn run(&mut self, cases: &[Case]) -> Result<Vec<Outcome>, EngineError> {
        cases.iter().map(|case| self.run_case(case)).collect()
    }
}
