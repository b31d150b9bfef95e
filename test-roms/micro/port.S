//! Writes to port 80h, where nothing listens but a POST card.

#include "micro.inc"

#define ROUNDS  250000

INSTRUCTIONS 1 + ROUNDS * (4 + 2) + 2
EXPECTED 0

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
2:
.rept 4
    out PORT_POST, al
.endr
    dec r8d
    jnz 2b
    xor eax, eax
    ret
