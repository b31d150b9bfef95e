//! The local APIC: what it accepts, what it hands to its processor, and in which order.
//! Intel SDM vol. 3A, chapter 11.

mod access;
mod image;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_rules;

use std::sync::Arc;

use trivium_chipset::{Clock, Device, SaveRestore, Section, StateError, Timed, VmTime};

use super::bus::LapicSummary;
use super::message::{DeliveryMode, Destination, Message};
use super::timer::{ApicTimer, TimerMode};
use super::vectors::VectorSet;
pub use access::MsrFault;
pub use image::LapicRegisters;
pub use registers::ApicGeneration;
pub use registers::Requests;
use registers::{ApicBase, DEFAULT_BASE, Esr, Icr, LVT_ENTRIES, Lvt, LvtEntry, Svr};

/// What a local APIC is built as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LapicConfig {
    /// There is one (CPUID.01H:EDX\[9\]); else it is `Disabled` for ever.
    pub present: bool,
    /// APIC ID; below 255 for APICs that are to be used in xAPIC mode.
    pub id: u32,
    /// The processor is the bootstrap processor.
    pub bootstrap: bool,
    /// Frequency of the timer before division, in hertz.
    pub timer_hz: u64,
    /// Frequency of the TSC, in hertz.
    pub tsc_hz: u64,
    /// Width of physical addresses in bits (MAXPHYADDR), for the check of IA32_APIC_BASE.
    pub physical_bits: u8,
    /// There is an x2APIC mode (CPUID.01H:ECX\[21\]).
    pub x2apic: bool,
    /// The timer has a TSC-deadline mode (CPUID.01H:ECX\[24\]).
    pub tsc_deadline: bool,
    /// Whose it is.
    pub generation: ApicGeneration,
}

/// The mode that IA32_APIC_BASE sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApicMode {
    /// Not there: LINT0 is INTR, LINT1 is NMI.
    Disabled,
    /// Registers in a page of memory.
    XApic,
    /// Registers are MSRs.
    X2Apic,
}

/// A local interrupt pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lint {
    /// By convention the 8259A's INTR output.
    Lint0,
    /// By convention NMI.
    Lint1,
}

/// What an access to a local APIC asks of the rest of the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LapicAction {
    /// Send this interprocessor interrupt; see [`super::bus::targets`] for whom it reaches.
    Ipi(Message),
    /// Tell the I/O APICs that the level-triggered interrupt of this vector is at its end.
    Eoi(u8),
}

/// A processor's local APIC.
pub struct LocalApic {
    config: LapicConfig,
    clock: Arc<dyn Clock>,
    /// IA32_APIC_BASE: the flags, and the address of the page.
    flags: ApicBase,
    base: u64,
    tpr: u8,
    /// Bits 31 to 24 of LDR, in xAPIC mode.
    logical_id: u8,
    /// Bits 31 to 28 of DFR.
    model: u8,
    svr: Svr,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    /// ESR as it reads, and the errors since it was last written.
    esr: Esr,
    errors: Esr,
    icr: Icr,
    icr_destination: u32,
    lvt: [LvtEntry; LVT_ENTRIES],
    timer: ApicTimer,
    /// Levels of LINT0 and LINT1.
    lint: [bool; 2],
    requests: Requests,
    /// The page of the start-up message, if [`Requests::STARTUP`] is set.
    startup_page: u8,
}

impl LocalApic {
    /// A local APIC after power-up: in xAPIC mode at FEE00000h, disabled by software.
    #[must_use]
    pub fn new(config: LapicConfig, clock: Arc<dyn Clock>) -> Self {
        let flags = ApicBase::at_reset(&config);
        Self {
            config,
            clock,
            flags,
            base: DEFAULT_BASE,
            tpr: 0,
            logical_id: 0,
            model: 0xf,
            svr: Svr::RESET,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: Esr::empty(),
            errors: Esr::empty(),
            icr: Icr::empty(),
            icr_destination: 0,
            lvt: [LvtEntry::RESET; LVT_ENTRIES],
            timer: ApicTimer::new(config.timer_hz, config.tsc_hz),
            lint: [false; 2],
            requests: Requests::empty(),
            startup_page: 0,
        }
    }

    /// The mode that IA32_APIC_BASE sets. CPUID.01H:EDX\[9\] is clear while it is `Disabled`.
    #[must_use]
    pub fn mode(&self) -> ApicMode {
        match (self.flags.contains(ApicBase::EN), self.flags.contains(ApicBase::EXTD)) {
            (false, _) => ApicMode::Disabled,
            (true, false) => ApicMode::XApic,
            (true, true) => ApicMode::X2Apic,
        }
    }

    /// Where the page of registers is in guest physical memory, if there is one now.
    #[must_use]
    pub fn page(&self) -> Option<u64> {
        (self.mode() == ApicMode::XApic).then_some(self.base)
    }

    /// The APIC ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        match self.mode() {
            ApicMode::X2Apic => self.config.id,
            ApicMode::XApic | ApicMode::Disabled => self.config.id & 0xff,
        }
    }

    /// What [`super::bus::targets`] must know.
    #[must_use]
    pub fn summary(&self) -> LapicSummary {
        LapicSummary {
            id: self.id(),
            mode: self.mode(),
            ldr: self.ldr(),
            dfr: self.dfr(),
            priority: self.ppr(),
            software_enabled: self.software_enabled(),
        }
    }

    /// An interrupt comes in; `level` if it is level-triggered. Lost while the APIC is disabled.
    pub fn accept(&mut self, vector: u8, level: bool) {
        if self.mode() == ApicMode::Disabled || !self.software_enabled() {
            return;
        }
        if vector < 16 {
            return self.error(Esr::RECEIVE_ILLEGAL_VECTOR);
        }
        self.irr.insert(vector);
        self.tmr.set(vector, level);
    }

    /// A message comes in that [`super::bus::targets`] says is for this APIC.
    pub fn receive(&mut self, message: &Message) {
        if self.mode() != ApicMode::Disabled {
            self.take_in(message.delivery, message.vector, message.level);
        }
    }

    /// The vector of the most urgent interrupt, if it is above the processor's priority.
    #[must_use]
    pub fn highest_pending(&self) -> Option<u8> {
        self.irr.highest().filter(|vector| vector >> 4 > self.ppr() >> 4)
    }

    /// The processor takes an interrupt: its vector, which is now in service. The spurious vector
    /// if there is none after all.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.highest_pending() else {
            return (self.svr & Svr::VECTOR).bits() as u8;
        };
        self.irr.remove(vector);
        self.isr.insert(vector);
        vector
    }

    /// Sets the APIC up as firmware leaves it for operating systems that know only the 8259A: the
    /// virtual wire mode of the MultiProcessor Specification 1.4, section 3.6.2.2. For the
    /// bootstrap processor of a machine that starts without firmware.
    pub fn set_virtual_wire(&mut self) {
        self.write_svr((Svr::ENABLE | Svr::RESET).bits());
        self.write_lvt(Lvt::Lint0, DeliveryMode::ExtInt.bits() << 8);
        self.write_lvt(Lvt::Lint1, DeliveryMode::Nmi.bits() << 8);
    }

    /// The 8259A's INTR reaches the processor by way of LINT0: in virtual-wire mode, or because
    /// the APIC is disabled.
    #[must_use]
    pub fn extint_enabled(&self) -> bool {
        let lint0 = self.lvt(Lvt::Lint0);
        self.mode() == ApicMode::Disabled
            || (!lint0.contains(LvtEntry::MASKED)
                && delivery_mode(lint0) == Some(DeliveryMode::ExtInt))
    }

    /// The 8259A is to be asked for a vector: its INTR has come through LINT0, or as a message
    /// of the I/O APIC.
    #[must_use]
    pub fn extint_pending(&self) -> bool {
        self.requests.contains(Requests::EXTINT) || (self.lint[0] && self.extint_enabled())
    }

    /// The processor takes the 8259A's interrupt; the vector is to be had from there.
    pub fn acknowledge_extint(&mut self) {
        self.requests.remove(Requests::EXTINT);
    }

    /// What else is asked of the processor. `EXTINT` is set only for a message of the I/O APIC;
    /// see [`Self::extint_pending`].
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.requests
    }

    /// There is certainly nothing for the processor: what is known without comparing priorities.
    #[inline]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && !self.lint[0] && self.irr.is_empty()
    }

    /// There is something for the processor: one that is halted must look.
    #[must_use]
    pub fn wants_processor(&self) -> bool {
        !self.requests.is_empty() || self.extint_pending() || self.highest_pending().is_some()
    }

    /// The processor takes an NMI, if there is one.
    pub fn take_nmi(&mut self) -> bool {
        self.take_request(Requests::NMI)
    }

    /// SMI# of the processor is asserted.
    pub fn assert_smi(&mut self) {
        self.requests.insert(Requests::SMI);
    }

    /// The processor takes an SMI, if there is one.
    pub fn take_smi(&mut self) -> bool {
        self.take_request(Requests::SMI)
    }

    /// The processor takes an INIT, if there is one. The APIC returns to its state after reset but
    /// for IA32_APIC_BASE, its ID, and a start-up message that came after the INIT.
    pub fn take_init(&mut self) -> bool {
        let taken = self.take_request(Requests::INIT);
        if taken {
            self.requests &= Requests::STARTUP;
            self.reset_registers();
        }
        taken
    }

    /// The processor takes a start-up message, if there is one: it starts at this page (its
    /// vector), or, if it does not wait for one, must drop it.
    pub fn take_startup(&mut self) -> Option<u8> {
        self.take_request(Requests::STARTUP).then_some(self.startup_page)
    }

    /// A local interrupt pin is asserted or not. Repeating the present level changes nothing.
    pub fn set_lint(&mut self, pin: Lint, asserted: bool) {
        let (lvt, level) = match pin {
            Lint::Lint0 => (Lvt::Lint0, &mut self.lint[0]),
            Lint::Lint1 => (Lvt::Lint1, &mut self.lint[1]),
        };
        let rises = asserted && !*level;
        *level = asserted;
        match (rises, self.mode(), pin) {
            (false, ..) | (true, ApicMode::Disabled, Lint::Lint0) => {}
            (true, ApicMode::Disabled, Lint::Lint1) => self.requests.insert(Requests::NMI),
            (true, ..) if self.lint0_is_level(lvt) => self.serve_lint0(),
            (true, ..) => self.deliver_local(lvt),
        }
    }

    /// The level of a local interrupt pin.
    #[must_use]
    pub fn lint(&self, pin: Lint) -> bool {
        match pin {
            Lint::Lint0 => self.lint[0],
            Lint::Lint1 => self.lint[1],
        }
    }

    /// A performance counter has overflowed. Its entry is masked until software unmasks it.
    pub fn performance_event(&mut self) {
        self.deliver_local(Lvt::Performance);
        self.lvt[Lvt::Performance as usize].insert(LvtEntry::MASKED);
    }

    /// The thermal sensor has something to say.
    pub fn thermal_event(&mut self) {
        self.deliver_local(Lvt::Thermal);
    }

    /// CR8: bits 7 to 4 of TPR.
    #[must_use]
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Sets CR8, 0 to 15.
    pub fn set_cr8(&mut self, value: u8) {
        self.tpr = value << 4;
    }

    /// What the guest's TSC is ahead of one that started at zero with the machine, as IA32_TSC and
    /// IA32_TSC_ADJUST have set it; TSC deadlines are held against it.
    pub fn set_tsc_offset(&mut self, offset: u64) {
        self.settle_timer();
        self.timer.set_tsc_offset(offset);
    }

    /// PPR, the processor priority register.
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xf0 }
    }

    /// APR, the arbitration priority: not there since the Pentium 4. Intel SDM vol. 3A, 11.6.2.4.
    fn apr(&self) -> u8 {
        if self.config.generation == ApicGeneration::Xapic {
            return 0;
        }
        let class = |set: &VectorSet| set.highest().unwrap_or(0) >> 4;
        let (requested, in_service) = (class(&self.irr), class(&self.isr));
        let task = self.tpr >> 4;
        if task >= requested && task > in_service {
            self.tpr
        } else {
            (task & in_service).max(requested) << 4
        }
    }

    fn software_enabled(&self) -> bool {
        self.svr.contains(Svr::ENABLE)
    }

    /// LDR: in x2APIC mode made from the ID, cluster and bit.
    fn ldr(&self) -> u32 {
        match self.mode() {
            ApicMode::X2Apic => (self.config.id & 0xf_fff0) << 12 | 1 << (self.config.id & 0xf),
            ApicMode::XApic | ApicMode::Disabled => u32::from(self.logical_id) << 24,
        }
    }

    fn dfr(&self) -> u32 {
        u32::from(self.model) << 28 | 0x0fff_ffff
    }

    fn lvt(&self, which: Lvt) -> LvtEntry {
        self.lvt[which as usize]
    }

    fn take_request(&mut self, request: Requests) -> bool {
        let taken = self.requests.contains(request);
        self.requests.remove(request);
        taken
    }

    /// All but IA32_APIC_BASE, the pins' levels and what is asked of the processor returns to the
    /// state after reset.
    fn reset_registers(&mut self) {
        let (flags, base, lint) = (self.flags, self.base, self.lint);
        let (requests, startup_page) = (self.requests, self.startup_page);
        self.timer.reset();
        let timer = self.timer.clone();
        let new = Self::new(self.config, Arc::clone(&self.clock));
        *self = Self { flags, base, lint, timer, requests, startup_page, ..new };
    }

    fn take_in(&mut self, delivery: DeliveryMode, vector: u8, level: bool) {
        match delivery {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => self.accept(vector, level),
            DeliveryMode::Smi => self.requests.insert(Requests::SMI),
            DeliveryMode::Nmi => self.requests.insert(Requests::NMI),
            DeliveryMode::ExtInt => self.requests.insert(Requests::EXTINT),
            DeliveryMode::Init => {
                self.requests.remove(Requests::STARTUP);
                self.requests.insert(Requests::INIT);
            }
            DeliveryMode::StartUp => {
                self.startup_page = vector;
                self.requests.insert(Requests::STARTUP);
            }
        }
    }

    /// An interrupt of the local vector table.
    fn deliver_local(&mut self, which: Lvt) {
        let entry = self.lvt(which);
        if entry.contains(LvtEntry::MASKED) || self.mode() == ApicMode::Disabled {
            return;
        }
        let delivery = match which {
            Lvt::Timer | Lvt::Error => Some(DeliveryMode::Fixed),
            _ => delivery_mode(entry),
        };
        match delivery {
            // ExtINT follows the pin's level, see `extint_pending`; the others have no place here.
            None
            | Some(DeliveryMode::ExtInt | DeliveryMode::LowestPriority | DeliveryMode::StartUp) => {
            }
            Some(delivery) => self.take_in(delivery, entry.vector(), false),
        }
    }

    /// The pin is LINT0 as a level-triggered fixed interrupt; LINT1 is always edge-triggered.
    fn lint0_is_level(&self, which: Lvt) -> bool {
        let entry = self.lvt(which);
        which == Lvt::Lint0
            && entry.contains(LvtEntry::LEVEL)
            && delivery_mode(entry) == Some(DeliveryMode::Fixed)
    }

    /// Accepts the level-triggered interrupt of LINT0 as long as it is asserted and not in service.
    fn serve_lint0(&mut self) {
        let entry = self.lvt(Lvt::Lint0);
        let blocked = entry.intersects(LvtEntry::MASKED | LvtEntry::REMOTE_IRR);
        if self.lint[0] && !blocked && self.lint0_is_level(Lvt::Lint0) && self.software_enabled() {
            self.lvt[Lvt::Lint0 as usize].insert(LvtEntry::REMOTE_IRR);
            self.accept(entry.vector(), true);
        }
    }

    /// Notes an error and raises the error interrupt. The error interrupt's own illegal vector is
    /// only noted.
    fn error(&mut self, error: Esr) {
        self.errors.insert(error);
        let entry = self.lvt(Lvt::Error);
        if entry.vector() >= 16 {
            self.deliver_local(Lvt::Error);
        } else if !entry.contains(LvtEntry::MASKED) {
            self.errors.insert(Esr::RECEIVE_ILLEGAL_VECTOR);
        }
    }

    /// EOI: the most urgent interrupt in service has ended.
    fn end_of_interrupt(&mut self) -> Option<LapicAction> {
        let vector = self.isr.highest()?;
        self.isr.remove(vector);
        if !self.tmr.contains(vector) {
            return None;
        }
        let lint0 = self.lvt(Lvt::Lint0);
        if lint0.contains(LvtEntry::REMOTE_IRR) && lint0.vector() == vector {
            self.lvt[Lvt::Lint0 as usize].remove(LvtEntry::REMOTE_IRR);
            self.serve_lint0();
        }
        let quiet = self.svr.contains(Svr::SUPPRESS_EOI_BROADCAST);
        (!quiet).then_some(LapicAction::Eoi(vector))
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = Svr::from_bits_truncate(value);
        if !self.software_enabled() {
            self.lvt.iter_mut().for_each(|entry| entry.insert(LvtEntry::MASKED));
        }
    }

    fn write_lvt(&mut self, which: Lvt, value: u32) {
        let kept = self.lvt(which) & LvtEntry::REMOTE_IRR;
        let mut entry = (LvtEntry::from_bits_truncate(value) & which.writable()) | kept;
        if !self.software_enabled() {
            entry.insert(LvtEntry::MASKED);
        }
        if !entry.contains(LvtEntry::LEVEL) {
            entry.remove(LvtEntry::REMOTE_IRR);
        }
        self.lvt[which as usize] = entry;
        match which {
            Lvt::Timer => self.timer.set_mode(self.timer_mode(entry)),
            Lvt::Lint0 => self.serve_lint0(),
            _ => {}
        }
    }

    /// The timer's mode; the reserved one, and TSC-deadline where there is none, count once.
    fn timer_mode(&self, entry: LvtEntry) -> TimerMode {
        match (entry & LvtEntry::TIMER_MODE).bits() >> 17 {
            1 => TimerMode::Periodic,
            2 if self.config.tsc_deadline => TimerMode::TscDeadline,
            _ => TimerMode::OneShot,
        }
    }

    /// Raises the timer's interrupt if the timer has run out since this was last asked.
    fn settle_timer(&mut self) {
        if self.timer.take_expiry(self.clock.now()) {
            self.deliver_local(Lvt::Timer);
        }
    }

    /// Sends what ICR says. Combinations that table 11-3 calls invalid are not sent.
    fn send_icr(&mut self, destination: Destination) -> Option<LapicAction> {
        let vector = (self.icr & Icr::VECTOR).bits() as u8;
        let delivery = DeliveryMode::from_bits((self.icr & Icr::DELIVERY_MODE).bits() >> 8)?;
        let interrupt = matches!(delivery, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if interrupt && vector < 16 {
            self.error(Esr::SEND_ILLEGAL_VECTOR);
            return None;
        }
        let deasserts = self.icr.contains(Icr::LEVEL) && !self.icr.contains(Icr::ASSERT);
        if delivery == DeliveryMode::ExtInt || (delivery == DeliveryMode::Init && deasserts) {
            return None;
        }
        let destination = match (self.icr & Icr::SHORTHAND).bits() >> 18 {
            0 => destination,
            3 => Destination::Others,
            _ if delivery != DeliveryMode::Fixed => return None,
            2 => Destination::All,
            _ => {
                self.accept(vector, false);
                return None;
            }
        };
        let single = delivery == DeliveryMode::LowestPriority;
        // Interprocessor interrupts are edges, whatever the trigger mode says.
        let message = Message { destination, delivery, vector, level: false, single };
        Some(LapicAction::Ipi(message))
    }
}

/// The delivery mode of an entry of the local vector table.
fn delivery_mode(entry: LvtEntry) -> Option<DeliveryMode> {
    DeliveryMode::from_bits((entry & LvtEntry::DELIVERY_MODE).bits() >> 8)
}

impl Timed for LocalApic {
    /// A masked timer wakes nobody: whether it has run out is seen when somebody asks.
    fn deadline(&self) -> Option<VmTime> {
        let masked = self.lvt(Lvt::Timer).contains(LvtEntry::MASKED);
        if masked { None } else { self.timer.expiry(self.clock.now()) }
    }

    fn fire(&mut self, _now: VmTime) {
        self.settle_timer();
    }
}

/// The registers are not on a bus of the board but the processor's own, and answer with actions:
/// see [`LocalApic::mmio_read`], [`LocalApic::mmio_write`], [`LocalApic::read_msr`] and
/// [`LocalApic::write_msr`].
impl Device for LocalApic {
    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        self.flags = ApicBase::at_reset(&self.config);
        self.base = DEFAULT_BASE;
        self.requests = Requests::empty();
        self.startup_page = 0;
        self.reset_registers();
    }
}

impl SaveRestore for LocalApic {
    fn save(&self) -> Section {
        save_restore::save(self)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        save_restore::restore(self, section)
    }
}
