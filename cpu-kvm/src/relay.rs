//! KVM with another CPU behind it: what KVM cannot do, the other does.
//!
//! Two ways of sharing the work. With [`Level::All`] KVM runs everything it can: an instruction that
//! it cannot emulate runs on the other CPU, and where that happens too often, or in a mode that KVM
//! does not have, the other goes on alone for a while. With [`Level::User`], for KVMs that only run
//! user-level code well, the other CPU runs the guest and KVM long stretches of such code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, CpuState, Exit, Kick, Vcpu};

use crate::error::KvmError;
use crate::state::{is_v86, paging_mode};
use crate::vcpu::{KvmExit, KvmVcpu, UserEnd};

/// Which code KVM is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// All that it can run.
    All,
    /// 64-bit code at CPL 3.
    User,
}

/// Instructions that the other CPU runs between two looks at whether KVM could take over.
const SLICE: u64 = 300_000;
/// KVM's stretch must last so long, or the next tries come more rarely: what it costs to go there
/// and back is a fraction of that.
const WORTH: Duration = Duration::from_micros(1000);
/// The most slices between two tries.
const MOST_WAIT: u32 = 256;
/// So many instructions that KVM cannot do ...
const OFTEN: u32 = 100;
/// ... within so long are too many.
const SOON: Duration = Duration::from_millis(10);
/// How long the other CPU goes on alone then, at first and at most.
const FIRST_ABSENCE: Duration = Duration::from_millis(10);
const MOST_ABSENCE: Duration = Duration::from_secs(2);

/// Who runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Kvm,
    Other,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayCounts {
    /// Instructions that KVM could not do.
    pub single: u64,
    /// Times that the other CPU went on alone.
    pub absences: u64,
    /// Stretches of user-level code on KVM, by how they ended: exception, SYSCALL, others' wishes,
    /// an instruction that KVM could not do.
    pub user: [u64; 4],
    /// Time in them.
    pub user_time: Duration,
    /// Time for going there and back.
    pub user_overhead: Duration,
}

/// Reaches both CPUs.
struct RelayKick {
    kicked: AtomicBool,
    both: [Arc<dyn Kick>; 2],
}

impl Kick for RelayKick {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.both.iter().for_each(|kick| kick.kick());
    }

    fn attend(&self) {
        self.both.iter().for_each(|kick| kick.attend());
    }
}

/// KVM and another CPU, as one.
pub struct Relay {
    kvm: KvmVcpu,
    other: Box<dyn Vcpu>,
    level: Level,
    runner: Runner,
    kick: Arc<RelayKick>,
    counts: RelayCounts,
    /// Slices until the next try, and how many there were before the last one.
    wait: u32,
    last_wait: u32,
    /// When the present series of instructions that KVM cannot do began, and its length.
    series: (Instant, u32),
    /// Until when the other CPU goes on alone, and for how long that was.
    back: Instant,
    absence: Duration,
    /// KVM has failed and is not asked again.
    given_up: bool,
}

impl Relay {
    /// `other` must keep budgets exactly.
    #[must_use]
    pub fn new(kvm: KvmVcpu, other: Box<dyn Vcpu>, level: Level) -> Self {
        let kick =
            RelayKick { kicked: AtomicBool::new(false), both: [kvm.kicker(), other.kicker()] };
        let now = Instant::now();
        Self {
            kvm,
            other,
            level,
            runner: if level == Level::All { Runner::Kvm } else { Runner::Other },
            kick: Arc::new(kick),
            counts: RelayCounts::default(),
            wait: 0,
            last_wait: 0,
            series: (now, 0),
            back: now,
            absence: FIRST_ABSENCE,
            given_up: false,
        }
    }

    /// What is counted since it was made.
    #[must_use]
    pub fn counts(&self) -> RelayCounts {
        self.counts
    }

    #[cfg(test)]
    pub(crate) fn kvm_for_test(&mut self) -> &mut KvmVcpu {
        &mut self.kvm
    }

    fn run_kvm(&mut self, bus: &dyn CpuBus) -> Result<Option<Exit>, CpuError> {
        let reason = match self.kvm.enter(bus) {
            Ok(KvmExit::Exit(Exit::Kicked)) => return Ok(None),
            Ok(KvmExit::Exit(exit)) => {
                self.kvm.collect_dirty()?;
                return Ok(Some(exit));
            }
            Ok(KvmExit::Cannot(reason)) => reason,
            Err(error) => {
                // As long as KVM still tells the state, the guest is not lost.
                let state = self.kvm.save()?;
                self.kvm.collect_dirty()?;
                self.other.load(&state)?;
                self.give_up(&error);
                return Ok(None);
            }
        };
        self.counts.single += 1;
        let state = self.kvm.save()?;
        self.kvm.collect_dirty()?;
        self.other.load(&state)?;
        log::debug!("KVM cannot go on at {:x}: {reason}", state.general.rip);
        if self.too_often() {
            self.stay_away("what KVM cannot do comes too often");
            return Ok(None);
        }
        let exit = self.other.run(bus, Budget { instructions: 1 })?;
        let state = self.other.save()?;
        self.give_to_kvm(&state)?;
        Ok(Some(exit).filter(|exit| !matches!(exit, Exit::Budget | Exit::Kicked)))
    }

    /// Whether the instruction is one of many that KVM cannot do.
    fn too_often(&mut self) -> bool {
        let (begin, count) = self.series;
        if begin.elapsed() > SOON {
            self.series = (Instant::now(), 1);
            return false;
        }
        self.series.1 = count + 1;
        count >= OFTEN
    }

    /// The other CPU has the state and goes on alone for a while.
    fn stay_away(&mut self, why: &str) {
        log::debug!("The other CPU goes on for {:?}: {why}", self.absence);
        self.counts.absences += 1;
        self.runner = Runner::Other;
        self.back = Instant::now() + self.absence;
        self.absence = (self.absence * 2).min(MOST_ABSENCE);
    }

    /// The other CPU has the state and goes on alone for good.
    fn give_up(&mut self, error: &KvmError) {
        log::warn!("KVM is left alone from now on, the other CPU goes on: {error}");
        self.runner = Runner::Other;
        self.given_up = true;
    }

    /// Lets KVM go on from a state, or the other CPU if KVM does not take it.
    fn give_to_kvm(&mut self, state: &CpuState) -> Result<(), CpuError> {
        match self.kvm.take_over(state) {
            Ok(()) => self.runner = Runner::Kvm,
            Err(KvmError::State(what)) => {
                self.other.load(state)?;
                let mode = paging_mode(state);
                log::debug!(
                    "KVM cannot take over in {mode:?} paging, V86 {}: {what}",
                    is_v86(state)
                );
                self.stay_away(what);
            }
            Err(error) => {
                self.other.load(state)?;
                self.give_up(&error);
            }
        }
        Ok(())
    }

    fn run_other(&mut self, bus: &dyn CpuBus) -> Result<Option<Exit>, CpuError> {
        // What has come before is for the other CPU; what comes from now on is for both.
        self.kvm.forget_attention();
        match self.other.run(bus, Budget { instructions: SLICE })? {
            Exit::Kicked => return Ok(None),
            Exit::Budget => {}
            exit => return Ok(Some(exit)),
        }
        match self.level {
            _ if self.given_up => {}
            Level::User => self.try_user(bus)?,
            Level::All if Instant::now() >= self.back => {
                let state = self.other.save()?;
                self.give_to_kvm(&state)?;
            }
            Level::All => {}
        }
        Ok(None)
    }

    /// Lets KVM run user-level code, if that is what the guest runs and has lately been worth it.
    fn try_user(&mut self, bus: &dyn CpuBus) -> Result<(), CpuError> {
        if self.wait > 0 {
            self.wait -= 1;
            return Ok(());
        }
        if self.kvm.has_attention() {
            return Ok(());
        }
        let state = self.other.save()?;
        if !KvmVcpu::is_user(&state) {
            return Ok(());
        }
        let begin = Instant::now();
        let exit = match self.kvm.run_user(&state, bus) {
            Ok(Some(exit)) => exit,
            Ok(None) => return Ok(()),
            // The other CPU still has the state.
            Err(error) if !self.kvm.has_user_state() => {
                self.give_up(&error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.kvm.collect_dirty()?;
        self.other.load(&exit.state)?;
        // Whatever KVM has been told was for this CPU too.
        self.other.kicker().attend();
        let kind = match exit.reason {
            UserEnd::Exception => 0,
            UserEnd::Syscall => 1,
            UserEnd::Attention => 2,
            UserEnd::Cannot => 3,
        };
        self.counts.user[kind] += 1;
        self.counts.user_time += exit.inside;
        self.counts.user_overhead += begin.elapsed().saturating_sub(exit.inside);
        self.last_wait = match exit.inside >= WORTH {
            true => 0,
            false => (self.last_wait * 2).clamp(1, MOST_WAIT),
        };
        self.wait = self.last_wait;
        Ok(())
    }
}

impl Vcpu for Relay {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        if budget != Budget::UNLIMITED {
            return Err(KvmError::Budget.into());
        }
        loop {
            if self.kick.kicked.swap(false, Ordering::SeqCst) {
                return Ok(Exit::Kicked);
            }
            let exit = match self.runner {
                Runner::Kvm => self.run_kvm(bus)?,
                Runner::Other => self.run_other(bus)?,
            };
            if let Some(exit) = exit {
                return Ok(exit);
            }
        }
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.kick.clone()
    }

    fn save(&mut self) -> Result<CpuState, CpuError> {
        match self.runner {
            Runner::Kvm => self.kvm.save(),
            Runner::Other => self.other.save(),
        }
    }

    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        match self.level {
            Level::All if !self.given_up => self.give_to_kvm(state),
            _ => self.other.load(state),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { exact_budget: false }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let RelayCounts { single, absences, user, user_time, user_overhead } = self.counts;
        log::info!(
            "KVM's share: {single} instructions it could not do, {absences} absences; user-level code {user:?} times, {user_time:?}, and {user_overhead:?} for going there and back"
        );
    }
}
