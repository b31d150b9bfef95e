//! Loops in ring 0 that run long enough for what they do to be translated together, and changes of
//! all that such code relies on: where pages lead, what code is, where functions return to.
//!
//! Without an end. What is computed stays in `seen`.

#define BITS 64
#include "variety.inc"

#define TIMES       40000               // of a loop, before something is changed
#define HOT_CODE    0x100000            // one of two pages of code; below the program, for jumps forth
#define HOT_DATA    0x50010000          // four pages that are not neighbours in RAM
#define PAGES       4

CODE_SECTION

.globl rom_main
rom_main:
    fninit
    mov edi, HOT_CODE
    mov esi, offset first_code + PTE_P + PTE_W
    call map_page
    mov qword ptr [code_entry], rdx
    xor ebx, ebx
2:  mov edi, ebx
    shl edi, 12
    add edi, HOT_DATA
    mov esi, ebx
    xor esi, 3                          // in another order
    shl esi, 13                         // and apart
    add esi, offset frames + PTE_P + PTE_W
    call map_page
    mov qword ptr [data_entries + rbx * 8], rdx
    inc ebx
    cmp ebx, PAGES
    jb 2b
forever:
    call other_page
    call other_data
    call changed_code
    call returns
    call rare_way
    call across_pages
    call floats_by_address
    jmp forever

// A loop on two pages, of which the second then leads elsewhere.
other_page:
    mov ebx, 3
1:  mov ecx, TIMES
    xor edx, edx
2:  inc edx
    .byte 0xE9                          // JMP HOT_CODE
    .long HOT_CODE - 9f
9:
.globl back_from_code
back_from_code:
    dec ecx
    jnz 2b
    KEEP rdx
    mov rdi, qword ptr [code_entry]
    xor qword ptr [rdi], 0x1000         // to the other of two neighbours
    mov eax, HOT_CODE
    invlpg [rax]
    dec ebx
    jnz 1b
    mov ebx, 2                          // the same, by a jump within the program
3:  mov ecx, TIMES
    xor edx, edx
4:  inc edx
    jmp near_code
near_back:
    dec ecx
    jnz 4b
    KEEP rdx
    dec ebx
    jnz 3b
    ret

// Loads and stores of a page that then leads elsewhere.
other_data:
    mov edi, HOT_DATA
    mov ebx, 3
2:  mov ecx, TIMES
    xor edx, edx
3:  add rdx, qword ptr [rdi]
    add qword ptr [rdi + 8], rcx
    dec ecx
    jnz 3b
    KEEP rdx
    mov rsi, qword ptr [data_entries]
    xor qword ptr [rsi], 0x1000
    invlpg [rdi]
    dec ebx
    jnz 2b
    ret

// A loop of two blocks, of which the second changes.
changed_code:
    mov ebx, 3
2:  mov ecx, TIMES
    xor edx, edx
3:  test ecx, 7
    jz 4f
    inc edx
4:  jmp changes
changes_back:
    dec ecx
    jnz 3b
    KEEP rdx
    inc dword ptr [changes + 2]
    dec ebx
    jnz 2b
    ret

// A function that now and then returns a byte further on.
returns:
    mov ecx, TIMES
    xor edx, edx
2:  call 4f
    nop
    inc edx
    dec ecx
    jnz 2b
    KEEP rdx
    ret
4:  mov eax, ecx
    and eax, 0x3FFF
    jnz 5f
    add qword ptr [rsp], 3              // past INC
5:  ret

// A loop that is left at times, with all that it has in registers.
rare_way:
    mov ecx, TIMES
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    mov r10d, 1
    xor r11d, r11d
    mov r12d, 5
    mov r13d, 7
    mov r14d, 9
    mov r15d, 11
2:  add r8, r10
    add r9, r8
    lea r12, [r12 + r13]
    xor r14, r9
    add r15, r14
    rol r15, 3
    test ecx, 0x7FF
    jz 4f
3:  add r11, r12
    imul r13, r13, 5
    dec ecx
    jnz 2b
    KEEP rdx, r8, r9, r11, r12, r13, r14, r15
    ret
4:  add rdx, r15
    add r10, r12
    jmp 3b

// Accesses that come to a page's end, and over it.
across_pages:
    mov ebx, 4
2:  mov edi, HOT_DATA + 0xE00
    mov ecx, TIMES
    xor edx, edx
3:  add rdx, qword ptr [rdi]
    xor rdx, qword ptr [rdi + 4]
    add dword ptr [rdi + 16], ecx
    inc edi
    cmp edi, HOT_DATA + 0x2200
    jb 4f
    mov edi, HOT_DATA + 0xE00
4:  dec ecx
    jnz 3b
    KEEP rdx
    dec ebx
    jnz 2b
    ret

// Where the x87's last operand was.
floats_by_address:
    mov edi, HOT_DATA
    mov ecx, TIMES
2:  fld dword ptr [rdi + 64]
    fadd dword ptr [rdi + 72]
    mov eax, dword ptr [rdi + 68]
    fstp dword ptr [rdi + 80]
    dec ecx
    jnz 2b
    fnstenv [environment]
    mov rax, qword ptr [environment + 16]
    KEEP rax
    fninit
    ret

.balign 4096
near_code:
    add edx, 3
    jmp near_back

.balign 4096
changes:
    .byte 0x81, 0xC2                    // ADD EDX, 1
    .long 1
    jmp changes_back

// Two pages that begin alike: one of them is at an odd, one at an even page.
.balign 8192
first_code:
    add edx, 5
    .byte 0xE9                          // JMP back_from_code
    .long back_from_code - HOT_CODE - 8
.balign 4096
    add edx, 7
    .byte 0xE9
    .long back_from_code - HOT_CODE - 8
.balign 4096

.data
.balign 8
.globl seen
seen:
    .quad 0
.globl scratch
scratch:
    .skip 32
environment:
    .skip 32
code_entry:
    .quad 0
data_entries:
    .fill PAGES, 8, 0

.bss
.balign 8192
frames:
    .skip 8192 * PAGES
