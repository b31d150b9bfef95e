//! The way from protected mode into long mode. start.S goes on from there.

#define BITS 32
#include "steps.inc"

CODE_SECTION

// From protected mode. The order is the one in SDM vol. 3A 10.8.5: PAE, CR3, EFER.LME, CR0.PG.
.globl mode_enter
mode_enter:
#ifdef NARRATE
    SAY "\n  \033[1mLong mode\033[0m: 64 bits, 256 TiB, as in 2003\n"
#endif
    STEP_BEGIN
    call paging_build
    STEP_END "page tables"
#ifdef NARRATE
    TELL "4 levels, 4 KiB pages, "
    mov eax, MAPPED_MIB
    TELL_DEC
    TELL " MiB one to one"
#endif
    STEP_COST

    STEP_BEGIN
    mov eax, CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, eax
    mov eax, PML4
    mov cr3, eax
    mov ecx, IA32_EFER
    rdmsr
    or eax, EFER_LME | EFER_SCE
    wrmsr
    mov eax, cr0
    and eax, ~CR0_EM
    or eax, CR0_PG | CR0_WP | CR0_NE | CR0_MP
    mov cr0, eax                // EFER.LMA becomes 1: compatibility mode
    .byte 0xEA                  // JMP FAR SEL_CODE64:long_start
    .long long_start
    .word SEL_CODE64
