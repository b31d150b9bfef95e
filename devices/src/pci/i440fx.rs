//! The 82441FX PCI and memory controller: the host bridge, with the registers that say where
//! shadow RAM and SMRAM are. 82441FX data sheet (order number 290549), section 3.2.

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{Device, PciConfig, SaveRestore, Section, StateError};

use super::config_space::{ConfigSpace, Identity, Register, reg, status};

/// PAM0 to PAM6, programmable attribute maps: shadow RAM by regions.
const PAM: u8 = 0x59;
/// Number of PAM registers.
const PAM_REGISTERS: u8 = 7;
/// SMRAMC, system management RAM control.
const SMRAMC: u8 = 0x72;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x1237,
    revision: 2,
    class: 0x06_00_00,
    header_type: 0,
    interrupt_pin: 0,
};

/// Registers beyond the identity, in the order of the data sheet's table 2.
const REGISTERS: &[Register] = &[
    Register::word(reg::COMMAND, 0x0006, 0x0100),
    Register::status(0x0280),
    Register::byte(0x0d, 0x00, 0xf8),     // MLT
    Register::word(0x50, 0x0000, 0xffff), // PMCCFG
    Register::byte(0x52, 0x00, 0xff),     // DETURBO
    Register::byte(0x53, 0x80, 0x7f),     // DBC
    Register::byte(0x54, 0x00, 0x02),     // AXC
    Register::word(0x55, 0x0000, 0xffff), // DRT
    Register::byte(0x57, 0x01, 0xff),     // DRAMC
    Register::byte(0x58, 0x10, 0xff),     // DRAMT
    Register::byte(PAM, 0x00, 0x30),
    Register::byte(PAM + 1, 0x00, 0x33),
    Register::byte(PAM + 2, 0x00, 0x33),
    Register::byte(PAM + 3, 0x00, 0x33),
    Register::byte(PAM + 4, 0x00, 0x33),
    Register::byte(PAM + 5, 0x00, 0x33),
    Register::byte(PAM + 6, 0x00, 0x33),
    Register::dword(0x60, 0x0101_0101, 0xffff_ffff), // DRB0 to DRB3
    Register::dword(0x64, 0x0101_0101, 0xffff_ffff), // DRB4 to DRB7
    Register::byte(0x68, 0x00, 0xc0),                // FDHC
    Register::byte(0x70, 0x00, 0xff),                // MTT
    Register::byte(0x71, 0x10, 0xff),                // CLT
    Register::byte(SMRAMC, Smram::RESET.bits(), Smram::WRITABLE.bits()),
    Register::byte(0x90, 0x00, 0xff), // ERRCMD
];

bitflags! {
    /// SMRAMC, register 72h.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Smram: u8 {
        /// SMRAM is open to accesses outside of SMM.
        const D_OPEN = 1 << 6;
        /// SMRAM is closed to data accesses, also in SMM.
        const D_CLS = 1 << 5;
        /// All but `D_CLS` is read-only, and `D_OPEN` zero, until the next reset.
        const D_LCK = 1 << 4;
        /// SMRAM is enabled: 128 KiB at A0000h.
        const G_SMRAME = 1 << 3;
        /// C_BASE_SEG: SMRAM is at A0000h; the only value that the chip takes.
        const C_BASE_SEG = 0b010;
    }
}

impl Smram {
    const RESET: Self = Self::C_BASE_SEG;
    const WRITABLE: Self = Self::D_OPEN.union(Self::D_CLS).union(Self::D_LCK).union(Self::G_SMRAME);
}

/// Who owns a region below 1 MiB: DRAM or the PCI bus (and thus the ROM), for reads and for
/// writes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PamRegion {
    /// First address.
    pub base: u32,
    /// Bytes: 4000h, or 10000h for the BIOS area at F0000h.
    pub size: u32,
    /// Reads go to DRAM (RE).
    pub read_ram: bool,
    /// Writes go to DRAM (WE).
    pub write_ram: bool,
}

/// Told what the host bridge's registers do to the memory map. Called with the bridge locked.
pub trait HostBridgeObserver: Send + Sync {
    /// A region's attributes have been written.
    fn pam_changed(&self, region: PamRegion);

    /// SMRAMC has been written.
    fn smram_changed(&self, smram: Smram);
}

/// The host bridge, function 00:00.0.
pub struct I440fx {
    config: ConfigSpace,
    observer: Option<Arc<dyn HostBridgeObserver>>,
}

impl I440fx {
    /// A host bridge after reset; `observer`, if any, hears of writes, of resets and of restores.
    #[must_use]
    pub fn new(observer: Option<Arc<dyn HostBridgeObserver>>) -> Self {
        Self { config: ConfigSpace::new(&IDENTITY, REGISTERS), observer }
    }

    /// The thirteen regions of PAM0 to PAM6 as they are now, in the registers' order.
    pub fn pam_regions(&self) -> impl Iterator<Item = PamRegion> + '_ {
        // The low half of PAM0 is reserved; the regions begin with its high half.
        (1..PAM_REGISTERS * 2).map(|half| self.pam_region(half))
    }

    /// SMRAMC as it is now.
    #[must_use]
    pub fn smram(&self) -> Smram {
        Smram::from_bits_truncate(self.config.byte(SMRAMC))
    }

    /// The region of a half of a PAM register; 1 is the high half of PAM0.
    fn pam_region(&self, half: u8) -> PamRegion {
        let attributes = self.config.byte(PAM + half / 2) >> (4 * (half % 2));
        let (base, size) = match half {
            0 | 1 => (0xf_0000, 0x1_0000),
            _ => (0xc_0000 + (u32::from(half) - 2) * 0x4000, 0x4000),
        };
        PamRegion { base, size, read_ram: attributes & 1 != 0, write_ram: attributes & 2 != 0 }
    }

    /// Nobody has answered the bridge on the PCI bus: it notes a received master abort.
    pub fn note_master_abort(&mut self) {
        let status = self.config.dword(reg::COMMAND) | u32::from(status::MASTER_ABORT) << 16;
        self.config.set_dword(reg::COMMAND, status);
    }

    /// SMRAMC is written. Once D_LCK is set, D_OPEN is zero, and all but D_CLS cannot be written.
    fn write_smramc(&mut self, value: u8) {
        let before = self.smram();
        let written = Smram::from_bits_truncate(value);
        let free = if before.contains(Smram::D_LCK) { Smram::D_CLS } else { Smram::WRITABLE };
        let mut smram = (before - free) | (written & free) | Smram::C_BASE_SEG;
        if smram.contains(Smram::D_LCK) {
            smram.remove(Smram::D_OPEN);
        }
        self.config.set_byte(SMRAMC, smram.bits());
    }

    fn report_pam(&self, registers: impl Iterator<Item = u8>) {
        let Some(observer) = &self.observer else { return };
        for half in registers.flat_map(|register| [register * 2, register * 2 + 1]) {
            if half != 0 {
                observer.pam_changed(self.pam_region(half));
            }
        }
    }

    fn report_smram(&self) {
        if let Some(observer) = &self.observer {
            observer.smram_changed(self.smram());
        }
    }

    fn report_all(&self) {
        self.report_pam(0..PAM_REGISTERS);
        self.report_smram();
    }
}

impl PciConfig for I440fx {
    fn read(&mut self, offset: u8) -> u32 {
        self.config.dword(offset)
    }

    fn write(&mut self, offset: u8, value: u32, mask: u32) {
        let offset = offset & !3;
        let written =
            |register: u8| register & !3 == offset && mask >> (8 * (register & 3)) & 0xff != 0;
        if written(SMRAMC) {
            let shift = 8 * (SMRAMC & 3);
            self.write_smramc((value >> shift) as u8);
            self.config.write(offset, value, mask & !(0xff << shift));
            self.report_smram();
        } else {
            self.config.write(offset, value, mask);
        }
        self.report_pam((0..PAM_REGISTERS).filter(|register| written(PAM + register)));
    }
}

impl Device for I440fx {
    fn pci(&mut self) -> Option<&mut dyn PciConfig> {
        Some(self)
    }

    fn reset(&mut self) {
        self.config = ConfigSpace::new(&IDENTITY, REGISTERS);
        self.report_all();
    }
}

impl SaveRestore for I440fx {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}

mod save_restore {
    use super::{I440fx, Section, StateError};

    const VERSION: u32 = 1;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Saved {
        config: Vec<u8>,
    }

    pub fn save(bridge: &I440fx) -> Section {
        let I440fx { config, observer: _ } = bridge;
        Section::encode(VERSION, &Saved { config: config.to_saved() })
    }

    pub fn restore(bridge: &mut I440fx, section: &Section) -> Result<(), StateError> {
        let Saved { config } = section.decode(VERSION)?;
        bridge.config.set_saved(bridge.config.check_saved(&config)?);
        bridge.report_all();
        Ok(())
    }
}
