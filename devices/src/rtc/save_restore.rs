//! The saved state of the real-time clock.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::{HERTZ, RegisterA, Registers, Rtc, VRT, address};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    registers: Vec<u8>,
    index: u8,
    nmi_masked: bool,
    phase: u64,
    synced: u64,
}

impl SaveRestore for Rtc {
    fn save(&self) -> Section {
        let Self { registers, index, nmi_masked, phase, synced, clock: _, irq: _ } = self;
        let Registers { bytes } = registers;
        let saved = Saved {
            registers: bytes.to_vec(),
            index: *index,
            nmi_masked: *nmi_masked,
            phase: *phase,
            synced: *synced,
        };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let Saved { registers, index, nmi_masked, phase, synced } = section.decode(VERSION)?;
        let bytes =
            registers.try_into().map_err(|_| StateError::Impossible("size of the RTC's memory"))?;
        let registers = Registers { bytes };
        if registers.a().contains(RegisterA::UIP) || registers.get(address::D) != VRT {
            return Err(StateError::Impossible("read-only bits of the RTC"));
        }
        if usize::from(index) >= Registers::SIZE || phase >= HERTZ {
            return Err(StateError::Impossible("address or phase of the RTC"));
        }
        let (clock, irq) = (self.clock.clone(), self.irq.clone());
        *self = Self { registers, index, nmi_masked, phase, synced, clock, irq };
        Ok(())
    }
}
