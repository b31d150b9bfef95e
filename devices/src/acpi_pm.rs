//! The PIIX4's ACPI registers: PM1 event and control block, PM timer, general-purpose events, and
//! the APM ports through which an operating system asks for ACPI mode.
//! 82371AB (PIIX4) data sheet (order number 290562), section 7.2; ACPI specification, chapter 4.

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusError, BusResult, Clock, IrqLine, StateError, VmTime};

use crate::access::warn_once;
use crate::power::PowerSink;

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

/// Offsets of the registers in the block.
mod reg {
    pub const PMSTS: u16 = 0x00;
    pub const PMEN: u16 = 0x02;
    pub const PMCNTRL: u16 = 0x04;
    pub const PMTMR: u16 = 0x08;
    pub const GPSTS: u16 = 0x0c;
    pub const GPEN: u16 = 0x0e;
}

bitflags! {
    /// PMSTS, power management status: events that have happened; cleared by writing ones.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct PmSts: u16 {
        /// The highest bit of the PM timer has changed.
        const TMROF_STS = 1 << 0;
        /// The firmware has released the global lock.
        const GBL_STS = 1 << 5;
        /// The power button has been pressed.
        const PWRBTN_STS = 1 << 8;
        /// The RTC's alarm has gone off.
        const RTC_STS = 1 << 10;
        /// The machine has woken up.
        const RSM_STS = 1 << 15;
    }
}

bitflags! {
    /// PMEN, power management resume enable: which events raise SCI.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct PmEn: u16 {
        const TMROF_EN = 1 << 0;
        const GBL_EN = 1 << 5;
        const PWRBTN_EN = 1 << 8;
        const RTC_EN = 1 << 10;
    }
}

bitflags! {
    /// PMCNTRL, power management control.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct PmCntrl: u16 {
        /// Events raise SCI rather than SMI: the machine is in ACPI mode.
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

/// SUS_TYP of soft-off or suspend to disk, the only state that this machine enters.
const SUS_TYP_SOFT_OFF: u16 = 0;

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
    apm: [u8; 2],
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
            apm: [0; 2],
            timer_base,
            timer_flips: 0,
        }
    }

    /// Returns to the state after reset; the PM timer starts again at zero.
    pub fn reset(&mut self) {
        *self = Self::new(self.width, self.wiring.clone());
        self.update_sci();
    }

    /// Reads from the block; `offset` counts from PMBASE.
    ///
    /// # Errors
    /// No register, or the access crosses the end of one.
    pub fn read(&mut self, offset: u16, width: AccessWidth) -> BusResult<u32> {
        self.settle_timer();
        let (register, shift) = locate(offset, width)?;
        let value = match register {
            reg::PMSTS => self.status.bits().into(),
            reg::PMEN => self.enable.bits().into(),
            reg::PMCNTRL => self.control.bits().into(),
            reg::PMTMR => self.timer(),
            reg::GPSTS => self.gpe_status.into(),
            reg::GPEN => self.gpe_enable.into(),
            _ => return Err(BusError::NoRegister),
        };
        Ok(value >> shift & width.mask())
    }

    /// Writes to the block; `offset` counts from PMBASE.
    ///
    /// # Errors
    /// No register, or the access crosses the end of one.
    pub fn write(&mut self, offset: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        self.settle_timer();
        let (register, shift) = locate(offset, width)?;
        // Registers other than the timer are 16 bits wide, so nothing is cut off.
        let mask = (width.mask() << shift) as u16;
        let value = (value << shift) as u16 & mask;
        match register {
            reg::PMSTS => self.status.remove(PmSts::from_bits_truncate(value)),
            reg::PMEN => {
                let new = self.enable.bits() & !mask | value;
                self.enable = PmEn::from_bits_truncate(new);
            }
            reg::PMCNTRL => self.write_control(self.control.bits() & !mask | value),
            reg::PMTMR => return Ok(()),
            reg::GPSTS => self.gpe_status &= !value,
            reg::GPEN => self.gpe_enable = self.gpe_enable & !mask | value,
            _ => return Err(BusError::NoRegister),
        }
        self.update_sci();
        Ok(())
    }

    /// Reads an APM port, APMC or APMS.
    ///
    /// # Errors
    /// Not an APM port, or not a byte access.
    pub fn read_apm(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        Ok((*self.apm_register(port, width)?).into())
    }

    /// Writes an APM port. On a real board APMC raises SMI, and the firmware's handler carries the
    /// command out; there being no such handler here, the chip does so itself.
    ///
    /// # Errors
    /// Not an APM port, or not a byte access.
    pub fn write_apm(&mut self, port: u16, width: AccessWidth, value: u8) -> BusResult<()> {
        *self.apm_register(port, width)? = value;
        if port == APMC {
            match value {
                ACPI_ENABLE => self.control.insert(PmCntrl::SCI_EN),
                ACPI_DISABLE => self.control.remove(PmCntrl::SCI_EN),
                _ => warn_once!("APM command {value:02x}h has no handler"),
            }
            self.settle_timer();
            self.update_sci();
        }
        Ok(())
    }

    /// The power button has been pressed.
    pub fn press_power_button(&mut self) {
        self.status.insert(PmSts::PWRBTN_STS);
        self.update_sci();
    }

    /// A general-purpose event, 0 to 15, has happened.
    pub fn raise_gpe(&mut self, event: u8) {
        self.gpe_status |= 1u16.checked_shl(event.into()).unwrap_or(0);
        self.update_sci();
    }

    /// The machine is in ACPI mode: SCI_EN is set.
    #[must_use]
    pub fn acpi_enabled(&self) -> bool {
        self.control.contains(PmCntrl::SCI_EN)
    }

    /// When the timer's overflow next raises SCI, if it may.
    #[must_use]
    pub fn deadline(&self) -> Option<VmTime> {
        let waits = self.enable.contains(PmEn::TMROF_EN)
            && !self.status.contains(PmSts::TMROF_STS)
            && self.acpi_enabled();
        let flip = self.timer_flips.checked_add(1)?.checked_mul(self.ticks_per_flip())?;
        let tick = self.timer_base.checked_add(flip)?;
        waits.then(|| VmTime::from_ticks(tick, PM_TIMER_HZ))
    }

    /// Virtual time has reached the deadline.
    pub fn fire(&mut self) {
        self.settle_timer();
        self.update_sci();
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
        self.control = written.difference(PmCntrl::GBL_RLS | PmCntrl::SUS_EN);
        if !written.contains(PmCntrl::SUS_EN) {
            return;
        }
        match (written & PmCntrl::SUS_TYP).bits() >> 10 {
            SUS_TYP_SOFT_OFF => self.wiring.power.power_off(),
            other => warn_once!("Sleep state with SUS_TYP {other} is not there"),
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

    fn update_sci(&self) {
        let events = self.status.bits() & self.enable.bits() | self.gpe_status & self.gpe_enable;
        self.wiring.sci.set(self.acpi_enabled() && events != 0);
    }
}

/// The register that an access begins in, and the bit it begins at. Registers are 16 bits wide and
/// the timer 32; a wider or misaligned access is split by the bus.
fn locate(offset: u16, width: AccessWidth) -> BusResult<(u16, u32)> {
    let (register, bytes) = match offset {
        reg::PMTMR..reg::GPSTS => (reg::PMTMR, 4),
        0..PM_BLOCK_SIZE => (offset & !1, 2),
        _ => return Err(BusError::NoRegister),
    };
    let byte = offset - register;
    if byte + width.bytes() > bytes {
        Err(BusError::Width)
    } else {
        Ok((register, u32::from(byte) * 8))
    }
}

/// The saved form; the PCI function that the block belongs to keeps it in its section.
pub(crate) mod save_restore {
    use super::{AcpiPm, PmCntrl, PmEn, PmSts, StateError};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Saved {
        status: u16,
        enable: u16,
        control: u16,
        gpe_status: u16,
        gpe_enable: u16,
        apm: [u8; 2],
        timer_base: u64,
        timer_flips: u64,
    }

    pub fn save(pm: &AcpiPm) -> Saved {
        let AcpiPm {
            wiring: _,
            width: _,
            status,
            enable,
            control,
            gpe_status,
            gpe_enable,
            apm,
            timer_base,
            timer_flips,
        } = pm;
        Saved {
            status: status.bits(),
            enable: enable.bits(),
            control: control.bits(),
            gpe_status: *gpe_status,
            gpe_enable: *gpe_enable,
            apm: *apm,
            timer_base: *timer_base,
            timer_flips: *timer_flips,
        }
    }

    pub fn restore(pm: &mut AcpiPm, saved: Saved) -> Result<(), StateError> {
        let Saved { status, enable, control, gpe_status, gpe_enable, apm, timer_base, timer_flips } =
            saved;
        let reserved = StateError::Impossible("Reserved power management bits");
        let (Some(status), Some(enable), Some(control)) =
            (PmSts::from_bits(status), PmEn::from_bits(enable), PmCntrl::from_bits(control))
        else {
            return Err(reserved);
        };
        *pm = AcpiPm {
            wiring: pm.wiring.clone(),
            width: pm.width,
            status,
            enable,
            control,
            gpe_status,
            gpe_enable,
            apm,
            timer_base,
            timer_flips,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::power::ResetKind;
    use crate::test_support::IrqLog;
    use trivium_chipset::ManualClock;

    #[derive(Default)]
    struct Supply(AtomicU32);

    impl PowerSink for Supply {
        fn power_off(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn reset(&self, _: ResetKind) {}
    }

    struct Bench {
        pm: AcpiPm,
        clock: Arc<ManualClock>,
        irqs: Arc<IrqLog>,
        supply: Arc<Supply>,
    }

    fn bench(width: PmTimerWidth) -> Bench {
        let (clock, irqs, supply) = (ManualClock::new(), IrqLog::new(), Arc::<Supply>::default());
        let (sci, power) = (irqs.line(9), supply.clone());
        let pm = AcpiPm::new(width, PmWiring { clock: clock.clone(), sci, power });
        Bench { pm, clock, irqs, supply }
    }

    impl Bench {
        fn get(&mut self, offset: u16) -> u32 {
            let width = if offset == 8 { AccessWidth::Dword } else { AccessWidth::Word };
            self.pm.read(offset, width).unwrap()
        }

        fn put(&mut self, offset: u16, value: u32) {
            self.pm.write(offset, AccessWidth::Word, value).unwrap();
        }

        fn sci(&self) -> bool {
            self.irqs.level(9)
        }
    }

    #[test]
    fn the_timer_counts_at_3_579545_mhz_and_wraps_at_its_width() {
        for (width, bits) in [(PmTimerWidth::Bits24, 24), (PmTimerWidth::Bits32, 32)] {
            let mut bench = bench(width);
            bench.clock.set(VmTime::from_nanos(1_000_000_000));
            assert_eq!(bench.get(8), 3_579_545);
            bench.clock.set(VmTime::from_ticks((1 << bits) + 7, PM_TIMER_HZ));
            assert_eq!(bench.get(8), 7, "{bits} bits");
        }
    }

    #[test]
    fn a_change_of_the_timers_highest_bit_raises_sci() {
        let mut bench = bench(PmTimerWidth::Bits24);
        bench.put(4, 1);
        assert_eq!(bench.pm.deadline(), None);
        bench.put(2, 1);
        let flip = VmTime::from_ticks(1 << 23, PM_TIMER_HZ);
        assert_eq!(bench.pm.deadline(), Some(flip));
        bench.clock.set(flip);
        bench.pm.fire();
        assert!(bench.sci());
        assert_eq!(bench.get(0) & 1, 1);
        bench.put(0, 1);
        assert!(!bench.sci());
        assert_eq!(bench.pm.deadline(), Some(VmTime::from_ticks(1 << 24, PM_TIMER_HZ)));
    }

    #[test]
    fn the_power_button_raises_sci_in_acpi_mode_only() {
        let mut bench = bench(PmTimerWidth::Bits24);
        bench.put(2, 1 << 8);
        bench.pm.press_power_button();
        assert!(!bench.sci());
        bench.put(4, 1);
        assert!(bench.sci());
        bench.put(0, 0);
        assert!(bench.sci(), "zeros clear nothing");
        bench.put(0, 1 << 8);
        assert!(!bench.sci());
    }

    #[test]
    fn sus_en_with_sus_typ_0_switches_off() {
        let mut bench = bench(PmTimerWidth::Bits24);
        bench.put(4, 1 << 10 | 1 << 13);
        assert_eq!(bench.supply.0.load(Ordering::Relaxed), 0);
        assert_eq!(bench.get(4), 1 << 10, "SUS_EN reads zero");
        bench.pm.write(5, AccessWidth::Byte, 0x20).unwrap();
        assert_eq!(bench.supply.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn general_purpose_events_raise_sci_where_enabled() {
        let mut bench = bench(PmTimerWidth::Bits24);
        bench.put(4, 1);
        bench.pm.raise_gpe(3);
        assert!(!bench.sci());
        bench.put(0x0e, 1 << 3);
        assert!(bench.sci());
        assert_eq!(bench.get(0x0c), 1 << 3);
        bench.put(0x0c, 1 << 3);
        assert!(!bench.sci());
        bench.pm.raise_gpe(200);
        assert_eq!(bench.get(0x0c), 0);
    }

    #[test]
    fn accesses_that_cross_a_register_are_left_to_the_bus() {
        let mut bench = bench(PmTimerWidth::Bits24);
        assert_eq!(bench.pm.read(0, AccessWidth::Dword), Err(BusError::Width));
        assert_eq!(bench.pm.read(9, AccessWidth::Dword), Err(BusError::Width));
        assert_eq!(bench.pm.read(0x14, AccessWidth::Byte), Err(BusError::NoRegister));
    }
}
