//! Interrupts and exceptions: gates, frames, error codes, double faults, shadows (SDM vol. 3A
//! chapter 6).

#include "access.h"
#include "irq.h"

const char chapter_name[] = "interrupts";

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }
static bool is_long(enum world world) { return is_wide(world) || world == COMPAT; }

static u32 handler_of(enum world world, u32 vector) {
    extern u8 handlers32[], handlers64[];
    return (u32)(is_long(world) ? handlers64 : handlers32) + 5 * vector;
}

/// Puts an interrupt gate into the IDT.
static void set_gate(enum world world, u32 vector, u16 selector, u32 offset, u32 byte, u8 ist) {
    if (is_long(world))
        gate64(&idt[2 * vector], selector, offset, byte, ist);
    else
        idt[vector] = gate(selector, offset, byte, 0);
}

/// The usual handler with other attributes.
static void set_attributes(enum world world, u32 vector, u32 byte) {
    set_gate(world, vector, is_long(world) ? SEL_CODE64 : SEL_CODE32, handler_of(world, vector), byte,
             0);
}

//
// Which exceptions there are, and where RIP points (SDM vol. 3A table 6-1, 6.5)
//

struct source {
    const char *name;
    u32 vector, error;
    bool trap;                  // RIP is that of the next instruction
    bool not64;
    u8 length, code[11];
};

static const struct source sources[] = {
    {"DIV by zero", DE, 0, false, false, 4, {0x31, 0xC9, 0xF7, 0xF1}},
    {"IDIV overflow", DE, 0, false, false, 8, {0x31, 0xC0, 0xB4, 0x80, 0xB1, 0xFF, 0xF6, 0xF9}},
    {"INT3", BP, 0, true, false, 1, {0xCC}},
    {"INT 3 of two bytes", BP, 0, true, false, 2, {0xCD, 0x03}},
    {"INTO", OF, 0, true, true, 5, {0xB0, 0x7F, 0x04, 0x01, 0xCE}},
    {"UD2", UD, 0, false, false, 2, {0x0F, 0x0B}},
    {"UD1", UD, 0, false, false, 3, {0x0F, 0xB9, 0xC0}},
    {"LOCK NOP", UD, 0, false, false, 2, {0xF0, 0x90}},
    {"INT1", DB, 0, true, false, 1, {0xF1}},
    {"AAM 0", DE, 0, false, true, 2, {0xD4, 0x00}},
    {"MOV CS, AX", UD, 0, false, false, 2, {0x8E, 0xC8}},
};
/// Where in the code of each the instruction itself begins.
static u32 setup_length(const struct source *s) {
    return s->vector == DE && s->length > 2 ? s->length - 2 : s->vector == OF ? 4 : 0;
}

static void exceptions(enum world world) {
    begin("SDM vol. 3A table 6-1, 6.5: vectors; RIP of faults and traps; RF in the pushed flags");
    for (u32 cpl = 0; cpl < 4; cpl++) {
        if ((world == REAL && cpl) || (world == V86 && cpl != 3))
            continue;
        for (u32 i = 0; i < COUNT(sources); i++) {
            const struct source *s = &sources[i];
            if (s->not64 && is_wide(world))
                continue;
            fresh(world, cpl);
            if (world == V86)
                context.rflags |= 3 << 12;
            // Software interrupts need the gate's DPL.
            if (world != REAL)
                for (u32 vector = 0; vector < 32; vector++)
                    set_attributes(world, vector, INT_GATE32 | PRESENT | DPL(3));
            load_bytes(s->code, s->length);
            run();
            title("%s, CPL %u", s->name, cpl);
            if (!expect_fault(s->vector, s->error))
                continue;
            expect_value("RIP", result.rip,
                         context.rip + (s->trap ? s->length : setup_length(s)));
            if (world != REAL)
                expect_value("RF", result.rflags >> 16 & 1, !s->trap);
        }
    }
    end();
}

static void bound(enum world world) {
    fresh(world, world == REAL ? 0 : 3);
    u32 at = world == REAL || world == V86 ? LOW_DATA : USER_DATA;
    context.r[RBX] = world == REAL || world == V86 ? 0 : at;
    if (world == REAL || world == V86) {
        *dwords(at) = 5 << 16 | (u16)-5;
        context.r[RAX] = 6;
        run_program(A16("bound ax, [bx]"));
    } else {
        *dwords(at) = -5;
        *dwords(at + 4) = 5;
        context.r[RAX] = 6;
        run_program(A32("bound eax, [ebx]"));
    }
    check(result.vector == BR && result.rip == context.rip,
          "SDM vol. 2 BOUND, vol. 3A 6.15 (#BR): out of bounds is a fault");
    context.r[RAX] = 5;
    run();
    check_completes("SDM vol. 2 BOUND: the bounds themselves are in bounds");
}

//
// Gates (SDM vol. 3A 6.11, 6.12; vol. 2 INT n, "Operation")
//

static struct program software_interrupt(enum world world) {
    return is_wide(world) ? A64("int 0x80") : A32("int 0x80");
}

static void gates(enum world world) {
    u32 error = 0x80 * 8 + ERROR_IDT;
    begin("SDM vol. 2 INT n, vol. 3A 6.12.1: type, DPL (of software interrupts) and P of the gate");
    for (u32 cpl = 0; cpl < 4; cpl++) {
        fresh(world, cpl);
        load(software_interrupt(world));
        for (u32 byte = 0; byte < 256; byte++) {
            struct access a = access_of(byte);
            bool narrow_type = !is_long(world) && a.system && (a.type == INT_GATE16 ||
                                                               a.type == TRAP_GATE16);
            bool wide_type = a.system && (a.type == INT_GATE32 || a.type == TRAP_GATE32);
            // Task gates have a chapter of their own.
            if (a.system && a.type == TASK_GATE && !is_long(world))
                continue;
            set_attributes(world, 0x80, byte);
            // 16-bit gates have 16 bits of offset: a segment makes up for it.
            if (narrow_type) {
                set_gdt(SEL_TEST, descriptor(handler_of(world, 0x80) & 0xFFFF0000, 0xFFFFF,
                                             CODE_SEGMENT | READABLE | PRESENT | G | B));
                continue;
            }
            run();
            title("CPL %u, byte %x", cpl, byte);
            if (!wide_type || a.dpl < cpl)
                expect_fault(GP, error);
            else if (!a.present)
                expect_fault(NP, error);
            else if (expect(result.vector == 0x80))
                expect_value("RIP", result.rip, context.rip + 2);
        }
    }
    end();

    begin("SDM vol. 3A 6.12.1.3: an interrupt gate clears IF, a trap gate leaves it; both clear TF, "
          "NT, RF, VM");
    for (u32 trap = 0; trap < 2; trap++) {
        fresh(world, 3);
        set_attributes(world, 0x80, (trap ? TRAP_GATE32 : INT_GATE32) | PRESENT | DPL(3));
        context.rflags |= FLAGS_IF | FLAGS_NT | FLAGS_AC | 0x8D5;
        // IRET with NT set would be a task return: the program sets it.
        context.rflags &= ~(u64)FLAGS_NT;
        run_program(is_wide(world) ? A64("pushfq; or dword ptr [rsp], 0x4000; popfq; int 0x80")
                                   : A32("pushfd; or dword ptr [esp], 0x4000; popfd; int 0x80"));
        title("trap gate %u", trap);
        u32 common = FLAGS_AC | 0x8D7;
        if (expect(result.vector == 0x80)) {
            expect_value("pushed", result.rflags, common | FLAGS_IF | FLAGS_NT);
            expect_value("in the handler",
                         record.handler_flags & (FLAGS_IF | FLAGS_TF | FLAGS_NT | FLAGS_RF |
                                                 FLAGS_VM | FLAGS_AC),
                         FLAGS_AC | (trap ? FLAGS_IF : 0));
        }
    }
    end();

    begin("SDM vol. 3A 6.10: a vector past the limit of the IDT is #GP(vector * 8 + 2)");
    for (u32 bytes = 0; bytes <= (is_long(world) ? 16 : 8); bytes++) {
        fresh(world, 0);
        context.idtr.limit = 0x80 * (is_long(world) ? 16 : 8) + bytes - 1;
        run_program(software_interrupt(world));
        title("%u bytes", bytes);
        if (bytes == (is_long(world) ? 16 : 8))
            expect(result.vector == 0x80);
        else
            expect_fault(GP, error);
    }
    end();

    begin("SDM vol. 2 INT n: the handler's segment: type, DPL, P; #GP and #NP(selector)");
    for (u32 cpl = 0; cpl < 4; cpl++) {
        fresh(world, cpl);
        set_gdt(SEL_TEST + 0x20, flat_segment(DATA | WRITABLE | PRESENT | DPL(1)));
        set_gdt(SEL_TEST + 0x28, flat_segment(DATA | WRITABLE | PRESENT | DPL(2)));
        if (!is_long(world)) {
            ((u32 *)tss)[4] = SEL_TEST + 0x21;
            ((u32 *)tss)[6] = SEL_TEST + 0x2A;
        }
        load(software_interrupt(world));
        for (u32 byte = 0; byte < 256; byte++) {
            struct access a = access_of(byte);
            u32 ring = a.conforming ? cpl : a.dpl;
            // A handler that stops with an INT3 of its own, wherever it runs.
            u32 target = (ring == 3 ? USER_CODE : KERNEL_CODE) + 0x300;
            *bytes(target) = 0xCC;
            set_gdt(SEL_TEST, is_long(world) ? descriptor(0, 0xFFFFF, byte | L | G)
                                             : flat_segment(byte));
            set_gate(world, 0x80, SEL_TEST, target, INT_GATE32 | PRESENT | DPL(3), 0);
            run();
            title("CPL %u, byte %x", cpl, byte);
            if (!a.code || a.dpl > cpl)
                expect_fault(GP, SEL_TEST);
            else if (!a.present)
                expect_fault(NP, SEL_TEST);
            else if (expect(result.vector == BP))
                expect_value("CS", result.cs, SEL_TEST | ring);
        }
    }
    end();

    fresh(world, 0);
    set_gate(world, 0x80, 0, handler_of(world, 0x80), INT_GATE32 | PRESENT | DPL(3), 0);
    run_program(software_interrupt(world));
    check_fault(GP, 0, "SDM vol. 2 INT n: a gate with a null selector is #GP(0)");
    set_gate(world, 0x80, 0x3F8, handler_of(world, 0x80), INT_GATE32 | PRESENT | DPL(3), 0);
    run();
    check_fault(GP, 0x3F8, "SDM vol. 2 INT n: a gate to a selector past the GDT is #GP(selector)");

    // The same faults on the way to an exception's handler have EXT set (SDM vol. 3A 6.13).
    begin("SDM vol. 3A 6.13: EXT is set when an exception's delivery faults, not INT n's or INT3's");
    for (u32 i = 0; i < 4; i++) {
        static const u8 bad[] = {0, PRESENT, PRESENT, PRESENT};
        static const u16 selectors[] = {SEL_CODE32, 0, 0x3F8, SEL_DATA};
        fresh(world, 3);
        u32 selector = i ? selectors[i] : is_long(world) ? SEL_CODE64 : SEL_CODE32;
        set_gate(world, UD, selector, handler_of(world, UD), INT_GATE32 | bad[i] | DPL(3), 0);
        u32 expected = i == 0 ? UD * 8 + ERROR_IDT : selector;
        run_program(is_wide(world) ? A64("ud2") : A32("ud2"));
        title("exception, case %u", i);
        expect_fault(i ? GP : NP, expected | ERROR_EXT);
        run_program(is_wide(world) ? A64("int 6") : A32("int 6"));
        title("software, case %u", i);
        expect_fault(i ? GP : NP, expected);
    }
    end();

    if (is_long(world)) {
        begin("SDM vol. 3A 6.14.2, vol. 2 INT n: a handler that is not 64-bit code is #GP(selector)");
        for (u32 i = 0; i < 3; i++) {
            static const u32 attributes[] = {B, 0, B | L};
            fresh(world, 0);
            set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | G | attributes[i]));
            set_gate(world, 0x80, SEL_TEST, handler_of(world, 0x80), INT_GATE32 | PRESENT, 0);
            run_program(software_interrupt(world));
            title("attributes %x", attributes[i]);
            expect_fault(GP, SEL_TEST);
        }
        end();
        fresh(world, 0);
        gate64(&idt[2 * 0x80], SEL_CODE64, 1ull << 47, INT_GATE32 | PRESENT, 0);
        run_program(software_interrupt(world));
        check_fault(GP, 0, "SDM vol. 2 INT n: a non-canonical offset in a gate is #GP(0)");
    }
}

//
// Stacks (SDM vol. 3A 6.12.1, 6.14.2, 6.14.5)
//

static void narrow_frames(void) {
    // 16-bit gates push words.
    fresh(FLAT, 3);
    set_gdt(SEL_TEST, descriptor(KERNEL_CODE, 0xFFFF, CODE_SEGMENT | PRESENT | B));
    *bytes(KERNEL_CODE + 0x400) = 0xCC;
    *bytes(KERNEL_CODE + 0x10400) = 0xCC;       // where the upper half would lead
    idt[0x80] = gate(SEL_TEST, 0x00010400, INT_GATE16 | PRESENT | DPL(3), 0);
    context.rflags |= 0xD5;
    run_program(A32("int 0x80"));
    volatile u16 *frame = (volatile u16 *)(RING0_STACK_TOP - 10);
    check(result.vector == BP && result.rip == 0x401 && low(result.rsp) == RING0_STACK_TOP - 10 &&
              frame[0] == ((low(context.rip) + 2) & 0xFFFF) && frame[1] == context.cs &&
              frame[2] == 0xD7 && frame[3] == (context.r[RSP] & 0xFFFF) && frame[4] == context.ss,
          "SDM vol. 3A 6.12.1: a 16-bit gate pushes words and takes 16 bits of the offset");
    fresh(FLAT, 0);
    set_gdt(SEL_TEST, descriptor(KERNEL_CODE, 0xFFFF, CODE_SEGMENT | PRESENT | B));
    idt[GP] = gate(SEL_TEST, 0x400, TRAP_GATE16 | PRESENT, 0);
    run_program(A32("mov eax, 0x3F8; mov ds, eax"));
    frame = (volatile u16 *)(KERNEL_STACK_TOP - 8);
    check(result.vector == BP && low(result.rsp) == KERNEL_STACK_TOP - 8 && frame[0] == 0x3F8 &&
              frame[1] == ((low(context.rip) + 5) & 0xFFFF) && frame[2] == context.cs,
          "SDM vol. 3A 6.12.1, 6.13: a 16-bit gate pushes a 16-bit error code");
}

static void stacks(enum world world) {
    if (!is_long(world)) {
        begin("SDM vol. 2 INT n, vol. 3A 6.12.1: the inner stack segment: #TS, #SS(selector)");
        for (u32 byte = 0; byte < 256; byte++)
            for (u32 rpl = 0; rpl < 4; rpl++)
                for (u32 hardware = 0; hardware < 2; hardware++) {
                    fresh(world, 3);
                    struct access a = access_of(byte);
                    u32 vector = hardware ? UD : 0x80, stack = (SEL_TEST + 8) | rpl;
                    set_gdt(SEL_TEST, flat_segment(CODE_SEGMENT | PRESENT | DPL(1)));
                    set_gdt(stack, flat_segment(byte));
                    ((u32 *)tss)[4] = stack;
                    *bytes(KERNEL_CODE + 0x300) = 0xCC;
                    set_gate(world, vector, SEL_TEST, KERNEL_CODE + 0x300,
                             INT_GATE32 | PRESENT | DPL(3), 0);
                    run_program(hardware ? A32("ud2") : A32("int 0x80"));
                    title("byte %x, RPL %u, exception %u", byte, rpl, hardware);
                    u32 error = (stack & ~3) | (hardware ? ERROR_EXT : 0);
                    if (rpl != 1 || a.dpl != 1 || !a.writable)
                        expect_fault(TS, error);
                    else if (!a.present)
                        expect_fault(SS, error);
                    else if (expect(result.vector == BP))
                        expect_value("SS", result.ss, stack);
                }
        end();
        begin("SDM vol. 2 INT n: null SS, SS past the GDT, TSS too small: #TS; no room: #SS");
        for (u32 i = 0; i < 4; i++)
            for (u32 hardware = 0; hardware < 2; hardware++) {
                fresh(world, 3);
                set_gdt(SEL_TEST, flat_segment(CODE_SEGMENT | PRESENT | DPL(1)));
                set_gdt(SEL_TEST + 8, descriptor(0, 0xFFF, DATA | WRITABLE | PRESENT | DPL(1) | B));
                static const u16 stack[] = {0, 0x3F9, SEL_TEST + 9, SEL_TEST + 9};
                ((u32 *)tss)[4] = stack[i];
                if (i == 2)
                    set_gdt(SEL_TSS, descriptor((u32)tss, 0x10, TSS32 | PRESENT));
                u32 vector = hardware ? UD : 0x80;
                *bytes(KERNEL_CODE + 0x300) = 0xCC;
                set_gate(world, vector, SEL_TEST, KERNEL_CODE + 0x300, INT_GATE32 | PRESENT | DPL(3),
                         0);
                run_program(hardware ? A32("ud2") : A32("int 0x80"));
                static const u16 errors[] = {0, 0x3F8, SEL_TSS, SEL_TEST + 8};
                title("case %u, exception %u", i, hardware);
                expect_fault(i == 3 ? SS : TS, errors[i] | (hardware ? ERROR_EXT : 0));
            }
        end();
        fresh(world, 3);
        context.rflags |= 0xD5;
        set_attributes(world, 0x80, INT_GATE32 | PRESENT | DPL(3));
        run_program(A32("int 0x80"));
        check(result.vector == 0x80 && record.handler_sp == RING0_STACK_TOP - 20 &&
                  result.rsp == context.r[RSP] && result.ss == context.ss &&
                  result.cs == context.cs && result.rflags == context.rflags,
              "SDM vol. 3A 6.12.1: to ring 0: SS, ESP, EFLAGS, CS, EIP on the TSS's stack");
        fresh(world, 0);
        run_program(A32("int 0x80"));
        check(result.vector == 0x80 && record.handler_sp == KERNEL_STACK_TOP - 12,
              "SDM vol. 3A 6.12.1: within a ring: EFLAGS, CS, EIP on the same stack");
        return;
    }

    begin("SDM vol. 3A 6.14.2: the stack is aligned to 16 bytes, and SS:RSP pushed in any case");
    for (u32 offset = 0; offset < 16; offset++)
        for (u32 error = 0; error < 2; error++) {
            fresh(world, 0);
            context.r[RSP] -= offset;
            context.r[RAX] = 0x3F8;
            run_program(is_wide(world) ? (error ? A64("mov ds, eax") : A64("int 0x80"))
                                       : (error ? A32("mov ds, eax") : A32("int 0x80")));
            title("RSP less %u, error code %u", offset, error);
            if (!expect(result.vector == (error ? GP : 0x80u)))
                continue;
            u64 top = (context.r[RSP]) & ~15ull;
            expect_value("handler's RSP", record.handler_sp, top - (error ? 48 : 40));
            expect_value("RSP", result.rsp, context.r[RSP]);
            expect_value("SS", result.ss, context.ss);
        }
    end();
    begin("SDM vol. 3A 6.14.5: IST 1 to 7 of a gate switch stacks in any ring; 0 only between rings");
    for (u32 cpl = 0; cpl < 4; cpl += 3)
        for (u32 ist = 0; ist < 8; ist++) {
            fresh(world, cpl);
            for (u32 i = 1; i < 8; i++)
                ((u32 *)tss)[9 + 2 * (i - 1)] = RING1_STACK_TOP - 0x200 * i + 8;
            set_gate(world, 0x80, SEL_CODE64, handler_of(world, 0x80), INT_GATE32 | PRESENT | DPL(3),
                     ist);
            run_program(software_interrupt(world));
            u32 top = ist ? RING1_STACK_TOP - 0x200 * ist : cpl ? RING0_STACK_TOP : KERNEL_STACK_TOP;
            title("IST %u, CPL %u", ist, cpl);
            if (expect(result.vector == 0x80))
                expect_value("handler's RSP", record.handler_sp, top - 40);
        }
    end();
    fresh(world, 3);
    set_attributes(world, 0x80, INT_GATE32 | PRESENT | DPL(3));
    run_program(software_interrupt(world));
    check(result.vector == 0x80 && record.handler_ss == 0,
          "SDM vol. 3A 6.14.4: SS becomes null when the ring changes");
    fresh(world, 3);
    ((u32 *)tss)[2] = 0x8000;                   // RSP0 is not canonical
    set_gate(world, SS, SEL_CODE64, handler_of(world, SS), INT_GATE32 | PRESENT, 2);
    set_attributes(world, 0x80, INT_GATE32 | PRESENT | DPL(3));
    run_program(software_interrupt(world));
    check_fault(SS, 0, "SDM vol. 2 INT n: a non-canonical stack pointer from the TSS is #SS");
}

//
// Double faults (SDM vol. 3A 6.15, tables 6-4 and 6-5)
//

struct cause {
    const char *name;
    u32 vector;
    bool contributory;
    struct program narrow, wide;
};

static void double_faults(enum world world) {
    const struct cause causes[] = {
        {"#DE", DE, true, A32("xor ecx, ecx; div ecx"), A64("xor ecx, ecx; div ecx")},
        {"#UD", UD, false, A32("ud2"), A64("ud2")},
        {"#BP", BP, false, A32("int3"), A64("int3")},
        {"#DB", DB, false, A32(".byte 0xF1"), A64(".byte 0xF1")},
        {"#NP", NP, true, A32("mov eax, 0x80; mov ds, eax"), A64("mov eax, 0x80; mov ds, eax")},
        {"#SS", SS, true, A32("mov eax, 0x80; mov ss, eax"), A64("mov eax, 0x80; mov ss, eax")},
        {"#GP", GP, true, A32("mov eax, 0x3F8; mov ds, eax"), A64("mov eax, 0x3F8; mov ds, eax")},
        {"#PF", PF, true, A32("mov eax, [0xC0000000]"), A64("mov eax, 0x900000; mov eax, [rax]")},
    };
    begin("SDM vol. 3A tables 6-4, 6-5: an exception while one is delivered: #DF(0) or the second");
    for (u32 i = 0; i < COUNT(causes); i++)
        for (u32 second = 0; second < 3; second++) {
            const struct cause *c = &causes[i];
            if (c->vector == PF && world == FLAT)
                continue;
            fresh(world, 0);
            set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, DATA | WRITABLE | G | B));
            // The gate is not present, of a bad type, or leads to data.
            u32 expected, error;
            if (second == 0) {
                set_attributes(world, c->vector, INT_GATE32);
                expected = NP;
                error = c->vector * 8 + ERROR_IDT;
            } else if (second == 1) {
                set_attributes(world, c->vector, CALL_GATE32 | PRESENT);
                expected = GP;
                error = c->vector * 8 + ERROR_IDT;
            } else {
                set_gate(world, c->vector, SEL_DATA, handler_of(world, c->vector), INT_GATE32 | PRESENT, 0);
                expected = GP;
                error = SEL_DATA;
            }
            error |= c->vector == BP ? 0 : ERROR_EXT;
            // When the second exception is the first one it has no handler: that is a triple fault
            // if it is not a double fault at once, and here it is.
            run_program(is_wide(world) ? c->wide : c->narrow);
            title("%s, then %s (case %u)", c->name, expected == NP ? "#NP" : "#GP", second);
            if (c->contributory)
                expect_fault(DF, 0);
            else if (expect_fault(expected, error))
                expect_value("RIP", result.rip, context.rip);
        }
    end();

    if (world == FLAT)
        return;
    // A page fault while a contributory exception is delivered is handled on its own.
    fresh(world, 0);
    u32 size = is_long(world) ? 16 : 8;
    u32 base = KERNEL_DATA + 0x1000 - 15 * size;
    for (u32 i = 0; i < 256 * size; i++)
        bytes(base)[i] = ((u8 *)idt)[i];
    // Entries 0 to 14 end at the page's end; the one for #AC is in the next page.
    context.idtr.base = base;
    set_identity(world, KERNEL_DATA + 0x1000, 0, PTE_P);
    run_program(is_wide(world) ? A64("int 17") : A32("int 17"));
    check_fault(PF, 0, "SDM vol. 3A table 6-5: a page fault while a benign event is delivered");
    base = KERNEL_DATA + 0x1000;
    context.idtr.base = base - 13 * size;       // #GP's entry is the first of the next page
    for (u32 i = 0; i < 13 * size; i++)
        bytes(base - 13 * size)[i] = ((u8 *)idt)[i];
    run_program(is_wide(world) ? A64("mov eax, 0x3F8; mov ds, eax") : A32("mov eax, 0x3F8; mov ds, eax"));
    // #GP cannot be read, nor #PF (vector 14), which lies there too: #GP, #PF, then #PF again: #DF.
    check_fault(DF, 0, "SDM vol. 3A table 6-5: a page fault while a page fault is delivered is #DF(0)");
    set_identity(world, KERNEL_DATA + 0x1000, PTE_P, 0);
}

//
// IRET (SDM vol. 2)
//

static void iret_flags(enum world world) {
    begin("SDM vol. 2 IRET: IOPL only at CPL 0, IF if CPL <= IOPL; not VM, VIF, VIP from ring 3");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 iopl = 0; iopl < 4; iopl++) {
            fresh(world, cpl);
            context.rflags |= iopl << 12;
            u32 wanted = 2 | FLAGS_IF | (iopl ^ 3) << 12 | FLAGS_AC | 0xD5;
            context.r[RAX] = wanted;
            context.r[RBX] = context.cs;
            context.r[RCX] = context.ss;
            run_program(is_wide(world)
                            ? A64("lea rdx, [rip + 1f]; mov rsi, rsp; push rcx; push rsi; push rax; "
                                  "push rbx; push rdx; iretq; nop; 1: pushfq; pop rdi; cli")
                            : A32("call 2f; 2: pop edx; add edx, 1f - 2b; push eax; push ebx; "
                                  "push edx; iretd; nop; 1: pushfd; pop edi; push 2; popfd"));
            u32 expected = (wanted & ~(3 << 12 | FLAGS_IF)) | iopl << 12;
            if (cpl <= iopl)
                expected |= FLAGS_IF;
            if (cpl == 0)
                expected = wanted;
            title("CPL %u, IOPL %u", cpl, iopl);
            // CLI faults in the outer rings of 64-bit code, after what matters.
            expect_value("flags", record.r[RDI], expected);
        }
    end();
    if (is_wide(world)) {
        fresh(world, 0);
        run_program(A64("pushfq; or dword ptr [rsp], 0x4000; popfq; iretq"));
        check_fault(GP, 0, "SDM vol. 2 IRET: with NT set in 64-bit mode is #GP(0)");
        fresh(world, 0);
        context.r[RBX] = SEL_CODE64;
        run_program(A64("lea rdx, [rip + 1f]; mov rsi, rsp; push 0; push rsi; push 2; push rbx; "
                        "push rdx; iretq; nop; 1: mov edi, ss"));
        check(completed() && record.r[RDI] == 0,
              "SDM vol. 2 IRET: a null SS is allowed for 64-bit code of ring 0");
        begin("SDM vol. 2 IRET: a non-canonical RIP is #GP(0)");
        fresh(world, 0);
        context.r[RBX] = SEL_CODE64;
        context.r[RDX] = 1ull << 47;
        run_program(A64("mov rsi, rsp; mov ecx, ss; push rcx; push rsi; push 2; push rbx; push rdx; "
                        "iretq"));
        expect_fault(GP, 0);
        end();
    }
}

//
// Interrupts from outside, and what holds them off (SDM vol. 3A 6.8; vol. 2 STI, MOV, POP)
//

struct shadow {
    const char *text;
    struct program program;
    u32 rip;                    // where the interrupt comes; 0: not at all
};

static void external(enum world world) {
    fresh(world, 0);
    const struct shadow table[] = {
        {"SDM vol. 2 STI: interrupts are recognised after the next instruction",
         A32("sti; nop; nop"), 2},
        {"SDM vol. 2 STI: STI, CLI lets none through", A32("sti; cli; nop; nop"), 0},
        {"SDM vol. 2 STI: no shadow when IF was set already", A32("sti; nop; sti; nop"), 2},
        {"SDM vol. 2 POPF: no shadow", A32("push 0x202; popfd; nop; nop"), 6},
        {"SDM vol. 2 HLT: an interrupt ends it, and returns behind it", A32("sti; hlt; nop"), 2},
        {"SDM vol. 3A 6.8.1: with IF clear none comes", A32("nop; nop; nop; nop"), 0},
        {"SDM vol. 2 INT n: software interrupts do not ask for IF", A32("int 0x20"), 2},
    };
    for (u32 i = 0; i < COUNT(table); i++) {
        fresh(world, 0);
        irq_init();
        irq_request();
        run_program(table[i].program);
        irq_done();
        if (table[i].rip)
            check(result.vector == IRQ_VECTOR && result.rip == context.rip + table[i].rip &&
                      !(record.handler_flags & FLAGS_IF),
                  table[i].text);
        else
            check_completes(table[i].text);
    }
    fresh(world, 3);
    context.rflags |= FLAGS_IF;
    irq_init();
    irq_request();
    run_program(A32("nop; nop; nop; nop"));
    irq_done();
    check(result.vector == IRQ_VECTOR && result.rip == context.rip && result.cs == SEL_USER_CODE32,
          "SDM vol. 2 IRET: a pending interrupt comes right after IRET sets IF");
    fresh(world, 3);
    context.rflags |= FLAGS_IF;
    irq_init();
    irq_request();
    set_attributes(world, IRQ_VECTOR, INT_GATE32 | PRESENT);
    run_program(A32("nop"));
    irq_done();
    check(result.vector == IRQ_VECTOR,
          "SDM vol. 3A 6.12.1.1: an external interrupt does not ask for the gate's DPL");
    fresh(world, 3);
    context.rflags |= FLAGS_IF;
    irq_init();
    irq_request();
    set_attributes(world, IRQ_VECTOR, INT_GATE32);
    run_program(A32("nop"));
    irq_done();
    check_fault(NP, IRQ_VECTOR * 8 + ERROR_IDT + ERROR_EXT,
                "SDM vol. 3A 6.13: the gate of an external interrupt not present: #NP with EXT");
}

/// NMI by the local APIC's interrupt command register, to itself.
static void nmi(void) {
    static const char text[] = "SDM vol. 3A 6.7.1: an NMI comes whatever IF is, and the next only "
                               "after an IRET";
    if (!HAS_APIC) {
        skip(text, "no local APIC to send it");
        return;
    }
    *dwords(0xFEE000F0) = 0x1FF;
    *dwords(0xFEE00310) = *dwords(0xFEE00020);  // physical destination: this processor
    fresh(FLAT, 0);
    // The handler counts, sends another, and returns when it has seen what that does.
    idt[NMI] = gate(SEL_CODE32, KERNEL_CODE + 0x400, INT_GATE32 | PRESENT, 0);
    place(KERNEL_CODE + 0x400,
          A32("inc ecx; cmp ecx, 2; jae 1f; mov dword ptr [ebx], 0x4400; nop; nop; nop; nop; nop; "
              "mov edx, ecx; 1: iretd"));
    context.r[RBX] = 0xFEE00300;
    run_program(A32("mov dword ptr [ebx], 0x4400; nop; nop; nop; nop; nop; nop; nop; nop"));
    check(completed() && record.r[RDX] == 1 && record.r[RCX] == 2, text);
}

static void real_mode(void) {
    about(world_names[REAL]);
    begin("SDM vol. 3A 21.1.4: INT n takes CS:IP from the table, pushes FLAGS, CS, IP, clears IF, TF");
    for (u32 vector = 0x20; vector < 0x100; vector += 0x11) {
        fresh(REAL, 0);
        context.rflags |= FLAGS_IF | 0xD5;
        u8 code[] = {0xCD, vector};
        load_bytes(code, 2);
        run();
        title("INT %x", vector);
        if (expect(result.vector == vector)) {
            expect_value("IP", result.rip, context.rip + 2);
            expect_value("CS", result.cs, context.cs);
            expect_value("FLAGS", result.rflags, 0x2D7);
            expect_value("SP", record.handler_sp, LOW_STACK_TOP - 6);
            expect_value("IF in the handler", record.handler_flags & FLAGS_IF, 0);
        }
    }
    end();
    fresh(REAL, 0);
    context.idtr.limit = 0x80 * 4 + 2;
    run_program(A16("int 0x80"));
    check_fault(GP, 0, "SDM vol. 3A 21.1.4, 6.10: a vector past the limit of the table is #GP");
    fresh(REAL, 0);
    context.idtr.base = 0x20000;
    *dwords(0x20000 + 4 * 0x80) = *dwords(4 * 0x81);
    *dwords(0x20000 + 4 * BP) = *dwords(4 * BP);
    run_program(A16("int 0x80"));
    check(result.vector == 0x81, "SDM vol. 3A 21.1.4: LIDT moves the table in real mode");
    fresh(REAL, 0);
    irq_init();
    irq_request();
    run_program(A16("sti; nop; nop"));
    irq_done();
    check(result.vector == IRQ_VECTOR && result.rip == context.rip + 2,
          "SDM vol. 3A 21.1.4, vol. 2 STI: an external interrupt in real mode");
}

void chapter(void) {
    static const enum world worlds[] = {FLAT, PAGED, LONG, COMPAT};
    exceptions(REAL);
    bound(REAL);
    about(world_names[V86]);
    exceptions(V86);
    bound(V86);
    for (u32 i = 0; i < COUNT(worlds); i++) {
        enum world world = worlds[i];
        about(world_names[world]);
        if (!has_world(world)) {
            skip(world_names[world], "CPUID lacks it");
            continue;
        }
        exceptions(world);
        if (!is_wide(world))
            bound(world);
        if (world != PAGED) {
            gates(world);
            stacks(world);
            iret_flags(world);
        }
        double_faults(world);
    }
    about(world_names[FLAT]);
    narrow_frames();
    external(FLAT);
    nmi();
    real_mode();
}
