//! x87: loads, additions, multiplications, exchanges and stores of doubles.

#include "micro.inc"

#define ROUNDS  400000

INSTRUCTIONS 2 + ROUNDS * (2 * 10 + 2) + 3
EXPECTED 0x8025C71C71C71C6E

CODE_SECTION

loop_body:
    fninit
    mov r8d, ROUNDS
2:
.rept 2
    fld qword ptr [x]
    fld qword ptr [y]
    fmul qword ptr [factor]
    fxch st(1)
    fmul qword ptr [factor]
    fadd qword ptr [term]
    fadd st(1), st
    fstp qword ptr [x]
    fsub qword ptr [term]
    fstp qword ptr [y]
.endr
    dec r8d
    jnz 2b
    mov rax, qword ptr [x]
    add rax, qword ptr [y]
    ret

.section .rodata, "a"
.balign 8
factor:
    .double 0.625
term:
    .double 1.375

.data
.balign 8
x:
    .double 1.0
y:
    .double 0.1
