//! The local APIC's rules one by one: priorities, modes, the timer, errors. Intel SDM vol. 3A,
//! chapter 11.

use super::tests::*;
use super::*;

const GHZ_DIVIDE_BY_1: u32 = 0b1011;

fn message(delivery: DeliveryMode, vector: u8) -> Message {
    let destination = Destination::Physical(0);
    Message { destination, delivery, vector, level: false, single: false }
}

#[test]
fn ppr_is_the_higher_of_tpr_and_the_class_in_service() {
    // 11.8.3.1: PPR[7:4] = MAX(TPR[7:4], ISRV[7:4]); PPR[3:0] is TPR's if that is the higher.
    for (tpr, in_service, ppr) in [
        (0x00, 0x00, 0x00),
        (0x25, 0x00, 0x25),
        (0x25, 0x31, 0x30),
        (0x35, 0x31, 0x35),
        (0x45, 0x31, 0x45),
    ] {
        let mut bench = bench();
        if in_service != 0 {
            bench.apic.accept(in_service, false);
            bench.apic.acknowledge();
        }
        bench.put(TPR, tpr);
        assert_eq!(bench.get(PPR), ppr, "TPR {tpr:02x}h, {in_service:02x}h in service");
    }
}

#[test]
fn an_interrupt_may_wait_while_the_same_is_in_service_and_no_third_is_kept() {
    let mut bench = bench();
    bench.apic.accept(0x41, false);
    assert_eq!(bench.apic.acknowledge(), 0x41);
    bench.apic.accept(0x41, false);
    bench.apic.accept(0x41, false);
    bench.put(EOI, 0);
    assert_eq!(bench.apic.acknowledge(), 0x41);
    bench.put(EOI, 0);
    assert_eq!(bench.apic.highest_pending(), None);
}

#[test]
fn an_eoi_without_anything_in_service_does_nothing() {
    let mut bench = bench();
    bench.put(EOI, 0);
    assert_eq!(bench.get(ISR), 0);
}

#[test]
fn the_timer_stands_at_an_initial_count_of_zero_and_starts_again_with_another() {
    let mut bench = bench();
    bench.put(LVT_TIMER, 0x40);
    bench.put(DIVIDE, GHZ_DIVIDE_BY_1);
    bench.put(INITIAL_COUNT, 1000);
    bench.advance(500);
    bench.put(INITIAL_COUNT, 0);
    assert_eq!((bench.get(CURRENT_COUNT), bench.apic.deadline()), (0, None));
    bench.put(INITIAL_COUNT, 300);
    bench.advance(100);
    assert_eq!(bench.get(CURRENT_COUNT), 200);
    bench.put(INITIAL_COUNT, 300);
    assert_eq!(bench.get(CURRENT_COUNT), 300, "a write begins anew");
}

#[test]
fn the_current_count_cannot_be_written() {
    let mut bench = bench();
    bench.put(DIVIDE, GHZ_DIVIDE_BY_1);
    bench.put(INITIAL_COUNT, 1000);
    bench.put(CURRENT_COUNT, 5);
    assert_eq!(bench.get(CURRENT_COUNT), 1000);
    assert_eq!(bench.get(ESR), 0);
}

#[test]
fn a_periodic_timer_goes_on_after_a_late_call() {
    let mut bench = bench();
    bench.put(LVT_TIMER, 1 << 17 | 0x40);
    bench.put(DIVIDE, GHZ_DIVIDE_BY_1);
    bench.put(INITIAL_COUNT, 1000);
    bench.clock.set(VmTime::from_nanos(3500));
    bench.apic.fire(VmTime::from_nanos(3500));
    assert_eq!(bench.apic.acknowledge(), 0x40);
    assert_eq!(bench.apic.deadline(), Some(VmTime::from_nanos(4000)), "in step with the first");
}

#[test]
fn a_tsc_deadline_in_the_past_comes_at_once_and_zero_disarms() {
    let mut bench = bench();
    bench.put(LVT_TIMER, 2 << 17 | 0x40);
    bench.advance(1000);
    bench.apic.write_msr(TSC_DEADLINE, 1).unwrap();
    assert!(bench.apic.deadline().is_some_and(|deadline| deadline <= bench.clock.now()));
    bench.apic.fire(bench.clock.now());
    assert_eq!(bench.apic.acknowledge(), 0x40);
    bench.apic.write_msr(TSC_DEADLINE, 1 << 40).unwrap();
    bench.apic.write_msr(TSC_DEADLINE, 0).unwrap();
    assert_eq!(bench.apic.deadline(), None);
}

#[test]
fn a_masked_error_entry_interrupts_nobody_and_esr_still_tells() {
    let mut bench = bench();
    bench.put(LVT_ERROR, MASKED | 0xfe);
    bench.apic.accept(3, false);
    assert_eq!(bench.apic.highest_pending(), None);
    bench.put(ESR, 0);
    assert_eq!(bench.get(ESR), 1 << 6);
}

#[test]
fn errors_gather_until_esr_is_written() {
    let mut bench = bench();
    bench.apic.accept(3, false);
    bench.put(ICR_LOW, 0x4004);
    bench.put(ESR, 0);
    assert_eq!((bench.get(ESR), bench.get(ESR)), (0x60, 0x60), "reading does not clear");
}

#[test]
fn a_self_ipi_with_an_illegal_vector_is_a_send_error() {
    let mut bench = x2apic_bench(0);
    bench.apic.write_msr(0x83f, 0x0f).unwrap();
    bench.apic.write_msr(0x828, 0).unwrap();
    assert_eq!(bench.apic.read_msr(0x828), Ok(1 << 5));
}

#[test]
fn local_entries_deliver_what_their_mode_says() {
    for (mode, requests) in
        [(0x200, Requests::SMI), (0x400, Requests::NMI), (0x500, Requests::INIT)]
    {
        let mut bench = bench();
        bench.put(LVT_LINT1, mode);
        bench.apic.set_lint(Lint::Lint1, true);
        assert_eq!(bench.apic.requests(), requests, "{mode:x}");
    }
    let mut bench = bench();
    bench.put(0x330, 0x0061); // thermal
    bench.apic.thermal_event();
    assert_eq!(bench.apic.acknowledge(), 0x61);
    assert_eq!(bench.get(0x330), 0x61, "unlike a performance interrupt, it is not masked");
}

#[test]
fn messages_of_every_delivery_mode_are_taken_in() {
    let mut bench = bench();
    for (mode, requests) in [
        (DeliveryMode::Smi, Requests::SMI),
        (DeliveryMode::Nmi, Requests::NMI),
        (DeliveryMode::Init, Requests::INIT),
        (DeliveryMode::StartUp, Requests::STARTUP),
        (DeliveryMode::ExtInt, Requests::EXTINT),
    ] {
        bench.apic.receive(&message(mode, 0x40));
        assert!(bench.apic.requests().contains(requests), "{mode:?}");
    }
    for (mode, vector) in [(DeliveryMode::Fixed, 0x40), (DeliveryMode::LowestPriority, 0x50)] {
        bench.apic.receive(&message(mode, vector));
        assert_eq!(bench.apic.highest_pending(), Some(vector));
    }
}

#[test]
fn an_apic_that_software_has_disabled_still_sends_and_keeps_what_is_in_irr() {
    let mut bench = bench();
    bench.apic.accept(0x40, false);
    bench.put(SVR, 0xff);
    assert_eq!(bench.get(IRR + 0x20), 1);
    assert!(matches!(bench.act(ICR_LOW, 0x4050), Some(LapicAction::Ipi(_))));
    bench.apic.receive(&message(DeliveryMode::Init, 0));
    assert!(bench.apic.take_init());
}

#[test]
fn entering_x2apic_mode_keeps_the_state_and_makes_the_logical_id() {
    let mut bench = reset_bench(0x25);
    bench.put(SVR, 0x1fe);
    bench.put(TPR, 0x30);
    bench.put(LDR, 0x0100_0000);
    bench.apic.accept(0x55, false);
    bench.apic.write_msr(APIC_BASE, 0xfee0_0c00).unwrap();
    assert_eq!(bench.apic.read_msr(0x802), Ok(0x25));
    assert_eq!(bench.apic.read_msr(0x80d), Ok(2 << 16 | 1 << 5));
    assert_eq!(bench.apic.read_msr(0x808), Ok(0x30));
    assert_eq!(bench.apic.read_msr(0x80f), Ok(0x1fe));
    assert_eq!(bench.apic.highest_pending(), Some(0x55));
}

#[test]
fn leaving_x2apic_mode_for_disabled_resets_the_apic() {
    let mut bench = x2apic_bench(3);
    bench.apic.write_msr(0x808, 0x50).unwrap();
    bench.apic.write_msr(APIC_BASE, 0xfee0_0000).unwrap();
    assert_eq!(bench.apic.page(), None);
    bench.apic.write_msr(APIC_BASE, 0xfee0_0800).unwrap();
    assert_eq!((bench.get(ID), bench.get(TPR), bench.get(SVR)), (3 << 24, 0, 0xff));
}

#[test]
fn in_xapic_mode_there_are_no_msrs_and_in_x2apic_mode_no_page() {
    let mut bench = bench();
    assert_eq!(bench.apic.read_msr(0x802), Err(MsrFault::NoRegister));
    assert_eq!(bench.apic.write_msr(0x80b, 0), Err(MsrFault::NoRegister));
    let mut bench = x2apic_bench(0);
    assert!(bench.apic.mmio_write(EOI, &[0; 4]).is_err());
}

#[test]
fn in_x2apic_mode_one_write_sends_and_icr_high_does_not_exist() {
    let mut bench = x2apic_bench(0);
    let sent = bench.apic.write_msr(0x830, 0xffff_ffff_0000_4041);
    let Ok(Some(LapicAction::Ipi(message))) = sent else { panic!("{sent:?}") };
    assert_eq!(message.destination, Destination::Physical(crate::apic::message::BROADCAST));
    assert_eq!(bench.apic.read_msr(0x831), Err(MsrFault::NoRegister));
}

#[test]
fn the_page_moves_with_ia32_apic_base() {
    let mut bench = bench();
    bench.apic.write_msr(APIC_BASE, 0xfed4_0900).unwrap();
    assert_eq!(bench.apic.page(), Some(0xfed4_0000));
    assert_eq!(bench.apic.read_msr(APIC_BASE), Ok(0xfed4_0900));
    assert_eq!(bench.get(SVR), 0x1ff, "its registers are the same");
}

#[test]
fn the_spurious_interrupt_needs_no_eoi() {
    let mut bench = bench();
    bench.put(TPR, 0xff);
    assert_eq!(bench.apic.acknowledge(), 0xff);
    for part in 0..8 {
        assert_eq!(bench.get(ISR + part * 0x10), 0);
    }
    assert_eq!(bench.get(ICR_HIGH) | bench.get(LVT_PERFORMANCE) & !MASKED, 0);
}
