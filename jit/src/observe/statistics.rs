//! What the JIT has done and what it has not, for `--jit-stats`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iced_x86::Mnemonic;
use trivium_interp::counts::SharedCounts;

use super::report::Report;
use super::why::Why;

/// What is counted. One for each processor.
#[derive(Default)]
pub struct Statistics {
    /// What the processor counts.
    counts: SharedCounts,
    work: Mutex<Work>,
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statistics").finish_non_exhaustive()
    }
}

impl Statistics {
    /// The counts that the processor is to be given.
    #[must_use]
    pub fn counts(&self) -> SharedCounts {
        self.counts.clone()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let counts = self.counts.lock().clone();
        let mut work = self.work().clone();
        for block in 0..work.notes.len() {
            let resumed = counts.resumed.get(block).cloned().unwrap_or_default();
            work.fold(block as u32, &resumed);
        }
        Report::new(&counts, &work)
    }

    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block was given up: what was counted of it is put where it stays.
    pub(super) fn forget(&self, block: u32) {
        let resumed = self.counts.lock().take_resumed(block);
        self.work().fold(block, &resumed);
    }

    /// The same of all blocks.
    pub(super) fn forget_all(&self) {
        let blocks = self.work().notes.len();
        (0..blocks as u32).for_each(|block| self.forget(block));
    }
}

/// What the translator has done.
#[derive(Debug, Clone, Default)]
pub(super) struct Work {
    /// Blocks translated, and those of them at addresses where others had been.
    pub(super) blocks: u64,
    pub(super) again: u64,
    /// Blocks of which nothing could be.
    pub(super) refused: u64,
    /// Guest instructions and their bytes.
    pub(super) instructions: u64,
    pub(super) guest_bytes: u64,
    /// Bytes of host code: what is often run, and the rest.
    pub(super) hot_bytes: u64,
    pub(super) cold_bytes: u64,
    /// Time that translations took.
    pub(super) time: Duration,
    /// Blocks that follow each other and were translated together: how often, their instructions, what
    /// they became and how long it took.
    pub(super) superblocks: u64,
    pub(super) superblock_instructions: u64,
    pub(super) superblock_hot_bytes: u64,
    pub(super) superblock_cold_bytes: u64,
    pub(super) superblock_time: Duration,
    /// Blocks given up, and how often all of them were.
    pub(super) dropped: u64,
    pub(super) all_dropped: u64,
    /// Regions given up to make room, and the blocks that were in them.
    pub(super) regions: u64,
    pub(super) evicted: u64,
    /// What is known of the present blocks, by number.
    pub(super) notes: Vec<Option<Note>>,
    pub(super) interpreted: HashMap<(Mnemonic, Why), Interpreted>,
    pub(super) places: HashMap<(u64, u16), Place>,
    /// Exits because of what is not translated, and because memory was not found.
    pub(super) exits_untranslated: u64,
    pub(super) exits_memory: u64,
}

/// What is known of a block.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) place: (u64, u16),
    /// Its operations, by number.
    pub(super) ops: Vec<OpNote>,
    /// It is not translated.
    pub(super) refused: bool,
}

/// What is known of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpNote {
    pub(super) mnemonic: Mnemonic,
    /// It is the interpreter's.
    pub(super) why: Option<Why>,
    /// It leads into translated code.
    pub(super) enters: bool,
}

impl OpNote {
    pub(super) const NONE: Self = Self { mnemonic: Mnemonic::INVALID, why: None, enters: false };
}

/// How often the interpreter did an instruction that translated blocks have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Interpreted {
    /// Where it was found, counted at each translation.
    pub(super) places: u64,
    pub(super) executed: u64,
}

/// What is known of the blocks at a RIP in a mode.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) instructions: u64,
    pub(super) guest_bytes: u64,
    pub(super) host_bytes: u64,
    pub(super) translations: u64,
    pub(super) exits: u64,
}

impl Work {
    /// Takes note of a block.
    pub(super) fn note(&mut self, block: u32, note: Note) {
        for op in &note.ops {
            if let Some(why) = op.why {
                self.interpreted.entry((op.mnemonic, why)).or_default().places += 1;
            }
        }
        let block = block as usize;
        if self.notes.len() <= block {
            self.notes.resize_with(block + 1, || None);
        }
        self.notes[block] = Some(note);
    }

    /// Counts what the interpreter has done of a block, which is forgotten.
    fn fold(&mut self, block: u32, resumed: &[u64]) {
        let Some(note) = self.notes.get_mut(block as usize).and_then(Option::take) else { return };
        let exits: u64 = resumed.iter().sum();
        if exits == 0 {
            return;
        }
        self.places.entry(note.place).or_default().exits += exits;
        for (first, &times) in resumed.iter().enumerate().filter(|(_, times)| **times != 0) {
            self.went_on(&note, first, times);
        }
    }

    /// The interpreter went on at an operation, up to the next that leads into translated code.
    fn went_on(&mut self, note: &Note, first: usize, times: u64) {
        if !note.refused {
            match note.ops.get(first).is_some_and(|op| op.why.is_some()) {
                true => self.exits_untranslated += times,
                false => self.exits_memory += times,
            }
        }
        for (number, op) in note.ops.iter().enumerate().skip(first) {
            if number != first && op.enters {
                break;
            }
            if op.mnemonic == Mnemonic::INVALID && op.why.is_none() {
                continue;
            }
            let usual = if number == first { Why::Memory } else { Why::Between };
            let why = op.why.unwrap_or(usual);
            self.interpreted.entry((op.mnemonic, why)).or_default().executed += times;
        }
    }
}
