//! System calls: SYSCALL from ring 3, SYSRET back.

#include "micro.inc"

#define ROUNDS          2000000
#define USER_CODE       0x50000000

INSTRUCTIONS 5 + 1 + ROUNDS * (3 + 4) + 1 + 6
EXPECTED ROUNDS

CODE_SECTION

// Maps the user's code where ring 3 may execute it, and sets SYSCALL up.
.globl loop_prepare
loop_prepare:
    mov edi, USER_CODE
    mov esi, offset user + PTE_P + PTE_U
    call map_page
    mov ecx, IA32_STAR
    mov edx, SEL_USER_CODE32 << 16 | SEL_CODE64
    xor eax, eax
    wrmsr
    mov ecx, IA32_LSTAR
    mov eax, offset kernel
    xor edx, edx
    wrmsr
    mov ecx, IA32_FMASK
    mov eax, RFLAGS_IF | RFLAGS_DF | RFLAGS_TF
    wrmsr
    ret

loop_body:
    push rbx
    mov qword ptr [kernel_rsp], rsp
    mov ecx, USER_CODE
    mov r11d, 2
    sysretq

kernel:
    test ebx, ebx
    js 2f
    inc qword ptr [calls]
    sysretq
2:  mov rsp, qword ptr [kernel_rsp]
    mov rax, qword ptr [calls]
    pop rbx
    ret

// Ring 3.
.balign 4096
user:
    mov ebx, ROUNDS - 1
2:  syscall
    dec ebx
    jmp 2b
.balign 4096

.bss
.balign 8
kernel_rsp:
    .skip 8
calls:
    .skip 8
