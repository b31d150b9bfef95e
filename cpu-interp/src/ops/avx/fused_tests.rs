//! FMA and F16C: which operand is which, and what faults.

use trivium_cpu::Vector;
use trivium_cpu::bits::cr4;

use crate::testing::TestMachine;

const RDI: usize = 7;

/// XCR0 with x87, SSE and AVX.
const ALL: u64 = 7;

/// A machine with these vector registers.
fn machine(code: &[u8], regs: &[[u64; 4]]) -> TestMachine {
    let mut m = TestMachine::long(code);
    m.set(|state| {
        state.control.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        state.control.xcr0 = ALL;
        state.vector.regs[..regs.len()].copy_from_slice(regs);
    });
    m
}

fn run(code: &[u8], regs: &[[u64; 4]]) -> [u64; 4] {
    let mut m = machine(code, regs);
    m.run(1);
    m.state().vector.regs[0]
}

fn doubles(values: [f64; 4]) -> [u64; 4] {
    values.map(f64::to_bits)
}

/// Intel SDM vol. 2, VFMADD132SD, VFMADD213SD and VFMADD231SD: of the operands 1 to 3, the first two
/// digits' are multiplied and the last's is added. The upper half of the XMM register stays.
#[test]
fn digits_tell_what_is_multiplied_and_what_is_added() {
    let regs = [2.0, 3.0, 5.0].map(|v| doubles([v, 7.0, 8.0, 9.0]));
    for (opcode, expected) in [(0x99, 13.0), (0xa9, 11.0), (0xb9, 17.0)] {
        let value = run(&[0xc4, 0xe2, 0xf1, opcode, 0xc2], &regs);
        let [low, high, ..] = doubles([expected, 7.0, 0.0, 0.0]);
        assert_eq!(value, [low, high, 0, 0], "{opcode:x}");
    }
}

/// Intel SDM vol. 2, VFMADDSUB231PD and VFMSUBADD231PD.
#[test]
fn even_and_odd_lanes_subtract_and_add() {
    let regs = [1.0, 3.0, 5.0].map(|v| doubles([v; 4]));
    let fmaddsub = run(&[0xc4, 0xe2, 0xf5, 0xb6, 0xc2], &regs);
    assert_eq!(fmaddsub, doubles([14.0, 16.0, 14.0, 16.0]));
    let fmsubadd = run(&[0xc4, 0xe2, 0xf5, 0xb7, 0xc2], &regs);
    assert_eq!(fmsubadd, doubles([16.0, 14.0, 16.0, 14.0]));
}

/// Of 1, -2, the largest half and the least.
#[test]
fn halves_become_singles_and_come_back() {
    const HALVES: u64 = 0x0001_7bff_c000_3c00;
    const SINGLES: [u64; 2] = [0xc000_0000_3f80_0000, 0x3380_0000_477f_e000];
    let wide = run(&[0xc4, 0xe2, 0x7d, 0x13, 0xc1], &[[0; 4], [HALVES, HALVES, !0, !0]]);
    assert_eq!(wide, [SINGLES[0], SINGLES[1], SINGLES[0], SINGLES[1]]);
    let narrow = run(&[0xc4, 0xe3, 0x7d, 0x1d, 0xc8, 0], &[[!0; 4], wide]);
    assert_eq!(narrow, [HALVES, HALVES, 0, 0]);
}

/// So Zen 4 does it.
#[test]
fn a_store_of_halves_faults_before_the_conversion() {
    const VCVTPS2PH_RDI: &[u8] = &[0xc4, 0xe3, 0x79, 0x1d, 0x0f, 0];
    const PRECISION: u32 = 1 << 5;
    const NOT_CANONICAL: u64 = 1 << 63;
    let one_third = [0x3eaa_aaab, 0, 0, 0];
    for (rdi, vector) in [(NOT_CANONICAL, Vector::GP), (crate::testing::DATA, Vector::XM)] {
        let mut m = machine(VCVTPS2PH_RDI, &[[0; 4], one_third]);
        m.set(|state| {
            state.general.regs[RDI] = rdi;
            state.vector.mxcsr = 0;
        });
        assert_eq!(m.run_to_handler(), vector as u8);
        let flags = if vector == Vector::XM { PRECISION } else { 0 };
        assert_eq!(m.state().vector.mxcsr, flags);
    }
}
