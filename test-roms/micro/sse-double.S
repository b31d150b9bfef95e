//! SSE: packed arithmetic of two doubles.

#include "micro.inc"

#define ROUNDS  1000000

INSTRUCTIONS 5 + ROUNDS * (3 * 8 + 2) + 5
EXPECTED 0x7FF13DA62386CAB6

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    movaps xmm0, xmmword ptr [start]
    movaps xmm1, xmmword ptr [start + 16]
    movaps xmm2, xmmword ptr [factor]
    movaps xmm3, xmmword ptr [term]
2:
.rept 3
    mulpd xmm0, xmm2
    mulpd xmm1, xmm2
    addpd xmm0, xmm3
    addpd xmm1, xmm3
    movaps xmm4, xmm0
    addpd xmm4, xmm1
    mulpd xmm4, xmmword ptr [factor]
    subpd xmm1, xmm4
.endr
    dec r8d
    jnz 2b
    addpd xmm0, xmm1
    movups xmmword ptr [result], xmm0
    mov rax, qword ptr [result]
    add rax, qword ptr [result + 8]
    ret

.section .rodata, "a"
.balign 16
start:
    .double 1.0, 0.1, 0.3, 7.0
factor:
    .double 0.5, 0.625
term:
    .double 1.5, 1.1

.bss
.balign 16
result:
    .skip 16
