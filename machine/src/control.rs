//! The threads of a machine: how they are woken, and how a run is ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trivium_chipset::{Section, StateError};
use trivium_cpu::Kick;
use trivium_devices::power::{PowerSink, ResetKind};
use trivium_devices::sys::ExitSink;

/// Locks; a panic elsewhere leaves what is locked as it was.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets one thread sleep until others wake it. A wake-up is never lost: if it comes before the
/// sleep, there is none.
#[derive(Debug, Default)]
pub(crate) struct Parker {
    woken: AtomicBool,
    sleeps: AtomicBool,
    mutex: Mutex<()>,
    condvar: Condvar,
}

impl Parker {
    /// Wakes the thread, now or when it next wants to sleep.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) && self.sleeps.load(Ordering::SeqCst) {
            // The sleeper holds the mutex from its last look at `woken` until it waits.
            drop(lock(&self.mutex));
            self.condvar.notify_one();
        }
    }

    /// Sleeps until woken, or for so long.
    pub(crate) fn sleep(&self, limit: Option<Duration>) {
        let guard = lock(&self.mutex);
        self.sleeps.store(true, Ordering::SeqCst);
        if !self.woken.load(Ordering::SeqCst) {
            let asleep = |(): &mut ()| !self.woken.load(Ordering::SeqCst);
            // Poisoned or not, the mutex guards nothing.
            match limit {
                Some(limit) => drop(self.condvar.wait_timeout_while(guard, limit, asleep)),
                None => drop(self.condvar.wait_while(guard, asleep)),
            }
        }
        self.sleeps.store(false, Ordering::SeqCst);
        self.woken.store(false, Ordering::SeqCst);
    }
}

/// A processor, as other threads reach it.
pub(crate) struct Processor {
    kicker: Arc<dyn Kick>,
    /// Where its thread sleeps while it is halted.
    pub(crate) parker: Parker,
}

impl Processor {
    pub(crate) fn new(kicker: Arc<dyn Kick>) -> Self {
        Self { kicker, parker: Parker::default() }
    }

    /// Something about its interrupts has changed.
    pub(crate) fn attend(&self) {
        self.kicker.attend();
        self.parker.wake();
    }

    /// It shall come back from running.
    pub(crate) fn kick(&self) {
        self.kicker.kick();
        self.parker.wake();
    }
}

/// What ends a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// The guest has switched the machine off.
    PowerOff,
    /// The guest wants a reset.
    Reset,
    /// The guest has ended the run with this status.
    Exit(u32),
    /// This processor has shut down.
    Shutdown(usize),
    /// The user stops the run.
    Stop,
    /// The moment has come up to which the machine was to run.
    Limit,
    /// A processor has failed.
    Failure,
}

/// What reaches all threads of a machine.
pub(crate) struct Control {
    processors: Vec<Processor>,
    /// Where the thread sleeps that serves timers and the host's input.
    pub(crate) events: Parker,
    /// There is no such thread: the processors' does its work.
    icount: bool,
    /// Whether an INIT is a reset of the whole machine: see [`PowerSink::reset`].
    init_is_reset: bool,
    request: Mutex<Option<Request>>,
    requested: AtomicBool,
    /// INIT was asked for, by processor.
    init: Vec<AtomicBool>,
}

impl Control {
    pub(crate) fn new(processors: Vec<Processor>, icount: bool, init_is_reset: bool) -> Self {
        let init = processors.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            processors,
            events: Parker::default(),
            icount,
            init_is_reset,
            request: Mutex::new(None),
            requested: AtomicBool::new(false),
            init,
        }
    }

    /// The processors, by number.
    pub(crate) fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// Something about a processor's interrupts has changed.
    pub(crate) fn attend(&self, cpu: usize) {
        if let Some(processor) = self.processors.get(cpu) {
            processor.attend();
        }
    }

    /// Timers or messages are to be looked at.
    pub(crate) fn wake_events(&self) {
        if self.icount {
            if let Some(first) = self.processors.first() {
                first.kick();
            }
        } else {
            self.events.wake();
        }
    }

    /// The run is to end; of several reasons the first counts, but for the user's.
    pub(crate) fn request(&self, request: Request) {
        {
            let mut first = lock(&self.request);
            if first.is_none() || request == Request::Stop {
                *first = Some(request);
            }
        }
        self.requested.store(true, Ordering::Release);
        for processor in &self.processors {
            processor.kick();
        }
        self.events.wake();
    }

    /// Whether the run is to end.
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Why the run is to end; another may begin.
    pub(crate) fn take_request(&self) -> Option<Request> {
        let mut request = lock(&self.request);
        self.requested.store(false, Ordering::Release);
        request.take()
    }

    /// Takes an INIT that a chip has asked for.
    pub(crate) fn take_init(&self, cpu: usize) -> bool {
        let Some(flag) = self.init.get(cpu) else { return false };
        flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::AcqRel)
    }
}

impl PowerSink for Control {
    fn power_off(&self) {
        self.request(Request::PowerOff);
    }

    /// Without firmware there is nothing at the reset vector that an INIT could start: it then
    /// resets the machine, which is what a kernel that pulses it means.
    fn reset(&self, kind: ResetKind) {
        match kind {
            ResetKind::Soft if !self.init_is_reset => {
                for (cpu, flag) in self.init.iter().enumerate() {
                    flag.store(true, Ordering::Release);
                    self.attend(cpu);
                }
            }
            ResetKind::Soft | ResetKind::Hard => self.request(Request::Reset),
        }
    }
}

/// What processors are asked to do. The request that ends a run is not part of the state: it is gone
/// when the run has ended.
impl Control {
    const VERSION: u32 = 1;

    /// The state as a section; see [`trivium_chipset::SaveRestore`].
    pub(crate) fn save(&self) -> Section {
        let init: Vec<_> = self.init.iter().map(|flag| flag.load(Ordering::Acquire)).collect();
        Section::encode(Self::VERSION, &init)
    }

    /// Takes the state of a section.
    pub(crate) fn restore(&self, section: &Section) -> Result<(), StateError> {
        let init: Vec<bool> = section.decode(Self::VERSION)?;
        if init.len() != self.init.len() {
            return Err(StateError::Impossible("another number of processors"));
        }
        for (flag, asked) in self.init.iter().zip(init) {
            flag.store(asked, Ordering::Release);
        }
        Ok(())
    }
}

impl ExitSink for Control {
    fn request_exit(&self, status: u32) {
        self.request(Request::Exit(status));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    /// Counts how it is called.
    #[derive(Default)]
    pub(crate) struct CountingKick {
        pub(crate) kicks: AtomicU32,
        pub(crate) attends: AtomicU32,
    }

    impl Kick for CountingKick {
        fn kick(&self) {
            self.kicks.fetch_add(1, Ordering::Relaxed);
        }

        fn attend(&self) {
            self.attends.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A control over one processor that is not there.
    pub(crate) fn control(icount: bool) -> (Arc<Control>, Arc<CountingKick>) {
        let kick = Arc::<CountingKick>::default();
        let control = Control::new(vec![Processor::new(kick.clone())], icount, false);
        (Arc::new(control), kick)
    }

    #[test]
    fn a_wake_up_before_the_sleep_is_not_lost() {
        let parker = Parker::default();
        parker.wake();
        parker.sleep(None);
        let start = Instant::now();
        parker.sleep(Some(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_sleeper_is_woken_by_another_thread() {
        let parker = Parker::default();
        std::thread::scope(|scope| {
            for _ in 0..100 {
                let sleeper = scope.spawn(|| parker.sleep(None));
                parker.wake();
                sleeper.join().unwrap();
            }
        });
    }

    #[test]
    fn the_first_request_counts() {
        let (control, kick) = control(false);
        assert!(!control.is_requested());
        control.power_off();
        control.request_exit(3);
        assert!(control.is_requested());
        assert_eq!(kick.kicks.load(Ordering::Relaxed), 2);
        assert_eq!(control.take_request(), Some(Request::PowerOff));
        assert!(!control.is_requested());
        assert_eq!(control.take_request(), None);
        control.request(Request::Reset);
        control.request(Request::Stop);
        assert_eq!(control.take_request(), Some(Request::Stop), "what the user says is not lost");
    }

    #[test]
    fn init_reaches_the_processor_or_without_firmware_the_whole_machine() {
        let (control, kick) = control(false);
        PowerSink::reset(&*control, ResetKind::Soft);
        assert!(control.take_init(0) && !control.take_init(0));
        assert_eq!(kick.attends.load(Ordering::Relaxed), 1);
        assert_eq!(control.take_request(), None);
        let control = Control::new(Vec::new(), false, true);
        PowerSink::reset(&control, ResetKind::Soft);
        assert_eq!(control.take_request(), Some(Request::Reset));
    }
}
