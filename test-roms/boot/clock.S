//! Finds out how fast the time-stamp counter runs: asks CPUID, else measures with the 8254.

#define BITS 16
#include "layout.inc"
#include "hardware.inc"

#define MEASURE_COUNTS  11932           // 10 ms of the 8254
#define MEASURE_US      10000
#define MEASURE_TRIES   5000000         // gives up on a timer that does not count

CODE_SECTION

// Sets V_TSC_MHZ and V_CLOCK_SOURCE. Loses all general registers but ESP.
.globl clock_find
clock_find:
    mov dword ptr ds:[V_CLOCK_SOURCE], CLOCK_CPUID_15
    call clock_from_leaf_15
    jnc 2f
    mov dword ptr ds:[V_CLOCK_SOURCE], CLOCK_CPUID_HYPER
    call clock_from_hypervisor
    jnc 2f
    mov dword ptr ds:[V_CLOCK_SOURCE], CLOCK_MEASURED
    call clock_measure
    jnc 2f
    mov dword ptr ds:[V_CLOCK_SOURCE], CLOCK_NONE
    xor eax, eax
2:  mov dword ptr ds:[V_TSC_MHZ], eax
    ret

// CPUID leaf 15h: TSC rate = ECX (crystal, Hz) * EBX / EAX, if none of them is zero.
// EAX = MHz, or carry set.
clock_from_leaf_15:
    xor eax, eax
    cpuid
    cmp eax, 0x15
    jb clock_unknown
    mov eax, 0x15
    xor ecx, ecx
    cpuid
    test eax, eax
    jz clock_unknown
    test ebx, ebx
    jz clock_unknown
    test ecx, ecx
    jz clock_unknown
    mov edi, eax
    mov eax, ecx
    xor edx, edx
    mov ecx, 1000               // in kHz, so that the product stays small
    div ecx
    mul ebx
    cmp edx, edi
    jae clock_unknown
    div edi
    jmp clock_from_khz

// Leaf 40000010h of several hypervisors: EAX = TSC rate in kHz.
clock_from_hypervisor:
    mov eax, 1
    cpuid
    test ecx, ecx               // bit 31: a hypervisor is present
    jns clock_unknown
    mov eax, 0x40000000
    cpuid
    cmp eax, 0x40000010
    jb clock_unknown
    mov eax, 0x40000010
    cpuid
    // falls through

// EAX kHz to EAX MHz, carry set if that is none.
clock_from_khz:
    xor edx, edx
    add eax, 500
    adc edx, 0
    mov ecx, 1000
    div ecx
    test eax, eax
    jz clock_unknown
    clc
    ret
clock_unknown:
    stc
    ret

// Counts TSC ticks while the 8254's counter 2 counts 10 ms down.
clock_measure:
    in al, PORT_B
    and al, 0xFF - PORT_B_SPEAKER
    or al, PORT_B_GATE2
    out PORT_B, al
    mov al, PIT_CW_2_MODE0
    out PIT_CONTROL, al
    mov al, MEASURE_COUNTS % 256
    out PIT_COUNTER2, al
    mov al, MEASURE_COUNTS / 256
    out PIT_COUNTER2, al        // counting starts
    rdtsc
    mov esi, eax
    mov edi, edx
    mov ecx, MEASURE_TRIES
2:  in al, PORT_B
    test al, PORT_B_OUT2        // high at terminal count
    jnz 3f
    dec ecx
    jnz 2b
    jmp clock_unknown
3:  rdtsc
    sub eax, esi
    sbb edx, edi
    mov ecx, MEASURE_US
    add eax, MEASURE_US / 2
    adc edx, 0
    cmp edx, ecx
    jae clock_unknown
    div ecx
    test eax, eax
    jz clock_unknown
    clc
    ret
