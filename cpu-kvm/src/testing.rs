//! What tests need: a processor of this host's KVM, and whether there is one.

use std::sync::Arc;

use trivium_cpu::CpuState;
use trivium_cpu::model::CpuModel;
use trivium_memory::GuestMemory;

use crate::guest;
pub(crate) use crate::guest::{CODE, Listener, PLACE};
use crate::{Behaviour, Host, Irqchip, KvmVcpu, Report};

pub(crate) fn max() -> Arc<CpuModel> {
    Arc::new(CpuModel::by_name("max").unwrap())
}

/// So many MiB of RAM.
pub(crate) fn memory(mib: u64) -> Arc<GuestMemory> {
    guest::memory(mib).unwrap()
}

/// A processor of this host's KVM, if it does what is needed; else a line says what it lacks.
pub(crate) fn kvm(memory: &Arc<GuestMemory>, needed: &[Behaviour]) -> Option<KvmVcpu> {
    let missing = match Report::of_host() {
        Ok(report) => report.lacks(needed).map(|info| format!("/dev/kvm lacks {}", info.name)),
        Err(error) => Some(error.to_string()),
    };
    match missing {
        Some(why) => skip(&why),
        None => Some(KvmVcpu::new(memory.clone(), max(), PLACE).unwrap()),
    }
}

/// A processor whose interrupt chips are the kernel's, if this host has such.
pub(crate) fn irqchip(memory: &Arc<GuestMemory>, kind: Irqchip) -> Option<KvmVcpu> {
    kvm(memory, &[Behaviour::RealMode])?;
    match KvmVcpu::with_irqchip(memory.clone(), max(), PLACE, kind) {
        Ok(vcpu) => Some(vcpu),
        Err(why) => skip(&why.to_string()),
    }
}

/// This host's calls, if there are any.
pub(crate) fn host() -> Option<Host> {
    Host::open(0).map_or_else(|why| skip(&why.to_string()), Some)
}

/// Says why something is not done; a failure where all must be.
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("KVM_REQUIRE").is_some_and(|value| value == "hw");
    assert!(!required, "KVM_REQUIRE=hw: {why}");
    println!("SKIP: {why}");
    None
}

/// 64-bit code at a privilege level.
pub(crate) fn long_mode(memory: &GuestMemory, cpl: u8, code: &[u8]) -> CpuState {
    guest::long_mode(memory, cpl, code, &[0xf4])
}

/// A user-level loop of `count` times two instructions (`sub rcx, 1; jnz`), then SYSCALL.
pub(crate) fn loop_then_syscall(count: u32) -> Vec<u8> {
    let mut code = vec![0xb9];
    code.extend(count.to_le_bytes());
    code.extend([0x48, 0x83, 0xe9, 0x01, 0x75, 0xfa, 0x0f, 0x05]);
    code
}
