//! Hardware interrupts: the two 8259A controllers, and the 8254 timer on their line 0.

#define BITS 64
#include "demo.inc"

#define VECTOR_IRQ0     0x20
#define VECTOR_IRQ8     0x28
#define PIT_RELOAD      ((PIT_HZ + TICKS_HZ / 2) / TICKS_HZ)

CODE_SECTION

// Moves the 8259As' vectors out of the exceptions' way, to 20h-2Fh, and lets only line 0 through.
// After reset the BIOS would have put lines 0-7 on vectors 8-15, where #DF, #GP and #PF are.
.globl pic_init
pic_init:
    mov esi, offset pic_script
2:  movzx edx, byte ptr [rsi]
    mov al, byte ptr [rsi + 1]
    out dx, al
    add rsi, 2
    cmp esi, offset pic_script_end
    jb 2b
    mov edi, VECTOR_IRQ0
    mov esi, offset tick
    jmp interrupt_handle

// Starts counter 0 at TICKS_HZ.
.globl timer_start
timer_start:
    mov al, PIT_CW_0_MODE2
    out PIT_CONTROL, al
    mov al, PIT_RELOAD % 256
    out PIT_COUNTER0, al
    mov al, PIT_RELOAD / 256
    out PIT_COUNTER0, al
    ret

// Masks line 0 again.
.globl timer_stop
timer_stop:
    mov al, 0xFF
    out PIC1_DATA, al
    ret

// The interrupt: counts, and tells the 8259A that it has been taken.
tick:
    inc dword ptr [ticks]
    mov al, OCW2_EOI
    out PIC1_COMMAND, al
    ret

// Sleeps for TICKS_AWAITED ticks. EAX = how many times the processor was woken.
.globl timer_wait
timer_wait:
    xor eax, eax
    mov edx, dword ptr [ticks]
    add edx, TICKS_AWAITED
2:  sti                         // takes effect after the next instruction, so that a tick
    hlt                         // cannot slip in between the two
    cli
    inc eax
    cmp dword ptr [ticks], edx
    js 2b
    ret

.section .rodata, "a"
pic_script:                     // port, value
    .byte PIC1_COMMAND, ICW1_INIT_ICW4
    .byte PIC2_COMMAND, ICW1_INIT_ICW4
    .byte PIC1_DATA, VECTOR_IRQ0        // ICW2: vector of line 0
    .byte PIC2_DATA, VECTOR_IRQ8
    .byte PIC1_DATA, 1 << 2             // ICW3: the second controller is on line 2
    .byte PIC2_DATA, 2
    .byte PIC1_DATA, ICW4_8086
    .byte PIC2_DATA, ICW4_8086
    .byte PIC1_DATA, 0xFE               // OCW1: everything masked but line 0
    .byte PIC2_DATA, 0xFF
pic_script_end:

.bss
.balign 8
.globl ticks
ticks:
    .skip 8
