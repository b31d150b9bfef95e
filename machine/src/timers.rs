//! The moments at which devices want to be called: a table of deadlines that is compared after
//! every access to a device, and of which the earliest is known without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trivium_chipset::VmTime;

use crate::control::Control;

/// No deadline.
const NEVER: u64 = u64::MAX;

/// The deadlines of a board's timers, by the timers' numbers.
pub(crate) struct Timers {
    deadlines: Box<[AtomicU64]>,
    /// Not later than any deadline.
    earliest: AtomicU64,
    control: Arc<Control>,
}

impl Timers {
    /// So many timers, none of which runs.
    pub(crate) fn new(count: usize, control: Arc<Control>) -> Self {
        let deadlines = (0..count).map(|_| AtomicU64::new(NEVER)).collect();
        Self { deadlines, earliest: AtomicU64::new(NEVER), control }
    }

    /// A timer's deadline is now this. Called with its device locked.
    #[inline]
    pub(crate) fn set(&self, timer: usize, deadline: Option<VmTime>) {
        let new = deadline.map_or(NEVER, VmTime::as_nanos);
        let Some(known) = self.deadlines.get(timer) else { return };
        if known.load(Ordering::Relaxed) == new {
            return;
        }
        known.store(new, Ordering::SeqCst);
        if self.earliest.fetch_min(new, Ordering::SeqCst) > new {
            self.control.wake_events();
        }
    }

    /// The timers that are due, in the order of their deadlines, the earliest first.
    pub(crate) fn next_due(&self, now: VmTime) -> Option<usize> {
        let deadlines = self.deadlines.iter().map(|known| known.load(Ordering::SeqCst));
        let (deadline, timer) = deadlines.zip(0..).min()?;
        (deadline <= now.as_nanos() && deadline != NEVER).then_some(timer)
    }

    /// Not later than the earliest deadline; nothing if no timer runs.
    pub(crate) fn earliest(&self) -> Option<VmTime> {
        let earliest = self.earliest.load(Ordering::SeqCst);
        (earliest != NEVER).then(|| VmTime::from_nanos(earliest))
    }

    /// Looks at all deadlines again for the earliest. A deadline that is set meanwhile is either
    /// seen here or wakes the caller.
    pub(crate) fn refresh(&self) -> Option<VmTime> {
        self.earliest.store(NEVER, Ordering::SeqCst);
        for known in &self.deadlines {
            self.earliest.fetch_min(known.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.earliest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::control;

    fn at(nanos: u64) -> Option<VmTime> {
        Some(VmTime::from_nanos(nanos))
    }

    #[test]
    fn timers_are_due_in_the_order_of_their_deadlines() {
        let timers = Timers::new(3, control(true).0);
        timers.set(0, at(30));
        timers.set(2, at(10));
        assert_eq!(timers.earliest(), at(10));
        assert_eq!(timers.next_due(VmTime::from_nanos(9)), None);
        assert_eq!(timers.next_due(VmTime::from_nanos(99)), Some(2));
        timers.set(2, None);
        assert_eq!(timers.next_due(VmTime::from_nanos(99)), Some(0));
        assert_eq!(timers.refresh(), at(30));
        timers.set(0, None);
        assert_eq!(timers.refresh(), None);
        assert_eq!(timers.next_due(VmTime::from_nanos(u64::MAX)), None);
    }

    #[test]
    fn only_an_earlier_deadline_wakes() {
        let (control, kick) = control(true);
        let timers = Timers::new(2, control);
        let kicks = || kick.kicks.load(Ordering::Relaxed);
        timers.set(0, at(100));
        assert_eq!(kicks(), 1);
        timers.set(1, at(200));
        timers.set(0, at(150));
        timers.set(0, at(150));
        assert_eq!(kicks(), 1);
        timers.set(1, at(50));
        assert_eq!(kicks(), 2);
    }
}
