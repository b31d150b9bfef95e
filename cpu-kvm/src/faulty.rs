//! Calls that fail when a test wants them to, around those of this host or of no host at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::{
    CpuId, kvm_debugregs, kvm_guest_debug, kvm_regs, kvm_sregs, kvm_userspace_memory_region,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

use crate::ioctls::{HostExit, Ioctls, RunFields};

/// Which call fails, and how.
pub(crate) struct Plan {
    /// Calls until the one that fails; each counts down.
    pub(crate) left: AtomicU32,
    /// How many fail from there on.
    pub(crate) failures: AtomicU32,
    /// The error's number.
    pub(crate) errno: i32,
    /// What KVM_RUN gives instead of failing, if its turn comes.
    pub(crate) exit: Option<HostExit>,
}

impl Plan {
    /// The call after `left` others fails, and so many after it.
    pub(crate) fn new(left: u32, failures: u32, errno: i32, exit: Option<HostExit>) -> Arc<Self> {
        Arc::new(Self { left: left.into(), failures: failures.into(), errno, exit })
    }

    /// Whether it is time to fail.
    fn strikes(&self) -> bool {
        let count_down = |value: u32| value.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down).is_ok() {
            return false;
        }
        self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down).is_ok()
    }

    /// Fails if it is time to.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.strikes() {
            true => Err(io::Error::from_raw_os_error(self.errno)),
            false => Ok(()),
        }
    }
}

/// Other calls with failures in between.
pub(crate) struct Faulty<T> {
    pub(crate) inner: T,
    pub(crate) plan: Arc<Plan>,
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        $(fn $name(&mut self, $($argument: $kind),*) -> io::Result<$result> {
            self.plan.check()?;
            self.inner.$name($($argument),*)
        })*
    };
}

impl<T: Ioctls> Ioctls for Faulty<T> {
    #[allow(unsafe_code)]
    unsafe fn set_region(&mut self, region: kvm_userspace_memory_region) -> io::Result<()> {
        self.plan.check()?;
        // SAFETY: the caller keeps what it promises.
        unsafe { self.inner.set_region(region) }
    }

    forward! {
        dirty_log(slot: u32, size: usize) -> Vec<u64>;
        set_cpuid(cpuid: &CpuId) -> ();
        regs() -> kvm_regs;
        set_regs(regs: &kvm_regs) -> ();
        sregs() -> kvm_sregs;
        set_sregs(sregs: &kvm_sregs) -> ();
        xsave() -> kvm_xsave;
        set_xsave(xsave: &kvm_xsave) -> ();
        xcrs() -> kvm_xcrs;
        set_xcrs(xcrs: &kvm_xcrs) -> ();
        debug_regs() -> kvm_debugregs;
        set_debug_regs(regs: &kvm_debugregs) -> ();
        events() -> kvm_vcpu_events;
        set_events(events: &kvm_vcpu_events) -> ();
        msr(index: u32) -> Option<u64>;
        set_msr(index: u32, value: u64) -> bool;
        is_halted() -> bool;
        set_halted(halted: bool) -> ();
        set_tsc_khz(khz: u32) -> ();
        tsc_khz() -> u32;
        set_guest_debug(debug: &kvm_guest_debug) -> ();
        interrupt(vector: u8) -> ();
        nmi() -> ();
        smi() -> ();
    }

    fn run(&mut self) -> io::Result<HostExit> {
        if self.plan.strikes() {
            return match &self.plan.exit {
                Some(exit) => Ok(exit.clone()),
                None => Err(io::Error::from_raw_os_error(self.plan.errno)),
            };
        }
        self.inner.run()
    }

    fn run_fields(&mut self) -> RunFields {
        self.inner.run_fields()
    }
    fn set_cr8(&mut self, cr8: u8) {
        self.inner.set_cr8(cr8);
    }
    fn set_request_window(&mut self, wanted: bool) {
        self.inner.set_request_window(wanted);
    }
    fn set_immediate_exit(&mut self, wanted: bool) {
        self.inner.set_immediate_exit(wanted);
    }
    fn io_data(&mut self) -> &mut [u8] {
        self.inner.io_data()
    }
    fn set_mmio_data(&mut self, data: [u8; 8]) {
        self.inner.set_mmio_data(data);
    }
    fn set_msr_answer(&mut self, value: Option<u64>) {
        self.inner.set_msr_answer(value);
    }
}

/// A kernel that keeps what it is given and whose processor halts at once.
#[derive(Default)]
pub(crate) struct Idle {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
}

impl Ioctls for Idle {
    #[allow(unsafe_code)]
    unsafe fn set_region(&mut self, _: kvm_userspace_memory_region) -> io::Result<()> {
        Ok(())
    }
    fn dirty_log(&mut self, _: u32, size: usize) -> io::Result<Vec<u64>> {
        Ok(vec![0; size.div_ceil(64 * 4096)])
    }
    fn set_cpuid(&mut self, _: &CpuId) -> io::Result<()> {
        Ok(())
    }
    fn regs(&mut self) -> io::Result<kvm_regs> {
        Ok(self.regs)
    }
    fn set_regs(&mut self, regs: &kvm_regs) -> io::Result<()> {
        self.regs = *regs;
        Ok(())
    }
    fn sregs(&mut self) -> io::Result<kvm_sregs> {
        Ok(self.sregs)
    }
    fn set_sregs(&mut self, sregs: &kvm_sregs) -> io::Result<()> {
        self.sregs = *sregs;
        Ok(())
    }
    fn xsave(&mut self) -> io::Result<kvm_xsave> {
        let mut xsave = kvm_xsave::default();
        xsave.region = self.xsave.region;
        Ok(xsave)
    }
    fn set_xsave(&mut self, xsave: &kvm_xsave) -> io::Result<()> {
        self.xsave.region = xsave.region;
        Ok(())
    }
    fn xcrs(&mut self) -> io::Result<kvm_xcrs> {
        Ok(self.xcrs)
    }
    fn set_xcrs(&mut self, xcrs: &kvm_xcrs) -> io::Result<()> {
        self.xcrs = *xcrs;
        Ok(())
    }
    fn debug_regs(&mut self) -> io::Result<kvm_debugregs> {
        Ok(self.debug)
    }
    fn set_debug_regs(&mut self, regs: &kvm_debugregs) -> io::Result<()> {
        self.debug = *regs;
        Ok(())
    }
    fn events(&mut self) -> io::Result<kvm_vcpu_events> {
        Ok(self.events)
    }
    fn set_events(&mut self, events: &kvm_vcpu_events) -> io::Result<()> {
        self.events = *events;
        Ok(())
    }
    fn msr(&mut self, _: u32) -> io::Result<Option<u64>> {
        Ok(None)
    }
    fn set_msr(&mut self, _: u32, _: u64) -> io::Result<bool> {
        Ok(false)
    }
    fn is_halted(&mut self) -> io::Result<bool> {
        Ok(false)
    }
    fn set_halted(&mut self, _: bool) -> io::Result<()> {
        Ok(())
    }
    fn set_tsc_khz(&mut self, _: u32) -> io::Result<()> {
        Ok(())
    }
    fn tsc_khz(&mut self) -> io::Result<u32> {
        Ok(1_000_000)
    }
    fn set_guest_debug(&mut self, _: &kvm_guest_debug) -> io::Result<()> {
        Ok(())
    }
    fn interrupt(&mut self, _: u8) -> io::Result<()> {
        Ok(())
    }
    fn nmi(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn smi(&mut self) -> io::Result<()> {
        self.events.smi.pending = 1;
        Ok(())
    }
    fn run(&mut self) -> io::Result<HostExit> {
        Ok(HostExit::Halt)
    }
    fn run_fields(&mut self) -> RunFields {
        RunFields::default()
    }
    fn set_cr8(&mut self, _: u8) {}
    fn set_request_window(&mut self, _: bool) {}
    fn set_immediate_exit(&mut self, _: bool) {}
    fn io_data(&mut self) -> &mut [u8] {
        &mut []
    }
    fn set_mmio_data(&mut self, _: [u8; 8]) {}
    fn set_msr_answer(&mut self, _: Option<u64>) {}
}
