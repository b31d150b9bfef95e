/*! Prints on COM1 what a Multiboot kernel finds. */

#include "report.h"

#define COM1 0x3F8
#define LINE_STATUS 5
#define TRANSMITTER_EMPTY 0x20

static void outb(uint16_t port, uint8_t value) {
    __asm__ volatile("{outb %0, %1|out %1, %0}" : : "a"(value), "Nd"(port));
}

static uint8_t inb(uint16_t port) {
    uint8_t value;
    __asm__ volatile("{inb %1, %0|in %0, %1}" : "=a"(value) : "Nd"(port));
    return value;
}

static void put_char(char c) {
    while (!(inb(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY)) {
    }
    outb(COM1, (uint8_t)c);
}

void put_text(const char *text) {
    for (; *text; text++) {
        put_char(*text);
    }
}

void put_hex(uint64_t value, int digits) {
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
        put_char("0123456789abcdef"[(value >> shift) & 15]);
    }
}

void put_decimal(uint32_t value) {
    if (value >= 10) {
        put_decimal(value / 10);
    }
    put_char((char)('0' + value % 10));
}

void end_line(void) {
    put_text("\r\n");
}

void say_text(const char *name, const char *text) {
    put_text(name);
    put_char(' ');
    put_text(text);
    end_line();
}

void say_entry(uint32_t magic, uint32_t cr0, uint32_t eflags) {
    put_text("entry magic ");
    put_hex(magic, 8);
    /* PE set and PG clear; VM and IF clear (3.2 of Multiboot, 3.3 of Multiboot2). */
    put_text(cr0 & 1 ? " protected" : " real");
    put_text(cr0 >> 31 ? " paging" : "");
    put_text(eflags & (1 << 17 | 1 << 9) ? " VM or IF" : "");
    end_line();
}

void say_module(uint32_t start, uint32_t end, const char *text) {
    uint32_t sum = 0;
    for (const uint8_t *byte = (const uint8_t *)start; byte < (const uint8_t *)end; byte++) {
        sum += *byte;
    }
    put_text("module size ");
    put_decimal(end - start);
    put_text(start % 4096 ? " unaligned" : " aligned");
    put_text(" sum ");
    put_hex(sum, 8);
    say_text(" string", text);
}

void say_range(uint64_t base, uint64_t length, uint32_t type) {
    put_text("map ");
    put_hex(base, 16);
    put_char(' ');
    put_hex(length, 16);
    put_char(' ');
    put_decimal(type);
    end_line();
}

/* A 32-bit section header (System V ABI, figure 4-8). */
struct section {
    uint32_t name, type, flags, address, offset, size, link, info, align, entry_size;
};

void say_sections(uint32_t count, uint32_t entry_size, uint32_t names, const uint8_t *headers) {
    put_text("sections ");
    put_decimal(count);
    put_text(" names");
    const struct section *strings = (const struct section *)(headers + names * entry_size);
    for (uint32_t i = 0; i < count; i++) {
        const struct section *section = (const struct section *)(headers + i * entry_size);
        if (strings->address && section->name) {
            put_char(' ');
            put_text((const char *)(strings->address + section->name));
        }
    }
    end_line();
}
