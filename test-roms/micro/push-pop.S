//! The stack: pushes and pops.

#include "micro.inc"

#define ROUNDS  2000000

INSTRUCTIONS 5 + ROUNDS * (8 + 8 + 3) + 5
EXPECTED 0x000001D1A977E6C8

CODE_SECTION

loop_body:
    push rbx
    mov r8d, ROUNDS
    mov eax, 1
    mov ecx, 2
    mov edx, 3
2:  push rax
    push rcx
    push rdx
    push r8
    push rax
    push rcx
    push rdx
    push r8
    pop rcx
    pop rsi
    pop rdi
    pop r9
    pop rax
    pop rbx
    pop rdx
    pop r10
    lea rdx, [rdx + rbx + 1]
    dec r8d
    jnz 2b
    add rax, rcx
    add rax, rdx
    add rax, r9
    pop rbx
    ret
