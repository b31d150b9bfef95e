//! The first 64-bit code: descriptor tables that can be written, then the program.

#define BITS 64
#include "steps.inc"
#include "power.inc"

CODE_SECTION

// From long.S. The program's RAM is mapped, and everything but the boot code is in it.
.globl long_start
long_start:
    lgdt [gdt_pointer]
    mov eax, SEL_DATA64
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov esp, LONG_STACK_TOP
    STEP_END "long mode"
    TELL "CR4.PAE, EFER.LME, CR0.PG, far jump: CS 18h"
    STEP_COST

    STEP_BEGIN
    call tss_load
    call interrupts_init
    STEP_END "exceptions"
    TELL "IDT with 256 gates, TSS with ring 0's stack"
    STEP_COST

    call rom_main
    jmp power_off

// Fills in the TSS descriptor, whose base is scattered over it (SDM vol. 3A 8.2.3), and loads it.
tss_load:
    mov eax, offset tss
    mov word ptr [gdt_tss + 2], ax
    shr eax, 16
    mov byte ptr [gdt_tss + 4], al
    mov byte ptr [gdt_tss + 7], ah
    mov eax, SEL_TSS
    ltr ax
    ret

.data
.balign 16
gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    // 08h: 32-bit code
    .quad 0x00CF93000000FFFF    // 10h: data
    .quad 0x00AF9B000000FFFF    // 18h: 64-bit code
    .quad 0x00CF93000000FFFF    // 20h: data
    .quad 0x00CFFB000000FFFF    // 28h: ring 3, 32-bit code
    .quad 0x00CFF3000000FFFF    // 30h: ring 3, data
    .quad 0x00AFFB000000FFFF    // 38h: ring 3, 64-bit code
gdt_tss:
    .quad 0x0000890000000067    // 40h: available 64-bit TSS, limit 67h; the base is filled in
    .quad 0
gdt_end:

.globl gdt_pointer
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

.balign 16
tss:
    .long 0
    .quad ring0_stack_top       // RSP0: the stack when an interrupt arrives in ring 3
    .fill 22, 4, 0
    .word 0
    .word 104                   // no I/O permission map: its offset is the limit

.bss
.balign 16
    .skip 4096
.globl ring0_stack_top
ring0_stack_top:
