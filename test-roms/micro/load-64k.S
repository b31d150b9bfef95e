//! Loads from 64 KiB.

#include "micro.inc"
#define SIZE    65536
#define ROUNDS  1500000

INSTRUCTIONS 5 + ROUNDS * (16 + 5) + 1
EXPECTED 0x147162E51B987000

CODE_SECTION

.globl loop_prepare
loop_prepare:
    mov edi, offset buffer
    mov ecx, SIZE / 4
2:  lea eax, [rcx + rcx * 4]
    stosd
    dec ecx
    jnz 2b
    ret

loop_body:
    mov r8d, ROUNDS
    mov esi, offset buffer
    mov edi, offset buffer
    mov edx, offset buffer + SIZE
    xor eax, eax
2:
.set place, 0
.rept 16
    add rax, qword ptr [rsi + place]
    .set place, place + 64
.endr
    add rsi, 1024
    cmp rsi, rdx
    cmovae rsi, rdi
    dec r8d
    jnz 2b
    ret

.bss
.balign 4096
buffer:
    .skip SIZE
