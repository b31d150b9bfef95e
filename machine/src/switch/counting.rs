//! A bus that counts the instructions that pass.

use std::sync::atomic::{AtomicU64, Ordering};

use trivium_cpu::CpuBus;

use crate::pass_on::pass_on;

/// The platform as a CPU sees it, with a count of the instructions that it has retired.
pub(super) struct Counting<'a> {
    bus: &'a dyn CpuBus,
    /// Only the CPU's own thread counts.
    retired: AtomicU64,
}

impl<'a> Counting<'a> {
    pub(super) fn new(bus: &'a dyn CpuBus) -> Self {
        Self { bus, retired: AtomicU64::new(0) }
    }

    /// The count.
    pub(super) fn retired(&self) -> u64 {
        self.retired.load(Ordering::Relaxed)
    }
}

impl CpuBus for Counting<'_> {
    fn retire(&self, instructions: u64) {
        self.retired.fetch_add(instructions, Ordering::Relaxed);
        self.bus.retire(instructions);
    }

    pass_on! {
        bus: mmio_read mmio_write pio_read pio_write msr_read msr_write cr8 set_cr8 tsc
        set_tsc_offset random interrupt_pending acknowledge_interrupt take_nmi take_smi set_smm
        take_reset delivering set_ferr traces_exits exit_begins exit_ends
    }
}
