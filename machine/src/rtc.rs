//! What the board's real-time clock is made with, and what its ticks and the machine's clock are to
//! do after the host was away.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use trivium_devices::lost_ticks::LostTicks;
use trivium_devices::rtc::{HostTime, Rtc, UnixSeconds};

use crate::config::MachineConfig;
use crate::time::Absence;

/// The host's clock of the day.
struct HostClock;

impl HostTime for HostClock {
    fn nanos(&self) -> u64 {
        // 2^64 nanoseconds end in the year 2554.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }
}

impl From<LostTicks> for Absence {
    /// Only when all clocks stand does a guest not notice that its ticks are late; and missed ticks
    /// can be made up for, or thrown away, only when time has passed.
    fn from(policy: LostTicks) -> Self {
        match policy {
            LostTicks::Delay => Self::TakenOut,
            LostTicks::Catchup | LostTicks::Discard => Self::Passes,
        }
    }
}

/// What the user says of the real-time clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RtcParts {
    /// What it shows when virtual time is zero.
    pub(crate) base: UnixSeconds,
    pub(crate) follows_host: bool,
    pub(crate) lost_ticks: LostTicks,
}

impl RtcParts {
    pub(crate) fn of(config: &MachineConfig) -> Self {
        Self {
            base: UnixSeconds(config.rtc_base),
            follows_host: config.rtc_follows_host,
            lost_ticks: config.lost_ticks,
        }
    }

    /// The clock with all that it was to have.
    pub(crate) fn finish(self, rtc: Rtc) -> Rtc {
        let rtc = rtc.with_lost_ticks(self.lost_ticks);
        if self.follows_host { rtc.following(Arc::new(HostClock)) } else { rtc }
    }
}
