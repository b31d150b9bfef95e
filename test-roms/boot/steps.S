//! Numbered steps and their cost in time. Assembled three times, for 16-, 32- and 64-bit code.
//!
//! Every routine keeps all registers but the flags.

#include "steps.inc"

#ifdef NARRATE

CODE_SECTION

// Notes the time.
.globl step_begin
step_begin:
    push R(ax)
    push R(dx)
    rdtsc
    mov dword ptr ds:[V_STEP_START], eax
    mov dword ptr ds:[V_STEP_START + 4], edx
    pop R(dx)
    pop R(ax)
    ret

// Notes how long it is since then.
.globl step_end
step_end:
    push R(ax)
    push R(dx)
    rdtsc
    sub eax, dword ptr ds:[V_STEP_START]
    sbb edx, dword ptr ds:[V_STEP_START + 4]
    mov dword ptr ds:[V_STEP_COST], eax
    mov dword ptr ds:[V_STEP_COST + 4], edx
    pop R(dx)
    pop R(ax)
    ret

// Prints "  [ n] " for the next n.
.globl step_number
step_number:
    push R(ax)
    push R(si)
    SAY "  \033[2m["
    inc dword ptr ds:[V_STEP]
    mov eax, dword ptr ds:[V_STEP]
    SAY_DEC 2
    SAY "]\033[0m "
    pop R(si)
    pop R(ax)
    ret

// Prints the step's cost at the right and ends the line.
.globl step_cost
step_cost:
    push R(ax)
    push R(dx)
    push R(si)
    COLUMN COST_COLUMN
    mov eax, dword ptr ds:[V_STEP_COST]
    mov edx, dword ptr ds:[V_STEP_COST + 4]
    call put_time
    SAY "\n"
    pop R(si)
    pop R(dx)
    pop R(ax)
    ret

// Prints EDX:EAX TSC ticks as microseconds, or as ticks when the TSC's rate is not known.
.globl put_time
put_time:
    push R(ax)
    push R(cx)
    push R(dx)
    push R(si)
    mov ecx, dword ptr ds:[V_TSC_MHZ]
    SAY "\033[36m"
    test ecx, ecx
    jz 3f
    cmp edx, ecx                // would the quotient be too long for EAX?
    jae 2f
    div ecx
    SAY_DEC 9
    SAY " us\033[0m"
    jmp 5f
2:  SAY "over 1 hour\033[0m"
    jmp 5f
3:  test edx, edx
    jz 4f
    mov eax, -1                 // 4,294,967,295 stands for that and more
4:  SAY_DEC 9
    SAY " tsc\033[0m"
5:  pop R(si)
    pop R(dx)
    pop R(cx)
    pop R(ax)
    ret

#endif
