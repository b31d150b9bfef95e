//! Page tables with a flaw here and there.

use std::collections::HashMap;

use crate::generate::random::Rng;
use crate::system::image::{HIGH, Image, LOW, TOP, Window};
use crate::system::layout;
use crate::system::model::paging::{Mode, Processor, Structure};

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Bits that are ignored, or say nothing of rights: PWT, PCD, A, D, G and those for software; AMD
/// reserves G at the top, which is for flaws.
const FREE: u64 = 0x0e78;
const GLOBAL: u64 = 1 << 8;

/// How entries are likely to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// So many entries in a hundred have a flaw.
    pub flaws: u64,
    /// The last entry is the supervisor's.
    pub supervisor: bool,
}

/// Page tables in the making.
pub(super) struct Tables<'a> {
    pub rng: &'a mut Rng,
    pub image: &'a mut Image,
    pub processor: &'a mut Processor,
    mode: Mode,
    root: u64,
    next: u64,
    /// The table below the entry at an address.
    below: HashMap<u64, u64>,
    /// The name and address of each entry.
    pub entries: Vec<(&'static str, u64)>,
}

/// Where page-directory-pointer tables of PAE paging may lie in their page.
const PDPT_STEP: u64 = 32;

impl<'a> Tables<'a> {
    /// Tables for the supervisor's memory, without a flaw, and CR3.
    pub fn new(rng: &'a mut Rng, image: &'a mut Image, processor: &'a mut Processor) -> Self {
        let mode = processor.mode();
        let mut root = layout::TABLES;
        if mode == Mode::Pae {
            root += PDPT_STEP * rng.below(0x1000 / PDPT_STEP);
        }
        processor.registers.cr3 = root;
        let next = layout::MORE_TABLES;
        let below = HashMap::new();
        let mut tables =
            Self { rng, image, processor, mode, root, next, below, entries: Vec::new() };
        tables.map_supervisor();
        tables
    }

    /// The tables that lie at fixed places, one page each.
    fn map_supervisor(&mut self) {
        let mut table = layout::TABLES + 0x1000;
        let mut upper = Vec::new();
        let mut below = self.mode.structures().len() - 1;
        if self.mode == Mode::Pae {
            self.set_pdpte(0, table | PRESENT);
        } else {
            upper.push((self.root, table));
            below -= 1;
        }
        for _ in 0..below {
            upper.push((table, table + 0x1000));
            table += 0x1000;
        }
        for (at, to) in upper {
            self.put(at, to | PRESENT | WRITE | USER | ACCESSED);
            self.below.insert(at, to);
        }
        let first = layout::GDT >> 12;
        for page in (layout::GDT..layout::TABLES).step_by(0x1000) {
            let user = page == layout::USER_CODE || page == layout::USER_STACK - 0x1000;
            let flags = PRESENT | WRITE | ACCESSED | DIRTY | if user { USER } else { 0 };
            let index = first + (page - layout::GDT >> 12);
            // With 4 KiB pages of 512 or 1,024 entries each, 1 MiB is in the first table.
            self.put(table + index * self.mode.entry_size(), page | flags);
        }
    }

    fn put(&mut self, at: u64, entry: u64) {
        self.image.put_number(at, entry, self.mode.entry_size() as usize);
    }

    /// Sets a PDPTE register, and the entry in memory.
    fn set_pdpte(&mut self, index: u64, entry: u64) {
        self.processor.registers.pdpte[index as usize] = entry;
        self.image.put_number(self.root + 8 * index, entry, 8);
    }

    /// A fresh page for a table; the last one again if there is none.
    fn table(&mut self) -> u64 {
        let last = layout::MORE_TABLES + 0x1000 * (layout::MORE_TABLES_COUNT - 1);
        let table = self.next;
        self.next = last.min(table + 0x1000);
        table
    }

    /// An address in data, that a page can begin with if its lower bits are cleared.
    pub fn data(&mut self) -> u64 {
        let windows = self.windows();
        let window = self.rng.pick(windows);
        window.start + (self.rng.below(window.len) & !0xfff)
    }

    fn windows(&self) -> &'static [Window] {
        if self.processor.features.max_physical < 40 {
            &[LOW, LOW, HIGH]
        } else {
            &[LOW, LOW, LOW, LOW, HIGH, TOP]
        }
    }

    /// Makes the entries that lead from a linear address to a physical one, as far as there are
    /// none, by a page of so many bits.
    pub fn map(&mut self, linear: u64, physical: u64, shift: u32, style: Style) {
        let mut table = self.root;
        if self.mode == Mode::Pae {
            table = self.pdpte(linear >> 30 & 3, style);
        }
        for structure in self.mode.structures() {
            let index = linear >> structure.shift & ((1 << structure.width) - 1);
            let at = table + index * self.mode.entry_size();
            if let Some(&below) = self.below.get(&at) {
                table = below;
                continue;
            }
            if self.image.get(at, self.mode.entry_size()) != 0 {
                return;
            }
            self.entries.push((structure.name, at));
            if structure.shift <= shift {
                let entry = self.leaf(structure, physical);
                let style = Style { flaws: style.flaws, ..style };
                let user = if style.supervisor { 0 } else { USER };
                let entry = self.spoil(structure, entry | user, style);
                return self.put(at, entry);
            }
            table = self.table();
            let entry = self.spoil(structure, table | USER, style);
            self.put(at, entry);
            self.below.insert(at, table);
        }
    }

    /// The table that a PDPTE register refers to, which is made if there is none. The entry in
    /// memory may get a flaw, which is seen when CR3 is loaded.
    fn pdpte(&mut self, index: u64, style: Style) -> u64 {
        let at = self.root + 8 * index;
        if let Some(&below) = self.below.get(&at) {
            return below;
        }
        let table = self.table();
        self.below.insert(at, table);
        let present = if self.rng.percent(style.flaws / 2) { 0 } else { PRESENT };
        let entry = table | present | self.rng.bits(0xe18, 30);
        self.set_pdpte(index, entry);
        if self.rng.percent(style.flaws) {
            let flaw = 1 << self.rng.below(64);
            self.image.put_number(at, entry ^ flaw, 8);
        }
        table
    }

    /// An entry that maps a page, but for its flags.
    fn leaf(&self, structure: &Structure, physical: u64) -> u64 {
        let page = physical & !0 << structure.shift;
        match structure.shift {
            12 => page,
            // 4 MiB pages have bits 32 to 39 of their address in bits 13 to 20.
            22 => page & 0xffff_ffff | (page >> 32 & 0xff) << 13 | PAGE_SIZE,
            _ => page | PAGE_SIZE,
        }
    }

    /// An entry with flags, mostly those that allow everything, and perhaps a flaw.
    fn spoil(&mut self, structure: &Structure, entry: u64, style: Style) -> u64 {
        let rng = &mut *self.rng;
        let mut entry = entry | PRESENT | WRITE | rng.bits(FREE, 40);
        let top = structure.shift >= 39;
        if !top && rng.percent(30) {
            entry |= GLOBAL;
        }
        if matches!(self.mode, Mode::Level4 | Mode::Level5) {
            entry |= rng.bits(0x7ff << 52, 20);
        }
        if rng.percent(style.flaws) {
            let reserved = self.processor.reserved(structure, entry);
            let flaw = match rng.below(8) {
                0 => PRESENT,
                1 | 2 => WRITE,
                3 | 4 => USER,
                5 => NO_EXECUTE,
                6 => 1 << rng.below(64),
                _ => one_of(rng, reserved),
            };
            entry ^= flaw;
        }
        if self.mode == Mode::Bits32 { entry & 0xffff_ffff } else { entry }
    }
}

/// One of the bits of a mask, if there is any.
fn one_of(rng: &mut Rng, mask: u64) -> u64 {
    let bits: Vec<u64> = (0..64).map(|n| 1 << n).filter(|bit| mask & bit != 0).collect();
    if bits.is_empty() { 0 } else { rng.pick(&bits) }
}
