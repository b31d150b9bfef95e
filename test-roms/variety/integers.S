//! Arithmetic, moves and branches, of registers.

#define BITS 64
#include "variety.inc"

CODE_SECTION

.globl integers
integers:
    call carries
    call signs
    call bits
    call conditions
    call upper_halves
    jmp high_bytes

carries:
    mov eax, 5
    mov ebx, 7
    stc
    adc eax, ebx
    KEEP_FLAGS STATUS
    stc
    sbb eax, ebx
    KEEP rax
    stc
    inc eax
    KEEP_FLAGS STATUS
    mov eax, 0x0F
    add eax, 1
    KEEP_FLAGS STATUS
    xor ecx, ecx
    neg ecx
    KEEP_FLAGS STATUS
    mov eax, 0x80000000
    cmp eax, 1
    KEEP_FLAGS STATUS
    ret

signs:
    mov eax, 0x80000010
    sar eax, 3
    mov edx, 0x40000000
    stc
    rcl edx, 1
    KEEP rax, rdx
    mov ebx, 0x8085
    movsx ecx, bl
    movsx rdx, bx
    KEEP rcx, rdx
    mov eax, 0x80000001
    cdqe
    KEEP rax
    mov eax, -100
    cdq
    mov ecx, 7
    idiv ecx
    KEEP rax, rdx
    mov eax, 0xFD
    mov cl, 5
    imul cl
    KEEP rax
    ret

bits:
    xor eax, eax
    bts eax, 9
    mov ebx, 0x12345678
    shld eax, ebx, 8
    KEEP rax
    xor ecx, ecx
    popcnt edx, ecx
    KEEP_FLAGS STATUS
    mov eax, 0x100
    stc
    lahf
    KEEP rax
    ret

// Each is asked of an equal comparison.
conditions:
    mov edx, 2
    xor ebx, ebx
    cmp ebx, ebx
    jle 2f
    inc ebx
2:  cmp edx, edx
    setbe bh
    mov ecx, 1
    cmp edx, edx
    cmovg ecx, edx
    KEEP rbx, rcx
    mov ecx, 3
    cmp edx, edx
    loopne 3f
    inc ecx
3:  KEEP rcx
    ret

// Results of 32 bits leave none.
upper_halves:
    mov ecx, 3
    mov rbx, -1
    mov ebx, ecx
    mov rax, -1
    bswap eax
    KEEP rax, rbx
    mov rdx, -2
    cmp ecx, ecx
    cmove edx, ecx
    KEEP rdx
    mov rdx, -1
    mov rax, -1
    mul ecx
    KEEP rdx
    movd xmm0, ecx
.irp r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r12, r13, r14, r15
    mov \r, -1
.endr
.irp r, eax, ecx, edx, ebx, ebp, esi, edi, r8d, r9d, r10d, r12d, r13d, r14d, r15d
    popcnt \r, \r
.endr
    KEEP rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r12, r13, r14, r15
.irp r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r12, r13, r14, r15
    mov \r, -1
.endr
.irp r, eax, ecx, edx, ebx, ebp, esi, edi, r8d, r9d, r10d, r12d, r13d, r14d, r15d
    movd \r, xmm0
.endr
    KEEP rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r12, r13, r14, r15
    ret

high_bytes:
    mov eax, 0x1234
    mov ebx, 0x5678
    add ah, bl
    mov ecx, 0
    mov cl, ah
    xchg bh, al
    movzx edx, ah
    sub ah, bh
    KEEP rax, rbx, rcx, rdx
    // OF comes to code behind what is not translated.
    mov eax, 0x7FFFFFFF
    add eax, 1
    mov eax, 0
    cpuid
    seto bl
    KEEP rbx
    mov eax, 0x7FFFFFFF
    mov ebx, 0
    add eax, 1
    mov eax, 0
    cpuid
    jno 2f
    inc ebx
2:  KEEP rbx
    ret
