//! The HPET as its specification tells it.

use proptest::prelude::*;
use trivium_chipset::ManualClock;

use super::*;
use crate::test_support::{Fixture, IrqLog, check, mmio_steps};

const TICK: u64 = 10;
const ENABLE: u64 = 1;
const LEG_RT: u64 = 2;
const LEVEL: u64 = 1 << 1;
const INT_ENB: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const VAL_SET: u64 = 1 << 6;
const MODE32: u64 = 1 << 8;
/// Lines of the log: I/O APIC inputs, then IRQ 0, IRQ 8 and the legacy selection.
const ROUTED: u32 = 20;
const IRQ0: u32 = 100;
const IRQ8: u32 = 101;
const SELECT: u32 = 102;

fn make(clock: &Arc<ManualClock>, irqs: &Arc<IrqLog>) -> Hpet {
    Hpet::new(HpetWiring {
        clock: clock.clone(),
        routes: (20..24).map(|input| (input, irqs.line(input.into()))).collect(),
        legacy: [irqs.line(IRQ0), irqs.line(IRQ8)],
        legacy_select: irqs.line(SELECT),
    })
}

fn fixture() -> Fixture<Hpet> {
    Fixture::new(make)
}

impl Fixture<Hpet> {
    fn get(&mut self, register: u64) -> u64 {
        let mut data = [0; 8];
        Mmio::read(&mut self.device, register, &mut data).unwrap();
        u64::from_le_bytes(data)
    }

    fn put(&mut self, register: u64, value: u64) {
        Mmio::write(&mut self.device, register, &value.to_le_bytes()).unwrap();
    }

    fn put32(&mut self, register: u64, value: u32) {
        Mmio::write(&mut self.device, register, &value.to_le_bytes()).unwrap();
    }
}

fn route(input: u64) -> u64 {
    input << 9
}

#[test]
fn capabilities_say_100_mhz_three_timers_and_legacy_replacement() {
    let mut hpet = fixture();
    assert_eq!(hpet.get(0x000), 0x0098_9680_8086_a201);
    assert_eq!(hpet.get(0x100) >> 32, 0x00f0_0000, "Tn_INT_ROUTE_CAP");
}

#[test]
fn the_main_counter_runs_only_while_enabled() {
    let mut hpet = fixture();
    hpet.advance(1000 * TICK);
    assert_eq!(hpet.get(0x0f0), 0);
    hpet.put(0x010, ENABLE);
    hpet.advance(1000 * TICK);
    assert_eq!(hpet.get(0x0f0), 1000);
    hpet.put(0x010, 0);
    hpet.advance(1000 * TICK);
    assert_eq!(hpet.get(0x0f0), 1000);
    hpet.put(0x0f0, 7);
    hpet.put(0x010, ENABLE);
    hpet.advance(TICK);
    assert_eq!(hpet.get(0x0f0), 8);
}

#[test]
fn halves_of_a_register_can_be_accessed_alone() {
    let mut hpet = fixture();
    hpet.put32(0x0f4, 0x1234_5678);
    hpet.put32(0x0f0, 0x9abc_def0);
    assert_eq!(hpet.get(0x0f0), 0x1234_5678_9abc_def0);
    let mut high = [0; 4];
    Mmio::read(&mut hpet.device, 0x0f4, &mut high).unwrap();
    assert_eq!(u32::from_le_bytes(high), 0x1234_5678);
    assert_eq!(Mmio::read(&mut hpet.device, 0x0f2, &mut high), Err(BusError::Width));
}

#[test]
fn a_one_shot_timer_gives_one_edge() {
    let mut hpet = fixture();
    hpet.put(0x120, INT_ENB | route(20));
    hpet.put(0x128, 500);
    hpet.put(0x010, ENABLE);
    hpet.advance(499 * TICK);
    assert_eq!(hpet.irqs.rises(ROUTED), 0);
    hpet.advance(TICK);
    assert_eq!(hpet.irqs.rises(ROUTED), 1);
    hpet.advance(1_000_000 * TICK);
    assert_eq!(hpet.irqs.rises(ROUTED), 1);
    assert!(hpet.irqs.level(ROUTED), "an 8259A would take a request back that falls early");
    assert_eq!(hpet.get(0x020), 0);
}

#[test]
fn a_level_triggered_timer_holds_its_line_until_its_status_is_cleared() {
    let mut hpet = fixture();
    hpet.put(0x140, INT_ENB | LEVEL | route(21));
    hpet.put(0x148, 10);
    hpet.put(0x010, ENABLE);
    hpet.advance(10 * TICK);
    assert!(hpet.irqs.level(21));
    assert_eq!(hpet.get(0x020), 1 << 2);
    hpet.put(0x020, 1 << 1);
    assert!(hpet.irqs.level(21));
    hpet.put(0x020, 1 << 2);
    assert!(!hpet.irqs.level(21));
}

#[test]
fn a_level_is_low_until_its_status_is_set_even_if_an_edge_came_before() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | route(21));
    hpet.put(0x108, 10);
    hpet.put(0x010, ENABLE);
    hpet.advance(11 * TICK); // Past the match: it shall not come again.
    assert!(hpet.irqs.level(21));
    hpet.put(0x100, LEVEL | INT_ENB | route(21));
    assert!(!hpet.irqs.level(21));
}

#[test]
fn a_timer_whose_interrupts_are_disabled_leaves_its_line() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | route(21));
    hpet.put(0x108, 10);
    hpet.put(0x010, ENABLE);
    hpet.advance(10 * TICK);
    assert!(hpet.irqs.level(21));
    hpet.put(0x100, route(21));
    assert!(!hpet.irqs.level(21));
}

#[test]
fn a_periodic_timer_adds_the_last_value_written_to_its_comparator() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | PERIODIC | VAL_SET | route(20));
    hpet.put(0x108, 100); // the comparator
    assert_eq!(hpet.get(0x100) & VAL_SET, 0, "VAL_SET clears itself");
    hpet.put(0x108, 30); // the period
    hpet.put(0x010, ENABLE);
    hpet.advance(99 * TICK);
    assert_eq!(hpet.irqs.rises(ROUTED), 0);
    hpet.advance(TICK);
    assert_eq!((hpet.irqs.rises(ROUTED), hpet.get(0x108)), (1, 130));
    hpet.advance(65 * TICK);
    assert_eq!((hpet.irqs.rises(ROUTED), hpet.get(0x108)), (3, 190));
}

#[test]
fn a_32_bit_timer_matches_again_when_the_counter_has_wrapped() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | MODE32 | route(20));
    hpet.put(0x108, 0xff_0000_0005);
    assert_eq!(hpet.get(0x108), 5);
    hpet.put(0x010, ENABLE);
    hpet.advance(5 * TICK);
    assert_eq!(hpet.irqs.rises(ROUTED), 1);
    hpet.advance((1 << 32) * TICK - 1);
    assert_eq!(hpet.irqs.rises(ROUTED), 1);
    hpet.advance(1);
    assert_eq!(hpet.irqs.rises(ROUTED), 2);
}

#[test]
fn legacy_replacement_routes_timers_0_and_1_to_irq_0_and_8() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | route(20));
    hpet.put(0x108, 5);
    hpet.put(0x120, INT_ENB | route(20));
    hpet.put(0x128, 6);
    hpet.put(0x010, LEG_RT);
    assert!(!hpet.device.legacy_replacement(), "only while ENABLE_CNF is set as well");
    hpet.put(0x010, ENABLE | LEG_RT);
    assert!(hpet.device.legacy_replacement() && hpet.irqs.level(SELECT));
    hpet.advance(10 * TICK);
    assert_eq!((hpet.irqs.rises(IRQ0), hpet.irqs.rises(IRQ8)), (1, 1));
    assert_eq!(hpet.irqs.rises(ROUTED), 0);
    hpet.put(0x010, ENABLE);
    assert!(!hpet.irqs.level(SELECT));
}

#[test]
fn a_route_that_is_not_there_is_not_taken() {
    let mut hpet = fixture();
    hpet.put(0x100, route(22));
    hpet.put(0x100, route(5));
    assert_eq!(hpet.get(0x100) & route(31), route(22));
}

#[test]
fn state_after_reset() {
    let mut hpet = fixture();
    for (register, value) in [(0x010, 0), (0x020, 0), (0x0f0, 0)] {
        assert_eq!(hpet.get(register), value, "{register:03x}h");
    }
    for timer in [0x100, 0x120, 0x140] {
        assert_eq!(hpet.get(timer), 0x00f0_0000_0000_0030, "periodic and 64 bits, disabled");
        assert_eq!(hpet.get(timer + 8), u64::MAX, "comparator");
        assert_eq!(hpet.get(timer + 0x10), 0, "no FSB delivery");
    }
}

#[test]
fn the_main_counter_is_written_only_while_it_is_halted() {
    let mut hpet = fixture();
    hpet.put(0x010, ENABLE);
    hpet.advance(100 * TICK);
    hpet.put(0x0f0, 5);
    assert_eq!(hpet.get(0x0f0), 100);
    hpet.put(0x010, 0);
    hpet.put(0x0f0, 5);
    assert_eq!(hpet.get(0x0f0), 5);
}

#[test]
fn capabilities_and_reserved_bits_cannot_be_written() {
    let mut hpet = fixture();
    hpet.put(0x000, 0);
    assert_eq!(hpet.get(0x000), 0x0098_9680_8086_a201);
    hpet.put(0x010, u64::MAX - 1);
    assert_eq!(hpet.get(0x010), LEG_RT);
    hpet.put(0x140, !(route(31) | INT_ENB));
    assert_eq!(hpet.get(0x140), 0x00f0_0000_0000_017a, "no FSB enable");
}

#[test]
fn a_disabled_timer_still_sets_its_status() {
    let mut hpet = fixture();
    hpet.put(0x140, LEVEL | route(21));
    hpet.put(0x148, 10);
    hpet.put(0x010, ENABLE);
    hpet.advance(10 * TICK);
    assert_eq!(hpet.get(0x020), 1 << 2);
    assert!(!hpet.irqs.level(21));
    hpet.put(0x140, LEVEL | INT_ENB | route(21));
    assert!(hpet.irqs.level(21), "enabled, the status asserts the line");
}

#[test]
fn enable_cnf_off_halts_and_disables_all_interrupts() {
    let mut hpet = fixture();
    hpet.put(0x140, INT_ENB | LEVEL | route(21));
    hpet.put(0x148, 10);
    hpet.put(0x010, ENABLE);
    hpet.advance(10 * TICK);
    assert!(hpet.irqs.level(21));
    hpet.put(0x010, 0);
    assert!(!hpet.irqs.level(21));
    assert_eq!(hpet.get(0x020), 1 << 2, "the status stays");
    hpet.advance(1000 * TICK);
    assert_eq!(hpet.get(0x0f0), 10);
}

#[test]
fn a_level_triggered_periodic_timer_interrupts_again_after_its_status_was_cleared() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | LEVEL | PERIODIC | VAL_SET | route(22));
    hpet.put(0x108, 50);
    hpet.put(0x108, 50);
    hpet.put(0x010, ENABLE);
    for round in 1..=3 {
        hpet.advance(50 * TICK);
        assert_eq!(hpet.irqs.rises(22), round);
        hpet.put(0x020, 1);
    }
    hpet.advance(170 * TICK);
    assert_eq!(hpet.irqs.rises(22), 4, "not again while its status shows");
}

#[test]
fn a_comparator_in_the_past_matches_when_the_counter_has_wrapped() {
    let mut hpet = fixture();
    hpet.put(0x0f0, 100);
    hpet.put(0x100, INT_ENB | route(20));
    hpet.put(0x108, 99);
    hpet.put(0x120, INT_ENB | MODE32 | route(21));
    hpet.put(0x128, 99);
    hpet.put(0x010, ENABLE);
    hpet.advance((1 << 32) * TICK);
    assert_eq!((hpet.irqs.rises(20), hpet.irqs.rises(21)), (0, 1));
}

#[test]
fn a_64_bit_counter_can_be_read_in_halves_and_wraps() {
    let mut hpet = fixture();
    hpet.put(0x0f0, u64::MAX);
    hpet.put(0x010, ENABLE);
    hpet.advance(2 * TICK);
    assert_eq!(hpet.get(0x0f0), 1);
}

#[test]
fn looking_at_the_counter_leaves_the_match_to_its_moment() {
    let mut hpet = fixture();
    hpet.put(0x100, INT_ENB | PERIODIC | VAL_SET | route(20));
    hpet.put(0x108, 10);
    hpet.put(0x108, 10);
    hpet.put(0x010, ENABLE);
    hpet.clock.advance(25 * TICK);
    assert_eq!((hpet.get(0x0f0), hpet.irqs.rises(20)), (25, 0), "its deadline comes next");
    assert_eq!(hpet.get(0x108), 30, "a comparator is up to date whenever it is read");
    assert_eq!(hpet.irqs.rises(20), 1);
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(
        steps in mmio_steps(&[
            0x000, 0x010, 0x010, 0x014, 0x020, 0x0f0, 0x0f4, 0x100, 0x104, 0x108, 0x10c, 0x110,
            0x120, 0x128, 0x140, 0x148, 0x160, 0x3ff,
        ]),
    ) {
        check(fixture, &steps);
    }
}
