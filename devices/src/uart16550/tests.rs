//! The 16550A against the PC16550D data sheet.

use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;
use trivium_chipset::NANOS_PER_SECOND;

use super::*;
use crate::test_support::{Fixture, check, port_steps};

pub(super) const RBR: u16 = 0x3f8;
pub(super) const THR: u16 = 0x3f8;
pub(super) const IER: u16 = 0x3f9;
pub(super) const IIR: u16 = 0x3fa;
pub(super) const FCR: u16 = 0x3fa;
pub(super) const LCR: u16 = 0x3fb;
pub(super) const MCR: u16 = 0x3fc;
pub(super) const LSR: u16 = 0x3fd;
const MSR: u16 = 0x3fe;
const SCR: u16 = 0x3ff;

/// A far end that keeps what it gets.
#[derive(Clone, Default)]
pub(super) struct Paper(pub(super) Arc<Mutex<(Vec<u8>, Vec<bool>)>>);

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
    .with_poke(poke)
}

/// A break, other modem lines, or characters.
fn poke(uart: &mut Uart16550, what: u8) {
    match what {
        0xff => uart.receive_break(),
        0xf0..=0xfe => uart.set_modem_lines(ModemLines::from_bits_truncate(what << 4)),
        _ => {
            let bytes: Vec<u8> = (0..what % 20).collect();
            let taken = uart.receive(&bytes);
            assert!(taken <= 16);
        }
    }
}

/// The same as [`set_up`], and characters take their time: 86.8 µs each.
pub(super) fn paced() -> Fixture<Uart16550> {
    let mut uart = Fixture::new(|clock, irqs| {
        Uart16550::new(clock.clone(), irqs.line(4), Box::new(Paper::default())).with_baud_timing()
    })
    .with_poke(poke);
    program(&mut uart);
    uart
}

/// 115,200 baud, 8N1, FIFOs with a trigger level of 4, OUT2 on.
fn set_up() -> Fixture<Uart16550> {
    let mut uart = fixture();
    program(&mut uart);
    uart
}

fn program(uart: &mut Fixture<Uart16550>) {
    uart.write(LCR, 0x83);
    uart.write(0x3f8, 1);
    uart.write(0x3f9, 0);
    uart.write(LCR, 0x03);
    uart.write(FCR, 0x41);
    uart.write(MCR, 0x0b);
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

#[test]
fn characters_have_as_many_bits_as_lcr_says() {
    for (lcr, mask) in [(0x00, 0x1f), (0x01, 0x3f), (0x02, 0x7f), (0x03, 0xff)] {
        let (mut uart, mut loopback) = (paced(), set_up());
        uart.write(LCR, lcr);
        uart.device.receive(&[0xff]);
        assert_eq!(uart.read(RBR), mask);
        loopback.write(LCR, lcr);
        loopback.write(MCR, 0x10);
        loopback.write(THR, 0xff);
        assert_eq!(loopback.read(RBR), mask);
    }
}

#[test]
fn break_control_has_no_effect_in_loopback() {
    let mut uart = set_up();
    uart.write(MCR, 0x10);
    uart.write(LCR, 0x43);
    assert_eq!(uart.read(LSR), 0x60);
}

#[test]
fn all_interrupts_work_in_loopback_but_the_pc_does_not_see_them() {
    let mut uart = set_up();
    uart.write(FCR, 0x00);
    uart.write(MCR, 0x18);
    uart.read(MSR);
    uart.write(IER, 0x0f);
    assert_eq!(uart.read(IIR), 0x02);
    uart.write(THR, b'a');
    assert_eq!(uart.read(IIR), 0x04);
    uart.write(THR, b'b');
    assert_eq!(uart.read(IIR), 0x06, "overrun");
    assert_eq!(uart.read(LSR) & 0x03, 0x03);
    uart.read(RBR);
    assert_eq!((uart.read(IIR), uart.read(IIR)), (0x02, 0x01));
    uart.write(MCR, 0x1a);
    assert_eq!(uart.read(IIR), 0x00, "RTS is looped back to CTS");
    assert_eq!(uart.read(MSR), 0x91);
    assert!(!uart.irqs.level(4), "OUT2 is forced inactive");
}

#[test]
fn iir_says_that_fifos_are_enabled_and_the_dma_mode_changes_nothing() {
    let mut uart = set_up();
    for (fcr, iir) in [(0x00, 0x01), (0x01, 0xc1), (0x09, 0xc1), (0x08, 0x01)] {
        uart.write(FCR, fcr);
        assert_eq!(uart.read(IIR), iir, "FCR {fcr:02x}h");
    }
}

#[test]
fn a_fifo_reset_clears_one_fifo_and_itself() {
    let mut uart = set_up();
    uart.device.receive(b"abc");
    uart.write(FCR, 0x05);
    assert_eq!(uart.read(LSR), 0x61, "the transmitter's was reset");
    uart.write(FCR, 0x03);
    assert_eq!(uart.read(LSR), 0x60);
    uart.device.receive(b"d");
    assert_eq!(uart.read(LSR), 0x61);
}

#[test]
fn without_fifos_there_is_no_character_timeout() {
    let mut uart = set_up();
    uart.write(FCR, 0x00);
    uart.write(IER, 0x01);
    uart.device.receive(b"a");
    assert_eq!(uart.read(IIR), 0x04, "one character is enough");
    uart.advance(NANOS_PER_SECOND);
    assert_eq!(uart.read(IIR), 0x04);
    uart.read(RBR);
    assert_eq!(uart.read(IIR), 0x01);
}

#[test]
fn lsr_and_msr_cannot_be_written() {
    let mut uart = set_up();
    uart.write(LSR, 0xff);
    uart.write(MSR, 0xff);
    assert_eq!((uart.read(LSR), uart.read(MSR)), (0x60, 0xb0));
}

#[test]
fn a_modem_interrupt_is_cleared_by_reading_msr() {
    let mut uart = set_up();
    uart.write(IER, 0x08);
    uart.device.set_modem_lines(ModemLines::empty());
    assert!(uart.irqs.level(4));
    assert_eq!(uart.read(IIR), 0xc0);
    assert_eq!(uart.read(MSR), 0x0b, "CTS, DSR and DCD have changed");
    assert_eq!(uart.read(IIR), 0xc1);
    assert!(!uart.irqs.level(4));
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in port_steps(&[0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff]),
    ) {
        check(set_up, &steps);
    }

    #[test]
    fn hostile_accesses_and_restores_do_no_harm_with_baud_timing(
        steps in port_steps(&[0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff]),
    ) {
        check(paced, &steps);
    }
}
