//! The counters as plain numbers, for another implementation of the timer that takes over or gives
//! back: the host's kernel.

use super::channel::{Channel, Control, Phase};
use super::{NmiStatus, Pit};

/// One counter of an 8254.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PitCounter {
    /// BCD, mode and RW, as in a control word.
    pub control: u8,
    /// The count as it was last written: 0 for the modulus.
    pub count: u16,
    /// Clock pulses since the counting element took the count; none if no count was written since
    /// the control word.
    pub elapsed: Option<u64>,
    /// The level of GATE.
    pub gate: bool,
    /// The first byte of a count of two.
    pub first_byte: Option<u8>,
    /// The next read of two gives the most significant byte.
    pub read_msb: bool,
    /// The latched count.
    pub latched_count: Option<u16>,
    /// The latched status.
    pub latched_status: Option<u8>,
}

impl PitCounter {
    fn of(channel: &Channel) -> Self {
        Self {
            control: channel.control.bits(),
            count: channel.raw_count(),
            elapsed: match channel.phase {
                Phase::Idle => None,
                Phase::Load | Phase::Armed => Some(0),
                Phase::Counting => Some(channel.elapsed()),
            },
            gate: channel.gate,
            first_byte: channel.first_byte,
            read_msb: channel.read_msb,
            latched_count: channel.latched_count,
            latched_status: channel.latched_status,
        }
    }

    /// The counter that comes to this state by the guest's writes and the time that has passed.
    fn channel(&self) -> Channel {
        let mut channel = Channel::new(self.gate);
        let control = Control::from_bits_truncate(self.control);
        if control.intersects(Control::LSB | Control::MSB) {
            channel.program(control);
        }
        if let Some(elapsed) = self.elapsed {
            let [low, high] = self.count.to_le_bytes();
            for (byte, is_there) in [(low, Control::LSB), (high, Control::MSB)] {
                if channel.control.contains(is_there) {
                    channel.write(byte);
                }
            }
            // The pulse at which the counting element takes the count, and those since.
            channel.advance(elapsed.saturating_add(1));
        }
        Channel {
            first_byte: self.first_byte,
            read_msb: self.read_msb,
            latched_count: self.latched_count,
            latched_status: self.latched_status,
            ..channel
        }
    }
}

impl Pit {
    /// The three counters as they are now.
    pub fn registers(&mut self) -> [PitCounter; 3] {
        self.sync(self.clock.now());
        self.channels.each_ref().map(PitCounter::of)
    }

    /// Takes over from another implementation.
    pub fn set_registers(&mut self, counters: [PitCounter; 3]) {
        self.sync(self.clock.now());
        self.channels = counters.each_ref().map(PitCounter::channel);
        self.port61.set(NmiStatus::TIM2_GATE, self.channels[2].gate);
        self.queue.clear();
        self.drive(self.channels[0].out);
    }

    /// Stops: another implementation has taken over. The output stays as it is.
    pub fn park(&mut self) {
        self.sync(self.clock.now());
        self.channels = Self::power_on();
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::Fixture;

    fn fixture() -> Fixture<Pit> {
        Fixture::new(|clock, irqs| Pit::new(clock.clone(), irqs.line(0)))
    }

    /// Each mode that does not wait for a trigger, with counts of one and of two bytes, some time
    /// after it was set: the counter that is made of its registers shows the same from then on.
    #[test]
    fn a_counter_goes_on_from_its_registers() {
        for control in [0x30, 0x34, 0x36, 0x38, 0x14, 0x26, 0x35] {
            for pulses in [0, 1, 2, 777, 5_000, 70_000] {
                let mut pit = fixture();
                pit.write(0x43, control);
                for byte in [0x12, 0x10].iter().take(if control & 0x30 == 0x30 { 2 } else { 1 }) {
                    pit.write(0x40, *byte);
                }
                let mut channel = pit.device.channels[0].clone();
                channel.advance(pulses + 1);
                let mut other = PitCounter::of(&channel).channel();
                for _ in 0..3 {
                    let seen = [&mut channel, &mut other].map(|c| (c.read(), c.read(), c.out));
                    assert_eq!(seen[0], seen[1], "{control:x} after {pulses}");
                    assert_eq!(channel.pulses_to_edge(), other.pulses_to_edge(), "{control:x}");
                    channel.advance(300);
                    other.advance(300);
                }
            }
        }
    }

    #[test]
    fn a_parked_timer_has_no_deadline_and_its_line_stays() {
        use trivium_chipset::Timed;
        let mut pit = fixture();
        pit.write(0x43, 0x34);
        pit.write(0x40, 0);
        pit.write(0x40, 4);
        let registers = pit.device.registers();
        assert!(pit.device.deadline().is_some());
        pit.device.park();
        assert_eq!((pit.device.deadline(), pit.device.line), (None, true));
        pit.device.set_registers(registers);
        assert!(pit.device.deadline().is_some());
        assert_eq!(
            (registers[0].count, registers[1].elapsed, registers[2].gate),
            (0x400, None, false)
        );
    }
}
