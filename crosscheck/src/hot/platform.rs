//! A platform that answers the same questions with the same, and interrupts when it is told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use trivium_cpu::{CpuBus, Kick, MsrFault, ResetKind};

/// A repeated string instruction counts as one, and can make billions of accesses.
const CALLS: u64 = 20_000;

/// The platform.
pub(super) struct Platform {
    seed: AtomicU64,
    calls: AtomicU64,
    interrupt: Mutex<Option<u8>>,
    delivered: Mutex<Option<u8>>,
    pub(super) kicker: OnceLock<Arc<dyn Kick>>,
}

impl Platform {
    pub(super) fn new(seed: u64) -> Self {
        let (calls, interrupt, delivered) = Default::default();
        Self { seed: AtomicU64::new(seed), calls, interrupt, delivered, kicker: OnceLock::new() }
    }

    /// An interrupt of this vector waits.
    pub(super) fn interrupt(&self, vector: u8) {
        *locked(&self.interrupt) = Some(vector);
    }

    /// The vector of the last event that was delivered since the last call.
    pub(super) fn delivered(&self) -> Option<u8> {
        locked(&self.delivered).take()
    }

    /// Whether the CPU was stopped as it asked too much.
    pub(super) fn is_exhausted(&self) -> bool {
        self.calls.load(Ordering::Relaxed) >= CALLS
    }

    fn next(&self) -> u64 {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS
            && let Some(kicker) = self.kicker.get()
        {
            kicker.kick();
        }
        let next = self.seed.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.seed.store(next, Ordering::Relaxed);
        let mixed = (next ^ next >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CpuBus for Platform {
    fn random(&self) -> u64 {
        self.next()
    }
    fn retire(&self, _: u64) {}
    fn mmio_read(&self, _: u64, data: &mut [u8]) {
        data.fill(self.next() as u8);
    }
    fn mmio_write(&self, _: u64, _: &[u8]) {
        self.next();
    }
    fn pio_read(&self, _: u16, _: u8) -> u32 {
        self.next() as u32
    }
    fn pio_write(&self, _: u16, _: u8, _: u32) {
        self.next();
    }
    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>> {
        (msr == 0x1b).then_some(Ok(0xfee0_0900))
    }
    fn msr_write(&self, _: u32, _: u64) -> Option<Result<(), MsrFault>> {
        None
    }
    fn cr8(&self) -> u8 {
        0
    }
    fn set_cr8(&self, _: u8) {}
    fn tsc(&self) -> u64 {
        self.next()
    }
    fn set_tsc_offset(&self, _: u64) {}
    fn interrupt_pending(&self) -> bool {
        locked(&self.interrupt).is_some()
    }
    fn acknowledge_interrupt(&self) -> Option<u8> {
        locked(&self.interrupt).take()
    }
    fn take_nmi(&self) -> bool {
        false
    }
    fn take_reset(&self) -> Option<ResetKind> {
        None
    }
    fn delivering(&self, vector: u8, _: Option<u32>, _: u64) {
        *locked(&self.delivered) = Some(vector);
        self.next();
    }
    fn set_ferr(&self, _: bool) {}
}
