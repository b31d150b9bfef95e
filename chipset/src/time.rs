//! Virtual time: it runs only while the guest runs, and devices know no other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A moment of virtual time: nanoseconds since the machine was first started.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct VmTime(u64);

impl VmTime {
    /// The machine's start.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the machine's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the machine's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment plus `nanos` nanoseconds, at most the end of time.
    #[must_use]
    pub const fn saturating_add(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// Nanoseconds from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How many ticks of a clock of `hertz` have passed since the machine's start, exactly.
    #[must_use]
    #[inline]
    pub fn ticks(self, hertz: u64) -> u64 {
        rescale(self.0, hertz, NANOS_PER_SECOND, Rounding::Down)
    }

    /// The first moment at which a clock of `hertz` has made `ticks` ticks; `hertz` is not zero.
    #[must_use]
    #[inline]
    pub fn from_ticks(ticks: u64, hertz: u64) -> Self {
        Self(rescale(ticks, NANOS_PER_SECOND, hertz.max(1), Rounding::Up))
    }
}

/// Which way a fraction goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Down,
    Up,
}

/// Frequencies below this need no wide division, which is many times slower.
const NARROW: u64 = 1 << 32;

/// `count * to / from`, saturated to 64 bits: what is counted at the rate `from`, at the rate `to`.
#[inline]
fn rescale(count: u64, to: u64, from: u64, rounding: Rounding) -> u64 {
    if from == to {
        return count;
    }
    if from >= NARROW || to >= NARROW {
        return rescale_wide(count, to, from, rounding);
    }
    // Whole seconds and the rest, whose product is below 2^64.
    let (seconds, rest) = (count / from, count % from * to);
    let fraction = match rounding {
        Rounding::Down => rest / from,
        Rounding::Up => rest.div_ceil(from),
    };
    seconds.saturating_mul(to).saturating_add(fraction)
}

#[cold]
fn rescale_wide(count: u64, to: u64, from: u64, rounding: Rounding) -> u64 {
    let product = u128::from(count) * u128::from(to);
    let result = match rounding {
        Rounding::Down => product / u128::from(from),
        Rounding::Up => product.div_ceil(u128::from(from)),
    };
    u64::try_from(result).unwrap_or(u64::MAX)
}

impl fmt::Display for VmTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s", self.0 / NANOS_PER_SECOND, self.0 % NANOS_PER_SECOND)
    }
}

/// Where devices read virtual time.
pub trait Clock: Send + Sync {
    /// The present moment. Never runs backwards.
    fn now(&self) -> VmTime;
}

/// A clock that moves only when told to: for tests, and for the icount modes.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock at the machine's start.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Sets the present moment.
    pub fn set(&self, now: VmTime) {
        self.0.store(now.as_nanos(), Ordering::Release);
    }

    /// Moves on by `nanos` nanoseconds.
    pub fn advance(&self, nanos: u64) {
        self.0.fetch_add(nanos, Ordering::AcqRel);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> VmTime {
        VmTime(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_their_moments_agree() {
        for hertz in [14_318_180, 1_193_182, 3_579_545, 32_768, 1_000_000_000] {
            for ticks in [0, 1, 2, 65_535, 65_536, 1 << 40] {
                let moment = VmTime::from_ticks(ticks, hertz);
                assert_eq!(moment.ticks(hertz), ticks, "{hertz} Hz");
            }
        }
    }

    #[test]
    fn short_and_wide_division_agree() {
        for rate in [1, 32_768, 1_193_182, 100_000_000, NARROW - 1] {
            for count in [0, 1, 999_999_999, 1 << 40, u64::MAX / 3, u64::MAX] {
                for rounding in [Rounding::Down, Rounding::Up] {
                    for (to, from) in [(rate, NANOS_PER_SECOND), (NANOS_PER_SECOND, rate)] {
                        let wide = rescale_wide(count, to, from, rounding);
                        assert_eq!(rescale(count, to, from, rounding), wide, "{count} {to}/{from}");
                    }
                }
            }
        }
    }

    #[test]
    fn time_saturates_at_its_end() {
        let end = VmTime::from_nanos(u64::MAX);
        assert_eq!(end.saturating_add(1), end);
        assert_eq!(VmTime::ZERO.nanos_since(end), 0);
        assert_eq!(VmTime::from_ticks(u64::MAX, 1), end);
    }
}
