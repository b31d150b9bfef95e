//! The 8259A pair against its data sheet.

use super::*;
use crate::test_support::{Fixture, check, port_steps};
use proptest::prelude::*;

fn fixture() -> Fixture<Pic> {
    Fixture::new(|_, irqs| Pic::new(irqs.line(0))).with_poke(|pic, what| {
        if what & 0xc0 == 0xc0 {
            pic.acknowledge();
        } else {
            pic.set_irq(what & 0x1f, what & 0x20 != 0);
        }
    })
}

/// A pair initialized as a PC's firmware does, with vectors from 20h and 28h and all unmasked.
fn initialized() -> Fixture<Pic> {
    let mut pic = fixture();
    initialize(&mut pic, 0x01);
    pic
}

fn initialize(pic: &mut Fixture<Pic>, icw4: u8) {
    for (port, icw) in [(0x20, 0x11), (0x21, 0x20), (0x21, 0x04), (0x21, icw4)] {
        pic.write(port, icw);
    }
    initialize_slave(pic);
}

fn initialize_slave(pic: &mut Fixture<Pic>) {
    for (port, icw) in [(0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x02), (0xa1, 0x01)] {
        pic.write(port, icw);
    }
}

impl Fixture<Pic> {
    fn irq(&mut self, n: u8, high: bool) {
        self.device.set_irq(n, high);
    }
    fn ack(&mut self) -> u8 {
        self.device.acknowledge()
    }
    fn int(&self) -> bool {
        assert_eq!(self.irqs.level(0), self.device.has_interrupt());
        self.irqs.level(0)
    }
    fn isr(&mut self, port: u16) -> u8 {
        self.write(port, 0x0b);
        self.read(port)
    }
    fn irr(&mut self, port: u16) -> u8 {
        self.write(port, 0x0a);
        self.read(port)
    }
}

#[test]
fn requests_give_vectors_in_fully_nested_order() {
    let mut pic = initialized();
    pic.irq(4, true);
    pic.irq(1, true);
    assert!(pic.int());
    assert_eq!(pic.ack(), 0x21);
    assert_eq!(pic.isr(0x20), 0x02);
    assert!(!pic.int(), "a lower request waits for the interrupt in service");
    pic.irq(0, true);
    assert!(pic.int(), "a higher request interrupts");
    assert_eq!(pic.ack(), 0x20);
    pic.write(0x20, 0x20);
    assert_eq!(pic.isr(0x20), 0x02, "the non-specific EOI ends the highest in service");
    pic.write(0x20, 0x20);
    assert_eq!(pic.ack(), 0x24);
}

#[test]
fn slave_requests_pass_through_ir2() {
    let mut pic = initialized();
    pic.irq(12, true);
    assert_eq!(pic.irr(0xa0), 0x10);
    assert_eq!(pic.irr(0x20), 0x04);
    assert_eq!(pic.ack(), 0x2c);
    assert_eq!((pic.isr(0x20), pic.isr(0xa0)), (0x04, 0x10));
    pic.irq(8, true);
    assert!(!pic.int(), "IR2 is in service on the master: the slave is locked out");
    pic.write(0x20, 0x62);
    assert_eq!(pic.ack(), 0x28);
}

#[test]
fn special_fully_nested_mode_lets_the_slave_nest() {
    let mut pic = fixture();
    initialize(&mut pic, 0x11);
    pic.irq(12, true);
    assert_eq!(pic.ack(), 0x2c);
    pic.irq(14, true);
    assert!(!pic.int(), "the slave itself holds back its lower levels");
    pic.irq(8, true);
    assert_eq!(pic.ack(), 0x28);
}

#[test]
fn an_edge_is_taken_once_and_a_level_again_and_again() {
    let mut pic = initialized();
    pic.write(0x4d0, 0x20);
    for (irq, again) in [(3, false), (5, true)] {
        pic.irq(irq, true);
        assert_eq!(pic.ack(), 0x20 + irq);
        pic.write(0x20, 0x20);
        assert_eq!(pic.int(), again);
        pic.irq(irq, false);
        assert!(!pic.int());
    }
}

#[test]
fn elcr_has_fixed_edge_bits() {
    let mut pic = fixture();
    pic.write(0x4d0, 0xff);
    pic.write(0x4d1, 0xff);
    assert_eq!((pic.read(0x4d0), pic.read(0x4d1)), (0xf8, 0xde));
}

#[test]
fn a_request_that_goes_away_becomes_the_default_ir7() {
    let mut pic = initialized();
    pic.irq(3, true);
    assert!(pic.int());
    pic.irq(3, false);
    assert!(!pic.int());
    assert_eq!(pic.ack(), 0x27);
    assert_eq!(pic.isr(0x20), 0, "the default IR7 does not go into service");
}

#[test]
fn a_spurious_slave_interrupt_is_irq15_and_puts_ir2_in_service() {
    let mut pic = initialized();
    pic.irq(9, true);
    // The master has latched IR2; the slave's request goes between its two INTA pulses.
    pic.device.slave.set_line(1, false);
    assert_eq!(pic.ack(), 0x2f);
    assert_eq!((pic.isr(0x20), pic.isr(0xa0)), (0x04, 0));
}

#[test]
fn the_mask_holds_requests_back_without_losing_them() {
    let mut pic = initialized();
    pic.write(0x21, 0x10);
    pic.irq(4, true);
    assert!(!pic.int());
    assert_eq!((pic.irr(0x20), pic.read(0x21)), (0x10, 0x10));
    pic.write(0x21, 0);
    assert_eq!(pic.ack(), 0x24);
}

#[test]
fn special_mask_mode_lets_lower_levels_through() {
    let mut pic = initialized();
    pic.irq(3, true);
    assert_eq!(pic.ack(), 0x23);
    pic.irq(5, true);
    assert!(!pic.int());
    pic.write(0x21, 0x08);
    pic.write(0x20, 0x68);
    assert_eq!(pic.ack(), 0x25);
    pic.write(0x20, 0x20);
    assert_eq!(pic.isr(0x20), 0x08, "the non-specific EOI passes over masked levels");
    pic.write(0x20, 0x63);
    assert_eq!(pic.isr(0x20), 0);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service_and_may_rotate() {
    let mut pic = fixture();
    initialize(&mut pic, 0x03);
    pic.write(0x20, 0x80);
    pic.irq(4, true);
    assert_eq!(pic.ack(), 0x24);
    assert_eq!(pic.isr(0x20), 0);
    // IR4 is now the lowest: IR5 goes before IR3.
    pic.irq(3, true);
    pic.irq(5, true);
    assert_eq!(pic.ack(), 0x25);
}

#[test]
fn rotation_commands_change_priorities() {
    let mut pic = initialized();
    pic.irq(4, true);
    assert_eq!(pic.ack(), 0x24);
    pic.write(0x20, 0xa0); // rotate on non-specific EOI
    pic.irq(3, true);
    pic.irq(6, true);
    assert_eq!(pic.ack(), 0x26);
    pic.write(0x20, 0xe6); // rotate on specific EOI of 6
    assert_eq!(pic.ack(), 0x23, "from 7 on: 7, 0, 1, 2, 3");
    pic.write(0x20, 0x63);
    pic.write(0x20, 0xc1); // set priority: 1 is the lowest
    pic.irq(0, true);
    pic.irq(5, true);
    assert_eq!(pic.ack(), 0x25);
}

#[test]
fn a_poll_acknowledges() {
    let mut pic = initialized();
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20), 0);
    pic.irq(6, true);
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20), 0x86);
    assert_eq!(pic.isr(0x20), 0x40);
    assert!(!pic.int());
}

#[test]
fn icw1_clears_the_edge_latch_and_the_mask() {
    let mut pic = initialized();
    pic.write(0x21, 0xff);
    pic.irq(3, true);
    initialize(&mut pic, 0x01);
    assert_eq!((pic.irr(0x20), pic.read(0x21)), (0, 0));
    pic.irq(3, true);
    assert!(!pic.int(), "the input must go low and high again");
    pic.irq(3, false);
    pic.irq(3, true);
    assert!(pic.int());
}

#[test]
fn no_request_is_announced_before_initialization() {
    let mut pic = fixture();
    pic.irq(0, true);
    assert!(!pic.int());
}

#[test]
fn a_second_request_raises_int_anew_after_the_acknowledge() {
    let mut pic = fixture();
    initialize(&mut pic, 0x03);
    pic.irq(3, true);
    pic.irq(4, true);
    assert_eq!(pic.ack(), 0x23);
    assert!(pic.int());
    assert_eq!(pic.irqs.rises(0), 2);
}

#[test]
fn icw2_gives_the_five_high_bits_of_the_vector() {
    let mut pic = fixture();
    for (port, value) in [(0x20, 0x13), (0x21, 0xff), (0x21, 0x01)] {
        pic.write(port, value);
    }
    pic.irq(3, true);
    assert_eq!(pic.ack(), 0xfb);
}

#[test]
fn single_leaves_icw3_out_and_makes_ir2_an_input_like_the_others() {
    let mut pic = fixture();
    for (port, value) in [(0x20, 0x13), (0x21, 0x20), (0x21, 0x01), (0x21, 0x00)] {
        pic.write(port, value);
    }
    initialize_slave(&mut pic);
    pic.irq(10, true);
    assert_eq!(pic.ack(), 0x22, "the master's own vector");
}

#[test]
fn without_ic4_the_functions_of_icw4_are_zero() {
    let mut pic = fixture();
    initialize(&mut pic, 0x13); // AEOI and SFNM
    for (port, value) in [(0x20, 0x10), (0x21, 0x20), (0x21, 0x04), (0x21, 0x00)] {
        pic.write(port, value);
    }
    pic.irq(3, true);
    pic.ack();
    assert_eq!(pic.isr(0x20), 0x08, "no automatic EOI");
}

#[test]
fn icw3_names_the_inputs_that_have_slaves() {
    let mut pic = fixture();
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 0x00), (0x21, 0x01)] {
        pic.write(port, value);
    }
    initialize_slave(&mut pic);
    pic.irq(12, true);
    assert_eq!(pic.ack(), 0x22, "the master does not know of the slave");
}

#[test]
fn a_slave_answers_only_to_the_number_in_its_icw3() {
    let mut pic = initialized();
    for (port, value) in [(0xa0, 0x11), (0xa1, 0x28), (0xa1, 0x03), (0xa1, 0x01)] {
        pic.write(port, value);
    }
    pic.irq(12, true);
    assert_eq!(pic.ack(), 0xff, "nobody drives the bus");
    assert_eq!((pic.isr(0x20), pic.isr(0xa0)), (0x04, 0x00));
}

#[test]
fn icw1_resets_priorities_special_mask_mode_and_the_register_to_be_read() {
    let mut pic = initialized();
    for ocw in [0xc3, 0x68, 0x0b, 0x80] {
        pic.write(0x20, ocw); // lowest priority IR3, SMM, read ISR, rotate in AEOI mode
    }
    initialize(&mut pic, 0x01);
    pic.irq(6, true);
    pic.irq(0, true);
    assert_eq!(pic.read(0x20), 0x41, "IRR");
    assert_eq!(pic.ack(), 0x20, "IR0 is the highest");
    pic.write(0x21, 0x01);
    assert!(!pic.int(), "in special mask mode IR6 would come through");
}

#[test]
fn operation_commands_may_come_before_initialization_and_interrupts_wait_for_its_end() {
    let mut pic = fixture();
    pic.write(0x21, 0xfe);
    assert_eq!(pic.read(0x21), 0xfe);
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 0x04)] {
        pic.write(port, value);
        pic.irq(1, true);
        assert!(!pic.int());
        pic.irq(1, false);
    }
    pic.write(0x21, 0x01);
    pic.irq(1, true);
    assert!(pic.int(), "ICW1 has cleared the mask");
}

#[test]
fn masking_an_input_does_not_affect_those_of_lower_priority() {
    let mut pic = initialized();
    pic.write(0x21, 0x01);
    pic.irq(0, true);
    pic.irq(5, true);
    assert_eq!(pic.ack(), 0x25);
    pic.write(0x21, 0x00);
    assert_eq!(pic.ack(), 0x20, "nor does it forget the request");
}

#[test]
fn a_specific_eoi_ends_the_named_interrupt_and_one_that_is_not_in_service_nothing() {
    let mut pic = initialized();
    pic.irq(4, true);
    pic.ack();
    pic.irq(1, true);
    pic.ack();
    pic.write(0x20, 0x64);
    assert_eq!(pic.isr(0x20), 0x02);
    pic.write(0x20, 0x65);
    assert_eq!(pic.isr(0x20), 0x02);
    pic.write(0x20, 0x40); // no operation
    assert_eq!(pic.isr(0x20), 0x02);
}

#[test]
fn the_slave_needs_its_own_eoi() {
    let mut pic = initialized();
    pic.irq(14, true);
    assert_eq!(pic.ack(), 0x2e);
    pic.write(0x20, 0x20);
    assert_eq!((pic.isr(0x20), pic.isr(0xa0)), (0, 0x40));
    pic.irq(15, true);
    assert!(!pic.int());
    pic.write(0xa0, 0x20);
    assert_eq!(pic.ack(), 0x2f);
}

#[test]
fn rotation_in_automatic_eoi_mode_can_be_cleared() {
    let mut pic = fixture();
    initialize(&mut pic, 0x03);
    pic.write(0x20, 0x80);
    pic.write(0x20, 0x00);
    pic.irq(4, true);
    pic.ack();
    pic.irq(3, true);
    pic.irq(5, true);
    assert_eq!(pic.ack(), 0x23);
}

#[test]
fn the_register_to_be_read_stays_selected() {
    let mut pic = initialized();
    pic.irq(3, true);
    pic.ack();
    pic.irq(6, true);
    pic.write(0x20, 0x0b);
    pic.write(0x20, 0x08); // neither RR nor ESMM: nothing changes
    pic.write(0x20, 0x20); // an OCW2
    pic.irq(3, false);
    assert_eq!((pic.read(0x20), pic.read(0x20)), (0x00, 0x00), "ISR after the EOI");
    pic.write(0x20, 0x0a);
    assert_eq!((pic.read(0x20), pic.read(0x20)), (0x40, 0x40), "IRR");
}

#[test]
fn special_mask_mode_changes_only_with_esmm() {
    let mut pic = initialized();
    pic.write(0x20, 0x68);
    pic.write(0x20, 0x08); // ESMM is 0: SMM is a don't-care
    pic.irq(1, true);
    pic.ack();
    pic.write(0x21, 0x02);
    pic.irq(6, true);
    assert!(pic.int());
    pic.write(0x20, 0x48); // ESMM without SMM: normal mask mode
    assert!(!pic.int());
}

#[test]
fn the_poll_command_takes_precedence_over_the_register_read() {
    let mut pic = initialized();
    pic.irq(3, true);
    pic.write(0x20, 0x0f);
    assert_eq!(pic.read(0x20), 0x83);
    assert_eq!(pic.read(0x20), 0x00, "RR was passed over: IRR as before");
}

#[test]
fn a_poll_of_master_and_slave_finds_the_slaves_request() {
    let mut pic = initialized();
    pic.irq(13, true);
    pic.write(0x20, 0x0c);
    assert_eq!(pic.read(0x20), 0x82);
    pic.write(0xa0, 0x0c);
    assert_eq!(pic.read(0xa0), 0x85);
    assert_eq!((pic.isr(0x20), pic.isr(0xa0)), (0x04, 0x20));
    assert!(!pic.int());
}

#[test]
fn the_default_ir7_does_not_depend_on_the_rotation() {
    let mut pic = initialized();
    pic.write(0x20, 0xc2);
    assert_eq!(pic.ack(), 0x27);
}

#[test]
fn a_level_that_goes_away_before_the_acknowledge_is_spurious_too() {
    let mut pic = initialized();
    pic.write(0x4d0, 0x20);
    pic.irq(5, true);
    pic.irq(5, false);
    assert_eq!(pic.irr(0x20), 0);
    assert_eq!(pic.ack(), 0x27);
}

#[test]
fn each_controller_is_there_eight_times() {
    let mut pic = initialized();
    for alias in (0x24..0x40).step_by(4) {
        pic.write(alias + 1, alias as u8);
        assert_eq!(pic.read(0x21), alias as u8);
        pic.write(alias + 0x81, !alias as u8);
        assert_eq!(pic.read(0xa1), !alias as u8);
        pic.write(alias, 0x0b);
        assert_eq!(pic.read(alias), 0, "ISR");
    }
    let mut distinct = Pic::PORTS.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), Pic::PORTS.len());
    assert!(!distinct.contains(&0x22) && !distinct.contains(&0xb2), "the PIIX4's APM has B2h");
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(steps in port_steps(&Pic::PORTS)) {
        check(initialized, &steps);
    }
}
