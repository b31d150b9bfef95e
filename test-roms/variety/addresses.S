//! Memory, the stack, and strings.

#define BITS 64
#include "variety.inc"

CODE_SECTION

.globl addresses
addresses:
    call bases
    call exchanges
    call stack
    jmp strings

// Every register leads to memory.
bases:
    mov dword ptr ds:[USER_DATA], 0x11223344
.irp r, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    mov \r, USER_DATA
    mov dword ptr [\r + 8], 0x55667788
    add qword ptr [\r + 8], 1
.endr
    KEEP rax
    // Flags live over an access.
    xor edx, edx
    mov eax, 1
    cmp eax, 2
    mov ecx, dword ptr [rbx]
    jb 2f
    inc edx
2:  mov eax, 5
    cmp eax, 5
    mov dword ptr [rbx + 16], ecx
    sete dh
    KEEP rcx, rdx
    ret

exchanges:
    mov ebx, USER_DATA
    mov qword ptr [rbx], 0x11223344
    mov eax, 3
    mov ecx, 4
    cmpxchg dword ptr [rbx], ecx        // fails
    mov edx, 9
    xadd dword ptr [rbx + 8], edx
    KEEP rax, rdx
    ret

stack:
    mov r12, rsp
    push 0x1234
    pop rcx
    KEEP rcx, rsp
    mov rsp, r12
    pushfq
    pop rdx
    mov rbp, 1
    enter 32, 0
    KEEP rbp
    leave
    mov ebx, 4                          // there is more to a return that has been before
4:  mov rsp, r12
    push rax
    call 2f
    KEEP rsp
    mov rsp, r12
    push rax
    push rcx
    call 3f
    KEEP rsp
    dec ebx
    jnz 4b
    mov rsp, r12
    ret
2:  ret 8
3:  ret 16

strings:
    mov ebx, USER_DATA
    mov qword ptr [rbx], 0x11223344
    mov esi, ebx
    mov rax, -1
    lodsd
    KEEP rax
    mov edi, USER_DATA + 64
    std
    stosb
    KEEP rdi
    cld
    stosb
    KEEP rdi
    mov eax, 0x1203
    xlatb
    KEEP rax
    ret
