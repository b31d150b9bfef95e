//! What becomes of the ticks of a periodic interrupt that the host was too late for: one queue that
//! the 8254 and the real-time clock share.
//!
//! The three policies are those that libvirt's documentation of guest clocks ("tickpolicy") names.

use serde::{Deserialize, Serialize};
use trivium_chipset::{StateError, VmTime};

/// What becomes of the ticks that were missed while the host was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostTicks {
    /// Ticks go on at the normal rate, and the guest stays behind by what it has missed.
    #[default]
    Delay,
    /// Ticks are delivered faster until none is missing.
    Catchup,
    /// Missed ticks are thrown away.
    Discard,
}

/// Owed ticks come this many times in a period: the guest then gets five for one, with those that
/// are due anyway.
const PER_PERIOD: u64 = 4;
/// But never closer than this, in nanoseconds, so that a guest has time to take each.
const LEAST_DISTANCE: u64 = 100_000;
/// The most ticks that are owed: three hours of 100 a second. What is beyond them is lost.
const MOST_OWED: u64 = 1 << 20;

/// The ticks that a timer still owes its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TickQueue {
    policy: LostTicks,
    owed: Owed,
}

/// The part of a queue that is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Owed {
    /// How many ticks.
    ticks: u64,
    /// From one owed tick to the next, in nanoseconds.
    distance: u64,
    /// When the next one is delivered.
    next: VmTime,
}

impl TickQueue {
    /// A queue that owes nothing.
    pub(crate) fn new(policy: LostTicks) -> Self {
        Self { policy, owed: Owed::default() }
    }

    /// So many ticks of a timer with this period, in nanoseconds, were missed by `now`, besides the
    /// one that is delivered now.
    pub(crate) fn miss(&mut self, ticks: u64, period: u64, now: VmTime) {
        // A timer so fast that its owed ticks would pile up for ever is not caught up with.
        if self.policy != LostTicks::Catchup || ticks == 0 || period < LEAST_DISTANCE {
            return;
        }
        let distance = (period / PER_PERIOD).max(LEAST_DISTANCE);
        if self.owed.ticks == 0 {
            self.owed.next = now.saturating_add(distance);
        }
        self.owed.distance = distance;
        self.owed.ticks = self.owed.ticks.saturating_add(ticks).min(MOST_OWED);
    }

    /// When the next owed tick is to be delivered.
    pub(crate) fn deadline(&self) -> Option<VmTime> {
        (self.owed.ticks > 0).then_some(self.owed.next)
    }

    /// Whether an owed tick is to be delivered now; it is then owed no more.
    pub(crate) fn take(&mut self, now: VmTime) -> bool {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.owed.ticks -= 1;
            self.owed.next = now.saturating_add(self.owed.distance);
        }
        due
    }

    /// The guest has programmed the timer anew: what it owed is nothing to the new ticks.
    pub(crate) fn clear(&mut self) {
        self.owed = Owed::default();
    }

    pub(crate) fn save(&self) -> Owed {
        self.owed
    }

    /// A queue of this policy that owes what was saved.
    pub(crate) fn restored(policy: LostTicks, saved: Owed) -> Result<Self, StateError> {
        if saved.ticks > MOST_OWED || (saved.ticks > 0 && saved.distance < LEAST_DISTANCE) {
            return Err(StateError::Impossible("ticks that a timer owes"));
        }
        Ok(Self { policy, owed: saved })
    }

    pub(crate) fn policy(&self) -> LostTicks {
        self.policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(nanos: u64) -> VmTime {
        VmTime::from_nanos(nanos)
    }

    /// The moments at which a queue delivers, from `now` on.
    fn delivered(queue: &mut TickQueue) -> Vec<u64> {
        let mut moments = Vec::new();
        while let Some(deadline) = queue.deadline() {
            assert!(queue.take(deadline));
            moments.push(deadline.as_nanos());
        }
        moments
    }

    #[test]
    fn delay_and_discard_owe_nothing() {
        for policy in [LostTicks::Delay, LostTicks::Discard] {
            let mut queue = TickQueue::new(policy);
            queue.miss(5, 10 * MS, at(0));
            assert_eq!(queue.deadline(), None);
        }
    }

    #[test]
    fn catchup_delivers_every_missed_tick_at_a_higher_rate() {
        let mut queue = TickQueue::new(LostTicks::Catchup);
        queue.miss(5, 10 * MS, at(100 * MS));
        assert!(!queue.take(at(102 * MS)));
        let expected = [1025, 1050, 1075, 1100, 1125].map(|tenths| tenths * MS / 10);
        assert_eq!(delivered(&mut queue), expected);
    }

    #[test]
    fn ticks_missed_on_the_way_come_after_those_before() {
        let mut queue = TickQueue::new(LostTicks::Catchup);
        queue.miss(1, 4 * MS, at(0));
        queue.miss(1, 4 * MS, at(MS / 2));
        assert_eq!(delivered(&mut queue), [MS, 2 * MS]);
    }

    #[test]
    fn a_timer_too_fast_to_catch_up_owes_nothing() {
        let mut queue = TickQueue::new(LostTicks::Catchup);
        queue.miss(1000, LEAST_DISTANCE - 1, at(0));
        assert_eq!(queue.deadline(), None);
        queue.miss(2, 2 * LEAST_DISTANCE, at(0));
        assert_eq!(delivered(&mut queue), [LEAST_DISTANCE, 2 * LEAST_DISTANCE]);
    }

    #[test]
    fn what_is_owed_is_bounded_and_can_be_dropped() {
        let mut queue = TickQueue::new(LostTicks::Catchup);
        queue.miss(u64::MAX, 10 * MS, at(0));
        queue.miss(u64::MAX, 10 * MS, at(0));
        assert_eq!(queue.save().ticks, MOST_OWED);
        queue.clear();
        assert_eq!(queue.deadline(), None);
    }
}
