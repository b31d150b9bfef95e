//! The saved form of the HPET.

use trivium_chipset::{Section, StateError};

use super::comparator::save_restore as timer;
use super::{Ahead, GenConf, Hpet, TIMERS};

const VERSION: u32 = 1;

#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    config: u64,
    status: u64,
    counter: u64,
    base: u64,
    timers: [timer::Saved; TIMERS],
}

pub fn save(hpet: &Hpet) -> Section {
    let Hpet { wiring: _, config, status, counter, base, timers, ahead: _ } = hpet;
    let saved = Saved {
        config: config.bits(),
        status: *status,
        counter: *counter,
        base: *base,
        timers: timers.each_ref().map(timer::save),
    };
    Section::encode(VERSION, &saved)
}

pub fn restore(hpet: &mut Hpet, section: &Section) -> Result<(), StateError> {
    let Saved { config, status, counter, base, timers } = section.decode(VERSION)?;
    let config = GenConf::from_bits(config).ok_or(StateError::Impossible("Reserved HPET bits"))?;
    if status >> TIMERS != 0 {
        return Err(StateError::Impossible("Reserved HPET bits"));
    }
    let [a, b, c] = timers;
    let timers = [timer::restore(a)?, timer::restore(b)?, timer::restore(c)?];
    let (wiring, ahead) = (hpet.wiring.clone(), Ahead::NOTHING);
    *hpet = Hpet { wiring, config, status, counter, base, timers, ahead };
    hpet.foresee();
    Ok(())
}
