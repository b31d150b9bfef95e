//! The clock that follows the host's: it stands while the machine does, and goes on where it was
//! when the host comes back from an absence.
//!
//! A process that is stopped by SIGSTOP is not told of it. So the clock notes until when its silence
//! is explained: until shortly after it was last read, or until the thread that serves timers wants
//! to be awake again. A reading long after that finds an absence.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use trivium_chipset::VmTime;

use super::Absence;

/// A reading so many nanoseconds after the silence was last explained finds an absence.
const ABSENCE: u64 = 100_000_000;
/// Readings note that they were made this often, in nanoseconds: so the reading of a TSC writes no
/// memory that processors share, but for one in many.
const GRAIN: u64 = 1_000_000;
/// The longest sleep of the thread that serves timers, in nanoseconds: within this time, and
/// [`ABSENCE`], an absence may go unseen.
const HEARTBEAT: u64 = 250_000_000;

/// The host's monotonic clock, less the time for which the machine stood.
#[derive(Debug)]
pub struct RealClock {
    origin: Instant,
    absence: Absence,
    running: AtomicBool,
    /// Running: host nanoseconds since `origin` less virtual time, modulo 2^64. Else virtual time.
    value: AtomicU64,
    /// Host nanoseconds since `origin` until which it is no wonder that nobody reads the clock. All
    /// readings so far were made before `explained + GRAIN`.
    explained: AtomicU64,
    /// Held by who takes an absence out.
    adjusting: Mutex<()>,
}

impl RealClock {
    pub(super) fn new(absence: Absence) -> Self {
        Self {
            origin: Instant::now(),
            absence,
            running: AtomicBool::new(false),
            value: AtomicU64::new(0),
            explained: AtomicU64::new(0),
            adjusting: Mutex::new(()),
        }
    }

    fn host(&self) -> u64 {
        // 2^64 nanoseconds are 584 years.
        self.origin.elapsed().as_nanos() as u64
    }

    // `start`, `stop` and `set` are called while no processor and no device thread runs.

    pub(super) fn start(&self) {
        if !self.running.load(Ordering::Acquire) {
            let now = self.value.load(Ordering::Acquire);
            let host = self.host();
            self.explained.store(host, Ordering::Release);
            self.value.store(host.wrapping_sub(now), Ordering::Release);
            self.running.store(true, Ordering::Release);
        }
    }

    pub(super) fn stop(&self) {
        let now = self.now();
        self.running.store(false, Ordering::Release);
        self.value.store(now.as_nanos(), Ordering::Release);
    }

    pub(super) fn set(&self, now: VmTime) {
        self.stop();
        self.value.store(now.as_nanos(), Ordering::Release);
    }

    /// See [`super::MachineClock::sleep_until`].
    pub(super) fn sleep_until(&self, next: Option<VmTime>) -> u64 {
        let now = self.now();
        let span = next.map_or(HEARTBEAT, |next| next.nanos_since(now).min(HEARTBEAT));
        if self.running.load(Ordering::Acquire) {
            let host = self.value.load(Ordering::Acquire).wrapping_add(now.as_nanos());
            self.explained.fetch_max(host.saturating_add(span), Ordering::AcqRel);
        }
        span
    }

    #[inline]
    pub(super) fn now(&self) -> VmTime {
        if !self.running.load(Ordering::Acquire) {
            return VmTime::from_nanos(self.value.load(Ordering::Acquire));
        }
        loop {
            let value = self.value.load(Ordering::Acquire);
            let host = self.host();
            let explained = self.explained.load(Ordering::Acquire);
            let silence = host.saturating_sub(explained);
            if silence > GRAIN && !self.note(host, silence) {
                continue;
            }
            // Else an absence was taken out since, and `host` may be of before it.
            if self.value.load(Ordering::Acquire) == value {
                return VmTime::from_nanos(host.wrapping_sub(value));
            }
        }
    }

    /// Notes a reading at `host`, after so long a silence; false if there may have been an absence,
    /// which is then taken out.
    #[cold]
    fn note(&self, host: u64, silence: u64) -> bool {
        if silence <= ABSENCE || self.absence == Absence::Passes {
            self.explained.fetch_max(host, Ordering::AcqRel);
            return true;
        }
        let _adjusting = self.adjusting.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_out_absence(self.host());
        false
    }

    /// Virtual time goes on from the last moment that anybody can have read.
    fn take_out_absence(&self, host: u64) {
        let last = self.explained.load(Ordering::Acquire).saturating_add(GRAIN);
        let absence = host.saturating_sub(last);
        if absence > ABSENCE - GRAIN {
            // In this order: who sees the silence explained must see what it was.
            self.value.fetch_add(absence, Ordering::AcqRel);
            self.explained.fetch_max(host, Ordering::AcqRel);
        }
    }
}
