//! Faults: precise, with nothing done by halves.

use trivium_cpu::state::SegmentAttributes;

use crate::code;
use crate::machine::{
    CODE, DATA, Machine, NOWHERE, PRESENT, R8, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, STACK,
    WRITE, everywhere,
};

const PF: u8 = 14;
const DE: u8 = 0;
const CF: u64 = 1;
const STATUS: u64 = 0x8d5;

/// A page that may only be read.
const READ_ONLY: u64 = DATA + 0x1000;

/// Runs code that faults at its end in a block that is hot: the second time around the loop RBX is
/// another pointer. Gives the machine in the handler of #PF.
fn faults_at_last(m: &mut Machine, body: &[u8], good: u64, bad: u64) {
    // mov rbx, [rsi]; add rsi, 8; stc; inc r9d; BODY; jmp back.
    let head = code!(CODE ; mov rbx, [rsi] ; add rsi, 8 ; lea r9, [r9 + 1] ; stc);
    let mut code = head;
    code.extend(body);
    let here = code.len() as i32;
    code.push(0xe9);
    code.extend((-(here + 5)).to_le_bytes());
    m.put(CODE, &code);
    for n in 0..12 {
        m.put(DATA + 0x3000 + 8 * n, &good.to_le_bytes());
    }
    m.put(DATA + 0x3000 + 8 * 12, &bad.to_le_bytes());
    m.map(READ_ONLY, READ_ONLY | PRESENT);
    m.set(|state| {
        for (number, register) in state.general.regs.iter_mut().enumerate() {
            if number != RSP {
                *register = 0x1111_1111_1111_1111 * number as u64;
            }
        }
        state.general.regs[RSI] = DATA + 0x3000;
        state.general.regs[9] = 0;
    });
    assert_eq!(m.run_to_exception(), PF);
    assert_eq!(m.reg(9), 13, "it faults the last time");
}

/// Instructions whose operand is at [RBX], or whose stack pointer is RBX. All of them fault before
/// they change anything.
fn bodies() -> Vec<Vec<u8>> {
    vec![
        code!(0 ; mov [rbx], rax),
        code!(0 ; mov [rbx], r8),
        code!(0 ; add [rbx], eax),
        code!(0 ; adc [rbx], r10),
        code!(0 ; inc BYTE [rbx]),
        code!(0 ; neg WORD [rbx]),
        code!(0 ; xchg [rbx], rax),
        code!(0 ; xchg [rbx], r11),
        code!(0 ; lock xadd [rbx], rdx),
        code!(0 ; xadd [rbx], r14),
        code!(0 ; cmpxchg [rbx], rcx),
        code!(0 ; lock cmpxchg [rbx], r8),
        code!(0 ; cmpxchg8b [rbx]),
        code!(0 ; setc BYTE [rbx]),
        code!(0 ; shl DWORD [rbx], 3),
        code!(0 ; bts DWORD [rbx], 5),
        code!(0 ; pop QWORD [rbx] ; push rax),
        code!(0 ; movups [rbx], xmm0),
        code!(0 ; fld1 ; fstp QWORD [rbx]),
        code!(0 ; xchg rsp, rbx ; push rax ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; push r8 ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; push rsp ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; push 5 ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; pushfq ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; call >next ; next: ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; mov rbp, rsp ; enter 16, 0 ; leave ; xchg rsp, rbx),
    ]
}

#[test]
fn a_store_that_faults_has_changed_nothing() {
    for body in bodies() {
        everywhere(|m| {
            // The handler needs a stack of its own: code with RSP at fault is at level 0.
            use_another_stack(m);
            faults_at_last(m, &body, DATA + 0x800, READ_ONLY + 0x800);
            let unchanged: [u8; 32] = m.get(READ_ONLY + 0x7f0);
            assert_eq!(unchanged, [0; 32]);
            assert!(m.state().control.cr2.abs_diff(READ_ONLY + 0x800) <= 8);
        });
    }
}

/// #PF is handled on a stack of its own: IST1.
fn use_another_stack(m: &mut Machine) {
    const TSS: u64 = 0x5000;
    m.put(TSS + 0x24, &(STACK - 0x1000).to_le_bytes());
    let mut gate: [u8; 16] = m.get(0x3000 + 16 * u64::from(PF));
    gate[4] = 1;
    m.put(0x3000 + 16 * u64::from(PF), &gate);
    m.set(|state| {
        state.segments.tr.base = TSS;
        state.segments.tr.limit = 0x67;
        state.segments.tr.selector = 0x40;
    });
}

#[test]
fn a_load_that_faults_has_changed_nothing() {
    let bodies = [
        code!(0 ; mov rax, [rbx]),
        code!(0 ; mov r8d, [rbx]),
        code!(0 ; movzx r10d, BYTE [rbx]),
        code!(0 ; add rdx, [rbx]),
        code!(0 ; cmovc rax, [rbx]),
        code!(0 ; cmovnc r8, [rbx]),
        code!(0 ; imul r11, [rbx], 7),
        code!(0 ; mulx rax, rcx, [rbx]),
        code!(0 ; xchg rsp, rbx ; pop rax ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; pop r8 ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; pop rbp ; xchg rsp, rbx),
        code!(0 ; xchg rsp, rbx ; popfq ; xchg rsp, rbx),
        code!(0 ; xchg rbp, rbx ; mov rcx, rsp ; leave ; mov rsp, rcx ; mov rbx, rbp),
    ];
    for body in bodies {
        everywhere(|m| {
            use_another_stack(m);
            // Zeros, so that POPF and the like do no harm.
            faults_at_last(m, &body, DATA + 0x800, NOWHERE + 0x800);
            assert_eq!(m.state().control.cr2, NOWHERE + 0x800);
        });
    }
}

#[test]
fn an_access_across_two_pages_stores_nothing_if_the_second_may_not_be_written() {
    // Each with the distance of its first byte from RBX.
    for (body, from) in [
        (code!(0 ; mov [rbx], rax), 0),
        (code!(0 ; mov [rbx], r8), 0),
        (code!(0 ; add [rbx], rax), 0),
        (code!(0 ; xchg [rbx], rax), 0),
        (code!(0 ; lock xadd [rbx], r10), 0),
        (code!(0 ; xchg rsp, rbx ; push rax ; xchg rsp, rbx), 8),
        (code!(0 ; xchg rsp, rbx ; push r9 ; xchg rsp, rbx), 8),
        (code!(0 ; movups [rbx], xmm0), 0),
    ] {
        for first in [1, 3, 7] {
            everywhere(|m| {
                use_another_stack(m);
                faults_at_last(m, &body, DATA + 0x800, READ_ONLY - first + from);
                let before: [u8; 16] = m.get(READ_ONLY - 16);
                assert_eq!(before, [0; 16], "nothing on the first page");
                assert_eq!(m.state().control.cr2, READ_ONLY);
            });
        }
    }
}

#[test]
fn accesses_across_two_pages_reach_both() {
    everywhere(|m| {
        m.map(0x16_0000, (DATA + 0x5000) | PRESENT | WRITE);
        m.map(0x16_1000, (DATA + 0x2000) | PRESENT | WRITE);
        let code = code!(CODE
            ; mov ecx, 20
            ; mov ebx, 0x16_0ffd
            ; xor eax, eax
            ; mov r8, QWORD 0x0102_0304_0506_0708
            ; again:
            ; mov [rbx], r8
            ; add [rbx], rcx
            ; add rax, [rbx]
            ; xchg [rbx + 1], r8
            ; lea r8, [r8 + rcx * 2]
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        let mut bytes = [0; 8];
        bytes[..3].copy_from_slice(&m.get::<3>(DATA + 0x5ffd));
        bytes[3..].copy_from_slice(&m.get::<5>(DATA + 0x2000));
        assert_ne!(bytes, [0; 8]);
    });
}

#[test]
fn flags_that_a_block_overwrites_are_seen_by_a_fault_before_that() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 12
            ; mov ebx, DATA as i32
            ; again:
            ; cmp ecx, 1
            ; mov edx, NOWHERE as i32
            ; cmove rbx, rdx
            // CF, OF, SF, AF from here, and dead after the next two.
            ; mov eax, 0x7fff_ffff
            ; add eax, eax
            ; mov eax, [rbx]
            ; add eax, ecx
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        assert_eq!(m.run_to_exception(), PF);
        let [rip, _, rflags, _] = m.frame(true);
        assert_eq!(m.reg(RCX), 1);
        // 7FFFFFFFh + 7FFFFFFFh = FFFFFFFEh: OF, SF, AF; no carry; FEh has odd parity.
        assert_eq!(rflags & STATUS, 0x890);
        assert_eq!(m.get::<2>(rip), [0x8b, 0x03]);
    });
}

#[test]
fn a_division_that_faults_leaves_its_registers() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 12
            ; again:
            ; lea r8d, [rcx - 1]
            ; xor edx, edx
            ; mov eax, 1000
            ; div r8d
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        assert_eq!(m.run_to_exception(), DE);
        assert_eq!((m.reg(RAX), m.reg(RDX), m.reg(RCX), m.reg(R8)), (1000, 0, 1, 0));
    });
}

#[test]
fn a_repeated_string_instruction_stops_where_it_faults_and_can_go_on() {
    everywhere(|m| {
        let code = code!(CODE ; cld ; stc ; rep movsb ; adc eax, 0 ; hlt);
        m.put(CODE, &code);
        m.map(NOWHERE, 0);
        for round in 0..5 {
            m.go_on_at(CODE);
            m.set(|state| {
                let regs = &mut state.general.regs;
                (regs[RSI], regs[RDI], regs[RCX], regs[RSP]) = (DATA, NOWHERE - 0x10, 0x20, STACK);
                regs[RAX] = round;
            });
            m.map(NOWHERE - 0x1000, (DATA + 0x4000) | PRESENT | WRITE);
            m.map(NOWHERE, 0);
            assert_eq!(m.run_to_exception(), PF);
            assert_eq!((m.reg(RCX), m.reg(RDI)), (0x10, NOWHERE));
            let [rip, _, rflags, rsp] = m.frame(true);
            assert_eq!(rflags & CF, CF);
            m.map(NOWHERE, (DATA + 0x5000) | PRESENT | WRITE);
            m.go_on_at(rip);
            m.set(|state| {
                state.general.regs[RSP] = rsp;
                state.general.rflags = rflags;
            });
            m.run_to_halt();
            assert_eq!((m.reg(RCX), m.reg(RAX)), (0, round + 1));
        }
        assert_eq!(m.reg(RBP), 0);
        assert_eq!(m.reg(RBX), 0);
    });
}

#[test]
fn the_limits_of_fs_and_gs_hold_in_32_bit_code_though_other_segments_are_flat() {
    const GP: u8 = 13;
    everywhere(|m| {
        // MOV EAX, GS:[EBX]; ADD EBX, 100h; JMP to it.
        m.put(CODE, &[0x65, 0x8b, 0x03, 0x81, 0xc3, 0, 1, 0, 0, 0xeb, 0xf5]);
        m.set(|state| {
            state.segments.regs[1].attributes = SegmentAttributes(0xc09b);
            state.segments.regs[5].limit = 0xfff;
            state.segments.regs[5].base = DATA;
        });
        assert_eq!(m.run_to_exception(), GP);
        assert_eq!(m.reg(RBX), 0x1000);
    });
    // A null selector.
    everywhere(|m| {
        m.put(CODE, &[0x64, 0x8b, 0x03, 0x81, 0xc3, 0, 1, 0, 0, 0xeb, 0xf5]);
        m.set(|state| {
            state.segments.regs[1].attributes = SegmentAttributes(0xc09b);
            state.segments.regs[4].attributes = SegmentAttributes(0);
            state.segments.regs[4].selector = 0;
        });
        assert_eq!(m.run_to_exception(), GP);
        assert_eq!(m.reg(RBX), 0);
    });
}
