//! REP STOSQ: fills of 4 KiB.

#include "micro.inc"

#define SIZE    4096
#define ROUNDS  60000

INSTRUCTIONS 1 + ROUNDS * (SIZE / 8 + 5) + 2
EXPECTED 0x0000000000000001

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
2:  mov eax, r8d
    mov edi, offset target
    mov ecx, SIZE / 8
    rep stosq
    dec r8d
    jnz 2b
    mov rax, qword ptr [target + SIZE - 8]
    ret

.bss
.balign 4096
target:
    .skip SIZE
