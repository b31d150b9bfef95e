//! The PCI bus and the chip set's functions as their data sheets tell it.

use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use trivium_chipset::{
    AccessWidth, BusError, Device, IrqLine, ManualClock, PciConfig, PortIo, SaveRestore, Section,
    StateError,
};

use super::*;
use crate::acpi_pm::{ACPI_DISABLE, ACPI_ENABLE, PmTimerWidth, PmWiring};
use crate::power::{PowerSink, ResetKind};
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

impl PmWindowObserver for Log {
    fn pm_window_changed(&self, base: Option<u16>) {
        self.add(format!("PM at {base:x?}"));
    }
}

fn piix4(clock: &Arc<ManualClock>, irqs: &Arc<IrqLog>) -> Piix4Pm {
    let power = Arc::<Log>::default();
    let wiring = PmWiring { clock: clock.clone(), sci: irqs.line(9), power };
    Piix4Pm::new(PmTimerWidth::Bits24, wiring, None)
}

/// Bus 0 of the board `pc`.
fn board() -> (PciHost, Arc<Log>) {
    let log = Arc::<Log>::default();
    let wiring =
        PmWiring { clock: ManualClock::new(), sci: IrqLine::unconnected(), power: log.clone() };
    let pm = Piix4Pm::new(PmTimerWidth::Bits24, wiring, Some(log.clone()));
    let mut host = PciHost::new();
    let bridge = I440fx::new(Some(log.clone()));
    host.attach(Bdf::new(0, 0), Arc::new(Mutex::new(bridge))).unwrap();
    let isa = Piix3::new(log.clone(), Some(log.clone()));
    host.attach(Bdf::new(1, 0), Arc::new(Mutex::new(isa))).unwrap();
    host.attach(Bdf::new(1, 3), Arc::new(Mutex::new(pm))).unwrap();
    (host, log)
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
    assert_eq!(host.read(0xcf8, AccessWidth::Byte), Err(BusError::NoRegister));
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
    bridge.reset();
    assert_eq!(bridge.smram().bits(), 0x02);
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
    assert_eq!(log.take(), ["PM at Some(b000)"]);
    host.config_write(pm, 0x40, 0x600, 0xffff);
    assert_eq!(log.take(), ["PM at Some(600)"]);
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
        steps in pci_steps(&[0x600, 0x602, 0x603, 0x604, 0x605, 0x608, 0x60c, 0x60e, 0xb2, 0xb3]),
    ) {
        let enabled = || {
            let mut fixture = Fixture::new(piix4).with_poke(|pm, event| match event {
                0..16 => pm.pm().raise_gpe(event),
                _ => pm.pm().press_power_button(),
            });
            PciConfig::write(&mut fixture.device, 0x40, 0x600, 0xffff);
            PciConfig::write(&mut fixture.device, 0x80, 1, 0xff);
            fixture
        };
        check(enabled, &steps);
    }

    #[test]
    fn the_configuration_ports_survive_anything(
        steps in crate::test_support::port_steps(&[0xcf8, 0xcf9, 0xcfa, 0xcfc, 0xcfd, 0xcfe, 0xcff]),
    ) {
        check(|| Fixture::new(|_, _| board().0), &steps);
    }
}
