//! The x87 unit as the manual tells of it (Intel SDM vol. 1, chapter 8). What the instructions compute
//! is tested where that is done, in `trivium-host-fpu`.

use trivium_cpu::Vector;
use trivium_cpu::bits::{cr0, rflags};
use trivium_cpu::model::CpuModel;
use trivium_cpu::state::{Activity, DS, X87, X87Register};
use trivium_cpu::{CpuState, Exit};
use trivium_host_fpu::F80;
use trivium_host_fpu::x87::status::{C0, C1, C2, C3, ES, IE, PE, SF, ZE};

use crate::testing::{CODE, DATA, TestMachine};

const BUSY: u16 = 1 << 15;
const FNINIT: [u8; 2] = [0xdb, 0xe3];
const FLD1: [u8; 2] = [0xd9, 0xe8];
const FLDZ: [u8; 2] = [0xd9, 0xee];
const FNSTSW_AX: [u8; 2] = [0xdf, 0xe0];
const FWAIT: [u8; 1] = [0x9b];

/// An instruction with a 32-bit displacement for its address.
pub fn mem(opcode: u8, reg: u8, at: u64) -> [u8; 6] {
    let [a, b, c, d] = (at as u32).to_le_bytes();
    [opcode, reg << 3 | 5, a, b, c, d]
}

fn fld_m32(at: u64) -> [u8; 6] {
    mem(0xd9, 0, at)
}

fn fldcw(at: u64) -> [u8; 6] {
    mem(0xd9, 5, at)
}

/// FNINIT and this code in 32-bit protected mode, CR0.NE set, to be run to its end.
fn prepared(parts: &[&[u8]]) -> TestMachine {
    let code = [&FNINIT, parts.concat().as_slice(), &[0xf4]].concat();
    let mut machine = TestMachine::protected(&code);
    machine.set(|state| state.control.cr0 |= cr0::NE);
    machine
}

/// Runs to the HLT after the code.
#[track_caller]
fn run_through(machine: &mut TestMachine) -> CpuState {
    assert_eq!(machine.run(1000), Exit::Halted);
    let state = machine.state();
    assert!(state.general.rip < CODE + 0x1000, "ended in a handler: {:#x}", state.general.rip);
    state
}

/// The x87 unit after this code.
#[track_caller]
fn after(parts: &[&[u8]]) -> X87 {
    run_through(&mut prepared(parts)).x87
}

fn top(x87: &X87) -> u16 {
    x87.status >> 11 & 7
}

/// The status word without TOP.
fn flags(x87: &X87) -> u16 {
    x87.status & !(7 << 11)
}

/// ST(n), if it is not empty.
fn st(x87: &X87, n: u16) -> Option<F80> {
    let number = (top(x87) + n) & 7;
    let X87Register { mantissa, sign_exponent } = x87.regs[usize::from(number)];
    let empty = x87.tags >> (2 * number) & 3 == 3;
    (!empty).then(|| F80::from_bits(sign_exponent, mantissa))
}

/// A whole number in double extended format.
fn whole(value: i64) -> F80 {
    let magnitude = value.unsigned_abs();
    let zeros = magnitude.leading_zeros() as u16;
    let sign = if value < 0 { 0x8000 } else { 0 };
    F80::from_bits(sign | (0x3fff + 63 - zeros), magnitude << zeros)
}

const HALF: F80 = F80::from_bits(0x3ffe, 1 << 63);

#[test]
fn fninit_sets_the_state_of_table_8_2() {
    let mut machine = prepared(&[]);
    machine.set(|state| {
        state.x87.last_ip = 1;
        state.x87.last_dp = 2;
        state.x87.last_opcode = 3;
    });
    let x87 = run_through(&mut machine).x87;
    assert_eq!((x87.control, x87.status, x87.tags), (0x37f, 0, 0xffff));
    assert_eq!((x87.last_ip, x87.last_dp, x87.last_opcode), (0, 0, 0));
}

#[test]
fn arithmetic_with_memory() {
    let rows =
        [(0, whole(9)), (1, whole(18)), (4, whole(3)), (5, whole(-3)), (6, whole(2)), (7, HALF)];
    for (reg, expected) in rows {
        for (opcode, operand) in
            [(0xd8, u64::from(3_f32.to_bits())), (0xdc, 3_f64.to_bits()), (0xda, 3), (0xde, 3)]
        {
            let mut machine = prepared(&[&fld_m32(DATA), &mem(opcode, reg, DATA + 8)]);
            machine.put(DATA, &6_f32.to_le_bytes());
            machine.put_u64(DATA + 8, operand);
            let x87 = run_through(&mut machine).x87;
            assert_eq!(st(&x87, 0), Some(expected), "{opcode:x} /{reg}");
            assert_eq!(top(&x87), 7);
        }
    }
}

#[test]
fn arithmetic_between_registers() {
    // ST(1) = 6, ST(0) = 3. Encodings of SDM vol. 2: FSUB is D8 E0+i, but DC E8+i.
    let rows: [([u8; 2], u16, F80); 18] = [
        ([0xd8, 0xc1], 0, whole(9)),
        ([0xd8, 0xc9], 0, whole(18)),
        ([0xd8, 0xe1], 0, whole(-3)),
        ([0xd8, 0xe9], 0, whole(3)),
        ([0xd8, 0xf1], 0, HALF),
        ([0xd8, 0xf9], 0, whole(2)),
        ([0xdc, 0xc1], 1, whole(9)),
        ([0xdc, 0xc9], 1, whole(18)),
        ([0xdc, 0xe9], 1, whole(3)),
        ([0xdc, 0xe1], 1, whole(-3)),
        ([0xdc, 0xf9], 1, whole(2)),
        ([0xdc, 0xf1], 1, HALF),
        ([0xde, 0xc1], 0, whole(9)),
        ([0xde, 0xc9], 0, whole(18)),
        ([0xde, 0xe9], 0, whole(3)),
        ([0xde, 0xe1], 0, whole(-3)),
        ([0xde, 0xf9], 0, whole(2)),
        ([0xde, 0xf1], 0, HALF),
    ];
    for (code, n, expected) in rows {
        let mut machine = prepared(&[&fld_m32(DATA), &fld_m32(DATA + 4), &code]);
        machine.put(DATA, &6_f32.to_le_bytes());
        machine.put(DATA + 4, &3_f32.to_le_bytes());
        let x87 = run_through(&mut machine).x87;
        assert_eq!(st(&x87, n), Some(expected), "{code:02x?}");
        assert_eq!(top(&x87), if code[0] == 0xde { 7 } else { 6 }, "{code:02x?}");
    }
}

#[test]
fn a_masked_stack_overflow_pushes_indefinite_and_sets_c1() {
    let x87 = after(&[&FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLD1]);
    assert_eq!(flags(&x87), IE | SF | C1);
    assert_eq!(top(&x87), 7);
    assert_eq!(st(&x87, 0), Some(F80::INDEFINITE));
    assert_eq!(st(&x87, 1), Some(F80::ZERO));
}

#[test]
fn a_masked_stack_underflow_gives_indefinite_and_clears_c1() {
    // FADD ST(0), ST(1) with ST(1) empty.
    let x87 = after(&[&FLD1, &[0xd8, 0xc1]]);
    assert_eq!((flags(&x87), top(&x87)), (IE | SF, 7));
    assert_eq!(st(&x87, 0), Some(F80::INDEFINITE));
}

#[test]
fn unmasked_stack_faults_leave_the_stack_alone() {
    let mut machine = prepared(&[&fldcw(DATA), &FLD1, &[0xd8, 0xc1], &FNSTSW_AX]);
    machine.put(DATA, &0x37e_u16.to_le_bytes());
    let state = run_through(&mut machine);
    assert_eq!((flags(&state.x87), top(&state.x87)), (IE | SF | ES | BUSY, 7));
    assert_eq!(st(&state.x87, 0), Some(F80::ONE));
    // FNSTSW did not wait.
    assert_eq!(state.general.regs[0] as u16, IE | SF | ES | BUSY | 7 << 11);
}

#[test]
fn stores_of_an_empty_register_give_the_indefinite_of_the_format() {
    let rows: [(u8, u8, &[u8]); 7] = [
        (0xd9, 3, &[0, 0, 0xc0, 0xff]),
        (0xdd, 3, &[0, 0, 0, 0, 0, 0, 0xf8, 0xff]),
        (0xdb, 7, &[0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff]),
        (0xdf, 3, &[0, 0x80]),
        (0xdb, 3, &[0, 0, 0, 0x80]),
        (0xdf, 7, &[0, 0, 0, 0, 0, 0, 0, 0x80]),
        (0xdf, 6, &[0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff]),
    ];
    for (opcode, reg, expected) in rows {
        let mut machine = prepared(&[&mem(opcode, reg, DATA)]);
        machine.put(DATA, &[0x55; 16]);
        let x87 = run_through(&mut machine).x87;
        let stored: [u8; 16] = machine.get(DATA);
        assert_eq!(&stored[..expected.len()], expected, "{opcode:x} /{reg}");
        assert_eq!(stored[expected.len()], 0x55, "{opcode:x} /{reg}");
        assert_eq!((flags(&x87), top(&x87)), (IE | SF, 1), "{opcode:x} /{reg}");
    }
}

#[test]
fn fisttp_truncates_whatever_the_rounding_is() {
    // Rounding up; ST(0) = -2.75, then the same by FIST: -2 either way; 2.75 gives 2 and 3.
    for (value, truncated, up) in [(2.75_f32, 2_i32, 3_i32), (-2.75, -2, -2)] {
        let fist = mem(0xdb, 2, DATA + 8);
        let fisttp = mem(0xdb, 1, DATA + 12);
        let mut machine = prepared(&[&fldcw(DATA), &fld_m32(DATA + 4), &fist, &fisttp]);
        machine.put(DATA, &0xb7f_u16.to_le_bytes());
        machine.put(DATA + 4, &value.to_le_bytes());
        let x87 = run_through(&mut machine).x87;
        assert_eq!(machine.get_u32(DATA + 8) as i32, up);
        assert_eq!(machine.get_u32(DATA + 12) as i32, truncated);
        assert_eq!((x87.tags, x87.status & PE), (0xffff, PE));
    }
}

#[test]
fn packed_bcd_goes_both_ways() {
    let bcd = [0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0x80];
    let mut machine = prepared(&[&mem(0xdf, 4, DATA), &[0xd9, 0xc0], &mem(0xdf, 6, DATA + 16)]);
    machine.put(DATA, &bcd);
    let x87 = run_through(&mut machine).x87;
    assert_eq!(st(&x87, 0), Some(whole(-1234)));
    assert_eq!(machine.get::<10>(DATA + 16), bcd);
}

#[test]
fn an_unmasked_zero_divide_keeps_the_operands_and_raises_mf_before_the_next_waiting_instruction() {
    // FDIV ST(0), ST(1): 1 / 0.
    for waiting in [&FLD1[..], &FWAIT, &[0xd9, 0xd0], &fldcw(DATA), &mem(0xdd, 4, DATA)] {
        let mut machine = prepared(&[&fldcw(DATA), &FLDZ, &FLD1, &[0xd8, 0xf1], waiting]);
        machine.put(DATA, &0x37b_u16.to_le_bytes());
        assert_eq!(machine.run(5), Exit::Budget);
        let x87 = machine.state().x87;
        assert_eq!((flags(&x87), top(&x87)), (ZE | ES | BUSY, 6));
        assert_eq!(st(&x87, 0), Some(F80::ONE));
        machine.raises(Vector::MF, None);
        assert_eq!(machine.state().x87, x87);
    }
}

#[test]
fn fnclex_takes_a_pending_exception_back() {
    let mut machine =
        prepared(&[&fldcw(DATA), &FLDZ, &FLD1, &[0xd8, 0xf1], &[0xdb, 0xe2], &FWAIT, &FLD1]);
    machine.put(DATA, &0x37b_u16.to_le_bytes());
    let x87 = run_through(&mut machine).x87;
    assert_eq!((flags(&x87), top(&x87)), (0, 5));
}

#[test]
fn fldcw_raises_what_was_masked() {
    let mut machine = prepared(&[&FLDZ, &FLD1, &[0xd8, 0xf1], &fldcw(DATA), &FWAIT]);
    machine.put(DATA, &0x37b_u16.to_le_bytes());
    assert_eq!(machine.run(5), Exit::Budget);
    assert_eq!(flags(&machine.state().x87), ZE | ES | BUSY);
    machine.raises(Vector::MF, None);
}

#[test]
fn with_cr0_ne_clear_an_error_is_an_interrupt_before_the_waiting_instruction() {
    let mut machine =
        prepared(&[&fldcw(DATA), &FLDZ, &FLD1, &[0xd8, 0xf1], &FNSTSW_AX, &FLD1, &[0xdb, 0xe2]]);
    machine.put(DATA, &0x37b_u16.to_le_bytes());
    machine.set(|state| {
        state.control.cr0 &= !cr0::NE;
        state.general.rflags |= rflags::IF;
    });
    assert_eq!(machine.run(6), Exit::Budget);
    assert!(machine.bus.ferr.lock().unwrap().is_empty());
    let rip = machine.state().general.rip;
    assert_eq!(machine.run_to_handler(), 0x75);
    assert_eq!(*machine.bus.ferr.lock().unwrap(), [true]);
    let esp = machine.reg(4);
    assert_eq!(u64::from(machine.get_u32(esp)), rip);
    // The handler returns, which it does with IGNNE# asserted.
    machine.set(|state| {
        state.general.rip = rip;
        state.events.activity = Activity::Running;
    });
    let x87 = run_through(&mut machine).x87;
    assert_eq!((flags(&x87), top(&x87)), (0, 5));
    // Once each: FERR# is part of the state that was put back.
    assert_eq!(*machine.bus.ferr.lock().unwrap(), [true, false]);
}

#[test]
fn cr0_em_and_ts_raise_nm() {
    // FLD1; FNINIT, FNSTSW AX and FNSTCW wait for nothing, but are x87 instructions.
    for code in [&FLD1[..], &FNINIT, &FNSTSW_AX, &mem(0xd9, 7, DATA), &mem(0xdd, 6, DATA)] {
        for bits in [cr0::EM, cr0::TS, cr0::TS | cr0::MP] {
            let mut machine = TestMachine::protected(code);
            machine.set(|state| state.control.cr0 |= bits);
            machine.raises(Vector::NM, None);
        }
    }
    for bits in [cr0::EM, cr0::TS, cr0::MP, cr0::EM | cr0::MP] {
        let mut machine = TestMachine::protected(&FWAIT);
        machine.set(|state| state.control.cr0 |= bits);
        assert_eq!(machine.run(1), Exit::Budget);
        assert_eq!(machine.state().general.rip, CODE + 1);
    }
    let mut machine = TestMachine::protected(&FWAIT);
    machine.set(|state| state.control.cr0 |= cr0::TS | cr0::MP);
    machine.raises(Vector::NM, None);
}

#[test]
fn pointers_and_opcode_are_the_last_instructions_that_is_not_a_control_instruction() {
    // Prefixes come before the opcode, and belong to the instruction pointer's place. FNSTCW is a
    // control instruction.
    let fld = [&[0x3e], &fld_m32(DATA)[..]].concat();
    let x87 = after(&[&fld, &mem(0xd9, 7, DATA + 8)]);
    assert_eq!((x87.last_ip, x87.last_cs), (CODE + 2, crate::testing::sel::CODE));
    assert_eq!((x87.last_dp, x87.last_ds), (DATA, crate::testing::sel::DATA));
    assert_eq!(x87.last_opcode, 0x105);
    // Without a memory operand, the data pointer stays.
    let x87 = after(&[&fld, &FLD1]);
    assert_eq!((x87.last_ip, x87.last_dp, x87.last_opcode), (CODE + 9, DATA, 0x1e8));
}

#[test]
fn comparisons_set_condition_codes_or_eflags() {
    // ST(0) against ST(1): table 8-6 and table 8-7.
    let nan = f32::NAN;
    let rows = [
        (2_f32, 1_f32, 0, 0),
        (1., 2., C0, rflags::CF),
        (1., 1., C3, rflags::ZF),
        (nan, 1., C3 | C2 | C0, rflags::ZF | rflags::PF | rflags::CF),
    ];
    for (a, b, codes, eflags) in rows {
        // FCOM, FUCOM, FCOMPP, FCOMI, FUCOMIP.
        for (code, pops) in [
            ([0xd8, 0xd1], 0),
            ([0xdd, 0xe1], 0),
            ([0xde, 0xd9], 2),
            ([0xdb, 0xf1], 0),
            ([0xdf, 0xe9], 1),
        ] {
            let to_flags = code[0] == 0xdb || code[0] == 0xdf;
            let mut machine = prepared(&[&fld_m32(DATA), &fld_m32(DATA + 4), &code]);
            machine.put(DATA, &b.to_le_bytes());
            machine.put(DATA + 4, &a.to_le_bytes());
            machine.set(|state| state.general.rflags |= rflags::STATUS);
            let state = run_through(&mut machine);
            let x87 = state.x87;
            let expected = if to_flags { 0 } else { codes };
            assert_eq!(x87.status & (C3 | C2 | C1 | C0), expected, "{code:02x?} {a} {b}");
            if to_flags {
                assert_eq!(state.general.rflags & rflags::STATUS, eflags, "{code:02x?} {a} {b}");
            }
            let invalid = a.is_nan() && matches!(code[0], 0xd8 | 0xde | 0xdb);
            assert_eq!(x87.status & IE != 0, invalid, "{code:02x?} {a} {b}");
            assert_eq!(top(&x87), 6 + pops & 7);
        }
    }
}

#[test]
fn fxam_knows_empty_registers() {
    assert_eq!(flags(&after(&[&[0xd9, 0xe5]])), C3 | C0);
    assert_eq!(flags(&after(&[&FLDZ, &[0xd9, 0xe5]])), C3);
    // FCHS before it.
    assert_eq!(flags(&after(&[&FLD1, &[0xd9, 0xe0], &[0xd9, 0xe5]])), C2 | C1);
}

#[test]
fn fcmov_moves_on_its_condition() {
    use rflags::{CF, PF, ZF};
    for (opcode, base, flag, when) in [
        (0xda, 0xc1, CF, true),
        (0xda, 0xc9, ZF, true),
        (0xda, 0xd1, CF, true),
        (0xda, 0xd1, ZF, true),
        (0xda, 0xd9, PF, true),
        (0xdb, 0xc1, CF, false),
        (0xdb, 0xc9, ZF, false),
        (0xdb, 0xd1, ZF, false),
        (0xdb, 0xd9, PF, false),
    ] {
        for set in [false, true] {
            let mut machine = prepared(&[&FLDZ, &FLD1, &[opcode, base]]);
            machine.set(|state| state.general.rflags |= if set { flag } else { 0 });
            let x87 = run_through(&mut machine).x87;
            let expected = if set == when { F80::ZERO } else { F80::ONE };
            assert_eq!(st(&x87, 0), Some(expected), "{opcode:x} {base:x} {flag:x}");
        }
    }
}

#[test]
fn fxch_ffree_fincstp_and_fdecstp() {
    let x87 = after(&[&FLDZ, &FLD1, &[0xd9, 0xc9]]);
    assert_eq!((st(&x87, 0), st(&x87, 1)), (Some(F80::ZERO), Some(F80::ONE)));
    // FXCH with an empty register.
    let x87 = after(&[&FLD1, &[0xd9, 0xca]]);
    assert_eq!((st(&x87, 0), st(&x87, 2)), (Some(F80::INDEFINITE), Some(F80::ONE)));
    assert_eq!(flags(&x87), IE | SF);
    let x87 = after(&[&FLD1, &[0xdd, 0xc0]]);
    assert_eq!((st(&x87, 0), top(&x87)), (None, 7));
    let x87 = after(&[&FLD1, &[0xd9, 0xf7]]);
    assert_eq!((st(&x87, 7), top(&x87)), (Some(F80::ONE), 0));
    let x87 = after(&[&FLD1, &[0xd9, 0xf6]]);
    assert_eq!((st(&x87, 1), top(&x87)), (Some(F80::ONE), 6));
}

#[test]
fn functions_that_push_need_room() {
    // FXTRACT of 6.0: exponent 2, significand 1.5.
    let mut machine = prepared(&[&fld_m32(DATA), &[0xd9, 0xf4]]);
    machine.put(DATA, &6_f32.to_le_bytes());
    let x87 = run_through(&mut machine).x87;
    assert_eq!(st(&x87, 0), Some(F80::from_bits(0x3fff, 3 << 62)));
    assert_eq!((st(&x87, 1), top(&x87)), (Some(whole(2)), 6));
    // FSINCOS and FPTAN on a full stack.
    for code in [[0xd9, 0xfb], [0xd9, 0xf2]] {
        let x87 = after(&[&FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &FLDZ, &code]);
        assert_eq!((flags(&x87), top(&x87)), (IE | SF | C1, 7));
        assert_eq!((st(&x87, 0), st(&x87, 1)), (Some(F80::INDEFINITE), Some(F80::INDEFINITE)));
    }
    // FPTAN of 0 is 0, and pushes 1. FSIN of 2^63 is out of range.
    let x87 = after(&[&FLDZ, &[0xd9, 0xf2]]);
    assert_eq!((st(&x87, 0), st(&x87, 1)), (Some(F80::ONE), Some(F80::ZERO)));
    let mut machine = prepared(&[&fld_m32(DATA), &[0xd9, 0xfb]]);
    machine.put(DATA, &(63_f32.exp2()).to_le_bytes());
    let x87 = run_through(&mut machine).x87;
    assert_eq!((flags(&x87) & C2, top(&x87)), (C2, 7));
}

#[test]
fn a_fault_of_memory_changes_nothing() {
    // FSTP m64, FADD m32, FBSTP and FNSAVE at RCX, which begin in a page and end in none.
    for (code, len) in
        [([0xdd, 0x19], 8), ([0xd8, 0x01], 4), ([0xdf, 0x31], 10), ([0xdd, 0x31], 108)]
    {
        for in_page in [0, len - 2] {
            let mut machine = TestMachine::long(&[&FNINIT[..], &FLD1, &code].concat());
            machine.set(|state| state.general.regs[1] = 0x80_0000 - in_page);
            assert_eq!(machine.run(2), Exit::Budget);
            let before = machine.state().x87;
            // A store has bit 1 of the error code set.
            machine.raises(Vector::PF, Some(if code[0] == 0xd8 { 0 } else { 2 }));
            assert_eq!(machine.state().x87, before, "{code:02x?}");
            assert!(machine.bus.mmio.lock().unwrap().is_empty(), "{code:02x?}");
        }
    }
}

/// Whether SDM vol. 2, tables have an instruction there, or all processors an alias.
fn exists(opcode: u8, modrm: u8) -> bool {
    let reg = modrm >> 3 & 7;
    match (opcode, modrm) {
        (0xd9, ..0xc0) => reg != 1,
        (0xdb, ..0xc0) => reg != 4 && reg != 6,
        (0xdd, ..0xc0) => reg != 5,
        (0xd9, 0xd1..=0xd7 | 0xe2 | 0xe3 | 0xe6 | 0xe7 | 0xef) => false,
        (0xda, 0xe0..) => modrm == 0xe9,
        (0xdb, 0xe5..=0xe7 | 0xf8..) => false,
        (0xdd, 0xf0..) => false,
        (0xde, 0xd8 | 0xda..=0xdf) => false,
        (0xdf, 0xe1..=0xe7 | 0xf8..) => false,
        _ => true,
    }
}

#[test]
fn the_opcode_maps_have_no_holes_but_the_reserved_ones() {
    let mut machine = prepared(&[]);
    for opcode in 0xd8..=0xdf {
        for modrm in (0x00..0x40).step_by(8).chain(0xc0..=0xff) {
            machine.put(CODE, &[opcode, modrm]);
            machine.set(|state| {
                state.events.activity = Activity::Running;
                state.general.rip = CODE;
                state.general.regs[0] = DATA;
                state.general.regs[4] = crate::testing::STACK;
                state.x87 = X87 { control: 0x37f, ..X87::default() };
            });
            machine.run(1);
            let done = machine.state().general.rip == CODE + 2;
            assert_eq!(done, exists(opcode, modrm), "{opcode:02x} {modrm:02x}");
        }
    }
}

/// A store whose exception is not masked leaves memory as it is, but must be able to write there.
/// As a Zen 5 does it.
#[test]
fn a_store_looks_at_memory_before_its_unmasked_exceptions() {
    let unmasked: &[u8] = &fldcw(DATA);
    // FISTP m16, FSTP m32, FSTP m80, FBSTP m80 of an empty register.
    for (opcode, reg) in [(0xdf, 3), (0xd9, 3), (0xdb, 7), (0xdf, 6)] {
        let mut machine = prepared(&[unmasked, &mem(opcode, reg, 0xffff_fff9)]);
        machine.put(DATA, &0x37e_u16.to_le_bytes());
        machine.set(|state| state.segments.regs[DS].limit = 0xffff_fff9);
        assert_eq!(machine.run_to_exception(), (Vector::GP as u8, 0), "{opcode:x} /{reg}");
        let x87 = machine.state().x87;
        assert_eq!((x87.status, x87.last_opcode), (0, 0), "{opcode:x} /{reg}");

        let mut machine = prepared(&[unmasked, &mem(opcode, reg, DATA + 16)]);
        machine.put(DATA, &0x37e_u16.to_le_bytes());
        let x87 = run_through(&mut machine).x87;
        assert_eq!(flags(&x87), IE | SF | ES | BUSY, "{opcode:x} /{reg}");
        assert_eq!(machine.get::<10>(DATA + 16), [0; 10], "{opcode:x} /{reg}");
    }
}

/// What is wrong with the first eight bytes counts, as a Zen 5 does it: here they are on a page
/// that is not there, and the other two beyond the canonical addresses.
#[test]
fn ten_bytes_are_loaded_and_stored_as_eight_and_two() {
    for (modrm, code) in [(0x2e, 0), (0x3e, 2)] {
        let mut machine = TestMachine::long(&[0xdb, modrm, 0xf4]);
        machine.set(|state| state.general.regs[6] = 0x7fff_ffff_fff7);
        machine.raises(Vector::PF, Some(code));
    }
}

/// SDM vol. 2, FCOMI: "C1 set to 0"; a Zen 5 leaves it alone unless a register is empty.
#[test]
fn fcomi_clears_c1_on_intels_processors() {
    const FCOMI_ST1: [u8; 2] = [0xdb, 0xf1];
    for (name, compared) in [("max", C1), ("core2duo", 0)] {
        for (tags, expected) in [(0, compared), (0xffff, IE | SF)] {
            let model = CpuModel::by_name(name).unwrap();
            let mut machine = TestMachine::long_with(model, &[FCOMI_ST1[0], FCOMI_ST1[1], 0xf4]);
            machine.set(|state| state.x87 = X87 { control: 0x37f, status: C1, tags, ..state.x87 });
            assert_eq!(run_through(&mut machine).x87.status, expected, "{name}");
        }
    }
}
