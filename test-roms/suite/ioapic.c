//! The I/O APIC (Intel 82093AA data sheet, order number 290566), with lines 2 and 4, which are the 8254's
//! and COM1's.

#include "chip.h"

const char chapter_name[] = "ioapic";

#define SHEET "82093AA data sheet "

enum { ID = 0, VERSION = 1, ARBITRATION = 2, TABLE = 0x10 };
enum { LEVEL = 1 << 15, REMOTE_IRR = 1 << 14, PENDING = 1 << 12, LOGICAL = 1 << 11 };
enum { LOWEST = 1 << 8, NMI_MODE = 4 << 8 };
enum { COM1_PIN = 4, TIMER_PIN = 2, VECTOR = 0x54 };

static u32 own;                                 // the local APIC's ID, where entries have it
static u32 entry(u8 pin) { return ioapic(TABLE + 2 * pin); }

static void start(void) {
    lower_line(4);
    lower_line(0);
    apics_init();
}

static bool in_trigger_mode(void) { return *dwords(0xFEE00180 + VECTOR / 32 * 16) >> VECTOR % 32 & 1; }

static void registers(void) {
    begin(SHEET "3.2.4: after reset all entries are masked");
    for (u32 pin = 0; pin < 24; pin++) {
        title("pin %u", pin);
        expect_value("mask", entry(pin) & REDIRECT_MASKED, REDIRECT_MASKED);
    }
    end();
    u32 version = ioapic(VERSION);
    check((version & 0xFF) >= 0x11 && (version >> 16 & 0xFF) == 23,
          SHEET "3.2.2: version 11h (82093AA) or more (its successors), 24 entries");
    ioapic_set(VERSION, 0);
    check_value(ioapic(VERSION), version, SHEET "3.2.2: the version is read-only");
    ioapic_set(ID, 0xFFFFFFFF);
    u32 all = ioapic(ID);
    ioapic_set(ID, 0);
    check(all == 0x0F000000 && ioapic(ID) == 0, SHEET "3.2.1: the ID has four bits");
    ioapic_set(ID, 0x05000000);
    check_value(ioapic(ARBITRATION) & 0x0F000000, 0x05000000, SHEET "3.2.3: the arbitration ID is loaded with the ID");
    ioapic_set(ID, 0);
    begin(SHEET "3.1.1: the register select register holds what was written");
    for (u32 i = 0; i < 256; i += 5) {
        *dwords(0xFEC00000) = i;
        expect_value("IOREGSEL", *dwords(0xFEC00000) & 0xFF, i);
    }
    end();
    begin(SHEET "3.2.4: entries hold what was written, but for delivery status and remote IRR");
    for (u32 pin = 0; pin < 24; pin++) {
        title("pin %u", pin);
        redirect(pin, 0x1FFFF, 0xFFFFFFFF);
        expect_value("ones, low", entry(pin), 0x1FFFF & ~(REMOTE_IRR | PENDING));
        expect_value("ones, high", ioapic(TABLE + 1 + 2 * pin), 0xFF000000);
        redirect(pin, REDIRECT_MASKED | (0x30 + pin), pin << 24);
        expect_value("low", entry(pin), REDIRECT_MASKED | (0x30 + pin));
        expect_value("high", ioapic(TABLE + 1 + 2 * pin), pin << 24);
    }
    end();
}

static void edges(void) {
    start();
    redirect(COM1_PIN, VECTOR, own);
    bool quiet = take() == NOTHING;
    raise_line(4);
    bool came = take() == VECTOR;
    bool edge = !in_trigger_mode() && !(entry(COM1_PIN) & REMOTE_IRR);
    apic_eoi();
    check(quiet && came && edge && take() == NOTHING, SHEET "3.2.4: edge: a line that rises interrupts once");
    lower_line(4);
    raise_line(4);
    check(take() == VECTOR, SHEET "3.2.4: edge: and again when it has fallen and risen");
    start();
    redirect(COM1_PIN, VECTOR | REDIRECT_MASKED, own);
    raise_line(4);
    lower_line(4);
    redirect(COM1_PIN, VECTOR, own);
    check_value(take(), NOTHING, SHEET "3.2.4: an edge on a masked pin is lost");
    start();
    redirect(TIMER_PIN, VECTOR, own);
    raise_line(0);
    check_value(take(), VECTOR, "82371SB data sheet, \"Interrupt controller\"; MP specification 5.1: IRQ 0 is at pin 2");
    start();
}

static void levels(void) {
    start();
    redirect(COM1_PIN, VECTOR | LEVEL, own);
    raise_line(4);
    bool waits = entry(COM1_PIN) & REMOTE_IRR;
    bool came = take() == VECTOR;
    check(waits && came && in_trigger_mode() && entry(COM1_PIN) & REMOTE_IRR,
          SHEET "3.2.4: level: remote IRR is set when the local APIC has taken it, until EOI");
    bool once = take() == NOTHING;
    apic_eoi();
    bool again = take() == VECTOR;
    check(once && again, SHEET "3.2.4: level: after the EOI a line that is still there interrupts again");
    lower_line(4);
    apic_eoi();
    check(!(entry(COM1_PIN) & REMOTE_IRR) && take() == NOTHING, SHEET "3.2.4: level: and not when it has gone");
    start();
    redirect(COM1_PIN, VECTOR | LEVEL | REDIRECT_MASKED, own);
    raise_line(4);
    bool masked = take() == NOTHING;
    redirect(COM1_PIN, VECTOR | LEVEL, own);
    check(masked && take() == VECTOR, SHEET "3.2.4: level: a line that is there when it is unmasked interrupts");
    lower_line(4);
    apic_eoi();
    start();
}

static void destinations(void) {
    begin(SHEET "3.2.4: physical destinations name an ID, logical ones what LDR and DFR say");
    static const struct {
        u32 low, high;
        bool comes;
    } cases[] = {
        {0, 0xFF000000, true}, {0, 0x07000000, false}, {LOGICAL, 0x02000000, true}, {LOGICAL, 0x05000000, false},
        {LOGICAL, 0xFF000000, true}, {LOGICAL | LOWEST, 0x03000000, true},
    };
    for (u32 i = 0; i < COUNT(cases); i++) {
        start();
        *dwords(0xFEE000E0) = 0xFFFFFFFF;
        *dwords(0xFEE000D0) = 0x02000000;
        redirect(COM1_PIN, VECTOR | cases[i].low, cases[i].high);
        raise_line(4);
        title("entry %x, destination %x", cases[i].low, cases[i].high);
        expect_value("vector", take(), cases[i].comes ? VECTOR : NOTHING);
        apic_eoi();
    }
    end();
    start();
    *dwords(0xFEE000D0) = 0;
    redirect(COM1_PIN, NMI_MODE, own);
    fresh(FLAT, 0);
    context.r[RDX] = 0x3F9;
    context.r[RAX] = 2;
    out8(0x3FC, 0x0B);
    run_program(A32("out dx, al; nop; nop; nop; nop; nop; nop; nop"));
    lower_line(4);
    check(result.vector == NMI, SHEET "3.2.4: delivery mode NMI");
    start();
}

/// The 8259A's INTR is at pin 0 too (MultiProcessor specification 1.4, 3.6.2.2, figure 3-3).
static void extint(void) {
    enum { EXTINT = 7 << 8, INTR_PIN = 0 };
    start();
    pic_init(MASTER, VECTORS, ICW4_8086);
    pic_init(SLAVE, SLAVE_VECTORS, ICW4_8086);
    out8(MASTER + 1, (u8)~(1 << 4));
    out8(SLAVE + 1, 0xFF);
    redirect(INTR_PIN, EXTINT | 0x99, own);
    bool quiet = take() == NOTHING;
    raise_line(4);
    u32 vector = take();
    bool in_service = isr(MASTER) == 1 << 4 && *dwords(0xFEE00110) == 0;
    // The report goes out by COM1, and would raise the line again.
    out8(MASTER, EOI);
    lower_line(4);
    redirect(INTR_PIN, EXTINT | REDIRECT_MASKED, own);
    raise_line(4);
    u32 masked = take();
    lower_line(4);
    out8(MASTER + 1, 0xFF);
    check(quiet && vector == VECTORS + 4,
          SHEET "3.2.4, MultiProcessor specification 3.6.2.2: delivery mode ExtINT at pin 0: the vector is the 8259A's");
    check(in_service, "SDM vol. 3A 11.5.1: ExtINT is in service at the 8259A, and not at the local APIC");
    check_value(masked, NOTHING, SHEET "3.2.4: pin 0 masked, nothing comes");
    start();
    pics_quiet();
}

void chapter(void) {
    if (!has_ioapic()) {
        skip("82093AA data sheet: I/O APIC", "there is none");
        return;
    }
    own = *dwords(0xFEE00020) & 0xFF000000;
    registers();
    edges();
    levels();
    destinations();
    extint();
    pics_quiet();
}
