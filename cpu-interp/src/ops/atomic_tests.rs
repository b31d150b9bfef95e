//! Tests of XADD and the CMPXCHG family, and of where LOCK may stand.

use trivium_cpu::Vector;
use trivium_cpu::bits::rflags::{AF, CF, OF, PF, SF, STATUS, ZF};
use trivium_cpu::model::{CpuModel, Vendor};

use crate::testing::{DATA, DEVICE, TABLES, TestMachine};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 6;

fn long(code: &[u8], regs: &[(usize, u64)]) -> TestMachine {
    let mut machine = TestMachine::long(code);
    machine.set(|state| {
        for &(number, value) in regs {
            state.general.regs[number] = value;
        }
    });
    machine
}

fn flags(machine: &mut TestMachine) -> u64 {
    machine.state().general.rflags & STATUS
}

/// The same code without LOCK and with it.
fn both(code: &[u8]) -> [Vec<u8>; 2] {
    [code.to_vec(), [&[0xf0], code].concat()]
}

const HIGH: u64 = 0x1122_3344_5566_7788;

/// (CMPXCHG [RSI], rCX; XADD [RSI], rCX; size in bytes)
const FORMS: [(&[u8], &[u8], usize); 4] = [
    (&[0x0f, 0xb0, 0x0e], &[0x0f, 0xc0, 0x0e], 1),
    (&[0x66, 0x0f, 0xb1, 0x0e], &[0x66, 0x0f, 0xc1, 0x0e], 2),
    (&[0x0f, 0xb1, 0x0e], &[0x0f, 0xc1, 0x0e], 4),
    (&[0x48, 0x0f, 0xb1, 0x0e], &[0x48, 0x0f, 0xc1, 0x0e], 8),
];

/// Within a page, and across two.
const PLACES: [u64; 3] = [DATA, DATA + 0x11, DATA + 0xfff];

fn low(size: usize) -> u64 {
    if size == 8 { !0 } else { (1 << (8 * size)) - 1 }
}

#[test]
fn cmpxchg_stores_the_source_where_the_accumulator_is_found() {
    for (code, _, size) in FORMS {
        for code in both(code) {
            for at in PLACES {
                let mask = low(size);
                // Equal as far as the operand goes.
                let other = if size == 8 { 0 } else { 1 << 63 };
                let mut m = long(&code, &[(RAX, HIGH ^ other), (RCX, 0x55), (RSI, at)]);
                m.put_u64(at, HIGH);
                m.run(1);
                assert_eq!(m.get_u64(at), HIGH & !mask | 0x55, "{code:x?} at {at:#x}");
                assert_eq!(m.reg(RAX), HIGH ^ other, "the accumulator stays, all of it");
                assert_eq!(flags(&mut m), ZF | PF);
            }
        }
    }
}

#[test]
fn cmpxchg_loads_the_accumulator_where_it_is_not_found() {
    for (code, _, size) in FORMS {
        for code in both(code) {
            for at in PLACES {
                let mut m = long(&code, &[(RAX, !0 << 8), (RCX, 0x55), (RSI, at)]);
                m.put_u64(at, HIGH);
                m.run(1);
                let mask = low(size);
                // 32 bits zero the rest of the register, 8 and 16 leave it.
                let kept = if size < 4 { (!0 << 8) & !mask } else { 0 };
                assert_eq!(m.reg(RAX), kept | HIGH & mask, "{code:x?} at {at:#x}");
                assert_eq!(m.get_u64(at), HIGH);
            }
        }
    }
}

#[test]
fn cmpxchg_sets_flags_as_cmp_of_the_accumulator_with_the_destination() {
    // 0x10 - 0x20 = 0xf0; 0x80 - 0x01 = 0x7f.
    for (al, found, expected) in [(0x10, 0x20, CF | SF | PF), (0x80, 0x01, OF | AF)] {
        let mut m = long(FORMS[0].0, &[(RAX, al), (RSI, DATA)]);
        m.put(DATA, &[found]);
        m.run(1);
        assert_eq!(flags(&mut m), expected);
    }
}

#[test]
fn cmpxchg_of_registers_writes_the_destination_and_on_intel_in_any_case() {
    // CMPXCHG EBX, ECX: the upper half of what is written is cleared.
    let code = [0x0f, 0xb1, 0xcb];
    let mut m = long(&code, &[(RAX, 1 << 32 | 7), (RBX, 2 << 32 | 7), (RCX, 3 << 32 | 9)]);
    m.run(1);
    assert_eq!((m.reg(RAX), m.reg(RBX)), (1 << 32 | 7, 9));
    let mut m = long(&code, &[(RAX, 1 << 32 | 6), (RBX, 2 << 32 | 7), (RCX, 3 << 32 | 9)]);
    m.run(1);
    assert_eq!((m.reg(RAX), m.reg(RBX)), (7, 2 << 32 | 7), "as on a Zen 4");
    let intel = CpuModel { vendor: Vendor::Intel, ..TestMachine::model() };
    let mut m = TestMachine::long_with(intel, &code);
    m.set(|s| (s.general.regs[0], s.general.regs[3]) = (1 << 32 | 6, 2 << 32 | 7));
    m.run(1);
    assert_eq!((m.reg(RAX), m.reg(RBX)), (7, 7), "SDM vol. 2, CMPXCHG");
    // CMPXCHG AH, CL; CMPXCHG RAX, RCX.
    let mut m = long(&[0x0f, 0xb0, 0xcc], &[(RAX, 0x1234), (RCX, 9)]);
    m.run(1);
    assert_eq!(m.reg(RAX), 0x1212);
    let mut m = long(&[0x48, 0x0f, 0xb1, 0xc8], &[(RAX, 0x1234), (RCX, 9)]);
    m.run(1);
    assert_eq!(m.reg(RAX), 9);
}

#[test]
fn cmpxchg_that_finds_something_else_wants_to_write_all_the_same() {
    for code in both(FORMS[2].0) {
        let mut m = long(&code, &[(RAX, 1), (RSI, 0x20_0000)]);
        // Present, for reading alone; CR0.WP is set.
        m.put_u64(TABLES + 0x2008, 0x20_0000 | 0x85);
        m.raises(Vector::PF, Some(3));
    }
}

#[test]
fn xadd_exchanges_and_adds() {
    for (_, code, size) in FORMS {
        for code in both(code) {
            for at in PLACES {
                let mut m = long(&code, &[(RCX, !0 << 56 | 3), (RSI, at)]);
                m.put_u64(at, HIGH);
                m.run(1);
                let mask = low(size);
                let sum = HIGH.wrapping_add(!0 << 56 | 3) & mask;
                assert_eq!(m.get_u64(at), HIGH & !mask | sum, "{code:x?} at {at:#x}");
                let kept = if size < 4 { (!0 << 56) & !mask } else { 0 };
                assert_eq!(m.reg(RCX), kept | HIGH & mask);
            }
        }
    }
}

#[test]
fn xadd_sets_flags_as_add() {
    // 0x7f + 0x01 = 0x80; 0xff + 0x01 = 0.
    for (value, expected) in [(0x7f, OF | SF | AF), (0xff, CF | ZF | AF | PF)] {
        let mut m = long(FORMS[0].1, &[(RCX, 1), (RSI, DATA)]);
        m.put(DATA, &[value]);
        m.run(1);
        assert_eq!(flags(&mut m), expected);
    }
}

#[test]
fn xadd_of_registers() {
    // XADD EBX, ECX; XADD CL, CH; XADD ECX, ECX, where the sum stays.
    let mut m = long(&[0x0f, 0xc1, 0xcb], &[(RBX, !0), (RCX, !0 << 32 | 2)]);
    m.run(1);
    assert_eq!((m.reg(RBX), m.reg(RCX)), (1, 0xffff_ffff));
    let mut m = long(&[0x0f, 0xc0, 0xe9], &[(RCX, 0x0305)]);
    m.run(1);
    assert_eq!(m.reg(RCX), 0x0508);
    let mut m = long(&[0x0f, 0xc1, 0xc9], &[(RCX, 5)]);
    m.run(1);
    assert_eq!(m.reg(RCX), 10);
}

#[test]
fn atomics_reach_device_registers() {
    // The test device reads as 3, 2, 1, 0 from the top: XADD adds 1.
    let mut m = long(&[0xf0, 0x0f, 0xc1, 0x0e], &[(RCX, 1), (RSI, DEVICE)]);
    m.run(1);
    assert_eq!(m.reg(RCX), 0x0302_0100);
    let written = m.bus.mmio.lock().map(|list| list.clone()).unwrap_or_default();
    assert_eq!(written, [(DEVICE, vec![1, 1, 2, 3])]);
}

#[test]
fn cmpxchg8b_exchanges_edx_eax_for_ecx_ebx() {
    for code in both(&[0x0f, 0xc7, 0x0e]) {
        for at in [DATA, DATA + 0xffc] {
            let regs = [
                (RAX, 7 << 32 | 0x5566_7788),
                (RDX, 7 << 32 | 0x1122_3344),
                (RBX, 8 << 32 | 0xbb),
                (RCX, 8 << 32 | 0xcc),
                (RSI, at),
            ];
            let mut m = long(&code, &regs);
            m.put_u64(at, HIGH);
            m.set(|state| state.general.rflags |= STATUS & !ZF);
            m.run(1);
            assert_eq!(m.get_u64(at), 0xcc_0000_00bb);
            assert_eq!((m.reg(RAX), m.reg(RDX)), (regs[0].1, regs[1].1));
            assert_eq!(flags(&mut m), STATUS, "only ZF changes");
            // Once more, for what is not there now.
            m.set(|state| state.general.rip = crate::testing::CODE);
            m.run(1);
            assert_eq!(m.get_u64(at), 0xcc_0000_00bb);
            assert_eq!((m.reg(RAX), m.reg(RDX)), (0xbb, 0xcc));
            assert_eq!(flags(&mut m), STATUS & !ZF);
        }
    }
}

#[test]
fn cmpxchg16b_exchanges_rdx_rax_for_rcx_rbx() {
    for code in both(&[0x48, 0x0f, 0xc7, 0x0e]) {
        let mut m = long(&code, &[(RAX, 1), (RDX, 2), (RBX, 3), (RCX, 4), (RSI, DATA)]);
        m.put_u64(DATA, 1);
        m.put_u64(DATA + 8, 2);
        m.run(1);
        assert_eq!((m.get_u64(DATA), m.get_u64(DATA + 8)), (3, 4));
        assert_eq!(flags(&mut m) & ZF, ZF);
        m.set(|state| state.general.rip = crate::testing::CODE);
        m.run(1);
        assert_eq!((m.get_u64(DATA), m.get_u64(DATA + 8)), (3, 4));
        assert_eq!((m.reg(RAX), m.reg(RDX)), (3, 4));
        assert_eq!(flags(&mut m) & ZF, 0);
    }
}

#[test]
fn cmpxchg16b_must_be_aligned() {
    for code in both(&[0x48, 0x0f, 0xc7, 0x0e]) {
        long(&code, &[(RSI, DATA + 8)]).raises(Vector::GP, Some(0));
    }
}

#[test]
fn lock_is_undefined_but_for_listed_instructions_with_memory_destinations() {
    // Intel SDM vol. 2, LOCK.
    let undefined: [&[u8]; 9] = [
        &[0xf0, 0x90],             // NOP
        &[0xf0, 0x01, 0xc0],       // ADD EAX, EAX
        &[0xf0, 0x03, 0x06],       // ADD EAX, [RSI]
        &[0xf0, 0x8b, 0x06],       // MOV EAX, [RSI]
        &[0xf0, 0x89, 0x06],       // MOV [RSI], EAX
        &[0xf0, 0x39, 0x06],       // CMP [RSI], EAX
        &[0xf0, 0x0f, 0xb1, 0xcb], // CMPXCHG EBX, ECX
        &[0xf0, 0x0f, 0xc1, 0xcb], // XADD EBX, ECX
        &[0xf0, 0x0f, 0xa3, 0x06], // BT [RSI], EAX
    ];
    for code in undefined {
        long(code, &[(RSI, DATA)]).raises(Vector::UD, None);
    }
    let defined: [&[u8]; 6] = [
        &[0xf0, 0x01, 0x06],       // ADD [RSI], EAX
        &[0xf0, 0x83, 0x0e, 0x00], // OR [RSI], 0
        &[0xf0, 0xff, 0x06],       // INC [RSI]
        &[0xf0, 0xf7, 0x1e],       // NEG [RSI]
        &[0xf0, 0x87, 0x06],       // XCHG [RSI], EAX
        &[0xf0, 0x0f, 0xab, 0x06], // BTS [RSI], EAX
    ];
    for code in defined {
        let mut m = long(code, &[(RSI, DATA)]);
        m.run(1);
        let next = crate::testing::CODE + code.len() as u64;
        assert_eq!(m.state().general.rip, next, "{code:x?}");
    }
}
