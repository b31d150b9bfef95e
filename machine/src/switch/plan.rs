//! When a processor changes its CPU.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};

use trivium_chipset::VmTime;

use crate::config::{Accel, ConfigError};

/// The CPUs of a processor, and when they take turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchConfig {
    /// The kinds of CPU, in the order of their turns; the first begins.
    pub cpus: Vec<Accel>,
    /// When the next one takes over.
    pub every: SwitchEvery,
}

/// When the next CPU takes over. [`crate::MachineHandle::switch_cpu`] always makes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SwitchEvery {
    /// Only when it is asked for.
    #[default]
    Request,
    /// After so many nanoseconds of virtual time; under `icount` between two certain instructions.
    Nanos(u64),
    /// After so many instructions; a number from the range, which depends on the seed and on how
    /// many there were before.
    Instructions {
        /// From how many to how many.
        range: RangeInclusive<u64>,
        /// What the numbers are made from.
        seed: u64,
    },
}

impl SwitchConfig {
    /// CPUs that take turns only when it is asked for, `first` before all others.
    #[must_use]
    pub fn on_request(first: Accel) -> Self {
        let others = Accel::INTERCHANGEABLE.iter().filter(|&&kind| kind != first);
        let cpus = [&first].into_iter().chain(others).copied().collect();
        Self { cpus, every: SwitchEvery::Request }
    }

    /// Whether it can be followed.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let empty = match &self.every {
            SwitchEvery::Request => false,
            SwitchEvery::Nanos(nanos) => *nanos == 0,
            SwitchEvery::Instructions { range, .. } => range.is_empty() || *range.start() == 0,
        };
        match (self.cpus.len(), empty) {
            (0, _) => Err(ConfigError::NoSwitchCpus),
            (_, true) => Err(ConfigError::SwitchTooOften),
            _ => Ok(()),
        }
    }

    /// The virtual time between two switches, in nanoseconds, if that is what they follow.
    pub(crate) fn nanos(&self) -> Option<u64> {
        match self.every {
            SwitchEvery::Nanos(nanos) => Some(nanos),
            _ => None,
        }
    }
}

/// Turns that follow virtual time: the first is 0.
pub(crate) struct Turns {
    nanos: u64,
    present: AtomicU64,
}

impl Turns {
    pub(crate) fn new(nanos: u64) -> Self {
        Self { nanos: nanos.max(1), present: AtomicU64::new(0) }
    }

    /// Whether another turn has come since the last call.
    pub(crate) fn has_come(&self, now: VmTime) -> bool {
        let turn = now.as_nanos() / self.nanos;
        self.present.swap(turn, Ordering::Relaxed) != turn
    }

    /// When the next turn comes.
    pub(crate) fn next(&self, now: VmTime) -> VmTime {
        let turn = now.as_nanos() / self.nanos;
        VmTime::from_nanos((turn + 1).saturating_mul(self.nanos))
    }
}

/// Numbers of instructions between switches.
pub(super) struct Plan {
    range: Option<RangeInclusive<u64>>,
    state: u64,
}

impl Plan {
    pub(super) fn new(every: &SwitchEvery) -> Self {
        match every {
            SwitchEvery::Instructions { range, seed } => {
                Self { range: Some(range.clone()), state: *seed }
            }
            _ => Self { range: None, state: 0 },
        }
    }

    /// After how many instructions the next switch comes, if they are counted.
    pub(super) fn next(&mut self) -> Option<u64> {
        let range = self.range.as_ref()?;
        let (start, span) = (*range.start(), range.end() - range.start());
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let place = (u128::from(crate::time::scramble(self.state)) * (u128::from(span) + 1)) >> 64;
        Some(start + place as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_the_whole_range_and_depend_on_the_seed() {
        let numbers = |seed| {
            let mut plan = Plan::new(&SwitchEvery::Instructions { range: 3..=6, seed });
            (0..100).map(|_| plan.next().unwrap()).collect::<Vec<_>>()
        };
        let first = numbers(1);
        assert!((3..=6).all(|n| first.contains(&n)) && first.iter().all(|n| (3..=6).contains(n)));
        assert_eq!(first, numbers(1));
        assert_ne!(first, numbers(2));
        assert_eq!(Plan::new(&SwitchEvery::Nanos(5)).next(), None);
    }

    #[test]
    fn a_turn_comes_once_even_if_time_jumps() {
        let turns = Turns::new(100);
        let come: Vec<_> =
            [0, 99, 100, 150, 730, 799, 5].map(|n| turns.has_come(VmTime::from_nanos(n))).into();
        assert_eq!(come, [false, false, true, false, true, false, true]);
        assert_eq!(turns.next(VmTime::from_nanos(100)), VmTime::from_nanos(200));
    }

    #[test]
    fn what_would_never_end_or_never_begin_is_refused() {
        let check = |cpus: &[Accel], every| SwitchConfig { cpus: cpus.to_vec(), every }.check();
        let both = [Accel::Interp, Accel::Jit];
        assert_eq!(check(&both, SwitchEvery::Nanos(1)), Ok(()));
        assert_eq!(check(&[], SwitchEvery::Request), Err(ConfigError::NoSwitchCpus));
        assert_eq!(check(&both, SwitchEvery::Nanos(0)), Err(ConfigError::SwitchTooOften));
        let ranges = [(0, 5), (6, 5)].map(|(least, most)| least..=most);
        for range in ranges {
            let every = SwitchEvery::Instructions { range, seed: 0 };
            assert_eq!(check(&both, every), Err(ConfigError::SwitchTooOften));
        }
    }
}
