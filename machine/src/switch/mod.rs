//! One processor that is several: CPUs of different kinds that take turns while the guest runs.
//!
//! The one that runs has the state; the others are parked. To switch is to save here and to load
//! there, which may be done between any two instructions: whatever a CPU is in the middle of is part
//! of [`CpuState`]. A parked CPU keeps the code that it has decoded or translated, and learns from
//! [`trivium_memory::CodePages`] what was written meanwhile; its TLB is empty when it comes back.

mod counting;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, CpuState, Exit, Kick, Vcpu};

use crate::config::Accel;
use crate::error::MachineError;
use counting::Counting;
use plan::Plan;

pub(crate) use plan::Turns;
pub use plan::{SwitchConfig, SwitchEvery};

/// Makes a CPU of a kind.
pub(crate) type NewVcpu = dyn Fn(Accel) -> Result<Box<dyn Vcpu>, MachineError> + Send;

/// CPUs of different kinds in the place of one.
pub(crate) struct Switcher {
    kinds: Vec<Accel>,
    /// Made when they are first needed.
    vcpus: Vec<Option<Box<dyn Vcpu>>>,
    new_vcpu: Box<NewVcpu>,
    active: usize,
    kicks: Arc<Kicks>,
    plan: Plan,
    /// Instructions until the next switch, if the plan counts them.
    left: Option<u64>,
    switches: u64,
    /// What they have cost in all.
    cost: Duration,
}

/// Reaches all CPUs of a [`Switcher`]: who kicks need not know which one runs.
pub(crate) struct Kicks {
    each: Vec<OnceLock<Arc<dyn Kick>>>,
    /// Somebody wants another CPU.
    wanted: AtomicBool,
}

impl Kicks {
    /// The next CPU shall take over, before the next instruction.
    pub(crate) fn switch(&self) {
        self.wanted.store(true, Ordering::Release);
        self.kick();
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Kick>> {
        self.each.iter().filter_map(OnceLock::get)
    }
}

impl Kick for Kicks {
    fn kick(&self) {
        // A parked one comes back once more when its turn comes, and nothing else.
        self.all().for_each(|kick| kick.kick());
    }

    fn attend(&self) {
        self.all().for_each(|kick| kick.attend());
    }
}

impl Switcher {
    /// A processor whose CPUs are of the kinds that `config` says; the first one runs.
    ///
    /// # Errors
    /// The host refuses what the first one needs.
    pub(crate) fn new(config: &SwitchConfig, new_vcpu: Box<NewVcpu>) -> Result<Self, MachineError> {
        let kinds = config.cpus.clone();
        let mut plan = Plan::new(&config.every);
        let mut switcher = Self {
            vcpus: kinds.iter().map(|_| None).collect(),
            kicks: Arc::new(Kicks {
                each: kinds.iter().map(|_| OnceLock::new()).collect(),
                wanted: AtomicBool::new(false),
            }),
            kinds,
            new_vcpu,
            active: 0,
            left: plan.next(),
            plan,
            switches: 0,
            cost: Duration::ZERO,
        };
        switcher.make(0)?;
        Ok(switcher)
    }

    /// The handle by which others ask for a switch.
    pub(crate) fn kicks(&self) -> Arc<Kicks> {
        self.kicks.clone()
    }

    /// Makes a CPU, unless it is there.
    fn make(&mut self, index: usize) -> Result<(), MachineError> {
        let (Some(place), Some(&kind)) = (self.vcpus.get_mut(index), self.kinds.get(index)) else {
            return Ok(());
        };
        if place.is_none() {
            let vcpu = (self.new_vcpu)(kind)?;
            if let Some(kick) = self.kicks.each.get(index) {
                // It is empty: this is the only place that fills it, and only once.
                let _ = kick.set(vcpu.kicker());
            }
            *place = Some(vcpu);
        }
        Ok(())
    }

    fn active(&mut self) -> Result<&mut Box<dyn Vcpu>, CpuError> {
        let vcpu = self.vcpus.get_mut(self.active).and_then(Option::as_mut);
        vcpu.ok_or(CpuError::State("there is no CPU"))
    }

    /// The next CPU takes over.
    pub(crate) fn switch(&mut self) -> Result<(), CpuError> {
        let next = (self.active + 1) % self.kinds.len().max(1);
        if next != self.active {
            let refused = |error: MachineError| CpuError::Host(std::io::Error::other(error));
            self.make(next).map_err(refused)?;
            let start = Instant::now();
            let state = self.active()?.save()?;
            self.active = next;
            self.active()?.load(&state)?;
            self.switches += 1;
            self.cost += start.elapsed();
        }
        Ok(())
    }

    /// Switches if it is time.
    fn switch_if_due(&mut self) -> Result<(), CpuError> {
        let counted = self.left == Some(0);
        if counted {
            self.left = self.plan.next();
        }
        if self.kicks.wanted.swap(false, Ordering::AcqRel) || counted {
            self.switch()?;
        }
        Ok(())
    }

    /// Runs the active CPU up to the next switch that is planned, or for less.
    fn run_counted(
        &mut self,
        bus: &dyn CpuBus,
        budget: Budget,
        left: u64,
    ) -> Result<(Exit, u64), CpuError> {
        let counting = Counting::new(bus);
        let exact = self.capabilities().exact_budget;
        let limited = Budget { instructions: budget.instructions.min(left) };
        let budget = if exact { limited } else { budget };
        let exit = self.active()?.run(&counting, budget)?;
        let retired = counting.retired();
        // One that cannot count gives way when it next comes back.
        self.left = Some(if exact { left.saturating_sub(retired) } else { 0 });
        Ok((exit, retired))
    }
}

impl Vcpu for Switcher {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        let mut budget = budget;
        loop {
            self.switch_if_due()?;
            let Some(left) = self.left else { return self.active()?.run(bus, budget) };
            let (exit, retired) = self.run_counted(bus, budget, left)?;
            budget.instructions = match budget.instructions {
                u64::MAX => u64::MAX,
                limited => limited.saturating_sub(retired),
            };
            if exit != Exit::Budget || budget.instructions == 0 {
                return Ok(exit);
            }
        }
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kicks.clone()
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        self.active()?.save()
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        self.active()?.load(state)
    }

    fn capabilities(&self) -> Capabilities {
        let active = self.vcpus.get(self.active).and_then(Option::as_ref);
        active.map_or_else(Capabilities::default, |vcpu| vcpu.capabilities())
    }
}

impl Drop for Switcher {
    fn drop(&mut self) {
        if self.switches > 0 {
            let micros = self.cost.as_secs_f64() * 1e6 / self.switches as f64;
            log::info!(
                "The processor changed its CPU {} times, in {micros:.2} us each",
                self.switches
            );
        }
    }
}
