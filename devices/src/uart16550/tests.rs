//! The 16550A against the PC16550D data sheet.

use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

const RBR: u16 = 0x3f8;
const THR: u16 = 0x3f8;
const IER: u16 = 0x3f9;
const IIR: u16 = 0x3fa;
const FCR: u16 = 0x3fa;
const LCR: u16 = 0x3fb;
const MCR: u16 = 0x3fc;
const LSR: u16 = 0x3fd;
const MSR: u16 = 0x3fe;
const SCR: u16 = 0x3ff;

/// A far end that keeps what it gets.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<(Vec<u8>, Vec<bool>)>>);

impl SerialBackend for Paper {
    fn transmit(&mut self, byte: u8) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(byte);
    }
    fn set_break(&mut self, on: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(on);
    }
}

fn fixture() -> Fixture<Uart16550> {
    Fixture::new(|clock, irqs| {
        Uart16550::new(clock.clone(), irqs.line(4), Box::new(Paper::default()))
    })
    .with_poke(|uart, what| match what {
        0xff => uart.receive_break(),
        0xf0..=0xfe => uart.set_modem_lines(ModemLines::from_bits_truncate(what << 4)),
        _ => {
            let bytes: Vec<u8> = (0..what % 20).collect();
            let taken = uart.receive(&bytes);
            assert!(taken <= 16);
        }
    })
}

/// 115,200 baud, 8N1, FIFOs with a trigger level of 4, OUT2 on.
fn set_up() -> Fixture<Uart16550> {
    let mut uart = fixture();
    uart.write(LCR, 0x83);
    uart.write(0x3f8, 1);
    uart.write(0x3f9, 0);
    uart.write(LCR, 0x03);
    uart.write(FCR, 0x41);
    uart.write(MCR, 0x0b);
    uart
}

#[test]
fn registers_after_reset() {
    let mut uart = fixture();
    for (port, value) in [(IER, 0), (IIR, 0x01), (LCR, 0), (MCR, 0), (LSR, 0x60), (MSR, 0xb0)] {
        assert_eq!(uart.read(port), value, "{port:03x}h");
    }
}

#[test]
fn reserved_bits_read_as_zero_and_scratch_keeps_all() {
    let mut uart = fixture();
    uart.write(IER, 0xff);
    uart.write(MCR, 0xff);
    uart.write(SCR, 0xa5);
    assert_eq!((uart.read(IER), uart.read(MCR), uart.read(SCR)), (0x0f, 0x1f, 0xa5));
}

#[test]
fn dlab_switches_the_first_two_registers_to_the_divisor() {
    let mut uart = fixture();
    uart.write(LCR, 0x80);
    uart.write(0x3f8, 0x34);
    uart.write(0x3f9, 0x12);
    assert_eq!((uart.read(0x3f8), uart.read(0x3f9)), (0x34, 0x12));
    uart.write(LCR, 0x03);
    assert_eq!((uart.read(0x3f8), uart.read(0x3f9)), (0, 0));
}

#[test]
fn characters_leave_at_once_and_in_order() {
    let paper = Paper::default();
    let clock = trivium_chipset::ManualClock::new();
    let mut uart = Uart16550::new(clock, IrqLine::unconnected(), Box::new(paper.clone()));
    for byte in *b"Hello" {
        uart.write_register(0, byte);
        assert_eq!(uart.read_register(5) & 0x60, 0x60);
    }
    uart.write_register(3, 0x43);
    uart.write_register(3, 0x03);
    assert_eq!(*paper.0.lock().unwrap(), (b"Hello".to_vec(), vec![true, false]));
}

#[test]
fn the_thr_interrupt_is_cleared_by_iir_or_by_thr_and_comes_again() {
    let mut uart = set_up();
    uart.write(IER, 0x02);
    assert!(uart.irqs.level(4), "enabled while THR is empty");
    assert_eq!(uart.read(IIR), 0xc2);
    assert!(!uart.irqs.level(4));
    assert_eq!(uart.read(IIR), 0xc1);
    uart.write(THR, b'x');
    assert!(uart.irqs.level(4));
    uart.write(THR, b'y');
    assert_eq!(uart.irqs.rises(4), 3, "INTR falls and rises between the characters");
}

#[test]
fn the_received_data_interrupt_follows_the_trigger_level() {
    for (fcr, level) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut uart = set_up();
        uart.write(FCR, fcr);
        uart.write(IER, 0x01);
        for n in 1..=16u8 {
            assert_eq!(uart.device.receive(&[n]), 1);
            assert_eq!(uart.irqs.level(4), n >= level, "{n} of {level}");
        }
        assert_eq!(uart.device.receive(&[17]), 0);
        assert!(!uart.device.wants_input());
        assert_eq!(uart.read(IIR), 0xc4);
        for n in 1..=16u8 {
            assert_eq!(uart.read(LSR), 0x61);
            assert_eq!(uart.read(RBR), n);
            assert_eq!(uart.irqs.level(4), 16 - n >= level, "{n} of {level}");
        }
        assert_eq!(uart.read(LSR), 0x60);
    }
}

#[test]
fn the_character_timeout_comes_after_four_characters_time() {
    let mut uart = set_up();
    uart.write(IER, 0x01);
    uart.device.receive(b"ab");
    // 4 characters of 10 bits at 115,200 baud: 347.2 µs.
    uart.advance(347_000);
    assert!(!uart.irqs.level(4));
    uart.advance(1_000);
    assert_eq!(uart.read(IIR), 0xcc);
    assert_eq!(uart.read(RBR), b'a');
    assert_eq!(uart.read(IIR), 0xc1, "reading RBR clears it and starts it anew");
    uart.advance(348_000);
    assert_eq!(uart.read(IIR), 0xcc);
    assert_eq!(uart.read(RBR), b'b');
    uart.advance(1_000_000);
    assert!(!uart.irqs.level(4));
}

#[test]
fn interrupts_have_the_priorities_of_table_iv() {
    let mut uart = set_up();
    uart.write(IER, 0x0f);
    uart.device.receive(b"abcd");
    uart.device.set_modem_lines(ModemLines::DSR | ModemLines::DCD);
    uart.write(FCR, 0x01);
    uart.device.receive_break();
    for _ in 0..4 {
        uart.read(RBR);
    }
    uart.device.receive(b"e");
    assert_eq!(uart.read(IIR), 0xc6);
    assert_eq!(uart.read(LSR), 0xf1, "break, and an error in the FIFO");
    assert_eq!(uart.read(IIR), 0xc4);
    uart.read(RBR);
    uart.read(RBR);
    assert_eq!(uart.read(IIR), 0xc2);
    assert_eq!(uart.read(IIR), 0xc0);
    assert_eq!(uart.read(MSR), 0xa1);
    assert_eq!(uart.read(IIR), 0xc1);
}

#[test]
fn a_breaks_error_shows_when_its_character_comes_to_the_top() {
    let mut uart = set_up();
    uart.device.receive(b"a");
    uart.device.receive_break();
    assert_eq!(uart.read(LSR), 0xe1, "an error somewhere in the FIFO");
    uart.read(RBR);
    assert_eq!(uart.read(LSR), 0xf1);
    assert_eq!(uart.read(LSR), 0x61, "reading LSR clears it");
    assert_eq!(uart.read(RBR), 0);
}

#[test]
fn overruns_lose_the_new_character_with_fifos_and_the_old_one_without() {
    for (fcr, first) in [(0x01, 0), (0x00, 16)] {
        let mut uart = set_up();
        uart.write(FCR, fcr);
        uart.write(MCR, 0x10);
        for n in 0..17 {
            uart.write(THR, n);
        }
        assert_eq!(uart.read(LSR) & 0x03, 0x03);
        assert_eq!(uart.read(LSR) & 0x02, 0);
        assert_eq!(uart.read(RBR), first);
    }
}

#[test]
fn loopback_connects_outputs_to_inputs() {
    let mut uart = set_up();
    uart.read(MSR);
    for (mcr, msr) in [(0x1a, 0x90), (0x11, 0x20), (0x14, 0x40), (0x12, 0x10), (0x18, 0x80)] {
        uart.write(MCR, mcr);
        assert_eq!(uart.read(MSR) & 0xf0, msr, "MCR {mcr:02x}h");
    }
    uart.write(THR, 0x5a);
    assert_eq!((uart.read(LSR), uart.read(RBR)), (0x61, 0x5a));
    assert!(!uart.device.wants_input(), "the line is cut off");
    assert_eq!(uart.device.receive(b"x"), 0);
}

#[test]
fn teri_is_the_trailing_edge_of_ri() {
    let mut uart = set_up();
    let idle = ModemLines::CTS | ModemLines::DSR | ModemLines::DCD;
    uart.device.set_modem_lines(idle | ModemLines::RI);
    assert_eq!(uart.read(MSR), 0xf0);
    uart.device.set_modem_lines(idle);
    assert_eq!(uart.read(MSR), 0xb4);
    assert_eq!(uart.read(MSR), 0xb0);
}

#[test]
fn out2_connects_the_interrupt() {
    let mut uart = set_up();
    uart.write(MCR, 0x03);
    uart.write(IER, 0x02);
    assert!(!uart.irqs.level(4));
    uart.write(MCR, 0x0b);
    assert!(uart.irqs.level(4));
}

#[test]
fn changing_fcr_bit_0_empties_the_fifo() {
    let mut uart = set_up();
    uart.device.receive(b"abc");
    uart.write(FCR, 0x00);
    assert_eq!(uart.read(LSR), 0x60);
    assert_eq!(uart.read(IIR), 0x01);
    uart.device.receive(b"a");
    uart.write(FCR, 0x06);
    assert_eq!(uart.read(LSR), 0x61, "without bit 0 the other bits do nothing");
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in port_steps(&[0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff]),
    ) {
        check(set_up, &steps);
    }
}
