//! Virtual time: the machine's clock, which runs only while the guest runs.
//!
//! The time-stamp counter and the local APICs' timers tick once a nanosecond, on every host and
//! under every clock: so no conversion stands between RDTSC and the clock, and a machine keeps its
//! frequencies when it moves to another host.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use trivium_chipset::{Clock, ManualClock, NANOS_PER_SECOND, VmTime};

use crate::config::ClockMode;

/// Frequency of the time-stamp counter in hertz.
pub const TSC_HZ: u64 = NANOS_PER_SECOND;
/// Frequency of the local APICs' timers before division, in hertz.
pub const APIC_HZ: u64 = NANOS_PER_SECOND;

/// The clock of one machine.
#[derive(Debug)]
pub enum MachineClock {
    /// Follows the host's monotonic clock.
    Real(RealClock),
    /// Follows the instructions that the processors have retired.
    Icount(ManualClock),
}

impl MachineClock {
    /// A clock at the machine's start. It stands until [`Self::start`].
    #[must_use]
    pub fn new(mode: ClockMode) -> Self {
        match mode {
            ClockMode::Real => Self::Real(RealClock::new()),
            ClockMode::Icount { .. } => Self::Icount(ManualClock::default()),
        }
    }

    /// The guest begins to run.
    pub fn start(&self) {
        if let Self::Real(clock) = self {
            clock.start();
        }
    }

    /// The guest stops: time stands.
    pub fn stop(&self) {
        if let Self::Real(clock) = self {
            clock.stop();
        }
    }

    /// Sets the time, while the guest does not run.
    pub fn set(&self, now: VmTime) {
        match self {
            Self::Real(clock) => clock.set(now),
            Self::Icount(clock) => clock.set(now),
        }
    }

    /// A processor has retired `instructions`.
    #[inline]
    pub fn retire(&self, instructions: u64) {
        if let Self::Icount(clock) = self {
            // A nanosecond each, see `ClockMode::Icount`.
            clock.advance(instructions);
        }
    }

    /// A random number: the host's, or under icount one that depends on the moment alone, so that a
    /// second run gets it too.
    #[must_use]
    pub fn random(&self) -> u64 {
        match self {
            Self::Real(_) => {
                let mut bytes = [0; 8];
                // Eight bytes come whole, once the host has booted (getrandom(2)).
                let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
                u64::from_le_bytes(bytes)
            }
            Self::Icount(clock) => scramble(clock.now().as_nanos()),
        }
    }

    /// The time-stamp counter of virtual time.
    #[inline]
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.now().as_nanos()
    }
}

/// A number in which every bit of `n` shows everywhere: the output function of SplitMix64 (Steele,
/// Lea and Flood, 2014).
fn scramble(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Clock for MachineClock {
    #[inline]
    fn now(&self) -> VmTime {
        match self {
            Self::Real(clock) => clock.now(),
            Self::Icount(clock) => clock.now(),
        }
    }
}

/// The host's monotonic clock, less the time for which the machine stood.
#[derive(Debug)]
pub struct RealClock {
    origin: Instant,
    running: AtomicBool,
    /// Running: host nanoseconds since `origin` less virtual time, modulo 2^64. Else virtual time.
    value: AtomicU64,
}

impl RealClock {
    fn new() -> Self {
        Self { origin: Instant::now(), running: AtomicBool::new(false), value: AtomicU64::new(0) }
    }

    fn host(&self) -> u64 {
        // 2^64 nanoseconds are 584 years.
        self.origin.elapsed().as_nanos() as u64
    }

    // `start`, `stop` and `set` are called while no processor and no device thread runs.

    fn start(&self) {
        if !self.running.load(Ordering::Acquire) {
            let now = self.value.load(Ordering::Acquire);
            self.value.store(self.host().wrapping_sub(now), Ordering::Release);
            self.running.store(true, Ordering::Release);
        }
    }

    fn stop(&self) {
        let now = self.now();
        self.running.store(false, Ordering::Release);
        self.value.store(now.as_nanos(), Ordering::Release);
    }

    fn set(&self, now: VmTime) {
        self.stop();
        self.value.store(now.as_nanos(), Ordering::Release);
    }

    #[inline]
    fn now(&self) -> VmTime {
        let value = self.value.load(Ordering::Acquire);
        VmTime::from_nanos(match self.running.load(Ordering::Acquire) {
            true => self.host().wrapping_sub(value),
            false => value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn time_stands_while_the_machine_does() {
        let clock = MachineClock::new(ClockMode::Real);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), VmTime::ZERO);
        clock.start();
        std::thread::sleep(Duration::from_millis(2));
        clock.stop();
        let stopped = clock.now();
        assert!(stopped >= VmTime::from_nanos(2_000_000));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), stopped);
        clock.start();
        assert!(clock.now() >= stopped);
    }

    #[test]
    fn a_clock_can_be_set_and_goes_on_from_there() {
        let clock = MachineClock::new(ClockMode::Real);
        clock.start();
        clock.set(VmTime::from_nanos(1 << 40));
        assert_eq!(clock.now().as_nanos(), 1 << 40);
        clock.start();
        assert!((1 << 40..2 << 40).contains(&clock.tsc()));
    }

    #[test]
    fn an_instruction_is_a_nanosecond() {
        let clock = MachineClock::new(ClockMode::Icount { sleep: false });
        clock.start();
        assert_eq!(clock.tsc(), 0);
        clock.retire(1234);
        assert_eq!(clock.tsc(), 1234);
    }

    #[test]
    fn random_numbers_come_again_under_icount_and_differ_by_instruction() {
        let numbers = || {
            let clock = MachineClock::new(ClockMode::Icount { sleep: false });
            clock.start();
            let next = |_| {
                clock.retire(1);
                clock.random()
            };
            (0..100).map(next).collect::<Vec<_>>()
        };
        let (first, second) = (numbers(), numbers());
        assert_eq!(first, second);
        let different: std::collections::HashSet<_> = first.iter().collect();
        assert_eq!(different.len(), first.len());
        // Half of their bits are set, but for chance.
        let ones: u32 = first.iter().map(|n| n.count_ones()).sum();
        assert!((2900..3500).contains(&ones), "{ones} of 6400");
    }
}
