//! A program in ring 3 that executes a little of everything, again and again, with operands for which
//! an instruction that is nearly right shows: for those who look for mistakes of a CPU.
//!
//! It maps itself for ring 3, runs user_round so many times, and switches off. Faults are part of it:
//! the handlers go on where R15 says.

#define BITS 64
#include "variety.inc"
#include "power.inc"

#define ROUNDS      2000
#define VECTORS     8

CODE_SECTION

.globl rom_main
rom_main:
    mov ecx, IA32_EFER
    rdmsr
    or eax, EFER_NXE
    wrmsr
    mov rax, cr0
    or eax, CR0_AM
    mov cr0, rax
    fninit
    call map_program
    call map_data
    call take_vectors
    push SEL_USER_DATA + 3
    push USER_STACK_TOP
    push 2                              // RFLAGS: nothing
    push SEL_USER_CODE64 + 3
    push offset user_main
    iretq

// Lets ring 3 use the program where it is.
map_program:
    mov ebx, offset program_start
2:  mov edi, ebx
    lea esi, [ebx + PTE_P + PTE_W + PTE_U]
    call map_page
    add ebx, 4096
    cmp ebx, offset bss_end
    jb 2b
    ret

map_data:
    mov edi, USER_DATA
    mov esi, offset data_page + PTE_P + PTE_W + PTE_U
    call map_page
    mov edi, USER_READ_ONLY
    mov esi, offset read_only_page + PTE_P + PTE_U
    call map_page
    mov edi, USER_NO_CODE
    mov esi, offset data_page + PTE_P + PTE_W + PTE_U
    bts rsi, 63
    call map_page
    mov edi, USER_STACK_TOP - 4096
    mov esi, offset stack_page + PTE_P + PTE_W + PTE_U
    jmp map_page

take_vectors:
    xor ebx, ebx
2:  movzx edi, byte ptr [vectors + rbx]
    mov esi, offset fault
    call interrupt_handle
    inc ebx
    cmp ebx, VECTORS
    jb 2b
    ret

// Goes on where R15 says, without TF, AC and what the x87 and SSE complain of; HLT in ring 3 is the
// end. RDI = the frame, R15 first.
fault:
    mov rax, qword ptr [rdi + FRAME_RIP]
    cmp dword ptr [rdi + FRAME_VECTOR], 13
    jne 2f
    cmp byte ptr [rax], 0xF4
    je power_off
2:  mov eax, dword ptr [rdi + FRAME_ERROR]
    mov ecx, dword ptr [rdi + FRAME_VECTOR]
    mov rdx, qword ptr [rdi + FRAME_RSP]
    mov rbx, cr2
    KEEP rax, rcx, rdx, rbx
    mov rax, qword ptr [rdi]
    mov qword ptr [rdi + FRAME_RIP], rax
    and dword ptr [rdi + FRAME_RFLAGS], ~(RFLAGS_TF | RFLAGS_AC)
    fnclex
    ldmxcsr [quiet_mxcsr]
    ret

user_main:
    mov dword ptr [rounds], ROUNDS
2:  call integers
    call addresses
    call vectors_and_floats
    call faults
    call narrow_code
    call changing_code
    dec dword ptr [rounds]
    jnz 2b
    hlt

.data
vectors:
    .byte 0, 1, 12, 13, 14, 16, 17, 19
.balign 4
rounds:
    .long 0
.balign 8
.globl seen
seen:
    .quad 0
.globl scratch
scratch:
    .skip 32
.globl quiet_mxcsr
quiet_mxcsr:
    .long 0x1F80

.bss
.balign 4096
.globl data_page
data_page:
    .skip 4096
read_only_page:
    .skip 4096
stack_page:
    .skip 4096
