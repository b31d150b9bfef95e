//! Power management and SMBus of the PIIX4 (Intel 82371AB data sheet, order number 290562; ACPI 1.0 chapter
//! 4).

#include "chip.h"

const char chapter_name[] = "acpi";

#define SHEET "82371AB data sheet "

enum { FUNCTION = 3, BASE = 0xB300, SMBUS = 0xB080 };
enum { PMSTS = 0, PMEN = 2, PMCNTRL = 4, PMTMR = 8, GPSTS = 0x0C, GPEN = 0x0E, GLBCTL = 0x28 };
enum { TMROF = 1, BM_STS = 1 << 4, GBL = 1 << 5, PWRBTN = 1 << 8, RTC = 1 << 10, RESUME = 1 << 15 };
enum { SCI_EN = 1 };
enum { BIOS_RLS = 2 };
enum { SCI_VECTOR = SLAVE_VECTORS + 1 };

static u32 function;
static u32 get(u32 offset) {
    out32(0xCF8, function | (offset & 0xFC));
    return in32(0xCFC);
}
static void set(u32 offset, u32 value) {
    out32(0xCF8, function | (offset & 0xFC));
    out32(0xCFC, value);
}
static u8 get8(u32 offset) { return get(offset) >> 8 * (offset & 3); }
static void set8(u32 offset, u8 value) {
    out32(0xCF8, function | (offset & 0xFC));
    out8(0xCFC + (offset & 3), value);
}

/// The power management function: wherever it is on the bus.
static bool find(void) {
    for (u32 device = 0; device < 256; device++) {
        function = 1u << 31 | device << 8;
        if (get(0) == 0x71138086)
            return true;
    }
    return false;
}

static void configuration(void) {
    check(get(8) >> 8 == 0x068000, SHEET "7.1.6: class 06h, subclass 80h: another bridge");
    set(0x40, 0xFFFFFFFF);
    check_value(get(0x40), 0xFFC1, SHEET "7.1.13: PMBA: bits 15 to 6 are the base, bit 0 says I/O space");
    set(0x40, BASE);
    set8(0x80, 0);
    bool off = in32(BASE + PMTMR) == 0xFFFFFFFF;
    set8(0x80, 1);
    check(off && in32(BASE + PMTMR) != 0xFFFFFFFF, SHEET "7.1.26: PMREGMISC: bit 0 switches the registers on");
    u16 other = 0xB240;
    set(0x40, other);
    bool moved = in32(other + PMTMR) != 0xFFFFFFFF && in32(BASE + PMTMR) == 0xFFFFFFFF;
    set(0x40, BASE);
    check(moved && in32(BASE + PMTMR) != 0xFFFFFFFF, SHEET "7.1.13: the registers are where PMBA says");
}

/// The timer has exactly three times the rate of the 8254.
static bool rate(u32 unused) {
    (void)unused;
    u16 t0 = ticks();
    u32 c0 = in32(BASE + PMTMR);
    u16 t1 = ticks();
    wait_ticks(4000);
    u16 t2 = ticks();
    u32 c1 = in32(BASE + PMTMR);
    u16 t3 = ticks();
    u32 gone = (c1 - c0) & 0xFFFFFF;
    return gone + 6 >= 3 * (u32)(u16)(t2 - t1) && gone <= 3 * (u32)(u16)(t3 - t0) + 6;
}

static void registers(void) {
    check_timed(rate, 0, SHEET "7.2.4, ACPI 4.7.3.3: the timer counts 3.579545 MHz");
    check_value(in32(BASE + PMTMR) >> 24, 0, SHEET "7.2.4: it has 24 bits");
    begin(SHEET "7.2.2: PMEN holds its four bits");
    static const u16 enables[] = {0, TMROF, GBL, PWRBTN, RTC, TMROF | GBL | PWRBTN | RTC};
    for (u32 i = 0; i < COUNT(enables); i++) {
        out16(BASE + PMEN, enables[i]);
        expect_value("PMEN", in16(BASE + PMEN), enables[i]);
    }
    out16(BASE + PMEN, 0);
    end();
    out16(BASE + PMCNTRL, SCI_EN);
    bool on = in16(BASE + PMCNTRL) & SCI_EN;
    out16(BASE + PMCNTRL, 0);
    check(on && !(in16(BASE + PMCNTRL) & SCI_EN), SHEET "7.2.3: PMCNTRL: SCI_EN");
    out16(BASE + PMCNTRL, 5 << 10);
    bool kept = (in16(BASE + PMCNTRL) >> 10 & 7) == 5;
    out16(BASE + PMCNTRL, 5 << 10 | 1 << 2);
    check(kept && !(in16(BASE + PMCNTRL) & 1 << 13), SHEET "7.2.3: PMCNTRL: the type of suspend is kept, the enable bit is write-only");
    out16(BASE + PMCNTRL, 0);
    begin(SHEET "7.2.5, 7.2.6: GPSTS has nothing to tell, GPEN holds its bits");
    static const u16 events[] = {0, 1 << 0, 1 << 8, 1 << 9, 1 << 10};
    for (u32 i = 0; i < COUNT(events); i++) {
        out16(BASE + GPEN, events[i]);
        expect_value("GPEN", in16(BASE + GPEN) & 0x0F01, events[i]);
    }
    out16(BASE + GPEN, 0);
    out16(BASE + GPSTS, 0xFFFF);
    expect_value("GPSTS", in16(BASE + GPSTS), 0);
    end();
    out16(BASE + PMSTS, 0xFFFF);
    check_value(in16(BASE + PMSTS) & ~(TMROF | BM_STS), 0, SHEET "7.2.1: PMSTS: bits are cleared by writing 1");
}

static void sci(void) {
    out16(BASE + PMSTS, 0xFFFF);
    out32(BASE + GLBCTL, BIOS_RLS);
    check(in16(BASE + PMSTS) & GBL, SHEET "7.2.10: GLBCTL: BIOS_RLS sets GBL_STS");
    pics_init(0xFB, 0xFD);
    out8(ELCR + 1, 2);
    bool without = take() == NOTHING;
    out16(BASE + PMEN, GBL);
    bool off = take() == NOTHING;
    out16(BASE + PMCNTRL, SCI_EN);
    bool came = take() == SCI_VECTOR;
    out8(SLAVE, EOI);
    out8(MASTER, EOI);
    bool stays = take() == SCI_VECTOR;
    out16(BASE + PMSTS, GBL);
    out8(SLAVE, EOI);
    out8(MASTER, EOI);
    check(without && off && came, SHEET "7.2.2, 7.2.3: an event interrupts by IRQ 9 if it is enabled, and SCI_EN is set");
    check(stays && take() == NOTHING, SHEET "7.2.1: until its status bit is cleared");
    out16(BASE + PMEN, 0);
    out16(BASE + PMCNTRL, 0);
    out8(ELCR + 1, 0);
    pics_quiet();
}

//
// SMBus
//

enum { HSTSTS = 0, HSTCNT = 2, HSTCMD = 3, HSTADD = 4, DAT0 = 5, DAT1 = 6 };
enum { BUSY = 1, INTR = 2, DEV_ERR = 4, BUS_ERR = 8, FAILED = 16, START = 0x40 };
enum { QUICK = 0 << 2, BYTE = 1 << 2, BYTE_DATA = 2 << 2, WORD_DATA = 3 << 2 };
enum { READ = 1, SPD = 0x50, NOBODY = 0x2B };

static u8 transact(u8 protocol, u8 address, u8 read, u8 command) {
    out8(SMBUS + HSTSTS, 0x1E);
    out8(SMBUS + HSTADD, address << 1 | read);
    out8(SMBUS + HSTCMD, command);
    out8(SMBUS + HSTCNT, protocol | START);
    for (u32 i = 0; i < 20000; i++) {
        u8 status = in8(SMBUS + HSTSTS);
        if (!(status & BUSY) && status & 0x1E)
            return status;
        out8(0x80, 0);
    }
    return 0xFF;
}

static void smbus(void) {
    set(0x90, SMBUS);
    set8(0xD2, get8(0xD2) | 1);
    set(4, (get(4) & 0xFFFF) | 1);
    check_value(get(0x90) & 0xFFFF, SMBUS | 1, SHEET "7.1.27: SMBBA: the base, bit 0 says I/O space");
    if (in8(SMBUS + HSTSTS) == 0xFF) {
        skip(SHEET "7.3: SMBus", "there is none");
        return;
    }
    begin(SHEET "7.3.4 to 7.3.7: command, address and data registers hold what was written");
    static const u8 offsets[] = {HSTCMD, HSTADD, DAT0, DAT1};
    for (u32 i = 0; i < COUNT(offsets); i++)
        for (u32 value = 0; value < 256; value += 51) {
            out8(SMBUS + offsets[i], value);
            title("register %x", offsets[i]);
            expect_value("value", in8(SMBUS + offsets[i]), value);
        }
    end();
    u8 status = transact(QUICK, NOBODY, 0, 0);
    check((status & (BUSY | DEV_ERR)) == DEV_ERR, SHEET "7.3.1: DEV_ERR: nobody has acknowledged the address");
    out8(SMBUS + HSTSTS, 0);
    bool stays = in8(SMBUS + HSTSTS) & DEV_ERR;
    out8(SMBUS + HSTSTS, DEV_ERR);
    check(stays && !(in8(SMBUS + HSTSTS) & DEV_ERR), SHEET "7.3.1: a status bit is cleared by writing 1");
    status = transact(BYTE_DATA, SPD, READ, 0);
    if (status & DEV_ERR) {
        skip("SPD: JEDEC 21-C 4.1.2: the first memory module at 50h", "there is none");
        return;
    }
    u8 used = in8(SMBUS + DAT0);
    check(status & INTR && used == 0x80, SHEET "7.3.1: INTR: done; JEDEC 21-C 4.1.2: SPD byte 0: 128 bytes used");
    u8 sum = 0, first[4] = {0};
    for (u32 i = 0; i < 63; i++) {
        transact(BYTE_DATA, SPD, READ, i);
        u8 byte = in8(SMBUS + DAT0);
        sum += byte;
        if (i < 4)
            first[i] = byte;
    }
    transact(BYTE_DATA, SPD, READ, 63);
    check_value(in8(SMBUS + DAT0), sum, "JEDEC 21-C 4.1.2: SPD byte 63 is the sum of those before");
    transact(WORD_DATA, SPD, READ, 2);
    check(in8(SMBUS + DAT0) == first[2] && in8(SMBUS + DAT1) == first[3], SHEET "7.3.6, 7.3.7: a word is data 0, then data 1");
}

void chapter(void) {
    out32(0xCF8, 0x80FFFFFC);
    if (in32(0xCF8) != 0x80FFFFFC || !find()) {
        skip(SHEET "power management", "there is none");
        return;
    }
    ticks_init();
    configuration();
    registers();
    sci();
    smbus();
}
