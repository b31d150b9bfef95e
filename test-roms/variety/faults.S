//! Each exception that ring 3 can raise.

#define BITS 64
#include "variety.inc"

CODE_SECTION

.globl faults
faults:
    mov ebx, USER_DATA
    mov esi, USER_READ_ONLY
    mov edi, USER_NOTHING
    // Page faults: what is read, what is written, and what is executed.
    FAULT mov eax, dword ptr [rdi + 12]
    FAULT mov dword ptr [rdi + 20], eax
    mov eax, dword ptr [rsi]
    FAULT mov dword ptr [rsi], eax
    FAULT mov dword ptr [rsi - 2], eax  // half of it could be written
    mov eax, dword ptr [rsi - 4]
    KEEP rax
    mov eax, dword ptr [rsi]
    FAULT mov rax, qword ptr [rdi - 3]  // half of it is there
    mov r12, rsp
    mov esp, USER_STACK_TOP - 4096
    FAULT push rax
    mov rsp, r12
    mov r12, rsp
    mov eax, USER_NO_CODE
    FAULT jmp rax
    // Others.
    xor ecx, ecx
    mov eax, 1
    cdq
    FAULT div ecx
    FAULT int 0x81
    bts rbx, 63
    FAULT mov eax, dword ptr [rbx]
    mov rbp, rbx
    FAULT mov eax, dword ptr [rbp]      // by RBP it is the stack's
    btr rbx, 63
    pushfq
    or dword ptr [rsp], RFLAGS_AC
    popfq
    FAULT mov eax, dword ptr [rbx + 1]
    fninit
    fldcw [divides]
    fldz
    fld1
    fdiv st(0), st(1)
    FAULT fwait
    fninit
    ldmxcsr [complains]
    movss xmm0, [one]
    xorps xmm1, xmm1
    FAULT divss xmm0, xmm1
    lea r15, [rip + 2f]
    pushfq
    or dword ptr [rsp], RFLAGS_TF
    popfq
    nop
    KEEP r15                            // it does not come here
2:  ret

.data
.balign 4
one:
    .float 1.0
complains:
    .long 0x1D80                        // division by zero is not masked
divides:
    .short 0x037B                       // nor is it here
