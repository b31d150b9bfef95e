//! System-management mode (SDM vol. 3C chapter 32; AMD APM vol. 2 chapter 10). The SMI comes from the
//! local APIC, as an interprocessor interrupt that the processor sends to itself.

#include "suite.h"

const char chapter_name[] = "smm";

#define SMBASE      0x30000                     // after reset (SDM vol. 3C 32.4)
#define OTHER       0x40000                     // where tests move it
#define APIC        0xFEE00000
#define APIC_PAGE   0x418000                    // where it is mapped while there is paging
#define ICR_SMI     0x4200                      // physical destination, SMI, assert

/// What the handler leaves, and what it is told.
struct notes {
    u32 count, cr0, cr4, cs, ds, es, ss, fs, gs, dr7, flags, ip;
};
#define NOTES       0x39000
#define PATCHES     0x39100                     // pairs: offset from SMBASE, value; 0 is the end
#define AGAIN       0x39200                     // send one more SMI
#define IMAGE       0x3A000                     // a copy of the save area, from SMBASE + FC00h on
#define IMAGE_FROM  0xFC00
#define seen        ((volatile struct notes *)anywhere(NOTES))

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }

/// Real-address code with segments of 4 GiB. It uses nothing but memory.
static struct program handler(void) {
    return A16("mov esp, 0x39800; pushfd; mov esi, 0x39000; pop dword ptr [esi + 40];"
               "inc dword ptr [esi];"
               "mov eax, cr0; mov [esi + 4], eax;"
               "mov edi, 0xA3F4; cmp dword ptr [edi], 0; je 1f; mov eax, cr4; mov [esi + 8], eax; 1:"
               "mov [esi + 12], cs; mov [esi + 16], ds; mov [esi + 20], es; mov [esi + 24], ss;"
               "mov [esi + 28], fs; mov [esi + 32], gs; mov eax, dr7; mov [esi + 36], eax;"
               "call 1f; 1: pop word ptr [esi + 44];"
               // The save area.
               "movzx ebx, word ptr [esi + 12]; shl ebx, 4; lea esi, [ebx + 0xFC00]; mov edi, 0x3A000;"
               "mov ecx, 0x100; cld; .byte 0x67, 0x66, 0xF3, 0xA5;"
               // Changes of it.
               "mov ebp, 0x39100; 2: mov ecx, [ebp]; test ecx, ecx; jz 3f; mov eax, [ebp + 4];"
               "mov [ebx + ecx], eax; add ebp, 8; jmp 2b; 3:"
               "mov edi, 0x39200; cmp dword ptr [edi], 0; je 4f; mov dword ptr [edi], 0;"
               "mov edi, 0xFEE00300; mov dword ptr [edi], 0x4200; mov ecx, 1000; 5: dec ecx; jnz 5b; 4:"
               "rsm");
}

/// Offsets of the save area, from SMBASE: SDM vol. 3C tables 32-1 and 32-3, AMD APM vol. 2 table 10-1.
struct layout {
    u32 cr0, cr3, flags, ip, dr6, dr7, revision, smbase;
    u32 r[8];                                   // by number
    u32 es, cs, ss, ds, fs, gs, ldtr, tr;
    u32 efer, cr4, size;                        // size: of registers
};
static const struct layout legacy = {
    0xFFFC, 0xFFF8, 0xFFF4, 0xFFF0, 0xFFCC, 0xFFC8, 0xFEFC, 0xFEF8,
    {0xFFD0, 0xFFD4, 0xFFD8, 0xFFDC, 0xFFE0, 0xFFE4, 0xFFE8, 0xFFEC},
    0xFFA8, 0xFFAC, 0xFFB0, 0xFFB4, 0xFFB8, 0xFFBC, 0xFFC0, 0xFFC4, 0, 0, 4,
};
static const struct layout intel64 = {
    0xFFF8, 0xFFF0, 0xFFE8, 0xFFD8, 0xFFD0, 0xFFC8, 0xFEFC, 0xFEF8,
    {0xFF5C, 0xFF64, 0xFF6C, 0xFF74, 0xFF7C, 0xFF84, 0xFF8C, 0xFF94},
    0xFFA8, 0xFFAC, 0xFFB0, 0xFFB4, 0xFFB8, 0xFFBC, 0xFFC0, 0xFFC4, 0xFFE0, 0, 8,
};
static const struct layout amd64 = {
    0xFF58, 0xFF50, 0xFF70, 0xFF78, 0xFF68, 0xFF60, 0xFEFC, 0xFF00,
    {0xFFF8, 0xFFF0, 0xFFE8, 0xFFE0, 0xFFD8, 0xFFD0, 0xFFC8, 0xFFC0},
    0xFE00, 0xFE10, 0xFE20, 0xFE30, 0xFE40, 0xFE50, 0xFE70, 0xFE90, 0xFED0, 0xFF48, 8,
};
static const struct layout *layout;

static u64 saved(u32 offset, u32 size) {
    u32 at = IMAGE + offset - IMAGE_FROM;
    return size == 8 ? *dwords(at) | (u64)*dwords(at + 4) << 32 : size == 2 ? *dwords(at) & 0xFFFF : *dwords(at);
}

static void patch(u32 n, u32 offset, u32 value) {
    dwords(PATCHES)[2 * n] = offset;
    dwords(PATCHES)[2 * n + 1] = value;
    dwords(PATCHES)[2 * n + 2] = 0;
}

/// A context whose program sends the SMI and goes on when the handler has set the saved RDX to 1.
static void begin_in(enum world world, int ring) {
    place(SMBASE + 0x8000, handler());
    place(OTHER + 0x8000, handler());
    for (u32 i = 0; i < sizeof(struct notes); i += 4)
        *dwords(NOTES + i) = 0;
    *dwords(AGAIN) = 0;
    patch(0, layout->r[RDX], 1);
    fresh(world, ring);
    for (u32 i = 0; i < (is_wide(world) ? 16u : 8u); i++)
        if (i != RSP && i != RDX)
            context.r[i] = 0x11110000 + i;
    context.rflags |= 0x8D5;                    // OF, SF, ZF, AF, PF, CF
    context.r[RBX] = APIC;
    if (context.cr0 & CR0_PG) {
        context.r[RBX] = APIC_PAGE;
        set_identity(world, APIC_PAGE, 0, ~0ull);
        set_identity(world, APIC_PAGE, APIC | PTE_P | PTE_W | PTE_U | PTE_PCD | PTE_A | PTE_D, 0);
    }
    load(is_wide(world) ? A64("mov dword ptr [rbx + 0x300], 0x4200; mov ecx, 1000000; "
                              "1: test edx, edx; jnz 2f; dec ecx; jnz 1b; 2: nop")
                        : A32("mov dword ptr [ebx + 0x300], 0x4200; mov ecx, 1000000; "
                              "1: test edx, edx; jnz 2f; dec ecx; jnz 1b; 2: nop"));
}

static void entry_and_exit(enum world world, int ring) {
    begin_in(world, ring);
    context.dr[0] = 0x12345678;
    u64 efer = context.efer | (context.kind == KIND_LONG ? EFER_LMA : 0);
    run();
    check(completed() && seen->count == 1,
          "SDM vol. 3C 32.3: an SMI enters system-management mode, and RSM leaves it");
    if (!seen->count)
        return;
    begin("SDM vol. 3C table 32-4: on entry CS is SMBASE / 16, EIP 8000h; other selectors 0; CR0 without PE, EM, "
          "TS, PG; CR4 0; EFLAGS 2; DR7 400h");
    expect_value("CS", seen->cs, SMBASE >> 4);
    expect_value("IP", seen->ip & 0xFF00, 0x8000);
    expect_value("DS", seen->ds | seen->es | seen->ss | seen->fs | seen->gs, 0);
    expect_value("CR0", seen->cr0, low(context.cr0) & ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG));
    expect_value("CR4", seen->cr4, 0);
    expect_value("EFLAGS", seen->flags, 2);
    expect_value("DR7", seen->dr7, 0x400);
    end();
    begin("SDM vol. 3C tables 32-1, 32-3, AMD APM vol. 2 table 10-1: the save area holds the interrupted state");
    u32 size = layout->size;
    for (u32 i = 0; i < 8; i++)
        if (i != RCX && i != RDX) {
            title("register %u", i);
            expect_value("register", saved(layout->r[i], size), context.r[i]);
        }
    title("system registers");
    expect_value("CR0", saved(layout->cr0, size), context.cr0);
    expect_value("CR3", saved(layout->cr3, size), context.cr3);
    expect_value("CS", saved(layout->cs, 2), context.cs);
    expect_value("SS", saved(layout->ss, 2), context.ss);
    expect_value("DS", saved(layout->ds, 2), context.ds);
    expect_value("ES", saved(layout->es, 2), context.es);
    expect_value("FS", saved(layout->fs, 2), context.fs);
    expect_value("GS", saved(layout->gs, 2), context.gs);
    expect_value("LDTR", saved(layout->ldtr, 2), context.ldtr);
    expect_value("TR", saved(layout->tr, 2), context.tr);
    expect_value("DR7", saved(layout->dr7, size), context.dr7);
    expect_value("SMBASE", saved(layout->smbase, 4), SMBASE);
    if (layout->efer)
        expect_value("EFER", saved(layout->efer, 8), efer);
    if (layout->cr4)
        expect_value("CR4", saved(layout->cr4, 8), context.cr4);
    u64 ip = saved(layout->ip, size);
    expect(ip > context.rip && ip <= context.rip + program_size);
    // The flags are those of MOV, TEST, or DEC: all but the arithmetic ones are as they were.
    expect_value("EFLAGS", saved(layout->flags, size) & ~0x8D5ull, context.rflags & ~0x8D5ull);
    end();
    begin("SDM vol. 3C 32.7, vol. 2 RSM: everything is as it was, but for what the handler has changed in the save "
          "area");
    expect_value("RDX", record.r[RDX], 1);
    for (u32 i = 0; i < 16; i++)
        if (i != RCX && i != RDX && i != RSP) {
            title("register %u", i);
            expect_value("register", record.r[i], context.r[i]);
        }
    title("system registers");
    expect_value("RSP", result.rsp, context.r[RSP]);
    expect_value("CS", result.cs, context.cs);
    expect_value("SS", result.ss, context.ss);
    expect_value("DS", record.ds, context.ds);
    expect_value("ES", record.es, context.es);
    expect_value("FS", record.fs, context.fs);
    expect_value("GS", record.gs, context.gs);
    expect_value("CR0", record.cr0, context.cr0);
    expect_value("CR3", record.cr3, context.cr3);
    expect_value("CR4", record.cr4, context.cr4);
    end();
}

static void rsm_elsewhere(void) {
    begin("SDM vol. 2 RSM: outside system-management mode #UD");
    for (enum world world = REAL; world < WORLDS; world++)
        for (int ring = 0; ring < 4; ring += 3) {
            if (!has_world(world))
                continue;
            fresh(world, ring);
            load_bytes((const u8[]){0x0F, 0xAA}, 2);
            run();
            title("%s, ring %d", world_names[world], ring);
            expect_fault(UD, 0);
        }
    end();
}

static void relocation(void) {
    begin_in(FLAT, 0);
    run();
    check(completed() && saved(layout->revision, 4) & 1 << 17,
          "SDM vol. 3C 32.9: the revision identifier says whether SMBASE can be moved: bit 17");
    if (!(saved(layout->revision, 4) & 1 << 17))
        return;
    begin_in(FLAT, 0);
    patch(1, layout->smbase, OTHER);
    run();
    bool first = completed() && seen->cs == SMBASE >> 4;
    begin_in(FLAT, 0);
    patch(1, layout->smbase, SMBASE);
    run();
    check(first && completed() && seen->cs == OTHER >> 4 && saved(layout->smbase, 4) == OTHER,
          "SDM vol. 3C 32.11: RSM takes SMBASE from the save area, and the next SMI goes there");
    begin_in(FLAT, 0);
    run();
    check(completed() && seen->cs == SMBASE >> 4, "SDM vol. 3C 32.11: and back again");
}

static void nested(void) {
    begin_in(FLAT, 0);
    *dwords(AGAIN) = 1;
    run();
    check(completed() && seen->count == 2 && saved(layout->r[RDX], 4) == 1,
          "SDM vol. 3C 32.3.1: an SMI that comes in system-management mode waits for RSM");
}

void chapter(void) {
    about(0);
    rsm_elsewhere();
    if (!HAS_APIC) {
        skip("SDM vol. 3C 32.3: SMI", "CPUID lacks APIC, which would send it");
        return;
    }
    if (cpu.amd && !HAS_LM) {
        skip("AMD APM vol. 2 10.2: SMI", "the layout of the save area depends on the model");
        return;
    }
    layout = !HAS_LM ? &legacy : cpu.amd ? &amd64 : &intel64;
    *dwords(APIC + 0xF0) = 0x1FF;               // enabled
    *dwords(APIC + 0x310) = *dwords(APIC + 0x20) & 0xFF000000;  // to itself
    static const struct {
        enum world world;
        int ring;
    } cases[] = {{FLAT, 0}, {PAGED, 0}, {PAGED, 3}, {PAGED_PAE, 3}, {LONG, 0}, {LONG, 3}, {COMPAT, 3}};
    for (u32 i = 0; i < COUNT(cases); i++)
        if (has_world(cases[i].world)) {
            about(world_names[cases[i].world]);
            entry_and_exit(cases[i].world, cases[i].ring);
        }
    about(0);
    relocation();
    nested();
}
