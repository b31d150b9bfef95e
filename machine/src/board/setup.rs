//! What firmware would do to the chips, for kernels that are started without it. The ACPI tables
//! tell of the same addresses and interrupts.

use trivium_chipset::AccessWidth;
use trivium_firmware::acpi::pc as addresses;

use super::pc::PcBoard;
use super::pci::{HOST_BRIDGE, ISA_BRIDGE, POWER_MANAGEMENT};
use crate::control::lock;

/// Writes to configuration space: function, double word, value, mask.
const CONFIGURATION: &[(trivium_devices::pci::Bdf, u8, u32, u32)] = &[
    // PAM0 to PAM6: all of C0000h to FFFFFh is RAM.
    (HOST_BRIDGE, 0x58, 0x3333_3000, 0xffff_ff00),
    (HOST_BRIDGE, 0x5c, 0x3333_3333, 0xffff_ffff),
    // PIRQRC: PIRQA# and PIRQB# to IRQ 10, PIRQC# and PIRQD# to IRQ 11.
    (ISA_BRIDGE, 0x60, 0x0b0b_0a0a, 0xffff_ffff),
    // PMBASE, then PMIOSE; the interrupt line register says IRQ 9.
    (POWER_MANAGEMENT, 0x40, addresses::PM_BASE as u32 | 1, 0xffff_ffff),
    (POWER_MANAGEMENT, 0x80, 1, 0xff),
    // SMBBA and ports enabled; SMBHSTCFG: the host controller with IRQ 9.
    (POWER_MANAGEMENT, 0x90, addresses::SMBUS_BASE as u32, 0xffff),
    (POWER_MANAGEMENT, 0x04, 1, 0xff),
    (POWER_MANAGEMENT, 0xd0, 0x09 << 16, 0xff_0000),
    (POWER_MANAGEMENT, 0x3c, addresses::SCI_IRQ as u32, 0xff),
];

/// ELCR2.
const ELCR2: u16 = 0x4d1;
/// IRQ 9 (SCI), 10 and 11 (PIRQs) are level-triggered.
const ELCR2_LEVEL: u32 = 0b0000_1110;

/// The second DMA controller's single mask register, and channel 4 unmasked there: the cascade,
/// which reset has put into its mode.
const DMA_CASCADE: (u16, u32) = (0xd4, 0);

impl PcBoard {
    /// Sets the chips up.
    pub(crate) fn set_up(&self) {
        if let Some(pci) = &self.pci {
            for &(place, offset, value, mask) in CONFIGURATION {
                lock(&pci.host).config_write(place, offset, value, mask);
            }
            self.pio_write(ELCR2, AccessWidth::Byte, ELCR2_LEVEL);
        }
        self.pio_write(DMA_CASCADE.0, AccessWidth::Byte, DMA_CASCADE.1);
        self.apics.with(0, |apic| apic.set_virtual_wire());
    }
}
