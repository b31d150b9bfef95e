//! The 8254 interval timer at 40h to 43h, and port 61h, which opens counter 2's gate and shows its
//! output.

mod channel;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_modes;

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

use self::channel::{Channel, Control, Edges};
pub use self::registers::PitCounter;
use crate::access::{byte_only, low_byte};
use crate::lost_ticks::{LostTicks, TickQueue};

/// Counter 0; counters 1 and 2 follow.
const COUNTER0: u16 = 0x40;
const COUNTER1: u16 = 0x41;
const COUNTER2: u16 = 0x42;
/// The control word register.
const CONTROL_WORD: u16 = 0x43;
/// NMI status and control register.
const PORT_61: u16 = 0x61;

/// The port that a register is known by: its aliases are those of the 82371SB ("ISA-compatible
/// registers").
fn undecoded(port: u16) -> u16 {
    match port {
        0x50..=0x53 => port - 0x10,
        0x63 | 0x65 | 0x67 => PORT_61,
        _ => port,
    }
}

/// Control word: SC1 and SC0 are above this bit.
const SELECT_SHIFT: u32 = 6;
/// SC1 and SC0: the read-back command.
const READ_BACK: u8 = 3;
/// Read-back command: "0 = latch count".
const NO_COUNT: u8 = 1 << 5;
/// Read-back command: "0 = latch status".
const NO_STATUS: u8 = 1 << 4;

/// Clock pulses between two refreshes of memory: what firmware programs counter 1 to, 15.085 µs.
const REFRESH_PULSES: u64 = 18;

bitflags! {
    /// Port 61h (82371SB data sheet, NMISC). PERR#, SERR# and IOCHK# never occur here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct NmiStatus: u8 {
        /// Timer counter 2 enable: its GATE.
        const TIM2_GATE = 1 << 0;
        /// Speaker data enable.
        const SPKR = 1 << 1;
        /// PCI SERR# disable.
        const SERR_DISABLE = 1 << 2;
        /// IOCHK# disable.
        const IOCHK_DISABLE = 1 << 3;
        /// Refresh cycle toggle; read only.
        const REFRESH = 1 << 4;
        /// Timer counter 2 OUT status; read only.
        const TIM2_OUT = 1 << 5;
    }
}

/// The bits of port 61h that a write changes.
const WRITABLE: NmiStatus = NmiStatus::TIM2_GATE
    .union(NmiStatus::SPKR)
    .union(NmiStatus::SERR_DISABLE)
    .union(NmiStatus::IOCHK_DISABLE);

/// The timer with port 61h.
pub struct Pit {
    channels: [Channel; 3],
    /// The clock pulse up to which the counters have counted.
    pulse: u64,
    port61: NmiStatus,
    /// The level of counter 0's OUT, as last driven.
    line: bool,
    /// Ticks of counter 0 that came too late.
    queue: TickQueue,
    clock: Arc<dyn Clock>,
    out0: IrqLine,
}

impl Pit {
    /// The ports of the timer, with 61h.
    pub const PORTS: [u16; 12] =
        [0x40, 0x41, 0x42, 0x43, 0x50, 0x51, 0x52, 0x53, PORT_61, 0x63, 0x65, 0x67];

    /// The frequency of CLK: 14.31818 MHz / 12.
    pub const HERTZ: u64 = 1_193_182;

    /// A timer that stands; counter 0's OUT drives `out0`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, out0: IrqLine) -> Self {
        Self {
            channels: Self::power_on(),
            pulse: clock.now().ticks(Self::HERTZ),
            port61: NmiStatus::empty(),
            line: false,
            queue: TickQueue::new(LostTicks::default()),
            clock,
            out0,
        }
    }

    /// The same timer with another policy for counter 0's ticks that the host was too late for.
    #[must_use]
    pub fn with_lost_ticks(mut self, policy: LostTicks) -> Self {
        self.queue = TickQueue::new(policy);
        self
    }

    /// The gates of counters 0 and 1 are tied high; counter 2's is port 61h's.
    fn power_on() -> [Channel; 3] {
        [Channel::new(true), Channel::new(true), Channel::new(false)]
    }

    /// Lets the counters count up to `now`.
    fn sync(&mut self, now: VmTime) {
        let pulse = now.ticks(Self::HERTZ);
        let pulses = pulse.saturating_sub(self.pulse);
        self.pulse = self.pulse.max(pulse);
        let [channel0, channel1, channel2] = &mut self.channels;
        if let Some((rises, period)) = channel0.rises_within(pulses) {
            let period = VmTime::from_ticks(period, Self::HERTZ).as_nanos();
            self.queue.miss(rises.saturating_sub(1), period, now);
        }
        let edges = channel0.advance(pulses);
        channel1.advance(pulses);
        channel2.advance(pulses);
        self.drive_edges(edges);
    }

    /// Drives the line as OUT moved. When the call came so late that OUT has fallen again, the line
    /// stays high until the next edge: no tick is lost on a slow host.
    fn drive_edges(&mut self, edges: Edges) {
        if edges.rose {
            self.drive(false);
            self.drive(true);
        } else if edges.fell {
            self.drive(false);
        }
    }

    fn drive(&mut self, high: bool) {
        if self.line != high {
            self.line = high;
            self.out0.set(high);
        }
    }

    fn write_control(&mut self, value: u8) {
        let select = value >> SELECT_SHIFT;
        if select == READ_BACK {
            self.read_back(value);
            return;
        }
        let control = Control::from_bits_truncate(value);
        let Some(channel) = self.channels.get_mut(usize::from(select)) else { return };
        if control.intersects(Control::LSB | Control::MSB) {
            channel.program(control);
            if select == 0 {
                self.queue.clear();
            }
            self.drive_changed(select);
        } else {
            channel.latch_count();
        }
    }

    fn read_back(&mut self, command: u8) {
        for (n, channel) in self.channels.iter_mut().enumerate() {
            if command & 2 << n == 0 {
                continue;
            }
            if command & NO_COUNT == 0 {
                channel.latch_count();
            }
            if command & NO_STATUS == 0 {
                channel.latch_status();
            }
        }
    }

    fn write_counter(&mut self, select: u8, value: u8) {
        if let Some(channel) = self.channels.get_mut(usize::from(select)) {
            channel.write(value);
        }
        self.drive_changed(select);
    }

    /// A write to counter `select` may have set OUT at once.
    fn drive_changed(&mut self, select: u8) {
        if select == 0 {
            self.drive(self.channels[0].out);
        }
    }

    fn read_port61(&self) -> u8 {
        let mut value = self.port61;
        value.set(NmiStatus::REFRESH, (self.pulse / REFRESH_PULSES) & 1 != 0);
        value.set(NmiStatus::TIM2_OUT, self.channels[2].out);
        value.bits()
    }

    fn write_port61(&mut self, value: u8) {
        self.port61 = NmiStatus::from_bits_truncate(value) & WRITABLE;
        self.channels[2].set_gate(self.port61.contains(NmiStatus::TIM2_GATE));
    }

    /// Whether the speaker's cone is pushed out now: counter 2's OUT and the speaker data enable.
    #[must_use]
    pub fn speaker(&self) -> bool {
        self.port61.contains(NmiStatus::SPKR) && self.channels[2].out
    }
}

impl PortIo for Pit {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        self.sync(self.clock.now());
        let value = match undecoded(port) {
            COUNTER0 => self.channels[0].read(),
            COUNTER1 => self.channels[1].read(),
            COUNTER2 => self.channels[2].read(),
            PORT_61 => self.read_port61(),
            // The control word register is write-only: nobody drives the bus.
            _ => return Err(BusError::NoRegister),
        };
        Ok(value.into())
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        self.sync(self.clock.now());
        let value = low_byte(value);
        match undecoded(port) {
            COUNTER0 => self.write_counter(0, value),
            COUNTER1 => self.write_counter(1, value),
            COUNTER2 => self.write_counter(2, value),
            CONTROL_WORD => self.write_control(value),
            PORT_61 => self.write_port61(value),
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Timed for Pit {
    /// Counter 0's next edge; mode 2's fall, one pulse before its rise, is driven with the rise.
    fn deadline(&self) -> Option<VmTime> {
        let pulses = self.channels[0].pulses_to_edge()?;
        let edge = VmTime::from_ticks(self.pulse.saturating_add(pulses), Self::HERTZ);
        Some(self.queue.deadline().map_or(edge, |owed| owed.min(edge)))
    }

    fn fire(&mut self, now: VmTime) {
        self.sync(now);
        if self.queue.take(now) {
            self.drive(false);
            self.drive(true);
        }
    }
}

impl Device for Pit {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        self.sync(self.clock.now());
        self.channels = Self::power_on();
        self.port61 = NmiStatus::empty();
        self.queue.clear();
        self.drive(false);
    }
}
