//! The report: TAP version 13 on COM1 (testanything.org), and the end of the run.

#include <stdarg.h>

#include "suite.h"

enum { COM1 = 0x3F8, DATA_READY = 1, THR_EMPTY = 0x20, TRANSMITTER_EMPTY = 0x40 };
enum { DEBUG_EXIT = 0x501 };
enum { SHOWN_CASES = 4 };

static unsigned checks, failures;
static const char *subject;

void serial_init(void) {
    out8(COM1 + 1, 0);          // no interrupts
    out8(COM1 + 3, 0x80);       // divisor latch
    out8(COM1 + 0, 1);          // 115,200 baud
    out8(COM1 + 1, 0);
    out8(COM1 + 3, 3);          // 8N1
    out8(COM1 + 2, 7);          // FIFOs
    out8(COM1 + 4, 3);          // DTR, RTS
}

static void put(char c) {
    while (!(in8(COM1 + 5) & THR_EMPTY)) {
    }
    out8(COM1, c);
}

static void put_text(const char *text) {
    while (*text)
        put(*text++);
}

static void put_hex(u64 value) {
    bool started = false;
    for (int shift = 60; shift >= 0; shift -= 4) {
        unsigned digit = low(value >> shift) & 15;
        started |= digit || !shift;
        if (started)
            put("0123456789ABCDEF"[digit]);
    }
}

static void put_decimal(u32 value) {
    if (value >= 10)
        put_decimal(value / 10);
    put('0' + value % 10);
}

static void put_format(const char *format, va_list list) {
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 'd': {
            int value = va_arg(list, int);
            if (value < 0)
                put('-');
            put_decimal(value < 0 ? -value : value);
            break;
        }
        case 'u': put_decimal(va_arg(list, u32)); break;
        case 'x': put_hex(va_arg(list, u32)); break;
        case 'q': put_hex(va_arg(list, u64)); break;
        case 's': put_text(va_arg(list, const char *)); break;
        case 'c': put(va_arg(list, int)); break;
        default: put(*format);
        }
    }
}

static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    put_format(format, list);
    va_end(list);
}

void note(const char *format, ...) {
    va_list list;
    put_text("# ");
    va_start(list, format);
    put_format(format, list);
    va_end(list);
    put('\n');
}

void about(const char *what) { subject = what; }

static void say_check(bool good, const char *text) {
    checks++;
    failures += !good;
    say("%sok %u - %s", good ? "" : "not ", checks, text);
    if (subject)
        say(" [%s]", subject);
    put('\n');
}

static const char *const names[] = {
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP",
    "#SS", "#GP", "#PF", "15", "#MF", "#AC", "#MC", "#XM",
};

static void say_result(void) {
    say("#   got ");
    if (result.vector < COUNT(names))
        put_text(names[result.vector]);
    else if (result.vector == NOTHING)
        put_text("nothing");
    else
        say("vector %u", result.vector);
    if (result.has_error)
        say("(%x)", result.error);
    say(" at %x:%q, stack %x:%q, RFLAGS %q, CR2 %q\n", result.cs, result.rip, result.ss,
        result.rsp, result.rflags, result.cr2);
}

static void say_expected(u32 vector, u32 error) {
    if (vector == BP)
        say("#   expected the end of the program at %q\n", context.rip + program_size);
    else
        say("#   expected %s(%x)\n", vector < COUNT(names) ? names[vector] : "vector", error);
}

void check(bool good, const char *text) {
    say_check(good, text);
    if (!good)
        say_result();
}

void skip(const char *text, const char *why) {
    checks++;
    say("ok %u - %s # SKIP %s\n", checks, text, why);
}

void check_value(u64 got, u64 expected, const char *text) {
    say_check(got == expected, text);
    if (got != expected) {
        say("#   got %q, expected %q\n", got, expected);
        say_result();
    }
}

static bool faulted(u32 vector, u32 error) {
    return result.vector == vector && (!result.has_error || result.error == error);
}

void check_fault(u32 vector, u32 error, const char *text) {
    bool good = faulted(vector, error);
    say_check(good, text);
    if (!good) {
        say_expected(vector, error);
        say_result();
    }
}

void check_completes(const char *text) {
    say_check(completed(), text);
    if (!completed()) {
        say_expected(BP, 0);
        say_result();
    }
}

//
// Many cases in one line
//

static const char *group;
static unsigned cases, bad_cases;
static const char *title_format;
static u32 title_arguments[16];
static va_list title_list;

void begin(const char *text) {
    group = text;
    cases = bad_cases = 0;
    title_format = 0;
}

/// The title is only printed when the case fails, so the arguments are kept: on this processor's
/// stack they are an array of dwords.
void title(const char *format, ...) {
    title_format = format;
    va_list list;
    va_start(list, format);
    for (unsigned i = 0; i < COUNT(title_arguments); i++)
        title_arguments[i] = va_arg(list, u32);
    va_end(list);
    title_list = (va_list)title_arguments;
}

/// Counts the case; whether it is to be shown.
static bool count_case(bool good) {
    cases++;
    if (good)
        return false;
    if (bad_cases++ >= SHOWN_CASES)
        return false;
    say("# ");
    if (title_format)
        put_format(title_format, title_list);
    put('\n');
    return true;
}

bool expect(bool good) {
    if (count_case(good))
        say_result();
    return good;
}

bool expect_value(const char *what, u64 got, u64 expected) {
    if (count_case(got == expected))
        say("#   %s: got %q, expected %q\n", what, got, expected);
    return got == expected;
}

bool expect_fault(u32 vector, u32 error) {
    bool good = faulted(vector, error);
    if (count_case(good)) {
        say_expected(vector, error);
        say_result();
    }
    return good;
}

bool expect_completes(void) {
    bool good = completed();
    if (count_case(good)) {
        say_expected(BP, 0);
        say_result();
    }
    return good;
}

void end(void) {
    if (bad_cases)
        note("%u of %u cases are wrong: %s", bad_cases, cases, group);
    checks++;
    failures += bad_cases != 0;
    say("%sok %u - %s", bad_cases ? "not " : "", checks, group);
    if (subject)
        say(" [%s]", subject);
    say(" (%u cases)\n", cases);
}

//
// The frame around a chapter
//

/// Ends the run: status 1 at isa-debug-exit if all is well (QEMU exits with 2 * status + 1), else
/// the PIIX4 switches off.
static void leave(u8 status) {
    while (!(in8(COM1 + 5) & TRANSMITTER_EMPTY)) {
    }
    out8(DEBUG_EXIT, status);
    for (u32 device = 0; device < 256; device++) {
        u32 address = 1u << 31 | device << 8, id;
        asm volatile("out dx, eax" ::"a"(address), "d"(0xCF8));
        asm volatile("in eax, dx" : "=a"(id) : "d"(0xCFC));
        if (id != 0x71138086)
            continue;
        asm volatile("out dx, eax" ::"a"(address | 0x40), "d"(0xCF8));
        asm volatile("out dx, eax" ::"a"(0xB001), "d"(0xCFC));  // PMBASE
        asm volatile("out dx, eax" ::"a"(address | 0x80), "d"(0xCF8));
        asm volatile("out dx, al" ::"a"(1), "d"(0xCFC));        // PMREGMISC: PMIOSE
        asm volatile("out dx, ax" ::"a"(1 << 13), "d"(0xB004)); // PM1_CNT: SLP_EN, type 0 is off
    }
    for (;;)
        asm volatile("cli; hlt");
}

void tap_begin(void) {
    serial_init();
    say("TAP version 13\n# %s\n", chapter_name);
}

void tap_end(void) {
    say("1..%u\n", checks);
    if (failures)
        note("%u of %u checks failed", failures, checks);
    else
        note("all well");
    leave(failures ? 1 : 0);
}

/// An exception in the controller. The stack: vector (as a return address), frame.
void unexpected(u32 unused, const u32 *stack) {
    (void)unused;
    extern u8 home_handlers[];
    u32 vector = (stack[0] - (u32)home_handlers - 5) / 5;
    say("Bail out! Vector %u in the controller, stack %x %x %x %x\n", vector, stack[1], stack[2],
        stack[3], stack[4]);
    leave(2);
}
