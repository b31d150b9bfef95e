//! PCI configuration space and the host bridge (PCI Local Bus specification 2.1; Intel 82441FX data sheet,
//! order number 290549; 82371SB, 290550).

#include "chip.h"

const char chapter_name[] = "pci";

#define PCI "PCI 2.1 "
#define PMC "82441FX data sheet "
#define PIIX3 "82371SB data sheet "

enum { ADDRESS = 0xCF8, DATA_PORT = 0xCFC, ENABLE = 1u << 31, TRC = 0xCF9 };
enum { VENDOR = 0, COMMAND = 4, STATUS = 6, CLASS = 8, HEADER = 0x0E, BAR = 0x10 };
enum { PAM = 0x59, SMRAM = 0x72 };
enum { D_OPEN = 0x40, D_CLS = 0x20, D_LCK = 0x10, G_SMRAME = 0x08, C_BASE = 2 };

static u32 device(u32 bus, u32 slot, u32 function) { return bus << 16 | slot << 11 | function << 8; }
static u32 get(u32 device, u32 offset) {
    out32(ADDRESS, ENABLE | device | (offset & 0xFC));
    return in32(DATA_PORT);
}
static u8 get8(u32 device, u32 offset) {
    out32(ADDRESS, ENABLE | device | (offset & 0xFC));
    return in8(DATA_PORT + (offset & 3));
}
static void set(u32 device, u32 offset, u32 value) {
    out32(ADDRESS, ENABLE | device | (offset & 0xFC));
    out32(DATA_PORT, value);
}
static void set8(u32 device, u32 offset, u8 value) {
    out32(ADDRESS, ENABLE | device | (offset & 0xFC));
    out8(DATA_PORT + (offset & 3), value);
}

static u32 host, isa;
static bool is_there(u32 device) { return (get(device, VENDOR) & 0xFFFF) != 0xFFFF; }

//
// Mechanisms
//

static void mechanism_1(void) {
    out32(ADDRESS, 0x80FFFFFC);
    bool kept = in32(ADDRESS) == 0x80FFFFFC;
    out32(ADDRESS, 0);
    check(kept && in32(ADDRESS) == 0, PCI "3.7.4.1, " PMC "3.1.1: CONFADD is a dword register that is read as written");
    out32(ADDRESS, ENABLE);
    out8(ADDRESS, 0x55);
    out16(ADDRESS, 0x5555);
    check_value(in32(ADDRESS), ENABLE, PMC "3.1.1: bytes and words written there do not reach CONFADD");
    check_value(get(host, VENDOR), 0x12378086, PMC "3.2.1, 3.2.2: vendor 8086h, device 1237h");
    out32(ADDRESS, 0);
    check(in32(DATA_PORT) == 0xFFFFFFFF, PCI "3.7.4.1: without the enable bit CONFDATA is no access to configuration space");
    begin(PCI "3.7.4.1: CONFDATA in bytes, words and dwords is the register");
    for (u32 offset = 0; offset < 0x40; offset += 4) {
        u32 value = get(host, offset);
        title("offset %x", offset);
        out32(ADDRESS, ENABLE | host | offset);
        for (u32 i = 0; i < 4; i++)
            expect_value("byte", in8(DATA_PORT + i), value >> 8 * i & 0xFF);
        for (u32 i = 0; i < 4; i += 2)
            expect_value("word", in16(DATA_PORT + i), value >> 8 * i & 0xFFFF);
    }
    end();
    begin(PCI "3.2.2.3.4: a function that is not there is read as all ones");
    for (u32 slot = 20; slot < 32; slot++)
        expect_value("vendor and device", get(device(0, slot, 0), VENDOR), 0xFFFFFFFF);
    expect_value("bus 77", get(device(77, 0, 0), VENDOR), 0xFFFFFFFF);
    end();
}

static void headers(void) {
    begin(PCI "6.1, 6.2.1: every function has vendor, device, class, header type 0 or 1; functions beyond the first need "
              "the multi-function bit");
    for (u32 slot = 0; slot < 32; slot++) {
        bool multi = get8(device(0, slot, 0), HEADER) & 0x80;
        for (u32 function = 0; function < 8; function++) {
            u32 d = device(0, slot, function);
            if (!is_there(d))
                continue;
            title("%u.%u", slot, function);
            expect((get8(d, HEADER) & 0x7F) <= 1);
            expect(!function || multi);
            expect((get(d, CLASS) >> 24) <= 0x11);
            u32 id = get(d, VENDOR), class = get(d, CLASS);
            set(d, VENDOR, 0);
            set(d, CLASS, 0);
            expect_value("ID is read-only", get(d, VENDOR), id);
            expect_value("class is read-only", get(d, CLASS), class);
        }
    }
    end();
    check_value(get(host, CLASS) >> 8, 0x060000, PMC "3.2.6 to 3.2.8: a host bridge");
    check_value(get(isa, CLASS) >> 8, 0x060100, PIIX3 "2.2.6: an ISA bridge");
    check_value(get(isa, VENDOR), 0x70008086, PIIX3 "2.2.1, 2.2.2: vendor 8086h, device 7000h");
    check(get8(isa, HEADER) & 0x80, PIIX3 "2.2.7: a device of several functions");
}

/// BARs: all ones tell the size, and what is written is kept above it.
static void bars(void) {
    begin(PCI "6.2.5.1: a base address register that was written with ones tells its size, and takes any multiple of it");
    u32 count = 0;
    for (u32 slot = 0; slot < 32; slot++)
        for (u32 function = 0; function < 8; function++) {
            u32 d = device(0, slot, function);
            if (!is_there(d) || get8(d, HEADER) & 0x7F)
                continue;
            u32 command = get(d, COMMAND) & 0xFFFF;
            set(d, COMMAND, command & ~3);
            for (u32 bar = BAR; bar < 0x28; bar += 4) {
                u32 old = get(d, bar);
                set(d, bar, 0xFFFFFFFF);
                u32 ones = get(d, bar);
                if (ones) {
                    u32 low = ones & 1 ? 3 : 15, mask = ones & ~low;
                    if (ones & 1)
                        mask |= 0xFFFF0000;
                    count++;
                    title("%u.%u, register %x: %x", slot, function, bar, ones);
                    // A size is a power of two.
                    expect(((~mask + 1) & ~mask) == 0);
                    set(d, bar, 0x0000C000);
                    expect_value("C000h", get(d, bar), (0xC000 & mask) | (ones & low));
                    set(d, bar, 0);
                    expect_value("0", get(d, bar), ones & low);
                }
                set(d, bar, old);
            }
            set(d, COMMAND, command);
        }
    end();
    note("%u base address registers", count);
}

//
// PIRQ routing
//

static void pirq(void) {
    begin(PIIX3 "2.2.10: PIRQRCA to PIRQRCD: bit 7 and the IRQ are kept; after reset 80h");
    for (u32 i = 0; i < 4; i++) {
        title("PIRQ %u", i);
        expect_value("after reset", get8(isa, 0x60 + i), 0x80);
        for (u32 irq = 3; irq < 16; irq++) {
            set8(isa, 0x60 + i, irq);
            expect_value("route", get8(isa, 0x60 + i), irq);
        }
        set8(isa, 0x60 + i, 0x80);
    }
    end();
}

//
// PAM: what C0000h to FFFFFh are
//

static void pam(void) {
    static const struct {
        u32 start;
        u8 offset, shift;
    } regions[] = {
        {0xC0000, 0x5A, 0}, {0xC4000, 0x5A, 4}, {0xC8000, 0x5B, 0}, {0xCC000, 0x5B, 4}, {0xD0000, 0x5C, 0},
        {0xD4000, 0x5C, 4}, {0xD8000, 0x5D, 0}, {0xDC000, 0x5D, 4}, {0xE0000, 0x5E, 0}, {0xE4000, 0x5E, 4},
        {0xE8000, 0x5F, 0}, {0xEC000, 0x5F, 4},
    };
    begin(PMC "3.2.12: PAM0 to PAM6 are 0 after reset, and keep RE and WE");
    for (u32 i = 0; i < 7; i++) {
        title("PAM%u", i);
        expect_value("after reset", get8(host, PAM + i), 0);
        u8 fields = i ? 0x33 : 0x30;
        set8(host, PAM + i, fields);
        expect_value("RE, WE", get8(host, PAM + i) & fields, fields);
        set8(host, PAM + i, 0);
    }
    end();
    begin(PMC "3.2.12, 4.1: WE lets writes through to DRAM, RE reads; without they go to PCI");
    for (u32 i = 0; i < COUNT(regions); i++) {
        u32 at = regions[i].start + 0x120, last = regions[i].start + 0x3FFC;
        u8 shift = regions[i].shift;
        title("%x", regions[i].start);
        set8(host, regions[i].offset, 0);
        u32 outside = *dwords(at);
        set8(host, regions[i].offset, 3 << shift);
        *dwords(at) = 0x12345678 + i;
        *dwords(last) = 0x87654321 + i;
        expect_value("read and write", *dwords(at), 0x12345678 + i);
        set8(host, regions[i].offset, 1 << shift);
        *dwords(at) = 0xDEADBEEF;
        expect_value("read only", *dwords(at), 0x12345678 + i);
        expect_value("its end", *dwords(last), 0x87654321 + i);
        set8(host, regions[i].offset, 2 << shift);
        expect_value("write only", *dwords(at), outside);
        *dwords(at) = 0xCAFE0000 + i;
        set8(host, regions[i].offset, 0);
        expect_value("neither", *dwords(at), outside);
        set8(host, regions[i].offset, 1 << shift);
        expect_value("what was written meanwhile", *dwords(at), 0xCAFE0000 + i);
        set8(host, regions[i].offset, 0);
    }
    end();
    // The BIOS, copied into its own shadow.
    u32 before = *dwords(0xFFFF0), copied = 0;
    set8(host, PAM, 0x20);
    for (u32 at = 0xF0000; at < 0x100000; at += 4)
        *dwords(at) = *dwords(at);
    *dwords(0xF0010) = 0x5AA5F00F;
    set8(host, PAM, 0x10);
    copied = *dwords(0xFFFF0);
    bool changed = *dwords(0xF0010) == 0x5AA5F00F;
    *dwords(0xF0010) = 0;
    bool fixed = *dwords(0xF0010) == 0x5AA5F00F;
    set8(host, PAM, 0);
    check(copied == before && changed && fixed && *dwords(0xFFFF0) == before,
          PMC "4.1.1: the BIOS area is shadowed by reading from PCI and writing to DRAM");
}

static void smram(void) {
    set8(host, SMRAM, C_BASE);
    check_value(get8(host, SMRAM) & 7, C_BASE, PMC "3.2.19: C_BASE_SEG is 010b, read-only");
    set8(host, SMRAM, 5);
    check_value(get8(host, SMRAM) & 7, C_BASE, PMC "3.2.19: and stays that");
    u32 outside = *dwords(0xA8000);
    set8(host, SMRAM, D_OPEN | C_BASE);
    bool without = *dwords(0xA8000) == outside;
    set8(host, SMRAM, D_OPEN | G_SMRAME | C_BASE);
    *dwords(0xA8000) = 0x534D5241;
    *dwords(0xBFFFC) = 0x11223344;
    bool open = *dwords(0xA8000) == 0x534D5241 && *dwords(0xBFFFC) == 0x11223344;
    set8(host, SMRAM, G_SMRAME | C_BASE);
    bool closed = *dwords(0xA8000) == outside;
    check(without, PMC "3.2.19: without G_SMRAME there is no SMRAM");
    check(open && closed, PMC "3.2.19: DOPEN opens SMRAM at A0000h to BFFFFh outside of SMM");
    set8(host, SMRAM, D_OPEN | G_SMRAME | C_BASE);
    check_value(*dwords(0xA8000), 0x534D5241, PMC "3.2.19: SMRAM keeps its content");
    set8(host, SMRAM, D_OPEN | D_LCK | G_SMRAME | C_BASE);
    u8 locked = get8(host, SMRAM);
    set8(host, SMRAM, D_OPEN | C_BASE);
    check(!(locked & D_OPEN) && locked & D_LCK && get8(host, SMRAM) == locked && *dwords(0xA8000) == outside,
          PMC "3.2.19: DLCK clears DOPEN and makes the register read-only");
}

/// Ports C000h to CFFFh, if the bridge knows them; the 82441FX itself does not.
static void mechanism_2(void) {
    enum { CSE = 0xCF8, FORWARD = 0xCFA, WINDOW = 0xC000, KEY = 0xF0 };
    out32(ADDRESS, 0);
    out8(CSE, KEY);
    out8(FORWARD, 0);
    if (in8(CSE) != KEY) {
        out8(CSE, 0);
        skip(PCI "3.7.4.2: configuration mechanism 2", "there is none");
        return;
    }
    begin(PCI "3.7.4.2: with a key in CSE, ports C000h to CFFFh are the registers of 16 devices on the forward register's bus");
    for (u32 slot = 0; slot < 16; slot++) {
        out8(CSE, 0);
        u32 id = get(device(0, slot, 0), VENDOR), class = get(device(0, slot, 0), CLASS);
        out32(ADDRESS, 0);
        out8(CSE, KEY);
        title("device %u", slot);
        expect_value("vendor and device", in32(WINDOW + slot * 256), id);
        expect_value("class", in32(WINDOW + slot * 256 + CLASS), class);
        expect_value("a byte of it", in8(WINDOW + slot * 256 + CLASS + 3), class >> 24);
    }
    out8(FORWARD, 77);
    title("bus 77");
    expect_value("forward register", in8(FORWARD), 77);
    expect_value("vendor and device", in32(WINDOW), 0xFFFFFFFF);
    out8(FORWARD, 0);
    out8(CSE, KEY | 3 << 1);
    title("function 3 of device 1");
    u32 power = in32(WINDOW + 0x100);
    out8(CSE, 0);
    expect_value("vendor and device", power, get(device(0, 1, 3), VENDOR));
    end();
    check_value(in32(WINDOW), 0xFFFFFFFF, PCI "3.7.4.2: without a key they are ports like others");
}

/// CF9h is the reset control of the 82371SB.
static void reset_control(void) {
    out8(TRC, 0);
    bool zero = (in8(TRC) & 6) == 0;
    out8(TRC, 2);
    bool hard = (in8(TRC) & 6) == 2;
    out8(TRC, 0);
    check(zero && hard && (in8(TRC) & 6) == 0, PIIX3 "2.5.7: RC (CF9h) keeps the type of reset, bit 1");
}

void chapter(void) {
    out32(ADDRESS, 0x80FFFFFC);
    if (in32(ADDRESS) != 0x80FFFFFC) {
        skip(PCI "3.7.4: configuration mechanism 1", "there is no PCI");
        return;
    }
    host = device(0, 0, 0);
    isa = device(0, 1, 0);
    mechanism_1();
    mechanism_2();
    headers();
    bars();
    pirq();
    pam();
    smram();
    reset_control();
}
