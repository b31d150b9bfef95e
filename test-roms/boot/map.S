//! Maps single 4 KiB pages, in 64-bit code: walks the four levels and adds tables where needed.

#define BITS 64
#include "layout.inc"
#include "hardware.inc"

.data
next_table:
    .quad MORE_TABLES

CODE_SECTION

// Maps the page at virtual address RDI with the entry RSI (physical address and PTE_* bits).
// If RSI has PTE_U, the levels above get it too. Loses RAX, RCX, RDX, R8, R9.
.globl map_page
map_page:
    mov r8d, PML4
    mov ecx, 39                 // lowest bit of the index at this level
2:  call table_entry
    test byte ptr [rdx], PTE_P
    jnz 3f
    mov rax, qword ptr [next_table]
    add qword ptr [next_table], 4096
    call clear_page
    or rax, PTE_P + PTE_W
    mov qword ptr [rdx], rax
3:  mov rax, rsi
    and eax, PTE_U
    or qword ptr [rdx], rax
    mov r8, qword ptr [rdx]
    and r8, -4096
    sub ecx, 9
    cmp ecx, 12
    ja 2b
    call table_entry
    mov qword ptr [rdx], rsi
    invlpg [rdi]
    ret

// RDX = the entry for RDI in the table at R8 whose index starts at bit ECX. Loses RAX.
table_entry:
    mov rax, rdi
    shr rax, cl
    and eax, 511
    lea rdx, [r8 + rax * 8]
    ret

// Clears the page at RAX. Loses R9.
clear_page:
    mov r9d, 512
2:  mov qword ptr [rax + r9 * 8 - 8], 0
    dec r9
    jnz 2b
    ret
