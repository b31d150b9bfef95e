//! Stores to 16 MiB, each to another page than the one before.

#include "micro.inc"

#define ROUNDS  1000000
#define STRIDE  (4096 + 64)

INSTRUCTIONS 3 + ROUNDS * (8 * 3 + 2) + 3
EXPECTED 0x0000000000008480

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    mov edi, BIG_BUFFER
    xor esi, esi
2:
.rept 8
    mov qword ptr [rdi + rsi], r8
    add esi, STRIDE
    and esi, BIG_BUFFER_SIZE - 1
.endr
    dec r8d
    jnz 2b
    mov rax, qword ptr [rdi]
    add rax, qword ptr [rdi + STRIDE]
    ret
