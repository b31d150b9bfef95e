//! Reads of the HPET's main counter, which runs.

#include "accesses.inc"

EXPECTED 0

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP HPET
    mov eax, HPET
    mov dword ptr [rax + HPET_CONFIG], 1
    ret

loop_body:
    mov edx, HPET + HPET_COUNTER
    A_MILLION_TIMES mov eax, dword ptr [rdx]
    xor eax, eax
    ret
