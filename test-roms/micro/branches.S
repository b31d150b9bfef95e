//! Conditional branches that depend on random bits. Both ways are equally long.

#include "micro.inc"

#define ROUNDS  700000

INSTRUCTIONS 3 + ROUNDS * (9 + 8 * 4 + 2) + 1
EXPECTED 0x000000002AAC973A

CODE_SECTION

loop_body:
    mov r8d, ROUNDS
    mov edx, 2463534242
    xor eax, eax
2:  mov ecx, edx                // xorshift, Marsaglia 2003
    shl ecx, 13
    xor edx, ecx
    mov ecx, edx
    shr ecx, 17
    xor edx, ecx
    mov ecx, edx
    shl ecx, 5
    xor edx, ecx
.irp bit, 2, 5, 9, 13, 18, 22, 26, 30
    test edx, 1 << \bit
    jz 3f
    add rax, \bit
    jmp 4f
3:  xor rax, rdx
    nop
4:
.endr
    dec r8d
    jnz 2b
    ret
