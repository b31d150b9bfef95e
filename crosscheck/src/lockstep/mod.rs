//! Lockstep: two machines of one configuration, each with a CPU of its own, run side by side and are
//! compared again and again.
//!
//! Both follow a clock that counts instructions, so their devices do the same at the same
//! instructions as long as their CPUs do: time, interrupts, DMA and what ports and registers give need
//! not be recorded to be the same. What comes from outside is given to both between the same two
//! instructions. Registers, devices and every page of RAM that either has written are compared, byte
//! by byte, at each point of [`Sync`]. Flags that instructions leave undefined may differ as long as
//! nothing is made of them.

mod cut;
mod file;
mod flags;
mod history;
mod locate;
mod pair;
mod report;
mod shrink;
mod tables;

use thiserror::Error;
use trivium_chipset::VmTime;
use trivium_machine::{MachineError, MachineHandle, RestoreError, RunEnd};

pub use cut::Cut;
pub use file::{FileError, Found, LockstepFile};
pub use locate::locate;
pub use pair::{Pair, Side};
pub use report::render;

/// Why two machines cannot be held against each other. Neither the guest nor a CPU is to blame.
#[derive(Debug, Error)]
pub enum LockstepError {
    /// A machine cannot be made or cannot go on.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A machine refuses its own state.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A CPU's host interface failed.
    #[error(transparent)]
    Cpu(#[from] trivium_cpu::CpuError),
    /// The machines were not equal from the start.
    #[error("The two machines do not begin in the same state: {0}")]
    Start(String),
}

/// When the machines are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// After each basic block of the guest.
    Block,
    /// Whenever the first CPU comes back: when it waits, or a device's time has come.
    Exit,
    /// Every so many instructions.
    Every(u64),
}

impl Default for Sync {
    fn default() -> Self {
        Self::Every(1_000_000)
    }
}

/// Input from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Characters for serial port `port` (0 for COM1 to 3).
    Serial {
        /// The port.
        port: usize,
        /// The characters.
        bytes: Vec<u8>,
    },
    /// A break on its line.
    Break {
        /// The port.
        port: usize,
    },
}

impl Input {
    fn give(&self, handle: &MachineHandle) {
        match self {
            Self::Serial { port, bytes } => {
                handle.serial_input(*port, bytes);
            }
            Self::Break { port } => handle.send_break(*port),
        }
    }
}

/// What is to be done at a point where both machines agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Go on, with this input.
    GoOn(Vec<Input>),
    /// End here.
    Stop,
}

/// How far two machines have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Virtual time: an instruction is a nanosecond.
    pub now: VmTime,
    /// How often they were compared.
    pub syncs: u64,
}

/// How a run of two machines ended.
#[derive(Debug)]
pub enum Verdict {
    /// Both came to the same end and agreed all the way.
    Agreed(RunEnd, Progress),
    /// Somebody wanted no more; they agreed so far.
    Stopped(Progress),
    /// They did not agree; [`locate`] finds out why.
    Diverged(Difference),
}

/// That two machines do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// When it was seen.
    pub until: VmTime,
    /// In what they differ, a line each: `what: here and there`.
    pub what: Vec<String>,
}

/// Runs two machines until they end, differ, or `host` has enough; it is asked at each point where
/// they agree. The calling thread must have a stack of [`trivium_machine::STACK_SIZE`] bytes.
///
/// # Errors
/// See [`LockstepError`].
pub fn run(
    pair: &mut Pair,
    sync: Sync,
    mut host: impl FnMut(Progress) -> Wish,
) -> Result<Verdict, LockstepError> {
    let mut progress = Progress { now: pair.now(), syncs: 0 };
    pair.begin()?;
    loop {
        let inputs = match host(progress) {
            Wish::Stop => return Ok(Verdict::Stopped(progress)),
            Wish::GoOn(inputs) => inputs,
        };
        for input in &inputs {
            pair.sides.iter().for_each(|side| input.give(&side.machine.handle()));
        }
        pair.go_on(inputs.is_empty() && progress.syncs > 0)?;
        let mut ends = pair.advance(sync)?;
        pair.history.note(inputs, pair.now());
        progress = Progress { now: pair.now(), syncs: progress.syncs + 1 };
        let mut what = pair.differences(&ends)?;
        if what.is_empty() && pair.is_vague() {
            what = pair.settle(&mut ends)?;
        }
        if !what.is_empty() {
            let until = pair.sides[0].machine.now().max(pair.sides[1].machine.now());
            return Ok(Verdict::Diverged(Difference { until, what }));
        }
        if let [Some(end), _] = ends {
            return Ok(Verdict::Agreed(end, progress));
        }
    }
}
