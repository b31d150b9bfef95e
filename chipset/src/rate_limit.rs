//! Logs that a guest can provoke: so many lines, however often it does what they tell of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

pub use log;

/// Lines that may come at once.
pub const BURST: u32 = 10;
/// Nanoseconds of host time after which one more may come.
const REFILL: u64 = 1_000_000_000;

/// Lets through a burst of lines, then one a second, and counts what it keeps back.
#[derive(Debug, Default)]
pub struct RateLimit {
    /// Lines that were let through, and from when on their places are free again.
    bucket: Mutex<Bucket>,
    suppressed: AtomicU64,
}

#[derive(Debug, Default)]
struct Bucket {
    used: u32,
    /// When the last place was freed, in nanoseconds.
    since: u64,
}

impl Bucket {
    fn take(&mut self, now: u64) -> bool {
        let freed = now.saturating_sub(self.since) / REFILL;
        self.used = self.used.saturating_sub(u32::try_from(freed).unwrap_or(u32::MAX));
        self.since = if self.used == 0 { now } else { self.since.saturating_add(freed * REFILL) };
        let free = self.used < BURST;
        self.used += u32::from(free);
        free
    }
}

impl RateLimit {
    /// A limit that nothing has come through.
    #[must_use]
    pub const fn new() -> Self {
        let bucket = Mutex::new(Bucket { used: 0, since: 0 });
        Self { bucket, suppressed: AtomicU64::new(0) }
    }

    /// Whether a line may come now: then how many were kept back before it.
    #[must_use]
    pub fn take(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = START.get_or_init(Instant::now);
        self.take_at(start.elapsed().as_nanos() as u64)
    }

    /// The same at a moment, in nanoseconds.
    fn take_at(&self, now: u64) -> Option<u64> {
        let free = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now);
        if free {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Logs at a level (`Error` to `Trace`) what a guest can provoke: [`BURST`] lines at once, then one
/// a second, for each place in the program that uses this.
///
/// ```
/// trivium_chipset::guest_log!(Warn, "Command {:02x}h is unknown", 0x77);
/// ```
#[macro_export]
macro_rules! guest_log {
    ($level:ident, $($message:tt)+) => {{
        use $crate::rate_limit::{RateLimit, log};
        if log::log_enabled!(log::Level::$level) {
            static LIMIT: RateLimit = RateLimit::new();
            match LIMIT.take() {
                None => {}
                Some(0) => log::log!(log::Level::$level, $($message)+),
                Some(more) => log::log!(
                    log::Level::$level,
                    "{} ({more} more suppressed)",
                    format_args!($($message)+)
                ),
            }
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_comes_through_then_one_a_second() {
        let limit = RateLimit::new();
        let first = (0..1000).filter(|_| limit.take_at(5 * SECOND).is_some()).count();
        assert_eq!(first, BURST as usize);
        assert_eq!(limit.take_at(5 * SECOND + SECOND / 2), None);
        assert_eq!(limit.take_at(6 * SECOND), Some(991));
        assert_eq!(limit.take_at(6 * SECOND + SECOND / 2), None);
        assert_eq!(limit.take_at(7 * SECOND), Some(1));
    }

    #[test]
    fn after_a_rest_there_is_a_burst_again() {
        let limit = RateLimit::new();
        while limit.take_at(SECOND).is_some() {}
        let burst = (0..1000).filter(|_| limit.take_at(100 * SECOND).is_some()).count();
        assert_eq!(burst, BURST as usize);
        assert_eq!(limit.take_at(u64::MAX), Some(1000 - u64::from(BURST)));
    }
}
