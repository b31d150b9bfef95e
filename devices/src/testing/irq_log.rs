//! An interrupt router that writes down what is driven.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use trivium_chipset::{IrqLine, IrqSink};

/// An interrupt router that writes down what is driven.
#[derive(Default)]
pub struct IrqLog(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    levels: BTreeMap<u32, bool>,
    changes: Vec<(u32, bool)>,
}

impl IrqSink for IrqLog {
    fn set_level(&self, pin: u32, _: u32, high: bool) {
        let mut lines = self.lines();
        if lines.levels.insert(pin, high).unwrap_or(false) != high {
            lines.changes.push((pin, high));
        }
    }
}

impl IrqLog {
    /// Lines that are all low.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line to input `pin`.
    #[must_use]
    pub fn line(self: &Arc<Self>, pin: u32) -> IrqLine {
        IrqLine::new(self.clone(), pin, pin)
    }

    /// All changes of level so far, as (pin, level).
    #[must_use]
    pub fn changes(&self) -> Vec<(u32, bool)> {
        self.lines().changes.clone()
    }

    /// The present level of input `pin`.
    #[must_use]
    pub fn level(&self, pin: u32) -> bool {
        self.lines().levels.get(&pin).copied().unwrap_or(false)
    }

    /// How often input `pin` rose.
    #[must_use]
    pub fn rises(&self, pin: u32) -> usize {
        self.lines().changes.iter().filter(|&&entry| entry == (pin, true)).count()
    }
}
