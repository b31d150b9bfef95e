//! What of instructions depends on more than iced-x86 tells: vendors' ways with prefixes.

use trivium_cpu::Vector;
use trivium_cpu::bits::cr4;
use trivium_cpu::model::Vendor;

use crate::testing::TestMachine;

/// As a Zen 5 does it: F3 with REX.B is no PAUSE, and keeps its operand size.
#[test]
fn exchanges_with_r8_behind_f3_have_all_operand_sizes() {
    let (rax, r8) = (0x1111_2222_3333_4444, 0x5555_6666_7777_8888);
    let cases: [(&[u8], u64, u64); 3] = [
        (&[0xf3, 0x41, 0x90], 0x7777_8888, 0x3333_4444),
        (&[0xf3, 0x49, 0x90], r8, rax),
        (&[0xf3, 0x66, 0x41, 0x90], 0x1111_2222_3333_8888, 0x5555_6666_7777_4444),
    ];
    for (code, new_rax, new_r8) in cases {
        let mut machine = TestMachine::long(code);
        machine.set(|state| (state.general.regs[0], state.general.regs[8]) = (rax, r8));
        machine.run(1);
        assert_eq!((machine.reg(0), machine.reg(8)), (new_rax, new_r8), "{code:02x?}");
    }
}

/// SDM vol. 2, VPINSRD and VPEXTRD: VEX.W is ignored outside of 64-bit code; on a Zen 5 it is not.
#[test]
fn wide_elements_are_undefined_outside_of_64_bit_code_on_amds_processors() {
    // VPINSRD xmm0, xmm0, eax, 1 and VPEXTRD eax, xmm0, 1 with W set.
    for code in [[0xc4, 0xe3, 0xf9, 0x22, 0xc0, 1], [0xc4, 0xe3, 0xf9, 0x16, 0xc0, 1]] {
        let machine = |vendor| {
            let model = trivium_cpu::model::CpuModel { vendor, ..TestMachine::model() };
            let mut machine = TestMachine::protected_with(model, &code);
            machine.set(|state| {
                state.control.cr4 |= cr4::OSXSAVE | cr4::OSFXSR;
                state.control.xcr0 = 7;
            });
            machine
        };
        machine(Vendor::Amd).raises(Vector::UD, None);
        let mut intel = machine(Vendor::Intel);
        intel.run(1);
        assert_eq!(intel.state().general.rip, crate::testing::CODE + 6);
    }
}
