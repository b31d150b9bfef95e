//! Why a machine cannot be made, or cannot go on.

use thiserror::Error;
use trivium_chipset::StateError;
use trivium_cpu::CpuError;
use trivium_firmware::LoadError;
use trivium_memory::MemoryError;

use crate::config::ConfigError;

/// Why a machine cannot be made, or cannot go on. The guest is not to blame.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The configuration is not one of a machine.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel cannot be loaded; [`LoadError::subject`] tells which input is to be changed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The host refuses the memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The host refuses memory for translated code.
    #[error(transparent)]
    Code(#[from] trivium_jit::CodeError),
    /// The host's KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] trivium_kvm::KvmError),
    /// A processor cannot go on.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The host refuses a thread.
    #[error("The host cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// A thread of the machine has panicked.
    #[error("A processor's thread has panicked; this is a fault of the program, please report it")]
    Panicked,
}

/// Why a saved state is not one of this machine.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// A device refuses its section.
    #[error("State of device '{name}' is refused: {source}")]
    Device {
        /// The device.
        name: String,
        /// Why it refuses.
        source: StateError,
    },
    /// A device has no section.
    #[error("State has no section for device '{name}'; restore it into a machine of its kind")]
    MissingDevice {
        /// The device.
        name: String,
    },
    /// A section has no device.
    #[error("This machine has no device '{name}'; restore the state into a machine of its kind")]
    UnknownDevice {
        /// The section's name.
        name: String,
    },
    /// Another number of processors.
    #[error("State is of {saved} processors, this machine has {have}; give it as many")]
    Cpus {
        /// What the state has.
        saved: usize,
        /// What the machine has.
        have: usize,
    },
    /// Another amount of memory.
    #[error("State is of {saved} bytes of memory, this machine has {have}; give it as many")]
    Memory {
        /// What the state has.
        saved: u64,
        /// What the machine has.
        have: u64,
    },
    /// A processor refuses its state.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The devices cannot be built again.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
