//! The kernel's interrupt chips in the place of the board's: while the guest runs on KVM with chips of
//! the kernel's, the models of those chips are parked; when the run ends, the kernel's state is put
//! into them, so that a machine that stands is always whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use trivium_chipset::MsiMessage;
use trivium_devices::apic::{IoApic, LocalApic};
use trivium_kvm::doorbell::EventFd;
use trivium_kvm::{BoardChips, ChipState, Irqchip, KernelChips, KvmError};

use crate::board::PcBoard;
use crate::control::lock;

/// Where the kernel's chips are put when their processor is made, and what else must be known of them
/// on both sides.
#[derive(Default)]
pub(crate) struct ChipSeat {
    chips: OnceLock<Arc<KernelChips>>,
    /// They are in use, and the models are parked.
    active: AtomicBool,
    /// The board's own, for interrupts that end at a local APIC of the kernel's.
    ioapic: Mutex<Option<Arc<Mutex<IoApic>>>>,
    /// A call has failed: that is told of once, as a guest may cause it as often as it likes.
    told: AtomicBool,
}

impl ChipSeat {
    /// A processor has come with these chips.
    pub(crate) fn take(&self, chips: Arc<KernelChips>) {
        // There is one processor.
        let _ = self.chips.set(chips);
    }

    /// The board's I/O APIC is this one.
    pub(crate) fn connect(&self, ioapic: Option<Arc<Mutex<IoApic>>>) {
        *lock(&self.ioapic) = ioapic;
    }

    /// The kernel's chips, while they are in use.
    #[inline]
    fn active(&self) -> Option<&KernelChips> {
        if !self.active.load(Ordering::Acquire) {
            return None;
        }
        self.chips.get().map(|chips| &**chips)
    }

    /// All chips are the kernel's now.
    pub(crate) fn board(&self) -> Option<&KernelChips> {
        self.active().filter(|chips| chips.has_board_chips())
    }

    /// The local APICs alone are the kernel's now.
    pub(crate) fn split(&self) -> Option<&KernelChips> {
        self.active().filter(|chips| chips.kind() == Irqchip::Split)
    }

    /// Sends a message to the kernel's local APICs; says whether they are in use.
    pub(crate) fn deliver(&self, message: MsiMessage) -> bool {
        let Some(chips) = self.active() else { return false };
        self.tell(chips.send(message));
        true
    }

    /// The kernel raises an input by an event, if it has the chips.
    ///
    /// # Errors
    /// The call fails.
    pub(crate) fn raise_by(&self, event: &EventFd, irq: u8) -> Result<(), KvmError> {
        match self.chips.get().filter(|chips| chips.has_board_chips()) {
            Some(chips) => chips.raise_by(event, irq),
            None => Ok(()),
        }
    }

    /// An interrupt has ended at the kernel's local APIC.
    pub(crate) fn end_of_interrupt(&self, vector: u8) {
        let ioapic = lock(&self.ioapic).clone();
        if let Some(ioapic) = ioapic {
            lock(&ioapic).end_of_interrupt(vector);
        }
    }

    /// The I/O APIC may send other messages than before.
    pub(crate) fn routes_changed(&self) {
        let ioapic = lock(&self.ioapic).clone();
        if let (Some(chips), Some(ioapic)) = (self.split(), ioapic) {
            let routes = lock(&ioapic).routes();
            self.tell(chips.set_routes(&routes));
        }
    }

    /// Notes what a call has come to whose caller cannot.
    pub(crate) fn tell(&self, result: Result<(), KvmError>) {
        if let Err(error) = result
            && !self.told.swap(true, Ordering::Relaxed)
        {
            log::warn!("An interrupt is lost: {error}");
        }
    }
}

impl PcBoard {
    /// The kernel's chips take over, if there are any.
    ///
    /// # Errors
    /// A call to the kernel fails.
    pub(crate) fn enter_kernel_chips(&self) -> Result<(), KvmError> {
        let Some(chips) = self.seat.chips.get() else { return Ok(()) };
        if let Some(state) = self.chip_state(chips.has_board_chips()) {
            chips.put(&state)?;
        }
        self.apics.with(0, LocalApic::park);
        if chips.has_board_chips() {
            lock(&self.pit).park();
        }
        self.seat.active.store(true, Ordering::Release);
        self.seat.routes_changed();
        self.apics.with(0, |_| ());
        self.refresh_timers();
        Ok(())
    }

    fn chip_state(&self, with_board: bool) -> Option<ChipState> {
        // The timer may tick now, so it comes first, and nothing else is locked meanwhile.
        let pit = lock(&self.pit).registers();
        let hpet_legacy = self.router.is_hpet_legacy();
        let pic = lock(&self.pic).registers();
        let lapic = self.apics.with(0, LocalApic::registers)?;
        let ioapic = self.ioapic.as_ref().map(|ioapic| lock(ioapic).registers());
        let board = ioapic.filter(|_| with_board).map(|ioapic| BoardChips {
            pic,
            ioapic,
            pit,
            hpet_legacy,
        });
        Some(ChipState { lapic, board })
    }

    /// The models take over again, if the kernel's chips were in use.
    ///
    /// # Errors
    /// A call to the kernel fails.
    pub(crate) fn leave_kernel_chips(&self) -> Result<(), KvmError> {
        if !self.seat.active.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(chips) = self.seat.chips.get() else { return Ok(()) };
        // The timer's line moves with its model, and must not raise what the kernel has raised: so
        // the timer comes first, and the controllers' state overrides what comes of it.
        let state = chips.take(0, 0)?;
        if let (Some(board), Some(ioapic)) = (state.board, &self.ioapic) {
            lock(&self.pit).set_registers(board.pit);
            let (pic_lines, ioapic_lines) = self.router.levels();
            let lines = pic_lines.to_le_bytes();
            let mut pic = board.pic;
            for (registers, lines) in pic.iter_mut().zip(lines) {
                registers.lines = lines;
            }
            lock(&self.pic).set_registers(pic);
            let mut registers = board.ioapic;
            registers.asserted = ioapic_lines;
            lock(ioapic).set_registers(&registers);
        }
        self.apics.with(0, |apic| apic.set_registers(&state.lapic));
        self.refresh_timers();
        Ok(())
    }
}
