//! Which encodings a campaign has reached: executed, faulted, or never.

use std::sync::atomic::{AtomicU64, Ordering};

use iced_x86::Code;

use crate::allow::first_instruction;
use crate::case::{Case, Kind};
use crate::duel::Round;
use crate::outcome::Stop;

/// How often each encoding was run.
pub struct Coverage {
    /// For each [`Code`], cases in which it was done and cases in which it raised an exception.
    counts: Vec<[AtomicU64; 2]>,
}

impl Default for Coverage {
    fn default() -> Self {
        let counts = Code::values().map(|_| Default::default()).collect();
        Self { counts }
    }
}

impl Coverage {
    /// Counts a case's first instruction.
    pub fn note(&self, case: &Case, round: &Round) {
        if case.kind == Kind::Sequence {
            return;
        }
        let instruction = first_instruction(case);
        let end = case.state.rip.wrapping_add(instruction.len() as u64);
        let stopped = &round.outcomes[1];
        let faulted = match stopped.stop {
            Stop::Exception { vector: 1 | 3 | 4, .. } | Stop::Syscall | Stop::Endless => false,
            // An instruction may be done and the next one be the one that faults.
            Stop::Exception { .. } => {
                stopped.state.rip == case.state.rip || stopped.state.rip != end
            }
            Stop::Shutdown | Stop::Lost(_) => true,
        };
        if let Some(counts) = self.counts.get(instruction.code() as usize) {
            counts[usize::from(faulted)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often an encoding was done, and how often it raised an exception.
    #[must_use]
    pub fn of(&self, code: Code) -> [u64; 2] {
        let counts = self.counts.get(code as usize);
        counts.map_or([0; 2], |counts| counts.each_ref().map(|n| n.load(Ordering::Relaxed)))
    }
}
