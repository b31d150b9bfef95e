//! Interrupt lines, and a processor that takes interrupts, for the chapters about chips.

#include "chip.h"

void pics_init(u8 master_mask, u8 slave_mask) {
    pic_init(MASTER, VECTORS, ICW4_8086);
    pic_init(SLAVE, SLAVE_VECTORS, ICW4_8086);
    out8(MASTER + 1, master_mask);
    out8(SLAVE + 1, slave_mask);
    if (HAS_APIC) {
        // Virtual wire mode: LINT0 is the 8259A's line.
        *dwords(0xFEE000F0) = 0x1FF;
        *dwords(0xFEE00350) = 0x700;
    }
}

void pics_quiet(void) {
    static const u8 irqs[] = {0, 1, 4, 8, 12};
    for (u32 i = 0; i < COUNT(irqs); i++)
        lower_line(irqs[i]);
    pics_init(0xFF, 0xFF);
}

//
// Lines
//

enum { KEYBOARD_DATA = 0x60, KEYBOARD_COMMAND = 0x64 };
enum { COMMAND_BYTE_IRQS = 0x47, COMMAND_BYTE_QUIET = 0x74 };

static void keyboard_write(u16 port, u8 value) {
    while (in8(KEYBOARD_COMMAND) & 2) {
    }
    out8(port, value);
}

/// Puts a byte into the output buffer, as if the keyboard (D2h) or the mouse (D3h) had sent it.
static void keyboard_fill(u8 command) {
    keyboard_write(KEYBOARD_COMMAND, 0x60);
    keyboard_write(KEYBOARD_DATA, COMMAND_BYTE_IRQS);
    keyboard_write(KEYBOARD_COMMAND, command);
    keyboard_write(KEYBOARD_DATA, 0x55);
    while (!(in8(KEYBOARD_COMMAND) & 1)) {
    }
}

static void keyboard_empty(void) {
    for (u32 i = 0; i < 64 && in8(KEYBOARD_COMMAND) & 1; i++)
        in8(KEYBOARD_DATA);
}

u8 cmos(u8 index) {
    out8(0x70, index);
    return in8(0x71);
}

void cmos_set(u8 index, u8 value) {
    out8(0x70, index);
    out8(0x71, value);
}

void raise_line(u8 irq) {
    switch (irq) {
    case 0:                                     // mode 0: OUT goes high at the end
        out8(PIT_CONTROL, 0x30);
        out8(PIT, 2);
        out8(PIT, 0);
        do
            out8(PIT_CONTROL, 0xE2);            // read-back: status of counter 0
        while (!(in8(PIT) & 0x80));
        break;
    case 1: keyboard_fill(0xD2); break;
    case 12: keyboard_fill(0xD3); break;
    case 4:
        out8(0x3FC, 0x0B);                      // DTR, RTS, OUT2
        while (!(in8(0x3FD) & 0x20)) {
        }
        out8(0x3F9, 2);                         // THR empty
        break;
    case 8:
        cmos(0x0C);
        cmos_set(0x0A, 0x23);                   // 8,192 Hz
        cmos_set(0x0B, 0x42);                   // PIE, 24 hours
        while (!(irr(SLAVE) & 1)) {
        }
        break;
    }
}

void lower_line(u8 irq) {
    switch (irq) {
    case 0:                                     // low for 54 ms
        out8(PIT_CONTROL, 0x30);
        out8(PIT, 0);
        out8(PIT, 0);
        break;
    case 1:
    case 12:
        keyboard_empty();
        keyboard_write(KEYBOARD_COMMAND, 0x60);
        keyboard_write(KEYBOARD_DATA, COMMAND_BYTE_QUIET);
        break;
    case 4: out8(0x3F9, 0); break;
    case 8:
        cmos_set(0x0B, 0x02);
        cmos(0x0C);
        break;
    }
}

static bool is_ready;

static u32 take_in(struct program program) {
    if (!is_ready) {
        fresh(FLAT, 0);
        is_ready = true;
    }
    context.rflags = FLAGS_IF | 2;
    load(program);
    run();
    return completed() ? NOTHING : result.vector;
}

u32 take(void) { return take_in(A32("nop; nop; nop; nop; nop; nop; nop; nop")); }
u32 take_waiting(void) { return take_in(A32("1: hlt; jmp 1b")); }

//
// Time
//

void ticks_init(void) {
    out8(PIT_CONTROL, 0x34);
    out8(PIT, 0);
    out8(PIT, 0);
}

u16 ticks(void) {
    out8(PIT_CONTROL, 0);                       // latch counter 0
    u8 lsb = in8(PIT);
    return -(lsb | in8(PIT) << 8);
}

/// Does nothing for so many turns of a loop.
static void spin(u32 turns) { asm volatile("1: dec %0; jnz 1b" : "+r"(turns)); }

void wait_ticks(u16 count) {
    u16 begun = ticks(), gone;
    // A processor that does a turn in 4 ns or less is not late.
    while ((gone = ticks() - begun) < count)
        spin(200 * (u32)(count - gone));
}

/// How often a check is tried.
enum { TRIES = 8 };

static bool tried(bool (*test)(u32), u32 argument) {
    for (u32 i = 0; i < TRIES; i++)
        if (test(argument))
            return true;
    return false;
}

void check_timed(bool (*test)(u32), u32 argument, const char *text) { check(tried(test, argument), text); }
bool expect_timed(bool (*test)(u32), u32 argument) { return expect(tried(test, argument)); }

void apics_init(void) {
    *dwords(0xFEE000F0) = 0x1FF;
    *dwords(0xFEE00080) = 0;
    *dwords(0xFEE00350) = 0x10700;
    for (u32 pin = 0; pin <= (ioapic(1) >> 16 & 0xFF); pin++)
        redirect(pin, REDIRECT_MASKED, 0);
    // End what is in service, then take what waits.
    for (u32 i = 0; i < 256; i++)
        apic_eoi();
    while (take() != NOTHING)
        apic_eoi();
}
