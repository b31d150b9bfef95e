//! The parallel port against the IBM PC's Technical Reference.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

const PIN: u32 = 7;

#[derive(Default, Clone)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl ParallelBackend for Paper {
    fn print(&mut self, byte: u8) {
        self.0.lock().unwrap().push(byte);
    }
}

/// A port, with what its printer prints.
fn fixture() -> (Fixture<ParallelPort>, Paper) {
    let mut port = blank();
    let paper = Paper::default();
    port.device.printer = Box::new(paper.clone());
    (port, paper)
}

fn blank() -> Fixture<ParallelPort> {
    Fixture::new(|_, irqs| ParallelPort::new(0x378, irqs.line(PIN), Box::new(Paper::default())))
}

fn strobe(port: &mut Fixture<ParallelPort>, byte: u8, control: u8) {
    port.write(0x378, byte);
    port.write(0x37a, control | 0x01);
    port.write(0x37a, control);
}

#[test]
fn data_and_control_read_back() {
    let (mut port, _) = fixture();
    for byte in [0x00, 0x55, 0xaa, 0xff] {
        port.write(0x378, byte);
        assert_eq!(port.read(0x378), byte);
    }
    for control in 0..0x20 {
        port.write(0x37a, control);
        assert_eq!(port.read(0x37a) & 0x1f, control);
    }
}

#[test]
fn the_status_of_a_printer_that_waits() {
    let (mut port, _) = fixture();
    port.write(0x37a, 0x0c);
    // Not busy, no acknowledgement, no paper end, on line, no error.
    assert_eq!(port.read(0x379) & 0xf8, 0xd8);
    port.write(0x379, 0);
    assert_eq!(port.read(0x379) & 0xf8, 0xd8, "status is read only");
}

#[test]
fn init_low_initializes_the_printer_which_is_busy_meanwhile() {
    let (mut port, paper) = fixture();
    port.write(0x37a, 0x08);
    assert_eq!(port.read(0x379) & 0x80, 0x00);
    strobe(&mut port, b'a', 0x08);
    port.write(0x37a, 0x0c);
    assert_eq!(port.read(0x379) & 0x80, 0x80);
    assert!(paper.0.lock().unwrap().is_empty());
}

#[test]
fn a_strobe_prints_the_byte_once() {
    let (mut port, paper) = fixture();
    for byte in *b"hi" {
        strobe(&mut port, byte, 0x0c);
    }
    port.write(0x37a, 0x0d);
    port.write(0x378, b'!');
    port.write(0x37a, 0x0d);
    assert_eq!(*paper.0.lock().unwrap(), *b"hii");
}

#[test]
fn data_entry_is_possible_only_when_slct_in_is_low() {
    let (mut port, paper) = fixture();
    strobe(&mut port, b'x', 0x04);
    assert!(paper.0.lock().unwrap().is_empty());
}

#[test]
fn the_end_of_ack_interrupts_if_enabled() {
    let (mut port, _) = fixture();
    strobe(&mut port, b'x', 0x0c);
    assert_eq!(port.irqs.rises(PIN), 0);
    port.write(0x37a, 0x1c);
    assert_eq!(port.irqs.rises(PIN), 0, "enabling alone does not interrupt");
    strobe(&mut port, b'x', 0x1c);
    strobe(&mut port, b'y', 0x1c);
    assert_eq!(port.irqs.rises(PIN), 2);
    port.write(0x37a, 0x0c);
    assert!(!port.irqs.level(PIN));
}

/// The tests of Linux's parport_pc for a bidirectional port, and for the time-out bit of an EPP.
#[test]
fn there_are_no_ps2_epp_or_ecp_modes() {
    let (mut port, _) = fixture();
    port.write(0x37a, 0x2c);
    for byte in [0x55, 0xaa] {
        port.write(0x378, byte);
        assert_eq!(port.read(0x378), byte, "data cannot be turned round");
    }
    port.write(0x379, 0x01);
    port.write(0x379, 0xfe);
    assert_eq!(port.read(0x379) & 0x01, 0x01, "a time-out that cannot be cleared");
    for outside in [0x377, 0x37b, 0x77a] {
        let read = port.device.read(outside, AccessWidth::Byte);
        assert_eq!(read, Err(BusError::NoRegister));
    }
}

#[test]
fn reset_takes_everything_back() {
    let (mut port, _) = fixture();
    strobe(&mut port, b'x', 0x1c);
    port.device.reset();
    assert!(!port.irqs.level(PIN));
    assert_eq!((port.read(0x378), port.read(0x37a)), (0, 0xe0));
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in port_steps(&[0x377, 0x378, 0x379, 0x37a, 0x37b]),
    ) {
        check(blank, &steps);
    }
}
