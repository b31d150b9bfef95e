//! The reset vector: the last 16 bytes of the ROM, where every x86 processor starts.
//!
//! After reset CS is F000h with a base of FFFF0000h, so F000:FFF0 is FFFFFFF0h, 16 bytes below
//! 4 GiB. A far jump loads CS anew, and with the real-mode base: it goes on at F0000h, in the
//! second view of the same ROM below 1 MiB (SDM vol. 3A 10.1.4).

.section .reset, "ax"
.code16
.globl reset_vector
reset_vector:
    .byte 0xEA                  // JMP FAR F000:real_start
    .word real_start_offset
    .word 0xF000
    .ascii "TRIVIUM ROM"

// Just before it, a figure for whoever measures: the instructions in the timed part (micro/).
.section .info, "a"
#ifdef __x86_64__
    .quad timed_instructions
#else
    .quad 0                     // an object of 32 bits has no 64-bit references
#endif
    .quad 0
