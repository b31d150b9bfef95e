//! Virtual time: the machine's clock, which runs only while the guest runs.
//!
//! The time-stamp counter and the local APICs' timers tick once a nanosecond, on every host and
//! under every clock: so no conversion stands between RDTSC and the clock, and a machine keeps its
//! frequencies when it moves to another host.

mod real;

use trivium_chipset::{Clock, ManualClock, NANOS_PER_SECOND, VmTime};

use self::real::RealClock;
use crate::config::ClockMode;

/// Frequency of the time-stamp counter in hertz.
pub const TSC_HZ: u64 = NANOS_PER_SECOND;
/// Frequency of the local APICs' timers before division, in hertz.
pub const APIC_HZ: u64 = NANOS_PER_SECOND;

/// What becomes of the time for which the host did not let the machine run, though nobody had
/// stopped it: the process was stopped by a signal, or the host was asleep or overloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absence {
    /// It is no time for the guest: virtual time goes on where it was.
    #[default]
    TakenOut,
    /// Virtual time jumps over it.
    Passes,
}

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
        Self::with_absence(mode, Absence::default())
    }

    /// The same with another treatment of the host's absence.
    #[must_use]
    pub fn with_absence(mode: ClockMode, absence: Absence) -> Self {
        match mode {
            ClockMode::Real => Self::Real(RealClock::new(absence)),
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

    /// The thread that serves timers sleeps until `next`, or until it is woken. Gives how long it
    /// may sleep, in nanoseconds: a clock that finds absences wants to be read now and then.
    #[must_use]
    pub fn sleep_until(&self, next: Option<VmTime>) -> Option<u64> {
        match self {
            Self::Real(clock) => Some(clock.sleep_until(next)),
            Self::Icount(_) => next.map(|next| next.nanos_since(self.now())),
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
pub(crate) fn scramble(n: u64) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
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

    const ABSENCE: Duration = Duration::from_millis(150);

    /// How far the clock went while nobody read it.
    fn nanos_over(clock: &MachineClock, span: Duration) -> u64 {
        let before = clock.now();
        std::thread::sleep(span);
        clock.now().nanos_since(before)
    }

    #[test]
    fn an_absence_of_the_host_is_taken_out_unless_it_shall_pass() {
        let clock = MachineClock::new(ClockMode::Real);
        clock.start();
        assert!(nanos_over(&clock, ABSENCE) < 20_000_000);
        assert!(nanos_over(&clock, Duration::from_millis(5)) >= 5_000_000, "and on it goes");
        let clock = MachineClock::with_absence(ClockMode::Real, Absence::Passes);
        clock.start();
        assert!(nanos_over(&clock, ABSENCE) >= 150_000_000);
    }

    #[test]
    fn sleep_that_was_announced_is_no_absence() {
        let clock = MachineClock::new(ClockMode::Real);
        clock.start();
        let span = ABSENCE.as_nanos() as u64;
        let granted = clock.sleep_until(Some(clock.now().saturating_add(span)));
        assert!(granted.is_some_and(|granted| granted <= span && granted > span / 2));
        assert!(nanos_over(&clock, ABSENCE) >= 140_000_000);
        assert!(clock.sleep_until(None).is_some(), "the clock wants to be read now and then");
        let past = Some(VmTime::ZERO);
        assert_eq!(clock.sleep_until(past), Some(0));
    }

    #[test]
    fn the_tsc_is_monotonic_on_all_processors_over_stop_and_continue() {
        let clock = MachineClock::new(ClockMode::Real);
        clock.start();
        let latest = AtomicU64::new(0);
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        // What others have read before is never later than what is read now.
                        for _ in 0..1000 {
                            let before = latest.load(Ordering::SeqCst);
                            let now = clock.tsc();
                            assert!(now >= before, "{now} after {before}");
                            latest.fetch_max(now, Ordering::SeqCst);
                        }
                        together.wait();
                        std::thread::sleep(ABSENCE);
                    }
                });
            }
        });
        assert!(clock.tsc() < 300_000_000, "of 600 ms of absence");
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
