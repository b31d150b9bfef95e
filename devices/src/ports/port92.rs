//! Port 92h, system control port A: A20 and fast reset (82371SB data sheet, 2.5.6).

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusError, BusResult, Device, PortIo};

use crate::access::{byte_only, low_byte};
use crate::power::{PowerSink, ResetKind};
use crate::sys::{A20Sink, A20Source};

bitflags! {
    /// Port 92h. The reserved bits read as zero.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct SystemControlA: u8 {
        /// FAST_INIT: going from 0 to 1 pulses INIT.
        const FAST_INIT = 1 << 0;
        /// FAST_A20: lets address line 20 through.
        const FAST_A20 = 1 << 1;
    }
}

/// Port 92h.
pub struct Port92 {
    control: SystemControlA,
    a20: Arc<dyn A20Sink>,
    power: Arc<dyn PowerSink>,
}

impl Port92 {
    /// The port's number.
    pub const PORT: u16 = 0x92;

    /// A port that masks A20 (the 8042 does not).
    #[must_use]
    pub fn new(a20: Arc<dyn A20Sink>, power: Arc<dyn PowerSink>) -> Self {
        Self { control: SystemControlA::empty(), a20, power }
    }

    /// Whether this port wants address line 20 open: for boards that restore the gate.
    #[must_use]
    pub fn wants_a20(&self) -> bool {
        self.control.contains(SystemControlA::FAST_A20)
    }

    fn set(&mut self, control: SystemControlA) {
        let rising = control - self.control;
        let changed = control ^ self.control;
        self.control = control;
        if changed.contains(SystemControlA::FAST_A20) {
            self.a20.set_a20(A20Source::Port92, self.wants_a20());
        }
        if rising.contains(SystemControlA::FAST_INIT) {
            self.power.reset(ResetKind::Soft);
        }
    }
}

impl PortIo for Port92 {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match port {
            Self::PORT => Ok(self.control.bits().into()),
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        match port {
            Self::PORT => self.set(SystemControlA::from_bits_truncate(low_byte(value))),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Device for Port92 {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.set(SystemControlA::empty());
    }
}

mod save_restore {
    use serde::{Deserialize, Serialize};
    use trivium_chipset::{SaveRestore, Section, StateError};

    use super::{Port92, SystemControlA};

    const VERSION: u32 = 1;

    #[derive(Serialize, Deserialize)]
    struct Saved {
        control: u8,
    }

    impl SaveRestore for Port92 {
        fn save(&self) -> Section {
            let Self { control, a20: _, power: _ } = self;
            Section::encode(VERSION, &Saved { control: control.bits() })
        }

        fn restore(&mut self, section: &Section) -> Result<(), StateError> {
            let Saved { control } = section.decode(VERSION)?;
            self.control = SystemControlA::from_bits(control)
                .ok_or(StateError::Impossible("reserved bits of port 92h"))?;
            Ok(())
        }
    }
}
