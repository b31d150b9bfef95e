//! The 8042 and its keyboard against IBM's technical references.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

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

fn fixture() -> Fixture<I8042> {
    Fixture::new(|_, irqs| {
        let wishes = Arc::new(Wishes::default());
        I8042::new(irqs.line(1), irqs.line(12), wishes.clone(), wishes)
    })
    .with_poke(|i8042, what| match what {
        0 => i8042.key(&[]),
        1 => i8042.key(&[0xf0]),
        2 => i8042.key(&[0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77]),
        3..=20 => i8042.key(&[0xe0, 0xf0, what]),
        _ => i8042.key(&[what]),
    })
}

impl Fixture<I8042> {
    fn command(&mut self, command: u8, data: Option<u8>) {
        self.write(0x64, command);
        if let Some(data) = data {
            self.write(0x60, data);
        }
    }
    /// Everything that the output buffer gives.
    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.read(0x64) & 1 != 0 {
            bytes.push(self.read(0x60));
        }
        bytes
    }
    fn ask(&mut self, command: u8) -> Vec<u8> {
        self.command(command, None);
        self.output()
    }
    fn keyboard(&mut self, bytes: &[u8]) -> Vec<u8> {
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
    i8042.device.key(&[0x1c]);
    assert!(i8042.irqs.level(1));
    i8042.device.key(&[0xf0, 0x1c]);
    i8042.device.key(&[0xe0, 0x75]);
    i8042.device.key(&[0xe0, 0xf0, 0x75]);
    assert_eq!(i8042.output(), [0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8]);
    assert_eq!(i8042.irqs.rises(1), 6, "an edge for each byte");
    assert!(!i8042.irqs.level(1));
    assert_eq!(i8042.read(0x60), 0xc8, "an empty buffer gives its last byte");
}

#[test]
fn without_translation_the_guest_sees_set_2() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x04));
    i8042.device.key(&[0xe0, 0xf0, 0x75]);
    assert_eq!(i8042.output(), [0xe0, 0xf0, 0x75]);
    assert_eq!(i8042.irqs.rises(1), 0);
}

#[test]
fn a_disabled_keyboard_keeps_its_codes_until_it_is_enabled() {
    let mut i8042 = fixture();
    i8042.command(0xad, None);
    i8042.device.key(&[0x1c]);
    assert_eq!(i8042.output(), []);
    i8042.command(0xae, None);
    assert_eq!(i8042.output(), [0x1e]);
}

#[test]
fn a_full_keyboard_buffer_ends_in_an_overrun_code() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x10));
    for _ in 0..20 {
        i8042.device.key(&[0x1c]);
    }
    i8042.command(0xae, None);
    let mut expected = vec![0x1c; 15];
    expected.push(0x00);
    assert_eq!(i8042.output(), expected);
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
        (&[0xf0, 0x03], &[0xfa, 0xfe]),
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
    i8042.device.key(&[0x1c]);
    assert_eq!(i8042.output(), []);
    i8042.keyboard(&[0xf4]);
    i8042.device.key(&[0x1c]);
    assert_eq!(i8042.output(), [0x1e]);
}

#[test]
fn scan_code_set_1_comes_from_the_keyboard_itself() {
    let mut i8042 = fixture();
    i8042.command(0x60, Some(0x00));
    assert_eq!(i8042.keyboard(&[0xf0, 0x01]), [0xfa, 0xfa]);
    i8042.device.key(&[0xe0, 0xf0, 0x75]);
    assert_eq!(i8042.output(), [0xe0, 0xc8]);
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
    let mut i8042 = I8042::new(line(), line(), wishes.clone(), wishes.clone());
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
