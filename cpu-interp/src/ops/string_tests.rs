//! Tests of the string instructions.

#![allow(clippy::unwrap_used)]

use trivium_cpu::bits::rflags;
use trivium_cpu::model::{CpuModel, Vendor};
use trivium_cpu::state::{DS, ES, FS};
use trivium_cpu::{Exit, Vector};

use crate::testing::{CODE, DATA, DEVICE, RAM, TABLES, TestMachine};

const RAX: usize = 0;
const RCX: usize = 1;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;

/// Two places in RAM that nothing else uses, 64 KiB and more from their ends.
const FROM: u64 = 0x8_0000;
const TO: u64 = 0xc_0000;

fn with(mut machine: TestMachine, regs: &[(usize, u64)], flags: u64) -> TestMachine {
    machine.set(|state| {
        for &(number, value) in regs {
            state.general.regs[number] = value;
        }
        state.general.rflags |= flags;
    });
    machine
}

fn long(code: &[u8], regs: &[(usize, u64)]) -> TestMachine {
    with(TestMachine::long(code), regs, 0)
}

fn flags(machine: &mut TestMachine) -> u64 {
    machine.state().general.rflags & rflags::STATUS
}

/// Bytes without a short period.
fn pattern<const N: usize>() -> [u8; N] {
    std::array::from_fn(|n| (n * 7 + n / 251) as u8)
}

#[test]
fn movs_copies_and_counts_rcx_down_to_0() {
    for (code, size) in [
        (&[0xf3, 0xa4][..], 1),
        (&[0xf3, 0x66, 0xa5], 2),
        (&[0xf3, 0xa5], 4),
        (&[0xf3, 0x48, 0xa5], 8),
    ] {
        let count = 20_000 / size;
        let mut m = long(code, &[(RSI, FROM + 5), (RDI, TO + 3001), (RCX, count)]);
        let bytes = pattern::<20_000>();
        m.put(FROM + 5, &bytes);
        m.put(TO + 23_001, &[0xee]);
        assert_eq!(m.run(1), Exit::Budget);
        assert_eq!(m.get::<20_000>(TO + 3001), bytes, "size {size}");
        assert_eq!(m.get(TO + 23_001), [0xee]);
        let regs = m.state().general.regs;
        assert_eq!((regs[RSI], regs[RDI], regs[RCX]), (FROM + 20_005, TO + 23_001, 0));
        assert_eq!(m.state().general.rip, CODE + code.len() as u64);
    }
}

/// MOVS by its definition: one element after the other.
fn movs_by_definition(memory: &mut [u8], from: usize, to: usize, count: usize, size: i64) {
    let width = size.unsigned_abs() as usize;
    for n in 0..count {
        let at = |start: usize| start.wrapping_add_signed((n as i64 * size) as isize);
        let element = memory[at(from)..at(from) + width].to_vec();
        memory[at(to)..at(to) + width].copy_from_slice(&element);
    }
}

#[test]
fn overlapping_movs_goes_element_by_element() {
    const N: usize = 3 * 4096;
    let codes: [(&[u8], i64); 4] = [
        (&[0xf3, 0xa4], 1),
        (&[0xf3, 0x66, 0xa5], 2),
        (&[0xf3, 0xa5], 4),
        (&[0xf3, 0x48, 0xa5], 8),
    ];
    for (code, size) in codes {
        for distance in [-4096, -9, -8, -1, 0, 1, 2, 3, 5, 8, 9, 100, 4095, 4096, 4100] {
            for down in [false, true] {
                let size = if down { -size } else { size };
                let count = 5000 / size.unsigned_abs() as usize;
                let from = if down { 9500 } else { 4500 - 13_usize };
                let to = from.wrapping_add_signed(distance);
                if to > N - 5008 && !down || down && to < 5000 || to + 8 > N {
                    continue;
                }
                let mut expected = pattern::<N>();
                let flags = if down { rflags::DF } else { 0 };
                let regs =
                    [(RSI, FROM + from as u64), (RDI, FROM + to as u64), (RCX, count as u64)];
                let mut m = with(TestMachine::long(code), &regs, flags);
                m.put(FROM, &expected);
                movs_by_definition(&mut expected, from, to, count, size);
                m.run(1);
                assert!(m.get::<N>(FROM) == expected, "size {size} distance {distance}");
                assert_eq!(m.reg(RCX), 0);
            }
        }
    }
}

#[test]
fn stos_fills_at_any_alignment() {
    let codes: [(&[u8], usize); 4] = [
        (&[0xf3, 0xaa], 1),
        (&[0xf3, 0x66, 0xab], 2),
        (&[0xf3, 0xab], 4),
        (&[0xf3, 0x48, 0xab], 8),
    ];
    for (code, size) in codes {
        for value in [0_u64, 0x1122_3344_5566_7788] {
            let count = 9000 / size;
            let mut m = long(code, &[(RAX, value), (RDI, TO + 4093), (RCX, count as u64)]);
            m.put(TO + 4092, &[0xee]);
            m.put(TO + 4093 + 9000, &[0xee]);
            m.run(1);
            let bytes = m.get::<9000>(TO + 4093);
            for (n, element) in bytes.chunks(size).enumerate() {
                assert_eq!(element, &value.to_le_bytes()[..size], "element {n} of size {size}");
            }
            assert_eq!((m.get(TO + 4092), m.get(TO + 4093 + 9000)), ([0xee], [0xee]));
            assert_eq!(m.reg(RDI), TO + 4093 + 9000);
        }
    }
}

#[test]
fn lods_loads_and_leaves_the_rest_of_rax() {
    let mut m = long(&[0xac, 0x66, 0xad, 0xad], &[(RAX, !0), (RSI, FROM)]);
    m.put(FROM, &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77]);
    m.run(1);
    assert_eq!((m.reg(RAX), m.reg(RSI)), (0xffff_ffff_ffff_ff11, FROM + 1));
    m.run(1);
    assert_eq!((m.reg(RAX), m.reg(RSI)), (0xffff_ffff_ffff_3322, FROM + 3));
    m.run(1);
    assert_eq!((m.reg(RAX), m.reg(RSI)), (0x7766_5544, FROM + 7));
}

#[test]
fn df_counts_index_registers_down() {
    let regs = [(RSI, FROM + 8), (RDI, TO + 8)];
    let mut m = with(TestMachine::long(&[0x48, 0xa5]), &regs, rflags::DF);
    m.put_u64(FROM + 8, 0x1234);
    m.run(1);
    assert_eq!((m.get_u64(TO + 8), m.reg(RSI), m.reg(RDI)), (0x1234, FROM, TO));
}

#[test]
fn rcx_0_does_nothing_at_all() {
    // REP MOVSB, REPE CMPSB, REPNE SCASB at addresses that are not canonical.
    let code = [0xf3, 0xa4, 0xf3, 0xa6, 0xf2, 0xae];
    let bad = 1_u64 << 63;
    let all = rflags::STATUS;
    let mut m = with(TestMachine::long(&code), &[(RSI, bad), (RDI, bad), (RCX, 0)], all);
    assert_eq!(m.run(3), Exit::Budget);
    let regs = m.state().general.regs;
    assert_eq!((regs[RSI], regs[RDI], regs[RCX]), (bad, bad, 0));
    assert_eq!(flags(&mut m), all, "flags stay");
}

#[test]
fn scas_and_cmps_stop_where_repe_and_repne_say() {
    // REPNE SCASB for the zero at 5000.
    let mut m = long(&[0xf2, 0xae], &[(RDI, TO + 1), (RCX, !0), (RAX, 0x100)]);
    m.put(TO + 1, &[1; 5000]);
    m.run(1);
    assert_eq!((m.reg(RDI), m.reg(RCX)), (TO + 5002, !0 - 5001));
    assert_eq!(flags(&mut m), rflags::ZF | rflags::PF);
    // REPE SCASW until something else: AX - 0x2211.
    let mut m = long(&[0xf3, 0x66, 0xaf], &[(RDI, TO), (RCX, 8), (RAX, 0)]);
    m.put(TO + 6, &[0x11, 0x22]);
    m.run(1);
    assert_eq!((m.reg(RDI), m.reg(RCX)), (TO + 8, 4));
    // 0 - 0x2211 = 0xddef.
    assert_eq!(flags(&mut m), rflags::CF | rflags::AF | rflags::SF);
    // REPE CMPSB: the first operand is the source at RSI.
    let mut m = long(&[0xf3, 0xa6], &[(RSI, FROM), (RDI, TO + 9), (RCX, 10_000)]);
    m.put(FROM + 6000, &[3]);
    m.put(TO + 6009, &[4]);
    m.run(1);
    assert_eq!((m.reg(RSI), m.reg(RDI), m.reg(RCX)), (FROM + 6001, TO + 6010, 3999));
    // 3 - 4 = 0xff.
    let below = rflags::CF | rflags::AF | rflags::SF | rflags::PF;
    assert_eq!(flags(&mut m), below);
    // REPNE CMPSQ that ends with RCX.
    let mut m = long(&[0xf2, 0x48, 0xa7], &[(RSI, FROM), (RDI, TO), (RCX, 3)]);
    for n in 0..4 {
        m.put_u64(FROM + 8 * n, 1);
    }
    m.run(1);
    assert_eq!((m.reg(RSI), m.reg(RDI), m.reg(RCX)), (FROM + 24, TO + 24, 0));
    assert_eq!(flags(&mut m), 0, "1 - 0");
}

#[test]
fn scas_without_rep_compares_once() {
    let mut m = long(&[0xae], &[(RDI, TO), (RCX, 7), (RAX, 5)]);
    m.put(TO, &[5]);
    m.run(1);
    assert_eq!((m.reg(RDI), m.reg(RCX)), (TO + 1, 7));
    assert_eq!(flags(&mut m), rflags::ZF | rflags::PF);
}

#[test]
fn address_size_32_uses_and_zero_extends_the_low_halves() {
    let high = 0xdead_0000_0000_0000;
    let regs = [(RSI, high | FROM), (RDI, high | TO), (RCX, high | 3)];
    let mut m = long(&[0xf3, 0x67, 0xa4], &regs);
    m.put(FROM, &[1, 2, 3]);
    m.run(1);
    assert_eq!(m.get(TO), [1, 2, 3, 0]);
    assert_eq!((m.reg(RSI), m.reg(RDI), m.reg(RCX)), (FROM + 3, TO + 3, 0));
}

#[test]
fn address_size_16_wraps_and_keeps_the_high_parts() {
    // In real mode, with ES based at FROM.
    let regs = [(RDI, 0x5555_fff0), (RCX, 0x5555_0020), (RAX, 0xab)];
    let mut m = with(TestMachine::real(&[0xf3, 0xaa]), &regs, 0);
    m.set(|state| state.segments.regs[ES].base = FROM);
    m.run(1);
    assert_eq!(m.get(FROM + 0xfff0), [0xab; 16]);
    assert_eq!(m.get(FROM), [0xab; 16]);
    assert_eq!((m.get(FROM + 16), m.get(FROM + 0x1_0000)), ([0], [0]));
    assert_eq!((m.reg(RDI), m.reg(RCX)), (0x5555_0010, 0x5555_0000));
}

#[test]
fn a_segment_prefix_is_for_the_source() {
    // MOVSB from FS, in both modes.
    let code = [0x64, 0xa4];
    let regs = [(RSI, 0x10), (RDI, TO)];
    for machine in [TestMachine::long(&code), TestMachine::protected(&code)] {
        let mut m = with(machine, &regs, 0);
        m.set(|state| state.segments.regs[FS].base = FROM);
        m.put(FROM + 0x10, &[0x77]);
        m.run(1);
        assert_eq!(m.get(TO), [0x77]);
    }
}

#[test]
fn the_segment_limit_is_kept_within_a_page() {
    let regs = [(RDI, 0xf0), (RCX, 0x20), (RAX, 0xcd)];
    let mut m = with(TestMachine::protected(&[0xf3, 0xaa]), &regs, 0);
    m.set(|state| {
        state.segments.regs[ES].base = TO;
        state.segments.regs[ES].limit = 0xff;
    });
    assert_eq!(m.run_to_exception(), (Vector::GP as u8, 0));
    assert_eq!((m.reg(RDI), m.reg(RCX)), (0x100, 0x10));
    assert_eq!((m.get(TO + 0xf0), m.get(TO + 0x100)), ([0xcd; 16], [0]));
}

#[test]
fn expand_down_segments_begin_after_their_limit() {
    let regs = [(RSI, 0x1004), (RDI, TO), (RCX, 8)];
    let mut m = with(TestMachine::protected(&[0xf3, 0xa4]), &regs, rflags::DF);
    m.put(FROM + 0xffc, &pattern::<9>());
    m.set(|state| {
        state.segments.regs[DS].base = FROM;
        state.segments.regs[DS].limit = 0xfff;
        state.segments.regs[DS].attributes.0 |= 4;
    });
    assert_eq!(m.run_to_exception(), (Vector::GP as u8, 0));
    assert_eq!((m.reg(RSI), m.reg(RCX)), (0xfff, 3));
}

/// Makes 2 MiB to 4 MiB not present.
fn end_memory(machine: &mut TestMachine) {
    machine.put_u64(TABLES + 0x2008, 0);
}

#[test]
fn a_fault_leaves_the_registers_at_the_element() {
    // REP MOVSD whose last bytes lie after the end of memory; the last element crosses it.
    let regs = [(RSI, FROM), (RDI, RAM - 0x1802), (RCX, 0x800)];
    let mut m = long(&[0xf3, 0xa5], &regs);
    end_memory(&mut m);
    m.put(FROM, &pattern::<0x2000>());
    m.put(RAM - 2, &[0xee, 0xee]);
    let (vector, code) = m.run_to_exception();
    assert_eq!((vector, code), (Vector::PF as u8, 2));
    assert_eq!(m.state().control.cr2, RAM);
    let regs = m.state().general.regs;
    assert_eq!((regs[RSI], regs[RDI], regs[RCX]), (FROM + 0x1800, RAM - 2, 0x200));
    assert_eq!(m.get_u64(regs[RSP] + 8), CODE, "saved RIP is the instruction's");
    assert_eq!(m.get::<0x1800>(RAM - 0x1802), pattern::<0x2000>()[..0x1800]);
    assert_eq!(m.get(RAM - 2), [0xee, 0xee]);
}

#[test]
fn a_fault_in_repeated_scas_shows_flags_as_the_vendor_says() {
    let before = rflags::CF | rflags::OF;
    // AMD's processors show those of comparing 1 with 0.
    for (vendor, flags) in [(Vendor::Intel, before), (Vendor::Amd, 0)] {
        let regs = [(RDI, RAM - 0x1000), (RCX, 0x2000), (RAX, 1)];
        let model = CpuModel { vendor, ..TestMachine::model() };
        let mut m = with(TestMachine::long_with(model, &[0xf2, 0xae]), &regs, before);
        end_memory(&mut m);
        let (vector, _) = m.run_to_exception();
        assert_eq!(vector, Vector::PF as u8);
        assert_eq!((m.reg(RDI), m.reg(RCX)), (RAM, 0x1000));
        let rsp = m.reg(RSP);
        assert_eq!(m.get_u64(rsp + 24) & rflags::STATUS, flags, "saved RFLAGS, {vendor:?}");
    }
}

#[test]
fn addresses_that_are_not_canonical_raise_gp() {
    long(&[0xa4], &[(RSI, 1 << 63), (RDI, TO)]).raises(Vector::GP, Some(0));
    long(&[0xf3, 0xaa], &[(RCX, 1), (RDI, 1 << 63)]).raises(Vector::GP, Some(0));
    long(&[0xf2, 0xae], &[(RCX, 1), (RDI, 0x7fff_ffff_ffff + 1)]).raises(Vector::GP, Some(0));
}

#[test]
fn device_registers_are_read_once_for_each_element() {
    // A byte of the test device reads as the low byte of its address.
    let mut m = long(&[0xf3, 0xa4], &[(RSI, DEVICE + 0x10), (RDI, TO), (RCX, 5)]);
    assert_eq!(m.run(1), Exit::Budget);
    assert_eq!(m.get(TO), [0x10, 0x11, 0x12, 0x13, 0x14, 0]);
    // Between RAM and the device, compared at once: equal up to the fourth.
    let mut m = long(&[0xf3, 0xa6], &[(RSI, FROM), (RDI, DEVICE), (RCX, 9)]);
    m.put(FROM, &[0, 1, 2, 9]);
    m.run(1);
    assert_eq!((m.reg(RCX), m.reg(RDI)), (5, DEVICE + 4));
    // From one register to another.
    let mut m = long(&[0xf3, 0x66, 0xa5], &[(RSI, DEVICE), (RDI, DEVICE + 0x20), (RCX, 2)]);
    m.run(1);
    let written = m.bus.mmio.lock().unwrap().clone();
    assert_eq!(written, [(DEVICE + 0x20, vec![0, 1]), (DEVICE + 0x22, vec![2, 3])]);
}

#[test]
fn device_registers_are_written_in_order() {
    let mut m = long(&[0xf3, 0xab], &[(RAX, 0x0403_0201), (RDI, DEVICE - 4), (RCX, 3)]);
    assert_eq!(m.run(1), Exit::Budget);
    let element = vec![1, 2, 3, 4];
    let written = m.bus.mmio.lock().unwrap().clone();
    assert_eq!(written[1..], [(DEVICE, element.clone()), (DEVICE + 4, element)]);
    assert_eq!((m.reg(RCX), m.reg(RDI)), (0, DEVICE + 8));
}

#[test]
fn code_that_is_stored_over_runs_as_it_is_now() {
    // REP STOSB; HLT; HLT; MOV BL, 5: the HLTs become NOPs.
    let code = [0xf3, 0xaa, 0xf4, 0xf4, 0xb3, 5];
    let mut m = long(&code, &[(RDI, CODE + 2), (RCX, 2), (RAX, 0x90)]);
    assert_eq!(m.run(4), Exit::Budget);
    assert_eq!(m.reg(3), 5);
}

#[test]
fn code_that_is_copied_over_from_below_runs_as_it_is_now() {
    // INC EBX; JMP to the REP MOVSB: the block is in the cache when it is written over.
    let code = [0xff, 0xc3, 0xf3, 0xa4, 0xeb, 0xfa];
    let mut m = long(&code, &[(RSI, FROM), (RDI, CODE), (RCX, 2), (3, 8)]);
    // DEC EBX.
    m.put(FROM, &[0xff, 0xcb]);
    m.run(4);
    assert_eq!(m.reg(3), 8);
}

#[test]
fn interrupts_come_between_elements() {
    // STI, then more than one step of REP STOSB.
    let count = 0x8_0000;
    let mut m = long(&[0xfb, 0xf3, 0xaa], &[(RDI, FROM), (RCX, count)]);
    *m.bus.interrupt.lock().unwrap() = Some(0x40);
    assert_eq!(m.run_to_handler(), 0x40);
    let regs = m.state().general.regs;
    assert!(regs[RCX] > 0 && regs[RCX] < count, "{:#x}", regs[RCX]);
    assert_eq!(regs[RDI] + regs[RCX], FROM + count);
    assert_eq!(m.get_u64(regs[RSP]), CODE + 1, "saved RIP is the instruction's");
}

#[test]
fn with_tf_each_iteration_traps() {
    let mut m = with(TestMachine::long(&[0xf3, 0xaa]), &[(RDI, TO), (RCX, 3)], rflags::TF);
    assert_eq!(m.run_to_handler(), Vector::DB as u8);
    let regs = m.state().general.regs;
    assert_eq!((regs[RDI], regs[RCX]), (TO + 1, 2));
    assert_eq!(m.get_u64(regs[RSP]), CODE);
    let mut m = with(TestMachine::long(&[0xf3, 0xaa]), &[(RDI, TO), (RCX, 1)], rflags::TF);
    m.run_to_handler();
    let rsp = m.reg(RSP);
    assert_eq!(m.get_u64(rsp), CODE + 2);
}

#[test]
fn repeated_instructions_count_as_one() {
    let mut m = long(&[0xf3, 0xaa, 0x90], &[(RDI, FROM), (RCX, 0x1_0000)]);
    m.run(2);
    assert_eq!(*m.bus.retired.lock().unwrap(), 2);
    assert_eq!(m.state().general.rip, CODE + 3);
}

#[test]
fn lock_is_undefined() {
    long(&[0xf0, 0xa4], &[(RSI, FROM), (RDI, TO)]).raises(Vector::UD, None);
    long(&[0xf0, 0xaa], &[(RDI, DATA)]).raises(Vector::UD, None);
}
