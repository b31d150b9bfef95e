//! The demo's script in long mode: exceptions, interrupts, ring 3, some work, a summary.

#define BITS 64
#include "demo.inc"
#include "power.inc"

// Compares and remembers if a result is not what it must be.
.macro EXPECT left, right
    cmp \left, \right
    je .Lok\@
    inc dword ptr [wrong]
    SAY " \033[31mwrong!\033[0m"
.Lok\@:
.endm

CODE_SECTION

.globl rom_main
rom_main:
    call show_exceptions
    call show_interrupts
    call show_ring_3
    call note_ready

    SAY "\n  \033[1mWork\033[0m, while the timer ticks\n"
    sti
    call show_primes
    call show_sorting
    call show_mandelbrot
    cli
    call timer_stop

    call summary
    jmp power_off

show_exceptions:
    STEP_BEGIN
    call breakpoint
    STEP_END "breakpoint"
    SAY "INT3: #BP taken through gate 3, and back"
    EXPECT eax, 1
    STEP_COST

    STEP_BEGIN
    call page_fault
    STEP_END "page fault"
    push rax
    SAY "#PF error "
    mov eax, dword ptr [seen_error]
    SAY_DEC
    SAY ", CR2 "
    mov rax, qword ptr [seen_cr2]
    SAY_HEX 8
    SAY "h: mapped, retried"
    pop rax
    EXPECT eax, 1
    EXPECT "qword ptr [seen_cr2]", FAULT_ADDRESS + 8
    EXPECT "dword ptr [seen_error]", 2
    STEP_COST
    ret

show_interrupts:
    STEP_BEGIN
    call pic_init
    call timer_start
    STEP_END "interrupts"
    SAY "8259A lines 0-15 at 20h-2Fh, 8254 at 1 kHz"
    STEP_COST

    STEP_BEGIN
    call timer_wait
    STEP_END "timer"
    mov eax, TICKS_AWAITED
    SAY_DEC
    SAY " ticks of 1 ms, asleep (HLT) in between"
    STEP_COST
    ret

show_ring_3:
    STEP_BEGIN
    call user_run
    STEP_END "ring 3"
    SAY_DEC
    SAY " system calls by SYSCALL and SYSRET"
    EXPECT eax, SYSCALLS
    STEP_COST
    ret

show_primes:
    STEP_BEGIN
    call primes
    STEP_END "primes"
    SAY_DEC
    SAY " below 1,000,000, the last "
    push rax
    mov eax, edx
    SAY_DEC
    pop rax
    EXPECT eax, PRIMES_EXPECTED
    EXPECT edx, LAST_PRIME
    STEP_COST
    ret

show_sorting:
    call sort_fill
    mov ebx, eax
    STEP_BEGIN
    call sort_heap
    STEP_END "heapsort"
    call say_sorted

    call sort_fill
    STEP_BEGIN
    call sort_quick
    STEP_END "quicksort"
    // falls through

// Prints the result of a sort; EBX is the sum that the numbers must still have.
say_sorted:
    mov eax, SORT_NUMBERS
    SAY_DEC
    call sort_check
    sbb edx, edx
    SAY " numbers, in order, none lost"
    EXPECT edx, 0
    EXPECT eax, ebx
    STEP_COST
    ret

show_mandelbrot:
    STEP_BEGIN
    call mandelbrot
    STEP_END "Mandelbrot"
    SAY_DEC
    SAY " iterations in 24-bit fixed point"
    STEP_COST
    SAY "\n"
    call mandelbrot_print
    ret

// Notes the time since reset at which the machine is set up.
note_ready:
    call since_reset
    mov dword ptr [ready], eax
    mov dword ptr [ready + 4], edx
    ret

// EDX:EAX = TSC ticks since reset.
since_reset:
    rdtsc
    sub eax, dword ptr ds:[V_RESET_TSC]
    sbb edx, dword ptr ds:[V_RESET_TSC + 4]
    ret

summary:
    SAY "\n  \033[1mSummary\033[0m\n"
    SAY "       from reset to here, printing included"
    COLUMN COST_COLUMN
    call since_reset
    call put_time
    SAY "\n       of which to set the machine up"
    COLUMN COST_COLUMN
    mov eax, dword ptr [ready]
    mov edx, dword ptr [ready + 4]
    call put_time
    SAY "\n       timer ticks of 1 ms"
    COLUMN COST_COLUMN
    mov eax, dword ptr [ticks]
    SAY_DEC 9
    SAY "\n       results that were wrong"
    COLUMN COST_COLUMN
    mov eax, dword ptr [wrong]
    SAY_DEC 9

    SAY "\n\n  Power off: "
    call find_piix4_pm
    cmp eax, PIIX4_PM_ID
    jne 2f
    SAY "PIIX4 at PCI 00:"
    mov eax, ecx
    shr eax, 3
    SAY_HEX 2
    SAY "."
    mov eax, ecx
    and eax, 7
    SAY_HEX 1
    SAY ", PM1_CNT = SLP_EN. Good night.\n\n"
    ret
2:  SAY "no PIIX4 here, so just HLT. Good night.\n\n"
    ret

.bss
.balign 8
ready:
    .skip 8
wrong:
    .skip 4
