//! Segments: the local descriptor table of generated cases, and selectors worth loading.

use super::random::Rng;
use crate::case::LdtEntry;
use crate::layout::{CODE, DATA, LDT_ENTRIES, OPEN_CODE, STACK, selector};

/// Numbers of ES, CS, SS, DS, FS, GS, as instructions number them.
pub(super) const ES: usize = 0;
pub(super) const CS: usize = 1;
pub(super) const SS: usize = 2;
pub(super) const DS: usize = 3;
pub(super) const FS: usize = 4;
pub(super) const GS: usize = 5;

/// The prefix that selects each of them.
pub(super) const OVERRIDES: [u8; 6] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

/// Entries of the table, by what they are.
pub(super) mod entry {
    pub const CODE16: u16 = 0;
    pub const OPEN_CODE16: u16 = 1;
    pub const CODE32: u16 = 2;
    /// May not be read.
    pub const EXECUTE_ONLY: u16 = 3;
    pub const DATA16: u16 = 4;
    pub const STACK16: u16 = 5;
    /// Each case may have its own here.
    pub const OWN: u16 = 6;
    pub const EXPAND_DOWN16: u16 = 7;
    pub const EXPAND_DOWN32: u16 = 8;
    pub const READ_ONLY: u16 = 9;
    pub const PAGES: u16 = 12;
    /// Its base is odd.
    pub const ODD: u16 = 13;
    pub const STACK32: u16 = 14;
}

const fn data(base: u64, limit: u32) -> LdtEntry {
    let base = base as u32;
    let (pages, code, open, expand_down, big, present) = (false, false, true, false, false, true);
    LdtEntry { base, limit, pages, code, open, expand_down, big, present }
}

const fn code(base: u64, limit: u32) -> LdtEntry {
    LdtEntry { code: true, ..data(base, limit) }
}

/// The table: what has no name can only be tried to be loaded. The last entry is empty.
const TABLE: [LdtEntry; LDT_ENTRIES - 1] = [
    code(CODE.start, 0x1fff),
    code(OPEN_CODE.start, 0x1fff),
    LdtEntry { big: true, ..code(CODE.start, 0x1fff) },
    LdtEntry { big: true, pages: true, open: false, ..code(0, 0xf_ffff) },
    data(DATA.start, 0xffff),
    data(STACK.start, 0x1fff),
    data(DATA.start, 0x7f),
    LdtEntry { expand_down: true, ..data(DATA.start, 0xfff) },
    LdtEntry { expand_down: true, big: true, pages: true, ..data(DATA.start, 1) },
    LdtEntry { open: false, ..data(DATA.start, 0xffff) },
    LdtEntry { present: false, ..data(DATA.start, 0xffff) },
    LdtEntry { present: false, ..code(CODE.start, 0x1fff) },
    LdtEntry { pages: true, big: true, ..data(DATA.start, 3) },
    LdtEntry { big: true, ..data(DATA.start + 3, 0xf_ffff) },
    LdtEntry { big: true, ..data(STACK.start, 0x1fff) },
];

/// Limits of the entry that each case may choose.
const LIMITS: [u32; 8] = [0, 1, 7, 0x7f, 0xfff, 0x1003, 0x3fff, 0x4fff];

/// The table of a case.
pub(super) fn table() -> Vec<Option<LdtEntry>> {
    TABLE.iter().copied().map(Some).collect()
}

/// An entry of a case's own: a data segment with a limit near its data.
pub(super) fn own(rng: &mut Rng) -> LdtEntry {
    let base = DATA.start + rng.pick(&[0, 0, 1, 0x10, 0xff8]);
    LdtEntry { big: rng.percent(50), ..data(base, rng.pick(&LIMITS)) }
}

/// A selector that an instruction may try to load: any that a case can know of.
pub(super) fn any_selector(rng: &mut Rng, ldt: bool) -> u16 {
    let flat = [selector::CODE32, selector::DATA, selector::DATA, selector::CODE64];
    match rng.below(20) {
        0..=2 => rng.below(4) as u16,
        3..=8 => rng.pick(&flat),
        // Another privilege level.
        9 => rng.pick(&flat) & !3 | rng.below(4) as u16,
        // The supervisor's.
        10 => rng.pick(&[0x08, 0x10, 0x18, 0x40, 0x50]) | rng.below(4) as u16,
        // Beyond the table.
        11 => 0xff80 | rng.below(128) as u16,
        _ if ldt => {
            let local = selector::local(rng.below(LDT_ENTRIES as u64 + 1) as u16);
            if rng.percent(90) { local } else { local & !3 | rng.below(4) as u16 }
        }
        _ => selector::DATA,
    }
}

/// Selectors that a data segment register may hold when a case begins.
pub(super) const LOADABLE: [u16; 9] = [
    entry::DATA16,
    entry::OWN,
    entry::EXPAND_DOWN16,
    entry::EXPAND_DOWN32,
    entry::READ_ONLY,
    entry::PAGES,
    entry::ODD,
    entry::STACK32,
    entry::CODE32,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_what_their_names_say() {
        let at = |n: u16| TABLE[usize::from(n)];
        assert!(at(entry::CODE16).code && !at(entry::CODE16).big);
        assert!(at(entry::OPEN_CODE16).code && at(entry::CODE32).big && at(entry::CODE32).code);
        assert!(!at(entry::DATA16).code && at(entry::STACK16).base == STACK.start as u32);
        assert!(at(entry::EXPAND_DOWN16).expand_down && at(entry::EXPAND_DOWN32).expand_down);
        assert!(!at(entry::READ_ONLY).open && at(entry::PAGES).pages);
        assert!(!at(3).open && at(3).code && !at(10).present && !at(11).present);
        assert!(at(entry::ODD).base & 1 == 1 && at(entry::STACK32).big);
        assert!(LOADABLE.iter().all(|&n| at(n).present && (at(n).open || !at(n).code)));
    }
}
