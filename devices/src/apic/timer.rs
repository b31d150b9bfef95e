//! The local APIC's timer: one-shot, periodic and TSC-deadline. Intel SDM vol. 3A, 11.5.4.
//!
//! Nothing ticks: counts are computed from the moment at which the timer was set.

use trivium_chipset::VmTime;

/// Timer mode, bits 18 and 17 of the LVT timer register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Starts again from the initial count.
    Periodic,
    /// Waits until the TSC reaches a value.
    TscDeadline,
}

/// The timer's registers, and when it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApicTimer {
    /// Frequency of the counter before division, in hertz.
    hertz: u64,
    /// Frequency of the TSC in hertz.
    tsc_hertz: u64,
    /// What the TSC is ahead of a counter that started with the machine.
    tsc_offset: u64,
    mode: TimerMode,
    initial: u32,
    /// Divide configuration register: bits 3, 1, 0.
    divide: u32,
    /// The count at `base`; zero if the timer does not run.
    count: u32,
    /// Ticks of the undivided clock at which the count was `count`.
    base: u64,
    /// IA32_TSC_DEADLINE; zero if not armed.
    tsc_deadline: u64,
}

impl ApicTimer {
    /// A timer that does not run.
    pub fn new(hertz: u64, tsc_hertz: u64) -> Self {
        Self {
            hertz,
            tsc_hertz,
            tsc_offset: 0,
            mode: TimerMode::OneShot,
            initial: 0,
            divide: 0,
            count: 0,
            base: 0,
            tsc_deadline: 0,
        }
    }

    /// The state after reset; the TSC goes on.
    pub fn reset(&mut self) {
        let tsc_offset = self.tsc_offset;
        *self = Self { tsc_offset, ..Self::new(self.hertz, self.tsc_hertz) };
    }

    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.tsc_offset = offset;
    }

    pub fn tsc(&self, now: VmTime) -> u64 {
        now.ticks(self.tsc_hertz).wrapping_add(self.tsc_offset)
    }

    /// Changing to or from TSC-deadline mode disarms the timer.
    pub fn set_mode(&mut self, mode: TimerMode) {
        if (mode == TimerMode::TscDeadline) != (self.mode == TimerMode::TscDeadline) {
            self.count = 0;
            self.tsc_deadline = 0;
        }
        self.mode = mode;
    }

    pub fn initial_count(&self) -> u32 {
        self.initial
    }

    /// Starts the timer, or stops it with zero. Without effect in TSC-deadline mode.
    pub fn set_initial_count(&mut self, count: u32, now: VmTime) {
        if self.mode == TimerMode::TscDeadline {
            return;
        }
        self.initial = count;
        self.count = count;
        self.base = now.ticks(self.hertz);
    }

    /// Goes on from a count that another implementation has come to.
    pub fn resume(&mut self, initial: u32, count: u32, divide: u32, now: VmTime) {
        self.divide = divide & 0b1011;
        self.initial = initial;
        self.count = if self.mode == TimerMode::TscDeadline { 0 } else { count };
        self.base = now.ticks(self.hertz);
    }

    pub fn divide_configuration(&self) -> u32 {
        self.divide
    }

    /// The count goes on from where it is, at the new rate.
    pub fn set_divide_configuration(&mut self, value: u32, now: VmTime) {
        self.count = self.current_count(now);
        self.base = now.ticks(self.hertz);
        self.divide = value & 0b1011;
    }

    pub fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Arms the timer, or disarms it with zero. Without effect in the other modes.
    pub fn set_tsc_deadline(&mut self, deadline: u64) {
        if self.mode == TimerMode::TscDeadline {
            self.tsc_deadline = deadline;
        }
    }

    /// The current count register.
    pub fn current_count(&self, now: VmTime) -> u32 {
        let elapsed = self.elapsed(now);
        let count = u64::from(self.count);
        if elapsed < count {
            return (count - elapsed) as u32;
        }
        match (self.mode, self.initial) {
            (TimerMode::Periodic, initial @ 1..) if count != 0 => {
                initial - ((elapsed - count) % u64::from(initial)) as u32
            }
            _ => 0,
        }
    }

    /// Takes note of the timer having run out: true if it has since this was last asked.
    pub fn take_expiry(&mut self, now: VmTime) -> bool {
        if self.mode == TimerMode::TscDeadline {
            let expired = self.tsc_deadline != 0 && self.tsc(now) >= self.tsc_deadline;
            if expired {
                self.tsc_deadline = 0;
            }
            return expired;
        }
        if self.count == 0 || self.elapsed(now) < u64::from(self.count) {
            return false;
        }
        self.count = match self.mode {
            TimerMode::Periodic => self.rewind_to_last_period(now),
            _ => 0,
        };
        true
    }

    /// When the timer will next run out.
    pub fn expiry(&self, now: VmTime) -> Option<VmTime> {
        if self.mode == TimerMode::TscDeadline {
            let left = self.tsc_deadline.saturating_sub(self.tsc(now));
            let tick = now.ticks(self.tsc_hertz).saturating_add(left);
            return (self.tsc_deadline != 0).then(|| VmTime::from_ticks(tick, self.tsc_hertz));
        }
        let ticks = u64::from(self.count) << self.shift();
        let tick = self.base.saturating_add(ticks);
        (self.count != 0).then(|| VmTime::from_ticks(tick, self.hertz))
    }

    /// Moves `base` to the start of the present period; gives the count at that moment.
    fn rewind_to_last_period(&mut self, now: VmTime) -> u32 {
        let Some(period) = std::num::NonZeroU64::new(self.initial.into()) else { return 0 };
        let past = self.elapsed(now).saturating_sub(self.count.into());
        let ticks = u64::from(self.count) + past / period * period.get();
        self.base = self.base.saturating_add(ticks << self.shift());
        self.initial
    }

    /// Divided ticks since `base`.
    fn elapsed(&self, now: VmTime) -> u64 {
        now.ticks(self.hertz).saturating_sub(self.base) >> self.shift()
    }

    /// The divisor's power of two: 000b divides by 2, 110b by 128, 111b by 1.
    fn shift(&self) -> u32 {
        let code = self.divide & 3 | (self.divide & 8) >> 1;
        (code + 1) % 8
    }
}

/// The saved form.
pub mod save_restore {
    use super::{ApicTimer, TimerMode};
    use trivium_chipset::StateError;

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Saved {
        tsc_offset: u64,
        mode: u8,
        initial: u32,
        divide: u32,
        count: u32,
        base: u64,
        tsc_deadline: u64,
    }

    pub fn save(timer: &ApicTimer) -> Saved {
        let &ApicTimer {
            hertz: _,
            tsc_hertz: _,
            tsc_offset,
            mode,
            initial,
            divide,
            count,
            base,
            tsc_deadline,
        } = timer;
        let mode = match mode {
            TimerMode::OneShot => 0,
            TimerMode::Periodic => 1,
            TimerMode::TscDeadline => 2,
        };
        Saved { tsc_offset, mode, initial, divide, count, base, tsc_deadline }
    }

    pub fn restore(timer: &ApicTimer, saved: Saved) -> Result<ApicTimer, StateError> {
        let Saved { tsc_offset, mode, initial, divide, count, base, tsc_deadline } = saved;
        let mode = match mode {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::TscDeadline,
            _ => return Err(StateError::Impossible("APIC timer mode")),
        };
        if divide & !0b1011 != 0 || (tsc_deadline != 0 && mode != TimerMode::TscDeadline) {
            return Err(StateError::Impossible("APIC timer"));
        }
        let ApicTimer { hertz, tsc_hertz, .. } = *timer;
        Ok(ApicTimer {
            hertz,
            tsc_hertz,
            tsc_offset,
            mode,
            initial,
            divide,
            count,
            base,
            tsc_deadline,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GHZ: u64 = 1_000_000_000;

    fn at(nanos: u64) -> VmTime {
        VmTime::from_nanos(nanos)
    }

    #[test]
    fn divide_configuration_follows_figure_11_10() {
        let codes = [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];
        for (code, divisor) in codes {
            let mut timer = ApicTimer::new(GHZ, GHZ);
            timer.set_divide_configuration(code, at(0));
            timer.set_initial_count(1000, at(0));
            assert_eq!(timer.expiry(at(0)), Some(at(1000 * divisor)), "code {code:b}");
        }
    }

    #[test]
    fn one_shot_counts_down_once() {
        let mut timer = ApicTimer::new(GHZ, GHZ);
        timer.set_divide_configuration(11, at(0));
        timer.set_initial_count(100, at(50));
        assert_eq!(timer.current_count(at(90)), 60);
        assert!(!timer.take_expiry(at(149)));
        assert!(timer.take_expiry(at(150)));
        assert!(!timer.take_expiry(at(1000)));
        assert_eq!((timer.current_count(at(1000)), timer.initial_count()), (0, 100));
        assert_eq!(timer.expiry(at(1000)), None);
    }

    #[test]
    fn periodic_reloads_the_initial_count() {
        let mut timer = ApicTimer::new(GHZ, GHZ);
        timer.set_divide_configuration(11, at(0));
        timer.set_mode(TimerMode::Periodic);
        timer.set_initial_count(100, at(0));
        assert_eq!(timer.current_count(at(130)), 70);
        assert!(timer.take_expiry(at(350)));
        assert_eq!(timer.expiry(at(350)), Some(at(400)));
        assert_eq!(timer.current_count(at(350)), 50);
    }

    #[test]
    fn tsc_deadline_fires_when_the_tsc_reaches_it_and_clears_the_msr() {
        let mut timer = ApicTimer::new(GHZ, 2 * GHZ);
        timer.set_tsc_deadline(1);
        assert_eq!(timer.tsc_deadline(), 0, "not in TSC-deadline mode");
        timer.set_mode(TimerMode::TscDeadline);
        timer.set_tsc_offset(1000);
        timer.set_tsc_deadline(3000);
        assert_eq!(timer.expiry(at(0)), Some(at(1000)));
        assert!(!timer.take_expiry(at(999)));
        assert!(timer.take_expiry(at(1000)));
        assert_eq!(timer.tsc_deadline(), 0);
        assert_eq!(timer.expiry(at(1000)), None);
    }

    #[test]
    fn leaving_tsc_deadline_mode_disarms_the_timer() {
        let mut timer = ApicTimer::new(GHZ, GHZ);
        timer.set_mode(TimerMode::TscDeadline);
        timer.set_tsc_deadline(500);
        timer.set_mode(TimerMode::OneShot);
        assert_eq!(timer.expiry(at(0)), None);
        assert_eq!(timer.tsc_deadline(), 0);
    }
}
