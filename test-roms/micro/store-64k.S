//! Stores to 64 KiB.

#include "micro.inc"
#define SIZE    65536
#define ROUNDS  1500000

INSTRUCTIONS 4 + ROUNDS * (16 + 5) + 3
EXPECTED 0x0000000000000041

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    mov esi, offset buffer
    mov edi, offset buffer
    mov edx, offset buffer + SIZE
2:
.set place, 0
.rept 16
    mov qword ptr [rsi + place], r8
    .set place, place + 64
.endr
    add rsi, 1024
    cmp rsi, rdx
    cmovae rsi, rdi
    dec r8d
    jnz 2b
    mov rax, qword ptr [buffer]
    add rax, qword ptr [buffer + SIZE - 64]
    ret

.bss
.balign 4096
buffer:
    .skip SIZE
