//! The block as the data sheet tells it.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::power::ResetKind;
use crate::test_support::IrqLog;
use trivium_chipset::ManualClock;

#[derive(Default)]
struct Supply(AtomicU32, AtomicU32);

impl SmiSink for Supply {
    fn assert_smi(&self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

impl PowerSink for Supply {
    fn power_off(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn reset(&self, _: ResetKind) {}
}

struct Bench {
    pm: AcpiPm,
    clock: Arc<ManualClock>,
    irqs: Arc<IrqLog>,
    supply: Arc<Supply>,
}

fn bench(width: PmTimerWidth) -> Bench {
    let (clock, irqs, supply) = (ManualClock::new(), IrqLog::new(), Arc::<Supply>::default());
    let (sci, power, smi) = (irqs.line(9), supply.clone(), supply.clone());
    let wiring = PmWiring { clock: clock.clone(), sci, power, smi };
    let pm = AcpiPm::new(width, wiring);
    Bench { pm, clock, irqs, supply }
}

impl Bench {
    fn get(&mut self, offset: u16) -> u32 {
        let width = if offset == 8 { AccessWidth::Dword } else { AccessWidth::Word };
        self.pm.read(offset, width).unwrap()
    }

    fn put(&mut self, offset: u16, value: u32) {
        self.pm.write(offset, AccessWidth::Word, value).unwrap();
    }

    fn sci(&self) -> bool {
        self.irqs.level(9)
    }

    fn get_dword(&mut self, offset: u16) -> u32 {
        self.pm.read(offset, AccessWidth::Dword).unwrap()
    }

    fn put_dword(&mut self, offset: u16, value: u32) {
        self.pm.write(offset, AccessWidth::Dword, value).unwrap();
    }

    /// How often SMI# was asserted since this was last asked.
    fn smis(&self) -> u32 {
        self.supply.1.swap(0, Ordering::Relaxed)
    }
}

#[test]
fn the_timer_counts_at_3_579545_mhz_and_wraps_at_its_width() {
    for (width, bits) in [(PmTimerWidth::Bits24, 24), (PmTimerWidth::Bits32, 32)] {
        let mut bench = bench(width);
        bench.clock.set(VmTime::from_nanos(1_000_000_000));
        assert_eq!(bench.get(8), 3_579_545);
        bench.clock.set(VmTime::from_ticks((1 << bits) + 7, PM_TIMER_HZ));
        assert_eq!(bench.get(8), 7, "{bits} bits");
    }
}

#[test]
fn a_change_of_the_timers_highest_bit_raises_sci() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(4, 1);
    assert_eq!(bench.pm.deadline(), None);
    bench.put(2, 1);
    let flip = VmTime::from_ticks(1 << 23, PM_TIMER_HZ);
    assert_eq!(bench.pm.deadline(), Some(flip));
    bench.clock.set(flip);
    bench.pm.fire();
    assert!(bench.sci());
    assert_eq!(bench.get(0) & 1, 1);
    bench.put(0, 1);
    assert!(!bench.sci());
    assert_eq!(bench.pm.deadline(), Some(VmTime::from_ticks(1 << 24, PM_TIMER_HZ)));
}

#[test]
fn the_power_button_raises_sci_in_acpi_mode_only() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(2, 1 << 8);
    bench.pm.press_power_button();
    assert!(!bench.sci());
    bench.put(4, 1);
    assert!(bench.sci());
    bench.put(0, 0);
    assert!(bench.sci(), "zeros clear nothing");
    bench.put(0, 1 << 8);
    assert!(!bench.sci());
}

#[test]
fn sus_en_with_sus_typ_0_switches_off() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(4, 1 << 10 | 1 << 13);
    assert_eq!(bench.supply.0.load(Ordering::Relaxed), 0);
    assert_eq!(bench.get(4), 1 << 10, "SUS_EN reads zero");
    bench.pm.write(5, AccessWidth::Byte, 0x20).unwrap();
    assert_eq!(bench.supply.0.load(Ordering::Relaxed), 1);
}

#[test]
fn general_purpose_events_raise_sci_where_enabled() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(4, 1);
    bench.pm.raise_gpe(9);
    assert!(!bench.sci());
    bench.put(0x0e, 0xffff);
    assert!(bench.sci());
    assert_eq!(bench.get(0x0c), 1 << 9);
    bench.put(0x0c, 1 << 9);
    assert!(!bench.sci());
    bench.pm.raise_gpe(200);
    assert_eq!(bench.get(0x0c), 0);
}

#[test]
fn accesses_that_cross_a_double_word_are_left_to_the_bus() {
    let mut bench = bench(PmTimerWidth::Bits24);
    assert_eq!(bench.pm.read(2, AccessWidth::Dword), Err(BusError::Width));
    assert_eq!(bench.pm.read(9, AccessWidth::Dword), Err(BusError::Width));
    assert_eq!(bench.pm.read(0x24, AccessWidth::Byte), Err(BusError::NoRegister));
    assert_eq!(bench.pm.read(0x40, AccessWidth::Byte), Err(BusError::NoRegister));
}

#[test]
fn status_and_enable_are_written_together_by_a_double_word() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.pm.press_power_button();
    bench.put_dword(0, 0xffff_0100);
    assert_eq!(bench.get_dword(0), 0x0521_0000);
    bench.put_dword(0xc, 0xffff_ffff);
    assert_eq!(bench.get_dword(0xc), 0x0f01_0000);
}

#[test]
fn registers_of_the_global_block_keep_what_they_have_bits_for() {
    let mut bench = bench(PmTimerWidth::Bits24);
    assert_eq!(bench.get_dword(0x34), 0x7fff_bfff, "GPOREG after reset");
    let cases = [(0x10, 0x1a1e), (0x18, 0), (0x1c, 0), (0x20, 0x0d03), (0x2c, u32::MAX)];
    for (offset, expected) in cases {
        bench.put_dword(offset, u32::MAX);
        assert_eq!(bench.get_dword(offset), expected, "{offset:x}");
    }
    for offset in [0x14, 0x15] {
        assert_eq!(bench.pm.read(offset, AccessWidth::Byte), Ok(0), "P_LVL2 and P_LVL3");
    }
    bench.pm.write(0x37, AccessWidth::Byte, 0x12).unwrap();
    assert_eq!(bench.get_dword(0x34), 0x12ff_bfff);
}

#[test]
fn without_sci_en_events_assert_smi() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(2, 1 << 8);
    bench.put_dword(0x28, 1);
    bench.pm.press_power_button();
    assert_eq!((bench.smis(), bench.sci()), (1, false));
    assert_eq!(bench.get(0x18), 1 << 7, "GP_STS");
    bench.pm.press_power_button();
    assert_eq!(bench.smis(), 0, "the same event still waits");
    bench.put(0, 1 << 8);
    assert_eq!(bench.get(0x18), 0);
    bench.pm.press_power_button();
    assert_eq!(bench.smis(), 1);
}

#[test]
fn apmc_asserts_smi_where_apmc_en_and_smi_en_are_set() {
    let mut bench = bench(PmTimerWidth::Bits24);
    let command = |bench: &mut Bench| {
        bench.pm.write_apm(APMC, AccessWidth::Byte, 0x55).unwrap();
        bench.smis()
    };
    assert_eq!((command(&mut bench), bench.get(0x18)), (0, 0));
    bench.pm.set_apm_smi(true);
    assert_eq!((command(&mut bench), bench.get(0x18)), (0, 1 << 5), "SMI_EN is clear");
    bench.put_dword(0x28, 1);
    assert_eq!(command(&mut bench), 1);
    bench.put_dword(0x28, 1 << 16 | 1);
    assert_eq!((bench.smis(), bench.get_dword(0x28)), (1, 1), "EOS: APM_STS still waits");
    bench.put(0x18, 1 << 5);
    bench.put_dword(0x28, 1 << 16 | 1);
    assert_eq!((bench.smis(), bench.get_dword(0x28)), (0, 1 << 16 | 1));
    assert_eq!(command(&mut bench), 1);
    assert_eq!(bench.get_dword(0x28), 1, "EOS is cleared as SMI# is asserted");
}

#[test]
fn gbl_rls_raises_smi_and_bios_rls_sci() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put_dword(0x28, 1);
    bench.put(0x20, 1 << 1);
    bench.put(4, 1 << 2 | 1);
    assert_eq!((bench.smis(), bench.get(0x18), bench.get(4)), (1, 1 << 1, 1));
    bench.put(2, 1 << 5);
    bench.put_dword(0x28, 1 << 1 | 1);
    assert!(bench.sci());
    assert_eq!((bench.get(0), bench.get_dword(0x28)), (1 << 5, 1), "BIOS_RLS reads zero");
}

#[test]
fn an_enabled_event_ends_powered_on_suspend_and_sets_rsm_sts() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(2, 1 << 10);
    bench.put(4, 1 << 13 | 4 << 10 | 1);
    bench.pm.press_power_button();
    assert_eq!(bench.get(0) >> 15, 0, "not enabled");
    bench.pm.set_rtc_interrupt(true);
    assert_eq!(bench.get(0), 1 << 15 | 1 << 10 | 1 << 8);
    assert!(bench.sci());
}

#[test]
fn suspend_to_ram_is_not_there() {
    let mut bench = bench(PmTimerWidth::Bits24);
    bench.put(4, 1 << 13 | 1 << 10);
    assert_eq!(bench.supply.0.load(Ordering::Relaxed), 0);
    assert_eq!(bench.get(4), 1 << 10);
}
