//! The functions that a C compiler may call even in free-standing code, for 32 and 64 bits.

#define CODE_SECTION .section .text, "ax"
.intel_syntax noprefix

// ARGUMENTS: brings the three arguments of the C convention to xDI, xSI and xCX.
#if BITS == 64
#define DI rdi
#define SI rsi
#define CX rcx
#define KEPT r8
.macro ARGUMENTS
    mov rcx, rdx
.endm
.macro DONE
    ret
.endm
#else
#define DI edi
#define SI esi
#define CX ecx
#define KEPT edx
.macro ARGUMENTS
    push edi
    push esi
    mov edi, dword ptr [esp + 12]
    mov esi, dword ptr [esp + 16]
    mov ecx, dword ptr [esp + 20]
.endm
.macro DONE
    pop esi
    pop edi
    ret
.endm
#endif

CODE_SECTION

.globl memset
memset:
    ARGUMENTS
    mov KEPT, DI
    mov eax, esi
    rep stosb
    jmp 3f

.globl memcpy
memcpy:
    ARGUMENTS
    mov KEPT, DI
    rep movsb
    jmp 3f

.globl memmove
memmove:
    ARGUMENTS
    mov KEPT, DI
    sub DI, SI
    cmp DI, CX                  // does the target start inside the source?
    mov DI, KEPT
    jb 2f
    rep movsb
    jmp 3f
2:  lea DI, [DI + CX - 1]       // then from the end
    lea SI, [SI + CX - 1]
    std
    rep movsb
    cld
3:
#if BITS == 64
    mov rax, KEPT
#else
    mov eax, KEPT
#endif
    DONE

.globl memcmp
memcmp:
    ARGUMENTS
    xor eax, eax
    cmp eax, eax                // equal, if there is nothing to compare
    repe cmpsb
    je 2f
    movzx eax, byte ptr [DI - 1]
    movzx ecx, byte ptr [SI - 1]
    sub eax, ecx
2:  DONE
