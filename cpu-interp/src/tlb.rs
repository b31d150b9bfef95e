//! The software TLB: direct-mapped, with entries for reads and for writes apart.
//!
//! An entry says that a page may be accessed at the present privilege and where in the host's memory
//! it lies. A write entry exists only for a page that is RAM, marked dirty both in the page table and
//! in the machine's dirty map, and holds no decoded code; so whoever finds one may just store.
//!
//! Pages of device registers have entries of their own, which only save the walk.

mod used;

use used::Used;

/// Entries for reads, and as many for writes.
pub const TLB_SIZE: usize = 4096;

/// The bits of an address that choose its entry.
pub const INDEX_MASK: u64 = (TLB_SIZE as u64 - 1) << 12;

/// A page that no address is on.
const NOWHERE: u64 = 1;

/// One translation. In this order, so that translated code finds the parts.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Entry {
    /// The page's linear address, negated: so that a sum tells whether another address is on it,
    /// without touching the flags.
    pub tag: u64,
    /// What to add to a linear address to get the host's.
    pub addend: u64,
}

impl Entry {
    /// Whether an access whose last byte is here begins in the entry's page and ends there.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, last: u64) -> bool {
        last.wrapping_add(self.tag) >> 12 == 0
    }

    /// The host's page.
    fn host_page(&self) -> u64 {
        self.addend.wrapping_sub(self.tag)
    }

    /// What the entry of an index is as long as it has no page: it has one that another entry, and
    /// not the one before either, would have.
    fn empty(index: usize) -> Self {
        Self { tag: tag_of((index as u64 + 2 & TLB_SIZE as u64 - 1) << 12), addend: 0 }
    }
}

fn tag_of(linear: u64) -> u64 {
    0_u64.wrapping_sub(linear & !0xfff)
}

fn empty_entries() -> [Entry; TLB_SIZE] {
    std::array::from_fn(Entry::empty)
}

/// A range that grows from nothing when the least and the greatest address are taken in.
const NO_ADDRESSES: Range = Range { start: u64::MAX, end: 0 };

#[derive(Debug, Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

/// Entries for pages of device registers, of each kind.
const DEVICE_PAGES: usize = 16;

/// A page of device registers that may be accessed at the present privilege.
#[derive(Debug, Clone, Copy)]
struct DevicePage {
    /// The page's linear address, or `NOWHERE`.
    tag: u64,
    /// Its guest-physical address.
    gpa: u64,
    global: bool,
}

const NO_DEVICE: DevicePage = DevicePage { tag: NOWHERE, gpa: 0, global: false };

/// The translations of one privilege. In this order, so that handlers find `read` at the start.
#[repr(C)]
pub struct Tlb {
    /// For loads.
    pub read: [Entry; TLB_SIZE],
    /// For stores.
    pub write: [Entry; TLB_SIZE],
    /// Which entries for loads and for stores are in use.
    used: [Used; 2],
    /// The addresses between which pages larger than 4 KiB were entered.
    large: Range,
    /// For loads and for stores.
    devices: [[DevicePage; DEVICE_PAGES]; 2],
    /// Translations were dropped since [`Self::take_lost`].
    lost: bool,
    /// Where entries for stores into pages of the host were made, by a part of the page's address.
    stored: Box<[Stored; TLB_SIZE]>,
    /// What those of `stored` have that count.
    epoch: u64,
}

/// Where the entries for stores into a page of the host are.
#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    page: u64,
    index: u16,
    /// There are others, for this page or one that has the same place here.
    several: bool,
    epoch: u64,
}

impl Stored {
    /// Takes in one more, which has the same place here.
    fn note(&mut self, page: u64, index: u16, epoch: u64) {
        let others = self.epoch == epoch && (self.page, self.index) != (page, index);
        let several = self.epoch == epoch && self.several || others;
        *self = Self { page, index, several, epoch };
    }
}

fn stored_slot(page: u64) -> usize {
    (page >> 12) as usize % TLB_SIZE
}

impl Tlb {
    /// An empty one.
    #[must_use]
    pub fn new() -> Box<Self> {
        Box::new(Self {
            read: empty_entries(),
            write: empty_entries(),
            used: [Used::NONE; 2],
            large: NO_ADDRESSES,
            devices: [[NO_DEVICE; DEVICE_PAGES]; 2],
            // One that is made where another was must not be taken for it.
            lost: true,
            stored: Box::new([Stored::default(); TLB_SIZE]),
            epoch: 1,
        })
    }

    /// The entry that a linear address may be found in.
    #[inline(always)]
    #[must_use]
    pub fn index(linear: u64) -> usize {
        (linear >> 12) as usize % TLB_SIZE
    }

    /// Enters a page; `host` is an address in it.
    pub fn fill(&mut self, linear: u64, host: u64, write: bool, global: bool) {
        let addend = (host & !0xfff).wrapping_sub(linear & !0xfff);
        let entry = Entry { tag: tag_of(linear), addend };
        let index = Self::index(linear);
        let entries = if write { &mut self.write } else { &mut self.read };
        entries[index] = entry;
        if write {
            self.note_stored(host & !0xfff, index as u16);
        }
        self.used[usize::from(write)].note(index, global);
    }

    fn note_stored(&mut self, page: u64, index: u16) {
        self.stored[stored_slot(page)].note(page, index, self.epoch);
    }

    /// Enters a page of device registers; `gpa` is the guest-physical address of `linear`.
    pub fn fill_device(&mut self, linear: u64, gpa: u64, write: bool, global: bool) {
        let entry = DevicePage { tag: linear & !0xfff, gpa: gpa & !0xfff, global };
        self.devices[usize::from(write)][Self::index(linear) % DEVICE_PAGES] = entry;
    }

    /// The guest-physical address of a device register, if its page is here.
    #[must_use]
    pub fn device(&self, linear: u64, write: bool) -> Option<u64> {
        let entry = &self.devices[usize::from(write)][Self::index(linear) % DEVICE_PAGES];
        (entry.tag == linear & !0xfff).then_some(entry.gpa | linear & 0xfff)
    }

    /// Says that the page around `linear` is part of a larger one.
    pub fn note_large(&mut self, linear: u64, size: u64) {
        let start = linear & !(size - 1);
        self.large.start = self.large.start.min(start);
        self.large.end = self.large.end.max(start.saturating_add(size));
    }

    /// Drops all translations, or all that are not global.
    pub fn flush(&mut self, keep_global: bool) {
        let Self { read, write, used, large, devices, lost, epoch, .. } = self;
        *lost |= !used.iter().all(Used::is_empty);
        for entry in devices.iter_mut().flatten() {
            if !(keep_global && entry.global) {
                *entry = NO_DEVICE;
            }
        }
        if !keep_global {
            *large = NO_ADDRESSES;
        }
        for (entries, used) in [read, write].into_iter().zip(&mut *used) {
            used.drain(keep_global, |index| entries[index] = Entry::empty(index));
        }
        if used.iter().all(Used::is_empty) {
            *epoch += 1;
        }
    }

    /// Drops the translation of the page around `linear`: of the whole of it if it may be a large
    /// one, which is here in 4 KiB pieces.
    pub fn flush_page(&mut self, linear: u64) {
        if (self.large.start..self.large.end).contains(&linear) {
            return self.flush(false);
        }
        let index = Self::index(linear);
        self.read[index] = Entry::empty(index);
        self.write[index] = Entry::empty(index);
        self.lost = true;
        for entries in &mut self.devices {
            entries[index % DEVICE_PAGES] = NO_DEVICE;
        }
    }

    /// Drops write translations into the host's page around `host`.
    pub fn revoke_write(&mut self, host: u64) {
        let page = host & !0xfff;
        let slot = stored_slot(page);
        let Stored { page: known, index, several, epoch } = self.stored[slot];
        if epoch != self.epoch || !several && known != page {
            return;
        }
        self.lost = true;
        self.stored[slot] = Stored::default();
        let Self { write, used, stored, .. } = self;
        let mut revoke = |index: usize| {
            let entry = &mut write[index];
            if entry.host_page() == page {
                *entry = Entry::empty(index);
            }
            entry.host_page()
        };
        if !several {
            revoke(index.into());
            return;
        }
        // What is left has the record for itself.
        let [_, used] = used;
        for index in used.all() {
            let left = revoke(index);
            if stored_slot(left) == slot {
                stored[slot].note(left, index as u16, epoch);
            }
        }
    }

    /// Whether translations were dropped since the last call: whoever has copies must drop them.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Puts a one-time entry in place, for an access that is not plain RAM: `linear` is the
    /// access's first byte and `last` its last, which may be on another page. Gives what was there.
    pub fn lend(&mut self, linear: u64, last: u64, host: u64, write: bool) -> Entry {
        let entries = if write { &mut self.write } else { &mut self.read };
        let lent = Entry { tag: tag_of(last), addend: host.wrapping_sub(linear) };
        std::mem::replace(&mut entries[Self::index(linear)], lent)
    }

    /// Puts back what [`Self::lend`] gave.
    pub fn give_back(&mut self, linear: u64, write: bool, entry: Entry) {
        let entries = if write { &mut self.write } else { &mut self.read };
        entries[Self::index(linear)] = entry;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0xfee0_0000;

    #[test]
    fn an_empty_entry_has_no_address_that_is_looked_up_in_it() {
        for index in 0..TLB_SIZE {
            let entry = Entry::empty(index);
            for high in [0, 1 << 24, 1 << 46, 1 << 63, !0 << 47, !0 << 24] {
                let page = high | (index as u64) << 12;
                let lasts = [0, 0xfff, 0x1000, 0x103e].map(|past| page.wrapping_add(past));
                assert!(!lasts.iter().any(|&last| entry.has(last)), "{index}");
            }
        }
    }

    #[test]
    fn no_store_is_left_to_a_page_by_any_of_its_addresses() {
        let mut tlb = Tlb::new();
        let linear = [0x1000, 0x7000, 0xffff_8000_0000_3000];
        let host = 0x5555_0000_2000;
        let like_it = host + 0x1000 * TLB_SIZE as u64;
        let may = |tlb: &Tlb, linear: u64| tlb.write[Tlb::index(linear)].has(linear);
        for known in 1..=linear.len() {
            for _ in 0..2 {
                linear[..known].iter().for_each(|&at| tlb.fill(at, host, true, false));
                tlb.fill(0x9000, like_it, true, false);
                tlb.revoke_write(host);
                assert!(!linear.iter().any(|&at| may(&tlb, at)), "{known}");
                assert!(may(&tlb, 0x9000), "it is another page's");
                assert!(tlb.take_lost());
            }
            tlb.revoke_write(like_it);
            assert!(!may(&tlb, 0x9000), "it was known after the others had gone");
        }
    }

    #[test]
    fn device_pages_are_found_by_kind_of_access_until_they_are_flushed() {
        let mut tlb = Tlb::new();
        tlb.fill_device(PAGE | 0xb0, 0xfec0_00b0, false, false);
        assert_eq!(tlb.device(PAGE | 0x30, false), Some(0xfec0_0030));
        assert_eq!(tlb.device(PAGE, true), None, "a store must set the dirty flag first");
        assert_eq!(tlb.device(PAGE + 0x1000 * DEVICE_PAGES as u64, false), None);
        tlb.flush_page(PAGE | 0xfff);
        assert_eq!(tlb.device(PAGE, false), None);
    }

    #[test]
    fn a_flush_leaves_global_device_pages_if_told_to() {
        let mut tlb = Tlb::new();
        tlb.fill_device(PAGE, 0xfee0_0000, false, true);
        tlb.fill_device(PAGE + 0x1000, 0xfec0_0000, true, false);
        tlb.flush(true);
        assert_eq!(tlb.device(PAGE, false), Some(0xfee0_0000));
        assert_eq!(tlb.device(PAGE + 0x1000, true), None);
        tlb.flush(false);
        assert_eq!(tlb.device(PAGE, false), None);
    }

    #[test]
    fn a_large_device_page_is_flushed_whole() {
        let mut tlb = Tlb::new();
        tlb.fill_device(0xfee0_0000, 0xfee0_0000, false, false);
        tlb.note_large(0xfee0_0000, 2 << 20);
        tlb.flush_page(0xfeef_f000);
        assert_eq!(tlb.device(0xfee0_0000, false), None);
    }
}
