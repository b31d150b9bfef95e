//! Paging in 32-bit protected mode, instead of long mode: two levels that map the first MAPPED_MIB of
//! RAM one to one with 4 KiB pages (SDM vol. 3A 4.3), then the program.

#define BITS 32
#include "power.inc"

CODE_SECTION

// From protected mode.
.globl mode_enter
mode_enter:
    xor eax, eax
    mov edi, PD
    mov ecx, 4096 / 4
    rep stosd
    mov eax, PT + PTE_P + PTE_W
    mov edi, PD
    mov ecx, MAPPED_MIB / 4
2:  mov dword ptr [edi], eax
    add eax, 4096
    add edi, 4
    dec ecx
    jnz 2b
    mov eax, PTE_P + PTE_W
    mov edi, PT
    mov ecx, MAPPED_MIB * 256
3:  mov dword ptr [edi], eax
    add eax, 4096
    add edi, 4
    dec ecx
    jnz 3b

    mov eax, CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, eax
    mov eax, PD
    mov cr3, eax
    mov eax, cr0
    and eax, ~CR0_EM
    or eax, CR0_PG | CR0_WP | CR0_NE | CR0_MP
    mov cr0, eax
    jmp 4f
4:  mov esp, LONG_STACK_TOP
    call rom_main
    jmp power_off
