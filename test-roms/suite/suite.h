//! The framework of the self-tests: contexts, what came of them, checks. README.md explains it.

#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "memory.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

//
// Vectors, and the bits of error codes (SDM vol. 3A 6.13, 4.7)
//

enum {
    DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11,
    SS = 12, GP = 13, PF = 14, MF = 16, AC = 17, MC = 18, XM = 19,
    NOTHING = 0xFFFF,           // nothing was recorded
};
enum { ERROR_EXT = 1, ERROR_IDT = 2, ERROR_TI = 4 };
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

//
// Worlds: what a context begins as
//

enum world {
    REAL,                       // real mode
    FLAT,                       // 32-bit protected mode without paging
    PAGED,                      // the same with 32-bit paging
    PAGED_PAE,                  // the same with PAE paging
    LONG,                       // 64-bit mode, four levels
    LONG5,                      // 64-bit mode, five levels
    COMPAT,                     // 32-bit compatibility mode, four levels
    V86,                        // virtual-8086 mode, without paging
    WORLDS,
};
extern const char *const world_names[WORLDS];
/// Whether this processor can do it.
bool has_world(enum world world);

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

struct pseudo_descriptor {
    u16 limit;
    u64 base;
    u16 unused;
} __attribute__((packed));

/// What the processor is to be when a program begins.
struct context {
    u64 r[16];
    u64 rip, rflags;
    u64 cr0, cr3, cr4, efer;
    u64 dr[4], dr7;
    u32 cs, ss, ds, es, fs, gs, ldtr, tr;
    u32 kind;
    struct pseudo_descriptor gdtr, idtr;
    u32 unused;
};
extern struct context context;     // at CONTEXT

/// What it was when a vector was delivered: as it was written down by the handler.
struct record {
    u64 r[16];                  // without RSP
    u32 vector, unused;
    u64 handler_sp;
    u64 cr0, cr2, cr3, cr4, dr6, dr7;
    u32 ds, es, fs, gs, handler_ss, handler_cs;
    u64 handler_flags;
    u32 frame[REC_FRAME_DWORDS];
};
extern struct record record;       // at RECORD

/// The same, with the frame taken apart.
struct result {
    u32 vector;
    bool has_error;
    u32 error;
    u64 rip, rflags, rsp;       // rsp: of the interrupted program
    u32 cs, ss;
    u64 cr2;
    u32 v86_es, v86_ds, v86_fs, v86_gs;
    const u32 *above;           // what is on the handler's stack above the frame
};
extern struct result result;

_Static_assert(sizeof(struct context) == CTX_SIZE, "as memory.h says");
_Static_assert(sizeof(struct record) == REC_SIZE, "as memory.h says");

/// Makes `context` and all tables what they are at first: this world, this ring. Registers are
/// zero, RSP is the top of the ring's stack, interrupts are off.
void fresh(enum world world, int ring);
/// The same in 16-bit code and with 16-bit segments (protected and long mode).
void fresh16(enum world world, int ring);

/// A program: bytes that run at any address. It ends with INT3 (#BP) unless something stops it.
struct program {
    const u8 *start, *end;
};
#define CODE(bits, text) \
    ({ \
        struct program p_; \
        asm(".pushsection .snippets, \"a\"\n.code" #bits "\n771:\n\t" text "\n\tint3\n772:\n" \
            ".popsection\n.code32\n\tmov %0, offset 771b\n\tmov %1, offset 772b" \
            : "=r"(p_.start), "=r"(p_.end)); \
        p_; \
    })
#define A16(text) CODE(16, text)
#define A32(text) CODE(32, text)
#define A64(text) CODE(64, text)

/// Copies a program to where the context's RIP points (CS's base added).
void load(struct program program);
/// Copies a program to an address.
void place(u32 address, struct program program);
/// Copies bytes to where the context's RIP points, and INT3 behind them.
void load_bytes(const u8 *bytes, unsigned count);
/// Goes there, comes back with the next vector in `result`, and returns it.
u32 run(void);
/// `load` and `run`.
u32 run_program(struct program program);
/// The program has ended with its INT3.
bool completed(void);
/// How many bytes the program that was loaded last has, without its INT3.
extern unsigned program_size;

/// For the contexts that follow a `fresh`: software interrupts push no error code (INT n with the
/// vector of an exception that has one). `fresh` takes it back.
extern bool soft_interrupt;

//
// Descriptors
//

extern u64 gdt[GDT_ENTRIES], ldt[16];
extern u64 idt[512];
extern u8 tss[0x2080];          // I/O map and all: 68h + 2000h + 1 bytes, and some
#define TSS32_SIZE 0x68

/// Types of code and data segments (SDM vol. 3A 3.4.5.1) and of system segments (3.5), with S.
enum {
    DATA = 0x10, CODE_SEGMENT = 0x18,
    ACCESSED = 1, WRITABLE = 2, EXPAND_DOWN = 4, READABLE = 2, CONFORMING = 4,
    TSS16 = 1, LDT = 2, TSS16_BUSY = 3, CALL_GATE16 = 4, TASK_GATE = 5, INT_GATE16 = 6,
    TRAP_GATE16 = 7, TSS32 = 9, TSS32_BUSY = 11, CALL_GATE32 = 12, INT_GATE32 = 14,
    TRAP_GATE32 = 15,
};
/// Attributes: bits 40 to 55 of a descriptor.
enum { PRESENT = 1 << 7, AVL = 1 << 12, L = 1 << 13, B = 1 << 14, G = 1 << 15 };
#define DPL(n) ((n) << 5)
/// A segment descriptor. The limit has 20 bits; G is up to the caller.
u64 descriptor(u32 base, u32 limit, u32 attributes);
/// A gate's low eight bytes.
u64 gate(u16 selector, u32 offset, u32 attributes, u8 parameters);
/// Puts a call or interrupt gate of 16 bytes into a table.
void gate64(u64 *table, u16 selector, u64 offset, u32 attributes, u8 ist);
/// Puts it into the GDT at a selector (RPL and TI ignored).
void set_gdt(u16 selector, u64 value);

//
// Page tables
//

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PWT = 8, PTE_PCD = 16, PTE_A = 32, PTE_D = 64,
       PTE_PS = 128, PTE_G = 256, PTE_PAT_LARGE = 1 << 12 };
#define PTE_NX (1ull << 63)
/// A page that tests may do with as they like, in the tables of the context's world: no other
/// page shares its entries.
struct victim {
    u64 linear;                 // its address
    u32 frame;                  // its frame: PAGES, or LARGE_PAGE
    int levels;                 // the entries' levels: 1 is the PTE, 2 the PDE, ...
    int leaf;                   // the level that maps the page
    void *entry[6];             // by level; 4 bytes each in 32-bit paging, else 8
};
/// Maps it with all rights at a level (1: 4 KiB, 2: 2 or 4 MiB, 3: 1 GiB) and gives its entries.
struct victim map_victim(enum world world, int leaf);
u64 get_entry(const struct victim *victim, int level);
void set_entry(const struct victim *victim, int level, u64 value);
/// The PTE of an address below 8 MiB that is mapped one to one.
void set_identity(enum world world, u32 address, u64 set, u64 clear);

//
// What this processor is
//

struct cpu {
    bool amd, cpuid;
    u32 signature;              // DX at reset
    u32 edx1, ecx1, ebx7, ecx7, edx7, edx81, ecx81, ebx88;
    int phys_bits, linear_bits;
};
extern struct cpu cpu;
#define HAS_FPU     (cpu.edx1 & 1 << 0)
#define HAS_VME     (cpu.edx1 & 1 << 1)
#define HAS_DE      (cpu.edx1 & 1 << 2)
#define HAS_PSE     (cpu.edx1 & 1 << 3)
#define HAS_TSC     (cpu.edx1 & 1 << 4)
#define HAS_MSR     (cpu.edx1 & 1 << 5)
#define HAS_PAE     (cpu.edx1 & 1 << 6)
#define HAS_CX8     (cpu.edx1 & 1 << 8)
#define HAS_APIC    (cpu.edx1 & 1 << 9)
#define HAS_SEP     (cpu.edx1 & 1 << 11)
#define HAS_MTRR    (cpu.edx1 & 1 << 12)
#define HAS_PGE     (cpu.edx1 & 1 << 13)
#define HAS_PAT     (cpu.edx1 & 1 << 16)
#define HAS_PSE36   (cpu.edx1 & 1 << 17)
#define HAS_MMX     (cpu.edx1 & 1 << 23)
#define HAS_FXSR    (cpu.edx1 & 1 << 24)
#define HAS_SSE     (cpu.edx1 & 1 << 25)
#define HAS_SSE2    (cpu.edx1 & 1 << 26)
#define HAS_SSE3    (cpu.ecx1 & 1 << 0)
#define HAS_MONITOR (cpu.ecx1 & 1 << 3)
#define HAS_PCID    (cpu.ecx1 & 1 << 17)
#define HAS_XSAVE   (cpu.ecx1 & 1 << 26)
#define HAS_AVX     (cpu.ecx1 & 1 << 28)
#define HAS_FSGSBASE (cpu.ebx7 & 1 << 0)
#define HAS_SMEP    (cpu.ebx7 & 1 << 7)
#define HAS_INVPCID (cpu.ebx7 & 1 << 10)
#define HAS_SMAP    (cpu.ebx7 & 1 << 20)
#define HAS_UMIP    (cpu.ecx7 & 1 << 2)
#define HAS_PKU     (cpu.ecx7 & 1 << 3)
#define HAS_LA57    (cpu.ecx7 & 1 << 16)
#define HAS_SYSCALL (cpu.edx81 & 1 << 11)
#define HAS_NX      (cpu.edx81 & 1 << 20)
#define HAS_1G      (cpu.edx81 & 1 << 26)
#define HAS_RDTSCP  (cpu.edx81 & 1 << 27)
#define HAS_LM      (cpu.edx81 & 1 << 29)

//
// Checks. Each is a line of the report; the text begins with the manual's section.
//

/// The next checks are about this world; their lines say so.
void about(const char *what);
void check(bool good, const char *text);
void skip(const char *text, const char *why);
/// A value is what it must be.
void check_value(u64 got, u64 expected, const char *text);
/// The last run ended with this exception, and this error code where the exception has one.
void check_fault(u32 vector, u32 error, const char *text);
/// The last run came to its end.
void check_completes(const char *text);

/// Many cases in one line: `begin`, then `expect...` for each case, then `end`. The first few that
/// fail are shown, each with its title.
void begin(const char *text);
void title(const char *format, ...);
bool expect(bool good);
bool expect_value(const char *what, u64 got, u64 expected);
bool expect_fault(u32 vector, u32 error);
bool expect_completes(void);
void end(void);

/// A diagnostic line. %d, %u, %x, %q (64 bits in hexadecimal), %s, %c.
void note(const char *format, ...);

/// What the ROM tests: each chapter defines these.
extern const char chapter_name[];
void chapter(void);

//
// Instructions
//

static inline void out8(u16 port, u8 value) { asm volatile("out dx, al" ::"a"(value), "d"(port)); }
static inline u8 in8(u16 port) {
    u8 value;
    asm volatile("in al, dx" : "=a"(value) : "d"(port));
    return value;
}
static inline u32 low(u64 value) { return (u32)value; }
/// Memory at an address; low ones too, which the compiler takes for mistakes when it knows them.
static inline u32 anywhere(u32 address) {
    asm("" : "+r"(address));
    return address;
}
static inline u8 *bytes(u32 address) { return (u8 *)anywhere(address); }
static inline volatile u32 *dwords(u32 address) { return (volatile u32 *)anywhere(address); }
static inline volatile u64 *qwords(u32 address) { return (volatile u64 *)anywhere(address); }
u64 read_msr(u32 msr);
void write_msr(u32 msr, u64 value);
