//! Loads from 16 MiB, each from another page than the one before.

#include "micro.inc"

#define ROUNDS  1000000
#define STRIDE  (4096 + 64)

INSTRUCTIONS 4 + ROUNDS * (8 * 3 + 2) + 1
EXPECTED 0x9D84C24D9FE6D000

CODE_SECTION

.globl loop_prepare
loop_prepare:
    mov edi, BIG_BUFFER
    mov ecx, BIG_BUFFER_SIZE / 4
2:  lea eax, [rcx + rcx * 4]
    stosd
    dec ecx
    jnz 2b
    ret

loop_body:
    mov r8d, ROUNDS
    mov edi, BIG_BUFFER
    xor esi, esi
    xor eax, eax
2:
.rept 8
    add rax, qword ptr [rdi + rsi]
    add esi, STRIDE
    and esi, BIG_BUFFER_SIZE - 1
.endr
    dec r8d
    jnz 2b
    ret
