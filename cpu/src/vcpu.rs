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

/// Why a CPU left the guest's code. The values are those of trace files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitReason {
    /// A read of an I/O port.
    PortRead = 0,
    /// A write of an I/O port.
    PortWrite = 1,
    /// A read of a device register in memory.
    MmioRead = 2,
    /// A write of a device register in memory, or of ROM.
    MmioWrite = 3,
    /// A read of an MSR of the platform.
    MsrRead = 4,
    /// A write of an MSR of the platform.
    MsrWrite = 5,
    /// A move from or to CR8.
    TaskPriority = 6,
    /// An external interrupt is taken.
    Interrupt = 7,
    /// HLT or MWAIT: away until something happens.
    Halted = 8,
    /// Kicked by the platform or another thread.
    Kicked = 9,
    /// The budget is used up.
    Budget = 10,
    /// Waiting for a start-up IPI.
    WaitForSipi = 11,
    /// A triple fault.
    Shutdown = 12,
    /// An address translation was not in the TLB. Software CPUs only.
    TlbMiss = 13,
    /// An instruction that the CPU leaves to a general function: privileged ones, most of all.
    System = 14,
    /// An exception is delivered to the guest.
    Exception = 15,
    /// Control flow: a place in the code is looked up or translated. Software CPUs only.
    Lookup = 16,
    /// The guest can take interrupts now, for which the platform has waited.
    InterruptWindow = 17,
    /// CPUID, where the CPU does not answer it itself.
    Cpuid = 18,
    /// One instruction was run by another CPU, as this one cannot.
    Emulated = 19,
    /// A breakpoint or single step of the platform's.
    Debug = 20,
    /// A look at what others want of the CPU, with nothing taken. Software CPUs only.
    Attention = 21,
    /// Any other.
    Other = 22,
}

impl ExitReason {
    /// All, in the order of their values.
    pub const ALL: [Self; 23] = [
        Self::PortRead,
        Self::PortWrite,
        Self::MmioRead,
        Self::MmioWrite,
        Self::MsrRead,
        Self::MsrWrite,
        Self::TaskPriority,
        Self::Interrupt,
        Self::Halted,
        Self::Kicked,
        Self::Budget,
        Self::WaitForSipi,
        Self::Shutdown,
        Self::TlbMiss,
        Self::System,
        Self::Exception,
        Self::Lookup,
        Self::InterruptWindow,
        Self::Cpuid,
        Self::Emulated,
        Self::Debug,
        Self::Attention,
        Self::Other,
    ];

    /// Whether it can be seen from outside the CPU: others are what a CPU in software does within.
    #[must_use]
    pub fn is_outer(self) -> bool {
        use ExitReason::{Attention, Exception, Lookup, System, TlbMiss};
        !matches!(self, TlbMiss | System | Exception | Lookup | Attention)
    }
}

impl From<Exit> for ExitReason {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Budget => Self::Budget,
            Exit::Kicked => Self::Kicked,
            Exit::Halted => Self::Halted,
            Exit::WaitForSipi => Self::WaitForSipi,
            Exit::Shutdown => Self::Shutdown,
        }
    }
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

    /// Whether the CPU shall tell of each time that it leaves the guest's code, by
    /// [`Self::exit_begins`] and [`Self::exit_ends`]. Asked once for each call of `run`.
    fn traces_exits(&self) -> bool {
        false
    }

    /// The CPU has left the guest's code at the instruction at this linear address. Its code has
    /// `bits` bits and begins with these bytes; both are 0 if they are not known. What the CPU then
    /// asks of the platform belongs to this exit.
    fn exit_begins(&self, _linear: u64, _bits: u8, _code: u64) {}

    /// It goes back into the guest's code, or out of `run`. `reason` holds if the platform was asked
    /// for nothing that says more.
    fn exit_ends(&self, _reason: ExitReason) {}
}
