//! Tests of the page walker against the tables of Intel SDM vol. 3A, chapter 4.
//!
//! The expected rights are written out here a second time, as the sentences of 4.6.1 and 4.6.2
//! have them, and compared over every combination of mode, level, entries, access and control bits.

use super::*;
use crate::state::Control;
use trivium_memory::{FlatMap, Region, RegionKind};

const P: u64 = 1;
const RW: u64 = 2;
const US: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const XD: u64 = 1 << 63;

/// Tables are at 1000h (the top one), 2000h and so on; pages are at 4000_0000h, outside RAM.
const TOP: u64 = 0x1000;
const PAGE: u64 = 0x4000_0000;
const READ: Access = Access { write: false, fetch: false, user: false, ac: false };
const WRITE: Access = Access { write: true, ..READ };
const FETCH: Access = Access { fetch: true, ..READ };
const USER_READ: Access = Access { user: true, ..READ };
const USER_WRITE: Access = Access { user: true, ..WRITE };
const USER_FETCH: Access = Access { user: true, ..FETCH };

fn memory() -> GuestMemory {
    let memory = GuestMemory::new(0x2_0000, 1).unwrap();
    memory.set_map(FlatMap::new(&[
        Region::new(0, 0x1_0000, RegionKind::Ram { offset: 0 }),
        Region::new(0x1_0000, 0x1_0000, RegionKind::Rom { offset: 0x1_0000 }),
    ]));
    memory
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Legacy32,
    Pae,
    Level4,
    Level5,
}
use Mode::{Legacy32, Level4, Level5, Pae};

impl Mode {
    /// Bits of an index, and the number of levels in memory.
    fn shape(self) -> (u32, usize) {
        match self {
            Legacy32 => (10, 2),
            Pae => (9, 2),
            Level4 => (9, 4),
            Level5 => (9, 5),
        }
    }

    fn control(self, cr4: u64, efer: u64, wp: bool) -> Control {
        let (mode_cr4, mode_efer) = match self {
            Legacy32 => (0, 0),
            Pae => (cr4::PAE, 0),
            Level4 => (cr4::PAE, efer::LMA | efer::LME),
            Level5 => (cr4::PAE | cr4::LA57, efer::LMA | efer::LME),
        };
        Control {
            cr0: cr0::PG | cr0::PE | if wp { cr0::WP } else { 0 },
            cr3: TOP,
            cr4: mode_cr4 | cr4,
            efer: mode_efer | efer,
            pdptr: [TOP | P; 4],
            ..Control::default()
        }
    }

    /// The page sizes by the level of the entry that maps the page.
    fn page_levels(self) -> &'static [(usize, u64)] {
        match self {
            Legacy32 => &[(1, 1 << 12), (2, 1 << 22)],
            Pae => &[(1, 1 << 12), (2, 1 << 21)],
            Level4 | Level5 => &[(1, 1 << 12), (2, 1 << 21), (3, 1 << 30)],
        }
    }

    fn linear(self) -> u64 {
        match self {
            Legacy32 | Pae => 0x8765_4321,
            Level4 => 0x0000_1234_8765_4321,
            Level5 => 0x00ab_1234_8765_4321,
        }
    }
}

/// Address of the entry of `level` for the mode's linear address, in tables laid out from `TOP`.
fn entry_at(mode: Mode, level: usize) -> u64 {
    let (bits, levels) = mode.shape();
    let table = TOP + ((levels - level) as u64) * 0x1000;
    let index = mode.linear() >> (12 + bits as usize * (level - 1)) & ((1 << bits) - 1);
    table + index * if mode == Legacy32 { 4 } else { 8 }
}

fn store(memory: &GuestMemory, mode: Mode, level: usize, value: u64) {
    let at = entry_at(mode, level) as usize;
    match mode {
        Legacy32 => memory.ram().store(at, value as u32),
        _ => memory.ram().store(at, value),
    }
}

fn load(memory: &GuestMemory, mode: Mode, level: usize) -> u64 {
    let at = entry_at(mode, level) as usize;
    match mode {
        Legacy32 => u64::from(memory.ram().load::<u32>(at)),
        _ => memory.ram().load(at),
    }
}

/// Lays out tables down to `leaf_level`, each entry with its flags: `flags(level)`.
fn build(memory: &GuestMemory, mode: Mode, leaf_level: usize, flags: impl Fn(usize) -> u64) {
    let (_, levels) = mode.shape();
    for level in leaf_level..=levels {
        let next = TOP + ((levels - level + 1) as u64) * 0x1000;
        let value = match level == leaf_level {
            true if level > 1 => PAGE | PS,
            true => PAGE,
            false => next,
        };
        store(memory, mode, level, value | flags(level));
    }
}

fn paging(mode: Mode, cr4: u64, efer: u64, wp: bool) -> Paging {
    Paging::from_state(&mode.control(cr4 | cr4::PSE, efer, wp), 40)
}

fn code(result: Result<Translation, Exception>) -> Option<u32> {
    result.err().map(|e| e.error_code.unwrap())
}

/// Every subset of `bits`.
fn subsets(bits: &[u64]) -> impl Iterator<Item = u64> {
    (0..1_u32 << bits.len()).map(move |pick| {
        bits.iter().enumerate().filter(|(i, _)| pick >> i & 1 != 0).map(|(_, b)| b).sum()
    })
}

const MODES: [Mode; 4] = [Legacy32, Pae, Level4, Level5];
const ACCESSES: [Access; 8] = [
    READ,
    WRITE,
    FETCH,
    USER_READ,
    USER_WRITE,
    USER_FETCH,
    Access { ac: true, ..READ },
    Access { ac: true, ..WRITE },
];

#[test]
fn pages_of_every_size_are_found_in_every_mode() {
    for mode in MODES {
        for &(level, size) in mode.page_levels() {
            let memory = memory();
            build(&memory, mode, level, |_| P | RW | US);
            let found = walk(&paging(mode, 0, 0, true), &memory, mode.linear(), USER_READ);
            let expected = Translation {
                gpa: PAGE | mode.linear() & (size - 1),
                page_size: size,
                writable: false,
                user: true,
                executable: true,
                global: false,
                dirty: false,
            };
            assert_eq!(found, Ok(expected), "{mode:?} level {level}");
        }
    }
}

/// Whether an access is allowed: SDM vol. 3A, 4.6.1, sentence by sentence.
struct Rights {
    user_mode_address: bool,
    writable_in_all: bool,
    execute_disabled_in_any: bool,
    wp: bool,
    smep: bool,
    smap: bool,
    nxe: bool,
}

impl Rights {
    fn allow(&self, access: Access) -> bool {
        match (access.user, access.fetch, access.write, self.user_mode_address) {
            // "Data reads. ... Data may be read ... from any supervisor-mode address."
            (false, false, false, false) => true,
            // "... from any user-mode address": unless SMAP and EFLAGS.AC = 0.
            (false, false, false, true) => !self.smap || access.ac,
            // "Data writes to supervisor-mode addresses": with WP only with R/W in all entries.
            (false, false, true, false) => !self.wp || self.writable_in_all,
            (false, false, true, true) => {
                (!self.wp || self.writable_in_all) && (!self.smap || access.ac)
            }
            // "Instruction fetches from supervisor-mode addresses": XD if NXE.
            (false, true, _, false) => !(self.nxe && self.execute_disabled_in_any),
            // "from user-mode addresses": SMEP forbids.
            (false, true, _, true) => !(self.smep || self.nxe && self.execute_disabled_in_any),
            // "Accesses to supervisor-mode addresses [in user mode] are not allowed."
            (true, _, _, false) => false,
            (true, false, false, true) => true,
            (true, false, true, true) => self.writable_in_all,
            (true, true, _, true) => !(self.nxe && self.execute_disabled_in_any),
        }
    }
}

#[test]
fn access_rights_are_those_of_sdm_4_6_1() {
    let mut cases = 0;
    for mode in MODES {
        let (_, levels) = mode.shape();
        for &(leaf, _) in mode.page_levels() {
            for cr4 in subsets(&[cr4::SMEP, cr4::SMAP]) {
                for efer in if mode == Legacy32 { vec![0] } else { vec![0, efer::NXE] } {
                    for wp in [false, true] {
                        // One entry lacks what all others grant: the leaf, the top, or none.
                        for (odd, lacks) in [leaf, levels]
                            .into_iter()
                            .flat_map(|l| subsets(&[RW, US]).map(move |s| (l, s)))
                        {
                            for xd in if efer == 0 { vec![0] } else { vec![0, XD] } {
                                cases += check_rights(mode, leaf, (cr4, efer, wp), odd, lacks, xd);
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(cases > 5000, "{cases}");
}

fn check_rights(
    mode: Mode,
    leaf: usize,
    (cr4, efer, wp): (u64, u64, bool),
    odd: usize,
    lacks: u64,
    xd: u64,
) -> usize {
    let paging = paging(mode, cr4, efer, wp);
    let rights = Rights {
        user_mode_address: lacks & US == 0,
        writable_in_all: lacks & RW == 0,
        execute_disabled_in_any: xd != 0,
        wp,
        smep: cr4 & cr4::SMEP != 0,
        smap: cr4 & cr4::SMAP != 0,
        nxe: efer != 0,
    };
    let memory = memory();
    for access in ACCESSES {
        let flags = |level| P | if level == odd { (RW | US) & !lacks | xd } else { RW | US };
        build(&memory, mode, leaf, flags);
        let result = walk(&paging, &memory, mode.linear(), access);
        let what =
            format!("{mode:?} {leaf} {access:?} {cr4:#x} {efer:#x} {wp} {odd} {lacks} {xd:#x}");
        if rights.allow(access) {
            let found = result.expect(&what);
            let as_write = Access { write: true, fetch: false, ..access };
            let as_fetch = Access { write: false, fetch: true, ..access };
            assert_eq!(found.writable, access.write && rights.allow(as_write), "{what}");
            assert_eq!(found.executable, rights.allow(as_fetch), "{what}");
            assert_eq!(found.user, rights.user_mode_address, "{what}");
        } else {
            let mut expected = 1;
            expected |= if access.write { 2 } else { 0 };
            expected |= if access.user { 4 } else { 0 };
            expected |= if access.fetch && (rights.smep || rights.nxe) { 16 } else { 0 };
            assert_eq!(code(result), Some(expected), "{what}");
            assert_eq!(load(&memory, mode, leaf) & (A | D), 0, "{what}");
        }
    }
    ACCESSES.len()
}

#[test]
fn protection_keys_are_those_of_sdm_4_6_2() {
    let key = 5;
    let (access_disable, write_disable) = (1 << (2 * key), 2 << (2 * key));
    // (PKRU, WP, U/S, access, error code)
    let table = [
        (access_disable, true, US, USER_READ, Some(0x25)),
        (access_disable, true, US, READ, Some(0x21)),
        (access_disable, true, US, USER_FETCH, None),
        (access_disable, true, 0, READ, None),
        (access_disable, true, 0, USER_READ, Some(5)),
        (write_disable, true, US, USER_READ, None),
        (write_disable, true, US, USER_WRITE, Some(0x27)),
        (write_disable, true, US, WRITE, Some(0x23)),
        (write_disable, false, US, WRITE, None),
        (write_disable, false, US, USER_WRITE, Some(0x27)),
        (!(access_disable | write_disable), true, US, USER_WRITE, None),
    ];
    for mode in [Level4, Level5] {
        for &(leaf, _) in mode.page_levels() {
            for (pkru, wp, us, access, expected) in table {
                let memory = memory();
                build(&memory, mode, leaf, |level| {
                    P | RW | us | if level == leaf { key << 59 } else { 0 }
                });
                let mut paging = paging(mode, cr4::PKE, efer::NXE, wp);
                paging.pkru = pkru;
                let result = walk(&paging, &memory, mode.linear(), access);
                assert_eq!(code(result), expected, "{mode:?} {leaf} {pkru:#x} {access:?}");
                paging.pke = false;
                let result = walk(&paging, &memory, mode.linear(), access);
                let without = expected.filter(|c| c & 0x20 == 0);
                assert_eq!(code(result), without, "{mode:?} without CR4.PKE");
            }
        }
    }
    let control = Pae.control(cr4::PKE, 0, true);
    assert!(!Paging::from_state(&control, 40).pke, "keys are for 64-bit modes");
}

#[test]
fn an_entry_that_is_not_present_faults_without_p_at_every_level() {
    for mode in MODES {
        let (_, levels) = mode.shape();
        for absent in 1..=levels {
            let memory = memory();
            // All other bits are ignored, reserved ones too.
            build(&memory, mode, 1, |level| if level == absent { !P & 0xfff } else { P | RW | US });
            let paging = paging(mode, 0, 0, true);
            for (access, expected) in [(READ, 0), (WRITE, 2), (USER_READ, 4), (USER_WRITE, 6)] {
                let error = walk(&paging, &memory, mode.linear(), access).unwrap_err();
                assert_eq!(error, Exception::page_fault(expected, mode.linear()), "{mode:?}");
            }
            assert_eq!(code(walk(&paging, &memory, mode.linear(), FETCH)), Some(0));
        }
    }
    let control = Control { pdptr: [0; 4], ..Pae.control(0, 0, true) };
    let paging = Paging::from_state(&control, 40);
    assert_eq!(code(walk(&paging, &memory(), Pae.linear(), WRITE)), Some(2));
}

/// The reserved bits, as (lowest, highest), of a present entry with MAXPHYADDR 40: SDM vol. 3A, figures 4-4, 4-7, 4-11.
fn reserved(mode: Mode, level: usize, maps_page: bool, nxe: bool) -> Vec<(u32, u32)> {
    let mut ranges = match (mode, level, maps_page) {
        (Legacy32, 2, true) => return vec![(21, 21)], // 20:13 are address bits 39:32.
        (Legacy32, ..) => return vec![],
        (Pae, 2, true) => vec![(13, 20), (40, 62)],
        (Pae, ..) => vec![(40, 62)],
        (_, 2, true) => vec![(13, 20), (40, 51)],
        (_, 3, true) => vec![(13, 29), (40, 51)],
        (_, 4 | 5, _) => vec![(7, 7), (40, 51)],
        _ => vec![(40, 51)],
    };
    if !nxe {
        ranges.push((63, 63));
    }
    ranges
}

#[test]
fn reserved_bits_raise_rsvd_and_others_are_ignored() {
    for mode in MODES {
        let (_, levels) = mode.shape();
        for &(leaf, _) in mode.page_levels() {
            for (nxe, level) in
                [false, true].into_iter().flat_map(|n| (leaf..=levels).map(move |l| (n, l)))
            {
                let maps_page = level == leaf;
                let bits = 7..if mode == Legacy32 { 32 } else { 64 };
                // Other bits of a table's address lead elsewhere, and PS to a page.
                let harmless =
                    |bit: &u32| maps_page || !(12..40).contains(bit) && (*bit != 7 || level > 3);
                for bit in bits.filter(harmless) {
                    let memory = memory();
                    build(&memory, mode, leaf, |l| {
                        P | RW | US | if l == level { 1 << bit } else { 0 }
                    });
                    let efer = if nxe && mode != Legacy32 { efer::NXE } else { 0 };
                    let paging = paging(mode, 0, efer, true);
                    let is_reserved = reserved(mode, level, maps_page, nxe)
                        .iter()
                        .any(|r| (r.0..=r.1).contains(&bit));
                    for (access, code_of_access) in [(READ, 9), (USER_WRITE, 15)] {
                        let expected = is_reserved.then_some(code_of_access);
                        let result = walk(&paging, &memory, mode.linear(), access);
                        assert_eq!(
                            code(result),
                            expected,
                            "{mode:?} {leaf} {level} {nxe} bit {bit}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn pse_36_has_as_many_address_bits_as_the_cpu() {
    let memory = memory();
    build(&memory, Legacy32, 2, |_| P | RW | 0x0010_2000);
    let control = Legacy32.control(cr4::PSE, 0, true);
    let found = walk(&Paging::from_state(&control, 40), &memory, Legacy32.linear(), READ).unwrap();
    assert_eq!(found.gpa, 0x81_4000_0000 | Legacy32.linear() & 0x3f_ffff);
    assert_eq!(
        code(walk(&Paging::from_state(&control, 39), &memory, Legacy32.linear(), READ)),
        Some(9)
    );
    assert!(walk(&Paging::from_state(&control, 52), &memory, Legacy32.linear(), READ).is_ok());
    build(&memory, Legacy32, 2, |_| P | RW | 0x2000);
    assert_eq!(
        code(walk(&Paging::from_state(&control, 32), &memory, Legacy32.linear(), READ)),
        Some(9)
    );
}

#[test]
fn without_cr4_pse_bit_7_of_a_32_bit_pde_is_ignored() {
    let memory = memory();
    build(&memory, Legacy32, 1, |level| P | RW | if level == 2 { PS } else { 0 });
    let paging = Paging::from_state(&Legacy32.control(0, 0, true), 40);
    assert_eq!(walk(&paging, &memory, Legacy32.linear(), READ).unwrap().page_size, 4096);
}

#[test]
fn without_gigabyte_pages_ps_is_reserved_in_a_pdpte() {
    let memory = memory();
    build(&memory, Level4, 3, |_| P);
    let without = paging(Level4, 0, 0, true).without_gigabyte_pages();
    assert_eq!(code(walk(&without, &memory, Level4.linear(), READ)), Some(9));
}

#[test]
fn bit_8_of_a_pml4e_must_be_zero_on_amd_and_is_ignored_on_intel() {
    for mode in [Level4, Level5] {
        let memory = memory();
        build(&memory, mode, 1, |level| P | if level >= 4 { G } else { 0 });
        let intel = paging(mode, 0, 0, true);
        assert_eq!(code(walk(&intel, &memory, mode.linear(), READ)), None);
        assert_eq!(code(walk(&intel.of_amd(), &memory, mode.linear(), READ)), Some(9));
    }
}

#[test]
fn accessed_is_set_on_the_way_and_dirty_by_writes_in_the_last_entry() {
    for mode in MODES {
        let (_, levels) = mode.shape();
        for &(leaf, _) in mode.page_levels() {
            let memory = memory();
            build(&memory, mode, leaf, |_| P | RW);
            let paging = paging(mode, 0, 0, true);
            let _ = memory.dirty().take();
            let reader = memory.code().add_reader();
            memory.code().mark(entry_at(mode, leaf) as usize, 4);
            let read = |level| load(&memory, mode, level) & (A | D);

            assert!(!probe(&paging, &memory, mode.linear(), WRITE).unwrap().writable);
            assert!((leaf..=levels).all(|level| read(level) == 0), "a probe leaves no trace");
            assert!(!walk(&paging, &memory, mode.linear(), READ).unwrap().dirty);
            assert!((leaf..=levels).all(|level| read(level) == A), "{mode:?} {leaf}");
            assert_eq!(memory.dirty().take().len(), levels - leaf + 1, "the tables were written");
            assert!(memory.code().any_written(&reader), "decoded code must go");

            let found = walk(&paging, &memory, mode.linear(), WRITE).unwrap();
            assert!(found.dirty && found.writable);
            assert!((leaf + 1..=levels).all(|level| read(level) == A), "{mode:?} {leaf}");
            assert_eq!(read(leaf), A | D, "{mode:?} {leaf}");
            let found = walk(&paging, &memory, mode.linear(), READ).unwrap();
            assert!(found.dirty && found.writable, "a read may fill a write translation now");
            let _ = memory.dirty().take();
            walk(&paging, &memory, mode.linear(), WRITE).unwrap();
            assert!(memory.dirty().take().is_empty(), "nothing is written without need");
        }
    }
}

#[test]
fn global_counts_in_the_last_entry_and_with_cr4_pge() {
    for mode in MODES {
        for &(leaf, _) in mode.page_levels() {
            for (at_leaf, pge) in [(true, true), (true, false), (false, true)] {
                let memory = memory();
                build(&memory, mode, leaf, |l| P | if (l == leaf) == at_leaf { G } else { 0 });
                let paging = paging(mode, if pge { cr4::PGE } else { 0 }, 0, true);
                let found = walk(&paging, &memory, mode.linear(), READ).unwrap();
                assert_eq!(found.global, at_leaf && pge, "{mode:?} {leaf}");
            }
        }
    }
}

#[test]
fn tables_outside_ram_read_as_ones_and_tables_in_rom_keep_their_flags() {
    let control = Control { cr3: 0x10_0000, ..Level4.control(0, efer::NXE, true) };
    let paging = Paging::from_state(&control, 40);
    assert_eq!(code(walk(&paging, &memory(), 0, READ)), Some(9), "bits 51:40 are reserved");
    let memory = memory();
    for level in 0..4 {
        let next = if level == 3 { PAGE } else { 0x1_1000 + level * 0x1000 };
        memory.write_arena(0x1_0000 + level as usize * 0x1000, &(next | P | RW).to_le_bytes());
    }
    let paging = Paging { cr3: 0x1_0000, ..paging };
    let found = walk(&paging, &memory, 0x123, WRITE).unwrap();
    assert_eq!((found.gpa, found.dirty), (PAGE | 0x123, true));
    assert_eq!(memory.ram().load::<u64>(0x1_0000), 0x1_1003);
}

#[test]
fn pcid_and_the_flags_of_cr3_are_no_part_of_the_address() {
    let memory = memory();
    build(&memory, Level4, 1, |_| P);
    let control = Control { cr3: TOP | 0xfff, ..Level4.control(cr4::PCIDE, 0, true) };
    assert!(walk(&Paging::from_state(&control, 40), &memory, Level4.linear(), READ).is_ok());
}

#[test]
fn pdptes_are_checked_when_loaded() {
    let memory = memory();
    // SDM vol. 3A, table 4-8: bits 2:1, 8:5 and 63:MAXPHYADDR are reserved if P is set.
    let reserved = [1, 2, 5, 6, 7, 8, 40, 52, 63];
    let free = [3, 4, 9, 11, 12, 39];
    for bit in 1..64 {
        for (slot, present) in [(0, true), (3, true), (2, false)] {
            let value = 1 << bit | u64::from(present);
            memory.ram().fill(0x1000, 0x100, 0);
            memory.ram().store(0x1020 + slot * 8, value);
            let loaded = load_pdptrs(&memory, 0x103f, 40);
            let bad = reserved.contains(&bit) || bit > 40;
            assert!(bad || free.contains(&bit) || (12..40).contains(&bit) || bit == 10);
            if bad && present {
                assert_eq!(loaded, Err(Exception::gp(0)), "bit {bit}");
            } else {
                assert_eq!(loaded.unwrap()[slot], value, "bit {bit}");
            }
        }
    }
}

#[test]
fn without_paging_addresses_are_physical_and_of_32_bits() {
    let paging = Paging::from_state(&Control::default(), 40);
    let found = walk(&paging, &memory(), 0x1_2345_6789, USER_WRITE).unwrap();
    assert_eq!(found.gpa, 0x2345_6789);
    assert!(found.writable && found.user && found.executable && !found.global);
}

#[test]
fn canonical_addresses_repeat_their_highest_bit() {
    for (linear, with_48, with_57) in [
        (0, true, true),
        (0x0000_7fff_ffff_ffff, true, true),
        (0x0000_8000_0000_0000, false, true),
        (0xffff_8000_0000_0000, true, true),
        (0xffff_7fff_ffff_ffff, false, true),
        (0x00ff_ffff_ffff_ffff, false, true),
        (0x0100_0000_0000_0000, false, false),
        (0xff00_0000_0000_0000, false, true),
        (0xfeff_ffff_ffff_ffff, false, false),
        (u64::MAX, true, true),
    ] {
        assert_eq!(is_canonical(linear, false), with_48, "{linear:#x}");
        assert_eq!(is_canonical(linear, true), with_57, "{linear:#x}");
    }
}

#[test]
fn a_closed_a20_gate_and_a_new_map_reach_the_view() {
    let memory = memory();
    let mut view = MemoryView::new(&memory);
    assert!(!view.refresh(&memory));
    assert_eq!(view.lookup(0x10_1000), Backing::Nothing);
    memory.set_a20(false);
    assert!(view.refresh(&memory));
    assert_eq!(view.lookup(0x10_1000), Backing::Ram(0x1000));
    memory.set_map(FlatMap::default());
    assert!(view.refresh(&memory));
    assert_eq!(view.lookup(0x1000), Backing::Nothing);
}

/// Two processors that set flags in the same entries lose none of them.
#[test]
fn flags_set_by_two_processors_at_once_are_both_kept() {
    let memory = memory();
    let paging = paging(Level4, 0, 0, true);
    for _ in 0..200 {
        build(&memory, Level4, 1, |_| P | RW);
        std::thread::scope(|scope| {
            for access in [READ, WRITE] {
                let (memory, paging) = (&memory, &paging);
                scope.spawn(move || walk(paging, memory, Level4.linear(), access).unwrap());
            }
        });
        assert_eq!(load(&memory, Level4, 1) & (A | D), A | D);
        assert!((2..=4).all(|level| load(&memory, Level4, level) & A != 0));
    }
}
