//! Reads of port 61h, which shows the 8254's counter 2.

#include "accesses.inc"

EXPECTED 0

CODE_SECTION

loop_body:
    A_MILLION_TIMES in al, PORT_B
    movzx eax, al
    and eax, PORT_B_GATE2
    ret
