//! The PCI bus and the chip set's functions as their data sheets tell it.

use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use trivium_chipset::{
    AccessWidth, BusError, Device, ManualClock, PciConfig, PortIo, SaveRestore, Section, StateError,
};

use super::*;
use crate::acpi_pm::{ACPI_DISABLE, ACPI_ENABLE, PmTimerWidth, PmWiring};
use crate::power::{PowerSink, ResetKind, SmiSink};
use crate::smbus::{SmbusBus, SmbusHost, spd_eeproms};
use crate::test_support::{Fixture, IrqLog, check, pci_steps};

/// Writes down what it is told, whoever tells it.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Log {
    fn add(&self, entry: String) {
        self.lock().push(entry);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap()
    }
}

impl PowerSink for Log {
    fn power_off(&self) {
        self.add("power off".into());
    }

    fn reset(&self, kind: ResetKind) {
        self.add(format!("{kind:?} reset"));
    }
}

impl PirqObserver for Log {
    fn pirq_routed(&self, pirq: u8, irq: Option<u8>) {
        if irq.is_some() {
            self.add(format!("PIRQ {pirq} to {irq:?}"));
        }
    }
}

impl HostBridgeObserver for Log {
    fn pam_changed(&self, region: PamRegion) {
        let PamRegion { base, size, read_ram, write_ram } = region;
        self.add(format!("{base:x}+{size:x} read {read_ram} write {write_ram}"));
    }

    fn smram_changed(&self, smram: Smram) {
        self.add(format!("SMRAMC {:02x}", smram.bits()));
    }
}

impl WindowSink for Log {
    fn window_moved(&self, number: usize, window: Option<Window>) {
        self.add(format!("window {number} at {:x?}", window.map(|window| window.base)));
    }
}

impl SmiSink for Log {
    fn assert_smi(&self) {
        self.add("SMI".into());
    }
}

/// The power management function, with a module of 128 MiB on its SMBus.
fn new_piix4(clock: &Arc<ManualClock>, irqs: &Arc<IrqLog>, log: Arc<Log>) -> Piix4Pm {
    let (power, smi) = (log.clone(), log.clone());
    let wiring = PmWiring { clock: clock.clone(), sci: irqs.line(9), power, smi };
    let mut bus = SmbusBus::default();
    for (address, eeprom) in spd_eeproms(128) {
        bus.attach(address, eeprom);
    }
    let smbus = SmbusHost::new(clock.clone(), irqs.line(10), log.clone(), bus);
    Piix4Pm::new(PmTimerWidth::Bits24, wiring, smbus, Some(log))
}

fn piix4(clock: &Arc<ManualClock>, irqs: &Arc<IrqLog>) -> Piix4Pm {
    new_piix4(clock, irqs, Arc::default())
}

/// Bus 0 of the board `pc`.
fn board() -> (PciHost, Arc<Log>) {
    let log = Arc::<Log>::default();
    (functions(&log)(), log)
}

/// Makes bus 0 of the board `pc`, each time with the same functions.
fn functions(log: &Arc<Log>) -> impl Fn() -> PciHost + use<> {
    let pm = new_piix4(&ManualClock::new(), &IrqLog::new(), log.clone());
    let pm = Arc::new(Mutex::new(pm));
    let bridge = Arc::new(Mutex::new(I440fx::new(Some(log.clone()))));
    let isa = Arc::new(Mutex::new(Piix3::new(log.clone(), Some(log.clone()))));
    move || {
        let mut host = PciHost::new();
        host.attach(Bdf::new(0, 0), bridge.clone()).unwrap();
        host.attach(Bdf::new(1, 0), isa.clone()).unwrap();
        host.attach(Bdf::new(1, 3), pm.clone()).unwrap();
        host
    }
}

fn select(host: &mut PciHost, place: Bdf, offset: u8) {
    let address = 1 << 31
        | u32::from(place.bus) << 16
        | u32::from(place.device) << 11
        | u32::from(place.function) << 8
        | u32::from(offset);
    host.write(0xcf8, AccessWidth::Dword, address).unwrap();
}

#[test]
fn the_functions_are_found_by_mechanism_1() {
    let (mut host, _) = board();
    let found = [((0, 0), 0x1237_8086), ((1, 0), 0x7000_8086), ((1, 3), 0x7113_8086)];
    for ((device, function), id) in found {
        select(&mut host, Bdf::new(device, function), 0);
        assert_eq!(host.read(0xcfc, AccessWidth::Dword), Ok(id));
    }
    select(&mut host, Bdf::new(0, 0), 8);
    assert_eq!(host.read(0xcfe, AccessWidth::Word), Ok(0x0600), "class: host bridge");
    select(&mut host, Bdf::new(1, 0), 0x0c);
    assert_eq!(host.read(0xcfe, AccessWidth::Byte), Ok(0x80), "several functions");
}

#[test]
fn absent_functions_read_as_all_ones() {
    let (mut host, _) = board();
    let other_bus = Bdf { bus: 1, device: 0, function: 0 };
    for place in [Bdf::new(1, 1), Bdf::new(2, 0), Bdf::new(31, 7), other_bus] {
        select(&mut host, place, 0);
        assert_eq!(host.read(0xcfc, AccessWidth::Dword), Ok(0xffff_ffff), "{place}");
        assert_eq!(host.read(0xcfe, AccessWidth::Byte), Ok(0xff), "{place}");
        host.write(0xcfc, AccessWidth::Dword, 0).unwrap();
    }
}

#[test]
fn only_dword_accesses_reach_confadd_and_confdata_needs_its_enable_bit() {
    let (mut host, _) = board();
    host.write(0xcf8, AccessWidth::Dword, 0x8000_0003).unwrap();
    assert_eq!(host.read(0xcf8, AccessWidth::Dword), Ok(0x8000_0000));
    assert_eq!(host.write(0xcf9, AccessWidth::Byte, 6), Err(BusError::NoRegister));
    assert_eq!(host.read(0xcf8, AccessWidth::Word), Err(BusError::NoRegister));
    assert_eq!(host.read(0xcfd, AccessWidth::Dword), Err(BusError::Width));
    host.write(0xcf8, AccessWidth::Dword, 0).unwrap();
    assert_eq!(host.read(0xcfc, AccessWidth::Dword), Err(BusError::NoRegister));
}

#[test]
fn a_place_is_taken_once() {
    let (mut host, _) = board();
    let log = Arc::<Log>::default();
    let bridge = || Arc::new(Mutex::new(Piix3::new(log.clone(), None)));
    assert_eq!(host.attach(Bdf::new(1, 0), bridge()), Err(PciError::Occupied(Bdf::new(1, 0))));
    let nowhere = Bdf::new(32, 0);
    assert_eq!(host.attach(nowhere, bridge()), Err(PciError::NoSuchSlot(nowhere)));
}

#[test]
fn pam_registers_say_which_regions_are_ram() {
    let (mut host, log) = board();
    select(&mut host, Bdf::new(0, 0), 0x58);
    host.write(0xcfd, AccessWidth::Byte, 0x30).unwrap();
    assert_eq!(log.take(), ["f0000+10000 read true write true"]);
    host.write(0xcfe, AccessWidth::Byte, 0x21).unwrap();
    assert_eq!(
        log.take(),
        ["c0000+4000 read true write false", "c4000+4000 read false write true"]
    );
    select(&mut host, Bdf::new(0, 0), 0x5c);
    host.write(0xcff, AccessWidth::Byte, 0xff).unwrap();
    assert_eq!(log.take(), ["e8000+4000 read true write true", "ec000+4000 read true write true"]);
    assert_eq!(host.read(0xcff, AccessWidth::Byte), Ok(0x33), "reserved bits");
}

#[test]
fn smram_locks_until_reset() {
    let mut bridge = I440fx::new(None);
    assert_eq!(bridge.smram().bits(), 0x02);
    PciConfig::write(&mut bridge, 0x70, 0x48 << 16, 0xff << 16);
    assert_eq!(bridge.smram().bits(), 0x4a);
    PciConfig::write(&mut bridge, 0x70, 0x58 << 16, 0xff << 16);
    assert_eq!(bridge.smram().bits(), 0x1a, "D_LCK clears D_OPEN");
    PciConfig::write(&mut bridge, 0x70, 0x48 << 16, 0xff << 16);
    assert_eq!(bridge.smram().bits(), 0x1a);
    PciConfig::write(&mut bridge, 0x70, 0x68 << 16, 0xff << 16);
    assert_eq!(bridge.smram().bits(), 0x3a, "D_CLS can still be written");
    bridge.reset();
    assert_eq!(bridge.smram().bits(), 0x02);
}

/// The double words of configuration space that are not zero.
fn not_zero(function: &mut dyn PciConfig) -> Vec<(u8, u32)> {
    let all = (0..=252u8).step_by(4).map(|offset| (offset, function.read(offset)));
    all.filter(|(_, value)| *value != 0).collect()
}

#[test]
fn the_host_bridges_registers_have_their_reset_values() {
    let mut bridge = I440fx::new(None);
    let reset = vec![
        (0x00, 0x1237_8086),
        (0x04, 0x0280_0006),
        (0x08, 0x0600_0002),
        (0x50, 0x8000_0000), // DBC
        (0x54, 0x0100_0000), // DRAMC
        (0x58, 0x0000_0010), // DRAMT
        (0x60, 0x0101_0101), // DRB
        (0x64, 0x0101_0101),
        (0x70, 0x0002_1000), // CLT, SMRAMC
    ];
    assert_eq!(not_zero(&mut bridge), reset);
    for offset in (0..=252).step_by(4) {
        PciConfig::write(&mut bridge, offset, u32::MAX, u32::MAX);
    }
    assert_eq!(PciConfig::read(&mut bridge, 0x00), 0x1237_8086, "read-only");
    assert_eq!(PciConfig::read(&mut bridge, 0x5c), 0x3333_3333, "PAM3 to PAM6");
    bridge.reset();
    assert_eq!(not_zero(&mut bridge), reset);
}

#[test]
fn the_isa_bridges_registers_have_their_reset_values() {
    let mut bridge = Piix3::new(Arc::<Log>::default(), None);
    let reset = vec![
        (0x00, 0x7000_8086),
        (0x04, 0x0200_0007),
        (0x08, 0x0601_0000),
        (0x0c, 0x0080_0000), // several functions
        (0x4c, 0x0003_004d), // IORT, XBCS
        (0x60, 0x8080_8080), // PIRQRC
        (0x68, 0x0000_0200), // TOM
        (0x70, 0x0000_0080), // MBIRQ0
        (0x74, 0x0c0c_0000), // MBDMA
        (0x78, 0x0000_0002), // PCSC
        (0xa0, 0x0000_0008), // SMICNTL
        (0xa8, 0x0000_000f), // FTMR
    ];
    assert_eq!(not_zero(&mut bridge), reset);
    PciConfig::write(&mut bridge, 0x60, u32::MAX, u32::MAX);
    assert_eq!(PciConfig::read(&mut bridge, 0x60), 0x8f8f_8f8f);
    bridge.reset();
    assert_eq!(not_zero(&mut bridge), reset);
}

#[test]
fn interrupt_line_is_for_notes_and_interrupt_pin_is_fixed() {
    let mut pm = piix4(&ManualClock::new(), &IrqLog::new());
    assert_eq!(PciConfig::read(&mut pm, 0x3c), 0x0100, "INTA#");
    PciConfig::write(&mut pm, 0x3c, 0xffff_ff09, u32::MAX);
    assert_eq!(PciConfig::read(&mut pm, 0x3c), 0x0109);
}

#[test]
fn mechanism_2_has_256_ports_for_each_device_while_its_key_is_not_zero() {
    let (mut host, log) = board();
    host.set_window_sink(log.clone());
    assert_eq!(host.read(0xc000, AccessWidth::Dword), Err(BusError::NoRegister));
    host.write(0xcf8, AccessWidth::Byte, 0xf0).unwrap();
    assert_eq!(log.take(), ["window 0 at Some(c000)"]);
    assert_eq!(host.read(0xcf8, AccessWidth::Byte), Ok(0xf0));
    assert_eq!(host.read(0xc000, AccessWidth::Dword), Ok(0x1237_8086));
    assert_eq!(host.read(0xc102, AccessWidth::Word), Ok(0x7000));
    assert_eq!(host.read(0xc200, AccessWidth::Dword), Ok(u32::MAX), "no such device");
    assert_eq!(host.read(0xc101, AccessWidth::Dword), Err(BusError::Width));
    host.write(0xcf8, AccessWidth::Byte, 0xf0 | 3 << 1).unwrap();
    assert_eq!(host.read(0xc100, AccessWidth::Dword), Ok(0x7113_8086), "function 3");
    host.write(0xcfa, AccessWidth::Byte, 1).unwrap();
    assert_eq!(host.read(0xcfa, AccessWidth::Byte), Ok(1));
    assert_eq!(host.read(0xc100, AccessWidth::Dword), Ok(u32::MAX), "bus 1");
    assert_eq!(host.read(0xcf8, AccessWidth::Dword), Ok(0), "CONFADD is another register");
    host.reset();
    assert_eq!(log.take().last().unwrap(), "window 0 at None");
}

#[test]
fn a_cycle_that_nobody_answers_is_a_master_abort() {
    let (mut host, log) = board();
    let heard = log.clone();
    host.set_master_abort_sink(move || heard.add("abort".into()));
    let _ = host.config_read(Bdf::new(0, 0), 0);
    assert_eq!(log.take(), [""; 0]);
    let _ = host.config_read(Bdf::new(5, 0), 0);
    host.config_write(Bdf::new(5, 0), 4, 7, 0xffff);
    assert_eq!(log.take(), ["abort", "abort"]);
    let mut bridge = I440fx::new(None);
    bridge.note_master_abort();
    assert_eq!(PciConfig::read(&mut bridge, 4) >> 16, 0x2280);
    PciConfig::write(&mut bridge, 4, 0x2000_0000, 0xffff_0000);
    assert_eq!(PciConfig::read(&mut bridge, 4) >> 16, 0x0280, "cleared by a one");
}

#[test]
fn the_smbus_appears_at_smbba_when_ports_are_enabled() {
    let mut fixture = Fixture::new(piix4);
    let pm = &mut fixture.device;
    PciConfig::write(pm, 0x90, 0x700, 0xffff);
    assert_eq!(PciConfig::read(pm, 0x90), 0x701);
    assert_eq!(PortIo::read(pm, 0x702, AccessWidth::Byte), Err(BusError::NoRegister));
    PciConfig::write(pm, 4, 1, 0xffff);
    PciConfig::write(pm, 0xd0, 0x09 << 16, 0xff << 16);
    // Byte 2 of the first module: synchronous DRAM.
    for (port, value) in [(0x704, 0xa1), (0x703, 2), (0x702, 0x48)] {
        pm.write_byte(port, value);
    }
    assert_eq!(PortIo::read(pm, 0x700, AccessWidth::Byte), Ok(1));
    fixture.advance(1_000_000);
    assert_eq!((fixture.read(0x700), fixture.read(0x705)), (2, 4));
}

#[test]
fn apmc_en_of_devactb_makes_apmc_assert_smi() {
    let log = Arc::<Log>::default();
    let mut pm = new_piix4(&ManualClock::new(), &IrqLog::new(), log.clone());
    PciConfig::write(&mut pm, 0x40, 0x600, 0xffff);
    PciConfig::write(&mut pm, 0x80, 1, 0xff);
    PortIo::write(&mut pm, 0x628, AccessWidth::Dword, 1).unwrap();
    log.take();
    pm.write_byte(0xb2, 0);
    assert_eq!(log.take(), [""; 0]);
    PciConfig::write(&mut pm, 0x58, 1 << 25, u32::MAX);
    pm.write_byte(0xb2, 0);
    assert_eq!(log.take(), ["SMI"]);
}

#[test]
fn pirqs_are_routed_to_isa_interrupts() {
    let log = Arc::<Log>::default();
    let mut bridge = Piix3::new(log.clone(), Some(log.clone()));
    assert_eq!((0..4).find_map(|pirq| bridge.pirq_route(pirq)), None, "none after reset");
    PciConfig::write(&mut bridge, 0x60, 0x8a0d_0b0a, u32::MAX);
    assert_eq!(bridge.pirq_route(0), Some(10));
    assert_eq!(bridge.pirq_route(1), Some(11));
    assert_eq!(bridge.pirq_route(2), None, "IRQ 13 is reserved");
    assert_eq!(bridge.pirq_route(3), None, "not enabled");
    assert_eq!(log.take(), ["PIRQ 0 to Some(10)", "PIRQ 1 to Some(11)"]);
}

#[test]
fn a_rise_of_rcpu_resets_the_machine_or_the_processor() {
    let log = Arc::<Log>::default();
    let mut bridge = Piix3::new(log.clone(), None);
    let mut put = |value| bridge.write_byte(0xcf9, value);
    put(0x02);
    assert_eq!(log.take(), [""; 0]);
    put(0x06);
    put(0x06);
    assert_eq!(log.take(), ["Hard reset"]);
    put(0x00);
    put(0x04);
    assert_eq!(log.take(), ["Soft reset"]);
}

trait WriteByte {
    fn write_byte(&mut self, port: u16, value: u8);
}

impl<D: PortIo> WriteByte for D {
    fn write_byte(&mut self, port: u16, value: u8) {
        self.write(port, AccessWidth::Byte, value.into()).unwrap();
    }
}

#[test]
fn acpi_registers_appear_at_pmbase_when_pmiose_is_set() {
    let (host, log) = board();
    let pm = Bdf::new(1, 3);
    assert_eq!(host.config_read(pm, 0x40), 1, "an I/O base");
    host.config_write(pm, 0x40, 0xffff_b03f, u32::MAX);
    assert_eq!(host.config_read(pm, 0x40), 0xb001);
    assert_eq!(log.take(), [""; 0]);
    host.config_write(pm, 0x80, 1, 0xff);
    assert_eq!(log.take(), ["window 0 at Some(b000)"]);
    host.config_write(pm, 0x40, 0x600, 0xffff);
    assert_eq!(log.take(), ["window 0 at Some(600)"]);
}

#[test]
fn the_pm_function_decodes_its_window_and_the_apm_ports() {
    let mut fixture = Fixture::new(piix4);
    let pm = &mut fixture.device;
    assert_eq!(PortIo::read(pm, 0x604, AccessWidth::Word), Err(BusError::NoRegister));
    PciConfig::write(pm, 0x40, 0x600, 0xffff);
    PciConfig::write(pm, 0x80, 1, 0xff);
    assert_eq!(PortIo::read(pm, 0x604, AccessWidth::Word), Ok(0));
    pm.write_byte(0xb2, ACPI_ENABLE);
    assert_eq!(PortIo::read(pm, 0x604, AccessWidth::Word), Ok(1));
    assert_eq!(PortIo::read(pm, 0xb2, AccessWidth::Byte), Ok(ACPI_ENABLE.into()));
    pm.write_byte(0xb2, ACPI_DISABLE);
    assert_eq!(PortIo::read(pm, 0x604, AccessWidth::Word), Ok(0));
    assert_eq!(PortIo::read(pm, 0x640, AccessWidth::Byte), Err(BusError::NoRegister));
}

#[test]
fn a_section_of_another_function_is_refused_and_changes_nothing() {
    let log = Arc::<Log>::default();
    let mut isa = Piix3::new(log.clone(), None);
    let before = isa.save();
    let other = I440fx::new(None).save();
    assert!(isa.restore(&other).is_err());
    let later = Section { version: 2, ..before.clone() };
    assert_eq!(isa.restore(&later), Err(StateError::Version { found: 2, known: 1 }));
    assert_eq!(isa.save(), before);
}

/// Ports of the ACPI registers at 600h, of the SMBus at 700h, and of APM.
const PM_PORTS: [u16; 23] = [
    0x600, 0x602, 0x603, 0x604, 0x605, 0x608, 0x60c, 0x60e, 0x618, 0x620, 0x628, 0x62a, 0xb2, 0xb3,
    0x700, 0x702, 0x703, 0x704, 0x705, 0x706, 0x707, 0x708, 0x70a,
];

proptest! {
    #[test]
    fn the_host_bridge_survives_anything(steps in pci_steps(&[])) {
        check(|| Fixture::new(|_, _| I440fx::new(None)), &steps);
    }

    #[test]
    fn the_isa_bridge_survives_anything(steps in pci_steps(&[0xcf9])) {
        check(|| Fixture::new(|_, _| Piix3::new(Arc::<Log>::default(), None)), &steps);
    }

    #[test]
    fn the_pm_function_survives_anything(
        steps in pci_steps(&PM_PORTS),
    ) {
        let enabled = || {
            let mut fixture = Fixture::new(piix4).with_poke(|pm, event| match event {
                0..16 => pm.pm().raise_gpe(event),
                16..32 => pm.pm().set_rtc_interrupt(event & 1 != 0),
                _ => pm.pm().press_power_button(),
            });
            PciConfig::write(&mut fixture.device, 0x40, 0x600, 0xffff);
            PciConfig::write(&mut fixture.device, 0x80, 1, 0xff);
            PciConfig::write(&mut fixture.device, 0x90, 0x700, 0xffff);
            PciConfig::write(&mut fixture.device, 0x04, 1, 0xff);
            PciConfig::write(&mut fixture.device, 0xd0, 0x09 << 16, 0xff << 16);
            fixture
        };
        check(enabled, &steps);
    }

    #[test]
    fn the_configuration_ports_survive_anything(
        steps in crate::test_support::port_steps(&[
            0xcf8, 0xcf9, 0xcfa, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0xc000, 0xc104, 0xc1ff,
        ]),
    ) {
        let fixture = || {
            let make = functions(&Arc::default());
            Fixture::new(move |_, _| make())
        };
        check(fixture, &steps);
    }
}
