//! The Mandelbrot set as text, in fixed-point arithmetic: 64-bit integers with 24 bits of fraction.

#define BITS 64
#include "demo.inc"

#define FRACTION        24
#define ITERATIONS      1000
#define LEFT            (-(2 << FRACTION) - (1 << FRACTION) / 5)
#define RIGHT           ((1 << FRACTION) * 4 / 5)
#define TOP             (-(1 << FRACTION) - (1 << FRACTION) / 8)
#define STEP_X          ((RIGHT - LEFT) / (PICTURE_COLUMNS - 1))
#define STEP_Y          (-2 * TOP / (PICTURE_ROWS - 1))

CODE_SECTION

// Computes the picture: for each character, how often z = z * z + c could be applied before |z|
// exceeded 2. EAX = the sum of these numbers.
.globl mandelbrot
mandelbrot:
    push rbx
    push rbp
    xor ebp, ebp                // sum
    mov edi, offset picture
    mov r9, TOP                 // imaginary part of c
    mov r11d, PICTURE_ROWS
2:  mov r8, LEFT                // real part of c
    mov r10d, PICTURE_COLUMNS
3:  call iterate
    add ebp, ecx
    mov word ptr [rdi], cx
    add rdi, 2
    add r8, STEP_X
    dec r10d
    jnz 3b
    add r9, STEP_Y
    dec r11d
    jnz 2b
    mov eax, ebp
    pop rbp
    pop rbx
    ret

// ECX = iterations for c = R8 + i R9. Loses RAX, RBX, RDX, RSI.
iterate:
    xor ecx, ecx
    xor eax, eax                // z = RAX + i RDX
    xor edx, edx
2:  mov rbx, rax
    imul rbx, rbx
    sar rbx, FRACTION           // square of the real part
    mov rsi, rdx
    imul rsi, rsi
    sar rsi, FRACTION           // square of the imaginary part
    imul rdx, rax
    sar rdx, FRACTION - 1       // 2 * real * imaginary
    add rdx, r9
    mov rax, rbx
    sub rax, rsi
    add rax, r8
    add rbx, rsi                // |z| squared
    cmp rbx, 4 << FRACTION
    ja 3f
    inc ecx
    cmp ecx, ITERATIONS
    jb 2b
3:  ret

// Prints it: the longer a point took, the denser and brighter its character.
.globl mandelbrot_print
mandelbrot_print:
    push rbx
    push rbp
    mov ebp, offset picture
    mov r11d, PICTURE_ROWS
2:  SAY "   "
    mov r10d, PICTURE_COLUMNS
    xor ebx, ebx                // colour of the character before
3:  movzx ecx, word ptr [rbp]
    add rbp, 2
    call shade_of
    mov esi, dword ptr [colours + rax * 4]
    cmp esi, ebx
    je 4f
    mov ebx, esi
    call puts
4:  mov al, byte ptr [characters + rax]
    call putc
    dec r10d
    jnz 3b
    SAY "\033[0m\n"
    dec r11d
    jnz 2b
    pop rbp
    pop rbx
    ret

// EAX = shade for ECX iterations: the first whose limit is not below.
shade_of:
    xor eax, eax
2:  cmp cx, word ptr [limits + rax * 2]
    jbe 3f
    inc eax
    jmp 2b
3:  ret

.section .rodata, "a"
.balign 4
colours:
    .long blue, blue, blue, teal, teal, teal, bright, bright, white, none
limits:
    .word 2, 3, 4, 6, 8, 12, 20, 60, ITERATIONS - 1, ITERATIONS
characters:
    .ascii " .:-=+*#%@"
blue:
    .asciz "\033[0;34m"
teal:
    .asciz "\033[0;36m"
bright:
    .asciz "\033[1;36m"
white:
    .asciz "\033[1;37m"
none:
    .asciz "\033[0m"

.bss
.balign 64
picture:
    .skip PICTURE_ROWS * PICTURE_COLUMNS * 2
