//! The PCI bus of the board `pc`: the chip set's functions, and what they do to the rest of the board.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use trivium_chipset::Device;
use trivium_devices::acpi_pm::{PM_BLOCK_SIZE, PmTimerWidth, PmWiring};
use trivium_devices::pci::{
    Bdf, HostBridgeObserver, I440fx, PamRegion, PciHost, Piix3, Piix4Pm, PmWindowObserver, Smram,
};
use trivium_firmware::acpi::pc as addresses;
use trivium_memory::GuestMemory;

use super::pc::{BoardParts, Builder, share};
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

/// Where the power management function's ports are: firmware says so.
#[derive(Default)]
pub(crate) struct PmWindow {
    /// The first port, 0 for nowhere, and the function's slot in the upper half.
    base: AtomicU32,
    slot: AtomicU32,
}

impl PmWindow {
    /// The function's slot, if a port is one of its.
    pub(crate) fn slot_of(&self, port: u16) -> Option<usize> {
        let base = u16::try_from(self.base.load(Ordering::Relaxed)).ok().filter(|b| *b != 0)?;
        let inside = port.checked_sub(base)? < PM_BLOCK_SIZE;
        inside.then(|| self.slot.load(Ordering::Relaxed) as usize)
    }
}

impl PmWindowObserver for PmWindow {
    fn pm_window_changed(&self, base: Option<u16>) {
        self.base.store(base.unwrap_or(0).into(), Ordering::Relaxed);
    }
}

/// What the host bridge says of the memory map.
struct MemoryMapper {
    memory: Arc<GuestMemory>,
    layout: ArenaLayout,
    shadow: Mutex<ShadowMap>,
    control: Arc<Control>,
}

impl MemoryMapper {
    fn attend(&self) {
        for processor in self.control.processors() {
            processor.attend();
        }
    }
}

impl HostBridgeObserver for MemoryMapper {
    fn pam_changed(&self, region: PamRegion) {
        let mut shadow = lock(&self.shadow);
        if shadow.set(region) {
            self.memory.set_map(self.layout.map(&shadow));
            self.attend();
        }
    }

    /// SMRAM is not there before processors have SMM.
    fn smram_changed(&self, smram: Smram) {
        if smram.contains(Smram::G_SMRAME) {
            log::debug!("The guest wants SMRAM, which is not there");
        }
    }
}

/// The PCI bus and what else of it the board reaches.
pub(crate) struct PciBus {
    pub(crate) host: Arc<Mutex<PciHost>>,
    pub(crate) power: Arc<Mutex<Piix4Pm>>,
    pub(crate) pm_window: Arc<PmWindow>,
}

impl Builder<'_> {
    /// The PCI bus with the chip set's functions.
    pub(super) fn pci(&mut self) -> Result<PciBus, ConfigError> {
        let host_bridge = self.host_bridge();
        let control = &self.parts.control;
        let isa_bridge = share(Piix3::new(control.clone(), Some(self.router.clone())));
        let pm_window = Arc::<PmWindow>::default();
        let wiring = PmWiring {
            clock: self.clock.clone(),
            sci: self.line(addresses::SCI_IRQ.into(), source::ACPI),
            power: control.clone(),
        };
        let power = share(Piix4Pm::new(PmTimerWidth::Bits24, wiring, Some(pm_window.clone())));
        let host = share(PciHost::new());
        self.add("i440fx", &host_bridge);
        self.add_at("piix3", &isa_bridge, &[RESET_CONTROL])?;
        let slot = self.add_ports("piix4-pm", &power, &[(APM_PORTS, 2)])?;
        pm_window.slot.store(slot as u32, Ordering::Relaxed);
        self.add_ports("pci", &host, &PCI_PORTS)?;
        let mut bus = lock(&host);
        // The places are free: they differ.
        let _ = bus.attach(HOST_BRIDGE, host_bridge);
        let _ = bus.attach(ISA_BRIDGE, isa_bridge);
        let _ = bus.attach(POWER_MANAGEMENT, power.clone());
        drop(bus);
        Ok(PciBus { host, power, pm_window })
    }

    /// The host bridge; the memory map is then that after reset.
    fn host_bridge(&self) -> Arc<Mutex<I440fx>> {
        let BoardParts { memory, layout, control, .. } = self.parts;
        memory.set_map(layout.map(&ShadowMap::default()));
        let mapper = MemoryMapper {
            memory: memory.clone(),
            layout: *layout,
            shadow: Mutex::default(),
            control: control.clone(),
        };
        let mut host_bridge = I440fx::new(Some(Arc::new(mapper)));
        host_bridge.reset(); // So that the map is told of the state after reset.
        share(host_bridge)
    }
}
