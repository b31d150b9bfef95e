//! The PIIX4's power management function: the PCI face of the ACPI registers and of the SMBus host
//! controller.
//! 82371AB (PIIX4) data sheet (order number 290562), chapter 7.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Device, PciConfig, PortIo, SaveRestore, Section, StateError,
    Timed, VmTime,
};

use super::bar::{Bar, Bars, WindowSink};
use super::config_space::{ConfigSpace, Identity, Register, reg};
use crate::acpi_pm::{self, APMC, APMS, AcpiPm, PM_BLOCK_SIZE, PmTimerWidth, PmWiring};
use crate::smbus::{self, InterruptSelect, SMBUS_PORTS, SmbusHost};

/// Where the ACPI registers are: bits 15 to 6, bit 0 says that these are ports.
const PMBASE: u8 = 0x40;
/// PMREGMISC.
const PMREGMISC: u8 = 0x80;
/// PMIOSE: the ports at PMBASE are decoded.
const PMIOSE: u8 = 1 << 0;
/// DEVACTB, device activity B.
const DEVACTB: u8 = 0x58;
/// APMC_EN: writes to APMC assert SMI#.
const APMC_EN: u32 = 1 << 25;
/// Where the SMBus host controller is: bits 15 to 4, bit 0 says that these are ports.
const SMBBA: u8 = 0x90;
/// SMBHSTCFG, with SMB_INTRSEL in bits 3 to 1.
const SMBHSTCFG: u8 = 0xd2;
/// SMB_HST_EN: the host controller takes commands.
const SMB_HST_EN: u8 = 1 << 0;

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
    Register::dword(0x44, 0, 0xffff_ffff), // CNTA
    Register::dword(0x48, 0, 0xffff_ffff), // CNTB
    Register::dword(0x4c, 0, 0xffff_ffff), // GPICTL
    Register::dword(0x50, 0, 0xffff_ffff), // DEVRESD
    Register::dword(0x54, 0, 0xffff_ffff), // DEVACTA
    Register::dword(DEVACTB, 0, 0xffff_ffff),
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
    Register::byte(SMBHSTCFG, 0x00, 0x0f),
    Register::byte(0xd3, 0x00, 0xff), // SMBSLVC
    Register::byte(0xd4, 0x00, 0xff), // SMBSHDW1
    Register::byte(0xd5, 0x00, 0xff), // SMBSHDW2
    Register::byte(0xd6, 0x00, 0x00), // SMBREV
];

/// The windows of the function, by these numbers.
const BARS: &[Bar] = &[
    Bar::io(PMBASE, PM_BLOCK_SIZE as u32).with_16_bits().enabled_by(PMREGMISC, PMIOSE),
    Bar::io(SMBBA, SMBUS_PORTS as u32).with_16_bits(),
];
/// Number of the window of the ACPI registers.
const PM_WINDOW: usize = 0;

/// The power management function, 00:01.3 on the board `pc`. The ACPI registers answer at the ports
/// of PMBASE while PMIOSE is set, the SMBus host controller at those of SMBBA while the command
/// register enables ports, and the APM ports B2h and B3h always.
pub struct Piix4Pm {
    config: ConfigSpace,
    bars: Bars,
    pm: AcpiPm,
    smbus: SmbusHost,
}

fn reset_config() -> ConfigSpace {
    ConfigSpace::new(&IDENTITY, REGISTERS).with_bars(BARS)
}

impl Piix4Pm {
    /// A function after reset; firmware has yet to give it ports. `sink`, if any, hears where its
    /// windows are: 0 is that of the ACPI registers, 1 the SMBus's.
    #[must_use]
    pub fn new(
        width: PmTimerWidth,
        wiring: PmWiring,
        smbus: SmbusHost,
        sink: Option<Arc<dyn WindowSink>>,
    ) -> Self {
        let pm = AcpiPm::new(width, wiring);
        Self { config: reset_config(), bars: Bars::new(BARS, sink), pm, smbus }
    }

    /// The ACPI registers.
    pub fn pm(&mut self) -> &mut AcpiPm {
        &mut self.pm
    }

    /// The first of the 64 ports of the ACPI registers, if they are decoded.
    #[must_use]
    pub fn pm_base(&self) -> Option<u16> {
        u16::try_from(self.bars.window(PM_WINDOW)?.base).ok()
    }

    /// Configuration space is new: what follows from it does.
    fn apply_config(&mut self) {
        self.bars.update(&self.config);
        self.pm.set_apm_smi(self.config.dword(DEVACTB) & APMC_EN != 0);
        let control = self.config.byte(SMBHSTCFG);
        let select = match control >> 1 & 7 {
            0b000 => InterruptSelect::Smi,
            0b100 => InterruptSelect::Irq9,
            _ => InterruptSelect::Nowhere,
        };
        self.smbus.configure(control & SMB_HST_EN != 0, select);
    }
}

impl PciConfig for Piix4Pm {
    fn read(&mut self, offset: u8) -> u32 {
        self.config.dword(offset)
    }

    fn write(&mut self, offset: u8, value: u32, mask: u32) {
        self.config.write(offset, value, mask);
        self.apply_config();
    }
}

impl PortIo for Piix4Pm {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        match port {
            APMC | APMS => self.pm.read_apm(port, width),
            _ => match self.bars.locate_port(port).ok_or(BusError::NoRegister)? {
                (PM_WINDOW, offset) => self.pm.read(offset, width),
                (_, offset) => self.smbus.read(offset, width),
            },
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        match port {
            APMC | APMS => self.pm.write_apm(port, width, value as u8),
            _ => match self.bars.locate_port(port).ok_or(BusError::NoRegister)? {
                (PM_WINDOW, offset) => self.pm.write(offset, width, value),
                (_, offset) => self.smbus.write(offset, width, value),
            },
        }
    }
}

impl Timed for Piix4Pm {
    fn deadline(&self) -> Option<VmTime> {
        [self.pm.deadline(), self.smbus.deadline()].into_iter().flatten().min()
    }

    fn fire(&mut self, _now: VmTime) {
        self.pm.fire();
        self.smbus.settle();
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
        self.config = reset_config();
        self.pm.reset();
        self.smbus.reset();
        self.apply_config();
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
    use super::{Piix4Pm, Section, StateError, acpi_pm, smbus};

    const VERSION: u32 = 2;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        config: Vec<u8>,
        pm: acpi_pm::save_restore::Saved,
        smbus: smbus::save_restore::Saved,
    }

    pub fn save(function: &Piix4Pm) -> Section {
        let Piix4Pm { config, bars: _, pm, smbus } = function;
        let saved = Saved {
            config: config.to_saved(),
            pm: acpi_pm::save_restore::save(pm),
            smbus: smbus::save_restore::save(smbus),
        };
        Section::encode(VERSION, &saved)
    }

    pub fn restore(function: &mut Piix4Pm, section: &Section) -> Result<(), StateError> {
        let Saved { config, pm, smbus } = section.decode(VERSION)?;
        let config = function.config.check_saved(&config)?;
        let before = acpi_pm::save_restore::save(&function.pm);
        acpi_pm::save_restore::restore(&mut function.pm, pm)?;
        if let Err(error) = smbus::save_restore::restore(&mut function.smbus, smbus) {
            // Its own state is one that it can be in.
            let _ = acpi_pm::save_restore::restore(&mut function.pm, before);
            return Err(error);
        }
        function.config.set_saved(config);
        function.apply_config();
        Ok(())
    }
}
