//! Addresses and interrupts of board `pc` that the ACPI tables tell; the board programs its chips
//! to match.

/// PMBASE of the PIIX4: 64 ports, of which the first 16 are ACPI's (82371AB data sheet, 7.2).
pub const PM_BASE: u16 = 0x600;
/// Ports at [`PM_BASE`].
pub const PM_SIZE: u16 = 0x40;
/// PM1 event block (PMSTS, PMEN).
pub const PM1A_EVT: u16 = PM_BASE;
/// PM1 control block (PMCNTRL).
pub const PM1A_CNT: u16 = PM_BASE + 0x4;
/// The PM timer.
pub const PM_TMR: u16 = PM_BASE + 0x8;
/// General-purpose events 0 to 15 (GPSTS, GPEN).
pub const GPE0: u16 = PM_BASE + 0xc;
/// Bytes of the GPE block: status and enable.
pub const GPE0_SIZE: u8 = 4;
/// SMBBA of the PIIX4: 16 ports.
pub const SMBUS_BASE: u16 = 0x700;
/// Ports at [`SMBUS_BASE`].
pub const SMBUS_SIZE: u16 = 0x10;
/// The interrupt of ACPI events: level-triggered, active high.
pub const SCI_IRQ: u8 = 9;
/// APMC, the port that takes [`ACPI_ENABLE`] and [`ACPI_DISABLE`].
pub const SMI_CMD: u16 = 0xb2;
/// Written to [`SMI_CMD`] to turn ACPI mode on.
pub const ACPI_ENABLE: u8 = 0xf1;
/// Written to [`SMI_CMD`] to turn ACPI mode off.
pub const ACPI_DISABLE: u8 = 0xf0;
/// The PIIX3's reset control register.
pub const RESET_PORT: u16 = 0xcf9;
/// Written to [`RESET_PORT`] for a hard reset.
pub const RESET_VALUE: u8 = 0x06;
/// SUS_TYP of the PIIX4 for soft-off.
pub const S5_SLP_TYP: u8 = 0;
/// Where in CMOS RAM the century lies.
pub const RTC_CENTURY: u8 = 0x32;

/// The local APICs.
pub const LAPIC_BASE: u32 = 0xfee0_0000;
/// The IOAPIC.
pub const IOAPIC_BASE: u32 = 0xfec0_0000;
/// The IOAPIC's arbitration and bus ID.
pub const IOAPIC_ID: u8 = 0;
/// The HPET: 1 KiB.
pub const HPET_BASE: u32 = 0xfed0_0000;
/// Event Timer Block ID of the HPET: Intel, revision 1, three comparators, a 64-bit counter that
/// can replace PIT and RTC (IA-PC HPET specification 1.0a, 2.3.4).
pub const HPET_ID: u32 = 0x8086_a201;
/// The pin of the IOAPIC that the PIT (ISA IRQ 0) is wired to.
pub const PIT_GSI: u32 = 2;
/// The pins of the IOAPIC that PIRQA# to PIRQD# are wired to, by level and active low; through the
/// PIIX3 they go to ISA interrupts besides.
pub const PIRQ_GSI: [u32; 4] = [16, 17, 18, 19];
/// First address of the window for PCI devices below 4 GiB.
pub const PCI_WINDOW_START: u32 = 0xc000_0000;
/// Last address of the window for PCI devices below 4 GiB.
pub const PCI_WINDOW_LAST: u32 = 0xfebf_ffff;

/// COM1 to COM4: first port and interrupt.
pub const COM_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// The parallel port: first port and interrupt.
pub const PARALLEL: (u16, u8) = (0x378, 7);
/// fw_cfg: first port and number of ports (QEMU, `docs/specs/fw_cfg.rst`).
pub const FW_CFG: (u16, u8) = (0x510, 12);
/// The port of pvpanic (QEMU, `docs/specs/pvpanic.rst`).
pub const PVPANIC: u16 = 0x505;

/// The number of PCI slots on bus 0.
pub const PCI_SLOTS: u8 = 32;

/// Slot and pin (0 for INTA#) of the PIIX4's power management function, whose interrupt is SCI and
/// not a PIRQ.
pub const SCI_PIN: (u8, u8) = (1, 0);

/// The PIRQ (0 for PIRQA# to 3 for PIRQD#) that an interrupt pin (0 for INTA# to 3 for INTD#) of a
/// slot on bus 0 is wired to: INTA# of slot 1 to PIRQA#, and each slot one further.
#[must_use]
pub const fn pirq(slot: u8, pin: u8) -> u8 {
    slot.wrapping_add(pin).wrapping_sub(1) & 3
}
