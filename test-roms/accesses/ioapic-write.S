//! Writes to the I/O APIC's register select.

#include "accesses.inc"

EXPECTED 1

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP IOAPIC
    ret

loop_body:
    mov edx, IOAPIC + IOREGSEL
    mov ecx, 1
    A_MILLION_TIMES mov dword ptr [rdx], ecx
    mov eax, dword ptr [rdx]
    ret
