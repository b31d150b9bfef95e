//! A real-time clock that follows the host's: it goes on while the machine stands.

use std::sync::Arc;

use trivium_chipset::{NANOS_PER_SECOND, VmTime};

/// Where a real-time clock reads the host's.
pub trait HostTime: Send + Sync {
    /// Nanoseconds since 1970, or any other moment that stays the same.
    fn nanos(&self) -> u64;
}

/// The host's clock is followed when it is this far ahead, in nanoseconds: virtual time and the
/// host's clock run at slightly different rates, which shall not be seen in every reading.
const STEP: u64 = NANOS_PER_SECOND / 2;
/// While an interrupt is awaited, the host's clock is looked at this often, in nanoseconds.
pub(super) const LOOK: u64 = NANOS_PER_SECOND;

/// How far the chip's time is ahead of virtual time.
pub(super) struct Follower {
    pub(super) host: Option<Arc<dyn HostTime>>,
    /// What the host's clock said when virtual time was zero.
    pub(super) start: Option<u64>,
    /// Nanoseconds, which only grow: a host's clock that is set back is waited for.
    pub(super) ahead: u64,
}

impl Follower {
    /// Follows virtual time alone.
    pub(super) fn none() -> Self {
        Self { host: None, start: None, ahead: 0 }
    }

    /// Follows a host's clock from now on.
    pub(super) fn new(host: Arc<dyn HostTime>, now: VmTime) -> Self {
        let start = host.nanos().saturating_sub(now.as_nanos());
        Self { host: Some(host), start: Some(start), ahead: 0 }
    }

    /// A follower of the same host, as it was saved.
    pub(super) fn restored(&self, start: Option<u64>, ahead: u64, now: VmTime) -> Self {
        let host = self.host.clone();
        // A clock that did not follow a host's begins to.
        let since = |host: &Arc<dyn HostTime>| {
            host.nanos().saturating_sub(now.as_nanos()).saturating_sub(ahead)
        };
        let start = start.or_else(|| host.as_ref().map(since));
        Self { host, start, ahead }
    }

    /// Whether there is a host to follow.
    pub(super) fn follows(&self) -> bool {
        self.host.is_some()
    }

    /// The chip's time at `now`, after a look at the host's clock.
    pub(super) fn time(&mut self, now: VmTime) -> VmTime {
        if let (Some(host), Some(start)) = (&self.host, self.start) {
            let ahead = host.nanos().saturating_sub(start).saturating_sub(now.as_nanos());
            if ahead >= self.ahead.saturating_add(STEP) {
                self.ahead = ahead;
            }
        }
        now.saturating_add(self.ahead)
    }

    /// The virtual time at which the chip's time will be `time`.
    pub(super) fn virtual_time(&self, time: VmTime) -> VmTime {
        VmTime::from_nanos(time.as_nanos().saturating_sub(self.ahead))
    }
}
