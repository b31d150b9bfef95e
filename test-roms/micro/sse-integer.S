//! SSE2: packed integers, shuffles and logic.

#include "micro.inc"

#define ROUNDS  1000000

INSTRUCTIONS 4 + ROUNDS * (3 * 9 + 2) + 5
EXPECTED 0x8153405ACA8F8A3F

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    movdqa xmm0, xmmword ptr [start]
    movdqa xmm1, xmmword ptr [start + 16]
    movdqa xmm2, xmm1
2:
.rept 3
    paddd xmm0, xmm1
    pxor xmm1, xmm2
    pshufd xmm3, xmm0, 0x39
    psrld xmm3, 3
    paddq xmm2, xmm3
    pmuludq xmm3, xmm0
    punpckldq xmm3, xmm1
    pcmpgtw xmm3, xmm2
    psubb xmm0, xmm3
.endr
    dec r8d
    jnz 2b
    paddd xmm0, xmm2
    movdqu xmmword ptr [result], xmm0
    mov rax, qword ptr [result]
    add rax, qword ptr [result + 8]
    ret

.section .rodata, "a"
.balign 16
start:
    .long 0x01234567, 0x89ABCDEF, 0x02468ACE, 0x13579BDF
    .long 0xDEADBEEF, 0x600DF00D, 0x31415926, 0x27182818

.bss
.balign 16
result:
    .skip 16
