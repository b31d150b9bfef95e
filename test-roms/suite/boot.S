//! From the reset vector to the controller in C: flat 32-bit protected mode, everything in RAM.

#include "memory.h"
.intel_syntax noprefix

.section .reset, "ax"
.code16
.globl reset_vector
reset_vector:
    .byte 0xEA                  // JMP FAR F000:real_start
    .word real_start_offset
    .word 0xF000
    .ascii "TRIVIUM ROM"

.section .boot, "ax"
real_start:
    cli
    cld
    mov bp, dx                  // what DX holds after reset: the processor's signature
    in al, 0x92                 // address line 20 open
    or al, 2
    and al, 0xFE
    out 0x92, al
    lgdtd cs:[boot_gdt_offset]
    mov eax, HOME_CR0
    mov cr0, eax
    .byte 0x66, 0xEA            // JMP FAR 08h:protected_start
    .long protected_start
    .word SEL_CODE32

.code32
protected_start:
    mov eax, SEL_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov esp, HOME_STACK_TOP
    mov esi, offset rom_start
    mov edi, offset low_start
    mov ecx, offset low_end
    sub ecx, edi
    rep movsb
    mov esi, offset program_in_rom
    mov edi, offset program_start
    mov ecx, offset program_end
    sub ecx, edi
    rep movsb
    mov edi, offset bss_start
    mov ecx, offset bss_end
    sub ecx, edi
    xor eax, eax
    rep stosb
    movzx ebp, bp
    push ebp
    mov eax, offset suite_main
    call eax
2:  hlt
    jmp 2b

.balign 8
.globl real_start, boot_gdt_pointer
boot_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    // 08h: 32-bit code
    .quad 0x00CF93000000FFFF    // 10h: data
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt
