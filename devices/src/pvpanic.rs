//! pvpanic, by which a guest says that it has panicked: one port, by QEMU's documentation
//! `docs/specs/pvpanic.rst`.

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusError, BusResult, Device, PortIo};

use crate::access::{byte_only, low_byte};

bitflags! {
    /// What a guest tells of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct GuestEvents: u8 {
        /// It has panicked, and the host should do something about it.
        const PANICKED = 1 << 0;
        /// It has panicked and handles that itself.
        const CRASH_LOADED = 1 << 1;
        /// It has shut down regularly.
        const SHUTDOWN = 1 << 2;
    }
}

/// Who is told of a guest's events. Called with the device locked.
pub trait GuestEventSink: Send + Sync {
    /// The guest tells of these, one at least.
    fn guest_events(&self, events: GuestEvents);
}

/// The device. It has no state of its own.
pub struct PvPanic {
    sink: Arc<dyn GuestEventSink>,
}

impl PvPanic {
    /// The port's number.
    pub const PORT: u16 = 0x505;

    /// A device that tells `sink`.
    #[must_use]
    pub fn new(sink: Arc<dyn GuestEventSink>) -> Self {
        Self { sink }
    }
}

impl PortIo for PvPanic {
    /// The events that the device knows.
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match port {
            Self::PORT => Ok(GuestEvents::all().bits().into()),
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        if port != Self::PORT {
            return Err(BusError::NoRegister);
        }
        let events = GuestEvents::from_bits_truncate(low_byte(value));
        if !events.is_empty() {
            self.sink.guest_events(events);
        }
        Ok(())
    }
}

impl Device for PvPanic {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    /// There is nothing to reset.
    fn reset(&mut self) {}
}

mod save_restore {
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::PvPanic;

    const VERSION: u32 = 1;

    impl SaveRestore for PvPanic {
        fn save(&self) -> Section {
            let Self { sink: _ } = self;
            Section { version: VERSION, data: Vec::new() }
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            section.decode::<()>(VERSION)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::*;
    use crate::test_support::{Fixture, check, port_steps};

    #[derive(Default)]
    struct Log(Mutex<Vec<GuestEvents>>);

    impl GuestEventSink for Log {
        fn guest_events(&self, events: GuestEvents) {
            self.0.lock().unwrap().push(events);
        }
    }

    fn written(values: &[u32]) -> Vec<GuestEvents> {
        let log = Arc::<Log>::default();
        let mut device = PvPanic::new(log.clone());
        for value in values {
            device.write(0x505, AccessWidth::Byte, *value).unwrap();
        }
        log.0.lock().unwrap().clone()
    }

    #[test]
    fn on_read_the_bits_recognized_by_the_device_are_set() {
        let mut device = PvPanic::new(Arc::<Log>::default());
        assert_eq!(device.read(0x505, AccessWidth::Byte), Ok(0b111));
    }

    #[test]
    fn on_write_the_bits_not_recognized_by_the_device_are_ignored() {
        use GuestEvents as E;
        assert_eq!(written(&[0x01, 0x02, 0x04]), [E::PANICKED, E::CRASH_LOADED, E::SHUTDOWN]);
        assert_eq!(written(&[0x00, 0xf8, 0x81]), [E::PANICKED]);
    }

    #[test]
    fn other_ports_and_widths_do_not_answer() {
        let mut device = PvPanic::new(Arc::<Log>::default());
        assert_eq!(device.write(0x504, AccessWidth::Byte, 1), Err(BusError::NoRegister));
        assert_eq!(device.read(0x506, AccessWidth::Byte), Err(BusError::NoRegister));
        assert_eq!(device.write(0x505, AccessWidth::Word, 1), Err(BusError::Width));
    }

    proptest! {
        #[test]
        fn hostile_accesses_and_restores_do_no_harm(steps in port_steps(&[0x504, 0x505])) {
            check(|| Fixture::new(|_, _| PvPanic::new(Arc::<Log>::default())), &steps);
        }
    }
}
