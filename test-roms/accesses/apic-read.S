//! Reads of the local APIC's task priority.

#include "accesses.inc"

EXPECTED 0

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP APIC
    ret

loop_body:
    mov edx, APIC + APIC_TPR
    A_MILLION_TIMES mov eax, dword ptr [rdx]
    ret
