//! Process-context identifiers: the translations of several address spaces side by side.
//!
//! Intel SDM vol. 3A, 4.10.1 and 4.10.4. Those of the present PCID are where handlers look; those of
//! some others are put aside with the number that ways between their blocks hold for.

use trivium_cpu::bits::cr4;

use crate::block::{CodePages, Left, Reach};
use crate::cpu::{Cpu, Space};
use crate::tlb::Tlb;

/// The PCID in CR3.
pub(crate) const PCID: u64 = 0xfff;
/// How many are put aside at most. Linux uses six at a time.
const MOST: usize = 7;

/// The TLBs of one PCID, by [`Space`].
pub(crate) type Tlbs = [Option<Box<Tlb>>; 4];

/// Empty ones for every space that keeps translations but for the one that is to be in use.
pub(crate) fn tlbs_beside(present: Space) -> Tlbs {
    let spaces = [Space::Supervisor, Space::SupervisorAc, Space::User];
    let mut tlbs = [const { None }; 4];
    for space in spaces.into_iter().filter(|&space| space != present) {
        tlbs[space as usize] = Some(Tlb::new());
    }
    tlbs
}

/// A PCID whose translations are put aside.
struct Aside {
    pcid: u16,
    tlbs: Tlbs,
    /// The generations of [`Reach::Any`]; zero if nothing holds any more.
    generation: Left,
    /// Where its code is, but for that on global pages.
    code_pages: CodePages,
    /// No translation holds; they are emptied when they are to be used again, which most never are.
    is_void: bool,
}

impl Aside {
    fn new(pcid: u16, tlbs: Tlbs) -> Self {
        let code_pages = CodePages::default();
        Self { pcid, tlbs, generation: Left::default(), code_pages, is_void: false }
    }

    fn flush(&mut self, keep_global: bool) {
        self.void_ways();
        self.is_void |= !keep_global;
        if !self.is_void {
            self.flush_each(keep_global);
        }
    }

    fn void_ways(&mut self) {
        self.generation = Left::default();
        self.code_pages.forget();
    }

    fn flush_each(&mut self, keep_global: bool) {
        for tlb in self.tlbs.iter_mut().flatten() {
            tlb.flush(keep_global);
        }
    }

    /// Makes it fit for use.
    fn settled(mut self) -> Self {
        if std::mem::take(&mut self.is_void) {
            self.flush_each(false);
        }
        self
    }

    fn flush_page(&mut self, linear: u64) {
        if self.code_pages.has(linear) {
            self.void_ways();
        }
        if self.is_void {
            return;
        }
        for tlb in self.tlbs.iter_mut().flatten() {
            tlb.flush_page(linear);
        }
    }
}

/// The PCIDs whose translations are there.
#[derive(Default)]
pub(crate) struct Contexts {
    present: u16,
    /// The one used last is the last.
    aside: Vec<Aside>,
}

impl Contexts {
    /// The TLBs of a PCID, which are not aside any more.
    fn take(&mut self, pcid: u16, space: Space) -> Aside {
        if let Some(found) = self.aside.iter().position(|aside| aside.pcid == pcid) {
            return self.aside.remove(found).settled();
        }
        if self.aside.len() < MOST {
            let mut tlbs = tlbs_beside(space);
            tlbs[space as usize] = Some(Tlb::new());
            return Aside::new(pcid, tlbs);
        }
        let mut oldest = self.aside.remove(0);
        oldest.flush(false);
        Aside { pcid, ..oldest.settled() }
    }

    /// Those of a PCID that is aside.
    fn find(&mut self, pcid: u16) -> Option<&mut Aside> {
        self.aside.iter_mut().find(|aside| aside.pcid == pcid)
    }
}

impl Cpu {
    /// Goes over to the address space of a PCID; `keep` says whether the translations that it has
    /// left behind still hold. Global ones always do.
    pub(crate) fn enter_pcid(&mut self, pcid: u16, keep: bool) {
        if pcid != self.contexts.present {
            let mut entered = self.contexts.take(pcid, self.space);
            let tlb = entered.tlbs[self.space as usize].take().unwrap_or_else(Tlb::new);
            let left = std::mem::replace(&mut self.tlb, tlb);
            self.tlbs[self.space as usize] = Some(left);
            let tlbs = std::mem::replace(&mut self.tlbs, entered.tlbs);
            let generation = self.generations.exchange(entered.generation);
            let code_pages = std::mem::replace(&mut self.code_pages, entered.code_pages);
            let pcid = std::mem::replace(&mut self.contexts.present, pcid);
            let left = Aside { pcid, tlbs, generation, code_pages, is_void: false };
            self.contexts.aside.push(left);
        }
        if !keep {
            self.flush_present(true);
        }
    }

    /// Drops the translations of the present address space; `keep_global` spares those of global
    /// pages.
    pub(crate) fn flush_present(&mut self, keep_global: bool) {
        self.tlb.flush(keep_global);
        for tlb in self.tlbs.iter_mut().flatten() {
            tlb.flush(keep_global);
        }
        self.void_ways(if keep_global { Reach::Any } else { Reach::Global });
    }

    fn void_ways(&mut self, reach: Reach) {
        self.generations.void(reach);
        self.code_pages.forget();
        if reach == Reach::Global {
            self.global_code_pages.forget();
        }
    }

    /// Where code was found whose translations are of this reach.
    pub(crate) fn code_pages_of(&mut self, reach: Reach) -> &mut CodePages {
        if reach == Reach::Global { &mut self.global_code_pages } else { &mut self.code_pages }
    }

    /// Drops translations in all address spaces; `keep_global` spares those of global pages.
    pub fn flush_tlb(&mut self, keep_global: bool) {
        self.flush_present(keep_global);
        for aside in &mut self.contexts.aside {
            aside.flush(keep_global);
        }
        if !keep_global {
            // Nothing is there that could belong to another one.
            let has_pcids = self.control.cr4 & cr4::PCIDE != 0;
            let present = if has_pcids { (self.control.cr3 & PCID) as u16 } else { 0 };
            let was = std::mem::replace(&mut self.contexts.present, present);
            if let Some(aside) = self.contexts.find(present) {
                aside.pcid = was;
            }
        }
    }

    /// Drops the translations of one page, in every address space: it may be a global one.
    pub fn flush_page(&mut self, linear: u64) {
        self.flush_page_of_present(linear);
        for aside in &mut self.contexts.aside {
            aside.flush_page(linear);
        }
    }

    fn flush_page_of_present(&mut self, linear: u64) {
        self.tlb.flush_page(linear);
        for tlb in self.tlbs.iter_mut().flatten() {
            tlb.flush_page(linear);
        }
        if is_high(linear) && self.global_code_pages.has(linear) {
            self.void_ways(Reach::Global);
        } else if self.code_pages.has(linear) {
            self.void_ways(Reach::Any);
        }
    }

    /// Drops the translations of one page for a PCID.
    pub(crate) fn flush_page_of(&mut self, pcid: u16, linear: u64) {
        if pcid == self.contexts.present {
            self.flush_page_of_present(linear);
        } else if let Some(aside) = self.contexts.find(pcid) {
            aside.flush_page(linear);
        }
    }

    /// Drops the translations of a PCID but those of global pages.
    pub(crate) fn flush_pcid(&mut self, pcid: u16) {
        if pcid == self.contexts.present {
            self.flush_present(true);
        } else if let Some(aside) = self.contexts.find(pcid) {
            aside.flush(true);
        }
    }

    /// Drops write translations into the arena page at `offset`, which holds code now.
    pub(crate) fn revoke_write(&mut self, offset: usize) {
        let host = self.ram.base_address().wrapping_add(offset as u64);
        self.tlb.revoke_write(host);
        let aside = self.contexts.aside.iter_mut().flat_map(|aside| &mut aside.tlbs);
        for tlb in self.tlbs.iter_mut().chain(aside).flatten() {
            tlb.revoke_write(host);
        }
    }

    /// What may change the translation of a code address, if its page is global or not.
    pub(crate) fn reach(linear: u64, global: bool) -> Reach {
        if global && is_high(linear) { Reach::Global } else { Reach::Any }
    }
}

/// Whether an address is in the half of the address space where kernels have their global pages.
/// Dropping the translation of a page in the other half leaves ways between those as they are.
fn is_high(linear: u64) -> bool {
    linear >> 63 != 0 || linear >> 31 == 1
}

#[cfg(test)]
#[path = "pcid_tests.rs"]
mod tests;
