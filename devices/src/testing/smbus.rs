//! The SMBus host controller as a device by itself: without the PCI function that it is a part of,
//! which says where its ports are and whether it is on.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Device, IrqLine, ManualClock, PortIo, SaveRestore, Section,
    StateError, Timed, VmTime,
};

use super::outside::Outside;
use crate::smbus::{InterruptSelect, SMBUS_PORTS, SmbusBus, SmbusHost, save_restore, spd_eeproms};

/// SMBBA.
const BASE: u16 = 0x700;
/// The registers; those of the host twice, and what lies behind.
pub(super) const PORTS: [u16; 24] = [
    0x700, 0x702, 0x703, 0x704, 0x705, 0x706, 0x707, 0x700, 0x701, 0x702, 0x703, 0x704, 0x705,
    0x706, 0x707, 0x708, 0x709, 0x70a, 0x70b, 0x70c, 0x70d, 0x70e, 0x70f, 0x710,
];
/// SMBHSTCFG: SMB_HST_EN, and SMB_INTRSEL of two bits above it.
pub(super) const ENABLED: u8 = 1;

/// A controller, off, with the EEPROMs of three memory modules.
pub(super) struct SmbusBench {
    host: SmbusHost,
    configuration: u8,
}

impl SmbusBench {
    pub(super) fn new(clock: &Arc<ManualClock>, irq: IrqLine) -> Self {
        let mut bus = SmbusBus::default();
        for (address, eeprom) in spd_eeproms(896) {
            bus.attach(address, eeprom);
        }
        let host = SmbusHost::new(clock.clone(), irq, Outside::new(), bus);
        Self { host, configuration: 0 }
    }

    /// What the PCI function does when its register is written.
    pub(super) fn configure(&mut self, what: u8) {
        self.configuration = what;
        let select = match what >> 1 & 3 {
            0 => InterruptSelect::Smi,
            1 => InterruptSelect::Irq9,
            _ => InterruptSelect::Nowhere,
        };
        self.host.configure(what & ENABLED != 0, select);
    }

    fn offset(port: u16) -> BusResult<u16> {
        let offset = port.checked_sub(BASE).filter(|offset| *offset < SMBUS_PORTS);
        offset.ok_or(BusError::NoRegister)
    }
}

impl PortIo for SmbusBench {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        self.host.read(Self::offset(port)?, width)
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        self.host.write(Self::offset(port)?, width, value)
    }
}

impl Timed for SmbusBench {
    fn deadline(&self) -> Option<VmTime> {
        self.host.deadline()
    }

    fn fire(&mut self, _: VmTime) {
        self.host.settle();
    }
}

impl Device for SmbusBench {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        self.host.reset();
        self.configure(ENABLED);
    }
}

const VERSION: u32 = 1;

impl SaveRestore for SmbusBench {
    fn save(&self) -> Section {
        let Self { host, configuration } = self;
        Section::encode(VERSION, &(save_restore::save(host), configuration))
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let (host, configuration) = section.decode(VERSION)?;
        save_restore::restore(&mut self.host, host)?;
        self.configure(configuration);
        Ok(())
    }
}
