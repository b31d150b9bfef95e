//! The 8042 and its keyboard against IBM's technical references.

use std::sync::Mutex;

use proptest::prelude::*;
use trivium_chipset::ManualClock;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

const MS: u64 = 1_000_000;

/// Writes down what the machine is asked for.
#[derive(Default)]
struct Wishes(Mutex<Vec<String>>);

impl A20Sink for Wishes {
    fn set_a20(&self, source: A20Source, open: bool) {
        self.0.lock().unwrap().push(format!("{source:?} A20 {open}"));
    }
}

impl PowerSink for Wishes {
    fn power_off(&self) {
        self.0.lock().unwrap().push("off".into());
    }
    fn reset(&self, kind: ResetKind) {
        self.0.lock().unwrap().push(format!("reset {kind:?}"));
    }
}

pub(super) fn fixture() -> Fixture<I8042> {
    Fixture::new(|clock, irqs| {
        let wishes = Arc::new(Wishes::default());
        I8042::new(clock.clone(), irqs.line(1), irqs.line(12), wishes.clone(), wishes)
    })
    .with_poke(crate::testing::poke_i8042)
}

impl Fixture<I8042> {
    fn press(&mut self, key: Key) {
        self.device.key_event(key, true);
    }
    fn release(&mut self, key: Key) {
        self.device.key_event(key, false);
    }
    fn tap(&mut self, key: Key) {
        self.press(key);
        self.release(key);
    }
    pub(super) fn command(&mut self, command: u8, data: Option<u8>) {
        self.write(0x64, command);
        if let Some(data) = data {
            self.write(0x60, data);
        }
    }
    /// Everything that the output buffer gives.
    pub(super) fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.read(0x64) & 1 != 0 {
            bytes.push(self.read(0x60));
        }
        bytes
    }
    pub(super) fn ask(&mut self, command: u8) -> Vec<u8> {
        self.command(command, None);
        self.output()
    }
    pub(super) fn keyboard(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut answers = Vec::new();
        for &byte in bytes {
            self.write(0x60, byte);
            answers.extend(self.output());
        }
        answers
    }
}

#[test]
fn self_test_and_interface_tests_pass() {
    let mut i8042 = fixture();
    assert_eq!(i8042.read(0x64), 0x10);
    assert_eq!(i8042.ask(0xaa), [0x55]);
    assert_eq!(i8042.read(0x64), 0x1c, "system flag, last write was a command");
    assert_eq!(i8042.ask(0xab), [0x00]);
    assert_eq!(i8042.ask(0xa9), [0x00]);
    assert_eq!(i8042.ask(0xa4), [0xf1]);
}

#[test]
fn the_configuration_byte_follows_the_enable_commands() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x47));
    assert_eq!(i8042.ask(0x20), [0x47]);
    for (command, config) in [(0xad, 0x57), (0xa7, 0x77), (0xae, 0x67), (0xa8, 0x47)] {
        i8042.command(command, None);
        assert_eq!(i8042.ask(0x20), [config], "command {command:02x}h");
    }
    i8042.command(0x65, Some(0x5a));
    assert_eq!(i8042.ask(0x25), [0x5a], "the controller's memory");
}

#[test]
fn keys_are_translated_and_interrupt() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x45));
    i8042.press(Key::A);
    assert!(i8042.irqs.level(1));
    i8042.release(Key::A);
    i8042.tap(Key::Up);
    assert_eq!(i8042.output(), [0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8]);
    assert_eq!(i8042.irqs.rises(1), 6, "an edge for each byte");
    assert!(!i8042.irqs.level(1));
    assert_eq!(i8042.read(0x60), 0xc8, "an empty buffer gives its last byte");
}

#[test]
fn without_translation_the_guest_sees_set_2() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x04));
    i8042.tap(Key::Up);
    assert_eq!(i8042.output(), [0xe0, 0x75, 0xe0, 0xf0, 0x75]);
    assert_eq!(i8042.irqs.rises(1), 0);
}

#[test]
fn a_disabled_keyboard_keeps_its_codes_until_it_is_enabled() {
    let mut i8042 = fixture();
    i8042.command(0xad, None);
    i8042.press(Key::A);
    assert_eq!(i8042.output(), []);
    i8042.command(0xae, None);
    assert_eq!(i8042.output(), [0x1e]);
}

#[test]
fn an_overrun_code_replaces_the_seventeenth_byte() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x10));
    for key in &Key::ALL[Key::A as usize..][..9] {
        i8042.press(*key);
    }
    for key in &Key::ALL[Key::A as usize..][..9] {
        i8042.release(*key);
    }
    i8042.command(0xae, None);
    let mut expected = vec![0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b];
    expected.extend([0xf0, 0x1c, 0xf0, 0x1b, 0xf0, 0x23]);
    // One more byte has room, a whole break code has not.
    expected.push(0x00);
    assert_eq!(i8042.output(), expected);
}

#[test]
fn a_held_key_repeats_at_the_rate_and_after_the_delay_of_its_parameter() {
    // Rates by bits 4 to 0, in milliseconds: (8 + A) x 2^B x 4.17.
    for (parameter, delay, period) in
        [(0x00, 250, 33_360), (0x2b, 500, 91_740), (0x5f, 750, 500_400), (0x7f, 1000, 500_400)]
    {
        let mut i8042 = fixture();
        i8042.keyboard(&[0xf3, parameter]);
        i8042.press(Key::A);
        assert_eq!(i8042.output(), [0x1e]);
        i8042.advance(delay * MS - MS);
        assert_eq!(i8042.output(), [], "{parameter:02x}h");
        i8042.advance(MS);
        assert_eq!(i8042.output(), [0x1e], "{parameter:02x}h");
        for _ in 0..3 {
            i8042.advance(period * 1000 - MS);
            assert_eq!(i8042.output(), [], "{parameter:02x}h");
            i8042.advance(MS);
            assert_eq!(i8042.output(), [0x1e], "{parameter:02x}h");
        }
        i8042.release(Key::A);
        assert_eq!((i8042.output(), i8042.device.deadline()), (vec![0x9e], None));
    }
}

#[test]
fn only_the_last_key_repeats_and_its_release_ends_that() {
    let mut i8042 = fixture();
    i8042.press(Key::A);
    i8042.press(Key::S);
    i8042.press(Key::S);
    assert_eq!(i8042.output(), [0x1e, 0x1f], "what is down cannot be pressed");
    i8042.release(Key::A);
    i8042.advance(500 * MS);
    assert_eq!(i8042.output(), [0x9e, 0x1f]);
    i8042.press(Key::Pause);
    i8042.output();
    assert_eq!(i8042.device.deadline(), None, "Pause does not repeat");
}

#[test]
fn while_the_keyboard_may_not_send_only_the_first_code_is_kept() {
    let mut i8042 = fixture();
    i8042.command(0xad, None);
    i8042.press(Key::A);
    i8042.advance(5_000 * MS);
    i8042.command(0xae, None);
    assert_eq!(i8042.output(), [0x1e]);
}

#[test]
fn set_3_keys_have_modes_of_their_own() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x00));
    assert_eq!(i8042.keyboard(&[0xf0, 0x03, 0xf0, 0x00]), [0xfa, 0xfa, 0xfa, 0xfa, 0x03]);
    let strokes = |i8042: &mut Fixture<I8042>| {
        [Key::A, Key::ShiftLeft, Key::F1].map(|key| {
            i8042.press(key);
            i8042.advance(550 * MS);
            i8042.release(key);
            let codes = i8042.output();
            (codes.iter().filter(|code| **code != 0xf0).count(), codes.contains(&0xf0))
        })
    };
    // A is typematic, Shift makes and breaks, F1 makes only.
    assert_eq!(strokes(&mut i8042), [(2, false), (2, true), (1, false)]);
    assert_eq!(i8042.keyboard(&[0xf8]), [0xfa]);
    assert_eq!(strokes(&mut i8042), [(2, true); 3], "all make and break");
    assert_eq!(i8042.keyboard(&[0xf9]), [0xfa]);
    assert_eq!(strokes(&mut i8042), [(1, false); 3], "all make only");
    assert_eq!(i8042.keyboard(&[0xfc, 0x1c, 0x07, 0xf4]), [0xfa; 4]);
    assert_eq!(strokes(&mut i8042), [(2, true), (1, false), (2, true)], "A and F1");
    assert_eq!(i8042.keyboard(&[0xfd, 0x1c, 0xf4, 0xfb, 0x07, 0xf4]), [0xfa; 6]);
    assert_eq!(strokes(&mut i8042)[0], (1, false));
    for (command, breaks) in [(0xf7, false), (0xfa, true)] {
        assert_eq!(i8042.keyboard(&[command]), [0xfa]);
        i8042.press(Key::F1);
        assert_eq!(i8042.output(), [0x07]);
        i8042.advance(500 * MS);
        assert_eq!(i8042.output(), [0x07], "typematic");
        i8042.release(Key::F1);
        assert_eq!(!i8042.output().is_empty(), breaks);
    }
    assert_eq!(i8042.keyboard(&[0xf6, 0xf0, 0x00]), [0xfa, 0xfa, 0xfa, 0x02], "the default");
}

#[test]
fn num_lock_is_known_by_its_led() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x00));
    i8042.keyboard(&[0xed, 0x02]);
    i8042.tap(Key::Delete);
    assert_eq!(i8042.output(), [0xe0, 0x12, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xe0, 0xf0, 0x12]);
}

#[test]
fn keyboard_commands_are_answered() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x00));
    for (bytes, answers) in [
        (&[0xff][..], &[0xfa, 0xaa][..]),
        (&[0xee], &[0xee]),
        (&[0xf2], &[0xfa, 0xab, 0x83]),
        (&[0xed, 0x02], &[0xfa, 0xfa]),
        (&[0xf3, 0x20], &[0xfa, 0xfa]),
        (&[0xf0, 0x00], &[0xfa, 0xfa, 0x02]),
        (&[0xf0, 0x04], &[0xfa, 0xfe]),
        (&[0xf6], &[0xfa]),
        (&[0xf4], &[0xfa]),
        (&[0x77], &[0xfe]),
        (&[0xfe], &[0xfe]),
        (&[0xed, 0xf4], &[0xfa, 0xfa]),
    ] {
        assert_eq!(i8042.keyboard(bytes), answers, "{bytes:02x?}");
    }
    assert_eq!(i8042.device.leds(), 2);
}

#[test]
fn the_identity_is_translated_like_everything() {
    let mut i8042 = fixture();
    assert_eq!(i8042.keyboard(&[0xf2]), [0xfa, 0xab, 0x41]);
}

#[test]
fn a_disabled_scanner_sends_no_keys() {
    let mut i8042 = fixture();
    i8042.keyboard(&[0xf5]);
    i8042.tap(Key::A);
    assert_eq!(i8042.output(), []);
    i8042.keyboard(&[0xf4]);
    i8042.press(Key::A);
    assert_eq!(i8042.output(), [0x1e]);
}

#[test]
fn scan_code_set_1_comes_from_the_keyboard_itself() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x00));
    assert_eq!(i8042.keyboard(&[0xf0, 0x01]), [0xfa, 0xfa]);
    i8042.tap(Key::Up);
    assert_eq!(i8042.output(), [0xe0, 0x48, 0xe0, 0xc8]);
}

#[test]
fn data_for_the_keyboard_enables_its_clock() {
    let mut i8042 = fixture();
    i8042.command(0xad, None);
    assert_eq!(i8042.keyboard(&[0xee]), [0xee]);
}

#[test]
fn an_absent_mouse_gives_a_timeout() {
    let mut i8042 = fixture();
    let wishes = Arc::new(Wishes::default());
    let lines = (i8042.irqs.line(1), i8042.irqs.line(12));
    i8042.device =
        I8042::new(i8042.clock.clone(), lines.0, lines.1, wishes.clone(), wishes).without_mouse();
    i8042.command(0x60, Some(0x02));
    i8042.command(0xd4, Some(0xff));
    assert!(i8042.irqs.level(12));
    assert_eq!(i8042.read(0x64) & 0xe1, 0x61, "OBF, AUX OBF and time-out");
    assert_eq!(i8042.output(), [0xfe]);
    assert!(!i8042.irqs.level(12));
}

#[test]
fn buffers_can_be_written_by_command() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x03));
    i8042.command(0xd2, Some(0x1c));
    assert_eq!((i8042.read(0x64) & 0x21, i8042.irqs.level(1)), (0x01, true));
    assert_eq!(i8042.output(), [0x1c], "not translated");
    i8042.command(0xd3, Some(0x5a));
    assert_eq!((i8042.read(0x64) & 0x21, i8042.irqs.level(12)), (0x21, true));
    assert_eq!(i8042.output(), [0x5a]);
}

#[test]
fn the_output_port_has_a20_and_the_reset() {
    let wishes = Arc::new(Wishes::default());
    let line = IrqLine::unconnected;
    let mut i8042 = I8042::new(ManualClock::new(), line(), line(), wishes.clone(), wishes.clone());
    assert!(i8042.wants_a20());
    for (port, value) in [
        (0x64, 0xd1),
        (0x60, 0xdd),
        (0x64, 0xd1),
        (0x60, 0xdf),
        (0x64, 0xdd),
        (0x64, 0xdf),
        (0x64, 0xff),
        (0x64, 0xfe),
        (0x64, 0xd1),
        (0x60, 0xde),
    ] {
        i8042.write(port, AccessWidth::Byte, value).unwrap();
    }
    let a20 = |open| format!("KeyboardController A20 {open}");
    let reset = || "reset Soft".to_string();
    assert_eq!(
        *wishes.0.lock().unwrap(),
        [a20(false), a20(true), a20(false), a20(true), reset(), reset()]
    );
}

#[test]
fn command_d0h_reads_the_output_port() {
    let mut i8042 = fixture();
    assert_eq!(i8042.ask(0xd0), [0xcf]);
    i8042.command(0xdd, None);
    assert_eq!(i8042.ask(0xd0), [0xcd]);
}

#[test]
fn the_password_holds_keys_and_mouse_back_until_it_is_typed() {
    let mut i8042 = fixture();
    assert_eq!(i8042.ask(0xa4), [0xf1], "none is installed");
    i8042.command(0xa6, None);
    i8042.tap(Key::A);
    assert_eq!(i8042.output(), [0x1e, 0x9e], "nothing to enable");
    i8042.command(0xa5, None);
    for code in [0x1e, 0x30, 0x00] {
        i8042.write(0x60, code);
    }
    assert_eq!(i8042.ask(0xa4), [0xfa]);
    for (command, data) in [(0x73, 0x77), (0x74, 0x66), (0x76, 0x2a)] {
        i8042.command(command, Some(data));
    }
    assert_eq!(i8042.ask(0xa6), [0x77], "security on");
    i8042.command(0xd4, Some(0xf2));
    for key in [Key::B, Key::A, Key::ShiftLeft] {
        i8042.tap(key);
    }
    assert_eq!(i8042.output(), []);
    i8042.press(Key::B);
    assert_eq!(i8042.output(), [0x66], "security off");
    i8042.tap(Key::C);
    assert_eq!(i8042.output(), [0x2e, 0xae]);
}

#[test]
fn the_input_port_can_be_polled_in_the_status_register() {
    let mut i8042 = fixture();
    assert_eq!(i8042.ask(0xc0), [0xb0]);
    i8042.command(0xc2, None);
    assert_eq!(i8042.read(0x64) & 0xf0, 0xb0, "bits 7 to 4");
    i8042.command(0xc1, None);
    assert_eq!(i8042.read(0x64) & 0xf0, 0x00, "bits 3 to 0");
    i8042.command(0xae, None);
    assert_eq!(i8042.read(0x64) & 0xf0, 0x10);
}

#[test]
fn test_inputs_are_the_clock_lines() {
    let mut i8042 = fixture();
    for (command, inputs) in [(0xae, 0x03), (0xad, 0x02), (0xa7, 0x00), (0xae, 0x01)] {
        i8042.command(command, None);
        assert_eq!(i8042.ask(0xe0), [inputs], "after {command:02x}h");
    }
}

#[test]
fn the_diagnostic_dump_is_in_scan_codes() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x45));
    i8042.command(0x61, Some(0xaf));
    let dump = i8042.ask(0xac);
    assert_eq!(dump.len(), 57);
    assert_eq!(dump[..6], [0x05, 0x06, 0x39, 0x1e, 0x21, 0x39], "45 AF");
    assert_eq!(dump[48..51], [0x30, 0x0b, 0x39], "the input port, B0");
}

#[test]
fn reset_opens_a20_again() {
    let mut i8042 = fixture();
    i8042.command(0xdd, None);
    i8042.device.reset();
    assert!(i8042.device.wants_a20());
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(steps in port_steps(&I8042::PORTS)) {
        check(fixture, &steps);
    }
}
