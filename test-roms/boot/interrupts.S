//! Interrupts and exceptions in long mode: the IDT, the entry stubs, and what happens when
//! nobody expected one.

#define BITS 64
#include "serial.inc"
#include "power.inc"
#include "frame.inc"

#define GATE_INTERRUPT  0x8E00          // present, ring 0, 64-bit interrupt gate
#define STUBS           48              // the 32 exceptions and the 16 lines of the 8259As
#define STUB_SIZE       16

CODE_SECTION

// Points all gates at their stubs and loads the IDT.
.globl interrupts_init
interrupts_init:
    xor edi, edi
2:  mov esi, edi
    cmp esi, STUBS - 1
    jbe 3f
    mov esi, STUBS              // one stub for all the others
3:  imul esi, esi, STUB_SIZE
    add esi, offset stubs
    call gate_set
    inc edi
    cmp edi, 256
    jb 2b
    lidt [idt_pointer]
    ret

// Points vector EDI's gate at the entry ESI. Loses RAX, RDX.
.globl gate_set
gate_set:
    mov edx, edi
    shl edx, 4
    add edx, offset idt
    mov word ptr [rdx], si
    mov word ptr [rdx + 2], SEL_CODE64
    mov word ptr [rdx + 4], GATE_INTERRUPT
    mov eax, esi
    shr eax, 16
    mov word ptr [rdx + 6], ax
    mov qword ptr [rdx + 8], 0  // the stubs are below 4 GiB
    ret

// Makes RSI the handler of vector EDI. It is called with RDI pointing at the frame, interrupts
// off, and may change what it finds there and use every register.
.globl interrupt_handle
interrupt_handle:
    mov qword ptr [handlers + rdi * 8], rsi
    ret

// One stub per vector. Some exceptions push an error code; the others get a zero, so that all
// frames look the same.
.balign STUB_SIZE
stubs:
.set vector, 0
.rept STUBS
    .balign STUB_SIZE
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    .byte 0x6A, vector          // PUSH vector
    jmp interrupt_entry
    .set vector, vector + 1
.endr
.balign STUB_SIZE
    push 0
    push 127                    // stands for "48 or more"
    jmp interrupt_entry

interrupt_entry:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov eax, dword ptr [rdi + FRAME_VECTOR]
    mov rax, qword ptr [handlers + rax * 8]
    test rax, rax
    jz unexpected
    call rax
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16                 // vector and error code
    iretq

// Says what happened and switches off.
unexpected:
    mov rbx, rdi
    SAY "\nunexpected interrupt "
    mov eax, dword ptr [rbx + FRAME_VECTOR]
    SAY_DEC
    SAY ": error "
    mov eax, dword ptr [rbx + FRAME_ERROR]
    SAY_HEX 8
    SAY "h, RIP "
    mov rax, qword ptr [rbx + FRAME_RIP]
    call put_hex64
    SAY "h, CR2 "
    mov rax, cr2
    call put_hex64
    SAY "h\n"
    jmp power_off

.data
.balign 8
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

.bss
.balign 16
idt:
    .skip 256 * 16
handlers:
    .skip 256 * 8
