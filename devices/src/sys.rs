//! What devices ask of the machine as a whole, besides [`crate::power`]: the A20 gate and an end.

use std::sync::atomic::{AtomicU8, Ordering};

/// Who drives the A20 gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum A20Source {
    /// Bit 1 of the 8042's output port.
    KeyboardController = 1,
    /// Bit 1 of port 92h.
    Port92 = 2,
}

/// The board's end of the A20 wires. Called from within a guest's access, with the device locked:
/// implementations must not touch devices.
pub trait A20Sink: Send + Sync {
    /// `source` lets address line 20 through (`open`) or masks it. Sources are combined by
    /// [`A20Gate`].
    fn set_a20(&self, source: A20Source, open: bool);
}

/// The board's end of `isa-debug-exit`. Called as [`A20Sink`] is.
pub trait ExitSink: Send + Sync {
    /// The machine is to end with this exit status (the process keeps the low 8 bits).
    fn request_exit(&self, status: u32);
}

/// The A20 gate: A20M# is released when any of its sources wants the line open
/// (82371SB data sheet, A20GATE and port 92h).
#[derive(Debug)]
pub struct A20Gate(AtomicU8);

impl A20Gate {
    /// A gate as after RESET#: the 8042's pins come up high, port 92h is zero.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU8::new(A20Source::KeyboardController as u8))
    }

    /// Notes what `source` wants and says whether the gate is now open.
    pub fn set(&self, source: A20Source, open: bool) -> bool {
        let bit = source as u8;
        let before = if open {
            self.0.fetch_or(bit, Ordering::AcqRel) | bit
        } else {
            self.0.fetch_and(!bit, Ordering::AcqRel) & !bit
        };
        before != 0
    }

    /// Whether address line 20 reaches memory.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

impl Default for A20Gate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_source_opens_the_gate() {
        let gate = A20Gate::new();
        assert!(gate.is_open());
        assert!(!gate.set(A20Source::KeyboardController, false));
        assert!(gate.set(A20Source::Port92, true));
        assert!(gate.set(A20Source::KeyboardController, true));
        assert!(gate.set(A20Source::Port92, false));
        assert!(gate.is_open());
    }
}
