//! The MC146818 against its data sheet.

use proptest::prelude::*;
use trivium_chipset::{NANOS_PER_SECOND, SaveRestore};

use super::*;
use crate::test_support::{Fixture, check, port_steps};

/// 2023-12-31 23:59:58 UTC, a Sunday.
const NEW_YEARS_EVE: u64 = 1_704_067_198;
/// 2024-10-26 00:00:00 UTC, a Saturday.
const OCTOBER_26: u64 = 1_729_900_800;
const MEMORY: CmosMemory = CmosMemory { below_4g: 3 << 30, above_4g: 5 << 30 };

fn fixture() -> Fixture<Rtc> {
    fixture_at::<NEW_YEARS_EVE>()
}

fn fixture_at<const SECONDS: u64>() -> Fixture<Rtc> {
    Fixture::new(|clock, irqs| Rtc::new(clock.clone(), irqs.line(8), UnixSeconds(SECONDS), MEMORY))
}

impl Fixture<Rtc> {
    fn get(&mut self, index: u8) -> u8 {
        self.write(0x70, index);
        self.read(0x71)
    }
    fn set(&mut self, index: u8, value: u8) {
        self.write(0x70, index);
        self.write(0x71, value);
    }
    fn seconds(&mut self, seconds: u64) {
        self.advance(seconds * NANOS_PER_SECOND);
    }
    /// Century, year, month, date, day of week, hours, minutes, seconds.
    fn time(&mut self) -> [u8; 8] {
        [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].map(|index| self.get(index))
    }
    fn set_time(&mut self, time: [u8; 8]) {
        for (index, value) in [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00].iter().zip(time) {
            self.set(*index, value);
        }
    }
}

#[test]
fn it_shows_the_given_time_in_bcd_and_goes_on() {
    let mut rtc = fixture();
    assert_eq!(rtc.time(), [0x20, 0x23, 0x12, 0x31, 1, 0x23, 0x59, 0x58]);
    rtc.seconds(1);
    assert_eq!(rtc.time(), [0x20, 0x23, 0x12, 0x31, 1, 0x23, 0x59, 0x59]);
    rtc.seconds(1);
    assert_eq!(rtc.time(), [0x20, 0x24, 0x01, 0x01, 2, 0x00, 0x00, 0x00]);
    rtc.seconds(59 * 86_400);
    assert_eq!(rtc.time(), [0x20, 0x24, 0x02, 0x29, 5, 0x00, 0x00, 0x00]);
}

#[test]
fn the_century_follows_the_year() {
    let mut rtc = fixture();
    rtc.set_time([0x20, 0x99, 0x12, 0x31, 5, 0x23, 0x59, 0x59]);
    rtc.seconds(1);
    assert_eq!(rtc.time(), [0x21, 0x00, 0x01, 0x01, 6, 0, 0, 0]);
}

#[test]
fn binary_and_12_hour_modes() {
    let mut rtc = fixture();
    for (b, before, after) in [
        (0x06, [20, 23, 12, 31, 1, 23, 59, 59], [20, 24, 1, 1, 2, 0, 0, 0]),
        (0x04, [20, 24, 1, 1, 2, 11, 59, 59], [20, 24, 1, 1, 2, 0x80 | 12, 0, 0]),
        (0x04, [20, 24, 1, 1, 2, 0x80 | 12, 59, 59], [20, 24, 1, 1, 2, 0x81, 0, 0]),
        (0x00, [0x20, 0x24, 1, 1, 2, 0x91, 0x59, 0x59], [0x20, 0x24, 1, 2, 3, 0x12, 0, 0]),
        (0x00, [0x20, 0x24, 1, 1, 2, 0x12, 0x59, 0x59], [0x20, 0x24, 1, 1, 2, 0x01, 0, 0]),
    ] {
        rtc.set(0x0b, b);
        rtc.set_time(before);
        rtc.seconds(1);
        assert_eq!(rtc.time(), after, "register B {b:02x}h");
    }
}

#[test]
fn set_inhibits_updates_and_clears_uie() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x92);
    assert_eq!(rtc.get(0x0b), 0x82);
    let before = rtc.time();
    rtc.seconds(10);
    assert_eq!(rtc.time(), before);
    assert_eq!(rtc.get(0x0c) & 0x10, 0, "no update, no flag");
    rtc.set(0x0b, 0x02);
    rtc.seconds(1);
    assert_ne!(rtc.time(), before);
}

#[test]
fn the_divider_gives_its_first_update_half_a_second_after_reset() {
    let mut rtc = fixture();
    rtc.advance(123_456_789);
    rtc.set(0x0a, 0x76);
    rtc.seconds(3);
    assert_eq!(rtc.get(0x00), 0x58);
    rtc.set(0x0a, 0x26);
    rtc.advance(499_900_000);
    assert_eq!(rtc.get(0x00), 0x58);
    rtc.advance(200_000);
    assert_eq!(rtc.get(0x00), 0x59);
}

#[test]
fn uip_is_high_from_244_microseconds_before_the_update_cycle_to_its_end() {
    let mut rtc = fixture();
    let cycle = 244_000 + 1_984_000;
    rtc.advance(NANOS_PER_SECOND - cycle - 50_000);
    assert_eq!(rtc.get(0x0a), 0x26);
    rtc.advance(100_000);
    assert_eq!(rtc.get(0x0a), 0xa6);
    rtc.advance(cycle - 100_000);
    assert_eq!((rtc.get(0x0a), rtc.get(0x00)), (0xa6, 0x58));
    rtc.advance(50_000);
    assert_eq!((rtc.get(0x0a), rtc.get(0x00)), (0x26, 0x59));
}

#[test]
fn the_update_ended_interrupt_comes_every_second_and_is_held_until_c_is_read() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x12);
    rtc.seconds(3);
    assert_eq!(rtc.irqs.rises(8), 1, "not acknowledged");
    assert_eq!(rtc.get(0x0c) & 0x90, 0x90);
    assert!(!rtc.irqs.level(8));
    assert_eq!(rtc.get(0x0c), 0);
    for _ in 0..3 {
        rtc.seconds(1);
        assert!(rtc.irqs.level(8));
        rtc.get(0x0c);
    }
}

#[test]
fn flags_are_set_without_their_enables_and_interrupt_when_enabled() {
    let mut rtc = fixture();
    rtc.seconds(1);
    assert!(!rtc.irqs.level(8));
    rtc.set(0x0b, 0x12);
    assert!(rtc.irqs.level(8));
    assert_eq!(rtc.get(0x0c) & 0x90, 0x90);
}

#[test]
fn the_alarm_takes_dont_care_bytes() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x22);
    // At 00:10:30, then every hour, then every minute.
    for (alarm, seconds) in [
        ([0x00, 0x10, 0x30], 632),
        ([0xff, 0x10, 0x30], 3_600),
        ([0xff, 0xc0, 0x30], 60),
        ([0xff, 0xc0, 0xdd], 1),
    ] {
        for (index, value) in [0x05, 0x03, 0x01].iter().zip(alarm) {
            rtc.set(*index, value);
        }
        rtc.seconds(seconds - 1);
        assert!(!rtc.irqs.level(8), "{alarm:02x?}");
        rtc.seconds(1);
        assert!(rtc.irqs.level(8), "{alarm:02x?}");
        assert_eq!(rtc.get(0x0c) & 0xa0, 0xa0);
    }
}

#[test]
fn daylight_saving_begins_on_the_last_sunday_of_april() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x03);
    for (day, weekday, after) in [(0x27, 7, 0x02), (0x28, 1, 0x03), (0x21, 1, 0x02)] {
        rtc.set_time([0x20, 0x24, 0x04, day, weekday, 0x01, 0x59, 0x59]);
        rtc.seconds(1);
        assert_eq!(rtc.time(), [0x20, 0x24, 0x04, day, weekday, after, 0, 0], "{day:x}h");
    }
    rtc.set(0x0b, 0x02);
    rtc.set_time([0x20, 0x24, 0x04, 0x28, 1, 0x01, 0x59, 0x59]);
    rtc.seconds(1);
    assert_eq!(rtc.time()[5], 0x02, "not without DSE");
}

#[test]
fn daylight_saving_ends_when_1_59_59_is_first_reached_on_the_last_sunday_of_october() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x07);
    rtc.set_time([20, 24, 10, 26, 7, 23, 0, 0]);
    rtc.seconds(3 * 3600);
    assert_eq!(rtc.time(), [20, 24, 10, 27, 1, 1, 0, 0], "the first time");
    rtc.seconds(3600);
    assert_eq!(rtc.time(), [20, 24, 10, 27, 1, 2, 0, 0], "the second time");
    rtc.seconds(24 * 3600);
    assert_eq!(rtc.time(), [20, 24, 10, 28, 2, 2, 0, 0]);
}

#[test]
fn an_alarm_at_the_hour_that_daylight_saving_jumps_to_goes_off() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x27);
    for (index, value) in [(0x05, 3), (0x03, 0), (0x01, 0)] {
        rtc.set(index, value);
    }
    rtc.set_time([20, 24, 4, 28, 1, 1, 0, 0]);
    rtc.seconds(3599);
    assert!(!rtc.irqs.level(8));
    rtc.seconds(1);
    assert!(rtc.irqs.level(8));
}

#[test]
fn an_alarm_in_12_hour_mode_tells_morning_from_afternoon() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x20);
    for (index, value) in [(0x05, 0x81), (0x03, 0), (0x01, 0)] {
        rtc.set(index, value);
    }
    rtc.set_time([0x20, 0x24, 1, 1, 2, 0x12, 0x59, 0x59]);
    rtc.seconds(1);
    assert!(!rtc.irqs.level(8), "1 AM");
    rtc.seconds(12 * 3600);
    assert!(rtc.irqs.level(8), "1 PM");
}

#[test]
fn the_divider_held_in_reset_stops_all_and_keeps_the_time() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x72);
    for divider in [0x60, 0x70] {
        rtc.set(0x0a, divider | 0x06);
        let before = rtc.time();
        rtc.seconds(100);
        assert_eq!(rtc.time(), before, "DV = {divider:02x}h");
        assert!(!rtc.irqs.level(8) && rtc.get(0x0a) & 0x80 == 0);
    }
}

#[test]
fn registers_a_and_b_are_read_as_written_but_for_uip() {
    let mut rtc = fixture();
    rtc.set(0x0a, 0xef);
    assert_eq!(rtc.get(0x0a), 0x6f);
    for b in [0x08, 0x0f, 0x82, 0x6e] {
        rtc.set(0x0b, b);
        assert_eq!(rtc.get(0x0b), b, "SQWE, the modes and the enables are kept");
    }
}

#[test]
fn reset_clears_the_enables_and_flags_and_keeps_time_and_modes() {
    let mut rtc = fixture();
    rtc.set(0x0b, 0x7e);
    rtc.seconds(1);
    let before = rtc.time();
    rtc.device.reset();
    assert_eq!((rtc.get(0x0b), rtc.get(0x0c)), (0x06, 0));
    assert_eq!(rtc.time(), before);
    assert!(!rtc.irqs.level(8));
}

/// 64 interrupts a second, the host away for half a second: how many the guest gets in the second
/// that follows.
fn ticks_after_an_absence(policy: LostTicks) -> usize {
    let mut rtc = fixture();
    rtc.device = Rtc::new(rtc.clock.clone(), rtc.irqs.line(8), UnixSeconds(NEW_YEARS_EVE), MEMORY)
        .with_lost_ticks(policy);
    rtc.set(0x0a, 0x2a);
    rtc.set(0x0b, 0x42);
    rtc.clock.advance(NANOS_PER_SECOND / 2);
    let end = rtc.clock.now().saturating_add(NANOS_PER_SECOND);
    let mut count = 0;
    while let Some(deadline) = rtc.device.deadline().filter(|deadline| *deadline <= end) {
        rtc.clock.set(deadline.max(rtc.clock.now()));
        let now = rtc.clock.now();
        rtc.device.fire(now);
        count += usize::from(rtc.get(0x0c) & 0xc0 == 0xc0);
    }
    count
}

#[test]
fn periodic_interrupts_missed_by_the_host_are_dropped_or_caught_up_with() {
    assert_eq!(ticks_after_an_absence(LostTicks::Delay), 65);
    assert_eq!(ticks_after_an_absence(LostTicks::Discard), 65);
    assert_eq!(ticks_after_an_absence(LostTicks::Catchup), 96);
}

/// A host's clock that a test sets.
#[derive(Default)]
struct TestHost(std::sync::atomic::AtomicU64);

impl HostTime for TestHost {
    fn nanos(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn a_clock_that_follows_the_host_goes_on_while_the_machine_stands() {
    let host = Arc::new(TestHost::default());
    let mut rtc = fixture();
    rtc.device = Rtc::new(rtc.clock.clone(), rtc.irqs.line(8), UnixSeconds(NEW_YEARS_EVE), MEMORY)
        .following(host.clone());
    let set = |seconds: u64| {
        host.0.store(seconds * NANOS_PER_SECOND, std::sync::atomic::Ordering::Relaxed);
    };
    set(1);
    rtc.seconds(1);
    assert_eq!(rtc.time()[5..], [0x23, 0x59, 0x59]);
    set(61);
    assert_eq!(rtc.time()[5..], [0x00, 0x00, 0x59], "a minute later");
    set(0);
    assert_eq!(rtc.time()[5..], [0x00, 0x00, 0x59], "never back");
    rtc.seconds(1);
    assert_eq!(rtc.time()[5..], [0x00, 0x01, 0x00], "and on");
    // An alarm at 00:05:00 is seen within a second of the host's time.
    for (index, value) in [(0x05, 0x00), (0x03, 0x05), (0x01, 0x00), (0x0b, 0x22)] {
        rtc.set(index, value);
    }
    set(302);
    rtc.seconds(1);
    assert!(rtc.irqs.level(8));
}

#[test]
fn floppies_and_boot_order_are_where_firmware_looks() {
    let mut rtc = fixture();
    assert_eq!((rtc.get(0x10), rtc.get(0x14)), (0x00, 0x06), "x87 and mouse");
    rtc.device.set_floppies([Some(FloppyDrive::Mib1_44), None]);
    assert_eq!((rtc.get(0x10), rtc.get(0x14)), (0x40, 0x07));
    rtc.device.set_floppies([Some(FloppyDrive::Mib1_44), Some(FloppyDrive::Mib1_2)]);
    assert_eq!((rtc.get(0x10), rtc.get(0x14)), (0x42, 0x47));
    let sum: u16 = (0x10..=0x2d).map(|index| u16::from(rtc.get(index))).sum();
    assert_eq!(u16::from_be_bytes([rtc.get(0x2e), rtc.get(0x2f)]), sum);
    let order = [Some(BootDevice::CdRom), Some(BootDevice::Disk), Some(BootDevice::Network)];
    rtc.device.set_boot_order(order, false);
    assert_eq!((rtc.get(0x3d), rtc.get(0x38)), (0x23, 0x41));
}

#[test]
fn an_alarm_that_no_time_matches_never_comes() {
    let mut rtc = fixture();
    rtc.set(0x01, 0x75);
    rtc.set(0x03, 0xff);
    rtc.set(0x05, 0xff);
    rtc.set(0x0b, 0x22);
    assert_eq!(rtc.device.deadline(), None);
    rtc.seconds(200_000);
    assert!(!rtc.irqs.level(8));
}

#[test]
fn periodic_rates_are_those_of_the_table() {
    for (rate, hertz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (13, 8), (15, 2)] {
        let mut rtc = fixture();
        rtc.set(0x0a, 0x20 | rate);
        rtc.set(0x0b, 0x42);
        let mut interrupts = 0;
        while let Some(deadline) = rtc.device.deadline() {
            if deadline > VmTime::from_nanos(NANOS_PER_SECOND) {
                break;
            }
            rtc.clock.set(deadline);
            rtc.device.fire(deadline);
            assert_eq!(rtc.get(0x0c) & 0xc0, 0xc0);
            interrupts += 1;
        }
        assert_eq!(interrupts, hertz, "RS = {rate}");
    }
}

#[test]
fn register_d_says_the_battery_is_good_and_cannot_be_written() {
    let mut rtc = fixture();
    rtc.set(0x0d, 0);
    rtc.set(0x0c, 0xff);
    assert_eq!((rtc.get(0x0d), rtc.get(0x0c)), (0x80, 0));
}

#[test]
fn cmos_memory_tells_the_sizes_of_ram() {
    let mut rtc = fixture();
    let mut word = |index| u16::from_le_bytes([rtc.get(index), rtc.get(index + 1)]);
    assert_eq!(word(0x15), 640);
    assert_eq!((word(0x17), word(0x30)), (0xffff, 0xffff));
    assert_eq!(word(0x34), (3 * 1024 - 16) * 16);
    assert_eq!((word(0x5b), word(0x5c)), (0x4000, 0x0140), "14000h units");
    let sum: u16 = (0x10..=0x2d).map(|index| u16::from(rtc.get(index))).sum();
    assert_eq!(u16::from_be_bytes([rtc.get(0x2e), rtc.get(0x2f)]), sum);
}

#[test]
fn memory_is_kept_over_reset_and_bit_7_of_the_index_masks_nmi() {
    let mut rtc = fixture();
    rtc.set(0x80 | 0x40, 0x5a);
    assert!(rtc.device.nmi_masked());
    rtc.device.reset();
    assert_eq!(rtc.get(0x40), 0x5a);
    assert!(!rtc.device.nmi_masked());
}

#[test]
fn the_address_register_is_write_only() {
    let mut rtc = fixture();
    assert_eq!(rtc.device.read(0x70, AccessWidth::Byte), Err(BusError::NoRegister));
}

#[test]
fn index_and_data_are_there_four_times() {
    let mut rtc = fixture();
    for alias in [0x72, 0x74, 0x76] {
        rtc.write(alias, 0x40);
        rtc.write(0x71, alias as u8);
        assert_eq!(rtc.read(alias + 1), alias as u8);
        rtc.write(alias + 1, 0x55);
        assert_eq!(rtc.read(0x71), 0x55);
    }
}

proptest! {
    #[test]
    fn hostile_accesses_and_restores_do_no_harm(steps in port_steps(&Rtc::PORTS)) {
        check(fixture, &steps);
    }

    #[test]
    fn hostile_accesses_do_no_harm_while_ticks_are_caught_up_with(
        steps in port_steps(&Rtc::PORTS),
    ) {
        let fixture = || Fixture::new(|clock, irqs| {
            Rtc::new(clock.clone(), irqs.line(8), UnixSeconds(NEW_YEARS_EVE), MEMORY)
                .with_lost_ticks(LostTicks::Catchup)
        });
        check(fixture, &steps);
    }

    /// Calls at every deadline and one late call come to the same registers.
    #[test]
    fn late_calls_lose_nothing(
        b in any::<u8>(),
        alarm in any::<[u8; 3]>(),
        nanos in 0..200_000 * NANOS_PER_SECOND,
        autumn in any::<bool>(),
    ) {
        let fixture = if autumn { fixture_at::<OCTOBER_26> } else { fixture };
        let (mut punctual, mut late) = (fixture(), fixture());
        for rtc in [&mut punctual, &mut late] {
            rtc.set(0x0b, b);
            for (index, value) in [0x05, 0x03, 0x01].iter().zip(alarm) {
                rtc.set(*index, value);
            }
        }
        punctual.advance(nanos / 2);
        punctual.advance(nanos - nanos / 2);
        late.clock.advance(nanos);
        late.device.fire(VmTime::from_nanos(nanos));
        punctual.device.fire(VmTime::from_nanos(nanos));
        prop_assert_eq!(punctual.device.save(), late.device.save());
    }
}
