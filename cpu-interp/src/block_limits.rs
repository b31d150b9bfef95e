//! How large blocks become, and when they are translated: for those who look for the one instruction
//! that goes wrong.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::native::{HOT, QUANTUM};

/// The most instructions that a block can have.
const MOST: u32 = crate::decode::MAX_COUNT as u32;

/// What holds for the blocks of CPUs that share this, from when they next load a state.
#[derive(Debug)]
pub struct BlockLimits {
    most: AtomicU32,
    warm: AtomicU32,
    /// 0 as it is usual.
    quantum: AtomicU32,
    cuts: AtomicBool,
    /// Instructions to the next cut; [`NO_CUT`] if none is wanted.
    cut: AtomicU64,
    was_cut: AtomicBool,
    changes: AtomicU64,
}

/// Further than any CPU goes.
pub(crate) const NO_CUT: u64 = u64::MAX;

impl Default for BlockLimits {
    fn default() -> Self {
        let (most, warm) = (MOST.into(), crate::run::WARM.into());
        Self {
            most,
            warm,
            quantum: AtomicU32::new(0),
            cuts: AtomicBool::new(false),
            cut: AtomicU64::new(NO_CUT),
            was_cut: AtomicBool::new(false),
            changes: AtomicU64::new(0),
        }
    }
}

impl BlockLimits {
    /// Blocks have at most `most` instructions, 1 to 64, and are translated after they were
    /// interpreted `warm` times. What is being run every `quantum` instructions is translated with
    /// what follows it; 0 leaves that as it is usual. CPUs drop the blocks that they have.
    pub fn set(&self, most: u32, warm: u32, quantum: u32) {
        self.most.store(most.clamp(1, MOST), Ordering::Relaxed);
        self.warm.store(warm, Ordering::Relaxed);
        self.quantum.store(quantum, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Says whether blocks that are made from now on can be cut: translated code then looks before
    /// each instruction whether it is to be left there, and goes the same way otherwise.
    pub fn allow_cuts(&self, allowed: bool) {
        self.cuts.store(allowed, Ordering::Relaxed);
    }

    /// From when it next runs, the CPU is to come back where translated code first comes between two
    /// instructions after so many.
    pub fn cut_after(&self, instructions: u64) {
        self.was_cut.store(false, Ordering::Relaxed);
        self.cut.store(instructions, Ordering::Relaxed);
    }

    /// Whether it has come back so since.
    pub fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::Relaxed)
    }

    /// As it is usual.
    pub fn reset(&self) {
        self.set(MOST, crate::run::WARM, 0);
    }

    /// A number that grows with each change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn cuts(&self) -> bool {
        self.cuts.load(Ordering::Relaxed)
    }

    /// The cut that is wanted, if there is a new one.
    pub(crate) fn take_cut(&self) -> Option<u64> {
        if self.cut.load(Ordering::Relaxed) == NO_CUT {
            return None;
        }
        Some(self.cut.swap(NO_CUT, Ordering::Relaxed))
    }

    pub(crate) fn note_cut(&self) {
        self.was_cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn warm(&self) -> u32 {
        self.warm.load(Ordering::Relaxed)
    }
    /// The quantum and how often it is to be used up at a block.
    pub(crate) fn hot(&self) -> (i64, u32) {
        match self.quantum.load(Ordering::Relaxed) {
            0 => (QUANTUM, HOT),
            quantum => (i64::from(quantum).clamp(1, QUANTUM), 1),
        }
    }
}
