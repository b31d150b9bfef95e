//! Writes to the local APIC's task priority.

#include "accesses.inc"

EXPECTED 0x20

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP APIC
    ret

loop_body:
    mov edx, APIC + APIC_TPR
    mov ecx, 0x20
    A_MILLION_TIMES mov dword ptr [rdx], ecx
    mov eax, dword ptr [rdx]
    ret
