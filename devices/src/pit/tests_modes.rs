//! The 8254's modes and commands, statement by statement: figures 15 to 21 and tables of the data
//! sheet (order number 231164).

use super::tests::{counter2, fixture, out2_low};
use super::*;
use crate::test_support::Fixture;

const GATE: u16 = 0x61;

impl Fixture<Pit> {
    /// Writes counter 2, low byte first.
    fn write2(&mut self, count: u16) {
        let [lsb, msb] = count.to_le_bytes();
        self.write(0x42, lsb);
        self.write(0x42, msb);
    }

    /// Counter 2, by the counter latch command.
    fn count2(&mut self) -> u16 {
        self.write(0x43, 0x80);
        u16::from_le_bytes([self.read(0x42), self.read(0x42)])
    }

    /// The status byte of a counter, by the read-back command.
    fn status(&mut self, counter: u8) -> u8 {
        self.write(0x43, 0xe0 | 2 << counter);
        self.read(0x40 + u16::from(counter))
    }

    /// Triggers counter 2 anew.
    fn trigger(&mut self) {
        self.write(GATE, 0);
        self.write(GATE, 1);
    }
}

#[test]
fn mode_0_loads_without_gate_and_needs_no_pulse_to_load_when_gate_rises() {
    let mut pit = counter2(0, 3);
    pit.to(5);
    assert_eq!(pit.count2(), 3, "loaded with GATE low");
    pit.write(GATE, 1);
    assert_eq!(out2_low(&mut pit, 6..=10), [6, 7], "high N pulses after GATE");
}

#[test]
fn mode_0_gate_disables_counting_and_does_not_touch_out() {
    let mut pit = counter2(0, 5);
    pit.write(GATE, 1);
    pit.to(3);
    pit.write(GATE, 0);
    assert_eq!(out2_low(&mut pit, 4..=8), [4, 5, 6, 7, 8]);
    assert_eq!(pit.count2(), 3);
    pit.write(GATE, 1);
    assert_eq!(out2_low(&mut pit, 9..=12), [9, 10]);
}

#[test]
fn mode_0_takes_a_new_count_at_the_next_pulse_and_goes_low_at_once() {
    let mut pit = fixture();
    pit.start0(0, 2);
    pit.to(5);
    assert!(pit.out0());
    pit.write(0x40, 3);
    assert!(!pit.out0(), "OUT is set low immediately");
    pit.write(0x40, 0);
    pit.to(6);
    assert_eq!(pit.count0(), 3);
    pit.to(8);
    assert!(!pit.out0());
    pit.to(9);
    assert!(pit.out0());
}

#[test]
fn mode_1_needs_a_count_before_a_trigger_counts() {
    let mut pit = fixture();
    pit.write(GATE, 0);
    pit.write(0x43, 0xb2);
    pit.trigger();
    assert_eq!(out2_low(&mut pit, 1..=4), [], "not armed");
    pit.write2(2);
    assert_eq!(out2_low(&mut pit, 5..=8), [], "the trigger came before the count");
    pit.trigger();
    assert_eq!(out2_low(&mut pit, 9..=14), [9, 10]);
}

#[test]
fn mode_1_a_new_count_waits_for_the_next_trigger() {
    let mut pit = counter2(1, 3);
    pit.trigger();
    pit.to(1);
    pit.write2(5);
    assert_eq!(out2_low(&mut pit, 2..=8), [2, 3], "the pulse in progress is not affected");
    pit.trigger();
    assert_eq!(out2_low(&mut pit, 9..=15), [9, 10, 11, 12, 13]);
}

#[test]
fn mode_1_without_gate_goes_on_counting() {
    let mut pit = counter2(1, 3);
    pit.trigger();
    pit.to(1);
    pit.write(GATE, 0);
    assert_eq!(out2_low(&mut pit, 2..=6), [2, 3]);
}

#[test]
fn mode_2_a_trigger_reloads_the_count_at_the_next_pulse() {
    let mut pit = counter2(2, 4);
    pit.write(GATE, 1);
    pit.to(3);
    assert_eq!(pit.count2(), 2);
    pit.trigger();
    pit.to(4);
    assert_eq!(pit.count2(), 4);
    assert_eq!(out2_low(&mut pit, 5..=12), [7, 11]);
}

#[test]
fn mode_2_takes_a_new_count_with_a_trigger() {
    let mut pit = counter2(2, 9);
    pit.write(GATE, 1);
    pit.to(3);
    pit.write2(3);
    pit.trigger();
    assert_eq!(out2_low(&mut pit, 4..=10), [6, 9]);
}

#[test]
fn mode_3_takes_a_new_count_at_the_end_of_the_half_cycle() {
    let mut pit = fixture();
    pit.start0(3, 8);
    pit.to(2);
    pit.write(0x40, 4);
    pit.write(0x40, 0);
    assert_eq!(pit.status(0) & 0x40, 0x40, "null count");
    assert_eq!(pit.low_pulses(13)[..], [5, 6, 9, 10, 13]);
    assert_eq!(pit.status(0) & 0x40, 0);
}

#[test]
fn mode_3_takes_a_new_count_with_a_trigger() {
    let mut pit = counter2(3, 8);
    pit.write(GATE, 1);
    pit.to(2);
    pit.write2(4);
    pit.trigger();
    assert_eq!(out2_low(&mut pit, 3..=8), [5, 6]);
}

#[test]
fn mode_3_count_stands_while_gate_is_low() {
    for count in [8, 9] {
        let mut pit = counter2(3, count);
        pit.write(GATE, 1);
        pit.to(7);
        assert_eq!(pit.read(GATE) & 0x20, 0, "in the low half");
        let before = pit.count2();
        pit.write(GATE, 0);
        assert_eq!((pit.read(GATE) & 0x20, pit.count2()), (0x20, before));
        pit.to(20);
        assert_eq!(pit.count2(), before);
    }
}

#[test]
fn mode_4_gate_disables_counting_and_does_not_touch_out() {
    let mut pit = counter2(4, 3);
    pit.write(GATE, 1);
    pit.to(2);
    pit.write(GATE, 0);
    assert_eq!(out2_low(&mut pit, 3..=6), []);
    pit.write(GATE, 1);
    assert_eq!(out2_low(&mut pit, 7..=12), [8]);
}

#[test]
fn mode_4_is_retriggered_by_software() {
    let mut pit = fixture();
    pit.start0(4, 3);
    pit.to(2);
    pit.write(0x40, 4);
    pit.to(3);
    assert_eq!(pit.count0(), 1, "the first byte has no effect on counting");
    pit.write(0x40, 0);
    pit.to(4);
    assert_eq!(pit.count0(), 4, "loaded at the next pulse");
    assert_eq!(pit.low_pulses(12)[..], [8]);
}

#[test]
fn mode_5_a_new_count_waits_for_the_next_trigger() {
    let mut pit = counter2(5, 3);
    pit.trigger();
    pit.to(2);
    pit.write2(5);
    assert_eq!(out2_low(&mut pit, 3..=9), [4]);
    pit.trigger();
    assert_eq!(out2_low(&mut pit, 10..=18), [15]);
}

#[test]
fn mode_5_is_retriggerable_and_gate_does_not_affect_out() {
    let mut pit = counter2(5, 4);
    pit.trigger();
    pit.to(3);
    pit.trigger();
    pit.write(GATE, 0);
    assert_eq!(out2_low(&mut pit, 4..=12), [8]);
}

#[test]
fn modes_6_and_7_are_modes_2_and_3() {
    for (alias, mode) in [(6, 2), (7, 3)] {
        let (mut one, mut other) = (fixture(), fixture());
        one.start0(alias, 6);
        other.start0(mode, 6);
        assert_eq!(one.low_pulses(20), other.low_pulses(20));
        assert_eq!(one.status(0) & 0x0e, alias << 1, "status shows what was written");
    }
}

#[test]
fn the_largest_count_is_0() {
    for (bcd, pulses) in [(0, 0x1_0000), (1, 10_000)] {
        let mut pit = fixture();
        pit.write(0x43, 0x30 | bcd);
        pit.write(0x40, 0);
        pit.write(0x40, 0);
        pit.to(pulses);
        assert!(!pit.out0());
        pit.to(pulses + 1);
        assert!(pit.out0());
    }
}

#[test]
fn null_count_is_set_by_control_word_and_count_and_cleared_by_the_load() {
    let mut pit = fixture();
    pit.start0(2, 100);
    pit.to(1);
    assert_eq!(pit.status(0) & 0x40, 0);
    pit.write(0x40, 7);
    assert_eq!(pit.status(0) & 0x40, 0, "set with the second byte only");
    pit.write(0x40, 0);
    assert_eq!(pit.status(0) & 0x40, 0x40);
    pit.to(101);
    assert_eq!(pit.status(0) & 0x40, 0);
    pit.write(0x43, 0x34);
    assert_eq!(pit.status(0) & 0x40, 0x40);
}

#[test]
fn read_back_latches_any_choice_of_counters_at_once() {
    let mut pit = fixture();
    for (counter, control) in [(0u16, 0x34), (1, 0x74), (2, 0xb4)] {
        pit.write(0x43, control);
        pit.write(0x40 + counter, 200);
        pit.write(0x40 + counter, 0);
    }
    pit.write(GATE, 1);
    pit.to(11);
    pit.write(0x43, 0xde); // counts of all three
    pit.to(50);
    for counter in 0..3u16 {
        let count = [pit.read(0x40 + counter), pit.read(0x40 + counter)];
        assert_eq!(u16::from_le_bytes(count), 190, "counter {counter}");
    }
    pit.write(0x43, 0xe4); // status of counter 1
    assert_eq!(pit.read(0x41), 0xb4);
    assert_ne!(pit.read(0x40), 0xb4, "the others are not latched");
}

#[test]
fn a_second_latch_of_status_is_ignored() {
    let mut pit = fixture();
    pit.start0(0, 2);
    pit.write(0x43, 0xe2);
    pit.to(10);
    pit.write(0x43, 0xe2);
    assert_eq!(pit.read(0x40) & 0xc0, 0x40, "as at the first command");
}

#[test]
fn status_comes_first_whichever_was_latched_first() {
    let mut pit = fixture();
    pit.start0(2, 0x1234);
    pit.to(1);
    pit.write(0x43, 0x00);
    pit.write(0x43, 0xe2);
    assert_eq!(pit.read(0x40), 0xb4);
    assert_eq!((pit.read(0x40), pit.read(0x40)), (0x34, 0x12));
}

#[test]
fn reprogramming_unlatches() {
    let mut pit = fixture();
    pit.start0(2, 0x1234);
    pit.to(1);
    pit.write(0x43, 0xc2);
    pit.start0(2, 0x0056);
    pit.to(2);
    assert_eq!((pit.read(0x40), pit.read(0x40)), (0x56, 0x00));
}

#[test]
fn reads_and_writes_of_the_same_counter_may_be_interleaved() {
    let mut pit = fixture();
    pit.start0(2, 0x1234);
    pit.to(1);
    pit.write(0x43, 0x00);
    let lsb = pit.read(0x40);
    pit.write(0x40, 0x78);
    let msb = pit.read(0x40);
    pit.write(0x40, 0x56);
    assert_eq!((lsb, msb), (0x34, 0x12));
    pit.to(0x1235);
    assert_eq!(pit.count0(), 0x5678);
}

#[test]
fn a_one_byte_latch_is_read_once() {
    for (rw, byte) in [(0x10, 0x34), (0x20, 0x12)] {
        let mut pit = fixture();
        pit.write(0x43, 0x04 | rw);
        pit.write(0x40, byte);
        pit.to(1);
        pit.write(0x43, 0x00);
        pit.to(2);
        let latched = pit.read(0x40);
        let running = pit.read(0x40);
        assert_eq!(latched, byte);
        assert_eq!(running, byte - 1, "one pulse on");
    }
}

#[test]
fn bcd_latches_decimal_digits() {
    let mut pit = fixture();
    pit.write(0x43, 0x35); // mode 2, BCD
    pit.write(0x40, 0x00);
    pit.write(0x40, 0x20);
    for (pulse, count) in [(1, 0x2000), (2, 0x1999), (1002, 0x0999), (2000, 0x0001), (2001, 0x2000)]
    {
        pit.to(pulse);
        assert_eq!(pit.count0(), count, "pulse {pulse}");
    }
}

#[test]
fn a_control_word_sets_out_to_its_initial_state() {
    for (mode, high) in [(0, false), (1, true), (2, true), (3, true), (4, true), (5, true)] {
        let mut pit = fixture();
        pit.write(0x43, 0x30 | mode << 1);
        assert_eq!(pit.out0(), high, "mode {mode}");
        assert_eq!(pit.irqs.level(0), high);
    }
}

#[test]
fn the_speaker_is_out_2_and_the_data_enable() {
    let mut pit = counter2(3, 4);
    pit.write(GATE, 3);
    let mut wave = Vec::new();
    for pulse in 1..=4 {
        pit.to(pulse);
        pit.read(GATE);
        wave.push(pit.device.speaker());
    }
    assert_eq!(wave, [true, true, false, false]);
    pit.write(GATE, 1);
    assert!(!pit.device.speaker());
    pit.write(0x43, 0xb4);
    pit.write(GATE, 2);
    assert!(pit.device.speaker(), "a high OUT with its gate closed: software makes the sound");
}

#[test]
fn port_61h_reads_back_and_its_status_bits_are_read_only() {
    let mut pit = counter2(0, 2);
    pit.write(GATE, 0xff);
    assert_eq!(pit.read(GATE) & 0xef, 0x0f, "OUT2 is low");
    pit.to(5);
    assert_eq!(pit.read(GATE) & 0xef, 0x2f);
    pit.write(GATE, 0);
    assert_eq!(pit.read(GATE) & 0xef, 0x20);
}

#[test]
fn the_control_word_register_cannot_be_read() {
    let mut pit = fixture();
    let ports = pit.device.pio().unwrap();
    assert_eq!(ports.read(0x43, AccessWidth::Byte), Err(BusError::NoRegister));
}
