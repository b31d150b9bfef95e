//! Calls and returns, nested and through a register.

#include "micro.inc"

#define ROUNDS  1500000

INSTRUCTIONS 3 + ROUNDS * (3 + 2 * 3 + 3 * 2 + 2) + 1
EXPECTED 0x0000000000CDFE60

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    xor eax, eax
    mov esi, offset inner
2:  call outer
    call rsi
    call outer
    dec r8d
    jnz 2b
    ret

.balign 16
outer:
    add rax, 3
    call inner
    ret

.balign 16
inner:
    add rax, 1
    ret
