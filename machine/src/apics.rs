//! The processors' local APICs on their bus: what reaches them, and what their processors must know
//! of them without a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use trivium_chipset::{IrqSink, MsiMessage, MsiSink, Timed, VmTime};
use trivium_devices::apic::bus::{LapicSummary, targets};
use trivium_devices::apic::{ApicMode, IoApic, Lint, LocalApic, Message, Requests};

use crate::config::MAX_CPUS;
use crate::control::{Control, lock};
use crate::kernel_chips::ChipSeat;

/// What waits for a processor, as bits.
mod waiting {
    /// An interrupt that priority lets through.
    pub const INTERRUPT: u8 = 1 << 0;
    /// An NMI.
    pub const NMI: u8 = 1 << 1;
    /// INIT or a start-up message.
    pub const RESET: u8 = 1 << 2;
    /// An SMI.
    pub const SMI: u8 = 1 << 3;
}

/// No page of registers.
const NO_PAGE: u64 = u64::MAX;

/// A local APIC with what must be known of it on every look.
struct Cell {
    apic: Mutex<LocalApic>,
    /// What waits for the processor; see [`waiting`].
    waiting: AtomicU8,
    /// Where its registers are.
    page: AtomicU64,
}

/// What waits for a processor.
fn waiting_for(apic: &LocalApic) -> u8 {
    if apic.is_idle() {
        return 0;
    }
    let requests = apic.requests();
    let mut bits = 0;
    if apic.extint_pending() || apic.highest_pending().is_some() {
        bits |= waiting::INTERRUPT;
    }
    if requests.contains(Requests::NMI) {
        bits |= waiting::NMI;
    }
    if requests.contains(Requests::SMI) {
        bits |= waiting::SMI;
    }
    if requests.intersects(Requests::INIT | Requests::STARTUP) {
        bits |= waiting::RESET;
    }
    bits
}

/// All local APICs, by processor.
pub(crate) struct LocalApics {
    cells: Vec<Cell>,
    control: Arc<Control>,
    /// Where the kernel's are, if they are in use instead.
    seat: Arc<ChipSeat>,
}

impl LocalApics {
    pub(crate) fn new(apics: Vec<LocalApic>, control: Arc<Control>, seat: Arc<ChipSeat>) -> Self {
        let cell = |apic| Cell {
            apic: Mutex::new(apic),
            waiting: AtomicU8::new(0),
            page: AtomicU64::new(NO_PAGE),
        };
        let apics = Self { cells: apics.into_iter().map(cell).collect(), control, seat };
        for cpu in 0..apics.cells.len() {
            apics.with(cpu, |_| ());
        }
        apics
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Does something with a processor's APIC, and tells the processor if more waits for it now.
    pub(crate) fn with<R>(&self, cpu: usize, f: impl FnOnce(&mut LocalApic) -> R) -> Option<R> {
        let cell = self.cells.get(cpu)?;
        let mut apic = lock(&cell.apic);
        let result = f(&mut apic);
        // Both are written with the APIC locked only.
        let mut now = waiting_for(&apic);
        if self.seat.split().is_some() && apic.lint(Lint::Lint0) {
            // Whether it lets the 8259A's interrupt through is the kernel's to say.
            now |= waiting::INTERRUPT;
        }
        let before = cell.waiting.load(Ordering::Relaxed);
        if now != before {
            cell.waiting.store(now, Ordering::Release);
        }
        cell.page.store(apic.page().unwrap_or(NO_PAGE), Ordering::Release);
        drop(apic);
        if now & !before != 0 {
            self.control.attend(cpu);
        }
        Some(result)
    }

    fn waits(&self, cpu: usize, what: u8) -> bool {
        self.cells.get(cpu).is_some_and(|cell| cell.waiting.load(Ordering::Acquire) & what != 0)
    }

    /// Whether an interrupt waits that the APIC's priority lets through.
    #[inline]
    pub(crate) fn interrupt_waits(&self, cpu: usize) -> bool {
        self.waits(cpu, waiting::INTERRUPT)
    }

    /// Whether an NMI waits.
    #[inline]
    pub(crate) fn nmi_waits(&self, cpu: usize) -> bool {
        self.waits(cpu, waiting::NMI)
    }

    /// Whether an SMI waits.
    #[inline]
    pub(crate) fn smi_waits(&self, cpu: usize) -> bool {
        self.waits(cpu, waiting::SMI)
    }

    /// Whether an INIT or a start-up message waits.
    #[inline]
    pub(crate) fn reset_waits(&self, cpu: usize) -> bool {
        self.waits(cpu, waiting::RESET)
    }

    /// The offset in the page of a processor's registers, if an address is there.
    #[inline]
    pub(crate) fn page_offset(&self, cpu: usize, gpa: u64) -> Option<u64> {
        let page = self.cells.get(cpu)?.page.load(Ordering::Relaxed);
        (gpa & !0xfff == page).then_some(gpa & 0xfff)
    }

    /// Takes a message to those it is for; `sender` is the processor it comes from, if one does.
    pub(crate) fn deliver_message(&self, message: &Message, sender: Option<usize>) {
        let nobody = LapicSummary {
            id: 0,
            mode: ApicMode::Disabled,
            ldr: 0,
            dfr: 0,
            priority: 0,
            software_enabled: false,
        };
        let mut summaries = [nobody; MAX_CPUS];
        for (summary, cell) in summaries.iter_mut().zip(&self.cells) {
            *summary = lock(&cell.apic).summary();
        }
        for target in targets(message, sender, &summaries) {
            self.with(target, |apic| apic.receive(message));
        }
    }

    /// Drives the LINT0 pins.
    fn set_intr(&self, high: bool) {
        for cpu in 0..self.cells.len() {
            self.with(cpu, |apic| apic.set_lint(Lint::Lint0, high));
        }
    }

    /// Tells when a processor's timer next wants to be called, and keeps its APIC locked meanwhile.
    pub(crate) fn with_deadline(&self, cpu: usize, tell: impl FnOnce(Option<VmTime>)) {
        if let Some(cell) = self.cells.get(cpu) {
            let apic = lock(&cell.apic);
            tell(apic.deadline());
        }
    }
}

/// Messages of the I/O APIC and of PCI functions. Called with their senders locked.
impl MsiSink for LocalApics {
    fn deliver(&self, message: MsiMessage) {
        if self.seat.deliver(message) {
            return;
        }
        if let Some(message) = Message::from_msi(message) {
            self.deliver_message(&message, None);
        }
    }
}

/// The 8259A's INTR, which goes to all LINT0 pins and to pin 0 of the I/O APIC (MultiProcessor
/// Specification 1.4, 3.6.2). Called with the 8259A locked.
pub(crate) struct IntrWires {
    pub(crate) apics: Arc<LocalApics>,
    pub(crate) ioapic: Option<Arc<Mutex<IoApic>>>,
}

/// The I/O APIC's pin that INTR drives.
const INTR_PIN: u8 = 0;

impl IrqSink for IntrWires {
    fn set_level(&self, _pin: u32, _source: u32, high: bool) {
        self.apics.set_intr(high);
        if let Some(ioapic) = &self.ioapic {
            lock(ioapic).set_pin(INTR_PIN, high);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{CountingKick, control};
    use trivium_chipset::ManualClock;
    use trivium_devices::apic::{ApicGeneration, LapicConfig};

    fn apics() -> (LocalApics, Arc<CountingKick>) {
        let (control, kick) = control(false);
        let config = LapicConfig {
            present: true,
            id: 0,
            bootstrap: true,
            timer_hz: crate::time::APIC_HZ,
            tsc_hz: crate::time::TSC_HZ,
            physical_bits: 40,
            x2apic: true,
            tsc_deadline: true,
            generation: ApicGeneration::Xapic,
        };
        let apic = LocalApic::new(config, ManualClock::new());
        (LocalApics::new(vec![apic], control, Arc::default()), kick)
    }

    #[test]
    fn intr_comes_through_lint0_in_virtual_wire_mode_only() {
        let (apics, kick) = apics();
        apics.set_intr(true);
        assert!(!apics.interrupt_waits(0), "LINT0 is masked after reset");
        apics.with(0, LocalApic::set_virtual_wire);
        assert!(apics.interrupt_waits(0));
        assert_eq!(kick.attends.load(Ordering::Relaxed), 1);
        apics.set_intr(false);
        assert!(!apics.interrupt_waits(0));
    }

    #[test]
    fn intr_comes_through_pin_0_of_the_io_apic_as_extint() {
        let (apics, _) = apics();
        let apics = Arc::new(apics);
        let ioapic = Arc::new(Mutex::new(IoApic::new(apics.clone())));
        let wires = IntrWires { apics: apics.clone(), ioapic: Some(ioapic.clone()) };
        for (offset, value) in [(0x00, 0x10), (0x10, 0x0000_0700u32)] {
            let mut ioapic = lock(&ioapic);
            trivium_chipset::Mmio::write(&mut *ioapic, offset, &value.to_le_bytes()).unwrap();
        }
        apics.with(0, |apic| apic.mmio_write(0xf0, &0x1ffu32.to_le_bytes())).unwrap().unwrap();
        wires.set_level(0, 0, true);
        assert!(apics.interrupt_waits(0), "LINT0 is masked, the redirection table is not");
        assert_eq!(apics.with(0, |apic| apic.extint_pending()), Some(true));
    }

    #[test]
    fn a_message_reaches_the_processor_and_makes_it_attend_once() {
        let (apics, kick) = apics();
        apics.with(0, LocalApic::set_virtual_wire);
        let message = MsiMessage { address: 0xfee0_0000, data: 0x4041 };
        apics.deliver(message);
        apics.deliver(message);
        assert!(apics.interrupt_waits(0));
        assert_eq!(kick.attends.load(Ordering::Relaxed), 1);
        apics.deliver(MsiMessage { address: 0xfee0_0000, data: 0x4400 });
        assert!(apics.nmi_waits(0));
        assert_eq!(apics.with(0, LocalApic::acknowledge), Some(0x41));
        assert!(!apics.interrupt_waits(0));
    }

    #[test]
    fn the_page_of_registers_is_where_ia32_apic_base_says() {
        let (apics, _) = apics();
        assert_eq!(apics.page_offset(0, 0xfee0_00b0), Some(0xb0));
        assert_eq!(apics.page_offset(0, 0xfee0_1000), None);
        apics.with(0, |apic| apic.write_msr(0x1b, 0xfee0_0d00)).unwrap().unwrap();
        assert_eq!(apics.page_offset(0, 0xfee0_00b0), None, "x2APIC mode");
        assert_eq!(apics.page_offset(1, 0xfee0_00b0), None);
    }
}
