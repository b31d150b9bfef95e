/*! Entry of the Multiboot test kernels: the header, a stack, and on to C with what the loader left in
 * the registers.
 *
 * Multiboot specification 0.6.96, 3.1 and 3.2; Multiboot2 specification 2.0, 3.1 and 3.3. A
 * loader leaves a magic number in EAX and the address of what it tells in EBX.
 */

#ifdef MULTIBOOT2

#define MAGIC 0xE85250D6
#define I386 0

    .section .header, "a"
    .balign 8
header:
    .long MAGIC, I386, header_end - header, -(MAGIC + I386 + (header_end - header))
    /* Information request: command line, loader, modules, memory, map, sections. */
    .balign 8
    .word 1, 0
    .long 32, 1, 2, 3, 4, 6, 9
    /* Information request, optional: SMBIOS, both RSDPs. */
    .balign 8
    .word 1, 1
    .long 20, 13, 14, 15
    /* Modules on page boundaries. */
    .balign 8
    .word 6, 0
    .long 8
    .balign 8
    .word 0, 0
    .long 8
header_end:

#else

#define MAGIC 0x1BADB002
/* Modules on page boundaries, and information about memory. */
#define FLAGS 3

    .section .header, "a"
    .balign 4
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)

#endif

    .text
    .globl _start
_start:
    movl $stack_top, %esp
    movl %cr0, %ecx
    pushfl
    pushl %ecx
    pushl %ebx
    pushl %eax
    call kernel_main
    /* isa-debug-exit: the status is (value << 1) | 1. */
    movw $0x501, %dx
    outb %al, %dx
1:  hlt
    jmp 1b

    .bss
    .balign 16
stack:
    .skip 16384
stack_top:

    .section .note.GNU-stack, "", @progbits
