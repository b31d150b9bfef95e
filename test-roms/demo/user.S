//! Ring 3: a small program without privileges that calls the kernel with SYSCALL.

#define BITS 64
#include "demo.inc"

#define CALL_COUNT      0               // system calls, by EAX
#define CALL_EXIT       1

CODE_SECTION

// Runs user_program in ring 3 until it exits. EAX = the system calls it made.
.globl user_run
user_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov dword ptr [calls], 0

    // The only two pages that ring 3 may touch, at addresses of their own.
    mov edi, USER_CODE
    mov esi, offset user_program + PTE_P + PTE_U
    call map_page
    mov edi, USER_STACK
    mov esi, offset user_stack_page + PTE_P + PTE_W + PTE_U
    call map_page

    mov ecx, IA32_STAR          // selectors: SYSCALL's in bits 47:32, SYSRET's in 63:48
    mov edx, SEL_USER_CODE32 << 16 | SEL_CODE64
    xor eax, eax
    wrmsr
    mov ecx, IA32_LSTAR         // where SYSCALL goes
    mov eax, offset syscall_entry
    xor edx, edx
    wrmsr
    mov ecx, IA32_FMASK         // RFLAGS bits that it clears
    mov eax, RFLAGS_IF | RFLAGS_DF | RFLAGS_TF
    wrmsr

    mov qword ptr [kernel_rsp], rsp
    mov ecx, USER_CODE          // SYSRET takes RIP from RCX and RFLAGS from R11
    mov r11d, 2
    mov esp, USER_STACK + 4096
    sysretq

// SYSCALL comes here: ring 0, interrupts off, but RSP is still the user's.
syscall_entry:
    cmp eax, CALL_COUNT
    jne 2f
    inc dword ptr [calls]
    sysretq
2:  mov rsp, qword ptr [kernel_rsp]
    mov eax, dword ptr [calls]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

// Ring 3. Position independent, as it runs elsewhere than it was linked.
.balign 4096
user_program:
    mov ebx, SYSCALLS
2:  push rbx                    // its stack works
    mov eax, CALL_COUNT
    syscall                     // loses RCX and R11
    pop rbx
    dec ebx
    jnz 2b
    mov eax, CALL_EXIT
    syscall
.balign 4096

.bss
.balign 4096
user_stack_page:
    .skip 4096
kernel_rsp:
    .skip 8
calls:
    .skip 4
