//! Single ports of a PC: 61h, 92h, the 8042's A20, POST, the parallel port, ports where nobody is (IBM PC
//! AT technical reference; Intel 82371SB data sheet, order number 290550).

#include "chip.h"

const char chapter_name[] = "ports";

#define AT "IBM PC AT technical reference, "
#define PIIX3 "82371SB data sheet, "

//
// Port 61h
//

static bool refresh(u32 unused) {
    (void)unused;
    u16 before = ticks();
    u8 last = in8(0x61) & 0x10;
    u16 begun = ticks();
    u32 toggles = 0;
    while ((u16)(ticks() - begun) < 2000) {
        u8 now = in8(0x61) & 0x10;
        toggles += now != last;
        last = now;
    }
    u32 gone = (u16)(ticks() - before);
    // Every 15.085 microseconds: 18 clocks.
    return toggles >= 2000 / 18 - 8 && toggles <= gone / 18 + 2;
}

static void port_61(void) {
    begin(PIIX3 "NMISC (61h): bits 0 to 3 can be written and read");
    for (u32 value = 0; value < 16; value++) {
        out8(0x61, value);
        expect_value("value", in8(0x61) & 15, value);
    }
    end();
    out8(0x61, 0xF0);
    check_value(in8(0x61) & 0xCF, 0, PIIX3 "NMISC (61h): bits 6 and 7 are read-only, and no error is there");
    check_timed(refresh, 0, PIIX3 "NMISC (61h): bit 4 toggles with each refresh cycle, every 15 microseconds");
    out8(0x61, 0);
}

//
// A20. The stack is where bit 20 of addresses is set: nothing may use it while the gate is closed.
//

enum { LOW = 0x500, HIGH = 0x100500 };
enum { IS_CLOSED = 0x10101010, IS_OPEN = 0x20202020 };

/// Writes port 92h, sees what is at 1 MiB + 500h, and opens the gate again.
static u32 with_port_92(u8 value) {
    u32 seen;
    asm volatile("out 0x92, al; mov ecx, [ebx]; mov al, 2; out 0x92, al"
                 : "=c"(seen), "+a"(value) : "b"(anywhere(HIGH)) : "memory");
    return seen;
}

/// The same with the 8042's output port too.
static u32 with_both(u8 port_92, u8 output) {
    u32 seen, unused_a = port_92, unused_d = output;
    asm volatile("mov ah, al;"
                 "1: in al, 0x64; test al, 2; jnz 1b; mov al, 0xD1; out 0x64, al;"
                 "1: in al, 0x64; test al, 2; jnz 1b; mov al, dl; out 0x60, al;"
                 "1: in al, 0x64; test al, 2; jnz 1b;"
                 "mov al, ah; out 0x92, al; mov ecx, [ebx];"
                 "mov al, 2; out 0x92, al;"
                 "1: in al, 0x64; test al, 2; jnz 1b; mov al, 0xD1; out 0x64, al;"
                 "1: in al, 0x64; test al, 2; jnz 1b; mov al, 0xDF; out 0x60, al;"
                 "1: in al, 0x64; test al, 2; jnz 1b; mov al, 2; out 0x92, al"
                 : "=c"(seen), "+a"(unused_a), "+d"(unused_d) : "b"(anywhere(HIGH)) : "memory");
    return seen;
}

static void a20(void) {
    *dwords(LOW) = IS_CLOSED;
    *dwords(HIGH) = IS_OPEN;
    check(*dwords(LOW) == IS_CLOSED && *dwords(HIGH) == IS_OPEN, AT "A20: open, 1 MiB is no mirror of 0");
    check_value(in8(0x92) & 3, 2, PIIX3 "port 92h: bit 1 is read as written, bit 0 is 0");
    check_value(with_both(0, 0xDD), IS_CLOSED, AT "A20: closed by both port 92h and the 8042, bit 20 of addresses is 0");
    check_value(with_both(2, 0xDD), IS_OPEN, PIIX3 "port 92h: open by port 92h alone");
    check_value(with_both(0, 0xDF), IS_OPEN, PIIX3 "port 92h: open by the 8042 alone");
    check(with_port_92(2) == IS_OPEN && *dwords(LOW) == IS_CLOSED && *dwords(HIGH) == IS_OPEN,
          AT "A20: and memory is as it was");
    fresh(REAL, 0);
    context.ds = 0xFFFF;
    context.r[RBX] = 0x510;
    run_program(A16("mov ax, [bx]"));
    check((record.r[RAX] & 0xFFFF) == (IS_OPEN & 0xFFFF), "SDM vol. 3B 21.1.1: FFFF:0510 is 100500h while the gate is open");
}

//
// POST, nobody
//

static void others(void) {
    begin("Where nobody answers, the bus is read as ones");
    static const u16 nobody[] = {0x250, 0x2A0, 0x310, 0x340, 0x6F0, 0xA68, 0x1234, 0xFEDC};
    for (u32 i = 0; i < COUNT(nobody); i++) {
        title("port %x", nobody[i]);
        out8(nobody[i], 0);
        expect_value("byte", in8(nobody[i]), 0xFF);
        expect_value("word", in16(nobody[i]), 0xFFFF);
        expect_value("dword", in32(nobody[i]), 0xFFFFFFFF);
    }
    end();
    begin(AT "\"I/O address map\": a word or dword access is one of bytes, where the device has eight bits");
    out8(0x3FF, 0x5A);
    expect_value("the last register of COM1 and nobody's", in16(0x3FF) & 0xFF, 0x5A);
    out16(0x3FE, 0xA500);
    expect_value("its upper byte", in8(0x3FF), 0xA5);
    expect_value("four bytes", in32(0x3FC) >> 24, 0xA5);
    end();
}

/// Address lines that the 82371SB does not look at.
static void aliases(void) {
    begin(PIIX3 "\"ISA-compatible registers\": aliases of the 8259As at 24h to 3Dh and A4h to BDh");
    for (u16 alias = 4; alias < 0x20; alias += 4) {
        title("%x", alias);
        out8(0x21 + alias, 0xF0 | alias);
        expect_value("the first's mask", in8(0x21), 0xF0 | alias);
        out8(0xA1, 0xE0 | alias);
        expect_value("the second's mask", in8(0xA1 + alias), 0xE0 | alias);
    }
    out8(0x21, 0xFF);
    out8(0xA1, 0xFF);
    end();
    begin(PIIX3 "\"ISA-compatible registers\": the 8254 is at 50h to 53h too, port 61h at 63h, 65h and 67h");
    out8(0x53, 0xB0);
    out8(0x61, 0);
    out8(0x52, 0x34);
    out8(0x42, 0x12);
    out8(0x43, 0xE8);
    expect_value("the control word of counter 2", in8(0x52) & 0x3F, 0x30);
    for (u16 alias = 0x63; alias <= 0x67; alias += 2) {
        out8(alias, 0x0C);
        expect_value("61h", in8(0x61) & 15, 0x0C);
        out8(0x61, 0);
        expect_value("alias", in8(alias) & 15, 0);
    }
    end();
    begin(PIIX3 "\"ISA-compatible registers\": the MC146818 is at 72h, 74h and 76h too");
    for (u16 alias = 0x72; alias <= 0x76; alias += 2) {
        u8 old = cmos(0x7F);
        out8(alias, 0x7F);
        out8(alias + 1, alias);
        title("%x", alias);
        expect_value("by 71h", cmos(0x7F), alias);
        cmos_set(0x7F, old);
        expect_value("by its data port", in8(alias + 1), old);
    }
    end();
}

/// QEMU's and Bochs' port for messages, which firmware knows.
static void debug_console(void) {
    if (in8(0xE9) != 0xE9) {
        skip("Bochs, \"port E9 hack\": a byte written there is printed", "there is no such port");
        return;
    }
    out8(0xE9, '\n');
    check_value(in8(0xE9), 0xE9, "Bochs, \"port E9 hack\": port E9h is read as E9h");
}

//
// The parallel port, if there is one
//

static void parallel(void) {
    enum { PORT = 0x378 };
    out8(PORT, 0x5A);
    bool there = in8(PORT) == 0x5A;
    out8(PORT, 0xA5);
    if (!there || in8(PORT) != 0xA5) {
        skip(AT "parallel adapter", "there is none");
        return;
    }
    begin(AT "parallel adapter: the data latch is read back");
    for (u32 value = 0; value < 256; value += 3) {
        out8(PORT, value);
        expect_value("data", in8(PORT), value);
    }
    end();
    begin(AT "parallel adapter: control bits 0 to 4 are read back");
    for (u32 value = 0; value < 32; value++) {
        // Not STROBE, which prints; INIT stays high; no interrupt.
        if (value & 0x11)
            continue;
        out8(PORT + 2, value | 4);
        expect_value("control", in8(PORT + 2) & 0x1F, value | 4);
    }
    end();
    out8(PORT + 2, 0x0C);
    u8 before = in8(PORT + 1);
    check((before & 0x88) == 0x88, AT "parallel adapter: a printer that is ready: BUSY off (1), no error (1)");
    u8 old = in8(PORT + 1);
    out8(PORT + 1, (u8)~old);
    check_value(in8(PORT + 1) & 0xF8, old & 0xF8, AT "parallel adapter: status is read-only");
}

void chapter(void) {
    ticks_init();
    port_61();
    a20();
    aliases();
    debug_console();
    parallel();
    others();
    pics_quiet();
}
