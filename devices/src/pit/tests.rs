//! The 8254 and port 61h against the data sheets.

use proptest::prelude::*;
use trivium_chipset::NANOS_PER_SECOND;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

/// Control words: counter 0, both bytes.
const CW0_BOTH: u8 = 0x30;

pub(super) fn fixture() -> Fixture<Pit> {
    Fixture::new(|clock, irqs| {
        Pit::new(clock.clone(), irqs.line(0)).with_lost_ticks(LostTicks::Catchup)
    })
}

impl Fixture<Pit> {
    /// Moves to clock pulse `pulse` of virtual time.
    pub(super) fn to(&mut self, pulse: u64) {
        let target = VmTime::from_ticks(pulse, Pit::HERTZ);
        let nanos = target.nanos_since(self.clock.now());
        self.advance(nanos);
    }

    /// Programs counter 0 and starts at clock pulse 0.
    pub(super) fn start0(&mut self, mode: u8, count: u16) {
        self.write(0x43, CW0_BOTH | mode << 1);
        let [lsb, msb] = count.to_le_bytes();
        self.write(0x40, lsb);
        self.write(0x40, msb);
    }

    /// OUT of counter 0, by the read-back command.
    pub(super) fn out0(&mut self) -> bool {
        self.write(0x43, 0xe2);
        self.read(0x40) & 0x80 != 0
    }

    /// Counter 0, by the counter latch command.
    pub(super) fn count0(&mut self) -> u16 {
        self.write(0x43, 0x00);
        u16::from_le_bytes([self.read(0x40), self.read(0x40)])
    }

    /// The pulses from 1 to `last` at which OUT of counter 0 is low.
    pub(super) fn low_pulses(&mut self, last: u64) -> Vec<u64> {
        let mut low = Vec::new();
        for pulse in 1..=last {
            self.to(pulse);
            if !self.out0() {
                low.push(pulse);
            }
        }
        low
    }
}

#[test]
fn mode_0_goes_high_n_plus_1_pulses_after_the_count_is_written() {
    let mut pit = fixture();
    pit.start0(0, 4);
    assert_eq!(pit.low_pulses(12), [1, 2, 3, 4]);
    assert_eq!(pit.irqs.rises(0), 1);
}

#[test]
fn mode_0_goes_on_counting_after_the_terminal_count() {
    let mut pit = fixture();
    pit.start0(0, 4);
    for (pulse, count) in [(1, 4), (2, 3), (4, 1), (5, 0), (6, 0xffff), (7, 0xfffe)] {
        pit.to(pulse);
        assert_eq!(pit.count0(), count, "pulse {pulse}");
    }
}

#[test]
fn mode_0_stops_at_the_first_byte_of_a_new_count() {
    let mut pit = fixture();
    pit.start0(0, 4);
    pit.to(3);
    pit.write(0x40, 3);
    pit.to(10);
    assert_eq!(pit.count0(), 2);
    assert!(!pit.out0());
    pit.write(0x40, 0);
    pit.to(13);
    assert!(!pit.out0());
    pit.to(14);
    assert!(pit.out0());
}

#[test]
fn mode_2_is_low_for_one_pulse_in_n() {
    let mut pit = fixture();
    pit.start0(2, 3);
    assert_eq!(pit.low_pulses(10), [3, 6, 9]);
    for (pulse, count) in [(13, 3), (14, 2), (15, 1), (16, 3)] {
        pit.to(pulse);
        assert_eq!(pit.count0(), count, "pulse {pulse}");
    }
}

#[test]
fn mode_2_takes_a_new_count_at_the_end_of_the_cycle() {
    let mut pit = fixture();
    pit.start0(2, 4);
    pit.to(2);
    pit.write(0x40, 5);
    pit.write(0x40, 0);
    assert_eq!(pit.low_pulses(14)[..], [4, 9, 14]);
}

#[test]
fn mode_3_is_high_for_half_of_an_even_count() {
    let mut pit = fixture();
    pit.start0(3, 4);
    assert_eq!(pit.low_pulses(12), [3, 4, 7, 8, 11, 12]);
    for (pulse, count) in [(13, 4), (14, 2), (15, 4), (16, 2)] {
        pit.to(pulse);
        assert_eq!(pit.count0(), count, "pulse {pulse}");
    }
}

#[test]
fn mode_3_is_high_one_pulse_longer_for_an_odd_count() {
    let mut pit = fixture();
    pit.start0(3, 5);
    assert_eq!(pit.low_pulses(12), [4, 5, 9, 10]);
    // "The initial count minus one (an even number) is loaded."
    for (pulse, count) in [(16, 4), (17, 2), (18, 0), (19, 4), (20, 2), (21, 4)] {
        pit.to(pulse);
        assert_eq!(pit.count0(), count, "pulse {pulse}");
    }
}

#[test]
fn mode_4_strobes_once_n_plus_1_pulses_after_the_count_is_written() {
    let mut pit = fixture();
    pit.start0(4, 3);
    assert_eq!(pit.low_pulses(10), [4]);
    let mut late = fixture();
    late.start0(4, 3);
    late.to(70_000);
    assert!(late.out0());
    assert_eq!(late.count0(), 4u16.wrapping_sub(4_464), "it counts on: 70,000 = 65,536 + 4,464");
}

/// Counter 2 with both bytes, in `mode`, with `count`; its gate is low.
pub(super) fn counter2(mode: u8, count: u8) -> Fixture<Pit> {
    let mut pit = fixture();
    pit.write(0x61, 0);
    pit.write(0x43, 0xb0 | mode << 1);
    pit.write(0x42, count);
    pit.write(0x42, 0);
    pit
}

pub(super) fn out2_low(pit: &mut Fixture<Pit>, pulses: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    pulses
        .filter(|&pulse| {
            pit.to(pulse);
            pit.read(0x61) & 0x20 == 0
        })
        .collect()
}

#[test]
fn mode_1_is_low_for_n_pulses_after_each_trigger() {
    let mut pit = counter2(1, 3);
    assert_eq!(out2_low(&mut pit, 1..=5), []);
    pit.write(0x61, 1);
    assert_eq!(out2_low(&mut pit, 6..=12), [6, 7, 8]);
    pit.write(0x61, 0);
    pit.write(0x61, 1);
    pit.to(14);
    pit.write(0x61, 0);
    pit.write(0x61, 1);
    assert_eq!(out2_low(&mut pit, 15..=20), [15, 16, 17], "retriggered");
}

#[test]
fn mode_5_strobes_n_plus_1_pulses_after_each_trigger() {
    let mut pit = counter2(5, 3);
    assert_eq!(out2_low(&mut pit, 1..=9), []);
    pit.write(0x61, 1);
    pit.write(0x61, 0);
    assert_eq!(out2_low(&mut pit, 10..=20), [13]);
}

#[test]
fn gate_low_holds_mode_0_and_sets_out_high_in_modes_2_and_3() {
    let mut pit = counter2(0, 2);
    assert_eq!(out2_low(&mut pit, 1..=5), [1, 2, 3, 4, 5]);
    pit.write(0x61, 1);
    assert_eq!(out2_low(&mut pit, 6..=9), [6]);
    for mode in [2, 3] {
        let mut pit = counter2(mode, 2);
        pit.write(0x61, 1);
        pit.to(2);
        assert_eq!(pit.read(0x61) & 0x20, 0, "mode {mode}");
        pit.write(0x61, 0);
        assert_eq!(pit.read(0x61) & 0x20, 0x20, "mode {mode}");
        pit.to(10);
        pit.write(0x61, 1);
        assert_eq!(out2_low(&mut pit, 11..=14), [12, 14], "mode {mode} reloads");
    }
}

#[test]
fn bcd_counts_in_decimal() {
    let mut pit = fixture();
    pit.start0(0, 0);
    pit.write(0x43, CW0_BOTH | 1);
    pit.write(0x40, 0x00);
    pit.write(0x40, 0x10);
    pit.to(2);
    assert_eq!(pit.count0(), 0x0999);
    pit.write(0x40, 0x00);
    pit.write(0x40, 0x00);
    pit.to(4);
    assert_eq!(pit.count0(), 0x9999, "0 stands for 10,000");
}

#[test]
fn one_byte_counts_set_the_other_byte_to_zero() {
    for (rw, count) in [(0x10, 0x0042), (0x20, 0x4200)] {
        let mut pit = fixture();
        pit.write(0x43, rw);
        pit.write(0x40, 0x42);
        pit.to(1);
        let byte = pit.read(0x40);
        assert_eq!(byte, 0x42);
        pit.to(1 + count);
        assert!(pit.out0());
        assert_eq!(pit.irqs.rises(0), 1);
    }
}

#[test]
fn a_latched_count_is_held_until_it_is_read() {
    let mut pit = fixture();
    pit.start0(2, 1000);
    pit.to(1);
    pit.write(0x43, 0x00);
    pit.to(100);
    pit.write(0x43, 0x00);
    assert_eq!(u16::from_le_bytes([pit.read(0x40), pit.read(0x40)]), 1000);
    assert_eq!(u16::from_le_bytes([pit.read(0x40), pit.read(0x40)]), 901);
}

#[test]
fn read_back_gives_the_status_before_the_count() {
    let mut pit = fixture();
    pit.start0(3, 0x1234);
    pit.write(0x43, 0xc2);
    // OUT high, null count, both bytes, mode 3, binary.
    assert_eq!(pit.read(0x40), 0xf6);
    pit.read(0x40);
    pit.read(0x40);
    pit.to(1);
    pit.write(0x43, 0xc2);
    assert_eq!(pit.read(0x40), 0xb6, "the count has reached CE");
    assert_eq!(u16::from_le_bytes([pit.read(0x40), pit.read(0x40)]), 0x1234);
}

#[test]
fn the_bios_rate_gives_18_2_interrupts_a_second() {
    let mut pit = fixture();
    pit.start0(3, 0);
    pit.advance(10 * NANOS_PER_SECOND);
    assert_eq!(pit.irqs.rises(0), 10 * 1_193_182 / 65_536 + 1, "with OUT's rise at programming");
}

#[test]
fn a_late_call_still_gives_the_tick() {
    let mut pit = fixture();
    pit.start0(3, 1000);
    let before = pit.irqs.rises(0);
    // Past the rise at 1001 and the fall at 1501.
    pit.clock.set(VmTime::from_ticks(1600, Pit::HERTZ));
    pit.device.fire(VmTime::from_ticks(1600, Pit::HERTZ));
    assert_eq!(pit.irqs.rises(0), before + 1);
    assert!(pit.irqs.level(0));
    pit.to(2001);
    assert_eq!(pit.irqs.rises(0), before + 2);
}

#[test]
fn port_61h_shows_refresh_toggling_every_15_microseconds() {
    let mut pit = fixture();
    let mut toggles = 0;
    let mut before = pit.read(0x61) & 0x10;
    for _ in 0..10_000 {
        pit.advance(1_000);
        let now = pit.read(0x61) & 0x10;
        toggles += u32::from(now != before);
        before = now;
    }
    // 10 ms / 15.085 µs
    assert!((661..=664).contains(&toggles), "{toggles}");
}

#[test]
fn port_61h_keeps_its_four_writable_bits() {
    let mut pit = fixture();
    pit.write(0x61, 0xff);
    assert_eq!(pit.read(0x61) & 0xcf, 0x0f);
}

/// A timer of 100 ticks a second whose host is away for ten of them: the interrupts in the second
/// that follows, and in the one after that.
fn ticks_after_an_absence(policy: LostTicks) -> [usize; 2] {
    let mut pit = fixture();
    pit.device = Pit::new(pit.clock.clone(), pit.irqs.line(0)).with_lost_ticks(policy);
    pit.start0(2, 11_932);
    pit.advance(NANOS_PER_SECOND);
    pit.clock.advance(100_500_000);
    [(); 2].map(|()| {
        let before = pit.irqs.rises(0);
        pit.advance(NANOS_PER_SECOND);
        pit.irqs.rises(0) - before
    })
}

#[test]
fn ticks_missed_by_the_host_are_dropped_or_caught_up_with() {
    // The 100th to the 210th tick are due; eleven of them come in the absence.
    assert_eq!(ticks_after_an_absence(LostTicks::Delay), [101, 100]);
    assert_eq!(ticks_after_an_absence(LostTicks::Discard), [101, 100]);
    assert_eq!(ticks_after_an_absence(LostTicks::Catchup), [111, 100]);
}

#[test]
fn the_counters_are_at_50h_too_and_port_61h_four_times() {
    let mut pit = fixture();
    pit.write(0x53, 0x30);
    pit.write(0x50, 0x34);
    pit.write(0x40, 0x12);
    pit.to(1);
    pit.write(0x43, 0x00);
    assert_eq!([pit.read(0x40), pit.read(0x50)], [0x34, 0x12]);
    for alias in [0x63, 0x65, 0x67] {
        pit.write(alias, 0x0d);
        assert_eq!(pit.read(0x61) & 0x0f, 0x0d);
        pit.write(0x61, 0x02);
        assert_eq!(pit.read(alias) & 0x0f, 0x02);
    }
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(steps in port_steps(&Pit::PORTS)) {
        check(fixture, &steps);
    }

    /// Passing pulses one by one and all at once comes to the same.
    #[test]
    fn time_may_pass_in_any_portions(
        control in 0u8..0x40, count in prop_oneof![0u16..12, any::<u16>()],
        gate in any::<bool>(), portions in proptest::collection::vec(0u64..40, 1..40),
    ) {
        let control = Control::from_bits_truncate(control | 0x30);
        let mut at_once = Channel::new(gate);
        at_once.program(control);
        for byte in count.to_le_bytes() {
            at_once.write(byte);
        }
        at_once.set_gate(!gate);
        at_once.set_gate(gate);
        let mut portioned = at_once.clone();
        let mut single = at_once.clone();
        let total: u64 = portions.iter().sum();
        at_once.advance(total);
        for portion in portions {
            portioned.advance(portion);
            for _ in 0..portion {
                let expected = single.pulses_to_edge() == Some(1);
                let edges = single.advance(1);
                prop_assert!(!edges.rose || expected, "a rise that was not announced");
            }
        }
        prop_assert_eq!(&at_once, &portioned);
        prop_assert_eq!(&at_once, &single);
    }
}
