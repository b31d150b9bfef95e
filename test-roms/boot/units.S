//! Makes the x87 ready and turns AVX on, before the part of a loop that is measured. Assembled for
//! 32- and 64-bit code.

#include "layout.inc"
#include "hardware.inc"

CODE_SECTION

.globl loop_prepare
loop_prepare:
    fninit                      // after reset its exceptions are not masked (SDM vol. 3A table 10-1)
#ifdef AVX
    // The order is that of SDM vol. 1 13.3: CR4.OSXSAVE, then XCR0.
    mov R(ax), cr4
    or eax, CR4_OSXSAVE
    mov cr4, R(ax)
    xor ecx, ecx
    xor edx, edx
    mov eax, XCR0_X87 | XCR0_SSE | XCR0_AVX
    xsetbv
#endif
    ret
