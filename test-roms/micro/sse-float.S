//! SSE: packed arithmetic of four floats.

#include "micro.inc"

#define ROUNDS  1000000

INSTRUCTIONS 5 + ROUNDS * (3 * 8 + 2) + 5
EXPECTED 0x7F2777087F0DC8DD

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    movaps xmm0, xmmword ptr [start]
    movaps xmm1, xmmword ptr [start + 16]
    movaps xmm2, xmmword ptr [factor]
    movaps xmm3, xmmword ptr [term]
2:
.rept 3
    mulps xmm0, xmm2
    mulps xmm1, xmm2
    addps xmm0, xmm3
    addps xmm1, xmm3
    movaps xmm4, xmm0
    addps xmm4, xmm1
    mulps xmm4, xmmword ptr [factor]
    subps xmm1, xmm4
.endr
    dec r8d
    jnz 2b
    addps xmm0, xmm1
    movups xmmword ptr [result], xmm0
    mov rax, qword ptr [result]
    add rax, qword ptr [result + 8]
    ret

.section .rodata, "a"
.balign 16
start:
    .float 1.0, 0.1, 2.5, 3.75, 0.3, 7.0, 0.7, 9.5
factor:
    .float 0.5, 0.625, 0.25, 0.75
term:
    .float 1.5, 1.1, 0.3, 2.0

.bss
.balign 16
result:
    .skip 16
