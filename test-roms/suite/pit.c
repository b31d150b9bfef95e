//! The 8254 interval timer (Intel 8254 data sheet, order number 231164). Counter 2, whose GATE is bit 0
//! of port 61h, is looked at; counter 0 counts clock pulses meanwhile. A read-back command latches
//! both at the same moment, so what one shows can be told from the other to the pulse.

#include "chip.h"

const char chapter_name[] = "pit";

#define SHEET "8254 data sheet, "

enum { GATE_PORT = 0x61, COUNTER = PIT + 2 };
enum { LSB = 0x10, MSB = 0x20, WORD = 0x30 };
enum { STATUS_OUT = 0x80, STATUS_NULL = 0x40 };
enum { BCD = 1 };

static void set_gate(bool high) { out8(GATE_PORT, (in8(GATE_PORT) & 0x0C) | high); }
/// A control word for counter 2; then GATE.
static void control(u8 mode, u8 rest) { out8(PIT_CONTROL, 0x80 | mode << 1 | rest); }
static void count16(u16 count) {
    out8(COUNTER, count);
    out8(COUNTER, count >> 8);
}
static u8 status(void) {
    out8(PIT_CONTROL, 0xE8);
    return in8(COUNTER);
}
static bool out(void) { return status() & STATUS_OUT; }
static u16 read16(void) {
    u8 lsb = in8(COUNTER);
    return lsb | in8(COUNTER) << 8;
}
static u16 latched(void) {
    out8(PIT_CONTROL, 0x80);
    return read16();
}
/// A trigger: GATE goes low and high.
static void trigger(void) {
    set_gate(false);
    set_gate(true);
}

static u32 from_bcd(u32 raw) {
    return (raw >> 12) * 1000 + (raw >> 8 & 15) * 100 + (raw >> 4 & 15) * 10 + (raw & 15);
}
static u32 to_bcd(u32 n) { return n / 1000 % 10 << 12 | n / 100 % 10 << 8 | n / 10 % 10 << 4 | n % 10; }

//
// Both counters at one moment
//

struct moment {
    u16 time;                   // counter 0's clocks
    u16 raw;                    // counter 2's count as it is read
    bool out;
};

static struct moment now(void) {
    struct moment m;
    out8(PIT_CONTROL, 0xCA);                    // count and status of counters 0 and 2
    in8(PIT);
    u8 lsb = in8(PIT);
    m.time = -(lsb | in8(PIT) << 8);
    m.out = in8(COUNTER) & STATUS_OUT;
    m.raw = read16();
    return m;
}

/// What a counter shows some pulses after its count was loaded.
struct view {
    u32 count;
    bool out;
};

/// The rules of the modes (data sheet, "Mode definitions").
static struct view predicted(u8 mode, u32 n, u32 modulus, u32 pulses) {
    struct view view = {0, true};
    u32 down = (n + modulus - pulses % modulus) % modulus;
    switch (mode) {
    case 0:
    case 1: return (struct view){down, pulses >= n};
    case 2:
    case 6:
        view.count = n - pulses % n;
        view.out = view.count != 1;
        view.count %= modulus;
        return view;
    case 3:
    case 7: {
        u32 high = (n + 1) / 2, at = pulses % n;
        view.out = at < high;
        view.count = ((n & ~1u) - 2 * (view.out ? at : at - high)) % modulus;
        return view;
    }
    default: return (struct view){down, pulses != n};
    }
}

/// Programs counter 2. Gives the time between the two moments in which it has begun.
static u16 begin_counting(u8 mode, u32 n, bool bcd, u16 *before) {
    bool hardware = mode == 1 || mode == 5;
    set_gate(!hardware);
    control(mode, WORD | bcd);
    *before = ticks();
    count16(bcd ? to_bcd(n) : n);
    if (hardware)
        trigger();
    return ticks() - *before;
}

/// The time at which the count was loaded, one of `span` pulses after `before`, by what is seen; and how
/// often counter 0 has gone round since, as it may if an emulator's host was elsewhere.
static bool find_load(struct moment m, u8 mode, u32 n, u32 modulus, u32 count, u16 before, u16 span, u16 *loaded,
                      u32 *rounds) {
    for (*rounds = 0; *rounds < 4; ++*rounds)
        for (u16 i = 0; i < span + 3; i++) {
            *loaded = before + i;
            struct view view = predicted(mode, n, modulus, (u16)(m.time - *loaded) + (*rounds << 16));
            if (view.count == count && view.out == m.out)
                return true;
        }
    return false;
}

/// What counter 2 is to do, and the first moment that was not as the rules say.
static struct following {
    u8 mode;
    bool bcd;
    u32 n, pulses;
    struct view seen, rule;
} following;

/// Lets counter 2 count, and holds some moments against the rules.
static bool follows(u32 unused) {
    struct following *f = &following;
    u32 modulus = f->bcd ? 10000 : 65536, step = f->n < 30000 ? f->n / 7 + 3 : 1000;
    u16 before, loaded = 0, span = begin_counting(f->mode, f->n, f->bcd, &before);
    u32 rounds = 0;
    (void)unused;
    wait_ticks(3);
    for (u32 i = 0; i < 10; i++) {
        struct moment m = now();
        f->seen = (struct view){f->bcd ? from_bcd(m.raw) : m.raw, m.out};
        u32 last = f->pulses;
        if (!i && !find_load(m, f->mode, f->n, modulus, f->seen.count, before, span, &loaded, &rounds))
            return false;
        if (i && (u16)(m.time - loaded) < (u16)last)
            rounds++;
        for (u32 more = 0;; more++) {
            f->pulses = (u16)(m.time - loaded) + ((rounds + more) << 16);
            f->rule = predicted(f->mode, f->n, modulus, f->pulses);
            if (f->seen.count == f->rule.count && f->seen.out == f->rule.out) {
                rounds += more;
                break;
            }
            if (more == 3)
                return false;
        }
        wait_ticks(step);
    }
    return true;
}

static void follow(u8 mode, u32 n, bool bcd) {
    following = (struct following){.mode = mode, .bcd = bcd, .n = n};
    if (!expect_timed(follows, 0))
        note("mode %u, count %u, BCD %u: %u pulses after it was loaded, count %u, OUT %u, not %u, %u", mode, n, bcd,
             following.pulses, following.seen.count, following.seen.out, following.rule.count, following.rule.out);
}

static void modes(void) {
    static const char *const texts[] = {
        SHEET "\"Mode 0\": OUT is low until the count is zero, and high from then on; the count goes on",
        SHEET "\"Mode 1\": a trigger loads the count; OUT is low for so many pulses",
        SHEET "\"Mode 2\": the count goes from n to 1, again and again; OUT is low while it is 1",
        SHEET "\"Mode 3\": the count goes down by two; OUT is high for half of the count, and one more if it is odd",
        SHEET "\"Mode 4\": OUT is low for one pulse when the count is zero; the count goes on",
        SHEET "\"Mode 5\": a trigger loads the count; OUT is low for one pulse when it is zero",
    };
    static const u16 counts[] = {2, 3, 100, 257, 1193, 4095, 9999};
    for (u32 mode = 0; mode < 6; mode++) {
        begin(texts[mode]);
        for (u32 i = 0; i < COUNT(counts); i++) {
            follow(mode, counts[i], false);
            follow(mode, counts[i], true);
        }
        end();
    }
    begin(SHEET "\"Minimum and maximum initial counts\": 0 is 65,536, or 10,000 in BCD");
    for (u32 mode = 0; mode < 6; mode++) {
        follow(mode, 65536, false);
        follow(mode, 10000, true);
    }
    end();
    begin(SHEET "\"Control word format\": modes 2 and 3 do not care for M2");
    follow(6, 1000, false);
    follow(7, 1000, false);
    end();
}

//
// Control words, status, latches
//

static bool null_in_mode_1(u32 unused) {
    (void)unused;
    set_gate(false);
    control(1, WORD);
    count16(1000);
    wait_ticks(5);
    bool before = status() & STATUS_NULL;
    set_gate(true);
    wait_ticks(5);
    bool loaded = !(status() & STATUS_NULL);
    count16(500);
    wait_ticks(5);
    return before && loaded && status() & STATUS_NULL;
}

static bool null_in_mode_2(u32 unused) {
    (void)unused;
    set_gate(true);
    control(2, WORD);
    count16(4000);
    wait_ticks(5);
    bool loaded = !(status() & STATUS_NULL);
    count16(100);
    bool null = status() & STATUS_NULL;
    wait_ticks(4100);
    return loaded && null && !(status() & STATUS_NULL);
}

static void statuses(void) {
    begin(SHEET "\"Read-back command\": D5 to D0 of the status are those of the control word; the null count "
                "flag is set by it, and OUT is low in mode 0 and else high");
    set_gate(false);
    for (u32 word = LSB; word < 0x40; word++) {
        if ((word >> 1 & 7) > 5)
            continue;
        out8(PIT_CONTROL, 0x80 | word);
        title("control word %x", 0x80 | word);
        expect_value("status", status(), word | STATUS_NULL | (word & 0x0E ? STATUS_OUT : 0));
    }
    end();

    check_timed(null_in_mode_1, 0,
                SHEET "\"Read-back command\": the null count flag says that the count was not loaded yet; mode 1 loads "
                      "at a trigger");
    check_timed(null_in_mode_2, 0, SHEET "\"Read-back command\": in mode 2 a new count is loaded at the end of the cycle");
}

static bool held(u32 unused) {
    (void)unused;
    set_gate(true);
    control(2, WORD);
    count16(60000);
    wait_ticks(5);
    out8(PIT_CONTROL, 0x80);
    wait_ticks(1000);
    out8(PIT_CONTROL, 0x80);
    u16 old = read16(), new = latched();
    return (u16)(old - new) >= 1000 && old > 59000;
}

static bool dropped(u32 unused) {
    (void)unused;
    out8(PIT_CONTROL, 0x80);
    wait_ticks(1000);
    control(2, WORD);
    count16(30000);
    wait_ticks(20);
    u16 live = read16();
    return live > 29000 && live <= 30000;
}

static bool interleaved_counters(u32 unused) {
    (void)unused;
    control(2, WORD);
    count16(60000);
    wait_ticks(5);
    out8(PIT_CONTROL, 0x80);
    u8 lsb = in8(COUNTER);
    in8(PIT);
    u8 msb = in8(COUNTER);
    in8(PIT);
    u16 later = latched();
    return (u16)((lsb | msb << 8) - later) < 2000;
}

static bool status_then_count(u32 unused) {
    (void)unused;
    control(0, WORD);
    count16(2000);
    wait_ticks(5);
    out8(PIT_CONTROL, 0xC8);                    // count and status of counter 2
    wait_ticks(2100);
    out8(PIT_CONTROL, 0xC8);
    u8 first = in8(COUNTER);
    u16 count = read16();
    return !(first & STATUS_OUT) && count <= 2000 && count > 0 && status() & STATUS_OUT;
}

static bool nothing_named(u32 unused) {
    (void)unused;
    control(0, WORD);
    count16(60000);
    wait_ticks(5);
    out8(PIT_CONTROL, 0xE0);                    // status of none
    out8(PIT_CONTROL, 0xF8);                    // neither count nor status
    wait_ticks(1000);
    u16 two = read16(), three = latched();
    return two < 59100 && (u16)(two - three) < 2000;
}

static void latches(void) {
    check_timed(held, 0, SHEET "\"Counter latch command\": a count stays latched until it is read; a second command is ignored");
    check_timed(dropped, 0, SHEET "\"Counter latch command\": programming the counter takes back what was latched");
    check_timed(interleaved_counters, 0, SHEET "\"Counter latch command\": other counters may be read between the two bytes");
    check_timed(status_then_count, 0,
                SHEET "\"Read-back command\": status comes first, then the count; a second latch of either is ignored");
    check_timed(nothing_named, 0, SHEET "\"Read-back command\": it latches what it names, nothing else");
}

static void bytes_of_counts(void) {
    set_gate(false);                            // it loads, and stands
    begin(SHEET "\"Write operations\": a counter takes the least significant byte, the most significant byte, or both");
    control(0, LSB);
    out8(COUNTER, 0x34);
    wait_ticks(3);
    title("LSB only");
    expect_value("first read", in8(COUNTER), 0x34);
    expect_value("second read", in8(COUNTER), 0x34);
    control(0, MSB);
    out8(COUNTER, 0x12);
    wait_ticks(3);
    title("MSB only");
    expect_value("first read", in8(COUNTER), 0x12);
    expect_value("second read", in8(COUNTER), 0x12);
    out8(PIT_CONTROL, 0xD8);                    // count of counter 2
    expect_value("latched", in8(COUNTER), 0x12);
    control(0, WORD);
    count16(0x1234);
    wait_ticks(3);
    title("both");
    expect_value("first read", in8(COUNTER), 0x34);
    expect_value("second read", in8(COUNTER), 0x12);
    end();

    control(0, WORD);
    count16(0x1234);
    wait_ticks(3);
    u8 lsb = in8(COUNTER);
    out8(COUNTER, 0x78);
    u8 msb = in8(COUNTER);
    out8(COUNTER, 0x56);
    wait_ticks(3);
    check(lsb == 0x34 && msb == 0x12 && read16() == 0x5678,
          SHEET "\"Read operations\": reads and writes of the bytes of a counter may be interleaved");
}

//
// GATE, new counts
//

/// GATE low stops counting without an effect on OUT; GATE high lets it go on from there.
static bool stops(u32 mode) {
    set_gate(true);
    control(mode, WORD);
    count16(50000);
    wait_ticks(50);
    set_gate(false);
    u16 first = latched();
    bool level = out();
    wait_ticks(100);
    u16 second = latched();
    bool same = first == second && out() == level && first < 50000;
    u16 time = ticks();
    set_gate(true);
    wait_ticks(50);
    u16 third = latched(), gone = ticks() - time;
    return same && second - third >= 49 && second - third <= gone;
}

static bool loads_without_gate(u32 unused) {
    (void)unused;
    set_gate(false);
    control(0, WORD);
    count16(500);
    wait_ticks(50);
    bool waits = latched() == 500 && !out();
    set_gate(true);
    wait_ticks(600);
    return waits && out();
}

static bool reloads(u32 mode) {
    set_gate(true);
    control(mode, WORD);
    count16(10000);
    // In mode 3 the low half.
    while (mode == 3 && out()) {
    }
    wait_ticks(50);
    set_gate(false);
    u16 first = latched();
    wait_ticks(100);
    bool stands = out() && latched() == first && first < 10000;
    u16 time = ticks();
    set_gate(true);
    wait_ticks(50);
    u32 gone_down = 10000 - latched(), gone = (u16)(ticks() - time);
    return stands && out() && gone_down <= gone * (mode - 1) && gone_down >= 49 * (mode - 1);
}

static bool retriggers(u32 mode) {
    set_gate(false);
    control(mode, WORD);
    count16(3000);
    wait_ticks(10);
    bool before = out();
    set_gate(true);
    wait_ticks(5);
    set_gate(false);
    u16 first = latched();
    wait_ticks(500);
    u16 second = latched();
    bool counts = first - second >= 499 && second < first, during = out();
    u16 time = ticks();
    set_gate(true);
    wait_ticks(20);
    u16 third = latched(), gone = ticks() - time;
    return before && counts && during == (mode == 5) && third > second && 3000 - third <= gone;
}

static void gates(void) {
    check_timed(stops, 0, SHEET "\"Mode 0\": GATE = 0 disables counting, GATE = 1 enables it, without an effect on OUT");
    check_timed(loads_without_gate, 0, SHEET "\"Mode 0\": a count written while GATE is 0 is loaded, and counts when GATE is 1");
    check_timed(retriggers, 1, SHEET "\"Mode 1\": GATE may fall, a trigger begins the count anew");
    check_timed(reloads, 2, SHEET "\"Mode 2\": GATE = 0 sets OUT high and disables counting; a trigger loads the count anew");
    check_timed(reloads, 3, SHEET "\"Mode 3\": GATE = 0 sets OUT high and disables counting; a trigger loads the count anew");
    check_timed(stops, 4, SHEET "\"Mode 4\": GATE = 0 disables counting, GATE = 1 enables it, without an effect on OUT");
    check_timed(retriggers, 5, SHEET "\"Mode 5\": GATE may fall, a trigger begins the count anew");
}

static bool two_bytes_in_mode_0(u32 unused) {
    (void)unused;
    set_gate(true);
    control(0, WORD);
    count16(100);
    wait_ticks(200);
    bool high = out();
    out8(COUNTER, 0x88);
    bool low_at_once = !out();
    u16 first = latched();
    wait_ticks(100);
    bool stands = latched() == first;
    u16 time = ticks();
    out8(COUNTER, 0x13);
    wait_ticks(20);
    u16 count = latched(), gone = ticks() - time;
    return high && low_at_once && stands && 0x1388 - count >= 15 && 0x1388 - count <= gone && !out();
}

static bool next_one_shot(u32 unused) {
    (void)unused;
    set_gate(false);
    control(1, WORD);
    count16(30000);
    set_gate(true);
    wait_ticks(10);
    count16(200);
    wait_ticks(300);
    u16 count = latched();
    bool goes_on = count < 30000 && count > 1000 && !out();
    trigger();
    wait_ticks(5);
    count = latched();
    return goes_on && count < 200;
}

/// In modes 2 and 3 the old count goes on until the end of the cycle, or half of it.
static bool next_cycle(u32 mode) {
    set_gate(true);
    control(mode, WORD);
    count16(8000);
    wait_ticks(10);
    count16(200);
    wait_ticks(20);
    u16 count = latched();
    bool old = count > 200 && count < 8000;
    wait_ticks(mode == 3 ? 4000 : 8000);
    u16 most = 0;
    for (u32 i = 0; i < 100; i++) {
        u16 sample = latched();
        if (sample > most)
            most = sample;
        wait_ticks(3);
    }
    return old && most <= 200 && most >= 150;
}

static bool two_bytes_in_mode_4(u32 unused) {
    (void)unused;
    set_gate(true);
    control(4, WORD);
    count16(30000);
    wait_ticks(10);
    out8(COUNTER, 0x10);
    wait_ticks(50);
    u16 count = latched();
    bool unaffected = count < 30000 && count > 0x2710;
    out8(COUNTER, 0x27);
    wait_ticks(10);
    count = latched();
    return unaffected && count <= 0x2710 && count > 0x1000;
}

static bool control_word_resets(u32 unused) {
    (void)unused;
    control(0, WORD);
    count16(5000);
    wait_ticks(50);
    bool low = !out();
    control(4, LSB);
    return low && status() == (STATUS_OUT | STATUS_NULL | LSB | 4 << 1);
}

static void new_counts(void) {
    check_timed(two_bytes_in_mode_0, 0,
                SHEET "\"Mode 0\": the first byte of a new count disables counting and sets OUT low, the second one loads it");
    check_timed(next_one_shot, 0, SHEET "\"Mode 1\": a new count does not affect the current one-shot, but the next");
    check_timed(next_cycle, 2, SHEET "\"Mode 2\": a new count does not affect the current cycle; it is loaded at its end");
    check_timed(next_cycle, 3, SHEET "\"Mode 3\": a new count is loaded at the end of the current half-cycle");
    check_timed(two_bytes_in_mode_4, 0,
                SHEET "\"Mode 4\": the first byte of a new count has no effect, the second loads it with the next pulse");
    check_timed(control_word_resets, 0,
                SHEET "\"Mode definitions\": a control word resets the control logic at once; OUT goes to its initial state");
}

//
// Wires of a PC
//

static void wires(void) {
    set_gate(true);
    begin("IBM PC AT technical reference, port 61h: bit 5 is OUT of counter 2, bit 0 its GATE");
    for (u32 i = 0; i < 4; i++) {
        control(0, WORD);
        count16(20000);
        title("round %u", i);
        expect_value("before", in8(GATE_PORT) >> 5 & 1, 0);
        control(0, WORD);
        count16(5);
        wait_ticks(10);
        expect_value("after", in8(GATE_PORT) >> 5 & 1, 1);
        expect_value("GATE", in8(GATE_PORT) & 1, 1);
    }
    end();

    // Counter 0 makes interrupts.
    pics_init(0xFE, 0xFF);
    lower_line(0);
    bool quiet = take() == NOTHING;
    out8(PIT_CONTROL, 0x30);
    out8(PIT, 0xE8);
    out8(PIT, 3);
    bool came = take_waiting() == VECTORS;
    out8(MASTER, EOI);
    check(quiet && came && take() == NOTHING, "82371SB data sheet, \"Interval timer\": OUT of counter 0 is IRQ 0, once in mode 0");
    begin("82371SB data sheet, \"Interval timer\": and again and again in modes 2 and 3");
    for (u32 mode = 2; mode < 4; mode++) {
        out8(PIT_CONTROL, WORD | mode << 1);
        out8(PIT, 0xE8);
        out8(PIT, 3);
        for (u32 i = 0; i < 20; i++) {
            title("mode %u", mode);
            expect_value("vector", take_waiting(), VECTORS);
            out8(MASTER, EOI);
        }
    }
    end();
    pics_quiet();
}

void chapter(void) {
    ticks_init();
    statuses();
    latches();
    bytes_of_counts();
    gates();
    new_counts();
    modes();
    wires();
    set_gate(false);
}
