//! The saved state of the real-time clock.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::follow::Follower;
use super::{HERTZ, RegisterA, Registers, Rtc, VRT, address};
use crate::lost_ticks::{Owed, TickQueue};

const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Saved {
    registers: Vec<u8>,
    fell_back: bool,
    index: u8,
    nmi_masked: bool,
    phase: u64,
    synced: u64,
    owed: Owed,
    host_start: Option<u64>,
    ahead: u64,
}

impl SaveRestore for Rtc {
    fn save(&self) -> Section {
        let Self {
            registers: Registers { bytes, fell_back },
            index,
            nmi_masked,
            phase,
            synced,
            queue,
            follower: Follower { host: _, start, ahead },
            clock: _,
            irq: _,
        } = self;
        let saved = Saved {
            registers: bytes.to_vec(),
            fell_back: *fell_back,
            index: *index,
            nmi_masked: *nmi_masked,
            phase: *phase,
            synced: *synced,
            owed: queue.save(),
            host_start: *start,
            ahead: *ahead,
        };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let Saved {
            registers,
            fell_back,
            index,
            nmi_masked,
            phase,
            synced,
            owed,
            host_start,
            ahead,
        } = section.decode(VERSION)?;
        let bytes =
            registers.try_into().map_err(|_| StateError::Impossible("size of the RTC's memory"))?;
        let registers = Registers { bytes, fell_back };
        if registers.a().contains(RegisterA::UIP) || registers.get(address::D) != VRT {
            return Err(StateError::Impossible("read-only bits of the RTC"));
        }
        if usize::from(index) >= Registers::SIZE || phase >= HERTZ {
            return Err(StateError::Impossible("address or phase of the RTC"));
        }
        let queue = TickQueue::restored(self.queue.policy(), owed)?;
        let (clock, irq) = (self.clock.clone(), self.irq.clone());
        let follower = self.follower.restored(host_start, ahead, clock.now());
        *self = Self { registers, index, nmi_masked, phase, synced, queue, follower, clock, irq };
        Ok(())
    }
}
