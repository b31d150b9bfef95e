//! A platform with nothing behind it: no devices, no time, and no interrupt but what is asked for.
//! For machines that consist of a CPU and RAM, as tests and cross-checks build them.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::{CpuBus, MsrFault, ResetKind};

/// More than any vector.
const NO_INTERRUPT: u32 = 256;

/// The empty platform. Reads give all ones, as of a bus that nobody drives.
#[derive(Debug)]
pub struct NullBus {
    /// The vector that waits, or none.
    interrupt: AtomicU32,
}

impl NullBus {
    /// One on which no interrupt waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { interrupt: AtomicU32::new(NO_INTERRUPT) }
    }

    /// An interrupt of this vector waits, in the place of one that has not been taken.
    pub fn interrupt(&self, vector: u8) {
        self.interrupt.store(vector.into(), Ordering::Relaxed);
    }
}

impl Default for NullBus {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuBus for NullBus {
    fn retire(&self, _: u64) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {}
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        !0
    }
    fn pio_write(&self, _: u16, _: u8, _: u32) {}
    fn msr_read(&self, _: u32) -> Option<Result<u64, MsrFault>> {
        None
    }
    fn msr_write(&self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&self, _: u8) {}
    fn tsc(&self) -> u64 {
        0
    }
    fn set_tsc_offset(&self, _: u64) {}
    fn random(&self) -> u64 {
        0
    }
    fn interrupt_pending(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed) != NO_INTERRUPT
    }
    fn acknowledge_interrupt(&self) -> Option<u8> {
        u8::try_from(self.interrupt.swap(NO_INTERRUPT, Ordering::Relaxed)).ok()
    }
    fn take_nmi(&self) -> bool {
        false
    }
    fn take_reset(&self) -> Option<ResetKind> {
        None
    }
    fn delivering(&self, _: u8, _: Option<u32>, _: u64) {}
    fn set_ferr(&self, _: bool) {}
}
