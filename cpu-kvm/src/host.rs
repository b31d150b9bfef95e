//! The calls of [`crate::ioctls`] as this host's kernel answers them.

#![allow(unsafe_code)]

use std::ffi::c_ulong;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_MULTI_ADDRESS_SPACE, KVM_CAP_X86_MSR_FILTER,
    KVM_CAP_X86_SMM, KVM_CAP_X86_USER_SPACE_MSR, KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT,
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IO_OUT, KVM_EXIT_IOAPIC_EOI,
    KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_MMIO, KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN,
    KVM_EXIT_SYSTEM_EVENT, KVM_EXIT_UNKNOWN, KVM_EXIT_X86_RDMSR, KVM_EXIT_X86_WRMSR,
    KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, KVM_MSR_EXIT_REASON_FILTER,
    KVM_MSR_EXIT_REASON_INVAL, KVM_MSR_EXIT_REASON_UNKNOWN, KVM_MSR_FILTER_DEFAULT_DENY,
    KVM_MSR_FILTER_READ, KVM_MSR_FILTER_WRITE, Msrs, kvm_debugregs, kvm_enable_cap,
    kvm_guest_debug, kvm_mp_state, kvm_msr_entry, kvm_msr_filter, kvm_msr_filter_range, kvm_regs,
    kvm_sregs, kvm_userspace_memory_region, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use crate::chips::{self, Irqchip, KernelChips};
use crate::doorbell::Watcher;
use crate::error::{KvmError, call};
use crate::ioctls::{HostExit, Ioctls, RunFields};

/// The version of the interface that every kernel since 2.6.22 has.
const API_VERSION: i32 = 12;
/// Where the kernel's own pages go that older Intel processors need for real mode: four pages in
/// the hole below 4 GiB and below the largest firmware.
const TSS_ADDRESS: usize = 0xfeff_d000;
/// The page before.
const IDENTITY_MAP_ADDRESS: u64 = 0xfeff_c000;
/// The ioctl that kvm-ioctls does not have: `_IOW(KVMIO, 0xc6, struct kvm_msr_filter)`.
const KVM_X86_SET_MSR_FILTER: c_ulong =
    1 << 30 | (size_of::<kvm_msr_filter>() as c_ulong) << 16 | 0xae << 8 | 0xc6;

/// What the kernel says it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostCaps {
    /// MSRs that it does not keep come to us.
    pub msr_exits: bool,
    /// Pending #DB carries DR6's new bits.
    pub exception_payload: bool,
    /// Memory slots.
    pub slots: usize,
    /// ROM needs no exits to be read.
    pub read_only: bool,
    /// A frequency of the TSC can be asked for.
    pub tsc_control: bool,
    /// Which interrupt chips are the kernel's.
    pub irqchip: Irqchip,
    /// It has system-management mode, with memory of its own.
    pub smm: bool,
}

/// A virtual machine of the kernel's with one processor.
pub struct Host {
    vcpu: VcpuFd,
    vm: Arc<VmFd>,
    _kvm: Kvm,
    caps: HostCaps,
    run_size: usize,
}

/// The MSRs that KVM keeps: `first` and how many. All others come to us.
pub(crate) const KEPT_MSRS: &[(u32, u32)] =
    &[(0x174, 3), (0x277, 1), (0xc000_0080, 5), (0xc000_0100, 4)];
/// Those of local APICs, which are the kernel's where the APICs are.
const LAPIC_MSRS: &[(u32, u32)] = &[(0x1b, 1), (0x6e0, 1)];

impl Host {
    /// Opens /dev/kvm and makes a machine with one processor.
    ///
    /// # Errors
    /// See [`KvmError`].
    pub fn open(apic_id: u32) -> Result<Self, KvmError> {
        Self::with_irqchip(apic_id, Irqchip::Off)
    }

    /// The same with interrupt chips of the kernel's.
    ///
    /// # Errors
    /// See [`KvmError`].
    pub fn with_irqchip(apic_id: u32, irqchip: Irqchip) -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
            libc::EACCES | libc::EPERM => KvmError::NotPermitted,
            errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
        })?;
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(KvmError::Api(version));
        }
        if !kvm.check_extension(Cap::ImmediateExit) {
            return Err(KvmError::Lacks("immediate exit (KVM_CAP_IMMEDIATE_EXIT, Linux 4.11)"));
        }
        let os = |error: kvm_ioctls::Error| io::Error::from(error);
        let vm = kvm.create_vm().map_err(os).map_err(call("KVM_CREATE_VM"))?;
        // Only Intel's processors need these; a kernel without them says so.
        let _ = vm.set_identity_map_address(IDENTITY_MAP_ADDRESS);
        let _ = vm.set_tss_address(TSS_ADDRESS);
        let caps = HostCaps {
            msr_exits: enable_msr_exits(&vm, irqchip),
            exception_payload: enable(&vm, KVM_CAP_EXCEPTION_PAYLOAD, 1),
            slots: kvm.get_nr_memslots(),
            read_only: kvm.check_extension(Cap::ReadonlyMem),
            tsc_control: kvm.check_extension(Cap::TscControl),
            irqchip,
            smm: vm.check_extension_raw(KVM_CAP_X86_SMM.into()) > 0
                && vm.check_extension_raw(KVM_CAP_MULTI_ADDRESS_SPACE.into()) > 1,
        };
        chips::create(&vm, irqchip)?;
        let vcpu = vm.create_vcpu(apic_id.into()).map_err(os).map_err(call("KVM_CREATE_VCPU"))?;
        let run_size = vm.run_size();
        Ok(Self { vcpu, vm: Arc::new(vm), _kvm: kvm, caps, run_size })
    }

    /// What the kernel says it can do.
    #[must_use]
    pub fn caps(&self) -> HostCaps {
        self.caps
    }

    /// The file of the processor, and the size of what is mapped of it.
    pub(crate) fn file(&self) -> (RawFd, usize) {
        (self.vcpu.as_raw_fd(), self.run_size)
    }

    /// Its interrupt chips, if they are the kernel's.
    ///
    /// # Errors
    /// The host has no file for them.
    pub(crate) fn chips(&self) -> Result<Option<KernelChips>, KvmError> {
        if self.caps.irqchip == Irqchip::Off {
            return Ok(None);
        }
        let chips = KernelChips::new(self.caps.irqchip, self.vm.clone(), self.vcpu.as_raw_fd());
        chips.map(Some).map_err(call("Duplicating a processor's file"))
    }

    /// What watches writes of the guest's.
    pub(crate) fn watcher(&self) -> Watcher {
        Watcher { vm: self.vm.clone() }
    }

    /// What CPUID the kernel says it can give.
    ///
    /// # Errors
    /// The call fails.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        let list = self._kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
        list.map_err(|e| call("KVM_GET_SUPPORTED_CPUID")(e.into()))
    }

    fn exit(&mut self, reason: u32) -> HostExit {
        let run = self.vcpu.get_kvm_run();
        let data = &run.__bindgen_anon_1;
        // SAFETY: the exit reason says which part of the union the kernel has filled; all parts are
        // plain numbers, for which every bit pattern is good.
        unsafe {
            match reason {
                KVM_EXIT_IO => HostExit::Io {
                    write: u32::from(data.io.direction) == KVM_EXIT_IO_OUT,
                    port: data.io.port,
                    size: data.io.size,
                    count: data.io.count,
                },
                KVM_EXIT_MMIO => HostExit::Mmio {
                    write: data.mmio.is_write != 0,
                    gpa: data.mmio.phys_addr,
                    len: (data.mmio.len as usize).min(8),
                    data: data.mmio.data,
                },
                KVM_EXIT_X86_RDMSR => HostExit::ReadMsr(data.msr.index),
                KVM_EXIT_X86_WRMSR => HostExit::WriteMsr(data.msr.index, data.msr.data),
                KVM_EXIT_HLT => HostExit::Halt,
                KVM_EXIT_SHUTDOWN | KVM_EXIT_SYSTEM_EVENT => HostExit::Shutdown,
                KVM_EXIT_IRQ_WINDOW_OPEN => HostExit::WindowOpen,
                KVM_EXIT_SET_TPR => HostExit::TaskPriority,
                KVM_EXIT_DEBUG => HostExit::Debug,
                KVM_EXIT_INTR => HostExit::Interrupted,
                KVM_EXIT_IOAPIC_EOI => HostExit::EndOfInterrupt(data.eoi.vector),
                KVM_EXIT_INTERNAL_ERROR => {
                    let failure = data.emulation_failure;
                    let told = failure.__bindgen_anon_1.__bindgen_anon_1;
                    // Flag 1: the bytes are there. Documentation/virt/kvm/api.rst, KVM_EXIT_INTERNAL_ERROR.
                    let has_bytes =
                        failure.suberror == 1 && failure.ndata >= 3 && failure.flags & 1 != 0;
                    let count = if has_bytes { usize::from(told.insn_size).min(15) } else { 0 };
                    let bytes = told.insn_bytes.iter().take(count).copied().collect();
                    HostExit::InternalError { suberror: failure.suberror, bytes }
                }
                KVM_EXIT_FAIL_ENTRY => {
                    HostExit::FailEntry(data.fail_entry.hardware_entry_failure_reason)
                }
                KVM_EXIT_UNKNOWN => HostExit::Unknown(data.hw.hardware_exit_reason),
                other => HostExit::Other(other),
            }
        }
    }
}

fn enable(vm: &VmFd, cap: u32, argument: u64) -> bool {
    if vm.check_extension_raw(cap.into()) <= 0 {
        return false;
    }
    let args = [argument, 0, 0, 0];
    vm.enable_cap(&kvm_enable_cap { cap, args, ..kvm_enable_cap::default() }).is_ok()
}

/// Makes all MSRs but [`KEPT_MSRS`] come to us, so that they are the model's and not the kernel's.
fn enable_msr_exits(vm: &VmFd, irqchip: Irqchip) -> bool {
    let reasons =
        KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER;
    if !enable(vm, KVM_CAP_X86_USER_SPACE_MSR, reasons.into())
        || vm.check_extension_raw(KVM_CAP_X86_MSR_FILTER.into()) <= 0
    {
        return false;
    }
    let mut ones = [0xff_u8; 8];
    let mut filter = kvm_msr_filter { flags: KVM_MSR_FILTER_DEFAULT_DENY, ..Default::default() };
    let lapic = if irqchip == Irqchip::Off { &[] } else { LAPIC_MSRS };
    let kept = KEPT_MSRS.iter().chain(lapic);
    for (range, &(base, nmsrs)) in filter.ranges.iter_mut().zip(kept) {
        let flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
        *range = kvm_msr_filter_range { flags, nmsrs, base, bitmap: ones.as_mut_ptr() };
    }
    // SAFETY: the file is a VM's, and the kernel copies the filter and its bitmaps during the call.
    unsafe { libc::ioctl(vm.as_raw_fd(), KVM_X86_SET_MSR_FILTER, &raw const filter) == 0 }
}

impl Ioctls for Host {
    unsafe fn set_region(&mut self, region: kvm_userspace_memory_region) -> io::Result<()> {
        // SAFETY: the caller keeps the memory mapped.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(io::Error::from)
    }
    fn dirty_log(&mut self, slot: u32, size: usize) -> io::Result<Vec<u64>> {
        Ok(self.vm.get_dirty_log(slot, size)?)
    }
    fn set_cpuid(&mut self, cpuid: &CpuId) -> io::Result<()> {
        Ok(self.vcpu.set_cpuid2(cpuid)?)
    }
    fn regs(&mut self) -> io::Result<kvm_regs> {
        Ok(self.vcpu.get_regs()?)
    }
    fn set_regs(&mut self, regs: &kvm_regs) -> io::Result<()> {
        Ok(self.vcpu.set_regs(regs)?)
    }
    fn sregs(&mut self) -> io::Result<kvm_sregs> {
        Ok(self.vcpu.get_sregs()?)
    }
    fn set_sregs(&mut self, sregs: &kvm_sregs) -> io::Result<()> {
        Ok(self.vcpu.set_sregs(sregs)?)
    }
    fn xsave(&mut self) -> io::Result<kvm_xsave> {
        Ok(self.vcpu.get_xsave()?)
    }
    fn set_xsave(&mut self, xsave: &kvm_xsave) -> io::Result<()> {
        // SAFETY: the image is of the 4 KiB that KVM takes while no process-wide feature beyond it
        // was enabled, and this program enables none.
        unsafe { self.vcpu.set_xsave(xsave) }.map_err(io::Error::from)
    }
    fn xcrs(&mut self) -> io::Result<kvm_xcrs> {
        Ok(self.vcpu.get_xcrs()?)
    }
    fn set_xcrs(&mut self, xcrs: &kvm_xcrs) -> io::Result<()> {
        Ok(self.vcpu.set_xcrs(xcrs)?)
    }
    fn debug_regs(&mut self) -> io::Result<kvm_debugregs> {
        Ok(self.vcpu.get_debug_regs()?)
    }
    fn set_debug_regs(&mut self, regs: &kvm_debugregs) -> io::Result<()> {
        Ok(self.vcpu.set_debug_regs(regs)?)
    }
    fn events(&mut self) -> io::Result<kvm_vcpu_events> {
        Ok(self.vcpu.get_vcpu_events()?)
    }
    fn set_events(&mut self, events: &kvm_vcpu_events) -> io::Result<()> {
        Ok(self.vcpu.set_vcpu_events(events)?)
    }
    fn msr(&mut self, index: u32) -> io::Result<Option<u64>> {
        let mut list = one_msr(index, 0)?;
        let read = self.vcpu.get_msrs(&mut list)?;
        Ok(list.as_slice().first().filter(|_| read == 1).map(|entry| entry.data))
    }
    fn set_msr(&mut self, index: u32, value: u64) -> io::Result<bool> {
        Ok(self.vcpu.set_msrs(&one_msr(index, value)?)? == 1)
    }
    fn is_halted(&mut self) -> io::Result<bool> {
        Ok(self.vcpu.get_mp_state()?.mp_state == KVM_MP_STATE_HALTED)
    }
    fn set_halted(&mut self, halted: bool) -> io::Result<()> {
        let mp_state = if halted { KVM_MP_STATE_HALTED } else { KVM_MP_STATE_RUNNABLE };
        Ok(self.vcpu.set_mp_state(kvm_mp_state { mp_state })?)
    }
    fn set_tsc_khz(&mut self, khz: u32) -> io::Result<()> {
        Ok(self.vcpu.set_tsc_khz(khz)?)
    }
    fn tsc_khz(&mut self) -> io::Result<u32> {
        Ok(self.vcpu.get_tsc_khz()?)
    }
    fn set_guest_debug(&mut self, debug: &kvm_guest_debug) -> io::Result<()> {
        Ok(self.vcpu.set_guest_debug(debug)?)
    }
    fn interrupt(&mut self, vector: u8) -> io::Result<()> {
        /// `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
        const KVM_INTERRUPT: c_ulong = 1 << 30 | 4 << 16 | 0xae << 8 | 0x86;
        let vector = u32::from(vector);
        // SAFETY: the file is a processor's, and the kernel reads the four bytes of the vector.
        let done = unsafe { libc::ioctl(self.vcpu.as_raw_fd(), KVM_INTERRUPT, &raw const vector) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
    fn nmi(&mut self) -> io::Result<()> {
        Ok(self.vcpu.nmi()?)
    }
    fn smi(&mut self) -> io::Result<()> {
        Ok(self.vcpu.smi()?)
    }
    fn run(&mut self) -> io::Result<HostExit> {
        match self.vcpu.run().map(drop) {
            Ok(()) => {
                let reason = self.vcpu.get_kvm_run().exit_reason;
                Ok(self.exit(reason))
            }
            Err(error) if error.errno() == libc::EINTR => Ok(HostExit::Interrupted),
            Err(error) if error.errno() == libc::EAGAIN => Ok(HostExit::Again),
            Err(error) => Err(error.into()),
        }
    }
    fn run_fields(&mut self) -> RunFields {
        let run = self.vcpu.get_kvm_run();
        RunFields {
            ready_for_interrupt: run.ready_for_interrupt_injection != 0,
            interrupts_enabled: run.if_flag != 0,
            cr8: (run.cr8 & 15) as u8,
        }
    }
    fn set_cr8(&mut self, cr8: u8) {
        self.vcpu.get_kvm_run().cr8 = cr8.into();
    }
    fn set_request_window(&mut self, wanted: bool) {
        self.vcpu.get_kvm_run().request_interrupt_window = wanted.into();
    }
    fn set_immediate_exit(&mut self, wanted: bool) {
        self.vcpu.set_kvm_immediate_exit(wanted.into());
    }
    fn io_data(&mut self) -> &mut [u8] {
        let run_size = self.run_size;
        let run = self.vcpu.get_kvm_run();
        // SAFETY: called after an exit for I/O, and plain numbers in any case.
        let io = unsafe { run.__bindgen_anon_1.io };
        let len = (io.count as usize).saturating_mul(io.size.into());
        let start = usize::try_from(io.data_offset).unwrap_or(usize::MAX);
        if start.checked_add(len).is_none_or(|end| end > run_size) {
            return &mut [];
        }
        // SAFETY: the range lies in what is mapped of the processor's file, checked above, and is
        // borrowed as long as the processor is.
        unsafe { std::slice::from_raw_parts_mut((&raw mut *run).cast::<u8>().add(start), len) }
    }
    fn set_mmio_data(&mut self, data: [u8; 8]) {
        self.vcpu.get_kvm_run().__bindgen_anon_1.mmio.data = data;
    }
    fn set_msr_answer(&mut self, value: Option<u64>) {
        let data = &mut self.vcpu.get_kvm_run().__bindgen_anon_1;
        // SAFETY: called after an exit for an MSR, and plain numbers in any case.
        let mut answer = unsafe { data.msr };
        answer.error = u8::from(value.is_none());
        answer.data = value.unwrap_or(answer.data);
        data.msr = answer;
    }
}

fn one_msr(index: u32, data: u64) -> io::Result<Msrs> {
    let entry = kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
    Msrs::from_entries(&[entry]).map_err(|_| io::ErrorKind::OutOfMemory.into())
}
