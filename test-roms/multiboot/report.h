/*! What the Multiboot test kernels share: text on COM1, and the checks that both make. */

#include <stdint.h>

void put_text(const char *text);
/* Hexadecimal with this many digits. */
void put_hex(uint64_t value, int digits);
void put_decimal(uint32_t value);
void end_line(void);

/* "name text" on a line of its own. */
void say_text(const char *name, const char *text);

/* The processor's state at the entry: CR0 and EFLAGS. */
void say_entry(uint32_t magic, uint32_t cr0, uint32_t eflags);

/* A module: its place, its size, whether it is on a page boundary, its bytes' sum, its string. */
void say_module(uint32_t start, uint32_t end, const char *text);

/* A range of the memory map. */
void say_range(uint64_t base, uint64_t length, uint32_t type);

/* The names of the sections: each is read through the headers, as a debugger would. */
void say_sections(uint32_t count, uint32_t entry_size, uint32_t names, const uint8_t *headers);
