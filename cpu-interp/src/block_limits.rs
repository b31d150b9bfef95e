//! How large blocks become, and when they are translated: for those who look for the one instruction
//! that goes wrong.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
    changes: AtomicU64,
}

impl Default for BlockLimits {
    fn default() -> Self {
        let (most, warm) = (MOST.into(), crate::run::WARM.into());
        Self { most, warm, quantum: AtomicU32::new(0), changes: AtomicU64::new(0) }
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
