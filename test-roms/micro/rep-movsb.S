//! REP MOVSB: copies of 4 KiB.

#include "micro.inc"

#define SIZE    4096
#define ROUNDS  10000

INSTRUCTIONS 1 + ROUNDS * (SIZE + 5) + 2
EXPECTED 0x070E151C232A3138

CODE_SECTION

.globl loop_prepare
loop_prepare:
    mov edi, offset source
    mov ecx, SIZE
2:  imul eax, ecx, 7
    stosb
    dec ecx
    jnz 2b
    ret

loop_body:
    mov r8d, ROUNDS
2:  mov esi, offset source
    mov edi, offset target
    mov ecx, SIZE
    rep movsb
    dec r8d
    jnz 2b
    mov rax, qword ptr [target + SIZE - 8]
    ret

.bss
.balign 4096
source:
    .skip SIZE
target:
    .skip SIZE
