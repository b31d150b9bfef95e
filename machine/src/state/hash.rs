//! A hash that tells states of machines apart.

use std::fmt;

use trivium_chipset::{Section, VmTime};
use trivium_cpu::CpuState;

use super::format::cpu_section;

/// A BLAKE3 over the whole state of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateHash(pub [u8; 32]);

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The hash of a state; `ram` is the digest of RAM.
pub(super) fn of(
    now: VmTime,
    cpus: &[CpuState],
    devices: &[(String, Section)],
    ram_size: u64,
    ram: &[u8],
) -> StateHash {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&now.as_nanos().to_le_bytes());
    for cpu in cpus {
        part(&cpu_section(cpu).data);
    }
    for (name, section) in devices {
        part(name.as_bytes());
        part(&section.version.to_le_bytes());
        part(&section.data);
    }
    part(&ram_size.to_le_bytes());
    part(ram);
    StateHash(hasher.finalize().into())
}
