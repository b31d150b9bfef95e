//! The calls to the kernel that a virtual CPU needs, as a trait: tests put failures between.

use std::io;

use kvm_bindings::{
    CpuId, kvm_debugregs, kvm_guest_debug, kvm_regs, kvm_sregs, kvm_userspace_memory_region,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

/// Why KVM_RUN has come back: `kvm_run.exit_reason` with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostExit {
    /// KVM_EXIT_IO: `count` accesses of `size` bytes, whose data are in [`Ioctls::io_data`].
    Io {
        /// OUT, not IN.
        write: bool,
        /// The port.
        port: u16,
        /// Bytes of one access.
        size: u8,
        /// How many accesses.
        count: u32,
    },
    /// KVM_EXIT_MMIO.
    Mmio {
        /// A store, not a load.
        write: bool,
        /// Guest-physical address.
        gpa: u64,
        /// Bytes.
        len: usize,
        /// What is stored.
        data: [u8; 8],
    },
    /// KVM_EXIT_X86_RDMSR.
    ReadMsr(u32),
    /// KVM_EXIT_X86_WRMSR.
    WriteMsr(u32, u64),
    /// KVM_EXIT_HLT.
    Halt,
    /// KVM_EXIT_SHUTDOWN, or a system event that says the same.
    Shutdown,
    /// KVM_EXIT_IRQ_WINDOW_OPEN.
    WindowOpen,
    /// KVM_EXIT_SET_TPR: CR8 was lowered.
    TaskPriority,
    /// KVM_EXIT_DEBUG.
    Debug,
    /// KVM_EXIT_INTR, or EINTR.
    Interrupted,
    /// KVM_EXIT_IOAPIC_EOI: the interrupt of this vector has ended at the kernel's local APIC.
    EndOfInterrupt(u8),
    /// EAGAIN: the kernel wants to be called again.
    Again,
    /// KVM_EXIT_INTERNAL_ERROR.
    InternalError {
        /// Its kind.
        suberror: u32,
        /// Bytes of the instruction, if they are told.
        bytes: Vec<u8>,
    },
    /// KVM_EXIT_FAIL_ENTRY.
    FailEntry(u64),
    /// KVM_EXIT_UNKNOWN.
    Unknown(u64),
    /// Any other.
    Other(u32),
}

/// What a guest sees of the virtual CPU's fields in `kvm_run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunFields {
    /// An interrupt may be injected now.
    pub ready_for_interrupt: bool,
    /// RFLAGS.IF.
    pub interrupts_enabled: bool,
    /// CR8.
    pub cr8: u8,
}

/// The calls. Names are the kernel's in lower case.
#[allow(missing_docs)] // Documentation/virt/kvm/api.rst has them.
pub trait Ioctls: Send {
    /// # Safety
    /// The region's user memory stays mapped until the region is deleted or the VM is gone.
    unsafe fn set_region(&mut self, region: kvm_userspace_memory_region) -> io::Result<()>;
    fn dirty_log(&mut self, slot: u32, size: usize) -> io::Result<Vec<u64>>;
    fn set_cpuid(&mut self, cpuid: &CpuId) -> io::Result<()>;
    fn regs(&mut self) -> io::Result<kvm_regs>;
    fn set_regs(&mut self, regs: &kvm_regs) -> io::Result<()>;
    fn sregs(&mut self) -> io::Result<kvm_sregs>;
    fn set_sregs(&mut self, sregs: &kvm_sregs) -> io::Result<()>;
    fn xsave(&mut self) -> io::Result<kvm_xsave>;
    fn set_xsave(&mut self, xsave: &kvm_xsave) -> io::Result<()>;
    fn xcrs(&mut self) -> io::Result<kvm_xcrs>;
    fn set_xcrs(&mut self, xcrs: &kvm_xcrs) -> io::Result<()>;
    fn debug_regs(&mut self) -> io::Result<kvm_debugregs>;
    fn set_debug_regs(&mut self, regs: &kvm_debugregs) -> io::Result<()>;
    fn events(&mut self) -> io::Result<kvm_vcpu_events>;
    fn set_events(&mut self, events: &kvm_vcpu_events) -> io::Result<()>;
    /// `None` if KVM has no such MSR.
    fn msr(&mut self, index: u32) -> io::Result<Option<u64>>;
    /// `false` if KVM refuses the MSR or the value.
    fn set_msr(&mut self, index: u32, value: u64) -> io::Result<bool>;
    /// KVM_GET_MP_STATE: whether the processor halts; for kernels that have its local APIC.
    fn is_halted(&mut self) -> io::Result<bool>;
    /// KVM_SET_MP_STATE.
    fn set_halted(&mut self, halted: bool) -> io::Result<()>;
    fn set_tsc_khz(&mut self, khz: u32) -> io::Result<()>;
    fn tsc_khz(&mut self) -> io::Result<u32>;
    fn set_guest_debug(&mut self, debug: &kvm_guest_debug) -> io::Result<()>;
    fn interrupt(&mut self, vector: u8) -> io::Result<()>;
    fn nmi(&mut self) -> io::Result<()>;
    fn smi(&mut self) -> io::Result<()>;
    /// KVM_RUN. EINTR and EAGAIN are exits, not errors.
    fn run(&mut self) -> io::Result<HostExit>;
    fn run_fields(&mut self) -> RunFields;
    fn set_cr8(&mut self, cr8: u8);
    fn set_request_window(&mut self, wanted: bool);
    fn set_immediate_exit(&mut self, wanted: bool);
    /// The data of the last [`HostExit::Io`].
    fn io_data(&mut self) -> &mut [u8];
    /// The answer to a [`HostExit::Mmio`] that loads.
    fn set_mmio_data(&mut self, data: [u8; 8]);
    /// The answer to a [`HostExit::ReadMsr`] or [`HostExit::WriteMsr`]; none raises #GP.
    fn set_msr_answer(&mut self, value: Option<u64>);
}
