//! Where the state is in the save area of SMRAM.
//!
//! Offsets count from SMBASE. Three layouts: that of 32-bit processors (Intel SDM vol. 3C, table
//! 32-1; the places of what that leaves reserved are the Pentium's, as sandpile.org has them), that
//! of Intel 64 (table 32-3; the segments' bases, limits and attributes, for which it names no
//! place, are at the area's start), and that of AMD64 (APM vol. 2, table 10-1).

use trivium_cpu::model::{CpuModel, Feature, Vendor};

/// What a place of the save area holds. Segments by their number in instructions, then LDTR and TR;
/// tables: 0 is GDTR, 1 IDTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Reg(u8),
    Rip,
    Rflags,
    Cr0,
    Cr3,
    Cr4,
    Efer,
    Dr6,
    Dr7,
    Selector(usize),
    Base(usize),
    Limit(usize),
    Attributes(usize),
    /// As in the second double word of a descriptor.
    AttributesInPlace(usize),
    TableBase(usize),
    TableBaseUpper(usize),
    TableLimit(usize),
    Cpl,
    NmiMasked,
    AutoHalt,
    IoRestart,
    Revision,
    Smbase,
}

/// A place in the save area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub at: u16,
    /// In bytes.
    pub size: u8,
    pub field: Field,
}

/// A layout.
pub(super) struct Layout {
    /// The SMM revision identifier: SMBASE can be relocated (bit 17), I/O instructions are not
    /// restarted (bit 16).
    pub revision: u32,
    parts: &'static [&'static [Entry]],
}

impl Layout {
    /// All places, lower halves of divided values before upper ones.
    pub fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        self.parts.iter().copied().flatten()
    }
}

/// The layout of a model.
pub(super) fn of(model: &CpuModel) -> &'static Layout {
    match (model.has(Feature::Lm), model.vendor) {
        (false, _) => &LEGACY,
        (true, Vendor::Intel) => &INTEL64,
        (true, Vendor::Amd) => &AMD64,
    }
}

const LDTR: usize = 6;
const TR: usize = 7;

const fn e(at: u16, size: u8, field: Field) -> Entry {
    Entry { at, size, field }
}

/// General registers from number `from` on, of `size` bytes, at ascending or descending offsets.
const fn regs<const N: usize>(at: u16, size: u8, from: u8, ascending: bool) -> [Entry; N] {
    let mut entries = [e(at, size, Field::Reg(from)); N];
    let mut n = 1;
    while n < N {
        let distance = n as u16 * size as u16;
        let at = if ascending { at + distance } else { at - distance };
        entries[n] = e(at, size, Field::Reg(from + n as u8));
        n += 1;
    }
    entries
}

/// Selector, attributes, limit and base of a segment in the AMD64 layout.
const fn amd_segment(at: u16, n: usize) -> [Entry; 4] {
    [
        e(at, 2, Field::Selector(n)),
        e(at + 2, 2, Field::Attributes(n)),
        e(at + 4, 4, Field::Limit(n)),
        e(at + 8, 8, Field::Base(n)),
    ]
}

const AMD64: Layout = Layout {
    revision: 0x0002_0064,
    parts: &[
        &amd_segment(0xfe00, 0),
        &amd_segment(0xfe10, 1),
        &amd_segment(0xfe20, 2),
        &amd_segment(0xfe30, 3),
        &amd_segment(0xfe40, 4),
        &amd_segment(0xfe50, 5),
        &amd_segment(0xfe70, LDTR),
        &amd_segment(0xfe90, TR),
        &[
            e(0xfe64, 4, Field::TableLimit(0)),
            e(0xfe68, 8, Field::TableBase(0)),
            e(0xfe84, 4, Field::TableLimit(1)),
            e(0xfe88, 8, Field::TableBase(1)),
            e(0xfec8, 1, Field::IoRestart),
            e(0xfec9, 1, Field::AutoHalt),
            e(0xfeca, 1, Field::NmiMasked),
            e(0xfecb, 1, Field::Cpl),
            e(0xfed0, 8, Field::Efer),
            e(0xfefc, 4, Field::Revision),
            e(0xff00, 4, Field::Smbase),
            e(0xff48, 8, Field::Cr4),
            e(0xff50, 8, Field::Cr3),
            e(0xff58, 8, Field::Cr0),
            e(0xff60, 8, Field::Dr7),
            e(0xff68, 8, Field::Dr6),
            e(0xff70, 8, Field::Rflags),
            e(0xff78, 8, Field::Rip),
        ],
        &regs::<16>(0xfff8, 8, 0, false),
    ],
};

/// Limit, base and attributes of a segment in the Pentium's layout.
const fn pentium_segment(at: u16, n: usize) -> [Entry; 3] {
    [
        e(at, 4, Field::Limit(n)),
        e(at + 4, 4, Field::Base(n)),
        e(at + 8, 4, Field::AttributesInPlace(n)),
    ]
}

/// Selectors of ES to GS, LDTR and TR, 4 bytes each.
const fn selectors(at: u16) -> [Entry; 8] {
    let mut entries = [e(at, 4, Field::Selector(0)); 8];
    let mut n = 1;
    while n < 8 {
        entries[n] = e(at + 4 * n as u16, 4, Field::Selector(n));
        n += 1;
    }
    entries
}

const LEGACY: Layout = Layout {
    revision: 0x0002_0000,
    parts: &[
        &[
            e(0xfef8, 4, Field::Smbase),
            e(0xfefc, 4, Field::Revision),
            e(0xff00, 2, Field::IoRestart),
            e(0xff02, 2, Field::AutoHalt),
            e(0xff1e, 1, Field::NmiMasked),
            e(0xff20, 1, Field::Cpl),
            e(0xff28, 4, Field::Cr4),
        ],
        &pentium_segment(0xff30, 0),
        &pentium_segment(0xff3c, 1),
        &pentium_segment(0xff48, 2),
        &pentium_segment(0xff54, 3),
        &pentium_segment(0xff60, 4),
        &pentium_segment(0xff6c, 5),
        &pentium_segment(0xff78, LDTR),
        &[
            e(0xff84, 4, Field::TableLimit(0)),
            e(0xff88, 4, Field::TableBase(0)),
            e(0xff90, 4, Field::TableLimit(1)),
            e(0xff94, 4, Field::TableBase(1)),
        ],
        &pentium_segment(0xff9c, TR),
        &selectors(0xffa8),
        &[e(0xffc8, 4, Field::Dr7), e(0xffcc, 4, Field::Dr6)],
        &regs::<8>(0xffd0, 4, 0, true),
        &[
            e(0xfff0, 4, Field::Rip),
            e(0xfff4, 4, Field::Rflags),
            e(0xfff8, 4, Field::Cr3),
            e(0xfffc, 4, Field::Cr0),
        ],
    ],
};

/// Base, limit and attributes of a segment in the Intel 64 layout.
const fn intel_segment(n: usize) -> [Entry; 3] {
    let at = 0xfc00 + 16 * n as u16;
    [e(at, 8, Field::Base(n)), e(at + 8, 4, Field::Limit(n)), e(at + 12, 2, Field::Attributes(n))]
}

const INTEL64: Layout = Layout {
    revision: 0x0002_0101,
    parts: &[
        &intel_segment(0),
        &intel_segment(1),
        &intel_segment(2),
        &intel_segment(3),
        &intel_segment(4),
        &intel_segment(5),
        &intel_segment(LDTR),
        &intel_segment(TR),
        &[
            e(0xfc80, 2, Field::TableLimit(0)),
            e(0xfc82, 2, Field::TableLimit(1)),
            e(0xfc84, 1, Field::Cpl),
            e(0xfc85, 1, Field::NmiMasked),
            e(0xfe8c, 4, Field::TableBase(0)),
            e(0xfe94, 4, Field::TableBase(1)),
            e(0xfdd0, 4, Field::TableBaseUpper(0)),
            e(0xfdd8, 4, Field::TableBaseUpper(1)),
            e(0xfe40, 4, Field::Cr4),
            e(0xfef8, 4, Field::Smbase),
            e(0xfefc, 4, Field::Revision),
            e(0xff00, 2, Field::IoRestart),
            e(0xff02, 2, Field::AutoHalt),
        ],
        &regs::<8>(0xff54, 8, 8, false),
        &regs::<8>(0xff5c, 8, 0, true),
        &selectors(0xffa8),
        &[
            e(0xffc8, 8, Field::Dr7),
            e(0xffd0, 8, Field::Dr6),
            e(0xffd8, 8, Field::Rip),
            e(0xffe0, 8, Field::Efer),
            e(0xffe8, 8, Field::Rflags),
            e(0xfff0, 8, Field::Cr3),
            e(0xfff8, 8, Field::Cr0),
        ],
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_of_a_layout_overlap() {
        for layout in [&AMD64, &LEGACY, &INTEL64] {
            let mut places: Vec<_> = layout.entries().map(|e| (e.at, u16::from(e.size))).collect();
            places.sort_unstable();
            for pair in places.windows(2) {
                assert!(pair[0].0 + (pair[0].1 - 1) < pair[1].0, "{pair:x?}");
            }
        }
    }

    /// The registers are where the manuals' tables have them.
    #[test]
    fn offsets_are_those_of_the_manuals() {
        let at = |layout: &Layout, field| layout.entries().find(|e| e.field == field).map(|e| e.at);
        let cases = [
            (&AMD64, Field::Reg(0), 0xfff8),
            (&AMD64, Field::Reg(4), 0xffd8),
            (&AMD64, Field::Reg(7), 0xffc0),
            (&AMD64, Field::Reg(15), 0xff80),
            (&LEGACY, Field::Reg(7), 0xffec),
            (&LEGACY, Field::Selector(1), 0xffac),
            (&LEGACY, Field::Selector(TR), 0xffc4),
            (&INTEL64, Field::Reg(0), 0xff5c),
            (&INTEL64, Field::Reg(7), 0xff94),
            (&INTEL64, Field::Reg(15), 0xff1c),
            (&INTEL64, Field::Selector(0), 0xffa8),
        ];
        for (layout, field, expected) in cases {
            assert_eq!(at(layout, field), Some(expected), "{field:?}");
        }
    }
}
