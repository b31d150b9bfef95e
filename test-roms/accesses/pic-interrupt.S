//! Interrupts of COM1's transmitter through the 8259A, with a handler that ends them. Each takes
//! four port accesses.

#include "accesses.inc"

#define VECTOR          0x20
#define IRQ             4
#define IER_THRE        2
#define MCR_OUT2        8

EXPECTED MILLION

CODE_SECTION

.globl loop_prepare
loop_prepare:
    MAP APIC
    mov edx, APIC
    mov dword ptr [rdx + APIC_SVR], APIC_SVR_ENABLE + 0xFF
    mov dword ptr [rdx + APIC_LVT_LINT0], APIC_MODE_EXTINT
    mov al, ICW1_INIT_ICW4
    out PIC1_COMMAND, al
    mov al, VECTOR
    out PIC1_DATA, al
    mov al, 4
    out PIC1_DATA, al
    mov al, ICW4_8086
    out PIC1_DATA, al
    mov al, 0xFF - (1 << IRQ)
    out PIC1_DATA, al
    mov dx, COM1 + UART_MCR
    mov al, MCR_DTR_RTS + MCR_OUT2
    out dx, al
    mov edi, VECTOR + IRQ
    mov esi, offset handler
    jmp gate_set

loop_body:
    mov dx, COM1 + UART_LSR
2:  in al, dx                       // so that the transmitter is empty all the time
    test al, LSR_TEMT
    jz 2b
    mov dx, COM1 + UART_IER
    mov r8d, MILLION
    xor ecx, ecx
    sti
3:  mov al, IER_THRE
    out dx, al
    nop                             // it comes here at the latest
    xor eax, eax
    out dx, al
    dec r8d
    jnz 3b
    cli
    mov eax, ecx
    ret

handler:
    inc ecx
    mov al, OCW2_EOI
    out PIC1_COMMAND, al
    iretq
