//! Runs in pieces: at some moments the machine is saved, dropped, built anew and restored, which its
//! guest must not notice.

use std::time::Duration;

use trivium_chipset::VmTime;

use super::{Console, Step, run_limited};
use crate::config::MachineConfig;
use crate::error::{MachineError, RestoreError};
use crate::machine::Machine;
use crate::run::RunEnd;
use crate::state::{FormatError, MachineState, StateHash};

/// Every so many times the state goes through its form as bytes.
const THROUGH_BYTES: usize = 8;

/// A guest that is to be run in pieces, under a clock that counts instructions.
pub struct Pieces<'a> {
    /// Makes the machine; what it has at COM1 is replaced.
    pub config: &'a (dyn Fn() -> MachineConfig + Sync),
    /// What is typed at COM1.
    pub script: &'a [Step],
    /// Host time for all of it.
    pub limit: Duration,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why; nothing if the time limit ended it.
    pub end: Option<RunEnd>,
    /// What the guest wrote to COM1.
    pub output: String,
    /// The state that the machine was left in.
    pub hash: StateHash,
    /// The moment.
    pub now: VmTime,
}

/// Why a run in pieces cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PiecesError {
    /// The machine cannot be made or run.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// It refuses a state of its own.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The bytes of a state are refused.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl Pieces<'_> {
    fn machine(&self, console: &Console) -> Result<Machine, MachineError> {
        let mut config = (self.config)();
        config.serial[0] = Some(console.backend());
        let machine = Machine::new(config)?;
        console.connect(machine.handle());
        Ok(machine)
    }

    fn finish(&self, mut machine: Machine, console: &Console) -> Result<Finish, PiecesError> {
        let (end, timed_out) = run_limited(&mut machine, self.limit)?;
        Self::finished(machine, console, (!timed_out).then_some(end))
    }

    fn finished(
        mut machine: Machine,
        console: &Console,
        end: Option<RunEnd>,
    ) -> Result<Finish, PiecesError> {
        let hash = machine.state_hash().map_err(MachineError::from)?;
        Ok(Finish { end, output: console.text(), hash, now: machine.now() })
    }

    /// The run in one piece.
    ///
    /// # Errors
    /// The machine cannot be made or run.
    pub fn whole(&self) -> Result<Finish, PiecesError> {
        let console = Console::new(self.script.to_vec());
        self.finish(self.machine(&console)?, &console)
    }

    /// The run in pieces, cut at these moments. `progress` is told how many cuts are done, and says
    /// whether to go on; if not, there is no result.
    ///
    /// # Errors
    /// The machine cannot be made or run, or refuses a state.
    pub fn cut(
        &self,
        moments: &[VmTime],
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Option<Finish>, PiecesError> {
        let console = Console::new(self.script.to_vec());
        let mut machine = self.machine(&console)?;
        for (cut, moment) in moments.iter().enumerate() {
            if let Some(end) = machine.run_until(*moment)? {
                return Self::finished(machine, &console, Some(end)).map(Some);
            }
            machine = self.rebuilt(machine, &console, cut % THROUGH_BYTES == 0)?;
            if !progress(cut + 1) {
                return Ok(None);
            }
        }
        self.finish(machine, &console).map(Some)
    }

    /// Saves, drops, builds and restores a machine.
    fn rebuilt(
        &self,
        mut machine: Machine,
        console: &Console,
        bytes: bool,
    ) -> Result<Machine, PiecesError> {
        let mut state = machine.save()?;
        drop(machine);
        if bytes {
            state = MachineState::from_bytes(&state.to_bytes())?;
        }
        let mut machine = self.machine(console)?;
        machine.restore(&state)?;
        Ok(machine)
    }

    /// Runs a machine that is cut beside one that only stops at these moments, and says where and in
    /// what the two first differ.
    ///
    /// # Errors
    /// As [`Self::cut`].
    pub fn first_difference(&self, moments: &[VmTime]) -> Result<Option<String>, PiecesError> {
        let consoles = [(); 2].map(|()| Console::new(self.script.to_vec()));
        let mut plain = self.machine(&consoles[0])?;
        let mut cut = self.machine(&consoles[1])?;
        for (number, moment) in moments.iter().enumerate() {
            let ends = (plain.run_until(*moment)?, cut.run_until(*moment)?);
            if plain.state_hash().ok() != cut.state_hash().ok() || ends.0 != ends.1 {
                let differences = plain.save()?.differences(&cut.save()?).join("\n  ");
                let last = number.checked_sub(1).and_then(|last| moments.get(last));
                let last = last.map_or("the start".into(), ToString::to_string);
                return Ok(Some(format!(
                    "between the cut at {last} and {moment} ({ends:?}):\n  {differences}"
                )));
            }
            if ends.0.is_some() {
                break;
            }
            cut = self.rebuilt(cut, &consoles[1], false)?;
        }
        Ok(None)
    }
}
