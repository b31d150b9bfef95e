//! Multiplication and division in registers.

#include "micro.inc"

#define ROUNDS  1000000

INSTRUCTIONS 5 + ROUNDS * (6 + 5 + 6 + 2) + 2
EXPECTED 0x1B0269D21E061F11

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    mov esi, 12345
    mov edi, 67891
    mov r9d, 1000003
    xor r10d, r10d
2:  imul rsi, rdi               // two-operand
    imul r11, rsi, 37           // three-operand
    imul ecx, r11d, 5
    add rsi, 1
    add r10, r11
    add r10, rcx
    mov rax, rsi                // 64 x 64 = 128 bits
    mul rdi
    add r10, rdx
    add r10, rax
    or rdi, 1
    mov eax, esi                // 64 / 32 bits
    xor edx, edx
    div r9d
    add r10, rax
    add r10, rdx
    lea rdi, [rdi + rdx * 2]
    dec r8d
    jnz 2b
    mov rax, r10
    ret
