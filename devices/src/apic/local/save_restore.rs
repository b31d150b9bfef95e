//! The saved form of the local APIC.

use std::sync::Arc;

use trivium_chipset::{Section, StateError};

use super::registers::{ApicBase, Esr, Icr, LVT_ENTRIES, LvtEntry, Requests, Svr};
use super::{LocalApic, VectorSet};
use crate::apic::timer;

const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    id: u32,
    flags: u64,
    base: u64,
    tpr: u8,
    logical_id: u8,
    model: u8,
    svr: u32,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    esr: u32,
    errors: u32,
    icr: u32,
    icr_destination: u32,
    lvt: [u32; LVT_ENTRIES],
    timer: timer::save_restore::Saved,
    lint: [bool; 2],
    requests: u8,
    startup_page: u8,
}

pub fn save(apic: &LocalApic) -> Section {
    let LocalApic {
        config,
        clock: _,
        flags,
        base,
        tpr,
        logical_id,
        model,
        svr,
        isr,
        tmr,
        irr,
        esr,
        errors,
        icr,
        icr_destination,
        lvt,
        timer,
        lint,
        requests,
        startup_page,
    } = apic;
    let saved = Saved {
        id: config.id,
        flags: flags.bits(),
        base: *base,
        tpr: *tpr,
        logical_id: *logical_id,
        model: *model,
        svr: svr.bits(),
        isr: *isr,
        tmr: *tmr,
        irr: *irr,
        esr: esr.bits(),
        errors: errors.bits(),
        icr: icr.bits(),
        icr_destination: *icr_destination,
        lvt: lvt.map(|entry| entry.bits()),
        timer: timer::save_restore::save(timer),
        lint: *lint,
        requests: requests.bits(),
        startup_page: *startup_page,
    };
    Section::encode(VERSION, &saved)
}

pub fn restore(apic: &mut LocalApic, section: &Section) -> Result<(), StateError> {
    let saved: Saved = section.decode(VERSION)?;
    if saved.id != apic.config.id {
        return Err(StateError::Impossible("Another processor's local APIC"));
    }
    *apic = rebuild(apic, saved)?;
    Ok(())
}

fn rebuild(apic: &LocalApic, saved: Saved) -> Result<LocalApic, StateError> {
    let Saved {
        id: _,
        flags,
        base,
        tpr,
        logical_id,
        model,
        svr,
        isr,
        tmr,
        irr,
        esr,
        errors,
        icr,
        icr_destination,
        lvt,
        timer,
        lint,
        requests,
        startup_page,
    } = saved;
    let reserved = StateError::Impossible("Reserved local APIC bits");
    let known =
        |found: bool| if found { Ok(()) } else { Err(StateError::Impossible("Local APIC")) };
    known(base & 0xfff == 0 && model <= 0xf)?;
    known(!isr.has_illegal() && !irr.has_illegal())?;
    known(lvt.iter().all(|bits| LvtEntry::from_bits(*bits).is_some()))?;
    let flags = ApicBase::from_bits(flags)
        .filter(|flags| flags.contains(ApicBase::EN) || !flags.contains(ApicBase::EXTD));
    let (Some(flags), Some(svr), Some(esr), Some(errors), Some(icr), Some(requests)) = (
        flags,
        Svr::from_bits(svr),
        Esr::from_bits(esr),
        Esr::from_bits(errors),
        Icr::from_bits(icr),
        Requests::from_bits(requests),
    ) else {
        return Err(reserved);
    };
    Ok(LocalApic {
        config: apic.config,
        clock: Arc::clone(&apic.clock),
        flags,
        base,
        tpr,
        logical_id,
        model,
        svr,
        isr,
        tmr,
        irr,
        esr,
        errors,
        icr,
        icr_destination,
        lvt: lvt.map(LvtEntry::from_bits_truncate),
        timer: timer::save_restore::restore(&apic.timer, timer)?,
        lint,
        requests,
        startup_page,
    })
}
