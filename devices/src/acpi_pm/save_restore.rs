//! The saved form; the PCI function that the block belongs to keeps it in its section.

use trivium_chipset::StateError;

use super::AcpiPm;
use super::registers::{GPE_MASK, GlbCtl, GlbEn, GlbSts, PCNTRL_MASK, PmCntrl, PmEn, PmSts};

#[derive(serde::Serialize, serde::Deserialize)]
pub struct Saved {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: u16,
    gpe_enable: u16,
    processor_control: u32,
    global_status: u16,
    global_enable: u16,
    global_control: u32,
    device_control: u32,
    outputs: u32,
    apm: [u8; 2],
    suspended: bool,
    rtc_interrupt: bool,
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
        processor_control,
        global_status,
        global_enable,
        global_control,
        device_control,
        outputs,
        apm,
        // Follows from the function's configuration space.
        apm_smi: _,
        suspended,
        rtc_interrupt,
        timer_base,
        timer_flips,
    } = pm;
    Saved {
        status: status.bits(),
        enable: enable.bits(),
        control: control.bits(),
        gpe_status: *gpe_status,
        gpe_enable: *gpe_enable,
        processor_control: *processor_control,
        global_status: global_status.bits(),
        global_enable: global_enable.bits(),
        global_control: global_control.bits(),
        device_control: *device_control,
        outputs: *outputs,
        apm: *apm,
        suspended: *suspended,
        rtc_interrupt: *rtc_interrupt,
        timer_base: *timer_base,
        timer_flips: *timer_flips,
    }
}

pub fn restore(pm: &mut AcpiPm, saved: Saved) -> Result<(), StateError> {
    let reserved = StateError::Impossible("Reserved power management bits");
    let (Some(status), Some(enable), Some(control)) = (
        PmSts::from_bits(saved.status),
        PmEn::from_bits(saved.enable),
        PmCntrl::from_bits(saved.control).filter(|bits| !bits.intersects(PmCntrl::WRITE_ONLY)),
    ) else {
        return Err(reserved);
    };
    let (Some(global_status), Some(global_enable), Some(global_control)) = (
        GlbSts::from_bits(saved.global_status),
        GlbEn::from_bits(saved.global_enable),
        GlbCtl::from_bits(saved.global_control).filter(|bits| !bits.contains(GlbCtl::BIOS_RLS)),
    ) else {
        return Err(reserved);
    };
    if (saved.gpe_status | saved.gpe_enable) & !GPE_MASK != 0
        || saved.processor_control & !PCNTRL_MASK != 0
    {
        return Err(reserved);
    }
    *pm = AcpiPm {
        wiring: pm.wiring.clone(),
        width: pm.width,
        status,
        enable,
        control,
        gpe_status: saved.gpe_status,
        gpe_enable: saved.gpe_enable,
        processor_control: saved.processor_control,
        global_status,
        global_enable,
        global_control,
        device_control: saved.device_control,
        outputs: saved.outputs,
        apm: saved.apm,
        apm_smi: pm.apm_smi,
        suspended: saved.suspended,
        rtc_interrupt: saved.rtc_interrupt,
        timer_base: saved.timer_base,
        timer_flips: saved.timer_flips,
    };
    Ok(())
}
