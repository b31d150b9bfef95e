//! Page faults: stores to pages that are not there, mapped by the handler.

#include "micro.inc"

#define REGION  0x40000000              // at 1 GiB: 2 MiB, the reach of one page table
#define PAGES   512
#define ROUNDS  600
#define VECTOR_PF 14

INSTRUCTIONS 1 + ROUNDS * (7 + PAGES + PAGES * (4 + 12) + 2) + 2
EXPECTED ROUNDS * PAGES

CODE_SECTION

// Takes over the gate, and gives the region its page table.
.globl loop_prepare
loop_prepare:
    mov edi, VECTOR_PF
    mov esi, offset fault
    call gate_set
    mov edi, REGION
    mov esi, offset page + PTE_P + PTE_W
    call map_page
    mov rax, qword ptr ds:[PDPT + 8]    // the entry for 1 GiB
    and rax, -4096
    mov edx, offset table + PTE_P + PTE_W
    mov qword ptr [rax], rdx
    ret

loop_body:
    mov r8d, ROUNDS
2:  mov edi, offset table               // nothing is mapped
    xor eax, eax
    mov ecx, PAGES
    rep stosq
    mov rax, cr3
    mov cr3, rax
    mov edi, REGION
    mov ecx, PAGES
3:  mov dword ptr [rdi], ecx
    add rdi, 4096
    dec ecx
    jnz 3b
    dec r8d
    jnz 2b
    mov rax, qword ptr [faults]
    ret

// The handler. All pages of the region are the same page of RAM.
fault:
    push rax
    push rdx
    mov rax, cr2
    shr eax, 12
    and eax, PAGES - 1
    mov edx, offset page + PTE_P + PTE_W
    mov qword ptr [table + rax * 8], rdx
    inc qword ptr [faults]
    pop rdx
    pop rax
    add rsp, 8                          // error code
    iretq

.bss
.balign 4096
table:
    .skip 4096
page:
    .skip 4096
faults:
    .skip 8
