//! The high precision event timers: a 64-bit counter at 100 MHz and three comparators.
//! IA-PC HPET (High Precision Event Timers) Specification 1.0a.
//!
//! Nothing ticks: each comparator knows the moment of its next match, and registers that matches
//! change are brought up to the present before they are looked at. Reading the main counter, which
//! kernels do at every look at the clock, touches no comparator.

mod comparator;
mod save_restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{
    BusError, BusResult, Clock, Device, IrqLine, Mmio, SaveRestore, Section, StateError, Timed,
    VmTime,
};

use comparator::{Comparator, TimerConfig};

/// Frequency of the main counter in hertz.
pub const HPET_HZ: u64 = 100_000_000;
/// Period of the main counter in femtoseconds.
pub const HPET_PERIOD_FS: u32 = 10_000_000;
/// Bytes of the register block.
pub const HPET_SIZE: u64 = 0x400;

const TIMERS: usize = 3;

/// Offsets of the registers, all 64 bits wide.
mod reg {
    pub const GCAP_ID: u64 = 0x000;
    pub const GEN_CONF: u64 = 0x010;
    pub const GINTR_STA: u64 = 0x020;
    pub const MAIN_CNT: u64 = 0x0f0;
    /// The first comparator's configuration; comparators are 20h apart.
    pub const TIMERS: u64 = 0x100;
    pub const TIMER_SIZE: u64 = 0x20;
    pub const TN_CONF: u64 = 0x00;
    pub const TN_CMP: u64 = 0x08;
    pub const TN_FSB_ROUTE: u64 = 0x10;
}

/// GCAP_ID: revision 1, three timers, 64-bit counter, legacy replacement, vendor 8086h, period.
const CAPABILITIES: u64 =
    (HPET_PERIOD_FS as u64) << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

bitflags! {
    /// GEN_CONF, general configuration.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct GenConf: u64 {
        /// ENABLE_CNF: the counter runs and interrupts are allowed.
        const ENABLE = 1 << 0;
        /// LEG_RT_CNF: timers 0 and 1 take the place of PIT and RTC.
        const LEG_RT = 1 << 1;
    }
}

/// What the board connects the HPET to.
#[derive(Clone)]
pub struct HpetWiring {
    /// Virtual time.
    pub clock: Arc<dyn Clock>,
    /// The inputs of the I/O APIC (0 to 31) that timers may be routed to, each with a line there.
    /// A level-triggered interrupt asserts its line; an edge is a pulse.
    pub routes: Vec<(u8, IrqLine)>,
    /// Where timers 0 and 1 go under legacy replacement: IRQ 0 and IRQ 8.
    pub legacy: [IrqLine; 2],
    /// Asserted while legacy replacement is on, and PIT and RTC are cut off their interrupts.
    pub legacy_select: IrqLine,
}

/// Outputs as bits: 0 to 31 are routes.
type Outputs = u64;
const LEGACY: u8 = 32;
const LEGACY_SELECT: u8 = 34;
const OUTPUTS: u8 = 35;

/// The HPET, at FED00000h on the board `pc`.
pub struct Hpet {
    wiring: HpetWiring,
    config: GenConf,
    /// GINTR_STA, one bit per level-triggered timer.
    status: u64,
    /// The main counter at `base`, or for as long as it stands.
    counter: u64,
    /// Ticks since the machine's start at which the counter was `counter`.
    base: u64,
    timers: [Comparator; TIMERS],
    /// What [`Self::foresee`] has found in the timers; not state of its own.
    ahead: Ahead,
}

/// The next matches: known so that most accesses need not look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    /// The tick of the earliest match of all.
    matches: u64,
    /// The moment of the earliest one that interrupts.
    deadline: Option<VmTime>,
}

impl Ahead {
    const NOTHING: Self = Self { matches: u64::MAX, deadline: None };
}

impl Hpet {
    /// An HPET after reset.
    #[must_use]
    pub fn new(wiring: HpetWiring) -> Self {
        Self {
            wiring,
            config: GenConf::empty(),
            status: 0,
            counter: 0,
            base: 0,
            timers: [Comparator::new(); TIMERS],
            ahead: Ahead::NOTHING,
        }
    }

    /// Timers 0 and 1 take the place of PIT and RTC, whose interrupts are cut off.
    #[must_use]
    pub fn legacy_replacement(&self) -> bool {
        self.config.contains(GenConf::ENABLE | GenConf::LEG_RT)
    }

    fn enabled(&self) -> bool {
        self.config.contains(GenConf::ENABLE)
    }

    /// Ticks since the machine's start.
    fn tick(&self) -> u64 {
        self.wiring.clock.now().ticks(HPET_HZ)
    }

    fn main_counter(&self, tick: u64) -> u64 {
        let run = if self.enabled() { tick.saturating_sub(self.base) } else { 0 };
        self.counter.wrapping_add(run)
    }

    /// The inputs that timers may be routed to, as Tn_INT_ROUTE_CAP.
    fn route_capability(&self) -> u32 {
        let bits = self.wiring.routes.iter().map(|(input, _)| 1u32.checked_shl((*input).into()));
        bits.flatten().fold(0, |all, bit| all | bit)
    }

    /// Where a timer's interrupt goes.
    fn output(&self, timer: usize) -> u8 {
        match self.timers.get(timer) {
            Some(_) if self.legacy_replacement() && timer < 2 => LEGACY + timer as u8,
            Some(comparator) => comparator.route(),
            None => OUTPUTS,
        }
    }

    /// The outputs that are asserted.
    fn levels(&self) -> Outputs {
        let mut levels = u64::from(self.legacy_replacement()) << LEGACY_SELECT;
        for (n, timer) in self.timers.iter().enumerate() {
            let interrupts = timer.config.contains(TimerConfig::INT_TYPE | TimerConfig::INT_ENB);
            if self.enabled() && interrupts && self.status >> n & 1 != 0 {
                levels |= 1 << self.output(n);
            }
        }
        levels
    }

    fn line(&self, output: u8) -> Option<&IrqLine> {
        match output {
            LEGACY_SELECT => Some(&self.wiring.legacy_select),
            LEGACY.. => self.wiring.legacy.get(usize::from(output - LEGACY)),
            _ => {
                self.wiring.routes.iter().find(|(input, _)| *input == output).map(|(_, line)| line)
            }
        }
    }

    /// Drives the outputs that are not what they were, and makes an edge on those that have one.
    fn drive(&self, before: Outputs, edges: Outputs) {
        let after = self.levels();
        for output in 0..OUTPUTS {
            let bit = 1 << output;
            let Some(line) = self.line(output) else { continue };
            if (before ^ after) & bit != 0 {
                line.set(after & bit != 0);
            } else if edges & !after & bit != 0 {
                line.edge();
            }
        }
    }

    /// Takes back the lines that edges have left high, of timers that make no edges from now on.
    fn release(&self) {
        let levels = self.levels();
        for (n, timer) in self.timers.iter().enumerate() {
            let output = self.output(n);
            let edges = timer.config & (TimerConfig::INT_TYPE | TimerConfig::INT_ENB);
            if edges != TimerConfig::INT_ENB
                && levels >> output & 1 == 0
                && let Some(line) = self.line(output)
            {
                line.set(false);
            }
        }
    }

    /// Brings the comparators up to the present and raises the interrupts of those that matched.
    fn settle(&mut self) {
        let tick = self.tick();
        if tick < self.ahead.matches {
            return;
        }
        let before = self.levels();
        let mut edges = 0;
        for n in 0..TIMERS {
            let output = self.output(n);
            let Some(timer) = self.timers.get_mut(n) else { return };
            if !timer.take_match(tick) {
                continue;
            }
            if timer.config.contains(TimerConfig::INT_TYPE) {
                self.status |= 1 << n;
            } else if timer.config.contains(TimerConfig::INT_ENB) {
                edges |= 1 << output;
            }
        }
        self.foresee();
        self.drive(before, edges);
    }

    /// Finds what comes next after any change.
    fn foresee(&mut self) {
        let matches = self.timers.iter().filter_map(Comparator::due).min().unwrap_or(u64::MAX);
        let interrupting = self.timers.iter().enumerate().filter(|(n, timer)| {
            let shown = timer.config.contains(TimerConfig::INT_TYPE) && self.status >> n & 1 != 0;
            timer.config.contains(TimerConfig::INT_ENB) && !shown
        });
        let due = interrupting.filter_map(|(_, timer)| timer.due()).min();
        let deadline = due.map(|due| VmTime::from_ticks(due, HPET_HZ));
        self.ahead = Ahead { matches, deadline };
    }

    /// Finds the next match of every comparator anew.
    fn rearm(&mut self, tick: u64) {
        let counter = self.enabled().then(|| self.main_counter(tick));
        for timer in &mut self.timers {
            timer.rearm(counter, tick);
        }
    }

    fn read_register(&self, register: u64) -> BusResult<u64> {
        Ok(match register {
            reg::GCAP_ID => CAPABILITIES,
            reg::GEN_CONF => self.config.bits(),
            reg::GINTR_STA => self.status,
            reg::MAIN_CNT => self.main_counter(self.tick()),
            _ => {
                let (n, part) = timer_register(register)?;
                let timer = self.timers.get(n).ok_or(BusError::NoRegister)?;
                match part {
                    reg::TN_CONF => timer.read_config() | u64::from(self.route_capability()) << 32,
                    reg::TN_CMP => timer.compare(),
                    // There is no delivery by messages (Tn_FSB_INT_DEL_CAP is zero).
                    reg::TN_FSB_ROUTE => 0,
                    _ => return Err(BusError::NoRegister),
                }
            }
        })
    }

    /// Writes the bits of a register that `mask` selects.
    fn write_register(&mut self, register: u64, value: u64, mask: u64) -> BusResult<()> {
        let tick = self.tick();
        match register {
            reg::GCAP_ID => {}
            reg::GEN_CONF => self.write_config(self.config.bits() & !mask | value, tick),
            reg::GINTR_STA => self.status &= !value,
            // "Writes to this register should only be done while the counter is halted."
            reg::MAIN_CNT if self.enabled() => {}
            reg::MAIN_CNT => {
                self.counter = self.main_counter(tick) & !mask | value;
            }
            _ => self.write_timer(register, value, mask, tick)?,
        }
        Ok(())
    }

    fn write_config(&mut self, value: u64, tick: u64) {
        self.counter = self.main_counter(tick);
        self.base = tick;
        let toggles = (self.config.bits() ^ value) & GenConf::ENABLE.bits() != 0;
        self.config = GenConf::from_bits_truncate(value);
        if toggles {
            self.rearm(tick);
        }
    }

    fn write_timer(&mut self, register: u64, value: u64, mask: u64, tick: u64) -> BusResult<()> {
        let (n, part) = timer_register(register)?;
        let counter = self.enabled().then(|| self.main_counter(tick));
        let routes = self.route_capability();
        let timer = self.timers.get_mut(n).ok_or(BusError::NoRegister)?;
        match part {
            reg::TN_CONF => timer.write_config(value, mask, routes),
            reg::TN_CMP => timer.write_compare(value, mask),
            reg::TN_FSB_ROUTE => return Ok(()),
            _ => return Err(BusError::NoRegister),
        }
        timer.rearm(counter, tick);
        Ok(())
    }
}

/// Which comparator a register belongs to, and its offset there.
fn timer_register(register: u64) -> BusResult<(usize, u64)> {
    let offset = register.checked_sub(reg::TIMERS).ok_or(BusError::NoRegister)?;
    let timer = usize::try_from(offset / reg::TIMER_SIZE).map_err(|_| BusError::NoRegister)?;
    if timer < TIMERS { Ok((timer, offset % reg::TIMER_SIZE)) } else { Err(BusError::NoRegister) }
}

/// The 64-bit register that an access of `bytes` bytes is in, and the bit that it begins at.
/// Section 2.3.2: accesses are aligned ones of 32 or 64 bits.
fn locate(offset: u64, bytes: usize) -> BusResult<(u64, u32)> {
    match (offset % 8, bytes) {
        (0, 4 | 8) => Ok((offset, 0)),
        (4, 4) => Ok((offset - 4, 32)),
        _ => Err(BusError::Width),
    }
}

impl Mmio for Hpet {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> BusResult<()> {
        let (register, shift) = locate(offset, data.len())?;
        if register == reg::GINTR_STA || register >= reg::TIMERS {
            self.settle();
        }
        let bytes = (self.read_register(register)? >> shift).to_le_bytes();
        data.copy_from_slice(bytes.get(..data.len()).ok_or(BusError::Width)?);
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> BusResult<()> {
        let (register, shift) = locate(offset, data.len())?;
        let mut bytes = [0; 8];
        bytes.get_mut(..data.len()).ok_or(BusError::Width)?.copy_from_slice(data);
        let mask = if data.len() == 8 { u64::MAX } else { 0xffff_ffff << shift };
        self.settle();
        let before = self.levels();
        let result = self.write_register(register, u64::from_le_bytes(bytes) << shift, mask);
        self.foresee();
        self.drive(before, 0);
        self.release();
        // A comparator that was set to the present count matches at once.
        self.settle();
        result
    }
}

impl Timed for Hpet {
    fn deadline(&self) -> Option<VmTime> {
        self.ahead.deadline
    }

    fn fire(&mut self, _now: VmTime) {
        self.settle();
    }
}

impl Device for Hpet {
    fn mmio(&mut self) -> Option<&mut dyn Mmio> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        let before = self.levels();
        *self = Self::new(self.wiring.clone());
        self.drive(before, 0);
    }
}

impl SaveRestore for Hpet {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}
