//! What a run was made of, for those who want to know. Counted where translated code has been left
//! anyway; translated code itself counts nothing.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::block::AddressHasher;

/// Kinds of exits from translated code; which is which, the translator says.
pub const EXITS: usize = 8;

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Instructions that were completed.
    pub retired: u64,
    /// Those of them that translated code did.
    pub translated: u64,
    /// How often translated code was entered.
    pub entered: u64,
    /// How often it was left, by the kind of exit.
    pub exits: [u64; EXITS],
    /// How often a page walk has filled a TLB entry for a load or store.
    pub tlb_fills: u64,
    /// Loads and stores that no TLB entry can serve: across pages, to code, to watched addresses.
    pub lent: u64,
    /// Those that went to a device's register.
    pub device: u64,
    /// System instructions that the outer loop did.
    pub system: u64,
    /// Exceptions and interrupts that were delivered.
    pub delivered: u64,
    /// How often the quantum ended at a block, by its RIP and mode: every few thousand
    /// instructions, so this tells where a guest spends its time.
    pub samples: HashMap<(u64, u16), u64, BuildHasherDefault<AddressHasher>>,
    /// How often the interpreter went on at an operation of a translated block, by the block's
    /// number and the operation's.
    pub resumed: Vec<Vec<u64>>,
}

impl Counts {
    /// The interpreter goes on at an operation of a block.
    pub fn resume(&mut self, block: u32, op: u8) {
        let (block, op) = (block as usize, usize::from(op));
        if self.resumed.len() <= block {
            self.resumed.resize_with(block + 1, Vec::new);
        }
        let ops = &mut self.resumed[block];
        if ops.len() <= op {
            ops.resize(op + 1, 0);
        }
        ops[op] += 1;
    }

    /// What was counted of a block by [`Self::resume`], which is forgotten.
    pub fn take_resumed(&mut self, block: u32) -> Vec<u64> {
        self.resumed.get_mut(block as usize).map(std::mem::take).unwrap_or_default()
    }
}

/// Counts that others look at while a processor runs.
#[derive(Debug, Clone, Default)]
pub struct SharedCounts(Arc<Mutex<Counts>>);

impl SharedCounts {
    /// The counts, for as long as they are looked at.
    pub fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted_by_block_until_they_are_taken() {
        let mut counts = Counts::default();
        counts.resume(3, 1);
        counts.resume(3, 1);
        counts.resume(0, 0);
        assert_eq!(counts.take_resumed(3), [0, 2]);
        assert_eq!(counts.take_resumed(3), [0; 0]);
        assert_eq!(counts.take_resumed(9), [0; 0]);
        assert_eq!(counts.take_resumed(0), [1]);
    }
}
