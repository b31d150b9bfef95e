//! The main program of the benchmarks: prints markers around the part that is measured.
//!
//!     loop NAME start
//!     loop NAME tsc TICKS             (hexadecimal; worth what the TSC is worth)
//!     loop NAME wrong: not EXPECTED   (only if the checksum is not what it must be)
//!     loop NAME done CHECKSUM         (hexadecimal)

#define BITS 64
#include "serial.inc"
#include "power.inc"

CODE_SECTION

.weak loop_prepare             // what must be done first but is not to be measured, if anything
.globl rom_main
rom_main:
    sub rsp, 8                  // C wants the stack aligned to 16 bytes before a call
    mov eax, offset loop_prepare
    test eax, eax
    jz 2f
    call rax
2:  SAY "loop "
    SAY NAME
    SAY " start\n"
    call clock_read
    mov r12, rax
    call loop_body
    mov rbx, rax
    call clock_read
    sub rax, r12
    mov r12, rax
    SAY "loop "
    SAY NAME
    SAY " tsc "
    mov rax, r12
    call put_hex64
    SAY "\nloop "
    SAY NAME
    cmp rbx, qword ptr [loop_expected]
    je 2f
    SAY " wrong: not "
    mov rax, qword ptr [loop_expected]
    call put_hex64
    SAY "\nloop "
    SAY NAME
2:  SAY " done "
    mov rax, rbx
    call put_hex64
    SAY "\n"
    jmp power_off

// RAX = TSC. Loses RDX.
clock_read:
    rdtsc
    shl rdx, 32
    or rax, rdx
    ret
