//! Reads of the I/O APIC's version register.

#include "accesses.inc"

EXPECTED 0x170000

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP IOAPIC
    mov eax, IOAPIC
    mov dword ptr [rax + IOREGSEL], 1
    ret

loop_body:
    mov edx, IOAPIC + IOWIN
    A_MILLION_TIMES mov eax, dword ptr [rdx]
    and eax, 0xFF0000
    ret
