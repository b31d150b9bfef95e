//! The model of paging, held against sentences of Intel SDM vol. 3A, chapter 4.

use super::*;

const P_BIT: u64 = 1;
const RW_BIT: u64 = 2;
const US_BIT: u64 = 4;
const PS_BIT: u64 = 0x80;
const ALL: u64 = P_BIT | RW_BIT | US_BIT;

/// Four-level paging with everything on; the supervisor asks.
fn processor() -> Processor {
    Processor {
        features: Features { vendor: Vendor::Intel, max_physical: 40, pse36: true, page1gb: true },
        registers: Registers {
            cr0: 1 << CR0_PG | 1 << CR0_WP,
            cr3: 0x1000,
            cr4: 1 << CR4_PAE | 1 << CR4_PSE,
            efer: 1 << EFER_LMA | 1 << EFER_NXE,
            ac: false,
            cpl: 0,
            pdpte: [0x2001; 4],
        },
    }
}

fn with(change: impl FnOnce(&mut Processor)) -> Processor {
    let mut processor = processor();
    change(&mut processor);
    processor
}

fn user() -> Processor {
    with(|p| p.registers.cpl = 3)
}

fn bits32() -> Processor {
    with(|p| (p.registers.cr4, p.registers.efer) = (1 << CR4_PSE, 0))
}

fn pae() -> Processor {
    with(|p| p.registers.efer = 1 << EFER_NXE)
}

/// Memory with these entries, and nothing else.
fn memory<const N: usize>(entries: [(u64, u64); N]) -> impl Fn(u64, u64) -> u64 {
    move |at, _| entries.iter().find(|(address, _)| *address == at).map_or(0, |(_, entry)| *entry)
}

const READ: Access = Access { linear: 0x1234, kind: Kind::Read, implicit: false };
const WRITE: Access = Access { kind: Kind::Write, ..READ };
const FETCH: Access = Access { kind: Kind::Fetch, ..READ };

/// Walks four levels whose entries have these flags.
fn four(processor: Processor, access: Access, flags: [u64; 4]) -> Result<Translation, PageFault> {
    let [a, b, c, d] = flags;
    let entries =
        [(0x1000, 0x2000 | a), (0x2000, 0x3000 | b), (0x3000, 0x4000 | c), (0x4008, 0x5000 | d)];
    processor.translate(access, memory(entries))
}

fn code(found: Result<Translation, PageFault>) -> Option<u32> {
    found.err().map(|fault| fault.code)
}

#[test]
fn a_walk_reads_an_entry_of_each_structure_and_sets_their_accessed_flags() {
    let found = four(processor(), READ, [ALL; 4]).unwrap();
    assert_eq!(found.physical, 0x5234);
    let entries = [0x1000, 0x2000, 0x3000, 0x4008].map(|entry| Flag { entry, bit: 5 });
    assert_eq!(found.flags, entries);
}

#[test]
fn a_write_sets_the_dirty_flag_in_the_entry_that_identifies_the_final_address() {
    let found = four(processor(), WRITE, [ALL; 4]).unwrap();
    assert_eq!(found.flags.last(), Some(&Flag { entry: 0x4008, bit: 6 }));
    assert_eq!(found.flags.iter().filter(|f| f.bit == 6).count(), 1);
}

#[test]
fn an_entry_that_is_not_present_gives_an_error_code_with_p_clear() {
    assert_eq!(code(four(processor(), READ, [ALL, 0, ALL, ALL])), Some(0));
    assert_eq!(code(four(user(), WRITE, [ALL, ALL, ALL, 0])), Some(6));
    assert_eq!(code(four(user(), FETCH, [ALL, ALL, ALL, 0])), Some(0x14));
}

#[test]
fn user_mode_needs_u_s_in_every_entry_and_r_w_to_write() {
    for level in 0..4 {
        let mut flags = [ALL; 4];
        flags[level] = P_BIT | RW_BIT;
        assert_eq!(code(four(user(), READ, flags)), Some(5), "level {level}");
        flags[level] = P_BIT | US_BIT;
        assert_eq!(code(four(user(), WRITE, flags)), Some(7), "level {level}");
        assert_eq!(code(four(user(), READ, flags)), None, "level {level}");
    }
}

#[test]
fn cr0_wp_keeps_the_supervisor_from_writing_to_read_only_pages() {
    let flags = [ALL, ALL, ALL, P_BIT | US_BIT];
    assert_eq!(code(four(processor(), WRITE, flags)), Some(3));
    let without = with(|p| p.registers.cr0 &= !(1 << CR0_WP));
    assert_eq!(code(four(without, WRITE, flags)), None);
}

#[test]
fn smap_bars_explicit_accesses_unless_ac_is_set_and_implicit_ones_always() {
    let smap = with(|p| p.registers.cr4 |= 1 << CR4_SMAP);
    let ac = Processor { registers: Registers { ac: true, ..smap.registers }, ..smap };
    let implicit = Access { implicit: true, ..READ };
    assert_eq!(code(four(smap, READ, [ALL; 4])), Some(1));
    assert_eq!(code(four(ac, READ, [ALL; 4])), None);
    assert_eq!(code(four(ac, implicit, [ALL; 4])), Some(1));
    // An implicit access at CPL 3 is the supervisor's: U/S is clear in the error code.
    let user = Processor { registers: Registers { cpl: 3, ..ac.registers }, ..ac };
    assert_eq!(code(four(user, implicit, [ALL; 4])), Some(1));
    assert_eq!(code(four(user, READ, [ALL; 4])), None);
}

#[test]
fn smep_bars_the_supervisor_from_fetching_at_user_mode_addresses() {
    let smep = with(|p| p.registers.cr4 |= 1 << CR4_SMEP);
    assert_eq!(code(four(smep, FETCH, [ALL; 4])), Some(0x11));
    assert_eq!(code(four(smep, FETCH, [ALL, ALL, ALL, P_BIT])), None);
    assert_eq!(code(four(processor(), FETCH, [ALL; 4])), None);
}

#[test]
fn xd_in_any_entry_bars_fetches_and_is_reserved_if_nxe_is_clear() {
    for level in 0..4 {
        let mut flags = [ALL; 4];
        flags[level] |= 1 << XD;
        assert_eq!(code(four(user(), FETCH, flags)), Some(0x15));
        assert_eq!(code(four(user(), READ, flags)), None);
        let without = with(|p| p.registers.efer &= !(1 << EFER_NXE));
        assert_eq!(code(four(without, READ, flags)), Some(9));
    }
}

#[test]
fn the_error_code_tells_of_fetches_only_with_smep_or_nxe() {
    let neither = with(|p| {
        p.registers.efer &= !(1 << EFER_NXE);
        p.registers.cpl = 3;
    });
    assert_eq!(code(four(neither, FETCH, [ALL, ALL, ALL, 0])), Some(4));
    let smep = Processor {
        registers: Registers { cr4: neither.registers.cr4 | 1 << CR4_SMEP, ..neither.registers },
        ..neither
    };
    assert_eq!(code(four(smep, FETCH, [ALL, ALL, ALL, 0])), Some(0x14));
}

#[test]
fn address_bits_from_maxphyaddr_to_51_are_reserved_and_those_above_are_ignored() {
    for level in 0..4 {
        for (number, expected) in [(40, Some(9)), (51, Some(9)), (52, None), (62, None)] {
            let mut flags = [ALL; 4];
            flags[level] |= 1 << number;
            assert_eq!(code(four(processor(), READ, flags)), expected, "{level}, bit {number}");
        }
    }
}

#[test]
fn ps_is_reserved_in_a_pml4e_and_bit_8_on_amd_too() {
    assert_eq!(code(four(processor(), READ, [ALL | PS_BIT, ALL, ALL, ALL])), Some(9));
    assert_eq!(code(four(processor(), READ, [ALL | 0x100, ALL, ALL, ALL])), None);
    let amd = with(|p| p.features.vendor = Vendor::Amd);
    assert_eq!(code(four(amd, READ, [ALL | 0x100, ALL, ALL, ALL])), Some(9));
    assert_eq!(code(four(amd, READ, [ALL, ALL | 0x100, ALL, ALL])), None);
}

#[test]
fn large_pages_reserve_the_bits_between_pat_and_their_address() {
    let pdpte = |entry| memory([(0x1000, 0x2000 | ALL), (0x2000, entry)]);
    let read = |processor: Processor, entry| processor.translate(READ, pdpte(entry));
    assert_eq!(read(processor(), 0x4000_0000 | ALL | PS_BIT).unwrap().physical, 0x4000_1234);
    assert_eq!(code(read(processor(), 1 << 12 | ALL | PS_BIT)), None, "PAT");
    for number in [13, 20, 21, 29] {
        assert_eq!(code(read(processor(), 1 << number | ALL | PS_BIT)), Some(9), "bit {number}");
    }
    let without = with(|p| p.features.page1gb = false);
    assert_eq!(code(read(without, 0x4000_0000 | ALL | PS_BIT)), Some(9));
}

#[test]
fn with_32_bit_paging_bits_13_to_20_of_a_large_page_are_bits_32_to_39_of_its_address() {
    let read = |processor: Processor, entry| processor.translate(READ, memory([(0x1000, entry)]));
    let entry = 0x40_0000 | 0x81 << 13 | ALL | PS_BIT;
    assert_eq!(read(bits32(), entry).unwrap().physical, 0x81_0040_1234);
    assert_eq!(code(read(bits32(), 1 << 21 | ALL | PS_BIT)), Some(9));
    let small =
        Processor { features: Features { max_physical: 36, ..bits32().features }, ..bits32() };
    for (number, expected) in [(16, None), (17, Some(9)), (20, Some(9)), (21, Some(9))] {
        assert_eq!(code(read(small, 1 << number | ALL | PS_BIT)), expected, "bit {number}");
    }
    let old = Processor { features: Features { pse36: false, ..bits32().features }, ..bits32() };
    assert_eq!(code(read(old, 1 << 13 | ALL | PS_BIT)), Some(9));
    // Without CR4.PSE, PS is ignored.
    let without = Processor { registers: Registers { cr4: 0, ..bits32().registers }, ..bits32() };
    let entries = memory([(0x1000, 0x2000 | ALL | PS_BIT), (0x2004, 0x9000 | ALL)]);
    assert_eq!(without.translate(READ, entries).unwrap().physical, 0x9234);
}

#[test]
fn pae_paging_reserves_bits_up_to_62_and_its_pdptes_have_no_rights() {
    let read = |pde: u64, pte: u64| {
        pae().translate(READ, memory([(0x2000, 0x3000 | pde), (0x3008, 0x4000 | pte)]))
    };
    assert_eq!(read(ALL, ALL).unwrap().physical, 0x4234);
    for number in [40, 51, 52, 62] {
        assert_eq!(code(read(ALL | 1 << number, ALL)), Some(9), "PDE, bit {number}");
        assert_eq!(code(read(ALL, ALL | 1 << number)), Some(9), "PTE, bit {number}");
    }
}

#[test]
fn mov_to_cr3_checks_reserved_bits_of_present_pdptes() {
    let load = |entry: u64| pae().load_pdptes(0xfff, memory([(0xfe8, entry)]));
    assert_eq!(load(0x2001), Some([0, 0x2001, 0, 0]));
    for number in [1, 2, 5, 8, 40, 51, 63] {
        assert_eq!(load(0x2001 | 1 << number), None, "bit {number}");
        assert!(load(0x2000 | 1 << number).is_some(), "not present, bit {number}");
    }
    for number in [3, 4, 9, 11] {
        assert!(load(0x2001 | 1 << number).is_some(), "bit {number}");
    }
}

#[test]
fn canonical_addresses_have_their_upper_bits_all_alike() {
    assert!(processor().is_canonical(0x7fff_ffff_ffff));
    assert!(!processor().is_canonical(0x8000_0000_0000));
    assert!(processor().is_canonical(0xffff_8000_0000_0000));
    let level5 = with(|p| p.registers.cr4 |= 1 << CR4_LA57);
    assert!(level5.is_canonical(0xff_ffff_ffff_ffff));
    assert!(!level5.is_canonical(0x100_0000_0000_0000));
}
