//! The real-time clock (Motorola MC146818 data sheet) with the century byte of a PC.

#include "chip.h"

const char chapter_name[] = "rtc";

#define SHEET "MC146818 data sheet, "

enum { SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM, WEEKDAY, DAY, MONTH, YEAR, REG_A, REG_B, REG_C, REG_D,
       CENTURY = 0x32 };
enum { UIP = 0x80, DV_RUN = 0x20, DV_RESET = 0x60 };
enum { SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 0x04, HOURS_24 = 0x02 };
enum { IRQF = 0x80, PERIODIC_FLAG = 0x40, AF = 0x20, UF = 0x10 };
enum { DONT_CARE = 0xC0, PM = 0x80 };

static void quiet(void) {
    cmos_set(REG_B, HOURS_24);
    cmos_set(REG_A, DV_RUN | 6);
    cmos(REG_C);
}

static void registers(void) {
    quiet();
    begin(SHEET "\"Register B\": all bits can be written and read");
    for (u32 value = 0; value < 128; value += 3) {
        cmos_set(REG_B, value);
        expect_value("B", cmos(REG_B), value);
    }
    end();
    cmos_set(REG_B, UIE | AIE | HOURS_24);
    cmos_set(REG_B, SET | UIE | AIE | HOURS_24);
    check_value(cmos(REG_B), SET | AIE | HOURS_24, SHEET "\"Register B\": SET going high clears UIE");
    cmos(REG_C);
    cmos_set(REG_B, HOURS_24);
    begin(SHEET "\"Register A\": all bits but UIP can be written and read");
    for (u32 rate = 0; rate < 16; rate++) {
        cmos_set(REG_A, UIP | DV_RUN | rate);
        expect_value("A", cmos(REG_A) & ~UIP, DV_RUN | rate);
    }
    end();
    quiet();
    cmos_set(REG_A, DV_RUN);                        // no periodic flag
    cmos(REG_C);
    cmos_set(REG_C, 0xFF);
    check_value(cmos(REG_C) & 0x0F, 0, SHEET "\"Register C\": bits 3 to 0 are 0, and it is read-only");
    check_value(cmos(REG_D), 0x80, SHEET "\"Register D\": VRT is set, the others are 0");
    cmos_set(REG_D, 0);
    check_value(cmos(REG_D), 0x80, SHEET "\"Register D\": it is read-only");
    begin(SHEET "\"RAM\": general-purpose bytes hold what was written");
    for (u32 i = 0x0E; i < 0x80; i++) {
        if (i == CENTURY)
            continue;
        u8 old = cmos(i);
        title("byte %x", i);
        cmos_set(i, i ^ 0xA5);
        expect_value("value", cmos(i), i ^ 0xA5);
        cmos_set(i, old);
    }
    end();
    cmos_set(0x7F, 0x5A);
    check_value(cmos(0x80 | 0x7F), 0x5A, "82371SB data sheet, port 70h: bit 7 masks NMI, and is no part of the address");
    cmos_set(REG_B, SET | HOURS_24);
    begin(SHEET "\"Time, calendar and alarm locations\": with SET they hold what was written");
    static const u8 values[] = {0x59, 0x58, 0x47, 0x46, 0x13, 0x12, 0x07, 0x31, 0x10, 0x87};
    for (u32 i = 0; i <= YEAR; i++)
        cmos_set(i, values[i]);
    for (u32 i = 0; i <= YEAR; i++)
        expect_value("byte", cmos(i), values[i]);
    expect_value("UIP", cmos(REG_A) & UIP, 0);
    end();
}

//
// The periodic interrupt
//

/// The times between which each of two periodic flags came, some periods apart.
static bool rate_once(u32 select) {
    enum { PERIODS = 2 };
    quiet();
    cmos_set(REG_A, DV_RUN | select);
    cmos(REG_C);
    u16 before = ticks(), first_before = 0, first_after = 0, last_before = 0, last_after = 0;
    for (u32 seen = 0, passed = 0; seen <= PERIODS;) {
        u8 c = cmos(REG_C);
        u16 after = ticks();
        if (c & PERIODIC_FLAG) {
            if (!seen)
                first_before = before, first_after = after;
            last_before = before;
            last_after = after;
            seen++;
        }
        passed += (u16)(after - before);
        before = after;
        if (passed > 24000)
            return false;
    }
    // 2^(select - 1) cycles of 32,768 Hz: 36.4133 clocks of the 8254's each. A flag that was not read in
    // time is one with the next: then it is more periods, if it is known exactly enough.
    u32 least = (u16)(last_before - first_after), most = (u16)(last_after - first_before);
    u32 thousandths = (1 << (select - 1)) * 36413;
    if (most - least > thousandths / 3000)
        return false;
    for (u32 periods = PERIODS; periods < 6 * PERIODS; periods++) {
        u32 expected = periods * (thousandths / 100) / 10, slack = expected / 500 + 3;
        if (least <= expected + slack && most + slack >= expected)
            return true;
    }
    return false;
}

static bool rate(u32 select) {
    for (u32 i = 0; i < 8; i++)
        if (rate_once(select))
            return true;
    return false;
}

static void periodic(void) {
    begin(SHEET "table 5: periodic rates, from 122 microseconds to 3.9 milliseconds: select 3 to 8");
    for (u32 select = 3; select < 9; select++) {
        title("select %u", select);
        expect_timed(rate, select);
    }
    end();
    quiet();
    cmos_set(REG_A, DV_RUN);
    cmos(REG_C);
    wait_ticks(2000);
    check_value(cmos(REG_C), 0, SHEET "table 5: select 0 is none");

    quiet();
    cmos_set(REG_A, DV_RUN | 3);
    wait_ticks(500);
    u8 flags = cmos(REG_C);
    check((flags & (PERIODIC_FLAG | IRQF)) == PERIODIC_FLAG, SHEET "\"Register C\": PF is set without PIE; IRQF needs both");
    cmos_set(REG_B, HOURS_24 | PIE);
    wait_ticks(500);
    flags = cmos(REG_C);
    check((flags & (PERIODIC_FLAG | IRQF)) == (PERIODIC_FLAG | IRQF), SHEET "\"Register C\": IRQF is set if a flag and its enable are");
    cmos_set(REG_A, DV_RUN);
    cmos(REG_C);
    check_value(cmos(REG_C), 0, SHEET "\"Register C\": reading it clears all flags");

    pics_init(0xFB, 0xFE);
    cmos_set(REG_A, DV_RUN | 3);
    bool came = take_waiting() == SLAVE_VECTORS;
    out8(SLAVE, EOI);
    out8(MASTER, EOI);
    wait_ticks(500);
    bool stays = take() == NOTHING;
    cmos(REG_C);
    bool again = take_waiting() == SLAVE_VECTORS;
    check(came && stays && again, SHEET "\"Interrupts\": IRQ is asserted until register C is read");
    pics_quiet();
    quiet();
}

//
// Update cycles. The first comes half a second after the divider was released.
//

struct moment {
    u8 seconds, minutes, hours, weekday, day, month, year, century;
};

static void set_time(const struct moment *m, u8 mode) {
    cmos_set(REG_B, SET | mode);
    cmos_set(REG_A, DV_RESET);
    cmos_set(SECONDS, m->seconds);
    cmos_set(MINUTES, m->minutes);
    cmos_set(HOURS, m->hours);
    cmos_set(WEEKDAY, m->weekday);
    cmos_set(DAY, m->day);
    cmos_set(MONTH, m->month);
    cmos_set(YEAR, m->year);
    cmos_set(CENTURY, m->century);
    cmos(REG_C);
}

static void expect_time(const struct moment *m) {
    expect_value("seconds", cmos(SECONDS), m->seconds);
    expect_value("minutes", cmos(MINUTES), m->minutes);
    expect_value("hours", cmos(HOURS), m->hours);
    expect_value("day of the week", cmos(WEEKDAY), m->weekday);
    expect_value("day", cmos(DAY), m->day);
    expect_value("month", cmos(MONTH), m->month);
    expect_value("year", cmos(YEAR), m->year);
    expect_value("century", cmos(CENTURY), m->century);
}

/// Lets one update happen. Gives register C after it.
static u8 update(u8 mode) {
    pics_init(0xFB, 0xFE);
    cmos_set(REG_B, mode | UIE);
    cmos_set(REG_A, DV_RUN);
    u32 vector = take_waiting();
    out8(SLAVE, EOI);
    out8(MASTER, EOI);
    u8 flags = vector == SLAVE_VECTORS ? cmos(REG_C) : 0;
    cmos_set(REG_B, SET | mode);
    pics_quiet();
    cmos_set(REG_B, SET | mode);
    return flags;
}

static void updates(void) {
    static const struct moment last = {0x59, 0x59, 0x23, 0x06, 0x31, 0x12, 0x99, 0x19};
    static const struct moment first = {0x00, 0x00, 0x00, 0x07, 0x01, 0x01, 0x00, 0x20};
    set_time(&last, HOURS_24);
    cmos_set(SECONDS_ALARM, 0);
    cmos_set(MINUTES_ALARM, DONT_CARE);
    cmos_set(HOURS_ALARM, 0xFF);
    u8 flags = update(HOURS_24);
    begin(SHEET "\"Update cycle\": 1999-12-31 23:59:59 is followed by 2000-01-01 00:00:00, in BCD and 24 hours");
    expect_time(&first);
    end();
    check((flags & (IRQF | UF)) == (IRQF | UF), SHEET "\"Update cycle\": UF at its end, and IRQF with UIE");
    check(flags & AF, SHEET "\"Alarm\": AF when all three match; C0h to FFh match anything");

    static const struct moment before = {59, 59, 11 | PM, 4, 28, 2, 24, 20};
    static const struct moment after = {0, 0, 12, 5, 29, 2, 24, 20};
    set_time(&before, BINARY);
    cmos_set(SECONDS_ALARM, 0);
    cmos_set(MINUTES_ALARM, 1);
    cmos_set(HOURS_ALARM, 12);
    flags = update(BINARY);
    begin(SHEET "\"Update cycle\": 28 February of a leap year, 11:59:59 pm, is followed by the 29th, 12 am, in binary and 12 hours");
    expect_time(&after);
    end();
    check(flags & UF && !(flags & AF), SHEET "\"Alarm\": and not when one does not match");
    wait_ticks(100);
    check_value(cmos(REG_C) & UF, 0, SHEET "\"Register B\": with SET there are no updates");
}

void chapter(void) {
    ticks_init();
    registers();
    periodic();
    updates();
    quiet();
}
