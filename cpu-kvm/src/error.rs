//! What can be wrong with the host's KVM, in lines that say what to do.

use std::io;

use thiserror::Error;
use trivium_cpu::CpuError;

/// Why KVM cannot be used, or cannot go on.
#[derive(Debug, Error)]
pub enum KvmError {
    /// There is no /dev/kvm.
    #[error(
        "There is no /dev/kvm; load the module kvm_intel or kvm_amd, switch virtualization on in the firmware or for this virtual machine, or use --accel jit"
    )]
    Missing,
    /// /dev/kvm may not be opened.
    #[error(
        "/dev/kvm may not be opened by this user; join the group that owns it (sudo usermod -aG kvm $USER, then log in anew), or use --accel jit"
    )]
    NotPermitted,
    /// /dev/kvm cannot be opened for another reason.
    #[error("/dev/kvm cannot be opened: {0}; use --accel jit")]
    Open(#[source] io::Error),
    /// The kernel is too old.
    #[error(
        "This kernel's KVM has API version {0}, not 12; use Linux 2.6.22 or later, or --accel jit"
    )]
    Api(i32),
    /// Something that every KVM of the last years has is missing.
    #[error("This host's KVM has no {0}; use a later kernel, or --accel jit")]
    Lacks(&'static str),
    /// There are more pieces of memory than slots.
    #[error(
        "The guest's memory has {pieces} pieces and this host's KVM takes {slots}; use --accel jit"
    )]
    Slots {
        /// Pieces of RAM and ROM.
        pieces: usize,
        /// What KVM takes.
        slots: usize,
    },
    /// The kernel does not make interrupt chips.
    #[error(
        "This host's KVM has no interrupt chips of its own for --kvm irqchip={0}; use irqchip=off"
    )]
    Irqchip(&'static str),
    /// A call failed.
    #[error("{call} failed: {source}")]
    Call {
        /// Its name in the kernel's documentation.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// KVM has stopped at something that it cannot do.
    #[error("KVM cannot go on at {place}: {reason}; --accel kvm:jit hands over there")]
    Cannot {
        /// CS:RIP, as the user knows it.
        place: String,
        /// What it is.
        reason: Cannot,
    },
    /// A kind of state has no place in KVM.
    #[error("KVM cannot take over here: {0}; --accel kvm:jit waits until it can")]
    State(&'static str),
    /// Virtual time is to follow instructions, which KVM does not count.
    #[error("KVM counts no instructions; use --clock real, or --accel jit with --clock icount")]
    Budget,
}

/// What this host's KVM cannot do, found while it ran. The guest's state is as before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Cannot {
    /// KVM_EXIT_INTERNAL_ERROR: most often an instruction that the kernel does not emulate.
    #[error("internal error {suberror} {}", bytes_text(.bytes))]
    Internal {
        /// What the kernel calls it: 1 is a failed emulation, 2 and 3 are events that met.
        suberror: u32,
        /// The instruction, if the kernel tells.
        bytes: Vec<u8>,
    },
    /// KVM_EXIT_FAIL_ENTRY: the processor refuses the state.
    #[error("the processor refuses the guest's state (hardware reason {0:#x})")]
    FailEntry(u64),
    /// KVM_EXIT_UNKNOWN: an exit of the processor that the kernel does not know.
    #[error("exit of the processor that the kernel does not know ({0:#x})")]
    Unknown(u64),
    /// An exit that nobody has asked for.
    #[error("unexpected exit {0}")]
    Exit(u32),
    /// System-management mode.
    #[error("an SMI, which this KVM has no mode for")]
    Smm,
    /// KVM_RUN itself fails.
    #[error("KVM_RUN fails with {0}")]
    Run(String),
}

fn bytes_text(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "without a reason".into();
    }
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("at the instruction {}", hex.join(" "))
}

impl From<KvmError> for CpuError {
    fn from(error: KvmError) -> Self {
        Self::Host(io::Error::other(error))
    }
}

/// Names the call that failed.
pub(crate) fn call(name: &'static str) -> impl FnOnce(io::Error) -> KvmError {
    move |source| KvmError::Call { call: name, source }
}
