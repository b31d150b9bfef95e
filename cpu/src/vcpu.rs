//! The traits by which CPUs and platforms meet.

use std::sync::Arc;

use thiserror::Error;

use crate::state::CpuState;

/// How far a CPU may run before it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// At most so many instructions; exactly so many if nothing else ends the run and the CPU has
    /// [`Capabilities::exact_budget`]. `u64::MAX` for no limit.
    pub instructions: u64,
}

impl Budget {
    /// Until something else ends the run.
    pub const UNLIMITED: Self = Self { instructions: u64::MAX };
}

/// Why a CPU came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The budget is used up.
    Budget,
    /// It was kicked, by the platform or another thread.
    Kicked,
    /// HLT (or MWAIT): nothing to do until an interrupt comes.
    Halted,
    /// It waits for a start-up IPI.
    WaitForSipi,
    /// A triple fault: the CPU has shut down.
    Shutdown,
}

/// Why a CPU cannot go on. The guest is not to blame.
#[derive(Debug, Error)]
pub enum CpuError {
    /// The state cannot be loaded.
    #[error("CPU state cannot be loaded: {0}")]
    State(&'static str),
    /// The CPU's host interface failed.
    #[error(transparent)]
    Host(#[from] std::io::Error),
}

/// Makes a CPU's `run` return soon; callable from any thread or a signal handler.
pub trait Kick: Send + Sync {
    /// Makes the present `run`, or if there is none the next one, return with [`Exit::Kicked`].
    fn kick(&self);

    /// Something about interrupts has changed: the CPU shall look, without returning.
    fn attend(&self);
}

/// What a kind of CPU can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// [`Budget::instructions`] is kept to the instruction.
    pub exact_budget: bool,
}

/// One virtual CPU.
pub trait Vcpu: Send {
    /// Runs the guest until something ends the run.
    ///
    /// # Errors
    /// The CPU cannot go on for a reason that is not the guest's.
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError>;

    /// The handle by which others reach the running CPU.
    fn kicker(&self) -> Arc<dyn Kick>;

    /// The whole state.
    ///
    /// # Errors
    /// The CPU's host interface failed.
    fn save(&mut self) -> Result<CpuState, CpuError>;

    /// Replaces the whole state.
    ///
    /// # Errors
    /// The state is not one this CPU can be in, or the host interface failed.
    fn load(&mut self, state: &CpuState) -> Result<(), CpuError>;

    /// What this kind of CPU can do.
    fn capabilities(&self) -> Capabilities;
}

/// An access to an MSR of the platform that raises #GP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsrFault;

/// How a CPU was asked to start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetKind {
    /// INIT: most state is reset; a processor other than the first waits for SIPI.
    Init,
    /// Start-up IPI with this vector: real mode at `vector << 12`.
    Sipi(u8),
}

/// What a CPU may see of the platform. One implementation, in `machine`, serves all kinds; there
/// is one per virtual CPU.
pub trait CpuBus: Sync {
    /// Says that the CPU has retired `instructions` more. Called before any other method whose
    /// answer may depend on time, and when `run` returns.
    fn retire(&self, instructions: u64);

    /// Reads what is not RAM or ROM; `data` is 1 to 64 bytes and crosses no page.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);

    /// Writes what is not RAM; `data` is 1 to 64 bytes and crosses no page.
    fn mmio_write(&self, gpa: u64, data: &[u8]);

    /// Reads an I/O port; `width` is 1, 2 or 4.
    fn pio_read(&self, port: u16, width: u8) -> u32;

    /// Writes an I/O port; `width` is 1, 2 or 4.
    fn pio_write(&self, port: u16, width: u8, value: u32);

    /// Reads an MSR that belongs to the platform (local APIC, TSC deadline); `None` if it does not.
    fn msr_read(&self, msr: u32) -> Option<Result<u64, MsrFault>>;

    /// Writes an MSR that belongs to the platform; `None` if it does not.
    fn msr_write(&self, msr: u32, value: u64) -> Option<Result<(), MsrFault>>;

    /// The local APIC's task priority, CR8: 0 to 15.
    fn cr8(&self) -> u8;

    /// Sets the local APIC's task priority, CR8: 0 to 15.
    fn set_cr8(&self, priority: u8);

    /// The time-stamp counter of virtual time, without the guest's offset.
    fn tsc(&self) -> u64;

    /// The guest has moved its time-stamp counter: it is now [`Self::tsc`] plus `offset`, modulo
    /// 2^64. The local APIC's TSC deadline is compared with that.
    fn set_tsc_offset(&self, offset: u64);

    /// A random number, for RDRAND and RDSEED: the host's entropy, or under deterministic clocks
    /// one that a second run gets too.
    fn random(&self) -> u64;

    /// Whether an external interrupt waits that priority and masking let through.
    fn interrupt_pending(&self) -> bool;

    /// The INTA cycle: takes the waiting interrupt's vector. `None` if it has gone away.
    fn acknowledge_interrupt(&self) -> Option<u8>;

    /// Takes a waiting NMI.
    fn take_nmi(&self) -> bool;

    /// Takes a waiting SMI. A platform may do without.
    fn take_smi(&self) -> bool {
        false
    }

    /// The CPU enters or leaves system-management mode: it sees SMRAM from now on, or no longer. The
    /// memory map may be changed before this returns. The state is saved after it is entered, and
    /// was restored before it is left.
    fn set_smm(&self, _smm: bool) {}

    /// Takes a waiting INIT or start-up IPI.
    fn take_reset(&self) -> Option<ResetKind>;

    /// The CPU is delivering an exception or interrupt; for traces. `rip` is the interrupted
    /// instruction's, or the next one's.
    fn delivering(&self, vector: u8, error_code: Option<u32>, rip: u64);

    /// FERR#: an unmasked x87 error waits and CR0.NE is clear (IRQ 13 on a PC).
    fn set_ferr(&self, high: bool);
}
