//! Sorting: heapsort and quicksort of the same pseudo-random numbers, and a check of the result.

#define BITS 64
#include "demo.inc"

#define SMALL_PART      12              // quicksort leaves parts this short to insertion sort

CODE_SECTION

// Fills the array from a xorshift generator (Marsaglia, 2003). EAX = the sum of the numbers.
.globl sort_fill
sort_fill:
    mov edx, 2463534242
    xor eax, eax
    xor ecx, ecx
2:  mov r8d, edx
    shl r8d, 13
    xor edx, r8d
    mov r8d, edx
    shr r8d, 17
    xor edx, r8d
    mov r8d, edx
    shl r8d, 5
    xor edx, r8d
    mov dword ptr [numbers + rcx * 4], edx
    add eax, edx
    inc ecx
    cmp ecx, SORT_NUMBERS
    jb 2b
    ret

// EAX = the sum of the numbers, carry set if they are not in order.
.globl sort_check
sort_check:
    mov eax, dword ptr [numbers]
    mov edx, eax
    mov ecx, 1
2:  mov r8d, dword ptr [numbers + rcx * 4]
    cmp r8d, edx
    jb 3f
    mov edx, r8d
    add eax, edx
    inc ecx
    cmp ecx, SORT_NUMBERS
    jb 2b
    clc
3:  ret

// Heapsort: makes the array a heap, then moves its greatest number to the end, again and again.
.globl sort_heap
sort_heap:
    mov edi, offset numbers
    mov ecx, SORT_NUMBERS       // the heap is numbers [0, ECX)
    mov esi, SORT_NUMBERS / 2
2:  dec esi
    js 3f
    mov eax, esi
    call sift_down
    jmp 2b
3:  dec ecx
    jz 4f
    mov eax, dword ptr [rdi]
    mov edx, dword ptr [rdi + rcx * 4]
    mov dword ptr [rdi + rcx * 4], eax
    mov dword ptr [rdi], edx
    xor eax, eax
    call sift_down
    jmp 3b
4:  ret

// Lets number EAX of the heap RDI of ECX numbers sink to where no child is greater.
sift_down:
    mov edx, dword ptr [rdi + rax * 4]
2:  lea r8d, [rax + rax + 1]    // left child
    cmp r8d, ecx
    jae 4f
    mov r9d, dword ptr [rdi + r8 * 4]
    lea r10d, [r8 + 1]          // right child
    cmp r10d, ecx
    jae 3f
    mov r11d, dword ptr [rdi + r10 * 4]
    cmp r11d, r9d
    cmova r9d, r11d
    cmova r8d, r10d
3:  cmp r9d, edx
    jbe 4f
    mov dword ptr [rdi + rax * 4], r9d
    mov eax, r8d
    jmp 2b
4:  mov dword ptr [rdi + rax * 4], edx
    ret

.globl sort_quick
sort_quick:
    mov edi, offset numbers
    lea rsi, [rdi + (SORT_NUMBERS - 1) * 4]
    // falls through

// Quicksort (Hoare's partition) of the numbers from RDI to RSI, both included.
quick:
    mov rax, rsi
    sub rax, rdi
    cmp rax, SMALL_PART * 4
    jle insertion
    shr rax, 3
    mov edx, dword ptr [rdi + rax * 4] // pivot: the number in the middle
    lea r8, [rdi - 4]
    lea r9, [rsi + 4]
2:  add r8, 4
    cmp dword ptr [r8], edx
    jb 2b
3:  sub r9, 4
    cmp dword ptr [r9], edx
    ja 3b
    cmp r8, r9
    jae 4f
    mov eax, dword ptr [r8]
    mov r10d, dword ptr [r9]
    mov dword ptr [r8], r10d
    mov dword ptr [r9], eax
    jmp 2b
4:  push rsi
    push r9
    mov rsi, r9
    call quick                  // left part
    pop rdi
    add rdi, 4
    pop rsi
    jmp quick                   // right part

// Insertion sort of the numbers from RDI to RSI.
insertion:
    lea r8, [rdi + 4]
2:  cmp r8, rsi
    ja 5f
    mov eax, dword ptr [r8]
    mov r9, r8
3:  cmp r9, rdi
    jbe 4f
    mov edx, dword ptr [r9 - 4]
    cmp edx, eax
    jbe 4f
    mov dword ptr [r9], edx
    sub r9, 4
    jmp 3b
4:  mov dword ptr [r9], eax
    add r8, 4
    jmp 2b
5:  ret

.bss
.balign 64
numbers:
    .skip SORT_NUMBERS * 4
