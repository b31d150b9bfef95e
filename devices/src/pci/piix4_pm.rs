//! The PIIX4's power management function: the PCI face of the ACPI registers.
//! 82371AB (PIIX4) data sheet (order number 290562), chapter 7.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Device, PciConfig, PortIo, SaveRestore, Section, StateError,
    Timed, VmTime,
};

use super::config_space::{ConfigSpace, Identity, Register, reg};
use crate::acpi_pm::{self, APMC, APMS, AcpiPm, PM_BLOCK_SIZE, PmTimerWidth, PmWiring};

/// Where the ACPI registers are: bits 15 to 6, bit 0 says that these are ports.
const PMBASE: u8 = 0x40;
/// PMREGMISC.
const PMREGMISC: u8 = 0x80;
/// PMIOSE: the ports at PMBASE are decoded.
const PMIOSE: u8 = 1 << 0;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x7113,
    revision: 3,
    class: 0x06_80_00,
    header_type: 0,
    interrupt_pin: 1,
};

/// Registers beyond the identity, in the order of the data sheet's table 7.1.
const REGISTERS: &[Register] = &[
    Register::word(reg::COMMAND, 0x0000, 0x0001),
    Register::status(0x0280),
    Register::byte(reg::INTERRUPT_LINE, 0x00, 0xff),
    Register::dword(PMBASE, 0x0000_0001, 0x0000_ffc0),
    Register::dword(0x44, 0, 0xffff_ffff), // CNTA
    Register::dword(0x48, 0, 0xffff_ffff), // CNTB
    Register::dword(0x4c, 0, 0xffff_ffff), // GPICTL
    Register::dword(0x50, 0, 0xffff_ffff), // DEVRESD
    Register::dword(0x54, 0, 0xffff_ffff), // DEVACTA
    Register::dword(0x58, 0, 0xffff_ffff), // DEVACTB
    Register::dword(0x5c, 0, 0xffff_ffff), // DEVRESA
    Register::dword(0x60, 0, 0xffff_ffff), // DEVRESB
    Register::dword(0x64, 0, 0xffff_ffff), // DEVRESC
    Register::dword(0x68, 0, 0xffff_ffff), // DEVRESE
    Register::dword(0x6c, 0, 0xffff_ffff), // DEVRESF
    Register::dword(0x70, 0, 0xffff_ffff), // DEVRESG
    Register::dword(0x74, 0, 0xffff_ffff), // DEVRESH
    Register::dword(0x78, 0, 0xffff_ffff), // DEVRESI
    Register::dword(0x7c, 0, 0xffff_ffff), // DEVRESJ
    Register::byte(PMREGMISC, 0x00, PMIOSE),
    Register::dword(0x90, 0x0000_0001, 0x0000_fff0), // SMBBA
    Register::byte(0xd2, 0x00, 0x0f),                // SMBHSTCFG
];

/// Told where the ACPI registers are. Called with the function locked.
pub trait PmWindowObserver: Send + Sync {
    /// The registers are now at the 64 ports from `base`, or nowhere.
    fn pm_window_changed(&self, base: Option<u16>);
}

/// The power management function, 00:01.3 on the board `pc`. It answers at the ports of PMBASE
/// while PMIOSE is set, and always at the APM ports B2h and B3h.
pub struct Piix4Pm {
    config: ConfigSpace,
    pm: AcpiPm,
    observer: Option<Arc<dyn PmWindowObserver>>,
}

impl Piix4Pm {
    /// A function after reset; firmware has yet to set PMBASE and PMIOSE. `observer`, if any,
    /// hears of writes, of resets and of restores.
    #[must_use]
    pub fn new(
        width: PmTimerWidth,
        wiring: PmWiring,
        observer: Option<Arc<dyn PmWindowObserver>>,
    ) -> Self {
        let config = ConfigSpace::new(&IDENTITY, REGISTERS);
        Self { config, pm: AcpiPm::new(width, wiring), observer }
    }

    /// The ACPI registers.
    pub fn pm(&mut self) -> &mut AcpiPm {
        &mut self.pm
    }

    /// The first of the 64 ports of the ACPI registers, if they are decoded.
    #[must_use]
    pub fn pm_base(&self) -> Option<u16> {
        let base = (self.config.dword(PMBASE) & 0xffc0) as u16;
        (self.config.byte(PMREGMISC) & PMIOSE != 0).then_some(base)
    }

    fn report_window(&self) {
        if let Some(observer) = &self.observer {
            observer.pm_window_changed(self.pm_base());
        }
    }

    /// The offset of a port in the block at PMBASE.
    fn pm_offset(&self, port: u16) -> BusResult<u16> {
        let offset = self.pm_base().and_then(|base| port.checked_sub(base));
        offset.filter(|offset| *offset < PM_BLOCK_SIZE).ok_or(BusError::NoRegister)
    }
}

impl PciConfig for Piix4Pm {
    fn read(&mut self, offset: u8) -> u32 {
        self.config.dword(offset)
    }

    fn write(&mut self, offset: u8, value: u32, mask: u32) {
        let before = self.pm_base();
        self.config.write(offset, value, mask);
        if self.pm_base() != before {
            self.report_window();
        }
    }
}

impl PortIo for Piix4Pm {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        match port {
            APMC | APMS => self.pm.read_apm(port, width),
            _ => self.pm.read(self.pm_offset(port)?, width),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        match port {
            APMC | APMS => self.pm.write_apm(port, width, value as u8),
            _ => self.pm.write(self.pm_offset(port)?, width, value),
        }
    }
}

impl Timed for Piix4Pm {
    fn deadline(&self) -> Option<VmTime> {
        self.pm.deadline()
    }

    fn fire(&mut self, _now: VmTime) {
        self.pm.fire();
    }
}

impl Device for Piix4Pm {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn pci(&mut self) -> Option<&mut dyn PciConfig> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        self.config = ConfigSpace::new(&IDENTITY, REGISTERS);
        self.pm.reset();
        self.report_window();
    }
}

impl SaveRestore for Piix4Pm {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}

mod save_restore {
    use super::{Piix4Pm, Section, StateError, acpi_pm};

    const VERSION: u32 = 1;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        config: Vec<u8>,
        pm: acpi_pm::save_restore::Saved,
    }

    pub fn save(function: &Piix4Pm) -> Section {
        let Piix4Pm { config, pm, observer: _ } = function;
        let saved = Saved { config: config.to_saved(), pm: acpi_pm::save_restore::save(pm) };
        Section::encode(VERSION, &saved)
    }

    pub fn restore(function: &mut Piix4Pm, section: &Section) -> Result<(), StateError> {
        let Saved { config, pm } = section.decode(VERSION)?;
        let config = function.config.check_saved(&config)?;
        acpi_pm::save_restore::restore(&mut function.pm, pm)?;
        function.config.set_saved(config);
        function.report_window();
        Ok(())
    }
}
