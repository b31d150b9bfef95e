//! Real mode: the first instructions, the serial line, and what processor this is.

#define BITS 16
#include "steps.inc"
#include "power.inc"

#define BRAND_SHOWN     41              // characters of the name that fit on the line

CODE_SECTION

// From the reset vector. DS, ES and SS are 0 from here on, as flat as real mode gets; only CS is
// F000h, and strings are read through it. The ROM is linked at F0000h, so the low 16 bits of a
// symbol are its offset in that segment: MOV ESI, OFFSET X leaves the right thing in SI.
.globl real_start
real_start:
    cli
    cld
    mov ebx, edx                // after reset, EDX is the processor's signature
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, REAL_STACK_TOP
    mov dword ptr ds:[V_SIGNATURE], ebx
    mov dword ptr ds:[V_STEP], 0
    mov dword ptr ds:[V_COLUMN], 0
#ifdef NARRATE
    rdtsc
    mov dword ptr ds:[V_RESET_TSC], eax
    mov dword ptr ds:[V_RESET_TSC + 4], edx
    // Costs are kept until the clock is known and the line can be printed.
    STEP_BEGIN
    call serial_init
    call step_end
    call keep_cost_0
    STEP_BEGIN
    call clock_find
    call step_end
    call keep_cost_1
    STEP_BEGIN
    call identify
    call step_end
    call keep_cost_2
    call say_early_steps
#else
    call serial_init
    call identify
#endif
    cmp dword ptr ds:[V_LONG_MODE], 0
    je 2f
#ifdef NARRATE
    SAY "\n  \033[1mProtected mode\033[0m: 32 bits, 4 GiB, as in 1985\n"
#endif
    STEP_BEGIN
    jmp protected_enter
2:  SAY "\n  This processor has no long mode (CPUID 80000001h EDX bit 29), so this is the end.\n\n"
    jmp power_off

serial_init:
    xor al, al
    mov dx, COM1 + UART_IER
    out dx, al                  // no interrupts: we poll
    mov al, LCR_DLAB | LCR_8N1
    mov dx, COM1 + UART_LCR
    out dx, al
    mov al, 1                   // 115,200 baud / 1
    mov dx, COM1 + UART_DLL
    out dx, al
    xor al, al
    mov dx, COM1 + UART_DLM
    out dx, al
    mov al, LCR_8N1
    mov dx, COM1 + UART_LCR
    out dx, al
    mov al, FCR_ENABLE
    mov dx, COM1 + UART_FCR
    out dx, al
    mov al, MCR_DTR_RTS
    mov dx, COM1 + UART_MCR
    out dx, al
    ret

// Stores the processor's name at V_BRAND, and in V_LONG_MODE whether there is a long mode.
identify:
    mov edi, V_BRAND
    mov ecx, 12
    xor eax, eax
    rep stosd
    mov dword ptr ds:[V_LONG_MODE], 0
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb 3f
    push eax
    mov eax, 0x80000001
    cpuid
    and edx, 1 << 29
    mov dword ptr ds:[V_LONG_MODE], edx
    pop eax
    cmp eax, 0x80000004
    jb 3f
    mov esi, 0x80000002         // the name is 48 characters in leaves 80000002h to 80000004h
    mov edi, V_BRAND
2:  mov eax, esi
    cpuid
    mov dword ptr [edi], eax
    mov dword ptr [edi + 4], ebx
    mov dword ptr [edi + 8], ecx
    mov dword ptr [edi + 12], edx
    add edi, 16
    inc esi
    cmp esi, 0x80000004
    jbe 2b
3:  ret

#ifdef NARRATE

.irp n, 0, 1, 2
keep_cost_\n:
    mov eax, dword ptr ds:[V_STEP_COST]
    mov edx, dword ptr ds:[V_STEP_COST + 4]
    mov dword ptr ds:[V_EARLY_COSTS + 8 * \n], eax
    mov dword ptr ds:[V_EARLY_COSTS + 8 * \n + 4], edx
    ret
recall_cost_\n:
    mov eax, dword ptr ds:[V_EARLY_COSTS + 8 * \n]
    mov edx, dword ptr ds:[V_EARLY_COSTS + 8 * \n + 4]
    mov dword ptr ds:[V_STEP_COST], eax
    mov dword ptr ds:[V_STEP_COST + 4], edx
    ret
.endr

say_early_steps:
    SAY "\n  \033[1mTrivium demo\033[0m: a PC from its first instruction to power-off\n\n"
    SAY "  \033[1mReal mode\033[0m: 16 bits, 1 MiB, as in 1978\n"

    STEP_TITLE "reset vector"
    TELL "F000:FFF0 to F000:0000, CR0 "
    mov eax, cr0
    TELL_HEX 8
    TELL "h, EDX "
    mov eax, dword ptr ds:[V_SIGNATURE]
    TELL_HEX 8
    TELL "h\n"

    STEP_TITLE "serial line"
    TELL "16550A at 3F8h: 115,200 baud, 8N1, FIFOs on"
    call recall_cost_0
    STEP_COST

    STEP_TITLE "clock"
    call say_clock
    call recall_cost_1
    STEP_COST

    STEP_TITLE "processor"
    mov edi, V_BRAND
    mov ecx, BRAND_SHOWN
2:  mov al, byte ptr [edi]
    test al, al
    jz 3f
    call putc
    inc edi
    dec ecx
    jnz 2b
3:  call recall_cost_2
    STEP_COST
    ret

say_clock:
    mov eax, dword ptr ds:[V_CLOCK_SOURCE]
    cmp al, CLOCK_NONE
    je 4f
    push eax
    TELL "TSC at "
    mov eax, dword ptr ds:[V_TSC_MHZ]
    TELL_DEC
    pop eax
    cmp al, CLOCK_CPUID_15
    jne 2f
    TELL " MHz, says CPUID 15h"
    ret
2:  cmp al, CLOCK_CPUID_HYPER
    jne 3f
    TELL " MHz, says CPUID 40000010h"
    ret
3:  TELL " MHz, measured with the 8254"
    ret
4:  TELL "unknown: times are in TSC ticks"
    ret

#endif
