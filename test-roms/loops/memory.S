//! The functions that a C compiler may call even in free-standing code.

#define BITS 64
#include "layout.inc"

CODE_SECTION

.globl memset
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret

.globl memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret

.globl memmove
memmove:
    mov rax, rdi
    mov rcx, rdx
    mov r8, rdi
    sub r8, rsi
    cmp r8, rdx                 // does the target start inside the source?
    jb 2f
    rep movsb
    ret
2:  lea rdi, [rdi + rdx - 1]    // then from the end
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret

.globl memcmp
memcmp:
    xor eax, eax
    mov rcx, rdx
    cmp eax, eax                // equal, if there is nothing to compare
    repe cmpsb
    je 2f
    movzx eax, byte ptr [rdi - 1]
    movzx edx, byte ptr [rsi - 1]
    sub eax, edx
2:  ret
