//! Worlds: descriptor tables and registers that a program begins with.

#include "suite.h"

void enter(void);
void tap_begin(void);
void tap_end(void);
void spaces_init(void);
u32 space_root(enum world world);
extern u8 handlers16[], handlers32[], handlers64[], home_handlers[];
struct idtr { u16 limit; u32 base; } __attribute__((packed));
extern struct idtr home_idt_pointer;

const char *const world_names[WORLDS] = {
    "real mode", "protected mode", "32-bit paging", "PAE paging", "64-bit mode",
    "64-bit mode, 5 levels", "compatibility mode", "virtual-8086 mode",
};

struct result result;
struct cpu cpu;
unsigned program_size;
bool soft_interrupt;

u64 gdt[GDT_ENTRIES] __attribute__((aligned(16)));
u64 ldt[16] __attribute__((aligned(16)));
u64 idt[512] __attribute__((aligned(16)));
u8 tss[0x2080] __attribute__((aligned(4096)));
static u64 home_idt[256] __attribute__((aligned(16)));

//
// Descriptors
//

u64 descriptor(u32 base, u32 limit, u32 attributes) {
    u32 first = base << 16 | (limit & 0xFFFF);
    u32 second = (base & 0xFF000000) | (limit & 0xF0000) | (base >> 16 & 0xFF) |
                 (attributes & 0xF0FF) << 8;
    return (u64)second << 32 | first;
}

u64 gate(u16 selector, u32 offset, u32 attributes, u8 parameters) {
    u32 first = (u32)selector << 16 | (offset & 0xFFFF);
    u32 second = (offset & 0xFFFF0000) | (attributes & 0xFF) << 8 | parameters;
    return (u64)second << 32 | first;
}

void gate64(u64 *table, u16 selector, u64 offset, u32 attributes, u8 ist) {
    table[0] = gate(selector, low(offset), attributes, ist);
    table[1] = offset >> 32;
}

void set_gdt(u16 selector, u64 value) { gdt[selector >> 3] = value; }

static void gdt_init(void) {
    enum { READ_WRITE = DATA | WRITABLE | PRESENT, RUN = CODE_SEGMENT | READABLE | PRESENT };
    for (unsigned i = 0; i < GDT_ENTRIES; i++)
        gdt[i] = 0;
    set_gdt(SEL_CODE32, descriptor(0, 0xFFFFF, RUN | G | B));
    set_gdt(SEL_DATA, descriptor(0, 0xFFFFF, READ_WRITE | G | B));
    set_gdt(SEL_USER_CODE32, descriptor(0, 0xFFFFF, RUN | G | B | DPL(3)));
    set_gdt(SEL_USER_DATA, descriptor(0, 0xFFFFF, READ_WRITE | G | B | DPL(3)));
    set_gdt(SEL_USER_CODE64, descriptor(0, 0xFFFFF, RUN | G | L | DPL(3)));
    set_gdt(SEL_USER_DATA2, descriptor(0, 0xFFFFF, READ_WRITE | G | B | DPL(3)));
    set_gdt(SEL_CODE64, descriptor(0, 0xFFFFF, RUN | G | L));
    set_gdt(SEL_CODE16, descriptor(0, 0xFFFF, RUN));
    set_gdt(SEL_DATA16, descriptor(0, 0xFFFF, READ_WRITE));
    set_gdt(SEL_USER_CODE16, descriptor(USER_CODE, 0xFFFF, RUN | DPL(3)));
    set_gdt(SEL_USER_DATA16, descriptor(USER_DATA, 0xFFFF, READ_WRITE | DPL(3)));
    // The limit takes in the I/O map with its last byte.
    set_gdt(SEL_TSS, descriptor((u32)tss, TSS32_SIZE + 0x2000, TSS32 | PRESENT));
    set_gdt(SEL_LDT, descriptor((u32)ldt, sizeof ldt - 1, LDT | PRESENT));
    for (unsigned i = 0; i < COUNT(ldt); i++)
        ldt[i] = 0;
}

static void tss_init(bool wide) {
    for (unsigned i = 0; i < sizeof tss; i++)
        tss[i] = i < TSS32_SIZE ? 0 : 0xFF;     // no port is allowed
    u32 *fields = (u32 *)tss;
    if (wide) {                                 // SDM vol. 3A 8.7
        fields[1] = RING0_STACK_TOP;
        fields[3] = RING1_STACK_TOP;
        fields[5] = RING2_STACK_TOP;
        fields[9] = IST1_STACK_TOP;
        fields[11] = IST2_STACK_TOP;
    } else {                                    // SDM vol. 3A 8.2.1
        fields[1] = RING0_STACK_TOP;
        fields[2] = SEL_DATA;
        fields[3] = RING1_STACK_TOP;
        fields[5] = RING2_STACK_TOP;
        fields[7] = low(context.cr3);           // a switch back to this task loads it
    }
    fields[25] = TSS32_SIZE << 16;              // where the I/O map is
}

static void idt_init(enum world world) {
    if (world == REAL) {
        u32 *ivt = 0;
        for (u32 i = 0; i < 256; i++)
            // Written so that the compiler does not take address zero for a mistake.
            asm volatile("mov [%0], %1" ::"r"(&ivt[i]), "r"((u32)handlers16 + 3 * i) : "memory");
        return;
    }
    bool wide = context.kind == KIND_LONG;
    for (u32 i = 0; i < 256; i++) {
        u32 attributes = INT_GATE32 | PRESENT | (i == BP ? DPL(3) : 0);
        if (wide)
            gate64(&idt[2 * i], SEL_CODE64, (u32)handlers64 + 5 * i, attributes, i == DF ? 1 : 0);
        else
            idt[i] = gate(SEL_CODE32, (u32)handlers32 + 5 * i, attributes, 0);
    }
}

//
// Contexts
//

bool has_world(enum world world) {
    switch (world) {
    case PAGED_PAE: return HAS_PAE;
    case LONG:
    case COMPAT: return HAS_LM;
    case LONG5: return HAS_LM && HAS_LA57;
    default: return true;
    }
}

static void clear(void *at, unsigned size) {
    for (u8 *p = at; size--;)
        *p++ = 0;
}

static void segments(u32 cs, u32 data) {
    context.cs = cs;
    context.ss = context.ds = context.es = context.fs = context.gs = data;
}

static void paging(enum world world) {
    switch (world) {
    case PAGED: break;
    case PAGED_PAE: context.cr4 = CR4_PAE; break;
    case LONG5: context.cr4 = CR4_LA57; // fall through
    case LONG:
    case COMPAT:
        context.cr4 |= CR4_PAE;
        context.efer = EFER_LME;
        context.kind = KIND_LONG;
        break;
    default: return;
    }
    if (HAS_PSE)
        context.cr4 |= CR4_PSE;
    if (HAS_NX && world != PAGED)
        context.efer |= EFER_NXE;
    context.cr0 |= CR0_PG;
    context.cr3 = space_root(world);
}

/// Rings 1 and 2: segments at the end of the GDT, and the kernel's memory.
static void middle_ring(int ring, bool long64) {
    u32 attributes = PRESENT | DPL(ring) | G;
    set_gdt(SEL_TEST + 0xE0, descriptor(0, 0xFFFFF, CODE_SEGMENT | READABLE | attributes |
                                                    (long64 ? L : B)));
    set_gdt(SEL_TEST + 0xE8, descriptor(0, 0xFFFFF, DATA | WRITABLE | attributes | B));
    segments((SEL_TEST + 0xE0) | ring, (SEL_TEST + 0xE8) | ring);
}

void fresh(enum world world, int ring) {
    clear(&context, sizeof context);
    soft_interrupt = false;
    context.rflags = 2;
    context.dr7 = 0x400;
    context.cr0 = world == REAL ? CR0_ET : HOME_CR0 | CR0_WP;
    context.kind = world == REAL ? KIND_REAL : KIND_PROTECTED;
    paging(world);
    bool wide = context.kind == KIND_LONG;
    gdt_init();
    tss_init(wide);
    idt_init(world);
    context.gdtr.limit = sizeof gdt - 1;
    context.gdtr.base = (u32)gdt;
    context.idtr.limit = wide ? 0xFFF : 0x7FF;
    context.idtr.base = (u32)idt;
    context.tr = SEL_TSS;
    context.ldtr = SEL_LDT;
    if (world == REAL || world == V86) {
        segments(LOW_CODE >> 4, LOW_DATA >> 4);
        context.ss = LOW_STACK >> 4;
        context.r[RSP] = LOW_STACK_TOP;
        if (world == V86)
            context.rflags |= FLAGS_VM;
        else
            context.idtr = (struct pseudo_descriptor){.limit = 0x3FF, .base = 0};
        return;
    }
    bool long64 = world == LONG || world == LONG5;
    if (ring == 1 || ring == 2)
        middle_ring(ring, long64);
    else if (ring == 3)
        segments(long64 ? SEL_USER_CODE64 : SEL_USER_CODE32, SEL_USER_DATA);
    else
        segments(long64 ? SEL_CODE64 : SEL_CODE32, SEL_DATA);
    context.rip = ring == 3 ? USER_CODE : KERNEL_CODE;
    context.r[RSP] = ring == 3 ? USER_STACK_TOP : KERNEL_STACK_TOP;
}

void fresh16(enum world world, int ring) {
    fresh(world, ring);
    if (ring == 3) {
        segments(SEL_USER_CODE16, SEL_USER_DATA16);
        context.rip = 0;
    } else {
        set_gdt(SEL_TEST + 0xF0, descriptor(KERNEL_CODE, 0xFFFF,
                                            CODE_SEGMENT | READABLE | PRESENT));
        set_gdt(SEL_TEST + 0xF8, descriptor(KERNEL_DATA, 0xFFFF, DATA | WRITABLE | PRESENT));
        segments(SEL_TEST + 0xF0, SEL_TEST + 0xF8);
        context.rip = 0;
    }
    context.r[RSP] = 0xFF00;
}

//
// Programs
//

/// The linear address that the context begins at; segments with a base are those of `fresh16`.
static u32 first_address(void) {
    if (context.kind == KIND_REAL || context.rflags & FLAGS_VM)
        return (context.cs << 4) + low(context.rip);
    u64 code = (context.cs & 4 ? ldt : gdt)[context.cs >> 3];
    u32 base = low(code >> 16 & 0xFFFFFF) | (low(code >> 32) & 0xFF000000);
    return base + low(context.rip);
}

void place(u32 address, struct program program) {
    u8 *to = bytes(address);
    for (const u8 *from = program.start; from != program.end;)
        *to++ = *from++;
}

void load(struct program program) {
    place(first_address(), program);
    program_size = program.end - program.start - 1;
}

void load_bytes(const u8 *code, unsigned count) {
    u8 *to = bytes(first_address());
    for (unsigned i = 0; i < count; i++)
        to[i] = code[i];
    to[count] = 0xCC;
    program_size = count;
}

/// Exceptions with an error code (SDM vol. 3A table 6-1).
static bool pushes_error(u32 vector) {
    switch (vector) {
    case DF: case TS: case NP: case SS: case GP: case PF: case AC: return !soft_interrupt;
    default: return false;
    }
}

static void take_apart_long(void) {
    // RSP was aligned to 16 bytes before the five or six quadwords (SDM vol. 3A 6.14.2).
    const u64 *frame = (const u64 *)record.frame;
    result.has_error = !(record.handler_sp & 8);
    if (result.has_error)
        result.error = low(*frame++);
    result.rip = frame[0];
    result.cs = low(frame[1]);
    result.rflags = frame[2];
    result.rsp = frame[3];
    result.ss = low(frame[4]);
    result.above = (const u32 *)&frame[5];
}

static void take_apart_protected(void) {
    const u32 *frame = record.frame;
    result.has_error = pushes_error(result.vector);
    if (result.has_error)
        result.error = *frame++;
    result.rip = frame[0];
    result.cs = frame[1] & 0xFFFF;
    result.rflags = frame[2];
    bool v86 = result.rflags & FLAGS_VM;
    if (v86 || (result.cs & 3) > (record.handler_cs & 3)) {
        result.rsp = frame[3];
        result.ss = frame[4] & 0xFFFF;
        result.above = frame + 5;
    } else {
        result.rsp = low(record.handler_sp) + (frame + 3 - record.frame) * 4;
        result.ss = record.handler_ss;
        result.above = frame + 3;
    }
    if (v86) {
        result.v86_es = frame[5];
        result.v86_ds = frame[6];
        result.v86_fs = frame[7];
        result.v86_gs = frame[8];
        result.above = frame + 9;
    }
}

static void take_apart_real(void) {
    const u16 *frame = (const u16 *)record.frame;
    result.has_error = false;
    result.rip = frame[0];
    result.cs = frame[1];
    result.rflags = frame[2];
    result.rsp = (low(record.handler_sp) + 6) & 0xFFFF;
    result.ss = record.handler_ss;
    result.above = (const u32 *)(frame + 3);
}

u32 run(void) {
    clear(&record, sizeof record);
    record.vector = NOTHING;
    gdt[context.tr >> 3] &= ~(2ull << 40);      // LTR wants a TSS that is not busy
    enter();
    clear(&result, sizeof result);
    result.vector = record.vector;
    result.cr2 = record.cr2;
    if (context.kind == KIND_LONG)
        take_apart_long();
    else if (context.kind == KIND_PROTECTED)
        take_apart_protected();
    else
        take_apart_real();
    return result.vector;
}

u32 run_program(struct program program) {
    load(program);
    return run();
}

bool completed(void) {
    return result.vector == BP && result.rip == context.rip + program_size + 1;
}

//
// This processor
//

static bool flag_changes(u32 flag) {
    u32 before, after;
    asm volatile("pushfd; pop %0; mov %1, %0; xor %1, %2; push %1; popfd; pushfd; pop %1; "
                 "push %0; popfd"
                 : "=&r"(before), "=&r"(after)
                 : "r"(flag));
    return (before ^ after) & flag;
}

static void cpuid(u32 leaf, u32 r[4]) {
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "0"(leaf), "2"(0));
}

static void identify(u32 signature) {
    u32 r[4];
    cpu.signature = signature;
    cpu.phys_bits = 32;
    cpu.linear_bits = 32;
    cpu.cpuid = flag_changes(FLAGS_ID);
    if (!cpu.cpuid) {
        note("signature %x, no CPUID", signature);
        cpu.edx1 = 1;           // a coprocessor is taken for granted
        return;
    }
    cpuid(0, r);
    u32 leaves = r[0];
    cpu.amd = r[1] == 0x68747541;               // "Auth"
    cpuid(1, r);
    cpu.signature = r[0];
    cpu.edx1 = r[3];
    cpu.ecx1 = r[2];
    if (leaves >= 7) {
        cpuid(7, r);
        cpu.ebx7 = r[1];
        cpu.ecx7 = r[2];
        cpu.edx7 = r[3];
    }
    cpuid(0x80000000, r);
    u32 extended = r[0] >= 0x80000000 ? r[0] : 0;
    if (extended >= 0x80000001) {
        cpuid(0x80000001, r);
        cpu.edx81 = r[3];
        cpu.ecx81 = r[2];
    }
    cpu.phys_bits = HAS_PAE || HAS_PSE36 ? 36 : 32;
    if (HAS_LM)
        cpu.linear_bits = 48;
    if (extended >= 0x80000008) {
        cpuid(0x80000008, r);
        cpu.phys_bits = r[0] & 0xFF;
        cpu.linear_bits = r[0] >> 8 & 0xFF;
        cpu.ebx88 = r[1];
    }
    note("%s, signature %x, %d bits physical, %d linear", cpu.amd ? "AMD" : "Intel or other",
         cpu.signature, cpu.phys_bits, cpu.linear_bits);
}

u64 read_msr(u32 msr) {
    u64 value;
    asm volatile("rdmsr" : "=A"(value) : "c"(msr));
    return value;
}

void write_msr(u32 msr, u64 value) { asm volatile("wrmsr" ::"A"(value), "c"(msr)); }

static void home_init(void) {
    for (u32 i = 0; i < 256; i++)
        home_idt[i] = gate(SEL_CODE32, (u32)home_handlers + 5 * i, INT_GATE32 | PRESENT, 0);
    home_idt_pointer = (struct idtr){sizeof home_idt - 1, (u32)home_idt};
    asm volatile("lidt [%0]" ::"r"(&home_idt_pointer) : "memory");
    out8(0x21, 0xFF);           // no interrupts from the 8259As until a test wants them
    out8(0xA1, 0xFF);
}

void suite_main(u32 signature) {
    home_init();
    tap_begin();
    identify(signature);
    // CR4 came with the late 486s; what it has needs one of these.
    *dwords(HAS_CR4) = (cpu.edx1 & 0x21DE) != 0;
    *dwords(HAS_EFER) = (cpu.edx81 & (1 << 11 | 1 << 20 | 1 << 29)) != 0;
    spaces_init();
    chapter();
    tap_end();
}
