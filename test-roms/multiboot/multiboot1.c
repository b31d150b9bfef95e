/*! A Multiboot kernel (specification 0.6.96) that prints what its loader tells it (3.3). */

#include "report.h"

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    uint32_t sections_num, sections_size, sections_addr, sections_shndx;
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, loader_name;
};

struct module {
    uint32_t start, end, string, reserved;
};

struct range {
    uint32_t size;
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

enum {
    MEMORY = 1 << 0,
    COMMAND_LINE = 1 << 2,
    MODULES = 1 << 3,
    ELF_SECTIONS = 1 << 5,
    MAP = 1 << 6,
    CONFIG_TABLE = 1 << 8,
    LOADER_NAME = 1 << 9,
};

static void say_config_table(const uint8_t *table) {
    put_text("config length ");
    put_decimal(table[0] | table[1] << 8);
    put_text(" model ");
    put_hex(table[2], 2);
    end_line();
}

int kernel_main(uint32_t magic, const struct info *info, uint32_t cr0, uint32_t eflags) {
    say_entry(magic, cr0, eflags);
    put_text("flags ");
    put_hex(info->flags, 8);
    end_line();
    if (info->flags & MEMORY) {
        put_text("memory ");
        put_decimal(info->mem_lower);
        put_text(" ");
        put_decimal(info->mem_upper);
        end_line();
    }
    if (info->flags & COMMAND_LINE) {
        say_text("command", (const char *)info->cmdline);
    }
    if (info->flags & MODULES) {
        const struct module *module = (const struct module *)info->mods_addr;
        for (uint32_t i = 0; i < info->mods_count; i++, module++) {
            say_module(module->start, module->end, (const char *)module->string);
        }
    }
    if (info->flags & ELF_SECTIONS) {
        say_sections(info->sections_num, info->sections_size, info->sections_shndx,
                     (const uint8_t *)info->sections_addr);
    }
    if (info->flags & MAP) {
        uint32_t at = info->mmap_addr;
        while (at < info->mmap_addr + info->mmap_length) {
            const struct range *range = (const struct range *)at;
            say_range(range->base, range->length, range->type);
            at += range->size + 4;
        }
    }
    if (info->flags & CONFIG_TABLE) {
        say_config_table((const uint8_t *)info->config_table);
    }
    if (info->flags & LOADER_NAME) {
        say_text("loader", (const char *)info->loader_name);
    }
    say_text("done", "");
    return 0;
}
