//! Software interrupts and returns from them, within ring 0.

#include "micro.inc"

#define ROUNDS  1000000
#define VECTOR  0x60

INSTRUCTIONS 2 + ROUNDS * (3 + 2) + 1
EXPECTED ROUNDS

CODE_SECTION

.globl loop_prepare
loop_prepare:
    mov edi, VECTOR
    mov esi, offset handler
    jmp gate_set

loop_body:
    mov r8d, ROUNDS
    xor eax, eax
2:  int VECTOR
    dec r8d
    jnz 2b
    ret

handler:
    inc eax
    iretq
