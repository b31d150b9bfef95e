//! The high precision event timer (IA-PC HPET specification, revision 1.0a).

#include "chip.h"

const char chapter_name[] = "hpet";

#define SPEC "HPET 1.0a, "

enum { BASE = 0xFED00000, CAPABILITIES = 0, CONFIGURATION = 0x10, STATUS = 0x20, COUNTER = 0xF0 };
enum { ENABLE = 1, LEGACY = 2 };
enum { LEVEL = 1 << 1, INTERRUPTS = 1 << 2, PERIODIC = 1 << 3, PERIODIC_CAP = 1 << 4, SIZE_CAP = 1 << 5,
       VALUE_SET = 1 << 6, MODE32 = 1 << 8, ROUTE = 9, FSB_CAP = 1 << 15 };
enum { VECTOR = 0x59 };

static volatile u32 *at(u32 offset) { return dwords(BASE + offset); }
static u32 timer(u32 n) { return 0x100 + 0x20 * n; }
static u32 comparator(u32 n) { return 0x108 + 0x20 * n; }
static u32 timers(void) { return (*at(CAPABILITIES) >> 8 & 31) + 1; }

/// Stands, at zero, and nothing interrupts.
static void start(void) {
    *at(CONFIGURATION) = 0;
    for (u32 n = 0; n < timers(); n++) {
        *at(timer(n)) = 0;
        *at(comparator(n)) = 0xFFFFFFFF;
    }
    *at(STATUS) = 0xFFFFFFFF;
    *at(COUNTER) = 0;
    *at(COUNTER + 4) = 0;
}

static void registers(void) {
    u32 caps = *at(CAPABILITIES), period = *at(CAPABILITIES + 4);
    check(caps & 0xFF && timers() >= 3 && caps & 1 << 15 && period && period <= 0x05F5E100,
          SPEC "2.3.4: a revision, at least three timers, legacy replacement, a period of at most 100 ns");
    check_value(*at(CONFIGURATION), 0, SPEC "2.3.5: after reset it is off");
    *at(CAPABILITIES) = 0;
    check_value(*at(CAPABILITIES), caps, SPEC "2.3.4: capabilities are read-only");
    start();
    *at(COUNTER) = 0x12345678;
    *at(COUNTER + 4) = 0x9ABC;
    bool same = *at(COUNTER) == 0x12345678 && *at(COUNTER + 4) == 0x9ABC;
    wait_ticks(100);
    check(same && *at(COUNTER) == 0x12345678, SPEC "2.3.7: while it is off the counter stands and holds what was written");
    begin(SPEC "2.3.8: the capabilities of a timer are read-only, its other fields hold what was written");
    for (u32 n = 0; n < timers(); n++) {
        u32 first = *at(timer(n)), routes = *at(timer(n) + 4);
        *at(timer(n)) = 0xFFFFFFFF & ~INTERRUPTS;
        *at(timer(n) + 4) = 0;
        u32 second = *at(timer(n));
        title("timer %u", n);
        expect_value("capabilities", second & (PERIODIC_CAP | SIZE_CAP | FSB_CAP), first & (PERIODIC_CAP | SIZE_CAP | FSB_CAP));
        expect_value("routes", *at(timer(n) + 4), routes);
        expect(routes != 0);
        expect_value("trigger", second & LEVEL, LEVEL);
        expect_value("32-bit mode", second & MODE32, first & SIZE_CAP ? MODE32 : 0);
        expect_value("periodic", second & PERIODIC, first & PERIODIC_CAP ? PERIODIC : 0);
        expect_value("reserved bit 0", second & 1, 0);
        *at(timer(n)) = 0;
    }
    end();
    start();
    check(*at(timer(0)) & PERIODIC_CAP, SPEC "2.1: timer 0 can be periodic");
}

/// The counter follows its period: held against the 8254 between bounds.
static bool rate(u32 unused) {
    (void)unused;
    start();
    *at(CONFIGURATION) = ENABLE;
    u16 t0 = ticks();
    u32 c0 = *at(COUNTER);
    u16 t1 = ticks();
    wait_ticks(4000);
    u16 t2 = ticks();
    u32 c1 = *at(COUNTER);
    u16 t3 = ticks();
    // Femtoseconds a clock of the 8254's: 838,095,345. Both in units of about 2^20 femtoseconds.
    u32 period = *at(CAPABILITIES + 4);
    u64 gone = ((u64)(c1 - c0) * period) >> 20;
    u64 least = ((u64)((u16)(t2 - t1) - 2) * 838095345) >> 20, most = ((u64)((u16)(t3 - t0) + 2) * 838095345) >> 20;
    return gone >= least && gone <= most;
}

/// Timer 0 through pin 2 and the 8259A.
static void legacy(void) {
    pics_quiet();
    pics_init(0xFE, 0xFF);
    start();
    *at(timer(0)) = INTERRUPTS;
    *at(comparator(0)) = 20000;
    *at(comparator(0) + 4) = 0;
    *at(CONFIGURATION) = ENABLE | LEGACY;
    bool came = take_waiting() == VECTORS && *at(COUNTER) >= 20000;
    out8(MASTER, EOI);
    check(came && take() == NOTHING, SPEC "2.3.8: a timer that is not periodic interrupts once, when the counter is there");
    out8(PIT_CONTROL, 0x30);
    out8(PIT, 10);
    out8(PIT, 0);
    for (u32 i = 0; i < 1000; i++)
        out8(0x80, 0);
    check_value(take(), NOTHING, SPEC "2.3.5: with legacy replacement the 8254 interrupts no more");
    lower_line(0);
    ticks_init();
    start();
    pics_init(0xFB, 0xFE);
    *at(timer(1)) = INTERRUPTS;
    *at(comparator(1)) = 20000;
    *at(CONFIGURATION) = ENABLE | LEGACY;
    check_value(take_waiting(), SLAVE_VECTORS, SPEC "2.3.5: and timer 1 is IRQ 8");
    out8(SLAVE, EOI);
    out8(MASTER, EOI);
    start();
    pics_quiet();
    ticks_init();
}

static bool periodic(u32 unused) {
    (void)unused;
    pics_init(0xFE, 0xFF);
    start();
    *at(timer(0)) = INTERRUPTS | PERIODIC | VALUE_SET;
    *at(comparator(0)) = 30000;
    *at(comparator(0)) = 50000;
    *at(CONFIGURATION) = ENABLE | LEGACY;
    bool good = true;
    for (u32 i = 0; i < 5 && good; i++) {
        good = take_waiting() == VECTORS;
        u32 count = *at(COUNTER), next = *at(comparator(0));
        out8(MASTER, EOI);
        good &= count >= 30000 + 50000 * i && (next - 30000) % 50000 == 0 && next + 50000 > count;
    }
    start();
    pics_quiet();
    ticks_init();
    return good;
}

static u8 first_route(u32 n) {
    u32 routes = *at(timer(n) + 4);
    u8 pin = 0;
    while (pin < 23 && !(routes >> pin & 1))
        pin++;
    return pin;
}

static void routes(void) {
    apics_init();
    u32 own = *dwords(0xFEE00020) & 0xFF000000;
    begin(SPEC "2.3.8: edges through the I/O APIC, for each timer and each of its routes");
    for (u32 n = 0; n < timers(); n++)
        for (u32 pin = 0; pin < 24; pin++) {
            if (!(*at(timer(n) + 4) >> pin & 1))
                continue;
            start();
            redirect(pin, VECTOR, own);
            *at(timer(n)) = INTERRUPTS | pin << ROUTE;
            *at(comparator(n)) = 5000;
            *at(comparator(n) + 4) = 0;
            *at(CONFIGURATION) = ENABLE;
            title("timer %u, pin %u", n, pin);
            expect_value("route", *at(timer(n)) >> ROUTE & 31, pin);
            expect_value("vector", take_waiting(), VECTOR);
            apic_eoi();
            expect_value("status", *at(STATUS) >> n & 1, 0);
            redirect(pin, REDIRECT_MASKED, 0);
        }
    end();
    begin(SPEC "2.3.6: a level is there until its status bit is written with 1");
    for (u32 n = 0; n < timers(); n++) {
        u8 pin = first_route(n);
        start();
        redirect(pin, VECTOR | 1 << 15, own);
        *at(timer(n)) = INTERRUPTS | LEVEL | pin << ROUTE;
        *at(comparator(n)) = 5000;
        *at(comparator(n) + 4) = 0;
        *at(CONFIGURATION) = ENABLE;
        title("timer %u", n);
        expect_value("vector", take_waiting(), VECTOR);
        expect_value("status", *at(STATUS), 1 << n);
        *at(STATUS) = 0;
        expect_value("a 0 does nothing", *at(STATUS), 1 << n);
        apic_eoi();
        expect_value("again", take(), VECTOR);
        *at(STATUS) = 1 << n;
        apic_eoi();
        expect_value("cleared", *at(STATUS), 0);
        expect_value("gone", take(), NOTHING);
        redirect(pin, REDIRECT_MASKED, 0);
    }
    end();
}

static bool wraps_32(u32 unused) {
    (void)unused;
    u8 pin = first_route(0);
    u32 own = *dwords(0xFEE00020) & 0xFF000000;
    start();
    apics_init();
    redirect(pin, VECTOR, own);
    *at(COUNTER) = 0xFFFFF000;
    *at(timer(0)) = INTERRUPTS | MODE32 | pin << ROUTE;
    *at(comparator(0)) = 0x1000;
    *at(CONFIGURATION) = ENABLE;
    bool came = take_waiting() == VECTOR && *at(COUNTER + 4) == 1;
    apic_eoi();
    redirect(pin, REDIRECT_MASKED, 0);
    start();
    return came;
}

void chapter(void) {
    u32 caps = *at(CAPABILITIES);
    if (caps == 0xFFFFFFFF || !caps || !has_ioapic()) {
        skip("HPET 1.0a: high precision event timer", "there is none, or no local APIC");
        return;
    }
    ticks_init();
    registers();
    check_timed(rate, 0, SPEC "2.3.4: the counter counts with the period that it says");
    legacy();
    check_timed(periodic, 0, SPEC "2.3.9.2.2: periodic: the comparator goes on by what was written last, from what the value-set bit let in");
    routes();
    check_timed(wraps_32, 0, SPEC "2.3.8: a timer in 32-bit mode compares 32 bits");
    start();
}
