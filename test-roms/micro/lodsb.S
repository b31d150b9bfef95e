//! LODSB and STOSB without REP: a loop that changes a text byte by byte.

#include "micro.inc"

#define SIZE    4096
#define ROUNDS  1500

INSTRUCTIONS 1 + ROUNDS * (3 + SIZE * 5 + 2) + 2
EXPECTED 0x1CF8D4B08C684420

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
2:  mov esi, offset text
    mov edi, offset text
    mov ecx, SIZE
3:  lodsb
    add al, cl
    stosb
    dec ecx
    jnz 3b
    dec r8d
    jnz 2b
    mov rax, qword ptr [text + 8]
    ret

.bss
.balign 4096
text:
    .skip SIZE
