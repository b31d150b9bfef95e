//! Reads of the 8259A's mask register.

#include "accesses.inc"

EXPECTED 0xFF

CODE_SECTION

.globl loop_prepare
loop_prepare:
    mov al, 0xFF
    out PIC1_DATA, al
    ret

loop_body:
    A_MILLION_TIMES in al, PIC1_DATA
    movzx eax, al
    ret
