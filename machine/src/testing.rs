//! Aids for tests of whole machines: a serial line whose output is kept and which types when it
//! sees what it waits for, and a time limit.

pub mod hostile;
mod pieces;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_devices::uart16550::SerialBackend;

use crate::config::MachineConfig;
use crate::control::lock;
use crate::error::MachineError;
use crate::handle::MachineHandle;
use crate::machine::Machine;
use crate::run::RunEnd;

pub use pieces::{Finish, Pieces, PiecesError};

/// Something to be done when a pattern has appeared in the output.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is waited for, after that of the step before.
    pub pattern: Vec<u8>,
    /// What is done then.
    pub action: Action,
}

/// What a [`Step`] does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Types this.
    Type(Vec<u8>),
    /// Ends the run.
    Stop,
}

impl Step {
    /// Types `reply` when `pattern` has appeared.
    #[must_use]
    pub fn reply(pattern: impl Into<Vec<u8>>, reply: impl Into<Vec<u8>>) -> Self {
        Self { pattern: pattern.into(), action: Action::Type(reply.into()) }
    }

    /// Ends the run when `pattern` has appeared.
    #[must_use]
    pub fn stop(pattern: impl Into<Vec<u8>>) -> Self {
        Self { pattern: pattern.into(), action: Action::Stop }
    }
}

#[derive(Default)]
struct Line {
    output: Vec<u8>,
    /// Where in the output the next pattern may begin.
    from: usize,
    script: VecDeque<Step>,
}

/// A serial line that keeps the guest's output and follows a script. Clones are the same line.
#[derive(Clone, Default)]
pub struct Console {
    line: Arc<Mutex<Line>>,
    handle: Arc<Mutex<Option<MachineHandle>>>,
}

impl Console {
    /// A line that does what `script` says, step by step.
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = Step>) -> Self {
        let console = Self::default();
        lock(&console.line).script.extend(script);
        console
    }

    /// The far end, for COM1 of a machine that is then [`Self::connect`]ed.
    #[must_use]
    pub fn backend(&self) -> Box<dyn SerialBackend> {
        Box::new(self.clone())
    }

    /// What the script types goes to this machine from now on.
    pub fn connect(&self, handle: MachineHandle) {
        *lock(&self.handle) = Some(handle);
    }

    /// All output so far.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        lock(&self.line).output.clone()
    }

    /// All output so far as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.line).output).into_owned()
    }
}

impl Line {
    /// The next step's action, if its pattern is complete with the last character.
    fn due(&mut self) -> Option<Action> {
        let pattern = &self.script.front()?.pattern;
        let since = self.output.get(self.from..)?;
        if !since.ends_with(pattern) {
            return None;
        }
        self.from = self.output.len();
        self.script.pop_front().map(|step| step.action)
    }
}

impl SerialBackend for Console {
    fn transmit(&mut self, byte: u8) {
        let action = {
            let mut line = lock(&self.line);
            line.output.push(byte);
            line.due()
        };
        let Some(action) = action else { return };
        let Some(handle) = lock(&self.handle).clone() else { return };
        match action {
            Action::Type(reply) => {
                handle.serial_input(0, &reply);
            }
            Action::Stop => handle.stop(),
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub end: RunEnd,
    /// What the guest wrote to COM1.
    pub output: String,
    /// The time limit ended it.
    pub timed_out: bool,
}

/// Runs a machine with a [`Console`] at COM1 that follows `script`, for `limit` of host time at
/// most.
///
/// # Errors
/// As [`Machine::new`] and [`Machine::run`].
pub fn run(
    mut config: MachineConfig,
    script: impl IntoIterator<Item = Step>,
    limit: Duration,
) -> Result<Outcome, MachineError> {
    let console = Console::new(script);
    config.serial[0] = Some(console.backend());
    let mut machine = Machine::new(config)?;
    console.connect(machine.handle());
    let (end, timed_out) = run_limited(&mut machine, limit)?;
    Ok(Outcome { end, output: console.text(), timed_out })
}

/// Runs a machine for `limit` of host time at most; says whether that ended it.
///
/// # Errors
/// As [`Machine::run`].
pub fn run_limited(machine: &mut Machine, limit: Duration) -> Result<(RunEnd, bool), MachineError> {
    let handle = machine.handle();
    let (done, finished) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            let timed_out = finished.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if timed_out {
                handle.stop();
            }
            timed_out
        });
        let result = machine.run();
        drop(done);
        let timed_out = watchdog.join().unwrap_or(false);
        Ok((result?, timed_out))
    })
}

/// A file of a guest that `cargo xtask guests` has fetched. If it is absent, says so and gives
/// nothing: the test is then to be left.
///
/// # Panics
/// The file is absent and `TRIVIUM_REQUIRE_GUESTS` is 1, as it is in continuous integration.
#[must_use]
pub fn guest_file(guest: &str, file: &str) -> Option<Vec<u8>> {
    let path = guests_folder()?.join(guest).join(file);
    let found = std::fs::read(&path).ok();
    if found.is_none() {
        let required = std::env::var_os("TRIVIUM_REQUIRE_GUESTS").is_some_and(|value| value == "1");
        let path = path.display();
        assert!(!required, "Guest {path} is absent; fetch it with cargo xtask guests");
        println!("SKIP: guest {path} is absent; cargo xtask guests fetches it");
    }
    found
}

/// Where the guests are: `$TRIVIUM_GUESTS`, else `$XDG_CACHE_HOME/trivium/guests`, else
/// `~/.cache/trivium/guests`.
fn guests_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(own) = folder("TRIVIUM_GUESTS") {
        return Some(own.into());
    }
    let cache = match folder("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(folder("HOME")?).join(".cache"),
    };
    Some(cache.join("trivium").join("guests"))
}

/// `count` moments before `end`, ascending, the same on every call: for stops of a run on the way.
#[must_use]
pub fn moments(count: usize, end: VmTime) -> Vec<VmTime> {
    moments_of(0x2545_f491_4f6c_dd1d, count, end)
}

/// [`moments`] that depend on a seed. There may be fewer, if two are the same.
#[must_use]
pub fn moments_of(seed: u64, count: usize, end: VmTime) -> Vec<VmTime> {
    let mut seed = seed;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let part = (u128::from(seed) * u128::from(end.as_nanos())) >> 64;
        VmTime::from_nanos(part as u64)
    };
    let mut moments: Vec<_> = (0..count).map(|_| next()).collect();
    moments.sort_unstable();
    moments.dedup();
    moments
}
