//! The saved state of the 8254 and port 61h.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::channel::{Channel, Control, Mode, Phase};
use super::{NmiStatus, Pit, WRITABLE};
use crate::lost_ticks::{Owed, TickQueue};

const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct SavedPit {
    channels: [SavedChannel; 3],
    pulse: u64,
    port61: u8,
    line: bool,
    owed: Owed,
}

#[derive(Serialize, Deserialize)]
struct SavedChannel {
    control: u8,
    phase: SavedPhase,
    count: u32,
    first_byte: Option<u8>,
    read_msb: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    null_count: bool,
    ce: u32,
    wave: u32,
    armed: bool,
    gate: bool,
    out: bool,
}

#[derive(Serialize, Deserialize)]
enum SavedPhase {
    Idle,
    Load,
    Counting,
    Armed,
}

impl From<Phase> for SavedPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Idle => Self::Idle,
            Phase::Load => Self::Load,
            Phase::Counting => Self::Counting,
            Phase::Armed => Self::Armed,
        }
    }
}

impl From<SavedPhase> for Phase {
    fn from(phase: SavedPhase) -> Self {
        match phase {
            SavedPhase::Idle => Self::Idle,
            SavedPhase::Load => Self::Load,
            SavedPhase::Counting => Self::Counting,
            SavedPhase::Armed => Self::Armed,
        }
    }
}

impl SavedChannel {
    fn of(channel: &Channel) -> Self {
        let Channel {
            control,
            phase,
            count,
            first_byte,
            read_msb,
            latched_count,
            latched_status,
            null_count,
            ce,
            wave,
            armed,
            gate,
            out,
        } = *channel;
        Self {
            control: control.bits(),
            phase: phase.into(),
            count,
            first_byte,
            read_msb,
            latched_count,
            latched_status,
            null_count,
            ce,
            wave,
            armed,
            gate,
            out,
        }
    }

    fn into_channel(self) -> Result<Channel, StateError> {
        let Self {
            control,
            phase,
            count,
            first_byte,
            read_msb,
            latched_count,
            latched_status,
            null_count,
            ce,
            wave,
            armed,
            gate,
            out,
        } = self;
        let control = Control::from_bits(control)
            .filter(|control| control.intersects(Control::LSB | Control::MSB))
            .ok_or(StateError::Impossible("control word of an 8254 counter"))?;
        let modulus = control.modulus();
        let wave_ok = control.mode() != Mode::SquareWave || ce <= wave.div_ceil(2);
        if !(1..=modulus).contains(&count) || ce > modulus || wave > modulus || !wave_ok {
            return Err(StateError::Impossible("count of an 8254 counter"));
        }
        Ok(Channel {
            control,
            phase: phase.into(),
            count,
            first_byte,
            read_msb,
            latched_count,
            latched_status,
            null_count,
            ce,
            wave,
            armed,
            gate,
            out,
        })
    }
}

impl SaveRestore for Pit {
    fn save(&self) -> Section {
        let Self { channels, pulse, port61, line, queue, clock: _, out0: _ } = self;
        let saved = SavedPit {
            channels: channels.each_ref().map(SavedChannel::of),
            pulse: *pulse,
            port61: port61.bits(),
            line: *line,
            owed: queue.save(),
        };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let SavedPit { channels: [a, b, c], pulse, port61, line, owed } =
            section.decode(VERSION)?;
        let channels = [a.into_channel()?, b.into_channel()?, c.into_channel()?];
        let port61 = NmiStatus::from_bits(port61)
            .filter(|bits| WRITABLE.contains(*bits))
            .ok_or(StateError::Impossible("read-only bits of port 61h"))?;
        let (clock, out0) = (self.clock.clone(), self.out0.clone());
        let queue = TickQueue::restored(self.queue.policy(), owed)?;
        *self = Self { channels, pulse, port61, line, queue, clock, out0 };
        Ok(())
    }
}
