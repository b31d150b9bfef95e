//! The file that runs one divergence again, alone.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trivium_chipset::VmTime;
use trivium_cpu::CpuState;
use trivium_machine::{FormatError, MachineState};

use super::cut::{Cut, From, Masks};
use super::locate::Blocks;
use super::pair::Pair;
use super::{LockstepError, Side};

/// The version that this program writes, and the only one it reads.
const VERSION: u32 = 1;
/// What tells such files from other reproducers.
const KIND: &str = "lockstep";

/// What made two machines differ.
#[derive(Debug)]
pub struct Found {
    /// The state in which they agreed last; with a history, that in which they began.
    pub state: MachineState,
    /// The moments at which they were compared before they differed, if all of it is needed and can be
    /// done again.
    pub history: Option<Vec<VmTime>>,
    /// How many instructions they run from where they agreed last.
    pub instructions: u64,
    /// The instruction, if they differ only when it is translated with others.
    pub cut: Option<Cut>,
    /// Instructions in a block at most, meanwhile.
    pub block: u32,
    /// How often a block is interpreted before it is translated.
    pub warm: u32,
    /// After how many instructions what is being run is translated with what follows it; 0 as usual.
    pub quantum: u32,
    /// The bits of RFLAGS that may differ after them.
    pub flags: u64,
    /// The processor before they differ.
    pub before: CpuState,
    /// These instructions, as far as they could be read: addresses, bytes and texts.
    pub code: Vec<String>,
    /// In what they differ, a line each: `what: here and there`.
    pub differences: Vec<String>,
    /// Whether it happens again from `state`, with nothing left in it that is not needed.
    pub is_small: bool,
}

impl Found {
    /// The moment at which they agreed last.
    #[must_use]
    pub fn agreed(&self) -> VmTime {
        let last = self.history.as_ref().and_then(|moments| moments.last());
        last.copied().unwrap_or(self.state.now)
    }

    /// Whether its file shows it again.
    #[must_use]
    pub fn can_be_repeated(&self) -> bool {
        self.is_small || self.history.is_some()
    }

    /// How many instructions it may be that make them differ, after others or alone.
    #[must_use]
    pub fn suspects(&self) -> u64 {
        self.cut.map_or(self.instructions, |cut| cut.differ - cut.agree)
    }
}

/// A divergence and all that is needed to see it again.
#[derive(Debug, Serialize, Deserialize)]
pub struct LockstepFile {
    version: u32,
    kind: String,
    /// What it is about, for people.
    #[serde(default)]
    pub note: Vec<String>,
    /// The CPUs' names.
    pub cpus: [String; 2],
    /// The options that make the machine, but for what it boots.
    pub options: Vec<String>,
    /// The firmware image in hexadecimal, if there is one.
    #[serde(default)]
    pub firmware: String,
    /// See [`Found::history`]; in nanoseconds.
    #[serde(default)]
    pub history: Option<Vec<u64>>,
    /// See [`Found::instructions`].
    pub instructions: u64,
    /// See [`Found::cut`].
    #[serde(default)]
    pub cut: Option<Cut>,
    /// See [`Found::block`].
    pub block: u32,
    /// See [`Found::warm`].
    pub warm: u32,
    /// See [`Found::quantum`].
    #[serde(default)]
    pub quantum: u32,
    /// See [`Found::flags`].
    pub flags: u64,
    /// In what the machines differed.
    pub differences: Vec<String>,
    /// The state to begin with, as [`MachineState::to_bytes`] writes it, in hexadecimal.
    state: String,
}

/// Why a file is not such a divergence.
#[derive(Debug, Error)]
pub enum FileError {
    /// It is not JSON of this form.
    #[error("it is not a reproducer: {0}")]
    Format(#[from] serde_json::Error),
    /// It is one of another version.
    #[error("it is a reproducer of version {0}, this program reads version {VERSION}")]
    Version(u32),
    /// A part of it is not in hexadecimal.
    #[error("its {0} is not in hexadecimal")]
    Hex(&'static str),
    /// The state is refused.
    #[error("its state is refused: {0}")]
    State(#[from] FormatError),
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

impl LockstepFile {
    /// What was found between CPUs of these names, in a machine that these options and this
    /// firmware make.
    #[must_use]
    pub fn new(
        found: &Found,
        cpus: [String; 2],
        options: Vec<String>,
        firmware: Option<&[u8]>,
    ) -> Self {
        Self {
            version: VERSION,
            kind: KIND.to_owned(),
            note: found.code.clone(),
            cpus,
            options,
            firmware: to_hex(firmware.unwrap_or_default()),
            history: found
                .history
                .as_ref()
                .map(|moments| moments.iter().map(|moment| moment.as_nanos()).collect()),
            instructions: found.instructions,
            cut: found.cut,
            block: found.block,
            warm: found.warm,
            quantum: found.quantum,
            flags: found.flags,
            differences: found.differences.clone(),
            state: to_hex(&found.state.to_bytes()),
        }
    }

    /// Whether a text looks like one of these, and not like another reproducer.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        serde_json::from_str::<Kind>(text).is_ok_and(|found| found.kind == KIND)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// It is not such a divergence.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let file: Self = serde_json::from_str(text)?;
        match file.version {
            VERSION => Ok(file),
            other => Err(FileError::Version(other)),
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never in practice: all of it can be written as JSON.
    pub fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The firmware image, if there is one.
    ///
    /// # Errors
    /// It is damaged.
    pub fn firmware(&self) -> Result<Option<Vec<u8>>, FileError> {
        let bytes = from_hex(&self.firmware).ok_or(FileError::Hex("firmware"))?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// The state to begin with.
    ///
    /// # Errors
    /// It is damaged.
    pub fn state(&self) -> Result<MachineState, FileError> {
        let bytes = from_hex(&self.state).ok_or(FileError::Hex("state"))?;
        Ok(MachineState::from_bytes(&bytes)?)
    }

    /// Runs it again on two machines that were just made; gives in what they differ.
    ///
    /// # Errors
    /// The machines are not of its kind, or cannot go on.
    pub fn run(
        &self,
        state: &MachineState,
        sides: [Side; 2],
    ) -> Result<Vec<String>, LockstepError> {
        let mut sides = sides;
        for side in &mut sides {
            side.machine.restore(state)?;
        }
        let mut pair = Pair::new(sides)?;
        let (cuts, most) = (self.cut.map(|cut| (cut.side, true)), self.block);
        pair.set_blocks(Blocks { most, warm: self.warm, quantum: self.quantum, cuts });
        pair.begin()?;
        pair.commit()?;
        let moments = self.history.as_deref().unwrap_or_default();
        let moments = moments.iter().map(|&nanos| VmTime::from_nanos(nanos));
        moments.for_each(|moment| pair.history.note(Vec::new(), moment));
        let agreed = pair.history.last().unwrap_or(state.now);
        let until = agreed.saturating_add(self.instructions);
        pair.history.note(Vec::new(), until);
        let from = if self.history.is_some() { From::Start } else { From::Snapshot };
        match self.cut {
            Some(cut) => {
                let masks = Masks::one(cut.differ, self.flags);
                Ok(pair.probe_cut((from, cut.side), cut.differ, until, &masks)?.1)
            }
            None => {
                pair.tolerated = self.flags;
                pair.probe(until)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back_and_others_refused() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(to_hex(&[0x0f, 0xa0]), "0fa0");
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("é")), (None, None, None));
    }

    #[test]
    fn other_files_are_told_apart() {
        assert!(!LockstepFile::is_one(r#"{"version": 1, "engines": []}"#));
        assert!(LockstepFile::is_one(r#"{"version": 9, "kind": "lockstep"}"#));
        assert!(LockstepFile::parse("{}").is_err());
    }
}
