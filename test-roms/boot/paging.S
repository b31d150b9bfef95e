//! Page tables: four levels that map the first MAPPED_MIB of RAM one to one.
//!
//! A virtual address is five fields, each level's index 9 bits:
//!
//!     47      39 38     30 29     21 20     12 11      0
//!     |  PML4   |  PDPT   |   PD    |   PT    | offset |
//!
//! With LARGE_PAGES the last level is left out, and an entry of the PD maps 2 MiB.

#define BITS 32
#include "layout.inc"
#include "hardware.inc"

CODE_SECTION

// Builds the tables. Loses EAX, ECX, EDI.
.globl paging_build
paging_build:
    xor eax, eax
    mov edi, PML4
    mov ecx, 3 * 4096 / 4       // PML4, PDPT and PD; the PTs are written in full
    rep stosd
    mov dword ptr ds:[PML4], PDPT + PTE_P + PTE_W
    mov dword ptr ds:[PDPT], PD + PTE_P + PTE_W
    mov edi, PD
    mov ecx, MAPPED_MIB / 2
#ifdef LARGE_PAGES
    mov eax, PTE_P + PTE_W + PTE_PS
2:  mov dword ptr [edi], eax    // the upper half of each entry stays 0
    add eax, 2 << 20
    add edi, 8
    dec ecx
    jnz 2b
#else
    mov eax, PT + PTE_P + PTE_W
2:  mov dword ptr [edi], eax
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, PTE_P + PTE_W
    mov edi, PT
    mov ecx, MAPPED_MIB * 256
3:  mov dword ptr [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 4096
    add edi, 8
    dec ecx
    jnz 3b
#endif
    ret
