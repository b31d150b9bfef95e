//! A bus that counts the instructions that pass.

use std::sync::atomic::{AtomicU64, Ordering};

use trivium_cpu::{CpuBus, ExitReason, MsrFault, ResetKind};

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

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.bus.mmio_read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.bus.mmio_write(gpa, data);
    }

    fn pio_read(&self, port: u16, width: u8) -> u32 {
        self.bus.pio_read(port, width)
    }

    fn pio_write(&self, port: u16, width: u8, value: u32) {
        self.bus.pio_write(port, width, value);
    }

    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        self.bus.msr_read(msr)
    }

    fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), MsrFault>> {
        self.bus.msr_write(msr, value)
    }

    fn cr8(&self) -> u8 {
        self.bus.cr8()
    }

    fn set_cr8(&self, priority: u8) {
        self.bus.set_cr8(priority);
    }

    fn tsc(&self) -> u64 {
        self.bus.tsc()
    }

    fn set_tsc_offset(&self, offset: u64) {
        self.bus.set_tsc_offset(offset);
    }

    fn random(&self) -> u64 {
        self.bus.random()
    }

    fn interrupt_pending(&self) -> bool {
        self.bus.interrupt_pending()
    }

    fn acknowledge_interrupt(&self) -> Option<u8> {
        self.bus.acknowledge_interrupt()
    }

    fn take_nmi(&self) -> bool {
        self.bus.take_nmi()
    }

    fn take_smi(&self) -> bool {
        self.bus.take_smi()
    }

    fn set_smm(&self, smm: bool) {
        self.bus.set_smm(smm);
    }

    fn take_reset(&self) -> Option<ResetKind> {
        self.bus.take_reset()
    }

    fn delivering(&self, vector: u8, error_code: Option<u32>, rip: u64) {
        self.bus.delivering(vector, error_code, rip);
    }

    fn set_ferr(&self, high: bool) {
        self.bus.set_ferr(high);
    }

    fn traces_exits(&self) -> bool {
        self.bus.traces_exits()
    }

    fn exit_begins(&self, linear: u64, bits: u8, code: u64) {
        self.bus.exit_begins(linear, bits, code);
    }

    fn exit_ends(&self, reason: ExitReason) {
        self.bus.exit_ends(reason);
    }
}
