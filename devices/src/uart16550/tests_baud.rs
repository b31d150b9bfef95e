//! The 16550A with the timing of its line: FIFOs, shift register and the THRE rules of the PC16550D
//! data sheet, "FIFO interrupt mode operation".

use super::tests::{FCR, IER, IIR, LCR, LSR, MCR, Paper, RBR, THR, paced};
use super::*;

/// Ten bits at 115,200 baud, in nanoseconds, rounded up.
const CHARACTER: u64 = 86_806;
/// One bit.
const BIT: u64 = 8_681;

#[test]
fn thr_empties_into_the_shift_register_and_temt_follows_a_character_later() {
    let mut uart = paced();
    uart.write(FCR, 0x00);
    uart.write(THR, b'a');
    assert_eq!(uart.read(LSR), 0x20, "THR is empty, TSR is not");
    uart.write(THR, b'b');
    assert_eq!(uart.read(LSR), 0x00);
    uart.advance(CHARACTER);
    assert_eq!(uart.read(LSR), 0x20);
    uart.advance(CHARACTER);
    assert_eq!(uart.read(LSR), 0x60);
}

#[test]
fn characters_leave_one_after_the_other() {
    let paper = Paper::default();
    let clock = trivium_chipset::ManualClock::new();
    let mut uart = Uart16550::new(clock.clone(), IrqLine::unconnected(), Box::new(paper.clone()))
        .with_baud_timing();
    for (register, value) in [(3, 0x83), (0, 12), (1, 0), (3, 0x03), (2, 0x01)] {
        uart.write_register(register, value);
    }
    for byte in *b"9600" {
        uart.write_register(0, byte);
    }
    for (micros, sent) in [(1041, ""), (1042, "9"), (2084, "96"), (4167, "9600")] {
        clock.set(VmTime::from_nanos(micros * 1000));
        uart.fire(clock.now());
        assert_eq!(paper.0.lock().unwrap().0, sent.as_bytes(), "after {micros} microseconds");
    }
}

#[test]
fn a_full_transmitter_fifo_loses_what_is_written() {
    let mut uart = paced();
    uart.write(MCR, 0x10);
    for n in 0..20 {
        uart.write(THR, n); // the first goes on to the shift register
    }
    uart.advance(16 * CHARACTER);
    let received: Vec<u8> = (0..16).map(|_| uart.read(RBR)).collect();
    assert_eq!(received, (0..16).collect::<Vec<_>>());
    uart.advance(CHARACTER);
    assert_eq!((uart.read(RBR), uart.read(LSR)), (16, 0x60));
}

#[test]
fn the_thre_interrupt_comes_when_the_last_character_leaves_the_fifo() {
    let mut uart = paced();
    uart.write(IER, 0x02);
    uart.read(IIR);
    for byte in *b"abc" {
        uart.write(THR, byte);
    }
    uart.advance(CHARACTER);
    assert!(!uart.irqs.level(4), "one waits");
    uart.advance(CHARACTER);
    assert!(uart.irqs.level(4));
    assert_eq!((uart.read(IIR), uart.read(LSR)), (0xc2, 0x20));
}

#[test]
fn the_thre_interrupt_of_a_single_character_is_delayed_by_its_time_less_the_stop_bit() {
    let mut uart = paced();
    uart.write(IER, 0x02);
    uart.read(IIR);
    uart.write(THR, b'a'); // the first after FCR0 has changed is immediate
    assert!(uart.irqs.level(4));
    uart.advance(2 * CHARACTER);
    uart.read(IIR);
    uart.write(THR, b'b');
    uart.advance(CHARACTER - BIT - 10);
    assert!(!uart.irqs.level(4));
    uart.advance(20);
    assert!(uart.irqs.level(4));
}

#[test]
fn without_fifos_the_thre_interrupt_comes_as_soon_as_thr_is_free() {
    let mut uart = paced();
    uart.write(FCR, 0x00);
    uart.write(IER, 0x02);
    uart.read(IIR);
    uart.write(THR, b'a');
    assert!(uart.irqs.level(4));
    uart.write(THR, b'b');
    assert!(!uart.irqs.level(4));
    uart.advance(CHARACTER);
    assert!(uart.irqs.level(4));
}

#[test]
fn a_transmitter_fifo_reset_leaves_the_shift_register_alone() {
    let mut uart = paced();
    uart.write(MCR, 0x10);
    for byte in *b"abc" {
        uart.write(THR, byte);
    }
    uart.write(FCR, 0x45);
    assert_eq!(uart.read(LSR), 0x20);
    uart.advance(3 * CHARACTER);
    assert_eq!((uart.read(RBR), uart.read(LSR)), (b'a', 0x60));
}

#[test]
fn characters_arrive_at_the_pace_of_the_line() {
    let mut uart = paced();
    assert_eq!(uart.device.receive(b"abc"), 1);
    assert!(!uart.device.wants_input());
    assert_eq!(uart.device.receive(b"bc"), 0);
    let next = uart.device.receives_from().unwrap();
    assert_eq!(next.as_nanos(), CHARACTER);
    uart.advance(CHARACTER);
    assert!(uart.device.wants_input());
    assert_eq!(uart.device.receive(b"bc"), 1);
}

#[test]
fn the_pace_follows_divisor_word_length_parity_and_stop_bits() {
    for (lcr, bits) in [(0x03, 10.0), (0x1a, 10.0), (0x07, 11.0), (0x00, 7.0), (0x04, 7.5)] {
        let mut uart = paced();
        uart.write(LCR, lcr);
        uart.write(THR, 0);
        let nanos = uart.device.deadline().unwrap().as_nanos() as f64;
        // The first event is THRE or the end of the character.
        assert!((nanos / f64::from(8_680.6_f32) - bits).abs() < 0.01, "LCR {lcr:02x}h: {nanos}");
    }
}
