//! Loops in real mode that run long enough to be translated, with what segments are made of: offsets
//! that wrap, limits that are come to, a base of its own for each, and a stack pointer of 16 bits in a
//! register of 32.
//!
//! Without an end. What is computed stays in `SEEN`.

#define BITS 16
#include "layout.inc"

#define TIMES       3000                // of a loop
#define DATA        0x2000              // segment of DS, whose limit is 4 GiB
#define FAR_DATA    0x3000              // of ES: what begins 64 KiB further, where no offset leads
#define FS_DATA     0x4000
#define GS_DATA     0x5000
#define STACK       0x6000
#define SEEN        0x8000              // in DS
#define LIMIT       0x7FF7              // of ES
#define CR0_PE      1

// KEEP registers: makes something of them, so that it stays if they are wrong.
.macro KEEP registers:vararg
.irp register, \registers
    rol dword ptr ds:[SEEN], 1
    add dword ptr ds:[SEEN], \register
.endr
.endm

CODE_SECTION

.globl real_start
real_start:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov esi, offset beyond_limit        // vector 13: offset and segment
    mov word ptr ds:[13 * 4], si
    mov word ptr ds:[13 * 4 + 2], 0xF000
    // A limit that is loaded in protected mode stays in real mode. Intel SDM vol. 3A, 10.9.1.
    mov ebx, offset table_pointer
    lgdt cs:[bx]
    mov eax, cr0
    or al, CR0_PE
    mov cr0, eax
    mov dx, 8
    mov ds, dx
    mov dx, 16
    mov es, dx
    and al, ~CR0_PE
    mov cr0, eax
    mov ax, DATA
    mov ds, ax
    mov ax, FAR_DATA
    mov es, ax
    mov ax, FS_DATA
    mov fs, ax
    mov ax, GS_DATA
    mov gs, ax
    mov ax, STACK
    mov ss, ax
    mov esp, 0x12340008
    xor ebp, ebp
    mov eax, 0x01234567                 // other values in each segment
    xor edi, edi
1:  mov dword ptr ds:[di], eax
    imul eax, eax, 5
    mov dword ptr ds:[edi + 0x10000], eax
    imul eax, eax, 5
    mov dword ptr fs:[di], eax
    inc eax
    mov dword ptr gs:[di], eax
    add di, 4
    jnz 1b
forever:
    call wraps
    call limits
    call bases
    call stack
    jmp forever

// Offsets of which some are beyond 64 KiB before they are cut: uncut, they lead to what `bases` reads.
wraps:
    mov cx, TIMES
    xor edx, edx
    mov ebx, 0xFFC0
    xor esi, esi
1:  mov si, cx
    and si, 0x7C
    add edx, dword ptr [bx + si]
    xor dword ptr [bx + si + 8], edx
    dec cx
    jnz 1b
    KEEP edx
    ret

// Loads that come to the segment's limit; the handler of the exception leads them back.
limits:
    mov cx, TIMES
    xor edx, edx
    mov di, LIMIT - 0x100
1:  add edx, dword ptr es:[di]
    rol edx, 1
    inc di
    dec cx
    jnz 1b
    KEEP edx, ebp
    ret
beyond_limit:
    mov di, LIMIT - 0x100
    inc ebp
    iret

// The same offset in every segment.
bases:
    mov cx, TIMES
    xor edx, edx
    mov di, 0x100
1:  mov eax, dword ptr fs:[di]
    add dword ptr gs:[di], eax
    xor eax, dword ptr es:[di]
    add edx, eax
    sub dword ptr ds:[di], edx
    dec cx
    jnz 1b
    KEEP edx
    ret

// Pushes below offset 0, which go on at the segment's end.
stack:
    mov cx, TIMES
    xor edx, edx
1:  push ecx
    push cx
    push dx                             // at the end of the segment
    add edx, esp
    pop ax
    pop si
    pop ebx
    add edx, esp
    add edx, ebx
    dec cx
    jnz 1b
    KEEP edx
    ret

.balign 8
table:
    .quad 0
    .quad 0x008F92000000FFFF            // data, 4 GiB
    .quad 0x0000920000000000 + LIMIT    // data, not up to a page's end
table_pointer:
    .word 23
    .long table
