//! The two 8237A DMA controllers (Intel 8237A data sheet, order number 231466; 82371SB). Without a device
//! that asks for transfers, memory-to-memory transfers show what a channel does.

#include "chip.h"

const char chapter_name[] = "dma";

#define SHEET "8237A data sheet, "
#define PIIX3 "82371SB data sheet, "

/// Ports of the first controller; those of the second are twice as far apart, from C0h on.
enum { COMMAND = 8, STATUS = 8, REQUEST = 9, SINGLE_MASK = 10, MODE = 11, CLEAR_FLIP_FLOP = 12, MASTER_CLEAR = 13,
       TEMPORARY = 13, CLEAR_MASK = 14, ALL_MASKS = 15 };
enum { BLOCK = 0x80, DECREMENT = 0x20, AUTOINIT = 0x10, READ = 8, WRITE = 4, CASCADE_MODE = 0xC0 };
enum { MEMORY_TO_MEMORY = 1, HOLD = 2 };
enum { FROM = 0x20000, TO = 0x30000 };

static u16 port(u32 chip, u8 offset) { return chip ? 0xC0 + 2 * offset : offset; }
static void clear(void) {
    for (u32 chip = 0; chip < 2; chip++)
        out8(port(chip, MASTER_CLEAR), 0);
    out8(port(1, MODE), CASCADE_MODE);
    out8(port(1, SINGLE_MASK), 0);
}
static void write16(u16 at, u16 value) {
    out8(at, value);
    out8(at, value >> 8);
}
static u16 read16(u16 at) {
    u8 lsb = in8(at);
    return lsb | in8(at) << 8;
}

static void registers(void) {
    clear();
    begin(SHEET "\"Register description\": address and count are written and read with the lower byte first");
    for (u32 chip = 0; chip < 2; chip++)
        for (u32 i = 0; i < 8; i++) {
            out8(port(chip, CLEAR_FLIP_FLOP), 0);
            write16(port(chip, i), 0x1234 + 0x1111 * i);
        }
    for (u32 chip = 0; chip < 2; chip++)
        for (u32 i = 0; i < 8; i++) {
            out8(port(chip, CLEAR_FLIP_FLOP), 0);
            title("controller %u, register %u", chip, i);
            expect_value("value", read16(port(chip, i)), 0x1234 + 0x1111 * i);
        }
    end();
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    out8(port(0, 2), 0x11);
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    write16(port(0, 2), 0xBEEF);
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    check_value(read16(port(0, 2)), 0xBEEF, SHEET "\"Software commands\": clear first/last flip-flop makes the lower byte the next");
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    in8(port(0, 2));
    out8(port(0, MASTER_CLEAR), 0);
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    write16(port(0, 2), 0x55AA);
    in8(port(0, 2));
    out8(port(0, MASTER_CLEAR), 0);
    check_value(in8(port(0, 2)), 0xAA, SHEET "\"Software commands\": master clear clears the flip-flop too");
    clear();
    check_value(in8(port(0, STATUS)) & 0x0F, 0, SHEET "\"Software commands\": master clear clears the status register");
    begin(PIIX3 "page registers: they are read as written");
    static const u8 pages[] = {0x81, 0x82, 0x83, 0x87, 0x89, 0x8A, 0x8B};
    for (u32 i = 0; i < COUNT(pages); i++)
        for (u32 value = 0; value < 256; value += 85) {
            out8(pages[i], value ^ i);
            title("page register %x", pages[i]);
            expect_value("value", in8(pages[i]), value ^ i);
        }
    end();
    for (u32 i = 0; i < COUNT(pages); i++)
        out8(pages[i], 0);
}

static void masks(void) {
    clear();
    begin(SHEET "\"Mask register\": bits are set and cleared alone, all together, by clear mask and by master clear; " PIIX3
                "RWAMB: and can be read");
    out8(port(0, MASTER_CLEAR), 0);
    expect_value("after master clear", in8(port(0, ALL_MASKS)) & 15, 15);
    out8(port(0, SINGLE_MASK), 2);
    expect_value("channel 2 unmasked", in8(port(0, ALL_MASKS)) & 15, 11);
    out8(port(0, SINGLE_MASK), 4 | 2);
    expect_value("channel 2 masked", in8(port(0, ALL_MASKS)) & 15, 15);
    out8(port(0, CLEAR_MASK), 0);
    expect_value("clear mask", in8(port(0, ALL_MASKS)) & 15, 0);
    for (u32 value = 0; value < 16; value++) {
        out8(port(0, ALL_MASKS), value);
        expect_value("all masks", in8(port(0, ALL_MASKS)) & 15, value);
    }
    end();
    clear();
}

/// Copies `count` bytes by channels 0 and 1. Whether the terminal count was seen.
static bool copy(u32 count, u8 from_mode, u8 to_mode, u8 command, u16 from, u16 to) {
    clear();
    in8(port(0, STATUS));
    out8(0x87, FROM >> 16);
    out8(0x83, TO >> 16);
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    write16(port(0, 0), from);
    write16(port(0, 1), count - 1);
    write16(port(0, 2), to);
    write16(port(0, 3), count - 1);
    out8(port(0, MODE), BLOCK | READ | from_mode);
    out8(port(0, MODE), BLOCK | WRITE | to_mode | 1);
    out8(port(0, COMMAND), MEMORY_TO_MEMORY | command);
    out8(port(0, REQUEST), 4);
    for (u32 i = 0; i < 1000; i++) {
        if (in8(port(0, STATUS)) & 2) {
            out8(port(0, COMMAND), 0);
            return true;
        }
        out8(0xED, 0);
    }
    out8(port(0, COMMAND), 0);
    return false;
}

static void prepare(void) {
    for (u32 i = 0; i < 0x200; i++) {
        *bytes(FROM + i) = i * 7 + 3;
        *bytes(TO + i) = 0xEE;
    }
}

static void transfers(void) {
    prepare();
    if (!copy(0x100, 0, 0, 0, 0, 0x40)) {
        skip(SHEET "\"Memory-to-memory\"", "the chip set lacks it, as the 82371SB says");
        return;
    }
    u32 wrong = 0;
    for (u32 i = 0; i < 0x100; i++)
        wrong += *bytes(TO + 0x40 + i) != (u8)(i * 7 + 3);
    check(!wrong && *bytes(TO + 0x3F) == 0xEE && *bytes(TO + 0x140) == 0xEE,
          SHEET "\"Memory-to-memory\": one byte more than the count is copied");
    check_value(in8(port(0, TEMPORARY)), (u8)(0xFF * 7 + 3), SHEET "\"Temporary register\": the last byte");
    check_value(in8(port(0, STATUS)) & 15, 0, SHEET "\"Status register\": terminal counts are forgotten when they were read");
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    bool gone = read16(port(0, 2)) == 0x140;
    check(gone && read16(port(0, 3)) == 0xFFFF, SHEET "\"Current word register\": the address goes up, the count to FFFFh");
    prepare();
    copy(0x10, 0, DECREMENT, 0, 0, 0x4F);
    wrong = 0;
    for (u32 i = 0; i < 0x10; i++)
        wrong += *bytes(TO + 0x4F - i) != (u8)(i * 7 + 3);
    check_value(wrong, 0, SHEET "\"Mode register\": addresses go down");
    prepare();
    copy(0x10, 0, 0, HOLD, 5, 0x40);
    wrong = 0;
    for (u32 i = 0; i < 0x10; i++)
        wrong += *bytes(TO + 0x40 + i) != (u8)(5 * 7 + 3);
    check_value(wrong, 0, SHEET "\"Memory-to-memory\": channel 0 can hold its address: memory is filled");
    prepare();
    copy(0x10, AUTOINIT, AUTOINIT, 0, 0x20, 0x60);
    out8(port(0, CLEAR_FLIP_FLOP), 0);
    bool reloaded = read16(port(0, 2)) == 0x60;
    check(reloaded && read16(port(0, 3)) == 0x0F, SHEET "\"Autoinitialize\": address and count are loaded again");
}

void chapter(void) {
    if (in8(0x0F) == 0xFF && in8(0x87) == 0xFF) {
        skip(SHEET "DMA controllers", "there are none");
        return;
    }
    registers();
    masks();
    transfers();
    clear();
}
