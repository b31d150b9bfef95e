//! The debug exit that QEMU calls `isa-debug-exit`: a write of `v` ends the machine with exit status
//! `(v << 1) | 1`.

use std::sync::Arc;

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, PortIo};

use crate::sys::ExitSink;

/// The debug exit. It has no state of its own.
pub struct DebugExit {
    base: u16,
    sink: Arc<dyn ExitSink>,
}

impl DebugExit {
    /// The port that QEMU documents.
    pub const DEFAULT_BASE: u16 = 0x501;
    /// How many ports it takes.
    pub const PORTS: u16 = 4;

    /// A debug exit at ports `base` to `base + 3`.
    #[must_use]
    pub fn new(base: u16, sink: Arc<dyn ExitSink>) -> Self {
        Self { base, sink }
    }

    fn check(&self, port: u16) -> BusResult<()> {
        if port.wrapping_sub(self.base) < Self::PORTS { Ok(()) } else { Err(BusError::NoRegister) }
    }
}

impl PortIo for DebugExit {
    fn read(&mut self, port: u16, _: AccessWidth) -> BusResult<u32> {
        self.check(port)?;
        Ok(0)
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        self.check(port)?;
        self.sink.request_exit((value & width.mask()).wrapping_shl(1) | 1);
        Ok(())
    }
}

impl Device for DebugExit {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    /// There is nothing to reset.
    fn reset(&mut self) {}
}

mod save_restore {
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::DebugExit;

    const VERSION: u32 = 1;

    impl SaveRestore for DebugExit {
        fn save(&self) -> Section {
            let Self { base: _, sink: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}
