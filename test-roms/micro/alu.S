//! Integer arithmetic in registers: add, subtract, logic, shifts, LEA, moves.

#include "micro.inc"

#define ROUNDS  1000000

INSTRUCTIONS 5 + ROUNDS * (4 * 9 + 2) + 2
EXPECTED 0xFE54C258FFBB7BB8

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    mov eax, 1
    mov ecx, 2
    mov edx, 3
    mov esi, 4
2:
.rept 4
    add rax, rcx
    xor rcx, rdx
    lea rdi, [rax + rdx * 4 + 7]
    sub rdx, rsi
    rol rsi, 5
    and rdi, rcx
    mov r9, rdi
    or r9d, edx
    add esi, r9d
.endr
    dec r8d
    jnz 2b
    add rax, rsi
    ret
