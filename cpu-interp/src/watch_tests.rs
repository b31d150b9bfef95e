//! Breakpoints and alignment checks, against the statements of the manuals.

use trivium_cpu::bits::{cr0, cr4, debug, rflags};
use trivium_cpu::model::{CpuModel, Vendor};
use trivium_cpu::state::Msrs;
use trivium_cpu::{Exit, Vcpu, Vector};

use crate::testing::{CODE, DATA, HANDLERS, STACK, STACK0, TABLES, TSS, TestMachine, sel};

const DB: u8 = Vector::DB as u8;
/// Conditions of DR7: R/W, and LEN as the number that means so many bytes.
const EXECUTE: u64 = 0;
const WRITE: u64 = 1;
const IO: u64 = 2;
const ACCESS: u64 = 3;
const BYTE: u64 = 0;
const WORD: u64 = 1;
const QWORD: u64 = 2;
const DWORD: u64 = 3;

/// Sets breakpoint `n`, enabled globally.
fn with_point(mut m: TestMachine, n: usize, at: u64, on: u64, len: u64) -> TestMachine {
    m.set(|s| {
        s.debug.address[n] = at;
        s.debug.dr7 |= 2 << (2 * n) | (len << 2 | on) << (16 + 4 * n);
    });
    m
}

/// Runs to the handler of #DB: gives the RIP and RFLAGS that were pushed, and what DR6 has besides
/// its fixed bits.
#[track_caller]
fn debug_exception(m: &mut TestMachine) -> (u64, u64, u64) {
    assert_eq!(m.run_to_handler(), DB);
    let sp = m.reg(4);
    (m.get_u64(sp), m.get_u64(sp + 16), m.state().debug.dr6 ^ debug::DR6_FIXED)
}

/// mov rax, [DATA + offset] and the like: an opcode and its prefixes.
fn absolute(opcode: &[u8], reg: u8, at: u64) -> Vec<u8> {
    let mut code = opcode.to_vec();
    code.extend([4 | reg << 3, 0x25]);
    code.extend((at as u32).to_le_bytes());
    code
}

#[test]
fn instruction_breakpoints_are_faults_before_the_instruction() {
    // nop; inc eax; nop
    let code = [0x90, 0xff, 0xc0, 0x90];
    let mut m = with_point(TestMachine::long(&code), 2, CODE + 1, EXECUTE, BYTE);
    let (rip, flags, dr6) = debug_exception(&mut m);
    assert_eq!((rip, dr6, m.reg(0)), (CODE + 1, 4, 0));
    assert_eq!(flags & rflags::RF, 0, "the image has RF as it was");
}

#[test]
fn rf_in_the_image_that_iret_loads_holds_off_one_instruction_breakpoint() {
    // The handler of #DB sets RF in the image: or dword [rsp + 18], 1; iretq
    let mut m = with_point(TestMachine::long(&[0xff, 0xc0, 0xeb, 0xfc]), 0, CODE, EXECUTE, BYTE);
    m.put(HANDLERS + 16, &[0x80, 0x4c, 0x24, 0x12, 1, 0x48, 0xcf]);
    // inc eax; jmp to it: each round begins with the breakpoint, is begun again, and is completed.
    m.run(4 * 10);
    assert_eq!(m.reg(0), 10);
    assert_eq!(m.state().general.rflags & rflags::RF, 0, "RF is cleared by the next instruction");
}

#[test]
fn instruction_breakpoints_are_met_on_every_way_to_them() {
    // top: call f; dec ecx; jnz top; hlt; f: ret
    let code = [0xe8, 5, 0, 0, 0, 0xff, 0xc9, 0x75, 0xf7, 0xf4, 0xc3];
    let mut m = TestMachine::long(&code);
    m.put(HANDLERS + 16, &[0xff, 0xc0, 0x80, 0x4c, 0x24, 0x12, 1, 0x48, 0xcf]);
    // Once without, so that all is decoded and linked.
    m.set(|s| s.general.regs[1] = 100);
    m.run(2 * 4);
    let mut m = with_point(m, 1, CODE + 10, EXECUTE, BYTE);
    let left = m.reg(1);
    m.run(10_000);
    assert_eq!(m.reg(0), left);
}

#[test]
fn popf_does_not_set_rf() {
    // popfq; nop, with a breakpoint on the latter
    let mut m = with_point(TestMachine::long(&[0x9d, 0x90]), 0, CODE + 1, EXECUTE, BYTE);
    m.put_u64(STACK, rflags::RF | 2);
    assert_eq!(debug_exception(&mut m).0, CODE + 1);
}

#[test]
fn mov_ss_holds_off_an_instruction_breakpoint_on_the_next_instruction() {
    // mov ss, eax; inc ecx; nop
    let mut m = TestMachine::long(&[0x8e, 0xd0, 0xff, 0xc1, 0x90]);
    m.set(|s| s.general.regs[0] = sel::DATA.into());
    let m = with_point(m, 0, CODE + 2, EXECUTE, BYTE);
    let mut m = with_point(m, 1, CODE + 4, EXECUTE, BYTE);
    let (rip, _, dr6) = debug_exception(&mut m);
    assert_eq!((rip, dr6, m.reg(1)), (CODE + 4, 2, 1));
}

#[test]
fn data_breakpoints_are_traps_after_the_instruction() {
    // mov [DATA], eax; nop
    let mut code = absolute(&[0x89], 0, DATA);
    code.push(0x90);
    let mut m = with_point(TestMachine::long(&code), 3, DATA, WRITE, DWORD);
    m.set(|s| s.general.regs[0] = 0x1234_5678);
    let (rip, flags, dr6) = debug_exception(&mut m);
    assert_eq!((rip, dr6, m.get_u32(DATA)), (CODE + 7, 8, 0x1234_5678));
    assert_eq!(flags & rflags::RF, 0);
}

#[test]
fn data_breakpoints_of_each_length_cover_an_aligned_range() {
    // Intel SDM vol. 3B, table 18-1, and lengths of 8.
    let cases = [
        (DATA + 1, BYTE, DATA, 4, true),
        (DATA + 1, BYTE, DATA + 2, 1, false),
        (DATA + 2, WORD, DATA + 3, 1, true),
        (DATA + 2, WORD, DATA, 2, false),
        (DATA + 3, WORD, DATA + 2, 1, true),
        (DATA + 4, DWORD, DATA + 7, 4, true),
        (DATA + 4, DWORD, DATA, 4, false),
        (DATA + 4, DWORD, DATA + 8, 4, false),
        (DATA + 8, QWORD, DATA + 15, 1, true),
        (DATA + 8, QWORD, DATA + 16, 2, false),
        // Across two pages, of which only the second is watched.
        (DATA + 0x1000, BYTE, DATA + 0xffe, 4, true),
    ];
    for (point, len, at, size, met) in cases {
        let opcode: &[u8] = match size {
            1 => &[0x8a],
            2 => &[0x66, 0x8b],
            _ => &[0x8b],
        };
        let mut code = absolute(opcode, 0, at);
        code.push(0xf4);
        let mut m = with_point(TestMachine::long(&code), 0, point, ACCESS, len);
        m.run(100);
        let found = m.state().debug.dr6 & debug::DR6_B != 0;
        assert_eq!(found, met, "{point:x} {len} {at:x} {size}");
    }
}

#[test]
fn loads_do_not_meet_breakpoints_on_writes() {
    let mut code = absolute(&[0x8b], 0, DATA);
    code.extend(absolute(&[0x0f, 0x10], 0, DATA));
    code.push(0xf4);
    let mut m = with_point(TestMachine::long(&code), 0, DATA, WRITE, DWORD);
    m.run(100);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
    // Fetching code is no data access.
    let mut m = with_point(TestMachine::long(&code), 0, CODE, ACCESS, DWORD);
    m.run(100);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
}

#[test]
fn every_kind_of_access_meets_a_data_breakpoint() {
    let codes: [Vec<u8>; 8] = [
        absolute(&[0x01], 0, DATA),       // add [DATA], eax
        absolute(&[0xf0, 0x01], 0, DATA), // lock add [DATA], eax
        absolute(&[0x0f, 0x11], 0, DATA), // movups [DATA], xmm0
        absolute(&[0x0f, 0xc7], 1, DATA), // cmpxchg8b [DATA]
        absolute(&[0xdd], 2, DATA),       // fst qword [DATA]
        absolute(&[0x8f], 0, DATA),       // pop qword [DATA]
        absolute(&[0x0f, 0x01], 0, DATA), // sgdt [DATA]
        absolute(&[0xff], 6, DATA),       // push qword [DATA]
    ];
    for (n, code) in codes.into_iter().enumerate() {
        let on = if n == 7 { ACCESS } else { WRITE };
        let mut m = with_point(TestMachine::long(&code), 1, DATA, on, DWORD);
        let (rip, _, dr6) = debug_exception(&mut m);
        assert_eq!((rip, dr6), (CODE + code.len() as u64, 2), "{code:x?}");
    }
    // Stack accesses: push rax.
    let mut m = with_point(TestMachine::long(&[0x50, 0x90]), 1, STACK - 8, WRITE, QWORD);
    // The handler's stack is another, or its frame would be met too.
    m.put_u64(crate::testing::IDT + 16, m.get_u64(crate::testing::IDT + 16) | 1 << 32);
    m.put_u64(TSS + 36, STACK0);
    assert_eq!(debug_exception(&mut m).2, 2);
}

#[test]
fn a_fault_cancels_the_data_breakpoints_of_its_instruction() {
    // push qword [DATA], to a stack that is not there
    let code = absolute(&[0xff], 6, DATA);
    let mut m = with_point(TestMachine::long(&code).at_cpl3(), 0, DATA, ACCESS, DWORD);
    m.put_u64(TABLES + 0x2018, 0);
    m.set(|s| s.general.regs[4] = 0x60_1000);
    assert_eq!(m.run_to_handler(), Vector::PF as u8);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
}

/// Models by vendor, and RF in the image of a trap between the iterations of a REP: Intel SDM vol.
/// 3B, 18.3.1.1; a Zen 5.
fn between_iterations() -> [(CpuModel, u64); 2] {
    let intel = CpuModel { vendor: Vendor::Intel, ..TestMachine::model() };
    [(intel, rflags::RF), (TestMachine::model(), 0)]
}

#[test]
fn data_breakpoints_stop_a_rep_after_the_iteration() {
    // rep stosb
    for (model, rf) in between_iterations() {
        let m = TestMachine::long_with(model, &[0xf3, 0xaa, 0x90]);
        let mut m = with_point(m, 0, DATA + 5, WRITE, BYTE);
        m.set(|s| (s.general.regs[1], s.general.regs[7]) = (9, DATA));
        let (rip, flags, dr6) = debug_exception(&mut m);
        assert_eq!((rip, dr6, m.reg(1), m.reg(7)), (CODE, 1, 3, DATA + 6));
        assert_eq!(flags & rflags::RF, rf, "not the last iteration");
    }
    // The last one is followed by the next instruction, and RF is clear.
    let mut m = with_point(TestMachine::long(&[0xf3, 0xaa, 0x90]), 0, DATA + 8, WRITE, BYTE);
    m.set(|s| (s.general.regs[1], s.general.regs[7]) = (9, DATA));
    let (rip, flags, _) = debug_exception(&mut m);
    assert_eq!((rip, flags & rflags::RF, m.reg(1)), (CODE + 2, 0, 0));
}

#[test]
fn a_data_breakpoint_met_by_mov_ss_waits_for_the_next_instruction() {
    // mov ss, [DATA]; inc ecx; nop
    let mut code = absolute(&[0x8e], 2, DATA);
    code.extend([0xff, 0xc1, 0x90]);
    let mut m = with_point(TestMachine::long(&code), 0, DATA, ACCESS, WORD);
    m.put(DATA, &sel::DATA.to_le_bytes());
    let (rip, _, dr6) = debug_exception(&mut m);
    assert_eq!((rip, dr6, m.reg(1)), (CODE + 9, 1, 1));
}

#[test]
fn io_breakpoints_need_cr4_de() {
    // in al, 60h; nop
    for (extensions, met) in [(cr4::DE, true), (0, false)] {
        let mut m = with_point(TestMachine::long(&[0xe4, 0x60, 0xf4]), 0, 0x60, IO, BYTE);
        m.set(|s| s.control.cr4 |= extensions);
        m.run(100);
        assert_eq!(m.state().debug.dr6 & 1 != 0, met);
    }
    // out dx, eax touches four ports; rep outsb stops after each.
    for (code, rip) in [(&[0xef, 0x90][..], CODE + 1), (&[0xf3, 0x6e], CODE)] {
        let mut m = with_point(TestMachine::long(code), 0, 0x61, IO, BYTE);
        m.set(|s| {
            s.control.cr4 |= cr4::DE;
            (s.general.regs[1], s.general.regs[2]) = (2, if rip == CODE { 0x61 } else { 0x5f });
            s.general.regs[6] = DATA;
        });
        assert_eq!(debug_exception(&mut m).0, rip);
        assert_eq!(m.bus.written.lock().unwrap().len(), 1);
    }
}

#[test]
fn breakpoints_are_enabled_by_either_of_their_bits() {
    for enable in [1, 2, 3] {
        let mut m = TestMachine::long(&[0x90]);
        m.set(|s| {
            s.debug.address[0] = CODE;
            s.debug.dr7 |= enable;
        });
        assert_eq!(debug_exception(&mut m).2, 1);
    }
    let mut m = TestMachine::long(&[0xf4]);
    m.set(|s| s.debug.address[0] = CODE);
    m.run(10);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
}

#[test]
fn debug_registers_take_effect_with_the_next_instruction() {
    // mov dr0, rax; mov dr7, rbx; mov [DATA], ecx; nop
    let mut code = vec![0x0f, 0x23, 0xc0, 0x0f, 0x23, 0xfb];
    code.extend(absolute(&[0x89], 1, DATA));
    code.push(0x90);
    let mut m = TestMachine::long(&code);
    m.set(|s| (s.general.regs[0], s.general.regs[3]) = (DATA, 0xd_0001));
    assert_eq!(debug_exception(&mut m).0, CODE + 13);
    // And they are lifted with it.
    let mut code = absolute(&[0x89], 1, DATA);
    code.splice(0..0, [0x0f, 0x23, 0xfb]);
    code.push(0xf4);
    let mut m = with_point(TestMachine::long(&code), 0, DATA, WRITE, DWORD);
    m.run(100);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
}

#[test]
fn b0_to_b3_tell_of_the_present_exception_and_the_others_stay() {
    let mut m = with_point(TestMachine::long(&[0x90]), 1, CODE, EXECUTE, BYTE);
    m.set(|s| s.debug.dr6 |= 1 | debug::DR6_BS | debug::DR6_BD);
    let dr6 = debug_exception(&mut m).2;
    assert_eq!(dr6, 2 | debug::DR6_BS | debug::DR6_BD);
}

#[test]
fn general_detect_is_a_fault_and_sets_rf_in_the_image() {
    let mut m = TestMachine::long(&[0x0f, 0x21, 0xc0]);
    m.set(|s| s.debug.dr7 |= debug::DR7_GD);
    let (rip, flags, dr6) = debug_exception(&mut m);
    assert_eq!((rip, flags & rflags::RF, dr6), (CODE, rflags::RF, debug::DR6_BD));
}

#[test]
fn single_step_and_a_data_breakpoint_make_one_exception() {
    let mut code = absolute(&[0x89], 0, DATA);
    code.push(0x90);
    let mut m = with_point(TestMachine::long(&code), 0, DATA, WRITE, DWORD);
    m.set(|s| s.general.rflags |= rflags::TF);
    assert_eq!(debug_exception(&mut m).2, 1 | debug::DR6_BS);
}

#[test]
fn debug_traps_come_before_interrupts_and_instruction_breakpoints_after_them() {
    // sti; mov [DATA], eax; nop: when STI's shadow ends, both wait.
    let mut code = absolute(&[0x89], 0, DATA);
    code.insert(0, 0xfb);
    code.push(0x90);
    let mut m = with_point(TestMachine::long(&code), 0, DATA, WRITE, DWORD);
    *m.bus.interrupt.lock().unwrap() = Some(0x40);
    assert_eq!(m.run_to_handler(), DB);
    let mut m = with_point(TestMachine::long(&[0x90]), 0, CODE, EXECUTE, BYTE);
    m.set(|s| s.general.rflags |= rflags::IF);
    *m.bus.interrupt.lock().unwrap() = Some(0x40);
    assert_eq!(m.run_to_handler(), 0x40);
    assert_eq!(m.get_u64(STACK - 40), CODE);
}

#[test]
fn btf_traps_on_branches_alone() {
    // nop; nop; jmp +1; nop; nop
    let mut m = TestMachine::long(&[0x90, 0x90, 0xeb, 1, 0x90, 0x90]);
    m.set(|s| {
        s.general.rflags |= rflags::TF;
        s.msrs = Msrs { debugctl: 2, ..s.msrs };
    });
    let (rip, _, dr6) = debug_exception(&mut m);
    assert_eq!((rip, dr6), (CODE + 5, debug::DR6_BS));
    assert_eq!(m.state().msrs.debugctl & 2, 0, "#DB clears BTF");
}

#[test]
fn rep_ins_and_outs_are_single_stepped_by_iterations() {
    // rep outsb
    for (model, rf) in between_iterations() {
        let mut m = TestMachine::long_with(model, &[0xf3, 0x6e, 0x90]);
        m.set(|s| {
            (s.general.regs[1], s.general.regs[6]) = (2, DATA);
            s.general.rflags |= rflags::TF;
        });
        let (rip, flags, _) = debug_exception(&mut m);
        assert_eq!((rip, m.reg(1), flags & rflags::RF), (CODE, 1, rf));
    }
    let mut m = TestMachine::long(&[0xf3, 0x6e, 0x90]);
    m.set(|s| {
        (s.general.regs[1], s.general.regs[6]) = (1, DATA);
        s.general.rflags |= rflags::TF;
    });
    let (rip, flags, _) = debug_exception(&mut m);
    assert_eq!((rip, m.reg(1), flags & rflags::RF), (CODE + 2, 0, 0));
}

#[test]
fn interrupts_between_the_iterations_of_a_rep_push_rf() {
    // sti; rep stosq over many pages: the interrupt waits for STI's shadow to end.
    let mut m = TestMachine::long(&[0xfb, 0xf3, 0x48, 0xab]);
    m.set(|s| (s.general.regs[1], s.general.regs[7]) = (0x8000, 0x10_0000));
    *m.bus.interrupt.lock().unwrap() = Some(0x40);
    assert_eq!(m.run_to_handler(), 0x40);
    assert_ne!(m.reg(1), 0);
    assert_eq!((m.get_u64(STACK - 40), m.get_u64(STACK - 24) & rflags::RF), (CODE + 1, rflags::RF));
}

/// A program at CPL 3 with alignment checks.
fn checked(code: &[u8]) -> TestMachine {
    let mut m = TestMachine::long(code).at_cpl3();
    m.set(|s| {
        s.control.cr0 |= cr0::AM;
        s.general.rflags |= rflags::AC;
        s.control.cr4 |= cr4::OSFXSR;
    });
    m
}

#[test]
fn alignment_follows_the_data_type() {
    // SDM vol. 3A, table 6-7; APM vol. 2, 8.2.18. What a Zen 5 says of each is the same.
    let cases: [(&[u8], u8, u64); 34] = [
        (&[0x8a], 0, 1),
        (&[0x66, 0x8b], 0, 2),
        (&[0x8b], 0, 4),
        (&[0x48, 0x8b], 0, 8),
        (&[0x48, 0x89], 0, 8),
        (&[0x48, 0x01], 0, 8),
        (&[0xf0, 0x01], 0, 4),
        (&[0x87], 0, 4),
        (&[0x0f, 0x44], 0, 4), // cmove, taken or not
        (&[0x0f, 0xc7], 1, 8), // cmpxchg8b
        (&[0x0f, 0xa3], 0, 4), // bt
        (&[0x66, 0x0f, 0xa3], 0, 2),
        (&[0x48, 0x0f, 0xab], 0, 8), // bts
        (&[0xff], 6, 8),             // push
        (&[0x8f], 0, 8),             // pop
        (&[0x8e], 0, 2),             // mov es, m16
        (&[0x0f, 0x00], 4, 2),       // verr
        (&[0xd9], 0, 4),             // fld m32
        (&[0xdd], 0, 8),             // fld m64
        (&[0xdb], 5, 8),             // fld m80
        (&[0xdf], 6, 8),             // fbstp
        (&[0xd9], 5, 2),             // fldcw
        (&[0xd9], 6, 4),             // fnstenv
        (&[0x66, 0xd9], 6, 2),
        (&[0xdd], 6, 4), // fnsave
        (&[0x66, 0xdd], 6, 2),
        (&[0x0f, 0x6f], 0, 8),        // movq mm0
        (&[0xf3, 0x0f, 0x10], 0, 4),  // movss
        (&[0xf2, 0x0f, 0x10], 0, 8),  // movsd
        (&[0x0f, 0x12], 0, 8),        // movlps
        (&[0x0f, 0x5a], 0, 8),        // cvtps2pd
        (&[0x0f, 0x10], 0, 16),       // movups
        (&[0xf3, 0x0f, 0x7f], 0, 16), // movdqu
        (&[0x0f, 0xae], 3, 4),        // stmxcsr
    ];
    for (opcode, reg, align) in cases {
        for offset in [0, 1, 2, 4, 8] {
            let mut m = checked(&absolute(opcode, reg, DATA + offset));
            if offset % align == 0 {
                m.run(1);
                assert_eq!(m.state().segments.cpl, 3, "{opcode:x?} {reg} at {offset}");
            } else {
                m.raises(Vector::AC, Some(0));
            }
        }
    }
}

#[test]
fn stack_accesses_are_checked() {
    // push rax; pop rax; ret; call; leave; enter 0, 0; pushfq
    let codes: [&[u8]; 7] =
        [&[0x50], &[0x58], &[0xc3], &[0xe8, 0, 0, 0, 0], &[0xc9], &[0xc8, 0, 0, 0], &[0x9c]];
    for code in codes {
        let mut m = checked(code);
        m.set(|s| (s.general.regs[4], s.general.regs[5]) = (STACK - 12, STACK - 12));
        m.raises(Vector::AC, Some(0));
    }
}

#[test]
fn string_instructions_are_checked_element_by_element() {
    // rep movsd; rep stosq; lodsw; repe cmpsd
    for code in [&[0xf3, 0xa5][..], &[0xf3, 0x48, 0xab], &[0x66, 0xad], &[0xf3, 0xa7]] {
        let mut m = checked(code);
        m.set(|s| {
            (s.general.regs[1], s.general.regs[6], s.general.regs[7]) = (3, DATA + 1, DATA + 1);
        });
        m.raises(Vector::AC, Some(0));
        let mut m = checked(&[0xf3, 0xa4]);
        m.set(|s| {
            (s.general.regs[1], s.general.regs[6], s.general.regs[7]) = (3, DATA + 1, DATA + 9);
        });
        m.run(1);
        assert_eq!(m.reg(1), 0, "bytes have no alignment");
    }
}

#[test]
fn alignment_checks_need_cpl_3_and_both_bits() {
    let code = absolute(&[0x8b], 0, DATA + 1);
    for (am, ac, user) in [(0, rflags::AC, true), (cr0::AM, 0, true), (cr0::AM, rflags::AC, false)]
    {
        let mut m = TestMachine::long(&code);
        m = if user { m.at_cpl3() } else { m };
        m.set(|s| {
            s.control.cr0 |= am;
            s.general.rflags |= ac;
        });
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 7);
    }
}

#[test]
fn alignment_checks_begin_and_end_with_popf() {
    // mov eax, [DATA + 1]; popfq; mov eax, [DATA + 1]
    let load = absolute(&[0x8b], 0, DATA + 1);
    let code = [&load[..], &[0x9d], &load].concat();
    let mut m = checked(&code);
    m.set(|s| s.general.rflags &= !rflags::AC);
    m.put_u64(STACK, rflags::AC | 2);
    assert_eq!(m.run_to_exception(), (Vector::AC as u8, 0));
    assert_eq!(m.get_u64(STACK0 - 40), CODE + 8);
}

#[test]
fn the_processors_own_accesses_are_not_checked() {
    // mov ds, eax, with a descriptor table at an odd address
    let mut m = checked(&[0x8e, 0xd8]);
    let entry = m.entry(sel::USER_DATA);
    m.put_u64(0x1_8001 + u64::from(sel::USER_DATA & !7), entry);
    m.set(|s| {
        s.segments.gdtr.base = 0x1_8001;
        s.general.regs[0] = sel::USER_DATA.into();
    });
    m.run(1);
    assert_eq!(m.state().segments.regs[3].selector, sel::USER_DATA);
}

#[test]
fn misaligned_addresses_are_found_before_missing_pages_but_after_segments() {
    // As on a Zen 5. mov eax, [600001h], where nothing is mapped.
    let mut m = checked(&absolute(&[0x8b], 0, 0x60_0001));
    m.put_u64(TABLES + 0x2018, 0);
    m.raises(Vector::AC, Some(0));
    // mov eax, [rbx], not canonical; movaps xmm0, [DATA + 1]
    let mut m = checked(&[0x8b, 0x03]);
    m.set(|s| s.general.regs[3] = 0x8000_0000_0001);
    m.raises(Vector::GP, Some(0));
    checked(&absolute(&[0x0f, 0x28], 0, DATA + 1)).raises(Vector::GP, Some(0));
    // fxsave: #AC for what is not even aligned to 4 bytes, else #GP.
    checked(&absolute(&[0x0f, 0xae], 0, DATA + 2)).raises(Vector::AC, Some(0));
    checked(&absolute(&[0x0f, 0xae], 0, DATA + 4)).raises(Vector::GP, Some(0));
}

#[test]
fn an_alignment_check_on_its_own_handlers_stack_can_be_interrupted() {
    // mov eax, [DATA + 1], with a handler of CPL 3 and its stack misaligned
    let mut m = TestMachine::protected(&[0xa1, 1, 0xb0, 0, 0]).at_cpl3();
    let handler = crate::testing::gate(sel::USER_CODE, HANDLERS, 0xee);
    m.put_u64(crate::testing::IDT + 8 * 17, handler);
    m.set(|s| {
        s.control.cr0 |= cr0::AM;
        s.general.rflags |= rflags::AC;
        s.general.regs[4] = STACK - 2;
    });
    let kicker = m.cpu.kicker();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        kicker.kick();
    });
    assert_eq!(m.run(u64::MAX), Exit::Kicked);
    thread.join().unwrap();
    assert_eq!(m.state().general.rip, CODE);
}

#[test]
fn virtual_8086_code_is_checked() {
    // mov ax, [0x1001]
    let mut m = TestMachine::protected(&[0xa1, 0x01, 0x10]).in_v86(3);
    m.set(|s| {
        s.control.cr0 |= cr0::AM;
        s.general.rflags |= rflags::AC;
    });
    assert_eq!(m.run_to_exception(), (Vector::AC as u8, 0));
}
