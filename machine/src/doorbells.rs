//! Doorbells: writes of the guest's that only tell somebody, and interrupts that only are told of. KVM
//! sees to both without leaving the kernel; for the other CPUs they are looked up and carried out here.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use trivium_chipset::IrqLine;
use trivium_kvm::KvmError;
use trivium_kvm::doorbell::{Doorbell, EventFd, Place, Watcher};

use crate::control::lock;
use crate::kernel_chips::ChipSeat;

/// All doorbells of a machine.
#[derive(Default)]
pub(crate) struct Doorbells {
    bells: RwLock<Vec<Arc<Doorbell>>>,
    /// How many there are, without a lock.
    count: AtomicUsize,
    /// The kernel's virtual machines that the guest may run in.
    watchers: Mutex<Vec<Watcher>>,
}

impl Doorbells {
    /// Hangs up a doorbell, for the software CPUs and for KVM.
    pub(crate) fn add(&self, bell: Doorbell) -> Result<(), KvmError> {
        let bell = Arc::new(bell);
        for watcher in lock(&self.watchers).iter() {
            watcher.watch(&bell)?;
        }
        let mut bells = self.bells.write().unwrap_or_else(PoisonError::into_inner);
        bells.push(bell);
        self.count.store(bells.len(), Ordering::Release);
        Ok(())
    }

    /// Another virtual machine of the kernel's may run the guest.
    pub(crate) fn attach(&self, watcher: Watcher) -> Result<(), KvmError> {
        let bells = self.bells.read().unwrap_or_else(PoisonError::into_inner);
        for bell in bells.iter() {
            watcher.watch(bell)?;
        }
        lock(&self.watchers).push(watcher);
        Ok(())
    }

    /// A write of so many bytes; says whether that was all that it does.
    #[inline]
    pub(crate) fn ring(&self, place: Place, width: usize, value: u64) -> bool {
        self.count.load(Ordering::Acquire) != 0 && self.look_up(place, width, value)
    }

    #[cold]
    fn look_up(&self, place: Place, width: usize, value: u64) -> bool {
        let bells = self.bells.read().unwrap_or_else(PoisonError::into_inner);
        let Some(bell) = bells.iter().find(|bell| bell.is_rung_by(place, width, value)) else {
            return false;
        };
        // Fails only when nobody has read a counter of 2^64 - 2.
        let _ = bell.event.write(1);
        true
    }
}

/// The value of a write in bytes.
pub(crate) fn value_of(data: &[u8]) -> u64 {
    data.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// An edge-triggered interrupt that any thread may raise.
pub struct InterruptEvent {
    pub(crate) event: EventFd,
    pub(crate) line: IrqLine,
    pub(crate) seat: Arc<ChipSeat>,
}

impl InterruptEvent {
    /// Raises it.
    pub fn signal(&self) {
        if self.seat.board().is_some() {
            // The kernel raises it (KVM_IRQFD).
            let _ = self.event.write(1);
        } else {
            // A request lasts only as long as its line is high: until the next one.
            self.line.set(false);
            self.line.set(true);
        }
    }
}
