//! Which of two exceptions of an instruction is raised, what single-stepping stops after, and what
//! becomes of exceptions during the delivery of others. Intel SDM vol. 3A, tables 6-2, 6-5 and 2-2;
//! AMD APM vol. 2, 8.5.

use trivium_cpu::bits::{cr0, cr4, debug, efer, rflags};
use trivium_cpu::model::{CpuModel, Vendor};
use trivium_cpu::{Exit, Vector};

use crate::testing::{CODE, HANDLERS, IDT, STACK, TSS, TestMachine, gate, sel};

#[test]
fn em_and_ts_raise_what_table_2_2_says() {
    // fninit; wait; movq mm0, mm0 (MMX); movaps xmm0, xmm0; pause and prefetch are neither.
    let (x87, wait, mmx, sse): (&[u8], &[u8], &[u8], &[u8]) =
        (&[0xdb, 0xe3], &[0x9b], &[0x0f, 0x6f, 0xc0], &[0x0f, 0x28, 0xc0]);
    let (nm, ud) = (Some(Vector::NM), Some(Vector::UD));
    let cases = [
        (0, [None, None, None, None]),
        (cr0::EM, [nm, None, ud, ud]),
        (cr0::TS, [nm, None, nm, nm]),
        (cr0::MP, [None, None, None, None]),
        (cr0::MP | cr0::TS, [nm, nm, nm, nm]),
        (cr0::EM | cr0::TS, [nm, None, ud, ud]),
    ];
    for (bits, expected) in cases {
        for (code, vector) in [x87, wait, mmx, sse].into_iter().zip(expected) {
            let mut m = TestMachine::long(code);
            m.set(|s| s.control.cr0 |= bits);
            match vector {
                Some(vector) => m.raises(vector, None),
                None => {
                    m.run(1);
                    assert_eq!(m.state().general.rip, CODE + code.len() as u64, "{bits:x}");
                }
            }
        }
    }
    // Without CR4.OSFXSR SSE is undefined, whatever CR0.TS says.
    let mut m = TestMachine::long(sse);
    m.set(|s| {
        s.control.cr4 &= !cr4::OSFXSR;
        s.control.cr0 |= cr0::TS;
    });
    m.raises(Vector::UD, None);
}

#[test]
fn undefined_comes_before_privilege_and_privilege_before_operands() {
    let cases: [(&[u8], Vector); 9] = [
        (&[0xf0, 0x0f, 0x22, 0xd8], Vector::UD), // lock mov cr3, rax
        (&[0x0f, 0x22, 0xc8], Vector::UD),       // mov cr1, rax
        (&[0x0f, 0x01, 0xc8], Vector::UD),       // monitor
        (&[0x0f, 0x01, 0xca], Vector::UD),       // clac
        (&[0x0f, 0xaa], Vector::UD),             // rsm
        (&[0x0f, 0x01, 0x17], Vector::GP),       // lgdt [rdi], which is not mapped
        (&[0x66, 0x0f, 0x38, 0x82, 0x07], Vector::GP), // invpcid rax, [rdi]
        (&[0x0f, 0x00, 0x17], Vector::GP),       // lldt [rdi]
        (&[0x0f, 0x23, 0xe0], Vector::GP),       // mov dr4, rax: AMD looks at CPL first
    ];
    for (code, vector) in cases {
        let mut m = TestMachine::long(code).at_cpl3();
        m.set(|s| {
            s.general.regs[7] = 0x7000_0000;
            s.control.cr4 |= cr4::DE;
        });
        m.raises(vector, (vector == Vector::GP).then_some(0));
    }
    // Intel's processors look first whether DR4 exists.
    let intel = CpuModel { vendor: Vendor::Intel, ..TestMachine::model() };
    let mut m = TestMachine::long_with(intel, &[0x0f, 0x23, 0xe0]).at_cpl3();
    m.set(|s| s.control.cr4 |= cr4::DE);
    m.raises(Vector::UD, None);
}

#[test]
fn an_instruction_breakpoint_comes_before_what_fetching_it_raises() {
    // RIP on a page that is not there.
    let mut m = TestMachine::long(&[]);
    m.put_u64(crate::testing::TABLES + 0x2018, 0);
    m.set(|s| {
        s.general.rip = 0x60_0000;
        s.debug.address[0] = 0x60_0000;
        s.debug.dr7 |= 2;
    });
    assert_eq!(m.run_to_handler(), Vector::DB as u8);
}

/// Runs to the handler of #DB: gives the RIP that was pushed.
#[track_caller]
fn stepped(m: &mut TestMachine) -> u64 {
    assert_eq!(m.run_to_handler(), Vector::DB as u8);
    assert_ne!(m.state().debug.dr6 & debug::DR6_BS, 0);
    let sp = m.reg(4);
    if m.state().control.efer & efer::LMA != 0 { m.get_u64(sp) } else { m.get_u32(sp).into() }
}

#[test]
fn instructions_that_set_tf_are_followed_by_one_more() {
    // popfq; nop; nop
    let mut m = TestMachine::long(&[0x9d, 0x90, 0x90]);
    m.put_u64(STACK, rflags::TF | 2);
    assert_eq!(stepped(&mut m), CODE + 2);
    // iretq
    let mut m = TestMachine::long(&[0x48, 0xcf]);
    let frame = [CODE + 0x100, sel::CODE.into(), rflags::TF | 2, STACK, sel::DATA.into()];
    for (at, value) in (STACK..).step_by(8).zip(frame) {
        m.put_u64(at, value);
    }
    m.put(CODE + 0x100, &[0x90, 0x90]);
    assert_eq!(stepped(&mut m), CODE + 0x101);
}

#[test]
fn popf_that_clears_tf_and_hlt_are_single_stepped_too() {
    for code in [&[0x9d, 0x90][..], &[0xf4, 0x90]] {
        let mut m = TestMachine::long(code);
        m.put_u64(STACK, 2);
        m.set(|s| s.general.rflags |= rflags::TF);
        assert_eq!(stepped(&mut m), CODE + 1);
    }
}

#[test]
fn system_calls_are_single_stepped_unless_they_mask_tf() {
    for (mask, traps) in [(0, true), (rflags::TF, false)] {
        let mut m = TestMachine::long(&[0x0f, 0x05]).at_cpl3();
        m.put(0x4000, &[0x90, 0xf4]);
        m.set(|s| {
            s.msrs.star = 0x0018_0008_0000_0000;
            (s.msrs.lstar, s.msrs.sfmask) = (0x4000, mask);
            s.general.rflags |= rflags::TF;
        });
        if traps {
            assert_eq!(stepped(&mut m), 0x4000);
        } else {
            assert_eq!(m.run(10), Exit::Halted);
            assert_eq!((m.state().general.rip, m.state().debug.dr6), (0x4002, debug::DR6_FIXED));
        }
    }
    // SYSENTER leaves TF alone, so that the trap is the kernel's.
    let mut m = TestMachine::protected(&[0x0f, 0x34]).at_cpl3();
    m.set(|s| {
        (s.msrs.sysenter_cs, s.msrs.sysenter_esp, s.msrs.sysenter_eip) = (8, 0x8000, 0x4000);
        s.general.rflags |= rflags::TF;
    });
    assert_eq!(stepped(&mut m), 0x4000);
}

#[test]
fn mov_ss_is_not_single_stepped_but_the_next_instruction_is() {
    // mov ss, eax; int3: the trap is lost, as INT3 clears TF.
    let mut m = TestMachine::long(&[0x8e, 0xd0, 0xcc]);
    m.set(|s| {
        s.general.rflags |= rflags::TF;
        s.general.regs[0] = sel::DATA.into();
    });
    assert_eq!(m.run_to_handler(), Vector::BP as u8);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
    // Of two in a row, the second is stepped.
    let mut m = TestMachine::long(&[0x8e, 0xd0, 0x8e, 0xd0, 0x90]);
    m.set(|s| {
        s.general.rflags |= rflags::TF;
        s.general.regs[0] = sel::DATA.into();
    });
    assert_eq!(stepped(&mut m), CODE + 4);
}

#[test]
fn faults_are_not_single_stepped_and_the_image_keeps_tf() {
    let mut m = TestMachine::long(&[0x0f, 0x0b]);
    m.set(|s| s.general.rflags |= rflags::TF);
    assert_eq!(m.run_to_handler(), Vector::UD as u8);
    assert_eq!(m.get_u64(STACK - 24), rflags::TF | rflags::RF | 2);
    assert_eq!(m.state().debug.dr6, debug::DR6_FIXED);
}

/// What is raised when `first` is and its gate raises #NP or, with a page that is not there, #PF.
fn doubled(first: &[u8], gate_vector: u64, spoil: fn(&mut TestMachine, u64)) -> Option<u8> {
    let mut m = TestMachine::long(first);
    spoil(&mut m, gate_vector);
    match m.run(10) {
        Exit::Shutdown => None,
        _ => Some((m.state().general.rip.wrapping_sub(HANDLERS) >> 4) as u8),
    }
}

/// The gate of a vector is not present: #NP.
fn no_gate(m: &mut TestMachine, vector: u64) {
    m.put_u64(IDT + 16 * vector, gate(sel::CODE, HANDLERS + 16 * vector, 0x0e));
}

/// The handler's stack is on a page that is not there: #PF.
fn no_stack(m: &mut TestMachine, vector: u64) {
    let with_stack = gate(sel::CODE, HANDLERS + 16 * vector, 0x8e) | 1 << 32;
    m.put_u64(IDT + 16 * vector, with_stack);
    m.put_u64(TSS + 36, 0x60_1000);
    m.put_u64(crate::testing::TABLES + 0x2018, 0);
}

#[test]
fn two_exceptions_make_what_table_6_5_says() {
    // div by zero (contributory); ud2 (benign); mov eax, [600000h] (page fault)
    let (contributory, benign): (&[u8], &[u8]) = (&[0xf6, 0xf0], &[0x0f, 0x0b]);
    let fault: &[u8] = &[0x8b, 0x04, 0x25, 0, 0, 0x60, 0];
    let (np, df, pf) = (Vector::NP as u8, Vector::DF as u8, Vector::PF as u8);
    // 0 / 0 would do, as registers are zero.
    assert_eq!(doubled(contributory, 0, no_gate), Some(df));
    assert_eq!(doubled(contributory, 0, no_stack), Some(pf));
    assert_eq!(doubled(benign, 6, no_gate), Some(np));
    assert_eq!(doubled(benign, 6, no_stack), Some(pf));
    let missing = |m: &mut TestMachine, vector| {
        m.put_u64(crate::testing::TABLES + 0x2018, 0);
        no_gate(m, vector);
    };
    assert_eq!(doubled(fault, 14, missing), Some(df));
    assert_eq!(doubled(fault, 14, no_stack), Some(df));
}

#[test]
fn an_exception_while_a_double_fault_is_delivered_shuts_down() {
    let both = |m: &mut TestMachine, vector| {
        no_gate(m, vector);
        no_gate(m, 8);
    };
    assert_eq!(doubled(&[0xf6, 0xf0], 0, both), None);
    // An interrupt is no exception: #NP alone.
    let mut m = TestMachine::long(&[0xcd, 0x40]);
    no_gate(&mut m, 0x40);
    assert_eq!(m.run_to_exception(), (Vector::NP as u8, 0x40 * 8 + 2));
    let mut m = TestMachine::long(&[0x90]);
    no_gate(&mut m, 0x40);
    m.set(|s| s.general.rflags |= rflags::IF);
    *m.bus.interrupt.lock().unwrap() = Some(0x40);
    assert_eq!(m.run_to_exception(), (Vector::NP as u8, 0x40 * 8 + 3));
}
