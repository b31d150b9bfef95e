//! Traps, shadows and interrupts: what comes between instructions.

use trivium_cpu::Exit;
use trivium_cpu::bits::rflags;

use crate::code;
use crate::machine::{CODE, DATA, Machine, RAX, RBX, RCX, RSP, STACK, everywhere};

const DB: u8 = 1;
const DR6_BS: u64 = 1 << 14;

/// A loop of two blocks that are chained, at whose second address RAX is incremented.
fn chained(m: &mut Machine) -> u64 {
    let code = code!(CODE
        ; again:
        ; dec ecx
        ; jz >out
        ; jmp >second
        ; nop
        ; second:
        ; inc eax
        ; jmp <again
        ; out:
        ; hlt
    );
    m.put(CODE, &code);
    let second = code.windows(2).position(|w| w == [0xff, 0xc0]).unwrap() as u64;
    m.set(|state| state.general.regs[RCX] = 30);
    m.run_to_halt();
    assert_eq!(m.reg(RAX), 29);
    CODE + second
}

#[test]
fn a_breakpoint_that_is_set_behind_a_chained_jump_is_met() {
    everywhere(|m| {
        let second = chained(m);
        m.go_on_at(CODE);
        m.set(|state| {
            state.general.regs[RCX] = 30;
            state.debug.address[0] = second;
            state.debug.dr7 = 0x401;
        });
        assert_eq!(m.run_to_exception(), DB);
        assert_eq!((m.reg(RCX), m.reg(RAX)), (29, 29));
        assert_eq!(m.frame(false)[0], second);
        assert_eq!(m.state().debug.dr6 & 15, 1);
    });
}

#[test]
fn a_breakpoint_on_another_page_behind_a_chained_call_is_met() {
    const FUNCTION: u64 = CODE + 0x1000;
    everywhere(|m| {
        let code = code!(CODE
            ; again:
            ; cmp ecx, 5
            ; jne >on
            ; mov dr0, rsi
            ; mov edx, 0x401
            ; mov dr7, rdx
            ; on:
            ; call DWORD 0
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        let call = code.iter().position(|&byte| byte == 0xe8).unwrap();
        let mut code = code;
        let distance = 0x1000 - (call as i32 + 5);
        code[call + 1..call + 5].copy_from_slice(&distance.to_le_bytes());
        m.put(CODE, &code);
        m.put(FUNCTION, &code!(FUNCTION ; inc eax ; inc ebx ; ret));
        m.set(|state| {
            state.general.regs[RCX] = 30;
            state.general.regs[6] = FUNCTION + 2;
        });
        assert_eq!(m.run_to_exception(), DB);
        assert_eq!((m.reg(RCX), m.reg(RAX), m.reg(RBX)), (5, 26, 25));
        assert_eq!(m.frame(false)[0], FUNCTION + 2);
    });
}

#[test]
fn a_breakpoint_that_the_guest_sets_by_mov_is_met() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 30
            ; again:
            ; cmp ecx, 5
            ; jne >on
            ; lea rdx, [>second]
            ; mov dr0, rdx
            ; mov edx, 0x401
            ; mov dr7, rdx
            ; on:
            ; dec ecx
            ; jz >out
            ; second:
            ; inc eax
            ; jmp <again
            ; out:
            ; hlt
        );
        m.put(CODE, &code);
        assert_eq!(m.run_to_exception(), DB);
        assert_eq!((m.reg(RCX), m.reg(RAX)), (4, 25));
    });
}

#[test]
fn a_data_breakpoint_on_a_page_that_is_in_the_tlb_is_met() {
    everywhere(|m| {
        let code = code!(CODE
            ; again:
            ; mov [rbx], rcx
            ; mov rdx, [rbx + 8]
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        let begin = |m: &mut Machine| {
            m.set(|state| {
                state.general.regs[RBX] = DATA;
                state.general.regs[RCX] = 30;
            });
        };
        begin(m);
        m.run_to_halt();
        m.go_on_at(CODE);
        begin(m);
        m.set(|state| {
            state.debug.address[1] = DATA + 8;
            // Eight bytes, loads and stores.
            state.debug.dr7 = 0x404 | 0xb << 20;
        });
        assert_eq!(m.run_to_exception(), DB);
        assert_eq!(m.reg(RCX), 30);
        assert_eq!(m.state().debug.dr6 & 15, 2);
        // Behind the load.
        assert_eq!(m.frame(false)[0], CODE + 7);
    });
}

#[test]
fn single_steps_trap_after_each_instruction_of_a_hot_loop() {
    everywhere(|m| {
        chained(m);
        let mut at = CODE;
        m.set(|state| {
            state.general.regs[RCX] = 30;
            state.general.regs[RAX] = 0;
        });
        for step in 0..20 {
            m.go_on_at(at);
            m.set(|state| {
                state.general.rflags |= rflags::TF;
                state.general.regs[RSP] = STACK;
            });
            assert_eq!(m.run_to_exception(), DB, "step {step}");
            let next = m.frame(false)[0];
            assert_ne!(next, at);
            at = next;
            assert_ne!(m.state().debug.dr6 & DR6_BS, 0);
        }
        // Five instructions a round: DEC, JZ, JMP, INC, JMP.
        assert_eq!((m.reg(RCX), m.reg(RAX)), (26, 4));
    });
}

#[test]
fn popf_that_sets_tf_traps_after_the_next_instruction() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 30
            ; again:
            ; xor edx, edx
            ; cmp ecx, 1
            ; sete dl
            ; shl edx, 8
            ; push rdx
            ; popfq
            ; inc eax
            ; inc ebx
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        assert_eq!(m.run_to_exception(), DB);
        assert_eq!((m.reg(RAX), m.reg(RBX), m.reg(RCX)), (30, 29, 1));
    });
}

#[test]
fn an_interrupt_waits_for_the_instruction_after_sti() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 30
            ; again:
            ; cli
            ; dec ecx
            ; sti
            ; inc eax
            ; inc ebx
            ; jmp <again
        );
        m.put(CODE, &code);
        // In the middle, with IF clear: behind CLI.
        assert_eq!(m.run(1 + 6 * 12 + 1), Exit::Budget);
        m.interrupt(0x40);
        assert_eq!(m.run_to_exception(), 0x40);
        // Taken behind INC EAX.
        assert_eq!((m.reg(RAX), m.reg(RBX)), (13, 12));
    });
}

#[test]
fn nothing_comes_between_mov_ss_and_the_next_instruction() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov edx, 16
            ; again:
            ; mov ss, dx
            ; inc eax
            ; inc ebx
            ; jmp <again
        );
        m.put(CODE, &code);
        m.run(1 + 4 * 20);
        m.set(|state| state.general.rflags |= rflags::IF);
        m.interrupt(0x40);
        assert_eq!(m.run_to_exception(), 0x40);
        assert_eq!((m.reg(RAX), m.reg(RBX)), (20, 20));
        // With the shadow cast: by the budget's end.
        let at = m.frame(false)[0];
        m.go_on_at(at);
        m.set(|state| state.general.regs[RSP] = STACK);
        assert_eq!(m.run(1), Exit::Budget);
        m.set(|state| state.general.rflags |= rflags::TF);
        assert_eq!(m.run_to_exception(), DB);
        // The single step of INC EAX.
        assert_eq!((m.reg(RAX), m.reg(RBX)), (21, 20));
    });
}

#[test]
fn an_interrupt_comes_at_the_budgets_end_in_a_chained_loop() {
    for budget in [1, 2, 3, 7, 50, 999, 1000, 1001, 5003] {
        everywhere(|m| {
            chained(m);
            m.go_on_at(CODE);
            m.set(|state| {
                state.general.regs[RCX] = 100_000;
                state.general.rflags |= rflags::IF;
            });
            assert_eq!(m.run(budget), Exit::Budget);
            m.interrupt(0x41);
            assert_eq!(m.run_to_exception(), 0x41);
            // Five instructions a round.
            assert_eq!(m.reg(RCX), 100_000 - budget.div_ceil(5));
        });
    }
}

#[test]
fn a_repeated_string_instruction_is_interrupted_between_iterations_and_goes_on() {
    everywhere(|m| {
        let code = code!(CODE ; cld ; rep stosq ; hlt);
        m.put(CODE, &code);
        m.set(|state| {
            state.general.regs[RCX] = 0x400;
            state.general.regs[7] = DATA;
            state.general.regs[RAX] = 0x5555;
            state.general.rflags |= rflags::IF;
        });
        m.run(1);
        m.interrupt(0x42);
        assert_eq!(m.run_to_exception(), 0x42);
        let [rip, _, _, rsp] = m.frame(false);
        assert_eq!(rip, CODE + 1);
        m.go_on_at(rip);
        m.set(|state| state.general.regs[RSP] = rsp);
        m.run_to_halt();
        assert_eq!(m.number(DATA + 8 * 0x3ff), 0x5555);
        assert_eq!(m.reg(RCX), 0);
    });
}
