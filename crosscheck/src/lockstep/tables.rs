//! Page tables of a guest: where an entry's accessed flag may be set early.
//!
//! A processor may fetch ahead of what it executes, and sets the accessed flag of pages that it
//! never comes to. Intel SDM vol. 3A, 4.8 and 4.10.2.3. Ours decode blocks at once, which may be on
//! two pages; how long blocks are is no difference.

use std::collections::BTreeSet;

use trivium_cpu::CpuState;
use trivium_cpu::bits::{cr0, cr4, efer};

const PAGE: usize = trivium_memory::PAGE_SIZE as usize;

/// Flags of an entry.
const PRESENT: u64 = 1;
const ACCESSED: u64 = 1 << 5;
const LARGE: u64 = 1 << 7;
/// The address in an entry of 8 bytes.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How a mode's tables are.
#[derive(Clone, Copy)]
struct Shape {
    levels: u32,
    wide: bool,
}

impl Shape {
    fn of(state: &CpuState) -> Option<Self> {
        let control = &state.control;
        if control.cr0 & cr0::PG == 0 {
            return None;
        }
        let shape = |levels, wide| Some(Self { levels, wide });
        match (control.efer & efer::LMA != 0, control.cr4 & cr4::PAE != 0) {
            (true, _) if control.cr4 & cr4::LA57 != 0 => shape(5, true),
            (true, _) => shape(4, true),
            (false, true) => shape(3, true),
            (false, false) => shape(2, false),
        }
    }
}

/// The pages that hold a processor's page tables, by number. `read` gives a page of RAM.
pub(super) fn pages(
    state: &CpuState,
    mut read: impl FnMut(usize, &mut [u8; PAGE]) -> bool,
) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    let Some(shape) = Shape::of(state) else { return all };
    let mut level: BTreeSet<usize> = [(state.control.cr3 & ADDRESS) as usize / PAGE].into();
    for left in (1..=shape.levels).rev() {
        let mut below = BTreeSet::new();
        for &page in &level {
            let mut bytes = [0; PAGE];
            if !all.contains(&page) && read(page, &mut bytes) {
                all.insert(page);
                let is_leaf = |entry: u64| left == 1 || entry & LARGE != 0 && left < 4;
                let entries = entries(&bytes, shape.wide);
                let tables = entries.filter(|&e| e & PRESENT != 0 && !is_leaf(e));
                below.extend(tables.map(|entry| (entry & ADDRESS) as usize / PAGE));
            }
        }
        level = below;
    }
    all
}

fn entries(bytes: &[u8; PAGE], wide: bool) -> impl Iterator<Item = u64> {
    let size = if wide { 8 } else { 4 };
    bytes
        .chunks_exact(size)
        .map(|entry| entry.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Whether the low halves of two entries differ in the accessed flag alone.
pub(super) fn differ_in_accessed(this: u32, that: u32) -> bool {
    u64::from(this ^ that) == ACCESSED && u64::from(this) & PRESENT != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_each_level_are_found_and_pages_are_not() {
        let mut state = CpuState::default();
        state.control.cr0 = cr0::PG;
        state.control.cr4 = cr4::PAE;
        state.control.efer = efer::LMA;
        state.control.cr3 = 0x1000;
        // PML4, PDPT, a directory with a large page and a table, and the table.
        let entry = |page| match page {
            1 => vec![0x2027],
            2 => vec![0x3007],
            3 => vec![0x40_0087, 0x4007],
            4 => vec![0x9007_u64],
            _ => vec![],
        };
        let found = pages(&state, |page, bytes| {
            let entries = entry(page).into_iter().flat_map(u64::to_le_bytes);
            bytes.iter_mut().zip(entries).for_each(|(place, byte)| *place = byte);
            page < 16
        });
        assert_eq!(found, (1..=4).collect());
        state.control.cr0 = 0;
        assert!(pages(&state, |_, _| true).is_empty());
    }

    #[test]
    fn only_the_accessed_flag_of_a_present_entry_counts() {
        assert!(differ_in_accessed(0x1027, 0x1007));
        assert!(!differ_in_accessed(0x1026, 0x1006), "not present");
        assert!(!differ_in_accessed(0x1067, 0x1007), "dirty");
    }
}
