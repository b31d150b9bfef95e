//! Writes to port 80h, where nothing listens but a POST card.

#include "accesses.inc"

EXPECTED 0

CODE_SECTION

loop_body:
    A_MILLION_TIMES out PORT_POST, al
    xor eax, eax
    ret
