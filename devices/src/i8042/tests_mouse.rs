//! The mouse against IBM's technical reference and Microsoft's specifications.

use proptest::prelude::*;
use trivium_chipset::NANOS_PER_SECOND;

use super::tests::fixture;
use super::*;
use crate::test_support::{Fixture, check, port_steps};

const NONE: MouseButtons = MouseButtons::empty();
const MS: u64 = 1_000_000;

impl Fixture<I8042> {
    /// Sends bytes to the mouse and gives its answers.
    fn mouse(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        for byte in bytes {
            self.command(0xd4, Some(*byte));
            answers.extend(self.output());
        }
        answers
    }
    fn moved(&mut self, dx: i32, dy: i32) {
        self.device.mouse_event(dx, dy, 0, NONE);
    }
}

/// A mouse that reports.
fn enabled() -> Fixture<I8042> {
    let mut i8042 = fixture();
    assert_eq!(i8042.mouse(&[0xf4]), [0xfa]);
    i8042
}

#[test]
fn commands_are_acknowledged() {
    let mut i8042 = fixture();
    for (bytes, answers) in [
        (&[0xff][..], &[0xfa, 0xaa, 0x00][..]),
        (&[0xf2], &[0xfa, 0x00]),
        (&[0xf6], &[0xfa]),
        (&[0xf4], &[0xfa]),
        (&[0xf5], &[0xfa]),
        (&[0xe6], &[0xfa]),
        (&[0xe7], &[0xfa]),
        (&[0xe8, 0x03], &[0xfa, 0xfa]),
        (&[0xf3, 0x28], &[0xfa, 0xfa]),
        (&[0xea], &[0xfa]),
        (&[0xf0], &[0xfa]),
        (&[0xe9], &[0xfa, 0x50, 0x03, 0x28]),
        (&[0xeb], &[0xfa, 0x08, 0x00, 0x00]),
        (&[0xfe], &[0xfa, 0x08, 0x00, 0x00]),
        (&[0xec], &[0xfa]),
    ] {
        assert_eq!(i8042.mouse(bytes), answers, "{bytes:02x?}");
    }
}

#[test]
fn its_answers_are_told_from_the_keyboard_s_and_interrupt_by_irq12() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x03));
    i8042.command(0xd4, Some(0xf2));
    assert!(i8042.irqs.level(12) && !i8042.irqs.level(1));
    assert_eq!(i8042.read(0x64) & 0x21, 0x21);
    assert_eq!(i8042.output(), [0xfa, 0x00]);
    assert_eq!(i8042.irqs.rises(12), 2, "an edge for each byte");
    i8042.command(0x60, Some(0x01));
    i8042.command(0xd4, Some(0xf2));
    assert!(!i8042.irqs.level(12), "not enabled");
}

#[test]
fn reset_restores_the_defaults() {
    let mut i8042 = fixture();
    i8042.mouse(&[0xf0, 0xe7, 0xe8, 0x00, 0xf3, 0x0a, 0xf4]);
    assert_eq!(i8042.mouse(&[0xe9]), [0xfa, 0x70, 0x00, 0x0a]);
    assert_eq!(i8042.mouse(&[0xff]), [0xfa, 0xaa, 0x00]);
    assert_eq!(i8042.mouse(&[0xe9]), [0xfa, 0x00, 0x02, 0x64], "stream, disabled, 4/mm, 100/s");
    i8042.mouse(&[0xf0, 0xe7, 0xe8, 0x00, 0xf3, 0x0a, 0xf4]);
    assert_eq!(i8042.mouse(&[0xf6, 0xe9]), [0xfa, 0xfa, 0x00, 0x02, 0x64]);
}

#[test]
fn a_second_mistake_in_a_row_is_an_error() {
    let mut i8042 = fixture();
    assert_eq!(i8042.mouse(&[0x00, 0x00, 0x00]), [0xfe, 0xfc, 0xfe]);
    assert_eq!(i8042.mouse(&[0xf4, 0xe8, 0x04, 0x03]), [0xfa, 0xfa, 0xfe, 0xfa]);
    assert_eq!(i8042.mouse(&[0xf3, 0x65, 0x65, 0xf4]), [0xfa, 0xfe, 0xfc, 0xfa]);
    assert_eq!(i8042.mouse(&[0xe9]), [0xfa, 0x20, 0x03, 0x64], "the rate was not changed");
}

#[test]
fn a_disabled_mouse_says_nothing_and_forgets_its_movement_when_enabled() {
    let mut i8042 = fixture();
    i8042.moved(5, 5);
    i8042.advance(NANOS_PER_SECOND);
    assert_eq!(i8042.output(), []);
    i8042.mouse(&[0xf4]);
    i8042.advance(NANOS_PER_SECOND);
    assert_eq!(i8042.output(), []);
    i8042.moved(1, -1);
    assert_eq!(i8042.output(), [0x28, 0x01, 0xff]);
    assert!(i8042.device.mouse_enabled());
}

#[test]
fn reports_come_at_most_at_the_sample_rate() {
    for rate in [10, 20, 40, 60, 80, 100, 200] {
        let mut i8042 = enabled();
        i8042.mouse(&[0xf3, rate]);
        let mut packets = 0;
        for _ in 0..1000 {
            i8042.moved(1, 0);
            i8042.advance(MS);
            packets += i8042.output().len() / 3;
        }
        let rate = usize::from(rate);
        assert!((rate - 1..=rate + 1).contains(&packets), "{packets} at {rate} a second");
    }
}

#[test]
fn movement_adds_up_while_the_last_report_is_not_read() {
    let mut i8042 = enabled();
    i8042.moved(1, 0);
    for _ in 0..10 {
        i8042.moved(2, 3);
        i8042.advance(100 * MS);
    }
    let mut bytes = i8042.output();
    i8042.advance(100 * MS);
    bytes.extend(i8042.output());
    assert_eq!(bytes, [0x08, 1, 0, 0x08, 20, 30]);
}

#[test]
fn buttons_are_reported_without_movement() {
    let mut i8042 = enabled();
    for (buttons, head) in [(MouseButtons::LEFT, 0x09), (MouseButtons::RIGHT, 0x0a), (NONE, 0x08)] {
        i8042.advance(10 * MS);
        i8042.device.mouse_event(0, 0, 0, buttons);
        assert_eq!(i8042.output(), [head, 0, 0]);
    }
    i8042.device.mouse_event(0, 0, 0, MouseButtons::MIDDLE);
    i8042.output();
    assert_eq!(i8042.mouse(&[0xe9]), [0xfa, 0x22, 0x02, 0x64]);
}

#[test]
fn remote_mode_reports_when_asked() {
    let mut i8042 = enabled();
    i8042.mouse(&[0xf0]);
    i8042.moved(5, 6);
    i8042.advance(NANOS_PER_SECOND);
    assert_eq!(i8042.output(), []);
    assert_eq!(i8042.mouse(&[0xeb, 0xeb]), [0xfa, 0x08, 5, 6, 0xfa, 0x08, 0, 0]);
    i8042.mouse(&[0xea]);
    i8042.moved(1, 1);
    i8042.advance(NANOS_PER_SECOND);
    assert_eq!(i8042.output(), [0x08, 1, 1], "stream mode again");
}

#[test]
fn scaling_counts_in_stream_mode_only() {
    let mut i8042 = enabled();
    i8042.mouse(&[0xe7]);
    i8042.moved(5, -2);
    assert_eq!(i8042.output(), [0x28, 9, 0xff]);
    i8042.mouse(&[0xf0]);
    i8042.moved(5, -2);
    assert_eq!(i8042.mouse(&[0xeb]), [0xfa, 0x28, 5, 0xfe]);
}

#[test]
fn wrap_mode_sends_everything_back_but_its_end_and_reset() {
    let mut i8042 = enabled();
    assert_eq!(i8042.mouse(&[0xee, 0x12, 0xf2, 0xee]), [0xfa, 0x12, 0xf2, 0xee]);
    i8042.moved(1, 1);
    i8042.advance(NANOS_PER_SECOND);
    assert_eq!(i8042.output(), []);
    assert_eq!(i8042.mouse(&[0xec, 0xf2]), [0xfa, 0xfa, 0x00]);
    assert_eq!(i8042.mouse(&[0xee, 0xff]), [0xfa, 0xfa, 0xaa, 0x00]);
}

#[test]
fn the_rates_200_100_80_make_it_an_intellimouse() {
    let mut i8042 = enabled();
    i8042.mouse(&[0xf3, 200, 0xf3, 100, 0xf3, 80]);
    assert_eq!(i8042.mouse(&[0xf2]), [0xfa, 0x03]);
    i8042.device.mouse_event(1, 2, -1, MouseButtons::SIDE);
    assert_eq!(i8042.output(), [0x08, 1, 2, 0xff]);
    assert_eq!(i8042.mouse(&[0xff, 0xf2]), [0xfa, 0xaa, 0x00, 0xfa, 0x00], "until reset");
    let knock = [0xf3, 200, 0xf3, 100, 0xe6, 0xf3, 80];
    i8042.mouse(&knock);
    assert_eq!(i8042.mouse(&[0xf2]), [0xfa, 0x00], "nothing may come between");
}

#[test]
fn the_rates_200_200_80_make_it_an_explorer() {
    let mut i8042 = enabled();
    i8042.mouse(&[0xf3, 200, 0xf3, 100, 0xf3, 80, 0xf2, 0xf3, 200, 0xf3, 200, 0xf3, 80]);
    assert_eq!(i8042.mouse(&[0xf2]), [0xfa, 0x04]);
    i8042.device.mouse_event(0, 0, 1, MouseButtons::SIDE | MouseButtons::LEFT);
    assert_eq!(i8042.output(), [0x09, 0, 0, 0x11]);
}

#[test]
fn a_disabled_port_keeps_the_report_until_it_is_enabled() {
    let mut i8042 = enabled();
    i8042.command(0xa7, None);
    i8042.moved(1, 1);
    assert_eq!(i8042.output(), []);
    i8042.command(0xa8, None);
    assert_eq!(i8042.output(), [0x08, 1, 1]);
}

proptest! {
    #[test]
    fn hostile_commands_do_no_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        steps in port_steps(&I8042::PORTS),
    ) {
        let commanded = || {
            let mut i8042 = enabled();
            i8042.mouse(&bytes);
            i8042
        };
        check(commanded, &steps);
    }
}
