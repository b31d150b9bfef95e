//! Protected mode: flat 32-bit segments, the A20 gate, the program's copy in RAM.
//! From here the way to long mode is prepared; paging.S and long.S go on. In a ROM of 32-bit code
//! paged.S does instead.

#define BITS 32
#include "steps.inc"

CODE_SECTION

// From real mode, still in 16-bit code: a GDT, CR0.PE, and a far jump that loads CS from it.
.code16
.globl protected_enter
protected_enter:
    mov ebx, offset boot_gdt_pointer
    lgdt cs:[bx]
    mov eax, cr0
    and eax, ~(CR0_CD | CR0_NW) // the caches are off after reset
    or eax, CR0_PE
    mov cr0, eax
    .byte 0x66, 0xEA            // JMP FAR SEL_CODE32:protected_start, 32-bit offset
    .long protected_start
    .word SEL_CODE32

.code32
protected_start:
    mov ax, SEL_DATA32
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    STEP_END "protected mode"
    TELL "GDT, CR0.PE, far jump: CS 08h, flat 4 GiB"
    STEP_COST

    STEP_BEGIN
    in al, PORT_A
    or al, PORT_A_A20
    and al, 0xFE                // bit 0 would reset the machine
    out PORT_A, al
    STEP_END "A20 gate"
    TELL "port 92h: address bit 20 is let through"
    STEP_COST

    STEP_BEGIN
    mov esi, offset program_in_rom
    mov edi, offset program_start
    mov ecx, offset program_end
    sub ecx, edi
    shr ecx, 2                  // both areas are padded to 64 bytes
    rep movsd
    mov edi, offset bss_start
    mov ecx, offset bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd                   // variables without a value start as 0
    STEP_END "program"
#ifdef NARRATE
    mov eax, offset program_end
    sub eax, offset program_start
    TELL_DEC
    TELL " bytes from the ROM to RAM at 2 MiB"
#endif
    STEP_COST

#ifdef NARRATE
    STEP_BEGIN
    call apic_virtual_wire
    STEP_END "local APIC"
    TELL "virtual wire: LINT0 passes the 8259A on"
    STEP_COST
#endif

    jmp mode_enter

#ifdef NARRATE
// After reset the local APIC masks its LINT0 pin, to which the 8259A's output goes. "Virtual
// wire mode" opens it (SDM vol. 3A 11.5.1; Intel MultiProcessor Specification 3.6.2.2).
apic_virtual_wire:
    mov eax, 1
    cpuid
    test edx, 1 << 9            // is there an APIC?
    jz 2f
    mov ebx, APIC_DEFAULT_BASE
    mov eax, dword ptr [ebx + APIC_SVR]
    or eax, APIC_SVR_ENABLE | 0xFF
    mov dword ptr [ebx + APIC_SVR], eax
    mov dword ptr [ebx + APIC_LVT_LINT0], APIC_MODE_EXTINT
    mov dword ptr [ebx + APIC_LVT_LINT1], APIC_MODE_NMI
2:  ret
#endif

// The first GDT is in the ROM, so its descriptors have the accessed bit set from the start: the
// processor could not set it.
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00CF9B000000FFFF    // 08h: 32-bit code, base 0, limit 4 GiB
    .quad 0x00CF93000000FFFF    // 10h: data, base 0, limit 4 GiB
    .quad 0x00AF9B000000FFFF    // 18h: 64-bit code
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
