//! 32-bit code, and code that is changed.

#define BITS 64
#include "variety.inc"

#define TIMES       80                  // often enough to be translated

CODE_SECTION

// Instructions that 64-bit code does not have.
.globl narrow_code
narrow_code:
    jmp fword ptr [narrow_pointer]
.code32
narrow:
    mov al, 0x9B
    daa
    setc bl
    .byte 0xEA                          // JMP FAR
    .long wide
    .word SEL_USER_CODE64 + 3
.code64
wide:
    movzx ebx, bl
    KEEP rbx
    ret

// A jump leads to code of which a number changes.
.globl changing_code
changing_code:
    inc dword ptr [changed + 1]
    mov ebx, TIMES
    xor edx, edx
2:  test ebx, 1
    jz 3f
    jmp changed
3:  nop
    jmp changed
.globl changed_back
changed_back:
    dec ebx
    jnz 2b
    KEEP rdx
    ret

.balign 4096
changed:
    mov ecx, 1
    add edx, ecx
    jmp changed_back
.balign 64

.data
.balign 4
narrow_pointer:
    .long narrow
    .short SEL_USER_CODE32 + 3
