//! What became of a case.

use serde::{Deserialize, Serialize};

use crate::state::UserState;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    /// By an exception or a software interrupt.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code; zero if it has none.
        error: u32,
        /// The address that #PF is about; zero for others.
        cr2: u64,
    },
    /// By SYSCALL, or INT 80h: RIP is that of the next instruction.
    Syscall,
    /// Not at all: it was given up.
    Endless,
    /// By a triple fault.
    Shutdown,
    /// It took the process that ran it with it. What of the outcome remains means nothing.
    Lost(String),
}

impl Stop {
    /// Whether it is an exception of fetching, decoding, or accessing memory.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Exception { vector: 6 | 11..=14 | 17, .. })
    }
}

/// Bytes that are not what they were when the case began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Linear address of the first.
    pub address: u64,
    /// What is there now; every one of them differs from what was there.
    pub bytes: Vec<u8>,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub stop: Stop,
    /// The state then, before the exception was delivered: as its frame tells it.
    pub state: UserState,
    /// Memory then, in the order of addresses, neighbouring bytes together.
    pub changes: Vec<Change>,
}

/// Bytes that are looked at together, most of which are as they were.
const LINE: usize = 64;

/// What differs between `before` and `after`, which lie at `address`.
pub fn changes(address: u64, before: &[u8], after: &[u8], found: &mut Vec<Change>) {
    let lines = before.chunks(LINE).zip(after.chunks(LINE)).zip((address..).step_by(LINE));
    for ((before, after), address) in lines.filter(|((before, after), _)| before != after) {
        line_changes(address, before, after, found);
    }
}

fn line_changes(address: u64, before: &[u8], after: &[u8], found: &mut Vec<Change>) {
    let differing = before.iter().zip(after).zip(address..).filter(|((b, a), _)| b != a);
    for ((_, &byte), address) in differing {
        match found.last_mut() {
            Some(last) if last.address + last.bytes.len() as u64 == address => {
                last.bytes.push(byte);
            }
            _ => found.push(Change { address, bytes: vec![byte] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_neighbours_are_one() {
        let mut found = Vec::new();
        changes(0x100, &[1, 2, 3, 4, 5], &[1, 9, 8, 4, 7], &mut found);
        let expected = [
            Change { address: 0x101, bytes: vec![9, 8] },
            Change { address: 0x104, bytes: vec![7] },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_change_may_be_longer_than_what_is_looked_at_together() {
        let (before, mut after) = ([0; 3 * LINE], [0; 3 * LINE]);
        after[LINE - 1..2 * LINE + 1].fill(1);
        let mut found = Vec::new();
        changes(0x1000, &before, &after, &mut found);
        let address = 0x1000 + LINE as u64 - 1;
        assert_eq!(found, [Change { address, bytes: vec![1; LINE + 2] }]);
    }
}
