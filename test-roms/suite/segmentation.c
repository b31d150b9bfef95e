//! Segmentation: descriptors, loads, limits (SDM vol. 3A chapters 3 and 5).

#include "access.h"

const char chapter_name[] = "segmentation";

//
// Loading segment registers
//

/// SDM vol. 2, MOV, "Operation": loading DS, ES, FS or GS; vol. 3A 5.6.
static struct fault data_load(u32 byte, u32 selector, u32 cpl) {
    struct access a = access_of(byte);
    u32 rpl = selector & 3;
    if (!a.readable)
        return fault(GP, selector & ~3);
    if (!a.conforming && (rpl > a.dpl || cpl > a.dpl))
        return fault(GP, selector & ~3);
    if (!a.present)
        return fault(NP, selector & ~3);
    return NO_FAULT;
}

/// SDM vol. 2, MOV, "Operation": loading SS; vol. 3A 5.7.
static struct fault stack_load(u32 byte, u32 selector, u32 cpl) {
    struct access a = access_of(byte);
    if ((selector & 3) != cpl || !a.writable || a.dpl != cpl)
        return fault(GP, selector & ~3);
    if (!a.present)
        return fault(SS, selector & ~3);
    return NO_FAULT;
}

static void load_each(enum world world, const char *text, struct program program,
                      struct fault (*rule)(u32, u32, u32)) {
    begin(text);
    for (u32 cpl = 0; cpl < 4; cpl++) {
        fresh(world, cpl);
        load(program);
        for (u32 byte = 0; byte < 256; byte++) {
            for (u32 rpl = 0; rpl < 4; rpl++) {
                u32 selector = SEL_TEST | rpl;
                set_gdt(SEL_TEST, flat_segment(byte));
                context.r[RAX] = selector;
                run();
                struct fault expected = rule(byte, selector, cpl);
                title("CPL %u, RPL %u, access byte %x", cpl, rpl, byte);
                if (expected.vector != BP)
                    expect_fault(expected.vector, expected.error);
                else if (expect_completes())
                    expect_value("access byte after it", gdt[SEL_TEST >> 3] >> 40 & 0xFF,
                                 byte | ACCESSED);
            }
        }
    }
    end();
}

static void loads(enum world world) {
    about(world_names[world]);
    bool wide = world == LONG;
#define LOAD(text) wide ? A64(text) : A32(text)
    load_each(world, "SDM vol. 3A 5.6, vol. 2 MOV: loading DS checks type, DPL, P; sets A",
              LOAD("mov ds, eax"), data_load);
    load_each(world, "SDM vol. 3A 5.6, vol. 2 MOV: loading ES checks type, DPL, P; sets A",
              LOAD("mov es, eax"), data_load);
    load_each(world, "SDM vol. 3A 5.6, vol. 2 MOV: loading FS checks type, DPL, P; sets A",
              LOAD("mov fs, eax"), data_load);
    load_each(world, "SDM vol. 3A 5.6, vol. 2 POP: POP GS checks type, DPL, P; sets A",
              wide ? A64("push rax; pop gs") : A32("push eax; pop gs"), data_load);
    load_each(world, "SDM vol. 3A 5.7, vol. 2 MOV: loading SS checks RPL, type, DPL, P; sets A",
              LOAD("mov ss, eax"), stack_load);
}

static void selectors(enum world world) {
    about(world_names[world]);
    bool wide = world == LONG;
    begin("SDM vol. 3A 3.4.2, 5.4.1: DS takes null selectors, SS does not (but RPL = CPL < 3 in "
          "64-bit mode)");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 selector = 0; selector < 4; selector++) {
            fresh(world, cpl);
            context.r[RAX] = selector;
            title("DS, CPL %u, selector %x", cpl, selector);
            run_program(wide ? A64("mov ds, eax; mov ecx, ds") : A32("mov ds, eax; mov ecx, ds"));
            if (expect_completes())
                expect_value("DS", record.r[RCX], selector);
            title("SS, CPL %u, selector %x", cpl, selector);
            run_program(LOAD("mov ss, eax"));
            if (wide && cpl < 3 && selector == cpl)
                expect_completes();
            else
                expect_fault(GP, 0);
        }
    end();

    begin("SDM vol. 3A 3.5.1, 5.3: a selector past the limit of the GDT or LDT raises #GP(selector)");
    for (u32 bytes = 0; bytes < 8; bytes++) {
        fresh(world, 0);
        context.gdtr.limit = SEL_TEST + bytes;
        set_gdt(SEL_TEST, flat_segment(DATA | WRITABLE | PRESENT));
        context.r[RAX] = SEL_TEST;
        title("GDT limit %x", SEL_TEST + bytes);
        run_program(LOAD("mov ds, eax"));
        if (bytes == 7)
            expect_completes();
        else
            expect_fault(GP, SEL_TEST);
        fresh(world, 0);
        set_gdt(SEL_LDT, descriptor((u32)ldt, 8 + bytes, LDT | PRESENT));
        ldt[1] = flat_segment(DATA | WRITABLE | PRESENT);
        context.r[RAX] = 8 | ERROR_TI;
        title("LDT limit %x", 8 + bytes);
        run_program(LOAD("mov es, eax"));
        if (bytes == 7)
            expect_completes();
        else
            expect_fault(GP, 8 | ERROR_TI);
    }
    end();

    fresh(world, 0);
    context.ldtr = 0;
    ldt[1] = flat_segment(DATA | WRITABLE | PRESENT);
    context.r[RAX] = 8 | ERROR_TI;
    run_program(LOAD("mov ds, eax"));
    check_fault(GP, 8 | ERROR_TI, "SDM vol. 3A 2.4.2, vol. 2 LLDT: with a null LDTR a selector "
                                  "into the LDT raises #GP(selector)");
}

//
// Limits (SDM vol. 3A 5.3)
//

static const u32 sizes[] = {1, 2, 4};
static struct program access_program(u32 size, bool write, bool stack) {
    if (stack)
        return size == 1 ? A32("mov al, ss:[ebx]") : size == 2 ? A32("mov ax, ss:[ebx]")
                                                               : A32("mov eax, ss:[ebx]");
    if (write)
        return size == 1 ? A32("mov [ebx], al") : size == 2 ? A32("mov [ebx], ax")
                                                            : A32("mov [ebx], eax");
    return size == 1 ? A32("mov al, [ebx]") : size == 2 ? A32("mov ax, [ebx]")
                                                        : A32("mov eax, [ebx]");
}

struct limit {
    u32 limit;
    bool granular, down, big;
};

/// Whether `size` bytes at `offset` are within the segment.
static bool within(struct limit l, u32 offset, u32 size) {
    u32 limit = l.granular ? l.limit << 12 | 0xFFF : l.limit;
    u64 last = (u64)offset + size - 1;
    if (!l.down)
        return last <= limit;
    return offset > limit && last <= (l.big ? 0xFFFFFFFF : 0xFFFF);
}

static void limits(enum world world) {
    about(world_names[world]);
    // The segment's base is low enough for all offsets that are allowed to be RAM; where they would
    // not be, the access is left out.
    static const struct limit table[] = {
        {0, 0, 0, 1}, {1, 0, 0, 1}, {0x7F, 0, 0, 1}, {0xFFF, 0, 0, 0}, {0xFFFF, 0, 0, 0},
        {0x10000, 0, 0, 0}, {0, 1, 0, 1}, {1, 1, 0, 1}, {0x10, 1, 0, 0}, {0, 0, 1, 0},
        {0x7F, 0, 1, 0}, {0xFFF, 0, 1, 0}, {0xFFFE, 0, 1, 0}, {0xFFFF, 0, 1, 0}, {0, 1, 1, 0},
        {1, 1, 1, 0}, {0xF, 1, 1, 0}, {0xFFF, 0, 1, 1}, {0x10, 1, 1, 1},
    };
    begin("SDM vol. 3A 5.3: limits of expand-up and expand-down segments, B and G, sizes 1, 2, 4");
    for (u32 i = 0; i < COUNT(table); i++) {
        struct limit l = table[i];
        u32 edge = l.granular ? l.limit << 12 | 0xFFF : l.limit;
        for (u32 kind = 0; kind < 3; kind++) {
            fresh(world, 0);
            set_gdt(SEL_TEST, descriptor(PAGES, l.limit, DATA | WRITABLE | PRESENT |
                                         (l.down ? EXPAND_DOWN : 0) | (l.big ? B : 0) |
                                         (l.granular ? G : 0)));
            context.ds = SEL_TEST;
            for (u32 j = 0; j < COUNT(sizes); j++)
                for (int delta = -5; delta < 16; delta++) {
                    u32 offset = delta < 6    ? edge + delta
                                 : delta < 12 ? 0xFFF5u + delta
                                              : delta - 12u;
                    bool good = within(l, offset, sizes[j]);
                    if (good && offset > 0xFFFFF)
                        continue;
                    context.r[RBX] = offset;
                    if (kind == 2) {
                        load(A32("mov ecx, ss; mov eax, ds; mov ss, eax; mov edx, ss:[ebx]; "
                                 "mov ss, ecx"));
                        if (sizes[j] != 4)
                            continue;
                    } else {
                        load(access_program(sizes[j], kind == 1, false));
                    }
                    if (kind == 2 && !good)
                        continue;       // the handler would have no stack: see below
                    run();
                    title("limit %x, G %u, expand-down %u, B %u: %u bytes at %x", l.limit,
                          l.granular, l.down, l.big, sizes[j], offset);
                    if (good)
                        expect_completes();
                    else
                        expect_fault(GP, 0);
                }
        }
    }
    end();

    begin("SDM vol. 3A 5.3, 6.15 (#SS): past the limit of the stack segment is #SS(0)");
    for (u32 j = 0; j < COUNT(sizes); j++)
        for (u32 delta = 0; delta < 6; delta++) {
            fresh(world, 3);
            set_gdt(SEL_TEST, descriptor(USER_DATA, 0xFFF, DATA | WRITABLE | PRESENT | DPL(3) | B));
            context.ss = SEL_TEST | 3;
            context.r[RSP] = 0x800;
            context.r[RBX] = 0xFFB + delta;
            run_program(access_program(sizes[j], false, true));
            title("%u bytes at %x of 1000h", sizes[j], 0xFFB + delta);
            if (0xFFB + delta + sizes[j] <= 0x1000)
                expect_completes();
            else
                expect_fault(SS, 0);
        }
    end();

    static const struct {
        u32 type;
        bool read, write;
    } types[] = {
        {DATA, true, false}, {DATA | WRITABLE, true, true},
        {CODE_SEGMENT | READABLE, true, false}, {CODE_SEGMENT | READABLE | CONFORMING, true, false},
    };
    begin("SDM vol. 3A 3.4.5.1, 5.5: writing to read-only data or code raises #GP(0)");
    for (u32 i = 0; i < COUNT(types); i++) {
        fresh(world, 0);
        set_gdt(SEL_TEST, descriptor(PAGES, 0xFFFFF, types[i].type | PRESENT | B | G));
        context.ds = SEL_TEST;
        for (u32 write = 0; write < 2; write++) {
            title("type %x, write %u", types[i].type, write);
            run_program(write ? A32("mov dword ptr [0], eax") : A32("mov eax, dword ptr [0]"));
            if (write ? types[i].write : types[i].read)
                expect_completes();
            else
                expect_fault(GP, 0);
        }
    }
    end();

    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | DPL(3) | B | G));
    context.cs = SEL_TEST | 3;
    run_program(A32("mov eax, cs:[0x400000]"));
    check_fault(GP, 0, "SDM vol. 3A 3.4.5.1, 5.5: reading through an execute-only CS is #GP(0)");

    begin("SDM vol. 3A 5.4.1: an access through a null DS, ES, FS or GS raises #GP(0)");
    static const u8 overrides[] = {0x3E, 0x26, 0x64, 0x65};
    for (u32 cpl = 0; cpl < 4; cpl += 3)
        for (u32 i = 0; i < COUNT(overrides); i++) {
            fresh(world, cpl);
            context.ds = context.es = context.fs = context.gs = 0;
            u8 code[] = {overrides[i], 0x8A, 0x03};    // MOV AL, [EBX]
            context.r[RBX] = USER_DATA;
            load_bytes(code, sizeof code);
            run();
            title("prefix %x, CPL %u", overrides[i], cpl);
            expect_fault(GP, 0);
        }
    end();
}

static void code_limits(enum world world) {
    about(world_names[world]);
    // CS ends in the middle of a NOP slide; the instruction that begins past it faults.
    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(0, USER_CODE + 4, CODE_SEGMENT | READABLE | PRESENT | DPL(3) | B));
    set_gdt(SEL_TEST, descriptor(USER_CODE, 3, CODE_SEGMENT | READABLE | PRESENT | DPL(3) | B));
    context.cs = SEL_TEST | 3;
    context.rip = 0;
    run_program(A32("nop; nop; nop; nop; nop"));
    check(result.vector == GP && result.error == 0 && result.rip == 4,
          "SDM vol. 3A 5.3: fetching past the limit of CS is #GP(0) at that instruction");

    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(USER_CODE, 3, CODE_SEGMENT | READABLE | PRESENT | DPL(3) | B));
    context.cs = SEL_TEST | 3;
    context.rip = 0;
    run_program(A32("nop; nop; mov eax, 0x12345678"));
    check(result.vector == GP && result.error == 0 && result.rip == 2,
          "SDM vol. 3A 5.3: an instruction that crosses the limit of CS is #GP(0) at its start");

    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(USER_CODE, 0xFF, CODE_SEGMENT | READABLE | PRESENT | DPL(3) | B));
    context.cs = SEL_TEST | 3;
    context.rip = 0;
    context.r[RAX] = 0x100;
    run_program(A32("nop; jmp eax"));
    check(result.vector == GP && result.error == 0 && result.rip == 1,
          "SDM vol. 2 JMP: a near jump past the limit of CS is #GP(0) at the jump");
    run_program(A32("nop; call eax"));
    check(result.vector == GP && result.error == 0 && result.rip == 1 &&
              result.rsp == context.r[RSP],
          "SDM vol. 2 CALL: a near call past the limit of CS is #GP(0), nothing pushed");
    run_program(A32("push eax; ret"));
    check(result.vector == GP && result.error == 0 && result.rip == 1,
          "SDM vol. 2 RET: a near return past the limit of CS is #GP(0)");
    run_program(A32("jmp .+0x100"));
    check(result.vector == GP && result.error == 0 && result.rip == 0,
          "SDM vol. 2 JMP: a relative jump past the limit of CS is #GP(0) at the jump");
}

/// What an emulator that keeps decoded code may get wrong: the same bytes under other segments.
static void code_segments_that_change(void) {
    fresh(FLAT, 3);
    u32 attributes = CODE_SEGMENT | READABLE | PRESENT | DPL(3) | B;
    context.cs = SEL_TEST | 3;
    context.rip = 0;
    set_gdt(SEL_TEST, descriptor(USER_CODE, 0xFFFF, attributes));
    load(A32("nop; nop; nop; nop; jmp 1f; .skip 0x40, 0x90; 1:"));
    run();
    bool wide = completed();
    set_gdt(SEL_TEST, descriptor(USER_CODE, 2, attributes));
    run();
    bool narrow = result.vector == GP && result.rip == 3;
    set_gdt(SEL_TEST, descriptor(USER_CODE, 0x20, attributes));
    run();
    bool branch = result.vector == GP && result.rip == 4;
    set_gdt(SEL_TEST, descriptor(USER_CODE, 0xFFFF, attributes));
    run();
    check(wide && narrow && branch && completed(),
          "SDM vol. 3A 5.3: the limit of CS is the present one, for code that ran before too");

    // Two pieces of code with the same offset, one after the other.
    fresh(REAL, 0);
    context.rip = 0x10;
    load(A16("inc bx; cmp bx, 50; jae 1f; jmp 0x1100:0x10; 1:"));
    place(LOW_CODE + 0x1010, A16("inc cx; jmp 0x1000:0x10"));
    run();
    check(completed() && record.r[RBX] == 50 && record.r[RCX] == 49,
          "SDM vol. 3A 21.1.1: far jumps between segments to the same offset");
    fresh(REAL, 0);
    context.rip = 0x10;
    load(A16("inc bx; cmp bx, 50; jae 1f; push 0x1100; push 0x10; retf; 1:"));
    place(LOW_CODE + 0x1010, A16("inc cx; mov ax, 0x10; push 0x1000; push ax; retf"));
    run();
    check(completed() && record.r[RBX] == 50 && record.r[RCX] == 49,
          "SDM vol. 3A 21.1.1: far returns between segments to the same offset");
}

static void stack_size(enum world world) {
    about(world_names[world]);
    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(USER_DATA, 0xFFFF, DATA | WRITABLE | PRESENT | DPL(3)));
    context.ss = SEL_TEST | 3;
    context.r[RAX] = 0xA1B2C3D4;
    run_program(A32("mov esp, 0x12340000; push eax; mov ebx, esp"));
    check(completed() && low(record.r[RBX]) == 0x1234FFFC &&
              *dwords(USER_DATA + 0xFFFC) == 0xA1B2C3D4,
          "SDM vol. 1 6.2.3: with B clear PUSH wraps and changes only SP");

    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(USER_DATA, 0xFFFF, DATA | WRITABLE | PRESENT | DPL(3)));
    context.ss = SEL_TEST | 3;
    context.r[RSP] = 2;
    run_program(A32("push eax"));
    check_fault(SS, 0, "SDM vol. 3A 5.3: a PUSH that straddles the end of a 16-bit stack is #SS(0)");

    fresh(world, 3);
    set_gdt(SEL_TEST, descriptor(USER_DATA, 0xFFFF, DATA | WRITABLE | PRESENT | DPL(3)));
    context.ss = SEL_TEST | 3;
    context.r[RBP] = 0xABCD8000;
    run_program(A32("mov esp, 0x8000; enter 16, 0; mov eax, ebp; mov edx, esp; leave; "
                    "mov ebx, esp"));
    check(completed() && (record.r[RAX] & 0xFFFF) == 0x7FFC &&
              (record.r[RDX] & 0xFFFF) == 0x7FEC && (record.r[RBX] & 0xFFFF) == 0x8000 &&
              low(record.r[RBP]) == 0xABCD8000,
          "SDM vol. 2 ENTER, LEAVE: a 16-bit stack is counted in SP");
}

//
// Real mode (SDM vol. 3A 20.1)
//

static void real_mode(void) {
    about("real mode");
    fresh(REAL, 0);
    context.ds = 0x2345;
    context.r[RBX] = 0x10;
    *dwords(0x23460) = 0x89ABCDEF;
    run_program(A16("mov eax, [bx]"));
    check_value(record.r[RAX], 0x89ABCDEF, "SDM vol. 3A 21.1.1: a segment's base is 16 times it");

    begin("SDM vol. 3A 21.1.4, 6.15: past FFFFh is #GP, through SS #SS, without error codes");
    for (u32 j = 0; j < COUNT(sizes); j++)
        for (u32 offset = 0xFFFC; offset < 0x10004; offset++)
            for (u32 stack = 0; stack < 2; stack++) {
                fresh(REAL, 0);
                context.r[RBX] = offset;
                if (stack)
                    run_program(sizes[j] == 1   ? A16("mov al, ss:[ebx]")
                                : sizes[j] == 2 ? A16("mov ax, ss:[ebx]")
                                                : A16("mov eax, ss:[ebx]"));
                else
                    run_program(sizes[j] == 1   ? A16("mov [ebx], al")
                                : sizes[j] == 2 ? A16("mov [ebx], ax")
                                                : A16("mov [ebx], eax"));
                title("%u bytes at %x, SS %u", sizes[j], offset, stack);
                if (offset + sizes[j] <= 0x10000)
                    expect_completes();
                else
                    expect_fault(stack ? SS : GP, 0);
            }
    end();

    fresh(REAL, 0);
    context.r[RSP] = 0;
    context.r[RAX] = 0x55AA;
    run_program(A16("push ax; mov bx, sp; mov sp, 0x100"));
    check(completed() && low(record.r[RBX]) == 0xFFFE &&
              *(volatile u16 *)(LOW_STACK + 0xFFFE) == 0x55AA,
          "SDM vol. 3A 21.1: the stack wraps from 0 to FFFEh");

    fresh(REAL, 0);
    context.rip = 0xFFFE;
    bytes(LOW_CODE)[0xFFFE] = 0x90;
    bytes(LOW_CODE)[0xFFFF] = 0x90;
    bytes(LOW_CODE)[0] = 0xCC;
    run();
    check(result.vector == GP || (result.vector == BP && result.rip == 1),
          "SDM vol. 3A 21.1: execution past FFFFh is #GP (or wraps on an 8086)");

    // Big real mode: a limit that was loaded in protected mode stays (SDM vol. 3A 10.9.2).
    fresh(REAL, 0);
    *dwords(0x310000) = 0x76543210;
    context.gdtr.limit = sizeof gdt - 1;
    context.gdtr.base = (u32)gdt;
    run_program(A16("mov eax, cr0; inc ax; mov cr0, eax; jmp 1f; 1: mov dx, 0x10; mov fs, dx; "
                    "dec ax; mov cr0, eax; jmp 1f; 1: mov ebx, 0x310000; mov eax, fs:[ebx]"));
    check(completed() && low(record.r[RAX]) == 0x76543210,
          "SDM vol. 3A 10.9.2: a limit loaded in protected mode stays in real mode");
    run_program(A16("mov eax, cr0; inc ax; mov cr0, eax; jmp 1f; 1: mov dx, 0x10; mov fs, dx; "
                    "dec ax; mov cr0, eax; jmp 1f; 1: mov ax, 0x2000; mov fs, ax; mov ebx, 0x10000;"
                    "mov eax, fs:[ebx]"));
    check(completed(),
          "SDM vol. 3A 21.1.1: loading a segment register in real mode leaves its limit");
}

//
// 64-bit mode (SDM vol. 3A 3.2.4, 3.4.4, 5.3.1)
//

static void long_mode(void) {
    about(world_names[LONG]);
    static const char *const names[] = {"DS", "ES", "SS", "CS"};
    static const u8 overrides[] = {0x3E, 0x26, 0x36, 0x2E};
    begin("SDM vol. 3A 3.4.4, 5.3.1: 64-bit mode ignores the bases and limits of CS, DS, ES, SS");
    for (u32 i = 0; i < COUNT(overrides); i++) {
        fresh(LONG, 3);
        set_gdt(SEL_TEST, descriptor(0x1000, 0, DATA | WRITABLE | PRESENT | DPL(3) | B));
        context.ds = context.es = context.ss = SEL_TEST | 3;
        context.r[RBX] = USER_DATA;
        *dwords(USER_DATA) = 0x13572468 + i;
        u8 code[] = {overrides[i], 0x8B, 0x03};         // MOV EAX, [RBX]
        load_bytes(code, sizeof code);
        run();
        title("%s", names[i]);
        if (expect_completes())
            expect_value("EAX", record.r[RAX], 0x13572468 + i);
    }
    end();

    begin("SDM vol. 3A 3.4.4: FS and GS keep the base of their descriptors, without limit");
    for (u32 i = 0; i < 2; i++) {
        fresh(LONG, 3);
        set_gdt(SEL_TEST, descriptor(USER_DATA, 0, DATA | WRITABLE | PRESENT | DPL(3) | B));
        context.fs = context.gs = SEL_TEST | 3;
        context.r[RBX] = 0x20;
        *dwords(USER_DATA + 0x20) = 0x24681357;
        run_program(i ? A64("mov eax, gs:[rbx]") : A64("mov eax, fs:[rbx]"));
        title("%cS", i ? 'G' : 'F');
        if (expect_completes())
            expect_value("EAX", record.r[RAX], 0x24681357);
    }
    end();

    begin("SDM vol. 3A 5.4.1.1: null DS, ES, FS and GS can be used in 64-bit mode");
    for (u32 i = 0; i < 4; i++) {
        static const u8 prefixes[] = {0x3E, 0x26, 0x64, 0x65};
        fresh(LONG, 3);
        context.ds = context.es = context.fs = context.gs = 0;
        write_msr(0xC0000100, 0);
        write_msr(0xC0000101, 0);
        context.r[RBX] = USER_DATA;
        u8 code[] = {prefixes[i], 0x8B, 0x03};
        load_bytes(code, sizeof code);
        run();
        title("prefix %x", prefixes[i]);
        expect_completes();
    }
    end();

    begin("SDM vol. 1 3.3.7.1: a non-canonical address raises #GP(0), through SS, RSP or RBP #SS(0)");
    u64 ends[] = {1ull << 47, ~0ull << 63 >> 63 << 63, 0xFFFF7FFFFFFFFFFFull};
    for (u32 i = 0; i < COUNT(ends); i++)
        for (u32 cpl = 0; cpl < 4; cpl += 3)
            for (u32 stack = 0; stack < 4; stack++) {
                fresh(LONG, cpl);
                context.r[RBX] = context.r[RBP] = ends[i];
                run_program(stack == 0   ? A64("mov al, [rbx]")
                            : stack == 1 ? A64("mov ss:[rbx], al")
                            : stack == 2 ? A64("mov al, [rbp]")
                                         : A64("xchg rsp, rbp; pop rax"));
                title("%q, CPL %u, stack %u", ends[i], cpl, stack);
                if (cpl == 0 && stack == 3)
                    continue;           // the handler has no stack: a double fault
                // AMD and Intel agree that an SS prefix does not count in 64-bit mode; RSP and RBP
                // as base do.
                if (stack == 1)
                    expect(result.vector == GP || result.vector == SS);
                else
                    expect_fault(stack ? SS : GP, 0);
            }
    end();

    begin("SDM vol. 2: in 64-bit mode PUSH and POP of CS, DS, ES, SS, LDS, LES, far JMP and CALL "
          "with a pointer, INTO, BOUND, PUSHA, POPA, DAA and the like are #UD");
    static const u8 gone[] = {0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F,
                              0x60, 0x61, 0x82, 0x9A, 0xCE, 0xD4, 0xD5, 0xD6, 0xEA};
    for (u32 i = 0; i < COUNT(gone); i++) {
        fresh(LONG, 0);
        u8 code[] = {gone[i], 0, 0, 0, 0, 0, 0, 0};
        load_bytes(code, sizeof code);
        run();
        title("opcode %x", gone[i]);
        expect_fault(UD, 0);
    }
    end();
}

void chapter(void) {
    static const enum world protected[] = {FLAT, PAGED, PAGED_PAE, COMPAT};
    for (u32 i = 0; i < COUNT(protected); i++) {
        if (!has_world(protected[i])) {
            skip(world_names[protected[i]], "CPUID lacks it");
            continue;
        }
        if (i == 0 || protected[i] == COMPAT) {
            loads(protected[i]);
            selectors(protected[i]);
        }
        limits(protected[i]);
        code_limits(protected[i]);
        stack_size(protected[i]);
    }
    about("one segment after another");
    code_segments_that_change();
    real_mode();
    if (has_world(LONG)) {
        loads(LONG);
        selectors(LONG);
        long_mode();
    } else {
        skip("SDM vol. 3A 3.2.4: segments in 64-bit mode", "CPUID lacks long mode");
    }
}
