//! The local APIC as the SDM tells it.

use proptest::prelude::*;
use trivium_chipset::{BusError, ManualClock};

use super::*;
use crate::apic::bus::targets;
use crate::apic::message::BROADCAST;

const GHZ: u64 = 1_000_000_000;

pub(super) const ID: u64 = 0x020;
const VERSION: u64 = 0x030;
pub(super) const TPR: u64 = 0x080;
pub(super) const PPR: u64 = 0x0a0;
pub(super) const EOI: u64 = 0x0b0;
pub(super) const LDR: u64 = 0x0d0;
const DFR: u64 = 0x0e0;
pub(super) const SVR: u64 = 0x0f0;
pub(super) const ISR: u64 = 0x100;
const TMR: u64 = 0x180;
pub(super) const IRR: u64 = 0x200;
pub(super) const ESR: u64 = 0x280;
pub(super) const ICR_LOW: u64 = 0x300;
pub(super) const ICR_HIGH: u64 = 0x310;
pub(super) const LVT_TIMER: u64 = 0x320;
pub(super) const LVT_PERFORMANCE: u64 = 0x340;
const LVT_LINT0: u64 = 0x350;
pub(super) const LVT_LINT1: u64 = 0x360;
pub(super) const LVT_ERROR: u64 = 0x370;
pub(super) const INITIAL_COUNT: u64 = 0x380;
pub(super) const CURRENT_COUNT: u64 = 0x390;
pub(super) const DIVIDE: u64 = 0x3e0;

pub(super) const MASKED: u32 = 1 << 16;
pub(super) const APIC_BASE: u32 = 0x1b;
pub(super) const TSC_DEADLINE: u32 = 0x6e0;

fn config(id: u32) -> LapicConfig {
    LapicConfig {
        present: true,
        id,
        bootstrap: id == 0,
        timer_hz: GHZ,
        tsc_hz: 2 * GHZ,
        physical_bits: 40,
        x2apic: true,
        tsc_deadline: true,
        generation: ApicGeneration::Xapic,
    }
}

pub(super) struct Bench {
    pub(super) apic: LocalApic,
    pub(super) clock: Arc<ManualClock>,
}

/// An APIC after reset.
pub(super) fn reset_bench(id: u32) -> Bench {
    let clock = ManualClock::new();
    Bench { apic: LocalApic::new(config(id), clock.clone()), clock }
}

/// An APIC that software has enabled, with spurious vector FFh.
pub(super) fn bench() -> Bench {
    let mut bench = reset_bench(0);
    bench.put(SVR, 0x1ff);
    bench
}

pub(super) fn x2apic_bench(id: u32) -> Bench {
    let mut bench = reset_bench(id);
    bench.apic.write_msr(APIC_BASE, 0xfee0_0c00).unwrap();
    bench.apic.write_msr(0x80f, 0x1ff).unwrap();
    bench
}

impl Bench {
    pub(super) fn get(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.apic.mmio_read(offset, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    pub(super) fn act(&mut self, offset: u64, value: u32) -> Option<LapicAction> {
        self.apic.mmio_write(offset, &value.to_le_bytes()).unwrap()
    }

    pub(super) fn put(&mut self, offset: u64, value: u32) {
        assert_eq!(self.act(offset, value), None);
    }

    /// Moves on to the next deadline, if it comes within `nanos`, and fires.
    pub(super) fn advance(&mut self, nanos: u64) {
        let end = self.clock.now().saturating_add(nanos);
        if let Some(deadline) = self.apic.deadline().filter(|deadline| *deadline <= end) {
            self.clock.set(deadline);
            self.apic.fire(deadline);
        }
        self.clock.set(end);
    }
}

#[test]
fn state_after_reset() {
    let mut bench = reset_bench(0);
    assert_eq!(bench.apic.read_msr(APIC_BASE), Ok(0xfee0_0900));
    assert_eq!(bench.apic.page(), Some(0xfee0_0000));
    assert_eq!(bench.get(VERSION), 0x0105_0014);
    assert_eq!(bench.get(SVR), 0xff);
    assert_eq!(bench.get(DFR), 0xffff_ffff);
    for lvt in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        assert_eq!(bench.get(lvt), MASKED);
    }
    for zero in [TPR, PPR, LDR, ESR, ICR_LOW, ICR_HIGH, INITIAL_COUNT, CURRENT_COUNT, DIVIDE] {
        assert_eq!(bench.get(zero), 0, "{zero:x}");
    }
    assert_eq!(reset_bench(3).get(ID), 3 << 24);
    assert_eq!(reset_bench(3).apic.read_msr(APIC_BASE), Ok(0xfee0_0800), "not the BSP");
}

#[test]
fn interrupts_are_taken_by_priority_and_ended_in_order() {
    let mut bench = bench();
    bench.apic.accept(0x31, false);
    bench.apic.accept(0x52, false);
    assert_eq!(bench.get(IRR + 0x10), 1 << 0x11);
    assert_eq!(bench.apic.acknowledge(), 0x52);
    assert_eq!(bench.get(ISR + 0x20), 1 << 0x12);
    assert_eq!(bench.get(PPR), 0x50);
    assert_eq!(bench.apic.highest_pending(), None, "31h is below the class in service");
    bench.apic.accept(0x5f, false);
    assert_eq!(bench.apic.highest_pending(), None, "so is the same class");
    bench.apic.accept(0x60, false);
    assert_eq!(bench.apic.acknowledge(), 0x60);
    bench.put(EOI, 0);
    bench.put(EOI, 0);
    assert_eq!(bench.apic.acknowledge(), 0x5f);
    bench.put(EOI, 0);
    assert_eq!(bench.apic.acknowledge(), 0x31);
    bench.put(EOI, 0);
    bench.put(EOI, 0);
    assert!(!bench.apic.wants_processor());
}

#[test]
fn tpr_holds_back_classes_up_to_its_own() {
    let mut bench = bench();
    bench.apic.accept(0x45, false);
    bench.apic.set_cr8(4);
    assert_eq!(bench.get(TPR), 0x40);
    assert_eq!(bench.apic.highest_pending(), None);
    bench.put(TPR, 0x3f);
    assert_eq!(bench.apic.cr8(), 3);
    assert_eq!(bench.get(PPR), 0x3f);
    assert_eq!(bench.apic.highest_pending(), Some(0x45));
}

#[test]
fn an_interrupt_that_went_away_gives_the_spurious_vector_and_no_isr_bit() {
    let mut bench = bench();
    bench.put(SVR, 0x1ef);
    bench.apic.accept(0x45, false);
    bench.apic.set_cr8(15);
    assert_eq!(bench.apic.acknowledge(), 0xef);
    assert_eq!(bench.get(ISR + 0x20) | bench.get(ISR + 0x70), 0);
}

#[test]
fn the_end_of_a_level_triggered_interrupt_goes_to_the_io_apics() {
    let mut bench = bench();
    bench.apic.accept(0x61, true);
    assert_eq!(bench.get(TMR + 0x30), 1 << 1);
    assert_eq!(bench.apic.acknowledge(), 0x61);
    assert_eq!(bench.act(EOI, 0), Some(LapicAction::Eoi(0x61)));
    bench.put(SVR, 0x11ff);
    bench.apic.accept(0x61, true);
    assert_eq!(bench.apic.acknowledge(), 0x61);
    assert_eq!(bench.act(EOI, 0), None, "EOI broadcasts are suppressed");
    bench.apic.accept(0x61, false);
    assert_eq!(bench.get(TMR + 0x30), 0);
}

#[test]
fn software_disabled_masks_the_lvt_and_accepts_only_nmi_and_its_like() {
    let mut bench = bench();
    bench.put(LVT_TIMER, 0x40);
    bench.put(SVR, 0xff);
    assert_eq!(bench.get(LVT_TIMER), MASKED | 0x40);
    bench.put(LVT_TIMER, 0x40);
    assert_eq!(bench.get(LVT_TIMER), MASKED | 0x40);
    bench.apic.accept(0x50, false);
    assert_eq!(bench.apic.highest_pending(), None);
    let nmi = Message {
        destination: Destination::All,
        delivery: DeliveryMode::Nmi,
        vector: 0,
        level: false,
        single: false,
    };
    bench.apic.receive(&nmi);
    assert!(bench.apic.take_nmi());
    assert!(!bench.apic.take_nmi());
}

#[test]
fn illegal_vectors_are_errors() {
    let mut bench = bench();
    bench.put(LVT_ERROR, 0xfe);
    bench.apic.accept(15, false);
    assert_eq!(bench.apic.acknowledge(), 0xfe);
    bench.put(EOI, 0);
    assert_eq!(bench.get(ESR), 0, "ESR must be written first");
    bench.put(ESR, 0);
    assert_eq!(bench.get(ESR), 1 << 6);
    bench.put(ICR_LOW, 0x0000_000f);
    bench.put(ESR, 0);
    assert_eq!(bench.get(ESR), 1 << 5);
    assert_eq!(bench.get(0x040), 0);
    bench.put(ESR, 0);
    assert_eq!(bench.get(ESR), 1 << 7);
    bench.put(ESR, 0);
    assert_eq!(bench.get(ESR), 0);
}

#[test]
fn icr_says_who_gets_what() {
    let mut bench = bench();
    bench.put(ICR_HIGH, 0x0500_0000);
    let message = |destination, delivery, vector, single| {
        Some(LapicAction::Ipi(Message { destination, delivery, vector, level: false, single }))
    };
    use Destination::{All, Logical, Others, Physical};
    let cases = [
        (0x0000_40f0, message(Physical(5), DeliveryMode::Fixed, 0xf0, false)),
        (0x0000_4930, message(Logical(5), DeliveryMode::LowestPriority, 0x30, true)),
        (0x0008_4030, message(All, DeliveryMode::Fixed, 0x30, false)),
        (0x000c_4400, message(Others, DeliveryMode::Nmi, 0, false)),
        (0x0000_4200, message(Physical(5), DeliveryMode::Smi, 0, false)),
        (0x0000_c500, message(Physical(5), DeliveryMode::Init, 0, false)),
        (0x0000_8500, None), // INIT level de-assert
        (0x000c_4608, message(Others, DeliveryMode::StartUp, 8, false)),
        (0x0000_4330, None), // reserved delivery mode
        (0x0008_4500, None), // INIT to all including self
    ];
    for (icr, action) in cases {
        assert_eq!(bench.act(ICR_LOW, icr), action, "{icr:08x}");
        assert_eq!(bench.get(ICR_LOW), icr & !0x1000);
    }
    bench.put(ICR_HIGH, 0xff00_0000);
    assert_eq!(
        bench.act(ICR_LOW, 0x4040),
        message(Physical(BROADCAST), DeliveryMode::Fixed, 0x40, false)
    );
    bench.put(ICR_LOW, 0x0004_4077);
    assert_eq!(bench.apic.highest_pending(), Some(0x77), "self");
}

#[test]
fn an_ipi_travels_from_one_apic_to_another() {
    let mut sender = bench();
    let mut receiver = reset_bench(1);
    receiver.put(SVR, 0x1ff);
    receiver.put(LDR, 0x0200_0000);
    sender.put(ICR_HIGH, 0x0200_0000);
    let Some(LapicAction::Ipi(message)) = sender.act(ICR_LOW, 0x0000_4888) else {
        panic!("no message")
    };
    let apics = [sender.apic.summary(), receiver.apic.summary()];
    assert!(targets(&message, Some(0), &apics).eq([1]));
    receiver.apic.receive(&message);
    assert_eq!(receiver.apic.acknowledge(), 0x88);
}

#[test]
fn init_resets_the_apic_but_for_its_base_and_a_later_start_up() {
    let mut bench = bench();
    bench.apic.accept(0x40, false);
    let message = |delivery, vector| Message {
        destination: Destination::Others,
        delivery,
        vector,
        level: false,
        single: false,
    };
    bench.apic.receive(&message(DeliveryMode::StartUp, 0x10));
    bench.apic.receive(&message(DeliveryMode::Init, 0));
    assert_eq!(bench.apic.take_startup(), None, "came before the INIT");
    bench.apic.receive(&message(DeliveryMode::StartUp, 0x9a));
    assert!(bench.apic.take_init());
    assert_eq!((bench.get(SVR), bench.get(IRR + 0x20)), (0xff, 0));
    assert_eq!(bench.apic.take_startup(), Some(0x9a));
    assert!(!bench.apic.wants_processor());
}

#[test]
fn lint0_as_extint_lets_the_8259a_through() {
    let mut bench = bench();
    bench.apic.set_lint(Lint::Lint0, true);
    assert!(!bench.apic.extint_pending(), "masked after reset");
    bench.put(LVT_LINT0, 0x700);
    assert!(bench.apic.extint_enabled() && bench.apic.extint_pending());
    bench.apic.set_lint(Lint::Lint0, false);
    assert!(!bench.apic.extint_pending());
    bench.apic.write_msr(APIC_BASE, 0xfee0_0100).unwrap();
    bench.apic.set_lint(Lint::Lint0, true);
    assert!(bench.apic.extint_pending(), "disabled, LINT0 is INTR");
}

#[test]
fn a_processor_without_apic_has_intr_and_nmi() {
    let mut apic = LocalApic::new(LapicConfig { present: false, ..config(0) }, ManualClock::new());
    apic.reset();
    assert_eq!((apic.mode(), apic.page()), (ApicMode::Disabled, None));
    apic.set_lint(Lint::Lint0, true);
    assert!(apic.extint_pending());
}

#[test]
fn virtual_wire_mode_passes_intr_and_nmi_through() {
    let mut bench = reset_bench(0);
    bench.apic.set_virtual_wire();
    assert_eq!(bench.get(SVR), 0x1ff);
    assert_eq!((bench.get(LVT_LINT0), bench.get(LVT_LINT1)), (0x700, 0x400));
    assert!(bench.apic.extint_enabled());
}

#[test]
fn an_extint_message_is_pending_until_acknowledged() {
    let mut bench = bench();
    bench.apic.receive(&Message {
        destination: Destination::Physical(0),
        delivery: DeliveryMode::ExtInt,
        vector: 0,
        level: false,
        single: false,
    });
    assert!(bench.apic.extint_pending() && bench.apic.wants_processor());
    bench.apic.acknowledge_extint();
    assert!(!bench.apic.extint_pending());
}

#[test]
fn lint1_as_nmi_and_lint0_as_level_triggered_interrupt() {
    let mut bench = bench();
    bench.put(LVT_LINT1, 0x400);
    bench.apic.set_lint(Lint::Lint1, true);
    bench.apic.set_lint(Lint::Lint1, true);
    assert!(bench.apic.take_nmi() && !bench.apic.take_nmi());
    bench.put(LVT_LINT0, 0x8044);
    bench.apic.set_lint(Lint::Lint0, true);
    assert_eq!(bench.get(LVT_LINT0), 0xc044, "Remote IRR");
    assert_eq!(bench.apic.acknowledge(), 0x44);
    assert_eq!(bench.act(EOI, 0), Some(LapicAction::Eoi(0x44)));
    assert_eq!(bench.apic.acknowledge(), 0x44, "still asserted");
    bench.apic.set_lint(Lint::Lint0, false);
    bench.act(EOI, 0);
    assert_eq!(bench.get(LVT_LINT0), 0x8044);
    assert_eq!(bench.apic.highest_pending(), None);
}

#[test]
fn a_performance_interrupt_masks_its_entry() {
    let mut bench = bench();
    bench.put(LVT_PERFORMANCE, 0x400);
    bench.apic.performance_event();
    assert!(bench.apic.take_nmi());
    assert_eq!(bench.get(LVT_PERFORMANCE), MASKED | 0x400);
}

#[test]
fn the_timer_interrupts_when_its_count_reaches_zero() {
    let mut bench = bench();
    bench.put(LVT_TIMER, 0x40);
    bench.put(DIVIDE, 0b1011);
    bench.put(INITIAL_COUNT, 1000);
    assert_eq!(bench.apic.deadline(), Some(VmTime::from_nanos(1000)));
    bench.advance(400);
    assert_eq!(bench.get(CURRENT_COUNT), 600);
    bench.advance(600);
    assert_eq!(bench.apic.acknowledge(), 0x40);
    assert_eq!((bench.get(CURRENT_COUNT), bench.apic.deadline()), (0, None));
}

#[test]
fn a_masked_timer_counts_but_interrupts_nobody() {
    let mut bench = bench();
    bench.put(LVT_TIMER, MASKED | 1 << 17 | 0x40);
    bench.put(DIVIDE, 0b1011);
    bench.put(INITIAL_COUNT, 1000);
    assert_eq!(bench.apic.deadline(), None);
    bench.advance(1400);
    assert_eq!(bench.get(CURRENT_COUNT), 600);
    bench.put(LVT_TIMER, 1 << 17 | 0x40);
    assert_eq!(bench.apic.highest_pending(), None);
    bench.advance(600);
    assert_eq!(bench.apic.highest_pending(), Some(0x40));
    assert_eq!(bench.apic.deadline(), Some(VmTime::from_nanos(3000)));
}

#[test]
fn tsc_deadline_mode() {
    let mut bench = bench();
    bench.put(LVT_TIMER, 2 << 17 | 0x40);
    bench.apic.write_msr(TSC_DEADLINE, 3000).unwrap();
    bench.put(INITIAL_COUNT, 1);
    assert_eq!((bench.get(INITIAL_COUNT), bench.get(CURRENT_COUNT)), (0, 0));
    assert_eq!(bench.apic.deadline(), Some(VmTime::from_nanos(1500)));
    assert_eq!(bench.apic.read_msr(TSC_DEADLINE), Ok(3000));
    bench.advance(1500);
    assert_eq!(bench.apic.highest_pending(), Some(0x40));
    assert_eq!(bench.apic.read_msr(TSC_DEADLINE), Ok(0));
}

#[test]
fn apic_base_takes_only_the_transitions_of_figure_11_27() {
    const DISABLED: u64 = 0xfee0_0100;
    const XAPIC: u64 = 0xfee0_0900;
    const X2APIC: u64 = 0xfee0_0d00;
    let mut bench = bench();
    let mut put = |value| bench.apic.write_msr(APIC_BASE, value);
    assert_eq!(put(0xfee0_0500), Err(MsrFault::InvalidTransition), "EXTD without EN");
    assert_eq!(put(DISABLED), Ok(None));
    assert_eq!(put(X2APIC), Err(MsrFault::InvalidTransition));
    assert_eq!(put(XAPIC), Ok(None));
    assert_eq!(put(X2APIC), Ok(None));
    assert_eq!(put(XAPIC), Err(MsrFault::InvalidTransition));
    assert_eq!(put(DISABLED), Ok(None));
    assert_eq!(put(XAPIC | 1), Err(MsrFault::ReservedBits));
    assert_eq!(put(XAPIC | 1 << 40), Err(MsrFault::ReservedBits), "beyond MAXPHYADDR");
    assert_eq!(put(0x12_3456_7900), Ok(None));
    assert_eq!(bench.apic.page(), Some(0x12_3456_7000));
}

#[test]
fn without_x2apic_its_bit_is_reserved() {
    let config = LapicConfig { x2apic: false, tsc_deadline: false, ..config(0) };
    let mut apic = LocalApic::new(config, ManualClock::new());
    assert_eq!(apic.write_msr(APIC_BASE, 0xfee0_0d00), Err(MsrFault::ReservedBits));
    assert_eq!(apic.read_msr(TSC_DEADLINE), Err(MsrFault::NoRegister));
}

#[test]
fn x2apic_registers_are_msrs() {
    let mut bench = x2apic_bench(0x123);
    let apic = &mut bench.apic;
    assert_eq!(apic.read_msr(0x802), Ok(0x123));
    assert_eq!(apic.read_msr(0x80d), Ok(0x0012_0008), "cluster 12h, bit 3");
    assert_eq!(apic.page(), None);
    assert_eq!(apic.mmio_read(0x20, &mut [0; 4]), Err(BusError::NoRegister));
    for missing in [0x800, 0x80e, 0x831, 0x8ff] {
        assert_eq!(apic.read_msr(missing), Err(MsrFault::NoRegister), "{missing:x}");
    }
    for write_only in [0x80b, 0x83f] {
        assert_eq!(apic.read_msr(write_only), Err(MsrFault::NoRegister), "{write_only:x}");
    }
    for read_only in [0x802, 0x803, 0x80a, 0x80d, 0x810, 0x820, 0x839] {
        assert_eq!(apic.write_msr(read_only, 0), Err(MsrFault::NoRegister), "{read_only:x}");
    }
    for (msr, reserved) in [
        (0x808, 0x100),
        (0x80b, 1),
        (0x80f, 0x400),
        (0x828, 1),
        (0x830, 0x1000),
        (0x832, 0x100),
        (0x83e, 4),
        (0x808, 1 << 32),
    ] {
        assert_eq!(apic.write_msr(msr, reserved), Err(MsrFault::ReservedBits), "{msr:x}");
    }
    apic.write_msr(0x83f, 0x99).unwrap();
    assert_eq!(apic.acknowledge(), 0x99);
    assert_eq!(apic.write_msr(0x80b, 0), Ok(None));
    let Ok(Some(LapicAction::Ipi(message))) = apic.write_msr(0x830, 0x0003_0001_0000_4840) else {
        panic!("no message")
    };
    assert_eq!(message.destination, Destination::Logical(0x0003_0001));
    assert_eq!(apic.read_msr(0x830), Ok(0x0003_0001_0000_4840));
}

#[test]
fn registers_are_the_first_four_bytes_of_sixteen() {
    let mut bench = bench();
    let mut wide = [0xff; 16];
    bench.apic.mmio_read(VERSION, &mut wide).unwrap();
    assert_eq!(wide, [0x14, 0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut byte = [0];
    bench.apic.mmio_read(VERSION + 2, &mut byte).unwrap();
    assert_eq!(byte, [5]);
    assert_eq!(bench.apic.mmio_read(VERSION + 13, &mut [0; 4]), Err(BusError::Width));
    assert_eq!(bench.apic.mmio_write(TPR + 4, &[0; 4]), Err(BusError::Width));
    assert_eq!(bench.apic.mmio_write(TPR, &[0; 2]), Err(BusError::Width));
    assert_eq!(bench.apic.mmio_write(u64::MAX - 3, &[0; 4]), Err(BusError::NoRegister));
}

/// What a hostile guest, other chips and time may do to a local APIC.
#[derive(Debug, Clone)]
enum Step {
    Read(u64, usize),
    Write(u64, u32),
    WriteBytes(u64, Vec<u8>),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Receive(u32, u8, bool),
    Acknowledge,
    Take,
    Lint(bool, bool),
    TscOffset(u64),
    Advance(u64),
    Reset,
    SaveRestore,
    Corrupt(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![
        8 => (0..0x40u64).prop_map(|index| index << 4),
        1 => any::<u64>(),
        1 => 0..0x1000u64,
    ];
    let value = prop_oneof![any::<u32>(), 0..0x2_0000u32, Just(0x1ff), 0..0x7_ffffu32];
    let msr = prop_oneof![
        4 => 0x800..0x840u32,
        1 => Just(APIC_BASE),
        1 => Just(TSC_DEADLINE),
        1 => any::<u32>(),
    ];
    let wide = prop_oneof![
        any::<u64>(),
        0..0x4_0000u64,
        Just(0xfee0_0d00),
        Just(0xfee0_0900),
        Just(0xfee0_0100),
        Just(0x1ff),
    ];
    let nanos = prop_oneof![0..2_000u64, 0..5_000_000_000u64];
    prop_oneof![
        2 => (offset.clone(), 0..65usize).prop_map(|(offset, length)| Step::Read(offset, length)),
        6 => (offset.clone(), value).prop_map(|(offset, value)| Step::Write(offset, value)),
        1 => (offset, proptest::collection::vec(any::<u8>(), 0..65))
            .prop_map(|(offset, data)| Step::WriteBytes(offset, data)),
        2 => msr.clone().prop_map(Step::ReadMsr),
        4 => (msr, wide).prop_map(|(msr, value)| Step::WriteMsr(msr, value)),
        4 => (0..8u32, any::<u8>(), any::<bool>())
            .prop_map(|(mode, vector, level)| Step::Receive(mode, vector, level)),
        3 => Just(Step::Acknowledge),
        1 => Just(Step::Take),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(pin, high)| Step::Lint(pin, high)),
        1 => any::<u64>().prop_map(Step::TscOffset),
        4 => nanos.prop_map(Step::Advance),
        1 => Just(Step::Reset),
        2 => Just(Step::SaveRestore),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, to)| Step::Corrupt(at, to)),
    ]
}

impl Bench {
    /// Does one step; what came back is the result. An honest APIC is never saved.
    fn step(&mut self, step: &Step, honest: bool) -> String {
        match *step {
            Step::Read(offset, length) => {
                let mut data = vec![0; length];
                format!("{:?} {data:?}", self.apic.mmio_read(offset, &mut data))
            }
            Step::Write(offset, value) => {
                format!("{:?}", self.apic.mmio_write(offset, &value.to_le_bytes()))
            }
            Step::WriteBytes(offset, ref data) => {
                format!("{:?}", self.apic.mmio_write(offset, data))
            }
            Step::ReadMsr(msr) => format!("{:?}", self.apic.read_msr(msr)),
            Step::WriteMsr(msr, value) => format!("{:?}", self.apic.write_msr(msr, value)),
            Step::Receive(mode, vector, level) => {
                self.receive(mode, vector, level);
                String::new()
            }
            Step::Acknowledge => self.acknowledge(),
            Step::Take => format!(
                "{} {} {} {:?}",
                self.apic.take_nmi(),
                self.apic.take_smi(),
                self.apic.take_init(),
                self.apic.take_startup()
            ),
            Step::Lint(second, high) => {
                self.apic.set_lint(if second { Lint::Lint1 } else { Lint::Lint0 }, high);
                String::new()
            }
            Step::TscOffset(offset) => {
                self.apic.set_tsc_offset(offset);
                String::new()
            }
            Step::Advance(nanos) => {
                self.advance(nanos);
                self.must_progress();
                String::new()
            }
            Step::Reset => {
                self.apic.reset();
                String::new()
            }
            Step::SaveRestore if honest => String::new(),
            Step::SaveRestore => {
                self.rebuild();
                String::new()
            }
            Step::Corrupt(at, to) => {
                self.corrupt(at, to);
                String::new()
            }
        }
    }

    fn receive(&mut self, mode: u32, vector: u8, level: bool) {
        let Some(delivery) = DeliveryMode::from_bits(mode) else { return };
        let destination = Destination::All;
        self.apic.receive(&Message { destination, delivery, vector, level, single: false });
    }

    /// What `highest_pending` offers is what `acknowledge` gives, and above the priority.
    fn acknowledge(&mut self) -> String {
        let pending = self.apic.highest_pending();
        let ppr = self.apic.ppr();
        let vector = self.apic.acknowledge();
        if let Some(pending) = pending {
            assert_eq!(vector, pending);
            assert!(vector >> 4 > ppr >> 4 && vector >= 16);
            assert_eq!(self.apic.ppr() >> 4, vector >> 4);
        }
        format!("{vector}")
    }

    /// Firing at the deadline must move the deadline.
    fn must_progress(&mut self) {
        let now = self.clock.now();
        self.apic.fire(now);
        let next = self.apic.deadline();
        assert!(next.is_none_or(|next| next > now), "{next:?} after {now}");
    }

    fn rebuild(&mut self) {
        let saved = self.apic.save();
        let mut apic = LocalApic::new(config(0), self.clock.clone());
        apic.restore(&saved).unwrap();
        assert_eq!(apic.save(), saved);
        self.apic = apic;
    }

    fn corrupt(&mut self, at: usize, to: u8) {
        let mut section = self.apic.save();
        let length = section.data.len().max(1);
        if let Some(byte) = section.data.get_mut(at % length) {
            *byte = to;
        }
        let mut victim = reset_bench(0);
        victim.clock.set(self.clock.now());
        let before = victim.apic.save();
        if victim.apic.restore(&section).is_ok() {
            victim.advance(1_000_000);
            victim.must_progress();
            victim.acknowledge();
            victim.rebuild();
        } else {
            assert_eq!(victim.apic.save(), before);
        }
    }
}

fn bench_of(generation: ApicGeneration) -> Bench {
    let (clock, config) = (ManualClock::new(), LapicConfig { generation, ..config(0) });
    let mut bench = Bench { apic: LocalApic::new(config, clock.clone()), clock };
    bench.put(SVR, 0x1ff);
    bench
}

#[test]
fn the_version_tells_of_the_lvt_entries_and_the_others_are_no_registers() {
    const ESR: u64 = 0x280;
    // Intel SDM vol. 3A, 11.4.8 and figure 11-8: LVT performance since the P6 family, thermal since
    // the Pentium 4.
    for (generation, version, missing) in [
        (ApicGeneration::of(5, 2), 0x0003_0010, &[0x330, 0x340][..]),
        (ApicGeneration::of(6, 7), 0x0004_0011, &[0x330][..]),
        (ApicGeneration::of(6, 13), 0x0105_0014, &[][..]),
        (ApicGeneration::of(0x17, 1), 0x0105_0014, &[][..]),
    ] {
        let mut bench = bench_of(generation);
        assert_eq!(bench.get(0x30), version, "{generation:?}");
        for register in [0x330, 0x340] {
            bench.put(register, 0x1_0055);
            let there = !missing.contains(&register);
            let shown = if there { 0x1_0055 } else { 0 };
            assert_eq!(bench.get(register), shown, "{generation:?} {register:x}");
            bench.put(ESR, 0);
            assert_eq!(bench.get(ESR) & 0x80 != 0, !there, "{generation:?} {register:x}");
        }
    }
}

#[test]
fn apr_is_the_greatest_of_task_request_and_service_until_the_pentium_4() {
    const APR: u64 = 0x90;
    let mut bench = bench_of(ApicGeneration::P6);
    bench.put(TPR, 0x35);
    assert_eq!(bench.get(APR), 0x35, "TPR[7:4] >= IRRV[7:4] and TPR[7:4] > ISRV[7:4]");
    bench.apic.accept(0x52, false);
    assert_eq!(bench.get(APR), 0x50, "the class that is requested");
    assert_eq!(bench.apic.acknowledge(), 0x52);
    // TPR[7:4] AND ISRV[7:4]: 3 and 5.
    assert_eq!(bench.get(APR), 0x10);
    let mut bench = bench_of(ApicGeneration::Xapic);
    bench.put(TPR, 0x35);
    assert_eq!(bench.get(APR), 0, "not supported");
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let (mut honest, mut restored) = (bench(), bench());
        for step in &steps {
            assert_eq!(honest.step(step, true), restored.step(step, false), "{step:?}");
            assert_eq!(honest.apic.save(), restored.apic.save(), "{step:?}");
        }
    }
}
