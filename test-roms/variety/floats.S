//! Vectors and floating point.

#define BITS 64
#include "variety.inc"

CODE_SECTION

.globl vectors_and_floats
vectors_and_floats:
    call packed_integers
    call packed_floats
    jmp x87

packed_integers:
    movdqa xmm0, [bytes]
    movdqa xmm1, [words]
    movdqa xmm2, xmm0
    paddsb xmm2, xmm0
    KEEP_XMM 2
    movdqa xmm2, xmm1
    paddusw xmm2, xmm1
    KEEP_XMM 2
    movdqa xmm2, xmm1
    psraw xmm2, 3
    KEEP_XMM 2
    movdqa xmm2, xmm1
    pmulhw xmm2, xmm0
    KEEP_XMM 2
    movdqa xmm2, xmm0
    punpckhbw xmm2, xmm1
    KEEP_XMM 2
    movss xmm0, [floats]
    KEEP_XMM 0
    ret

packed_floats:
    ldmxcsr [quiet_mxcsr]
    movaps xmm3, [floats]
    movaps xmm4, [others]
    minps xmm3, xmm4
    KEEP_XMM 3
    cvttps2dq xmm5, [floats]
    KEEP_XMM 5
    ldmxcsr [quiet_mxcsr]
    divps xmm4, xmm3                    // inexact
    KEEP_MXCSR
    ldmxcsr [quiet_mxcsr]
    movss xmm6, [not_a_number]
    ucomiss xmm6, xmm4
    KEEP_MXCSR
    ldmxcsr [quiet_mxcsr]
    movss xmm6, [denormal]
    addss xmm6, xmm6
    KEEP_MXCSR
    ret

x87:
    fninit
    fld qword ptr [one_and_three_quarters]
    fsub qword ptr [ten]
    fistp dword ptr [scratch]
    mov eax, dword ptr [scratch]
    KEEP rax
    KEEP_X87
    mov qword ptr [scratch], 0
    fld qword ptr [one_and_three_quarters]
    fistp dword ptr [scratch]
    mov eax, dword ptr [scratch]
    KEEP rax
    fld qword ptr [one_and_three_quarters]
    fstp qword ptr [scratch]
    KEEP_X87
    fninit
    fldcw [rounds_up]
    fld1
    fadd dword ptr [tiny]
    KEEP_X87
    fninit
    ret

.data
.balign 16
bytes:
    .byte 0x7F, 0x80, 1, 2, 3, 4, 5, 6, 0x70, 0x90, 11, 12, 13, 14, 15, 16
words:
    .short 0x8001, 0x7FFF, 0xFFFF, 1, 0x9000, 0x1234, 0xFFFE, 2
floats:
    .float 1.75, -2.75, 3.5, 4.0
others:
    .float 10.0, -10.0, 1.0, 9.0
not_a_number:
    .long 0x7FC00000
denormal:
    .long 1
tiny:
    .float 1e-30
one_and_three_quarters:
    .double 1.75
ten:
    .double 10.0
rounds_up:
    .short 0x0B7F
