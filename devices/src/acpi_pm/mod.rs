//! The PIIX4's ACPI registers: PM1 event and control block, PM timer, general-purpose events, SMI
//! control, and the APM ports through which an operating system asks for ACPI mode.
//! 82371AB (PIIX4) data sheet (order number 290562), section 7.2; ACPI specification, chapter 4.

mod registers;
pub(crate) mod save_restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use trivium_chipset::{AccessWidth, BusError, BusResult, Clock, IrqLine, VmTime, guest_log};

use crate::power::{PowerSink, SmiSink};

use registers::{
    GPE_MASK, GPI, GPO_RESET, GlbCtl, GlbEn, PCNTRL_MASK, PmCntrl, PmEn, reg, suspend,
};
pub use registers::{GlbSts, PmSts};

/// Frequency of the PM timer in hertz: a quarter of the 14.31818 MHz crystal.
pub const PM_TIMER_HZ: u64 = 3_579_545;
/// Ports that the register block takes up.
pub const PM_BLOCK_SIZE: u16 = 0x40;
/// APMC, the APM control port: a write is a command to the firmware.
pub const APMC: u16 = 0xb2;
/// APMS, the APM status port: a scratch byte.
pub const APMS: u16 = 0xb3;
/// The APMC command that turns ACPI mode on (ACPI_ENABLE of the FADT).
pub const ACPI_ENABLE: u8 = 0xf1;
/// The APMC command that turns ACPI mode off (ACPI_DISABLE of the FADT).
pub const ACPI_DISABLE: u8 = 0xf0;

/// How far the PM timer counts before it wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PmTimerWidth {
    /// 24 bits, as in the PIIX4.
    Bits24,
    /// 32 bits; the FADT then says TMR_VAL_EXT.
    Bits32,
}

impl PmTimerWidth {
    fn bits(self) -> u32 {
        match self {
            Self::Bits24 => 24,
            Self::Bits32 => 32,
        }
    }
}

/// What the board connects the PM block to.
#[derive(Clone)]
pub struct PmWiring {
    /// Virtual time.
    pub clock: Arc<dyn Clock>,
    /// SCI, level-triggered.
    pub sci: IrqLine,
    /// The power supply.
    pub power: Arc<dyn PowerSink>,
    /// SMI#.
    pub smi: Arc<dyn SmiSink>,
}

/// The register block at PMBASE, and the APM ports.
pub struct AcpiPm {
    wiring: PmWiring,
    width: PmTimerWidth,
    status: PmSts,
    enable: PmEn,
    control: PmCntrl,
    gpe_status: u16,
    gpe_enable: u16,
    processor_control: u32,
    /// Without GP_STS.
    global_status: GlbSts,
    global_enable: GlbEn,
    global_control: GlbCtl,
    device_control: u32,
    outputs: u32,
    apm: [u8; 2],
    /// APMC_EN of DEVACTB: writes to APMC assert SMI#.
    apm_smi: bool,
    /// In powered-on suspend: an enabled event ends it.
    suspended: bool,
    /// The level of the real-time clock's interrupt.
    rtc_interrupt: bool,
    /// Ticks of the PM timer's clock at which the timer was last reset.
    timer_base: u64,
    /// How often the timer's highest bit had changed when that was last looked at.
    timer_flips: u64,
}

impl AcpiPm {
    /// The block after reset.
    #[must_use]
    pub fn new(width: PmTimerWidth, wiring: PmWiring) -> Self {
        let timer_base = wiring.clock.now().ticks(PM_TIMER_HZ);
        Self {
            wiring,
            width,
            status: PmSts::empty(),
            enable: PmEn::empty(),
            control: PmCntrl::empty(),
            gpe_status: 0,
            gpe_enable: 0,
            processor_control: 0,
            global_status: GlbSts::empty(),
            global_enable: GlbEn::empty(),
            global_control: GlbCtl::empty(),
            device_control: 0,
            outputs: GPO_RESET,
            apm: [0; 2],
            apm_smi: false,
            suspended: false,
            rtc_interrupt: false,
            timer_base,
            timer_flips: 0,
        }
    }

    /// Returns to the state after reset; the PM timer starts again at zero.
    pub fn reset(&mut self) {
        *self = Self::new(self.width, self.wiring.clone());
        self.wiring.sci.set(false);
    }

    /// Reads from the block; `offset` counts from PMBASE.
    ///
    /// # Errors
    /// No register, or the access crosses the end of a double word.
    pub fn read(&mut self, offset: u16, width: AccessWidth) -> BusResult<u32> {
        self.settle_timer();
        let (register, shift) = locate(offset, width)?;
        let value = match register {
            reg::PMSTS => pair(self.status.bits(), self.enable.bits()),
            reg::PMCNTRL => self.control.bits().into(),
            reg::PMTMR => self.timer(),
            reg::GPSTS => pair(self.gpe_status, self.gpe_enable),
            reg::PCNTRL => self.processor_control,
            // A read enters a sleep state of the processor; HLT does that here.
            reg::PLVL2 => 0,
            reg::GLBSTS => self.global_status().bits().into(),
            // No device is watched for its idleness.
            reg::DEVSTS => 0,
            reg::GLBEN => self.global_enable.bits().into(),
            reg::GLBCTL => self.global_control.bits(),
            reg::DEVCTL => self.device_control,
            reg::GPIREG => GPI,
            reg::GPOREG => self.outputs,
            _ => return Err(BusError::NoRegister),
        };
        Ok(value >> shift & width.mask())
    }

    /// Writes to the block; `offset` counts from PMBASE.
    ///
    /// # Errors
    /// No register, or the access crosses the end of a double word.
    pub fn write(&mut self, offset: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        self.settle_timer();
        let (register, shift) = locate(offset, width)?;
        let mask = width.mask() << shift;
        let value = value << shift & mask;
        let merged = |old: u32| old & !mask | value;
        let upper = |old: u16| (merged(u32::from(old) << 16) >> 16) as u16;
        // The low halves: registers of 16 bits.
        let low = value as u16;
        match register {
            reg::PMSTS => {
                self.status.remove(PmSts::from_bits_truncate(low));
                self.enable = PmEn::from_bits_truncate(upper(self.enable.bits()));
            }
            reg::PMCNTRL => self.write_control(merged(self.control.bits().into()) as u16),
            reg::GPSTS => {
                self.gpe_status &= !low;
                self.gpe_enable = upper(self.gpe_enable) & GPE_MASK;
            }
            reg::PCNTRL => self.processor_control = merged(self.processor_control) & PCNTRL_MASK,
            reg::GLBSTS => {
                let written = GlbSts::from_bits_truncate(low);
                self.global_status.remove(written - GlbSts::GP_STS);
            }
            reg::GLBEN => {
                let new = merged(self.global_enable.bits().into()) as u16;
                self.global_enable = GlbEn::from_bits_truncate(new);
            }
            reg::GLBCTL => self.write_global_control(merged(self.global_control.bits())),
            reg::DEVCTL => self.device_control = merged(self.device_control),
            reg::GPOREG => self.outputs = merged(self.outputs),
            reg::PMTMR | reg::PLVL2 | reg::DEVSTS | reg::GPIREG => {}
            _ => return Err(BusError::NoRegister),
        }
        self.update();
        Ok(())
    }

    /// Reads an APM port, APMC or APMS.
    ///
    /// # Errors
    /// Not an APM port, or not a byte access.
    pub fn read_apm(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        Ok((*self.apm_register(port, width)?).into())
    }

    /// Writes an APM port. APMC asserts SMI# where the firmware has enabled that. Besides, the chip
    /// itself carries out the commands for ACPI mode, which on a real board the firmware's handler
    /// does: kernels that are booted without firmware have no such handler.
    ///
    /// # Errors
    /// Not an APM port, or not a byte access.
    pub fn write_apm(&mut self, port: u16, width: AccessWidth, value: u8) -> BusResult<()> {
        *self.apm_register(port, width)? = value;
        if port == APMC {
            match value {
                ACPI_ENABLE => self.control.insert(PmCntrl::SCI_EN),
                ACPI_DISABLE => self.control.remove(PmCntrl::SCI_EN),
                _ if !self.apm_smi => guest_log!(Debug, "APM command {value:02x}h has no handler"),
                _ => {}
            }
            if self.apm_smi {
                self.global_status.insert(GlbSts::APM_STS);
                self.assert_smi();
            }
            self.settle_timer();
            self.update();
        }
        Ok(())
    }

    /// APMC_EN of DEVACTB has been written: whether writes to APMC assert SMI#.
    pub fn set_apm_smi(&mut self, enabled: bool) {
        self.apm_smi = enabled;
    }

    /// The power button has been pressed.
    pub fn press_power_button(&mut self) {
        self.happen(PmSts::PWRBTN_STS);
    }

    /// The level of the real-time clock's interrupt: its rise is an event.
    pub fn set_rtc_interrupt(&mut self, high: bool) {
        if !std::mem::replace(&mut self.rtc_interrupt, high) && high {
            self.happen(PmSts::RTC_STS);
        }
    }

    fn happen(&mut self, event: PmSts) {
        self.status.insert(event);
        self.update();
    }

    /// A general-purpose event has happened: 0 (thermal), 8 (USB), 9 (ring), 10 (lid) or 11 (GPI1).
    pub fn raise_gpe(&mut self, event: u8) {
        self.gpe_status |= 1u16.checked_shl(event.into()).unwrap_or(0) & GPE_MASK;
        self.update();
    }

    /// The machine is in ACPI mode: SCI_EN is set.
    #[must_use]
    pub fn acpi_enabled(&self) -> bool {
        self.control.contains(PmCntrl::SCI_EN)
    }

    /// When the timer's overflow next raises SCI or SMI#, if it may.
    #[must_use]
    pub fn deadline(&self) -> Option<VmTime> {
        let waits = self.enable.contains(PmEn::TMROF_EN)
            && !self.status.contains(PmSts::TMROF_STS)
            && (self.acpi_enabled() || self.global_control.contains(GlbCtl::SMI_EN));
        let flip = self.timer_flips.checked_add(1)?.checked_mul(self.ticks_per_flip())?;
        let tick = self.timer_base.checked_add(flip)?;
        waits.then(|| VmTime::from_ticks(tick, PM_TIMER_HZ))
    }

    /// Virtual time has reached the deadline.
    pub fn fire(&mut self) {
        self.settle_timer();
        self.update();
    }

    fn apm_register(&mut self, port: u16, width: AccessWidth) -> BusResult<&mut u8> {
        let [apmc, apms] = &mut self.apm;
        let register = match port {
            APMC => apmc,
            APMS => apms,
            _ => return Err(BusError::NoRegister),
        };
        if width == AccessWidth::Byte { Ok(register) } else { Err(BusError::Width) }
    }

    fn write_control(&mut self, value: u16) {
        let written = PmCntrl::from_bits_truncate(value);
        self.control = written - PmCntrl::WRITE_ONLY;
        if written.contains(PmCntrl::GBL_RLS) {
            self.global_status.insert(GlbSts::BIOS_STS);
            if self.global_enable.contains(GlbEn::BIOS_EN) {
                self.assert_smi();
            }
        }
        if !written.contains(PmCntrl::SUS_EN) {
            return;
        }
        match (written & PmCntrl::SUS_TYP).bits() >> 10 {
            suspend::SOFT_OFF => self.wiring.power.power_off(),
            suspend::POS => self.suspended = true,
            // The tables offer none of these.
            other @ (suspend::TO_RAM | suspend::POSCL | suspend::POSCCL) => {
                guest_log!(Warn, "Sleep state with SUS_TYP {other} is not there");
            }
            _ => {}
        }
    }

    fn write_global_control(&mut self, value: u32) {
        let written = GlbCtl::from_bits_truncate(value);
        self.global_control = written - GlbCtl::BIOS_RLS;
        if written.contains(GlbCtl::BIOS_RLS) {
            self.status.insert(PmSts::GBL_STS);
        }
        if written.contains(GlbCtl::EOS) && self.smi_waits() {
            self.assert_smi();
        }
    }

    /// Ticks of the PM timer since it was reset.
    fn timer_ticks(&self) -> u64 {
        self.wiring.clock.now().ticks(PM_TIMER_HZ).saturating_sub(self.timer_base)
    }

    /// PMTMR.
    fn timer(&self) -> u32 {
        let mask = (1u64 << self.width.bits()) - 1;
        (self.timer_ticks() & mask) as u32
    }

    fn ticks_per_flip(&self) -> u64 {
        1 << (self.width.bits() - 1)
    }

    /// Sets TMROF_STS if the timer's highest bit has changed since this was last asked.
    fn settle_timer(&mut self) {
        let flips = self.timer_ticks() / self.ticks_per_flip();
        if flips != self.timer_flips {
            self.timer_flips = flips;
            self.status.insert(PmSts::TMROF_STS);
        }
    }

    /// The events of PMSTS and GPSTS that are enabled.
    fn events(&self) -> bool {
        let pm1 = self.status.bits() & self.enable.bits();
        pm1 != 0 || self.gpe_status & self.gpe_enable != 0
    }

    /// GLBSTS.
    fn global_status(&self) -> GlbSts {
        let mut status = self.global_status - GlbSts::GP_STS;
        status.set(GlbSts::GP_STS, self.events() && !self.acpi_enabled());
        status
    }

    /// Whether a cause of SMI# has not been cleared.
    fn smi_waits(&self) -> bool {
        let status = self.global_status();
        status.contains(GlbSts::GP_STS)
            || self.apm_smi && status.contains(GlbSts::APM_STS)
            || self.global_enable.contains(GlbEn::BIOS_EN) && status.contains(GlbSts::BIOS_STS)
    }

    /// Asserts SMI# if it is enabled. Each event does so at once, whether or not EOS has been set
    /// since the last: handlers written for virtual machines never set it.
    fn assert_smi(&mut self) {
        if self.global_control.contains(GlbCtl::SMI_EN) {
            self.global_control.remove(GlbCtl::EOS);
            self.wiring.smi.assert_smi();
        }
    }

    /// Makes SCI and SMI# follow the events, and ends powered-on suspend for them.
    fn update(&mut self) {
        let events = self.events();
        if events && self.suspended {
            self.suspended = false;
            self.status.insert(PmSts::RSM_STS);
        }
        self.wiring.sci.set(events && self.acpi_enabled());
        // The first of several events asserts SMI#; GP_STS remembers that it has.
        let smi = events && !self.acpi_enabled();
        if smi && !self.global_status.contains(GlbSts::GP_STS) {
            self.assert_smi();
        }
        self.global_status.set(GlbSts::GP_STS, smi);
    }
}

/// Two registers of 16 bits as a double word.
fn pair(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

/// The double word that an access begins in, and the bit it begins at. The bus splits accesses that
/// cross its end.
fn locate(offset: u16, width: AccessWidth) -> BusResult<(u16, u32)> {
    if offset >= PM_BLOCK_SIZE {
        return Err(BusError::NoRegister);
    }
    let byte = offset & 3;
    match byte + width.bytes() > 4 {
        true => Err(BusError::Width),
        false => Ok((offset - byte, u32::from(byte) * 8)),
    }
}
