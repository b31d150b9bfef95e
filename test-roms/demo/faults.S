//! Exceptions on purpose: a breakpoint, and a page fault whose handler maps the page.

#define BITS 64
#include "demo.inc"
#include "frame.inc"

#define VECTOR_BP       3
#define VECTOR_PF       14

CODE_SECTION

// Executes INT3. EAX = 1 if its handler ran and was told the address behind it.
.globl breakpoint
breakpoint:
    mov edi, VECTOR_BP
    mov esi, offset breakpoint_handler
    call interrupt_handle
    mov qword ptr [seen_rip], 0
    int3
behind_int3:
    xor eax, eax
    cmp qword ptr [seen_rip], offset behind_int3
    sete al
    ret

breakpoint_handler:
    mov rax, qword ptr [rdi + FRAME_RIP]
    mov qword ptr [seen_rip], rax
    ret

// Stores to and reads from FAULT_ADDRESS, which is not mapped. EAX = 1 if that worked.
.globl page_fault
page_fault:
    mov edi, VECTOR_PF
    mov esi, offset page_fault_handler
    call interrupt_handle
    mov edx, FAULT_ADDRESS
    mov dword ptr [rdx + 8], 0x600D
    xor eax, eax
    cmp dword ptr [fresh_page + 8], 0x600D
    sete al
    ret

// Notes what the processor says, and maps a page of RAM where there was none. The return executes
// the faulting instruction again.
page_fault_handler:
    mov eax, dword ptr [rdi + FRAME_ERROR]
    mov dword ptr [seen_error], eax
    mov rdi, cr2
    mov qword ptr [seen_cr2], rdi
    and rdi, -4096
    mov esi, offset fresh_page + PTE_P + PTE_W
    jmp map_page

.bss
.balign 4096
fresh_page:
    .skip 4096
seen_rip:
    .skip 8
.globl seen_cr2
seen_cr2:
    .skip 8
.globl seen_error
seen_error:
    .skip 4
