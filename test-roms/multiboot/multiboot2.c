/*! A Multiboot2 kernel (specification 2.0) that prints what its loader tells it (3.6). */

#include "report.h"

struct tag {
    uint32_t type, size;
    uint32_t fields[];
};

struct range {
    uint64_t base, length;
    uint32_t type, reserved;
};

enum {
    COMMAND_LINE = 1,
    LOADER_NAME = 2,
    MODULE = 3,
    MEMORY = 4,
    MAP = 6,
    ELF_SECTIONS = 9,
    SMBIOS = 13,
    OLD_RSDP = 14,
    NEW_RSDP = 15,
    LOAD_BASE = 21,
};

static void say_map(const struct tag *tag) {
    uint32_t at = (uint32_t)&tag->fields[2];
    uint32_t end = (uint32_t)tag + tag->size;
    for (; at < end; at += tag->fields[0]) {
        const struct range *range = (const struct range *)at;
        say_range(range->base, range->length, range->type);
    }
}

/* Whether all bytes sum to zero, as those of an RSDP do. */
static void say_rsdp(const char *name, const struct tag *tag) {
    const uint8_t *bytes = (const uint8_t *)tag->fields;
    uint8_t sum = 0;
    for (uint32_t i = 0; i < tag->size - 8; i++) {
        sum += bytes[i];
    }
    put_text(name);
    put_text(" revision ");
    put_decimal(bytes[15]);
    put_text(sum ? " bad" : " good");
    end_line();
}

static void say(const struct tag *tag) {
    const uint32_t *fields = tag->fields;
    switch (tag->type) {
    case COMMAND_LINE:
        say_text("command", (const char *)fields);
        break;
    case LOADER_NAME:
        say_text("loader", (const char *)fields);
        break;
    case MODULE:
        say_module(fields[0], fields[1], (const char *)&fields[2]);
        break;
    case MEMORY:
        put_text("memory ");
        put_decimal(fields[0]);
        put_text(" ");
        put_decimal(fields[1]);
        end_line();
        break;
    case MAP:
        say_map(tag);
        break;
    case ELF_SECTIONS:
        say_sections(fields[0], fields[1], fields[2], (const uint8_t *)&fields[3]);
        break;
    case SMBIOS:
        put_text("smbios ");
        put_decimal(fields[0] & 0xFF);
        end_line();
        break;
    case OLD_RSDP:
        say_rsdp("old rsdp", tag);
        break;
    case NEW_RSDP:
        say_rsdp("new rsdp", tag);
        break;
    case LOAD_BASE:
        put_text("base ");
        put_hex(fields[0], 8);
        end_line();
        break;
    default:
        put_text("tag ");
        put_decimal(tag->type);
        end_line();
    }
}

int kernel_main(uint32_t magic, uint32_t info, uint32_t cr0, uint32_t eflags) {
    say_entry(magic, cr0, eflags);
    say_text("information", info % 8 ? "unaligned" : "aligned");
    uint32_t end = info + *(const uint32_t *)info;
    for (uint32_t at = info + 8; at < end;) {
        const struct tag *tag = (const struct tag *)at;
        if (tag->type == 0) {
            say_text("done", at + 8 == end ? "" : "too early");
            return 0;
        }
        say(tag);
        at += (tag->size + 7) & ~7U;
    }
    say_text("information", "without an end");
    return 1;
}
