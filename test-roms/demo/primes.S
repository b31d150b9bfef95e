//! Primes below PRIME_LIMIT by the sieve of Eratosthenes, a byte for each number.

#define BITS 64
#include "demo.inc"

CODE_SECTION

// EAX = how many primes there are, EDX = the greatest of them.
.globl primes
primes:
    mov edi, offset sieve       // 0: may be a prime
    xor eax, eax
    mov ecx, PRIME_LIMIT / 8
    rep stosq
    mov word ptr [sieve], 0x0101 // 0 and 1 are none
    mov ecx, 2
2:  cmp byte ptr [sieve + rcx], 0
    jne 4f
    mov edx, ecx
    imul edx, edx               // smaller multiples have smaller factors
3:  mov byte ptr [sieve + rdx], 1
    add edx, ecx
    cmp edx, PRIME_LIMIT
    jb 3b
4:  inc ecx
    cmp ecx, PRIME_ROOT
    jbe 2b

    xor eax, eax
    xor ecx, ecx
5:  cmp byte ptr [sieve + rcx], 0
    jne 6f
    inc eax
    mov edx, ecx
6:  inc ecx
    cmp ecx, PRIME_LIMIT
    jb 5b
    ret

.bss
.balign 64
sieve:
    .skip PRIME_LIMIT
