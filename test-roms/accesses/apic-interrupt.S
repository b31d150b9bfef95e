//! Interrupts that the local APIC sends to itself, with a handler that ends them.

#include "accesses.inc"

#define VECTOR  0x60

EXPECTED MILLION

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP APIC
    mov edx, APIC
    mov dword ptr [rdx + APIC_SVR], APIC_SVR_ENABLE + 0xFF
    mov edi, VECTOR
    mov esi, offset handler
    jmp gate_set

loop_body:
    mov edx, APIC
    mov r8d, MILLION
    xor eax, eax
    sti
2:  mov dword ptr [rdx + APIC_ICR], ICR_SELF + VECTOR
    dec r8d
    jnz 2b
    mov ecx, 1000                   // the last one may be under way
3:  dec ecx
    jnz 3b
    cli
    ret

handler:
    inc eax
    mov dword ptr [rdx + APIC_EOI], 0
    iretq
