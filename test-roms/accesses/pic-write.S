//! Writes to the 8259A's mask register.

#include "accesses.inc"

EXPECTED 0xFF

CODE_SECTION

loop_body:
    mov al, 0xFF
    A_MILLION_TIMES out PIC1_DATA, al
    in al, PIC1_DATA
    movzx eax, al
    ret
