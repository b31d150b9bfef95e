//! QEMU's devices for firmware and guests: fw_cfg, pvpanic (QEMU's docs/specs/fw_cfg.rst, pvpanic.rst).

#include "chip.h"

const char chapter_name[] = "fwcfg";

#define SPEC "fw_cfg.rst, "

enum { SELECTOR = 0x510, DATA_PORT = 0x511, DMA = 0x514, PVPANIC = 0x505 };
enum { SIGNATURE = 0, FEATURES = 1, RAM_SIZE = 3, CPUS = 5, DIRECTORY = 0x19 };
enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static void select(u16 item) { out16(SELECTOR, item); }
static u32 little(u32 count) {
    u32 value = 0;
    for (u32 i = 0; i < count; i++)
        value |= (u32)in8(DATA_PORT) << 8 * i;
    return value;
}
static u32 big(u32 count) {
    u32 value = 0;
    for (u32 i = 0; i < count; i++)
        value = value << 8 | in8(DATA_PORT);
    return value;
}
static u32 swap(u32 value) {
    return value << 24 | (value & 0xFF00) << 8 | (value >> 8 & 0xFF00) | value >> 24;
}

static volatile struct {
    u32 control, length, address_high, address_low;
} operation __attribute__((aligned(16)));
static volatile u8 buffer[64];

/// A DMA operation; its control field when it is done.
static u32 dma(u32 control, u32 length) {
    operation.control = swap(control);
    operation.length = swap(length);
    operation.address_high = 0;
    operation.address_low = swap((u32)buffer);
    out32(DMA, 0);
    out32(DMA + 4, swap((u32)&operation));
    for (u32 i = 0; i < 100000 && swap(operation.control) & ~ERROR; i++)
        out8(0x80, 0);
    return swap(operation.control);
}

static void traditional(void) {
    select(SIGNATURE);
    check(little(4) == 0x554D4551, SPEC "\"Signature\": QEMU");
    check(little(4) == 0, SPEC "\"Data register\": behind an item's end there are zeros");
    select(SIGNATURE);
    in8(DATA_PORT);
    select(SIGNATURE);
    check_value(in8(DATA_PORT), 'Q', SPEC "\"Selector register\": selecting begins at the item's first byte");
    select(SIGNATURE);
    out8(DATA_PORT, 0);
    select(SIGNATURE);
    check(little(4) == 0x554D4551, SPEC "\"Data register\": writes are ignored");
    select(FEATURES);
    u32 features = little(4);
    check(features & 1, SPEC "\"Revision\": the traditional interface");
    select(RAM_SIZE);
    check_value(little(4), 16 << 20, SPEC "item 3: the size of RAM: 16 MiB here");
    select(CPUS);
    check_value(little(2), 1, SPEC "item 5: the number of processors");
    select(0x1234);
    check_value(little(4), 0, SPEC "an item that is not there is read as zeros");
    select(DIRECTORY);
    u32 count = big(4);
    begin(SPEC "\"File directory\": names, items from 20h on, sizes");
    expect(count < 100);
    for (u32 i = 0; i < count && i < 100; i++) {
        u32 size = big(4), item = big(2), reserved = big(2);
        u8 name[56];
        for (u32 j = 0; j < sizeof name; j++)
            name[j] = in8(DATA_PORT);
        title("file %u, size %x", i, size);
        expect(item >= 0x20);
        expect_value("reserved", reserved, 0);
        expect(name[0] && !name[55]);
    }
    end();
}

static void with_dma(void) {
    select(FEATURES);
    if (!(in8(DATA_PORT) & 2)) {
        skip(SPEC "\"DMA interface\"", "the revision says that it is not there");
        return;
    }
    check(in32(DMA) == 0x554D4551 && in32(DMA + 4) == 0x47464320, SPEC "\"DMA interface\": the address register is read as QEMU CFG");
    u32 done = dma(SIGNATURE << 16 | SELECT | READ, 4);
    check(!done && buffer[0] == 'Q' && buffer[3] == 'U', SPEC "\"DMA interface\": select and read");
    done = dma(SIGNATURE << 16 | SELECT | SKIP, 2);
    bool skipped = !done && in8(DATA_PORT) == 'M';
    check(skipped && in8(DATA_PORT) == 'U', SPEC "\"DMA interface\": skip; the offset is that of the data register");
    buffer[4] = buffer[5] = 0xEE;
    done = dma(SIGNATURE << 16 | SELECT | READ, 6);
    check(!done && buffer[3] == 'U' && !buffer[4] && !buffer[5], SPEC "\"DMA interface\": zeros behind the end");
    done = dma(SIGNATURE << 16 | SELECT | WRITE, 4);
    check_value(done, ERROR, SPEC "\"DMA interface\": a write to an item that is read-only is an error");
    select(SIGNATURE);
    check(little(4) == 0x554D4551, SPEC "\"DMA interface\": and changes nothing");
}

/// The item of a file, with its size; 0 if there is none.
static u16 file(const char *wanted, u32 *size) {
    select(DIRECTORY);
    u16 found = 0;
    for (u32 count = big(4); count; count--) {
        u32 bytes = big(4), item = big(2);
        big(2);
        bool same = true, ended = false;
        for (u32 i = 0; i < 56; i++) {
            char c = in8(DATA_PORT);
            same &= ended || c == wanted[i];
            ended |= !c;
        }
        if (same) {
            found = item;
            *size = bytes;
        }
    }
    return found;
}

#define VMCOREINFO "vmcoreinfo.rst: "

static void vmcoreinfo(void) {
    u32 size = 0;
    u16 item = file("etc/vmcoreinfo", &size);
    select(FEATURES);
    if (!item || !(in8(DATA_PORT) & 2)) {
        skip(VMCOREINFO "etc/vmcoreinfo", "there is none");
        return;
    }
    select(item);
    check(size == 16 && little(2) == 1, VMCOREINFO "16 bytes; the host takes ELF notes");
    // The guest's format, its size and its address.
    static const u8 note[16] = {0, 0, 1, 0, 0x40, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0};
    for (u32 i = 0; i < sizeof note; i++)
        buffer[i] = note[i];
    u32 done = dma((u32)item << 16 | SELECT | WRITE, 16);
    select(item);
    bool same = !done;
    for (u32 i = 0; i < sizeof note; i++)
        same &= in8(DATA_PORT) == note[i];
    check(same, VMCOREINFO "the guest writes where its note is");
    check_value(dma((u32)item << 16 | SELECT | WRITE, 17), ERROR,
                SPEC "\"DMA interface\": a write beyond an item's end is an error");
    for (u32 i = 0; i < sizeof note; i++)
        buffer[i] = i == 0;
    dma((u32)item << 16 | SELECT | WRITE, 16);
}

void chapter(void) {
    select(SIGNATURE);
    if (little(4) != 0x554D4551)
        skip(SPEC "fw_cfg", "there is none");
    else {
        traditional();
        with_dma();
        vmcoreinfo();
    }
    u8 events = in8(PVPANIC);
    if (events == 0xFF)
        skip("pvpanic.rst: pvpanic", "there is none");
    else
        check(events & 1, "pvpanic.rst: a read gives the events that it knows: bit 0 is a panic");
}
