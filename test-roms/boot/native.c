//! The main program of a loop as a program of the host, by system calls of Linux, as there is no
//! library. It prints what measure.S prints, but instead of the TSC a line
//!
//!     loop NAME spent WALL CPU        nanoseconds by the host's clocks, hexadecimal
//!
//! A loop may be over before somebody who waits for the first line has read it.

#include "../loops/loop.h"

#ifdef __x86_64__
#define SYS_WRITE 1
#define SYS_EXIT 60
#define SYS_CLOCK_GETTIME 228
static long system_call(long number, long a, long b, long c)
{
    long result;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c)
                 : "rcx", "r11", "memory");
    return result;
}
#else
#define SYS_WRITE 4
#define SYS_EXIT 1
#define SYS_CLOCK_GETTIME 265
static long system_call(long number, long a, long b, long c)
{
    long result;
    asm volatile("int $0x80"
                 : "=a"(result)
                 : "a"(number), "b"(a), "c"(b), "d"(c)
                 : "memory");
    return result;
}
#endif

#define CLOCK_MONOTONIC 1
#define CLOCK_PROCESS_CPUTIME_ID 2

static u64 now(long clock)
{
    struct {
        long seconds, nanoseconds;
    } time;
    system_call(SYS_CLOCK_GETTIME, clock, (long)&time, 0);
    return time.seconds * 1000000000ull + time.nanoseconds;
}

static void say(const char *text)
{
    u32 length = 0;
    while (text[length])
        length++;
    system_call(SYS_WRITE, 1, (long)text, length);
}

static void say_number(u64 number)
{
    char digits[17];
    for (u32 i = 0; i < 16; i++)
        digits[i] = "0123456789ABCDEF"[number >> (60 - 4 * i) & 15];
    digits[16] = 0;
    say(digits);
}

// Called by _start with the stack as C wants it.
__attribute__((used)) static void start(void)
{
    say("loop " NAME " start\n");
    u64 wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    u64 result = loop_body();
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = now(CLOCK_MONOTONIC) - wall;
    say("loop " NAME " spent ");
    say_number(wall);
    say(" ");
    say_number(cpu);
    say("\n");
    if (result != loop_expected) {
        say("loop " NAME " wrong: not ");
        say_number(loop_expected);
        say("\n");
    }
    say("loop " NAME " done ");
    say_number(result);
    say("\n");
    system_call(SYS_EXIT, 0, 0, 0);
}

// Linux starts a program with the stack pointer at a multiple of 16.
asm(".text\n.globl _start\n_start: call start\n");
