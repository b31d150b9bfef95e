//! The way from the controller into any mode, and back when an exception or interrupt arrives.
//!
//! `enter` makes the processor what `context` says and goes there with IRET. Every vector leads
//! to code that writes all registers into `record`, comes back to flat 32-bit protected mode, and
//! returns from `enter`.

#include "memory.h"
.intel_syntax noprefix

// What both sides see at the same address in each mode. Constants, because 64-bit code in a 32-bit
// object may not refer to symbols.
#define context     CONTEXT
#define record      RECORD
#define has_cr4     HAS_CR4
#define has_efer    HAS_EFER
#define home_esp    HOME_ESP

#define CTX(member) dword ptr ds:[context + CTX_##member]
#define REC(member) dword ptr ds:[record + REC_##member]

.section .low, "ax"
.globl home_gdt_pointer, home_idt_pointer
.balign 8
home_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    // 08h: 32-bit code
    .quad 0x00CF93000000FFFF    // 10h: data
home_gdt_pointer:
    .word home_gdt_pointer - home_gdt - 1
    .long home_gdt
.balign 4
home_idt_pointer:               // filled in by the controller
    .word 0
    .long 0

//
// Into protected mode and long mode
//

.text
.code32
.globl enter
enter:
    pushad
    mov ds:[home_esp], esp
    lgdt ds:[context + CTX_GDTR]
    lidt ds:[context + CTX_IDTR]
    .irp n, 0, 1, 2, 3
    mov eax, dword ptr ds:[context + CTX_DR + 8 * \n]
    mov dr\n, eax
    .endr
    cmp dword ptr ds:[has_cr4], 0
    je 2f
    mov eax, CTX(CR4)
    mov cr4, eax
2:  cmp dword ptr ds:[has_efer], 0
    je 2f
    mov ecx, EFER
    mov eax, CTX(EFER)
    xor edx, edx
    wrmsr
2:  cmp CTX(KIND), KIND_REAL
    je enter_real
    mov eax, CTX(CR3)
    mov cr3, eax
    mov eax, CTX(CR0)
    mov cr0, eax
    jmp 2f
2:  cmp CTX(KIND), KIND_LONG
    je enter_long
    call load_system_registers
    mov eax, CTX(DR7)
    mov dr7, eax
    test CTX(RFLAGS), FLAGS_VM
    jnz enter_v86
    mov es, word ptr ds:[context + CTX_ES]
    mov fs, word ptr ds:[context + CTX_FS]
    mov gs, word ptr ds:[context + CTX_GS]
    test CTX(CS), 3
    jnz 3f
    mov ss, word ptr ds:[context + CTX_SS]
    mov esp, dword ptr ds:[context + CTX_R + 8 * 4]
    jmp 4f
3:  push CTX(SS)
    push dword ptr ds:[context + CTX_R + 8 * 4]
4:  push CTX(RFLAGS)
    push CTX(CS)
    push CTX(RIP)
    push CTX(DS)
    call_free_load_registers:
    mov eax, dword ptr ds:[context + CTX_R + 8 * 0]
    mov ecx, dword ptr ds:[context + CTX_R + 8 * 1]
    mov edx, dword ptr ds:[context + CTX_R + 8 * 2]
    mov ebx, dword ptr ds:[context + CTX_R + 8 * 3]
    mov ebp, dword ptr ds:[context + CTX_R + 8 * 5]
    mov esi, dword ptr ds:[context + CTX_R + 8 * 6]
    mov edi, dword ptr ds:[context + CTX_R + 8 * 7]
    pop ds
    iretd

enter_v86:
    push CTX(GS)
    push CTX(FS)
    push CTX(DS)
    push CTX(ES)
    push CTX(SS)
    push dword ptr ds:[context + CTX_R + 8 * 4]
    push CTX(RFLAGS)
    push CTX(CS)
    push CTX(RIP)
    push SEL_DATA
    jmp call_free_load_registers

// LDTR and TR; a null selector leaves TR as it is.
load_system_registers:
    lldt word ptr ds:[context + CTX_LDTR]
    cmp CTX(TR), 0
    je 2f
    ltr word ptr ds:[context + CTX_TR]
2:  ret

enter_long:
    .byte 0xEA                  // JMP FAR 38h:enter64
    .long enter64
    .word SEL_CODE64

.code64
enter64:
    lldt word ptr ds:[context + CTX_LDTR]
    cmp CTX(TR), 0
    je 2f
    ltr word ptr ds:[context + CTX_TR]
2:  .irp n, 0, 1, 2, 3
    mov rax, qword ptr ds:[context + CTX_DR + 8 * \n]
    mov dr\n, rax
    .endr
    mov rax, qword ptr ds:[context + CTX_DR7]
    mov dr7, rax
    mov es, word ptr ds:[context + CTX_ES]
    mov fs, word ptr ds:[context + CTX_FS]
    mov gs, word ptr ds:[context + CTX_GS]
    mov eax, CTX(SS)
    push rax
    push qword ptr ds:[context + CTX_R + 8 * 4]
    push qword ptr ds:[context + CTX_RFLAGS]
    mov eax, CTX(CS)
    push rax
    push qword ptr ds:[context + CTX_RIP]
    mov ds, word ptr ds:[context + CTX_DS]     // its limit and base do not matter here
    mov rax, qword ptr ds:[context + CTX_R + 8 * 0]
    mov rcx, qword ptr ds:[context + CTX_R + 8 * 1]
    mov rdx, qword ptr ds:[context + CTX_R + 8 * 2]
    mov rbx, qword ptr ds:[context + CTX_R + 8 * 3]
    mov rbp, qword ptr ds:[context + CTX_R + 8 * 5]
    mov rsi, qword ptr ds:[context + CTX_R + 8 * 6]
    mov rdi, qword ptr ds:[context + CTX_R + 8 * 7]
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    mov r\n, qword ptr ds:[context + CTX_R + 8 * \n]
    .endr
    iretq

//
// Out of 32-bit protected mode: a stub for each vector, whose return address tells which it is
//

.code32
.globl handlers32
.balign 16
handlers32:
    .rept 256
    .byte 0xE8                  // CALL leave32, always of 5 bytes
    .long leave32 - . - 4
    .endr

leave32:
    push eax
    mov eax, ds
    push eax
    mov eax, SEL_DATA
    mov ds, eax
    pop REC(DS)
    pop dword ptr ds:[record + REC_R + 8 * 0]
    pop REC(VECTOR)
    mov dword ptr ds:[record + REC_R + 8 * 1], ecx
    mov dword ptr ds:[record + REC_R + 8 * 2], edx
    mov dword ptr ds:[record + REC_R + 8 * 3], ebx
    mov dword ptr ds:[record + REC_R + 8 * 5], ebp
    mov dword ptr ds:[record + REC_R + 8 * 6], esi
    mov dword ptr ds:[record + REC_R + 8 * 7], edi
    pushfd
    pop REC(FLAGS)
    mov word ptr ds:[record + REC_ES], es
    mov word ptr ds:[record + REC_FS], fs
    mov word ptr ds:[record + REC_GS], gs
    mov word ptr ds:[record + REC_SS], ss
    mov word ptr ds:[record + REC_CS], cs
    cld
    mov esi, esp
    mov eax, ss                 // a 16-bit stack counts in SP only
    lar eax, eax
    test eax, 1 << 22
    jnz 2f
    movzx esi, si
2:  mov REC(HANDLER_SP), esi
    mov eax, SEL_DATA
    mov es, eax
    mov edi, offset record + REC_FRAME
    mov ecx, REC_FRAME_DWORDS
3:  mov eax, ss:[esi]
    stosd
    add esi, 4
    loop 3b
    sub dword ptr ds:[record + REC_VECTOR], offset handlers32 + 5
    mov eax, REC(VECTOR)
    xor edx, edx
    mov ecx, 5
    div ecx
    mov REC(VECTOR), eax
    mov eax, cr2
    mov REC(CR2), eax
    mov eax, cr3
    mov REC(CR3), eax
    mov eax, cr0
    mov REC(CR0), eax
    mov eax, dr6
    mov REC(DR6), eax
    mov eax, dr7
    mov REC(DR7), eax
    cmp dword ptr ds:[has_cr4], 0
    je 4f
    mov eax, cr4
    mov REC(CR4), eax
4:

// Flat 32-bit protected mode again, whatever the processor was before. Paging may still be on.
.globl come_home
come_home:
    mov eax, SEL_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, ds:[home_esp]
    mov eax, 0x400
    mov dr7, eax
    xor eax, eax
    mov dr6, eax
    cmp dword ptr ds:[has_cr4], 0
    je 2f
    mov eax, cr4
    and eax, ~CR4_PCIDE
    mov cr4, eax
2:  mov eax, HOME_CR0
    mov cr0, eax
    jmp 2f
2:  xor eax, eax
    cmp dword ptr ds:[has_cr4], 0
    je 2f
    mov cr4, eax
2:  cmp dword ptr ds:[has_efer], 0
    je 2f
    xor edx, edx
    mov ecx, EFER
    wrmsr
2:  lgdt [home_gdt_pointer]
    lidt [home_idt_pointer]
    .byte 0xEA                  // JMP FAR 08h:2
    .long 2f
    .word SEL_CODE32
2:  mov eax, SEL_DATA
    mov fs, eax
    mov gs, eax
    push 2
    popfd
    popad
    ret

//
// Out of long mode
//

.globl handlers64
.balign 16
handlers64:
    .rept 256
    .byte 0xE8                  // CALL leave64
    .long leave64 - . - 4
    .endr

.code64
leave64:
    mov qword ptr ds:[record + REC_R + 8 * 0], rax
    pop rax
    mov REC(VECTOR), eax
    mov qword ptr ds:[record + REC_R + 8 * 1], rcx
    mov qword ptr ds:[record + REC_R + 8 * 2], rdx
    mov qword ptr ds:[record + REC_R + 8 * 3], rbx
    mov qword ptr ds:[record + REC_R + 8 * 5], rbp
    mov qword ptr ds:[record + REC_R + 8 * 6], rsi
    mov qword ptr ds:[record + REC_R + 8 * 7], rdi
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    mov qword ptr ds:[record + REC_R + 8 * \n], r\n
    .endr
    mov qword ptr ds:[record + REC_HANDLER_SP], rsp
    pushfq
    pop qword ptr ds:[record + REC_FLAGS]
    cld
    mov eax, ds
    mov REC(DS), eax
    mov eax, es
    mov REC(ES), eax
    mov eax, fs
    mov REC(FS), eax
    mov eax, gs
    mov REC(GS), eax
    mov eax, ss
    mov REC(SS), eax
    mov eax, cs
    mov REC(CS), eax
    mov rsi, rsp
    mov edi, offset record + REC_FRAME
    mov ecx, REC_FRAME_DWORDS
    rep movsd
    mov eax, REC(VECTOR)
    sub eax, offset handlers64 + 5
    xor edx, edx
    mov ecx, 5
    div ecx
    mov REC(VECTOR), eax
    mov rax, cr2
    mov qword ptr ds:[record + REC_CR2], rax
    mov rax, cr3
    mov qword ptr ds:[record + REC_CR3], rax
    mov rax, cr0
    mov qword ptr ds:[record + REC_CR0], rax
    mov rax, cr4
    mov qword ptr ds:[record + REC_CR4], rax
    mov rax, dr6
    mov qword ptr ds:[record + REC_DR6], rax
    mov rax, dr7
    mov qword ptr ds:[record + REC_DR7], rax
    mov rsp, HOME_STACK_TOP + 0x1000 // not what the controller has on its own
    push SEL_CODE32
    mov eax, offset come_home
    push rax
    retfq

//
// Into real mode and out of it
//

.code32
enter_real:
    mov eax, CTX(DR7)
    mov dr7, eax
    .byte 0xEA                  // JMP FAR 40h:enter_real16
    .long enter_real16
    .word SEL_CODE16

.section .low, "ax"
.code16
enter_real16:
    mov ax, SEL_DATA16          // limits of 64 KiB stay after the switch
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov eax, CTX(CR0)
    mov cr0, eax
    .byte 0xEA                  // JMP FAR 0:2
    .word 2f
    .word 0
2:  xor ax, ax
    mov ds, ax
    mov es, word ptr ds:[context + CTX_ES]
    mov fs, word ptr ds:[context + CTX_FS]
    mov gs, word ptr ds:[context + CTX_GS]
    mov ss, word ptr ds:[context + CTX_SS]
    mov esp, dword ptr ds:[context + CTX_R + 8 * 4]
    push CTX(RFLAGS)
    push CTX(CS)
    push CTX(RIP)
    mov eax, dword ptr ds:[context + CTX_R + 8 * 0]
    mov ecx, dword ptr ds:[context + CTX_R + 8 * 1]
    mov edx, dword ptr ds:[context + CTX_R + 8 * 2]
    mov ebx, dword ptr ds:[context + CTX_R + 8 * 3]
    mov ebp, dword ptr ds:[context + CTX_R + 8 * 5]
    mov esi, dword ptr ds:[context + CTX_R + 8 * 6]
    mov edi, dword ptr ds:[context + CTX_R + 8 * 7]
    mov ds, word ptr ds:[context + CTX_DS]
    iretd

.globl handlers16
handlers16:
    .rept 256
    .byte 0xE8                  // CALL leave16
    .word leave16 - . - 2
    .endr

leave16:
    mov dword ptr cs:[record + REC_R + 8 * 0], eax
    mov ax, ds
    mov word ptr cs:[record + REC_DS], ax
    xor ax, ax
    mov ds, ax
    pop ax
    sub ax, offset handlers16 + 3
    movzx eax, ax
    mov REC(VECTOR), eax
    mov dword ptr ds:[record + REC_R + 8 * 1], ecx
    mov dword ptr ds:[record + REC_R + 8 * 2], edx
    mov dword ptr ds:[record + REC_R + 8 * 3], ebx
    mov dword ptr ds:[record + REC_R + 8 * 5], ebp
    mov dword ptr ds:[record + REC_R + 8 * 6], esi
    mov dword ptr ds:[record + REC_R + 8 * 7], edi
    pushfd
    pop REC(FLAGS)
    movzx esi, sp
    mov REC(HANDLER_SP), esi
    mov word ptr ds:[record + REC_ES], es
    mov word ptr ds:[record + REC_FS], fs
    mov word ptr ds:[record + REC_GS], gs
    mov word ptr ds:[record + REC_SS], ss
    cld
    xor ax, ax
    mov es, ax
    mov di, offset record + REC_FRAME
    mov cx, REC_FRAME_DWORDS
2:  mov eax, ss:[si]
    stosd
    add si, 4
    loop 2b
    mov eax, REC(VECTOR)
    xor edx, edx
    mov ecx, 3
    div ecx
    mov REC(VECTOR), eax
    mov eax, cr2
    mov REC(CR2), eax
    mov eax, cr0
    mov REC(CR0), eax
    mov eax, dr6
    mov REC(DR6), eax
    mov eax, dr7
    mov REC(DR7), eax
    lgdtd [home_gdt_pointer]
    mov eax, HOME_CR0
    mov cr0, eax
    .byte 0x66, 0xEA            // JMP FAR 08h:come_home
    .long come_home
    .word SEL_CODE32

//
// What interrupts the controller itself is a mistake of ours
//

.text
.code32
.globl home_handlers
.balign 16
home_handlers:
    .rept 256
    .byte 0xE8                  // CALL home_fault
    .long home_fault - . - 4
    .endr
home_fault:
    push esp
    mov eax, offset unexpected
    call eax
    hlt
