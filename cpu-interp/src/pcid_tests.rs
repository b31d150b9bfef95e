//! Two address spaces with PCIDs 1 and 2. That a translation is still there shows by its being out
//! of date.

use super::*;
use crate::testing::{DATA, TABLES, TestMachine};

/// The linear page that the address spaces map differently.
const PAGE: u64 = 0x20_0000;
/// The tables of the second.
const OTHER: u64 = 0x1_6000;
/// The page-table entries of [`PAGE`].
const ENTRIES: [u64; 2] = [0x1_3000, 0x1_9000];
/// What they map at first, and what the test maps later. Each holds its number.
const FRAMES: [u64; 3] = [0x1_4000, 0x1_5000, 0x1_a000];
const PRESENT: u64 = 7;
const GLOBAL: u64 = 1 << 8;

const FIRST: u64 = TABLES | 1;
const SECOND: u64 = OTHER | 2;
/// MOV CR3 that keeps what the PCID has left behind.
const KEEP: u64 = 1 << 63;

/// mov rbx, [rdi]
const LOAD: [u8; 3] = [0x48, 0x8b, 0x1f];
/// mov cr3, rcx
const TO_SECOND: [u8; 3] = [0x0f, 0x22, 0xd9];
/// mov cr3, rax
const TO_FIRST: [u8; 3] = [0x0f, 0x22, 0xd8];
/// invpcid rsi, [rdx]
const INVPCID: [u8; 5] = [0x66, 0x0f, 0x38, 0x82, 0x32];
/// invlpg [rdi]
const INVLPG: [u8; 3] = [0x0f, 0x01, 0x3f];
/// call rdi
const CALL: [u8; 2] = [0xff, 0xd7];

/// In the first address space. RAX and RCX are what MOV CR3 takes to go to the first and the second.
fn machine(code: &[&[u8]], flags: u64, rax: u64, rcx: u64) -> TestMachine {
    let mut m = TestMachine::long(&code.concat());
    m.put_u64(OTHER, (OTHER + 0x1000) | PRESENT);
    m.put_u64(OTHER + 0x1000, (OTHER + 0x2000) | PRESENT);
    m.put_u64(OTHER + 0x2000, 0x87);
    for (n, directory) in [TABLES + 0x2000, OTHER + 0x2000].into_iter().enumerate() {
        m.put_u64(directory + 8, ENTRIES[n] | PRESENT);
        m.put_u64(ENTRIES[n], FRAMES[n] | PRESENT | flags);
    }
    for (frame, number) in FRAMES.into_iter().zip(0..) {
        m.put_u64(frame, number);
    }
    m.set(|s| {
        s.control.cr4 |= cr4::PCIDE | cr4::PGE;
        s.control.cr3 = FIRST;
        s.general.regs[0] = rax;
        s.general.regs[1] = rcx;
        s.general.regs[2] = DATA;
        s.general.regs[7] = PAGE;
    });
    m
}

/// What the next load finds after so many instructions, of which it is the last.
fn found(m: &mut TestMachine, instructions: u64) -> u64 {
    m.run(instructions);
    m.reg(3)
}

#[test]
fn mov_cr3_keeps_translations_if_it_says_so() {
    let code: [&[u8]; 5] = [&LOAD, &TO_SECOND, &LOAD, &TO_FIRST, &LOAD];
    for (keep, last) in [(KEEP, 0), (0, 2)] {
        let mut m = machine(&code, 0, FIRST | keep, SECOND);
        assert_eq!(found(&mut m, 1), 0);
        m.put_u64(ENTRIES[0], FRAMES[2] | PRESENT);
        assert_eq!(found(&mut m, 2), 1);
        assert_eq!(m.state().control.cr3, SECOND);
        assert_eq!(found(&mut m, 2), last);
        assert_eq!(m.state().control.cr3, FIRST, "bit 63 is not kept");
    }
}

#[test]
fn mov_cr3_without_pcids_drops_translations() {
    let mut m = machine(&[&LOAD, &TO_FIRST, &LOAD], 0, FIRST & !1, 0);
    m.set(|s| {
        s.control.cr4 &= !cr4::PCIDE;
        s.control.cr3 = TABLES;
    });
    found(&mut m, 1);
    m.put_u64(ENTRIES[0], FRAMES[2] | PRESENT);
    assert_eq!(found(&mut m, 2), 2);
    let bad = machine(&[&TO_FIRST], 0, FIRST | KEEP, 0);
    let mut bad = bad;
    bad.set(|s| s.control.cr4 &= !cr4::PCIDE);
    bad.raises(trivium_cpu::Vector::GP, Some(0));
}

/// What the first address space finds after an instruction in the second.
fn after(instruction: &[u8], flags: u64, kind: u64, pcid: u64) -> u64 {
    let code = [&LOAD, &TO_SECOND[..], instruction, &TO_FIRST, &LOAD];
    let mut m = machine(&code, flags, FIRST | KEEP, SECOND);
    m.set(|s| s.general.regs[6] = kind);
    m.put_u64(DATA, pcid);
    m.put_u64(DATA + 8, PAGE);
    found(&mut m, 1);
    m.put_u64(ENTRIES[0], FRAMES[2] | PRESENT | flags);
    found(&mut m, 4)
}

/// SDM vol. 2, INVPCID.
#[test]
fn invpcid_drops_what_its_type_says() {
    const KEPT: u64 = 0;
    const DROPPED: u64 = 2;
    let rows = [
        // Individual address.
        (0, 1, 0, DROPPED),
        (0, 2, 0, KEPT),
        // Single context, but for global translations.
        (1, 1, 0, DROPPED),
        (1, 2, 0, KEPT),
        (1, 1, GLOBAL, KEPT),
        // All contexts.
        (2, 0, 0, DROPPED),
        (2, 0, GLOBAL, DROPPED),
        // All contexts, but for global translations.
        (3, 0, 0, DROPPED),
        (3, 0, GLOBAL, KEPT),
    ];
    for (kind, pcid, flags, result) in rows {
        assert_eq!(after(&INVPCID, flags, kind, pcid), result, "type {kind}, PCID {pcid}");
    }
}

/// SDM vol. 3A, 4.10.4.1: INVLPG drops global translations whatever the PCID.
#[test]
fn invlpg_drops_global_translations_of_all_pcids() {
    assert_eq!(after(&INVLPG, GLOBAL, 0, 0), 2);
}

/// SDM vol. 3A, 4.10.4.1: MOV to CR4 that changes PGE or clears PCIDE drops all.
#[test]
fn mov_cr4_drops_translations_of_all_pcids() {
    // mov r8, cr4; btc r8, 7; mov cr4, r8
    let code = [0x41, 0x0f, 0x20, 0xe0, 0x49, 0x0f, 0xba, 0xf8, 7, 0x41, 0x0f, 0x22, 0xe0];
    let code = [&LOAD, &TO_SECOND[..], &code, &TO_FIRST, &LOAD];
    let mut m = machine(&code, GLOBAL, FIRST | KEEP, SECOND);
    found(&mut m, 1);
    m.put_u64(ENTRIES[0], FRAMES[2] | PRESENT);
    assert_eq!(found(&mut m, 6), 2);
}

#[test]
fn more_pcids_than_are_kept_do_no_harm() {
    // mov cr3, rax; mov rbx, [rdi]; inc rax
    let one = [&TO_FIRST[..], &LOAD, &[0x48, 0xff, 0xc0]].concat();
    let mut m = machine(&[&one.repeat(20)], 0, FIRST | KEEP, 0);
    for n in 0..20 {
        m.put_u64(FRAMES[0], 100 + n);
        m.run(3);
        assert_eq!(m.reg(3), 100 + n);
    }
}

/// mov bl, N; ret
fn subroutine(n: u64) -> u64 {
    0xc3_00b3 | n << 8
}

#[test]
fn ways_between_blocks_are_those_of_the_pcid() {
    let round: [&[u8]; 4] = [&CALL, &TO_SECOND, &CALL, &TO_FIRST];
    let rounds = [round, round, round].concat();
    let mut m = machine(&rounds, 0, FIRST | KEEP, SECOND | KEEP);
    for (n, frame) in (0..).zip(FRAMES) {
        m.put_u64(frame, subroutine(n));
    }
    for _ in 0..2 {
        assert_eq!(found(&mut m, 3) & 0xff, 0);
        assert_eq!(found(&mut m, 4) & 0xff, 1);
        m.run(1);
    }
    m.put_u64(FRAMES[0], subroutine(7));
    assert_eq!(found(&mut m, 3) & 0xff, 7);
    assert_eq!(found(&mut m, 4) & 0xff, 1);
}

#[test]
fn stores_by_one_pcid_change_the_code_of_another() {
    // mov [rdi], r8; mov [rdi], r9
    let (store, store_other): ([u8; 3], [u8; 3]) = ([0x4c, 0x89, 0x07], [0x4c, 0x89, 0x0f]);
    let code: [&[u8]; 7] = [&store, &TO_SECOND, &CALL, &TO_FIRST, &store_other, &TO_SECOND, &CALL];
    let mut m = machine(&code, 0, FIRST | KEEP, SECOND | KEEP);
    m.put_u64(ENTRIES[1], FRAMES[0] | PRESENT);
    m.set(|s| {
        s.general.regs[8] = subroutine(3);
        s.general.regs[9] = subroutine(4);
    });
    assert_eq!(found(&mut m, 5) & 0xff, 3);
    assert_eq!(found(&mut m, 6) & 0xff, 4);
}

/// Dropping the translation of a page leaves ways alone unless code was found there by whoever is there now.
#[test]
fn a_page_voids_the_ways_of_its_reach_while_it_has_code() {
    const KERNEL: u64 = 0xffff_ffff_8100_0000;
    const OF_A_PROCESS: u64 = 0xb7ff_6000;
    let mut m = TestMachine::long(&[]);
    let cpu = &mut m.cpu.cpu;
    let voids = |cpu: &mut Cpu, linear| {
        let before = [Reach::Global, Reach::Any].map(|reach| cpu.generations.mappings(reach));
        cpu.flush_page(linear);
        let after = [Reach::Global, Reach::Any].map(|reach| cpu.generations.mappings(reach));
        [before[0] != after[0], before[1] != after[1]]
    };
    for (linear, global) in [(KERNEL, true), (OF_A_PROCESS, false)] {
        let reach = Cpu::reach(linear, global);
        cpu.code_pages_of(reach).note(linear, 4096);
    }
    assert_eq!(voids(cpu, OF_A_PROCESS), [false, true]);
    assert_eq!(voids(cpu, OF_A_PROCESS), [false, false], "all ways were void already");
    cpu.code_pages_of(Reach::Any).note(OF_A_PROCESS, 4096);
    // MOV to CR3: the process is gone.
    cpu.flush_present(true);
    assert_eq!(voids(cpu, OF_A_PROCESS), [false, false]);
    assert_eq!(voids(cpu, KERNEL), [true, true]);
    assert_eq!(voids(cpu, KERNEL), [false, false]);
}

/// The code pages of an address space that is left with its PCID are known when it is entered again.
#[test]
fn code_pages_are_those_of_the_pcid() {
    let mut m = TestMachine::long(&[]);
    let cpu = &mut m.cpu.cpu;
    cpu.code_pages_of(Reach::Any).note(PAGE, 4096);
    cpu.enter_pcid(1, true);
    assert!(!cpu.code_pages.has(PAGE));
    cpu.code_pages_of(Reach::Any).note(PAGE + 4096, 4096);
    cpu.enter_pcid(0, true);
    assert!(cpu.code_pages.has(PAGE) && !cpu.code_pages.has(PAGE + 4096));
    let ways = cpu.generations.mappings(Reach::Any);
    // Dropped in all address spaces: the other's ways are void when it comes back, these are not.
    cpu.flush_page(PAGE + 4096);
    assert_eq!(cpu.generations.mappings(Reach::Any), ways);
    cpu.enter_pcid(1, true);
    assert!(!cpu.code_pages.has(PAGE + 4096));
}
