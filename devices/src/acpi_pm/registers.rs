//! The registers of the block at PMBASE: offsets and bits. 82371AB (PIIX4) data sheet (290562),
//! section 7.2.

use bitflags::bitflags;

/// Offsets of the double words in the block.
pub(super) mod reg {
    /// PMSTS, and PMEN in the upper half.
    pub const PMSTS: u16 = 0x00;
    pub const PMCNTRL: u16 = 0x04;
    pub const PMTMR: u16 = 0x08;
    /// GPSTS, and GPEN in the upper half.
    pub const GPSTS: u16 = 0x0c;
    /// P_CNT.
    pub const PCNTRL: u16 = 0x10;
    /// P_LVL2 and P_LVL3.
    pub const PLVL2: u16 = 0x14;
    pub const GLBSTS: u16 = 0x18;
    pub const DEVSTS: u16 = 0x1c;
    pub const GLBEN: u16 = 0x20;
    pub const GLBCTL: u16 = 0x28;
    pub const DEVCTL: u16 = 0x2c;
    pub const GPIREG: u16 = 0x30;
    pub const GPOREG: u16 = 0x34;
}

bitflags! {
    /// PMSTS, power management status: events that have happened; cleared by writing ones.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PmSts: u16 {
        /// The highest bit of the PM timer has changed.
        const TMROF_STS = 1 << 0;
        /// A bus master has wanted the bus.
        const BM_STS = 1 << 4;
        /// The firmware has released the global lock.
        const GBL_STS = 1 << 5;
        /// The power button has been pressed.
        const PWRBTN_STS = 1 << 8;
        /// The RTC's interrupt has come.
        const RTC_STS = 1 << 10;
        /// The machine has woken up.
        const RSM_STS = 1 << 15;
    }
}

bitflags! {
    /// PMEN, power management resume enable: which events raise SCI or SMI#.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct PmEn: u16 {
        const TMROF_EN = 1 << 0;
        const GBL_EN = 1 << 5;
        const PWRBTN_EN = 1 << 8;
        const RTC_EN = 1 << 10;
    }
}

bitflags! {
    /// PMCNTRL, power management control.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct PmCntrl: u16 {
        /// Events raise SCI rather than SMI#: the machine is in ACPI mode.
        const SCI_EN = 1 << 0;
        /// A bus master request ends C3.
        const BRLD_EN_BM = 1 << 1;
        /// Write only: the operating system has released the global lock.
        const GBL_RLS = 1 << 2;
        const SUS_TYP = 7 << 10;
        /// Write only: enters the sleep state that SUS_TYP names.
        const SUS_EN = 1 << 13;
    }
}

impl PmCntrl {
    /// Bits that are not kept.
    pub(super) const WRITE_ONLY: Self = Self::GBL_RLS.union(Self::SUS_EN);
}

/// Values of SUS_TYP.
pub(super) mod suspend {
    /// Soft-off, or suspend to disk.
    pub const SOFT_OFF: u16 = 0;
    /// Suspend to RAM.
    pub const TO_RAM: u16 = 1;
    /// Powered-on suspend with a reset of the processor and PCI bus.
    pub const POSCL: u16 = 2;
    /// Powered-on suspend with a reset of the processor.
    pub const POSCCL: u16 = 3;
    /// Powered-on suspend: nothing is lost.
    pub const POS: u16 = 4;
}

/// The bits of GPSTS and GPEN: THRM, USB, RI, LID and GPI1.
pub(super) const GPE_MASK: u16 = 0x0f01;

/// The bits of P_CNT that are kept: THTL_DTY and THTL_EN, CC_EN, SLEEP_EN and STPCLK_EN.
pub(super) const PCNTRL_MASK: u32 = 0x0000_1a1e;

bitflags! {
    /// GLBSTS, global status: why SMI# has been asserted.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct GlbSts: u16 {
        /// The operating system has released the global lock.
        const BIOS_STS = 1 << 1;
        /// APMC has been written.
        const APM_STS = 1 << 5;
        /// Read only: an event of PMSTS or GPSTS is enabled, and SCI_EN is clear.
        const GP_STS = 1 << 7;
    }
}

bitflags! {
    /// GLBEN, global enable: what asserts SMI#.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct GlbEn: u16 {
        /// The keyboard controller's ports have been accessed.
        const LEGACY_USB_EN = 1 << 0;
        /// GBL_RLS has been written.
        const BIOS_EN = 1 << 1;
        /// The global standby timer has run out.
        const GSTBY_EN = 1 << 8;
        /// The EXTSMI# pin.
        const EXTSMI_EN = 1 << 10;
        /// An interrupt during suspend.
        const IRQ_RSM_EN = 1 << 11;
    }
}

bitflags! {
    /// GLBCTL, global control.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct GlbCtl: u32 {
        /// SMI# is asserted for events.
        const SMI_EN = 1 << 0;
        /// Write only: the firmware has released the global lock.
        const BIOS_RLS = 1 << 1;
        /// THRM# is active low.
        const THRM_POL = 1 << 2;
        /// The global standby timer's count.
        const GSTBY_CNT = 0xff << 8;
        /// End of SMI: SMI# may be asserted for what still waits. Cleared as it is asserted.
        const EOS = 1 << 16;
        /// Idle timers stand still.
        const SM_FREEZE = 1 << 24;
        /// The lid switch is inverted.
        const LID_POL = 1 << 25;
        /// The global standby timer's unit.
        const GSTBY_SEL = 1 << 26;
    }
}

/// GPOREG after reset.
pub(super) const GPO_RESET: u32 = 0x7fff_bfff;
/// GPIREG: nothing is connected to the pins, which are pulled up.
pub(super) const GPI: u32 = 0x003f_ffff;
