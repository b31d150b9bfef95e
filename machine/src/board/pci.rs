//! The PCI bus of the board `pc`: the chip set's functions, and what they do to the rest of the board.

use std::sync::{Arc, Mutex, OnceLock};

use trivium_chipset::{Device, IrqLine, IrqSink};
use trivium_devices::acpi_pm::{PmTimerWidth, PmWiring};
use trivium_devices::apic::LocalApic;
use trivium_devices::pci::{
    Bdf, HostBridgeObserver, I440fx, PamRegion, PciHost, Piix3, Piix4Pm, Smram,
};
use trivium_devices::power::SmiSink;
use trivium_devices::smbus::{SmbusBus, SmbusHost, spd_eeproms};
use trivium_firmware::acpi::pc as addresses;
use trivium_memory::GuestMemory;

use super::pc::{BoardParts, Builder, share};
use crate::apics::LocalApics;
use crate::config::ConfigError;
use crate::control::{Control, lock};
use crate::layout::{ArenaLayout, ShadowMap};
use crate::router::source;

/// The host bridge.
pub(crate) const HOST_BRIDGE: Bdf = Bdf::new(0, 0);
/// The ISA bridge.
pub(crate) const ISA_BRIDGE: Bdf = Bdf::new(1, 0);
/// The power management function.
pub(crate) const POWER_MANAGEMENT: Bdf = Bdf::new(1, 3);
/// CF8h to CFFh, of which CF9h is the ISA bridge's.
const PCI_PORTS: [(u16, u16); 2] = [(0xcf8, 1), (0xcfa, 6)];
/// Reset control.
const RESET_CONTROL: u16 = 0xcf9;
/// The APM ports.
const APM_PORTS: u16 = 0xb2;

/// What the host bridge says of the memory map.
pub(crate) struct MemoryMapper {
    memory: Arc<GuestMemory>,
    layout: ArenaLayout,
    shadow: Mutex<ShadowMap>,
    control: Arc<Control>,
}

impl MemoryMapper {
    fn change(&self, change: impl FnOnce(&mut ShadowMap) -> bool) {
        let mut shadow = lock(&self.shadow);
        if change(&mut shadow) {
            self.memory.set_maps(self.layout.maps(&shadow));
            for processor in self.control.processors() {
                processor.attend();
            }
        }
    }

    /// A write to what is not RAM for reads: DRAM takes it where the PAM registers say so.
    pub(crate) fn write_behind_rom(&self, gpa: u64, data: &[u8]) -> bool {
        let takes = lock(&self.shadow).takes_writes(gpa);
        if takes && let Ok(offset) = usize::try_from(gpa) {
            self.memory.write_arena(offset, data);
        }
        takes
    }
}

impl HostBridgeObserver for MemoryMapper {
    fn pam_changed(&self, region: PamRegion) {
        self.change(|shadow| shadow.set(region));
    }

    fn smram_changed(&self, smram: Smram) {
        self.change(|shadow| shadow.set_smram(smram));
    }
}

/// SMI#, which goes to all processors.
struct SmiLine(Arc<LocalApics>);

impl SmiSink for SmiLine {
    fn assert_smi(&self) {
        for cpu in 0..self.0.len() {
            self.0.with(cpu, LocalApic::assert_smi);
        }
    }
}

/// The real-time clock's interrupt: it goes to IRQ 8, and to the power management function, which
/// notes it. Called with the clock locked.
pub(crate) struct RtcWake {
    irq: IrqLine,
    power: OnceLock<Arc<Mutex<Piix4Pm>>>,
}

impl RtcWake {
    pub(super) fn new(irq: IrqLine) -> Arc<Self> {
        Arc::new(Self { irq, power: OnceLock::new() })
    }
}

impl IrqSink for RtcWake {
    fn set_level(&self, _: u32, _: u32, high: bool) {
        self.irq.set(high);
        if let Some(power) = self.power.get() {
            lock(power).pm().set_rtc_interrupt(high);
        }
    }
}

/// The PCI bus and what else of it the board reaches.
pub(crate) struct PciBus {
    pub(crate) host: Arc<Mutex<PciHost>>,
    pub(crate) power: Arc<Mutex<Piix4Pm>>,
    pub(crate) mapper: Arc<MemoryMapper>,
}

impl Builder<'_> {
    /// The PCI bus with the chip set's functions.
    pub(super) fn pci(&mut self) -> Result<PciBus, ConfigError> {
        let (host_bridge, mapper) = self.host_bridge();
        let control = &self.parts.control;
        let isa_bridge = share(Piix3::new(control.clone(), Some(self.router.clone())));
        self.add("i440fx", &host_bridge);
        self.add_at("piix3", &isa_bridge, &[RESET_CONTROL])?;
        let power = share(self.power_management());
        // It is set once: a board has one such function.
        let _ = self.rtc_wake.power.set(power.clone());
        self.add_ports("piix4-pm", &power, &[(APM_PORTS, 2)])?;
        let host = share(PciHost::new());
        lock(&host).set_window_sink(self.next_windows());
        self.add_ports("pci", &host, &PCI_PORTS)?;
        let mut bus = lock(&host);
        let bridge = host_bridge.clone();
        bus.set_master_abort_sink(move || lock(&bridge).note_master_abort());
        // The places are free: they differ.
        let _ = bus.attach(HOST_BRIDGE, host_bridge);
        let _ = bus.attach(ISA_BRIDGE, isa_bridge);
        let _ = bus.attach(POWER_MANAGEMENT, power.clone());
        drop(bus);
        Ok(PciBus { host, power, mapper })
    }

    /// The power management function, with the memory modules on its SMBus. It is put on the board
    /// next.
    fn power_management(&self) -> Piix4Pm {
        let smi = Arc::new(SmiLine(self.apics.clone()));
        let mut modules = SmbusBus::default();
        for (address, eeprom) in spd_eeproms(self.parts.layout.ram_size() >> 20) {
            modules.attach(address, eeprom);
        }
        let irq9 = |source| self.line(addresses::SCI_IRQ.into(), source);
        let irq = irq9(source::SMBUS);
        let smbus = SmbusHost::new(self.clock.clone(), irq, smi.clone(), modules);
        let wiring = PmWiring {
            clock: self.clock.clone(),
            sci: irq9(source::ACPI),
            power: self.parts.control.clone(),
            smi,
        };
        Piix4Pm::new(PmTimerWidth::Bits24, wiring, smbus, Some(self.next_windows()))
    }

    /// The host bridge; the memory map is then that after reset.
    fn host_bridge(&self) -> (Arc<Mutex<I440fx>>, Arc<MemoryMapper>) {
        let BoardParts { memory, layout, control, .. } = self.parts;
        memory.set_map(layout.map(&ShadowMap::default()));
        let mapper = Arc::new(MemoryMapper {
            memory: memory.clone(),
            layout: *layout,
            shadow: Mutex::default(),
            control: control.clone(),
        });
        let mut host_bridge = I440fx::new(Some(mapper.clone()));
        host_bridge.reset(); // So that the map is told of the state after reset.
        (share(host_bridge), mapper)
    }
}
