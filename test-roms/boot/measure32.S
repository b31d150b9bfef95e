//! The main program of the benchmarks in 32-bit code; prints what measure.S prints.

#define BITS 32
#include "serial.inc"
#include "power.inc"

CODE_SECTION

// V_STEP_START and V_STEP_COST, free in benchmarks, hold the TSC and the checksum.
.weak loop_prepare
.globl rom_main
rom_main:
    sub esp, 12                 // C wants the stack aligned to 16 bytes before a call
    mov eax, offset loop_prepare
    test eax, eax
    jz 2f
    call eax
2:  SAY "loop "
    SAY NAME
    SAY " start\n"
    rdtsc
    mov dword ptr ds:[V_STEP_START], eax
    mov dword ptr ds:[V_STEP_START + 4], edx
    call loop_body
    mov dword ptr ds:[V_STEP_COST], eax
    mov dword ptr ds:[V_STEP_COST + 4], edx
    rdtsc
    sub eax, dword ptr ds:[V_STEP_START]
    sbb edx, dword ptr ds:[V_STEP_START + 4]
    SAY "loop "
    SAY NAME
    SAY " tsc "
    call put_edx_eax
    mov eax, dword ptr ds:[V_STEP_COST]
    mov edx, dword ptr ds:[V_STEP_COST + 4]
    cmp eax, dword ptr [loop_expected]
    jne 2f
    cmp edx, dword ptr [loop_expected + 4]
    je 3f
2:  SAY "\nloop "
    SAY NAME
    SAY " wrong: not "
    mov eax, dword ptr [loop_expected]
    mov edx, dword ptr [loop_expected + 4]
    call put_edx_eax
3:  SAY "\nloop "
    SAY NAME
    SAY " done "
    mov eax, dword ptr ds:[V_STEP_COST]
    mov edx, dword ptr ds:[V_STEP_COST + 4]
    call put_edx_eax
    SAY "\n"
    jmp power_off

// Prints EDX:EAX as 16 hexadecimal digits. Loses EAX.
put_edx_eax:
    push eax
    mov eax, edx
    SAY_HEX 8
    pop eax
    SAY_HEX 8
    ret
