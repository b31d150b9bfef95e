//! The processor's state, from [`CpuState`] to the kernel's structures and back.

mod events;
mod fpu;
mod segments;
#[cfg(test)]
mod tests;

use kvm_bindings::{kvm_debugregs, kvm_regs, kvm_xcr, kvm_xcrs};
use trivium_cpu::bits::{cr0, cr4, debug, efer, rflags};
use trivium_cpu::state::{CpuState, Debug, General};

pub(crate) use events::{EventRoom, from_events, to_events};
pub(crate) use fpu::{XsaveLayout, from_xsave, to_xsave};
pub(crate) use segments::{from_sregs, to_sregs};

/// The general registers by the kernel's names, in the order of their numbers, both ways.
macro_rules! general_registers {
    ($($name:ident)*) => {
        pub(crate) fn to_regs(general: &General) -> kvm_regs {
            let General { regs: [$($name),*], rip, rflags } = *general;
            kvm_regs { $($name,)* rip, rflags }
        }

        pub(crate) fn from_regs(regs: &kvm_regs) -> General {
            let kvm_regs { $($name,)* rip, rflags } = *regs;
            General { regs: [$($name),*], rip, rflags: rflags & rflags::ALL | rflags::FIXED }
        }
    };
}

general_registers! { rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 }

pub(crate) fn to_debug(debug: &Debug) -> kvm_debugregs {
    let Debug { address, dr6, dr7 } = *debug;
    kvm_debugregs { db: address, dr6, dr7, ..Default::default() }
}

pub(crate) fn from_debug(regs: &kvm_debugregs) -> Debug {
    // The kernel has bits that only later processors have: bus lock, restricted transactions.
    let dr6 = (regs.dr6 | debug::DR6_FIXED) & 0xffff_ffff;
    Debug { address: regs.db, dr6, dr7: regs.dr7 & 0xffff_ffff | debug::DR7_FIXED }
}

pub(crate) fn to_xcrs(xcr0: u64) -> kvm_xcrs {
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0] = kvm_xcr { xcr: 0, value: xcr0, ..Default::default() };
    xcrs
}

pub(crate) fn from_xcrs(xcrs: &kvm_xcrs) -> u64 {
    let listed = xcrs.xcrs.iter().take(xcrs.nr_xcrs as usize);
    listed.clone().find(|xcr| xcr.xcr == 0).map_or(1, |xcr| xcr.value)
}

/// A mode that a processor can be in and that not every KVM has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagingMode {
    /// None.
    Off,
    /// 32-bit or PAE paging.
    Legacy,
    /// Long mode.
    Long,
}

/// The mode of paging that a state is in.
#[must_use]
pub fn paging_mode(state: &CpuState) -> PagingMode {
    match (state.control.cr0 & cr0::PG != 0, state.control.efer & efer::LMA != 0) {
        (false, _) => PagingMode::Off,
        (true, false) => PagingMode::Legacy,
        (true, true) => PagingMode::Long,
    }
}

/// Whether a state is in virtual-8086 mode.
#[must_use]
pub fn is_v86(state: &CpuState) -> bool {
    let protected = state.control.cr0 & cr0::PE != 0 && paging_mode(state) != PagingMode::Long;
    protected && state.general.rflags & rflags::VM != 0
}

/// Whether the page-directory pointers of PAE paging are in use.
pub(crate) fn is_pae(state: &CpuState) -> bool {
    paging_mode(state) == PagingMode::Legacy && state.control.cr4 & cr4::PAE != 0
}
