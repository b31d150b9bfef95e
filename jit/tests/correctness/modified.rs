//! Code that is written, and pages that are mapped elsewhere.

use crate::code;
use crate::machine::{CODE, DATA, Machine, PRESENT, RAX, RBX, RCX, RDX, WRITE, everywhere};

/// Another address of the page at [`CODE`].
const ALIAS: u64 = 0x14_0000;
/// Pages with a function each.
const ONE: u64 = CODE + 0x2000;
const TWO: u64 = CODE + 0x3000;
/// Where one of them is mapped.
const FUNCTION: u64 = 0x15_0000;

#[test]
fn an_instruction_that_changes_the_next_one_sees_it_changed() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; again:
            ; mov BYTE [>next + 1], cl
            ; next:
            ; mov eax, 0x7f
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).sum::<u64>());
    });
}

#[test]
fn a_block_that_changes_what_it_has_yet_to_run_runs_the_change() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; again:
            ; inc BYTE [>later + 1]
            ; lea edx, [rcx + 1]
            ; mov esi, edx
            ; xchg esi, edx
            ; later:
            ; mov al, 0
            ; movzx eax, al
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).sum::<u64>());
    });
}

#[test]
fn a_block_that_changes_what_has_run_runs_the_change_next_time() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; again:
            ; mov eax, 0
            ; add ebx, eax
            ; mov DWORD [<again + 1], ecx
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (2..=20).sum::<u64>());
    });
}

#[test]
fn code_on_another_page_is_changed_between_calls() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; mov edi, ONE as i32
            ; again:
            ; mov [rdi + 1], ecx
            ; call rdi
            ; add ebx, eax
            ; mov BYTE [rdi + 2], 1
            ; call rdi
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.put(ONE, &code!(ONE ; mov eax, 0 ; ret));
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).map(|n| 2 * n + 0x100).sum::<u64>());
    });
}

#[test]
fn code_that_is_called_from_another_page_is_changed_again_and_again() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 5
            ; xor ebx, ebx
            ; mov edi, CODE as i32 + 0x1000
            ; again:
            ; mov [rdi + 1], ecx
            ; mov edx, 9
            ; more:
            ; call >function
            ; add ebx, eax
            ; dec edx
            ; jnz <more
            ; dec ecx
            ; jnz <again
            ; hlt
            ; .align 0x1000
            ; function:
            ; mov eax, 0
            ; ret
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), 9 * (1..=5).sum::<u64>());
    });
}

#[test]
fn code_is_changed_through_another_mapping_of_its_page() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; mov edi, ALIAS as i32
            ; again:
            ; mov [rdi + 0x101], cl
            ; call >function
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
            ; .align 0x100
            ; function:
            ; mov eax, 0
            ; ret
        );
        m.map(ALIAS, CODE | PRESENT | WRITE);
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).sum::<u64>());
    });
}

#[test]
fn code_that_a_device_writes_is_run_as_it_was_written() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 30
            ; again:
            ; mov eax, 0
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        for value in 1..6 {
            m.run_to_halt();
            m.put(CODE + 6, &[value]);
            m.go_on_at(CODE);
            // Half-way too.
            m.run(40);
            m.put(CODE + 7, &[value]);
            m.run_to_halt();
            assert_eq!(m.reg(RAX), u64::from(value) * 0x101);
            m.go_on_at(CODE);
        }
    });
}

/// Calls a function 20 times by a direct call, and has its page mapped to the other function's
/// in between.
fn remapping(m: &mut Machine) {
    let code = code!(CODE
        ; mov ecx, 20
        ; xor ebx, ebx
        ; mov r12d, FUNCTION as i32
        ; again:
        ; call r12
        ; add ebx, eax
        ; mov rax, [rdx]
        ; xchg rax, [rsi]
        ; mov [rdx], rax
        ; invlpg [rdi]
        ; dec ecx
        ; jnz <again
        ; hlt
    );
    m.put(CODE, &code);
    m.map(FUNCTION, ONE | PRESENT);
    let other = TWO | PRESENT | 0x60;
    m.put(DATA, &other.to_le_bytes());
    m.set(|state| {
        state.general.regs[RDX] = DATA;
        state.general.regs[6] = Machine::entry(FUNCTION);
        state.general.regs[7] = FUNCTION;
    });
    m.run_to_halt();
    assert_eq!(m.reg(RBX), 10 + 10 * 100);
    assert_eq!(m.reg(RCX), 0);
}

#[test]
fn a_page_that_is_mapped_elsewhere_behind_a_direct_call_is_the_new_one() {
    everywhere(|m| {
        m.put(ONE, &code!(FUNCTION ; mov eax, 1 ; ret));
        m.put(TWO, &code!(FUNCTION ; mov eax, 100 ; ret));
        remapping(m);
    });
}

#[test]
fn jumps_within_a_page_that_is_mapped_elsewhere_stay_on_it() {
    everywhere(|m| {
        let function = |n: i32| {
            code!(FUNCTION
                ; mov eax, n
                ; cmp eax, 1000
                ; ja >out
                ; jmp >more
                ; nop
                ; more:
                ; test eax, eax
                ; jnz >out
                ; mov eax, 5000
                ; out:
                ; ret
            )
        };
        m.put(ONE, &function(1));
        m.put(TWO, &function(100));
        remapping(m);
    });
}

#[test]
fn an_instruction_across_two_pages_is_read_anew_when_the_second_is_mapped_elsewhere() {
    everywhere(|m| {
        // MOV EAX, imm32: opcode and one byte on the first page, the rest on the second.
        let start = FUNCTION - 2;
        m.map(FUNCTION - 0x1000, (CODE + 0x1000) | PRESENT);
        let body = code!(start ; mov eax, 0x4030_2001 ; ret);
        m.put(CODE + 0x2000 - 2, &body[..2]);
        m.put(ONE, &body[2..]);
        let other = code!(start ; mov eax, 0x0000_0001 ; ret);
        m.put(TWO, &other[2..]);
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; mov r12d, start as i32
            ; again:
            ; call r12
            ; add rbx, rax
            ; mov rax, [rdx]
            ; xchg rax, [rsi]
            ; mov [rdx], rax
            ; invlpg [rdi]
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.map(FUNCTION, ONE | PRESENT);
        m.put(DATA, &(TWO | PRESENT | 0x60).to_le_bytes());
        m.set(|state| {
            state.general.regs[RDX] = DATA;
            state.general.regs[6] = Machine::entry(FUNCTION);
            state.general.regs[7] = FUNCTION;
        });
        m.run_to_halt();
        assert_eq!(m.reg(RBX), 10 * 0x4030_2001 + 10);
    });
}

#[test]
fn code_across_two_pages_is_changed_on_the_second() {
    everywhere(|m| {
        let start = ONE - 2;
        m.put(start, &code!(start ; mov eax, 0 ; ret));
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; mov edi, ONE as i32
            ; mov r12d, start as i32
            ; again:
            ; mov [rdi], cl
            ; call r12
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).map(|n| n << 8).sum::<u64>());
    });
}

#[test]
fn a_page_that_becomes_code_loses_its_write_translation() {
    everywhere(|m| {
        // The page is written first, so that stores to it are fast; then it is run, then written.
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; mov edi, ONE as i32
            ; fill:
            ; mov BYTE [rdi + rcx + 0x100], -0x70
            ; dec ecx
            ; jnz <fill
            ; mov ecx, 20
            ; again:
            ; call rdi
            ; add ebx, eax
            ; mov [rdi + 1], cl
            ; call rdi
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.put(ONE, &code!(ONE ; mov eax, 0 ; ret));
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).sum::<u64>() + (2..=20).sum::<u64>());
    });
}

#[test]
fn a_function_that_changes_where_it_returns_to_returns_to_the_change() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; mov r12d, ONE as i32
            ; lea rdi, [>after + 1]
            ; again:
            ; call r12
            ; after:
            ; mov eax, 0
            ; add ebx, eax
            ; dec ecx
            ; jnz <again
            ; hlt
        );
        m.put(CODE, &code);
        m.put(ONE, &code!(ONE ; mov [rdi], cl ; ret));
        m.run_to_halt();
        assert_eq!(m.reg(RBX), (1..=20).sum::<u64>());
    });
}

#[test]
fn a_function_that_maps_where_it_returns_to_elsewhere_returns_there() {
    everywhere(|m| {
        // The callers' page is mapped to one of two that differ behind the call.
        let caller = |n: i32| {
            code!(FUNCTION
                ; again:
                ; call r12
                ; add ebx, n
                ; dec ecx
                ; jnz <again
                ; hlt
            )
        };
        m.put(ONE, &caller(1));
        m.put(TWO, &caller(100));
        m.put(
            CODE,
            &code!(CODE
                ; mov rax, [rdx]
                ; xchg rax, [rsi]
                ; mov [rdx], rax
                ; invlpg [rdi]
                ; ret
            ),
        );
        m.map(FUNCTION, ONE | PRESENT);
        m.put(DATA, &(TWO | PRESENT | 0x60).to_le_bytes());
        m.set(|state| {
            let regs = &mut state.general.regs;
            (regs[RCX], regs[RBX], regs[RDX], regs[12]) = (20, 0, DATA, CODE);
            (regs[6], regs[7]) = (Machine::entry(FUNCTION), FUNCTION);
            state.general.rip = FUNCTION;
        });
        m.run_to_halt();
        assert_eq!(m.reg(RBX), 10 + 10 * 100);
    });
}

#[test]
fn a_return_to_an_address_that_was_changed_goes_there() {
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 20
            ; xor ebx, ebx
            ; again:
            ; call >function
            ; add ebx, 1
            ; jmp >on
            ; add ebx, 100
            ; on:
            ; dec ecx
            ; jnz <again
            ; hlt
            ; function:
            // Behind ADD EBX, 1 and the jump, every other time.
            ; mov eax, ecx
            ; and eax, 1
            ; shl eax, 3
            ; add [rsp], rax
            ; ret
        );
        m.put(CODE, &code);
        m.run_to_halt();
        assert_eq!(m.reg(RBX), 10 + 10 * 100);
    });
}

#[test]
fn code_that_is_overwritten_again_and_again_is_not_jumped_to_as_it_was() {
    const FUNCTION: u64 = CODE + 0x1000;
    everywhere(|m| {
        let code = code!(CODE
            ; mov ecx, 30
            ; outer:
            ; mov edx, 40
            ; again:
            ; jmp >function
            ; back:
            ; dec edx
            ; jnz <again
            // The immediate of the addition.
            ; inc BYTE [rbx]
            ; dec ecx
            ; jnz <outer
            ; hlt
            ; .align 0x1000, 0x90
            ; function:
            ; add eax, BYTE 1
            ; jmp <back
        );
        m.put(CODE, &code);
        m.set(|state| state.general.regs[RBX] = FUNCTION + 2);
        m.run_to_halt();
        assert_eq!(m.reg(RAX), (1..=30).sum::<u64>() * 40);
    });
}
