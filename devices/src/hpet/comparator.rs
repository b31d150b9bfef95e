//! One timer of the HPET: a comparator, its period, and when it will match next.
//! IA-PC HPET Specification 1.0a, sections 2.3.8 and 2.3.9.

use bitflags::bitflags;

bitflags! {
    /// Tn_CONF without the route and its capability.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct TimerConfig: u64 {
        /// Tn_INT_TYPE_CNF: level-triggered.
        const INT_TYPE = 1 << 1;
        /// Tn_INT_ENB_CNF: matches interrupt.
        const INT_ENB = 1 << 2;
        /// Tn_TYPE_CNF: periodic.
        const TYPE = 1 << 3;
        /// Tn_VAL_SET_CNF: the next write to the comparator of a periodic timer sets it, and not
        /// only the period.
        const VAL_SET = 1 << 6;
        /// Tn_32MODE_CNF: only 32 bits are compared.
        const MODE32 = 1 << 8;
    }
}

/// Tn_PER_INT_CAP and Tn_SIZE_CAP: periodic mode is there, and 64 bits.
const CAPABILITIES: u64 = 1 << 4 | 1 << 5;
/// Where Tn_INT_ROUTE_CNF, five bits, begins.
const ROUTE_SHIFT: u32 = 9;
const ROUTE_MASK: u64 = 0x1f;

/// A timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparator {
    pub config: TimerConfig,
    route: u8,
    compare: u64,
    /// The last value written to the comparator of a periodic timer.
    period: u64,
    /// Ticks since the machine's start at which the counter will next equal the comparator.
    due: Option<u64>,
}

impl Comparator {
    /// A timer after reset: its comparator is all ones.
    pub fn new() -> Self {
        let config = TimerConfig::empty();
        Self { config, route: 0, compare: u64::MAX, period: 0, due: None }
    }

    /// The input of the I/O APIC that the timer is routed to.
    pub fn route(&self) -> u8 {
        self.route
    }

    pub fn compare(&self) -> u64 {
        self.compare
    }

    /// When the comparator next matches, in ticks since the machine's start.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// Tn_CONF without Tn_INT_ROUTE_CAP.
    pub fn read_config(&self) -> u64 {
        self.config.bits() | u64::from(self.route) << ROUTE_SHIFT | CAPABILITIES
    }

    /// Writes the bits of Tn_CONF that `mask` selects. A route that is not in `routes` is not
    /// taken: software sees that when it reads the register back.
    pub fn write_config(&mut self, value: u64, mask: u64, routes: u32) {
        let new = self.read_config() & !mask | value & mask;
        self.config = TimerConfig::from_bits_truncate(new);
        let route = (new >> ROUTE_SHIFT & ROUTE_MASK) as u8;
        if routes >> route & 1 != 0 {
            self.route = route;
        }
        self.compare &= self.size();
        self.period &= self.size();
    }

    /// Writes the bits of the comparator that `mask` selects. In periodic mode this is the period,
    /// and the comparator only if VAL_SET says so.
    pub fn write_compare(&mut self, value: u64, mask: u64) {
        let merge = |old: u64| old & !mask | value & mask;
        let periodic = self.config.contains(TimerConfig::TYPE);
        if !periodic || self.config.contains(TimerConfig::VAL_SET) {
            self.compare = merge(self.compare) & self.size();
        }
        if periodic {
            self.period = merge(self.period) & self.size();
        }
        self.config.remove(TimerConfig::VAL_SET);
    }

    /// Finds the next match from the main counter's value at `tick`; none while it stands.
    pub fn rearm(&mut self, counter: Option<u64>, tick: u64) {
        self.due = counter.and_then(|counter| {
            let distance = self.compare.wrapping_sub(counter) & self.size();
            tick.checked_add(distance)
        });
    }

    /// Takes note of the matches up to `tick`: true if there was one. A periodic timer goes on by
    /// its period; another one matches again when the counter has wrapped.
    pub fn take_match(&mut self, tick: u64) -> bool {
        let Some(due) = self.due.filter(|due| *due <= tick) else { return false };
        let periodic = self.config.contains(TimerConfig::TYPE) && self.period != 0;
        let step = if periodic { Some(self.period) } else { self.size().checked_add(1) };
        self.due = step.and_then(|step| {
            let passed = ((tick - due) / step + 1).checked_mul(step)?;
            if periodic {
                self.compare = self.compare.wrapping_add(passed) & self.size();
            }
            due.checked_add(passed)
        });
        true
    }

    /// The bits that are compared.
    fn size(&self) -> u64 {
        if self.config.contains(TimerConfig::MODE32) { u32::MAX.into() } else { u64::MAX }
    }
}

/// The saved form.
pub mod save_restore {
    use super::{Comparator, ROUTE_MASK, TimerConfig};
    use trivium_chipset::StateError;

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Saved {
        config: u64,
        route: u8,
        compare: u64,
        period: u64,
        due: Option<u64>,
    }

    pub fn save(timer: &Comparator) -> Saved {
        let &Comparator { config, route, compare, period, due } = timer;
        Saved { config: config.bits(), route, compare, period, due }
    }

    pub fn restore(saved: Saved) -> Result<Comparator, StateError> {
        let Saved { config, route, compare, period, due } = saved;
        let config = TimerConfig::from_bits(config)
            .ok_or(StateError::Impossible("Reserved HPET timer bits"))?;
        let timer = Comparator { config, route, compare, period, due };
        let fits = (compare | period) & !timer.size() == 0 && u64::from(route) <= ROUTE_MASK;
        fits.then_some(timer).ok_or(StateError::Impossible("HPET timer"))
    }
}
