//! How other threads reach a processor that runs in the kernel: a byte of its `kvm_run` page that
//! makes KVM_RUN return at once, and a signal that interrupts it.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use kvm_bindings::kvm_run;
use trivium_cpu::Kick;

/// The handle of a running processor.
pub(crate) struct Kicker {
    /// Its `kvm_run.immediate_exit`; none for a processor that is a test's.
    immediate_exit: Option<Page>,
    kicked: AtomicBool,
    wanted: AtomicBool,
    /// The thread that is in KVM_RUN, or about to enter it; 0 for none.
    inside: AtomicU64,
    /// Held while a signal is sent and when the thread leaves: so it exists when it is sent.
    sending: Mutex<()>,
}

/// The first page of a processor's file.
struct Page {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the page is only accessed through one atomic byte of it.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(file: RawFd, size: usize) -> io::Result<Self> {
        // SAFETY: a new mapping of a processor's file, which the kernel keeps as long as it is
        // mapped; no address is asked for.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, file, 0)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(page) if start != libc::MAP_FAILED => Ok(Self { start: page, size }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn immediate_exit(&self) -> &AtomicU8 {
        let offset = std::mem::offset_of!(kvm_run, immediate_exit);
        // SAFETY: the byte lies in the mapping, which lives as long as this struct, and others
        // (the kernel, the processor's own thread) access it as a whole.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(offset)) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's own, and nobody borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// The signal that interrupts KVM_RUN.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

/// Makes the signal do nothing but interrupt.
fn install_handler() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the action is all zeros but for a handler that does nothing at all; the signal is
        // one of those that are free for programs.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

impl Kicker {
    /// For the processor of this file.
    pub(crate) fn new(file: RawFd, size: usize) -> io::Result<Self> {
        install_handler();
        Ok(Self { immediate_exit: Some(Page::map(file, size)?), ..Self::detached() })
    }

    /// For a processor that never blocks.
    pub(crate) fn detached() -> Self {
        Self {
            immediate_exit: None,
            kicked: AtomicBool::new(false),
            wanted: AtomicBool::new(true),
            inside: AtomicU64::new(0),
            sending: Mutex::new(()),
        }
    }

    /// Whether `run` is to return.
    pub(crate) fn take_kick(&self) -> bool {
        self.kicked.swap(false, Ordering::SeqCst)
    }

    /// Whether something about interrupts may have changed.
    pub(crate) fn take_attention(&self) -> bool {
        self.wanted.swap(false, Ordering::SeqCst)
    }

    /// Whether something may have changed that nobody has looked at.
    pub(crate) fn has_attention(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// The present thread is about to enter KVM_RUN; `false` if it has something to look at first.
    pub(crate) fn enter(&self) -> bool {
        // SAFETY: the call has no conditions.
        self.inside.store(unsafe { libc::pthread_self() }, Ordering::SeqCst);
        if let Some(page) = &self.immediate_exit {
            page.immediate_exit().store(0, Ordering::SeqCst);
        }
        if self.kicked.load(Ordering::SeqCst) || self.wanted.load(Ordering::SeqCst) {
            self.leave();
            return false;
        }
        true
    }

    /// It has left.
    pub(crate) fn leave(&self) {
        if self.immediate_exit.is_some() {
            let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
            self.inside.store(0, Ordering::SeqCst);
        } else {
            self.inside.store(0, Ordering::SeqCst);
        }
    }

    /// Makes KVM_RUN return if a thread is in it.
    fn interrupt(&self) {
        let Some(page) = &self.immediate_exit else { return };
        page.immediate_exit().store(1, Ordering::SeqCst);
        // SAFETY: the call has no conditions.
        let this = unsafe { libc::pthread_self() };
        let inside = self.inside.load(Ordering::SeqCst);
        if inside == 0 || inside == this {
            return;
        }
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = self.inside.load(Ordering::SeqCst);
        if inside != 0 {
            // SAFETY: the thread has not left `run`, which takes the lock before it does: it exists.
            unsafe { libc::pthread_kill(inside, signal()) };
        }
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.attend();
    }

    fn attend(&self) {
        self.wanted.store(true, Ordering::SeqCst);
        self.interrupt();
    }
}
