//! Tasks: hardware task switches by JMP, CALL, IRET and task gates (SDM vol. 3A chapter 8).

#include "access.h"

const char chapter_name[] = "tasks";

/// A second 32-bit TSS, and the code that it begins with.
#define NEW_TSS     (KERNEL_DATA + 0x800)
#define SEL_NEW     SEL_TEST
#define SEL_GATE    (SEL_TEST + 8)
#define NEW_CODE    (KERNEL_CODE + 0x800)
#define NEW_STACK   0x64F000

enum {
    LINK = 0, ESP0 = 1, SS0 = 2, CR3 = 7, EIP = 8, EFLAGS = 9, EAX = 10, ECX = 11, EDX = 12, EBX = 13,
    ESP = 14, EBP = 15, ESI = 16, EDI = 17, ES_ = 18, CS_ = 19, SS_ = 20, DS_ = 21, FS_ = 22, GS_ = 23,
    LDTR = 24, TRAP_MAP = 25,
};
static volatile u32 *const new_tss = (volatile u32 *)NEW_TSS;
static volatile u32 *old_tss(void) { return (volatile u32 *)tss; }

static void new_task(u32 type) {
    for (u32 i = 0; i < 32; i++)
        new_tss[i] = 0;
    new_tss[ESP0] = RING0_STACK_TOP - 0x800;
    new_tss[SS0] = SEL_DATA;
    new_tss[CR3] = low(context.cr3);
    new_tss[EIP] = NEW_CODE;
    new_tss[EFLAGS] = 2;
    for (u32 i = 0; i < 8; i++)
        new_tss[EAX + i] = 0xABC00000 + i;
    new_tss[ESP] = NEW_STACK;
    new_tss[CS_] = SEL_CODE32;
    new_tss[SS_] = new_tss[DS_] = new_tss[ES_] = new_tss[FS_] = new_tss[GS_] = SEL_DATA;
    new_tss[LDTR] = SEL_LDT;
    new_tss[TRAP_MAP] = 0x68 << 16;
    set_gdt(SEL_NEW, descriptor(NEW_TSS, 0x67, type | PRESENT | DPL(3)));
    set_gdt(SEL_GATE, gate(SEL_NEW, 0, TASK_GATE | PRESENT | DPL(3), 0));
    *bytes(NEW_CODE) = 0xCC;
}

static u32 type_of(u16 selector) { return gdt[selector >> 3] >> 40 & 0x1F; }

static void far_pointer(u32 at, u16 selector) {
    *dwords(at) = 0xDEADBEEF;                   // the offset does not matter
    *(volatile u16 *)(at + 4) = selector;
}

enum way { JUMP, CALL, GATE_JUMP, GATE_CALL, INT, WAYS };
static const char *const ways[] = {"JMP", "CALL", "JMP through a gate", "CALL through a gate", "INT"};

/// A program that switches to the new task, from any ring.
static void set_way(enum way way) {
    u32 at = context.cs & 3 ? USER_DATA : KERNEL_DATA;
    far_pointer(at, way == JUMP || way == CALL ? SEL_NEW : SEL_GATE);
    context.r[RBX] = at;
    idt[0x80] = gate(SEL_NEW, 0, TASK_GATE | PRESENT | DPL(3), 0);
    load(way == INT                          ? A32("int 0x80; nop; nop")
         : way == JUMP || way == GATE_JUMP ? A32("jmp fword ptr [ebx]; nop; nop")
                                             : A32("call fword ptr [ebx]; nop; nop"));
}

static void switches(enum world world) {
    begin("SDM vol. 3A 8.3: a task switch saves and loads registers; busy bits, NT, link as in table 8-2");
    for (enum way way = JUMP; way < WAYS; way++)
        for (u32 cpl = 0; cpl < 4; cpl += 3) {
            fresh(world, cpl);
            new_task(TSS32);
            set_way(way);
            bool nested = way != JUMP && way != GATE_JUMP;
            for (u32 i = 0; i < 8; i++)
                if (i != RSP && i != RBX)
                    context.r[i] = 0x12340000 + i;
            context.rflags |= 0xD5;
            // Direct switches ask for DPL >= CPL, which set_gdt has seen to.
            run();
            title("%s, ring %u", ways[way], cpl);
            if (!expect(result.vector == BP && result.rip == NEW_CODE + 1))
                continue;
            for (u32 i = 0; i < 8; i++)
                if (i != RSP)
                    expect_value("new register", record.r[i], 0xABC00000 + i);
            expect_value("new ESP", result.rsp, NEW_STACK);
            expect_value("new EFLAGS", result.rflags, 2 | (nested ? FLAGS_NT : 0));
            expect_value("CR0.TS", record.cr0 & CR0_TS, CR0_TS);
            volatile u32 *old = old_tss();
            expect_value("old EIP", old[EIP], low(context.rip) + 2);
            expect_value("old EFLAGS", old[EFLAGS], low(context.rflags));
            for (u32 i = 0; i < 8; i++)
                expect_value("old register", old[EAX + i], low(context.r[i]));
            expect_value("old CS", old[CS_] & 0xFFFF, context.cs);
            expect_value("old SS", old[SS_] & 0xFFFF, context.ss);
            expect_value("old DS", old[DS_] & 0xFFFF, context.ds);
            expect_value("old GS", old[GS_] & 0xFFFF, context.gs);
            expect_value("link", nested ? new_tss[LINK] & 0xFFFF : SEL_TSS, SEL_TSS);
            expect_value("old type", type_of(SEL_TSS), nested ? TSS32_BUSY : TSS32);
            expect_value("new type", type_of(SEL_NEW), TSS32_BUSY);
        }
    end();

    // There and back.
    begin("SDM vol. 3A 8.4, vol. 2 IRET: IRET with NT returns to the task of the link");
    for (enum way way = CALL; way < WAYS; way++) {
        if (way == GATE_JUMP)
            continue;
        for (u32 cpl = 0; cpl < 4; cpl += 3) {
            fresh(world, cpl);
            new_task(TSS32);
            set_way(way);
            place(NEW_CODE, A32("mov eax, 5; iretd; nop"));
            context.r[RAX] = 0x77;
            run();
            title("%s, ring %u", ways[way], cpl);
            if (!expect(result.vector == BP && result.rip == context.rip + 5))
                continue;
            expect_value("EAX", record.r[RAX], 0x77);
            expect_value("EFLAGS", result.rflags, 2);
            expect_value("EAX saved in the nested task", new_tss[EAX], 5);
            expect_value("EIP saved in the nested task", new_tss[EIP], NEW_CODE + 6);
            expect_value("NT saved in the nested task", new_tss[EFLAGS] & FLAGS_NT, 0);
            expect_value("type", type_of(SEL_TSS), TSS32_BUSY);
            expect_value("type of the nested task", type_of(SEL_NEW), TSS32);
        }
    }
    end();

    fresh(world, 0);
    new_task(TSS32);
    set_way(JUMP);
    new_tss[CS_] = SEL_USER_CODE32;
    new_tss[SS_] = new_tss[DS_] = new_tss[ES_] = new_tss[FS_] = new_tss[GS_] = SEL_USER_DATA;
    new_tss[EIP] = USER_CODE + 0x800;
    new_tss[ESP] = USER_STACK_TOP;
    *bytes(USER_CODE + 0x800) = 0xCC;
    run();
    check(result.vector == BP && result.cs == SEL_USER_CODE32 &&
              record.handler_sp == RING0_STACK_TOP - 0x800 - 20,
          "SDM vol. 3A 8.1.2, 8.3: a task of ring 3, whose TSS gives ring 0's stack");

    fresh(world, 0);
    new_task(TSS32);
    set_way(JUMP);
    new_tss[EFLAGS] = FLAGS_VM | 2;
    new_tss[CS_] = LOW_CODE >> 4;
    new_tss[SS_] = LOW_STACK >> 4;
    new_tss[DS_] = 0x1234;
    new_tss[EIP] = 0x800;
    new_tss[ESP] = LOW_STACK_TOP;
    *bytes(LOW_CODE + 0x800) = 0xCC;
    run();
    check(result.vector == BP && result.rflags & FLAGS_VM && result.rip == 0x801 &&
              result.v86_ds == 0x1234,
          "SDM vol. 3A 8.3, 21.2.5: a task switch to virtual-8086 mode");

    fresh(world, 0);
    new_task(TSS32);
    set_way(JUMP);
    new_tss[TRAP_MAP] |= 1;
    run();
    check(result.vector == DB && result.rip == NEW_CODE && record.dr6 & 1 << 15,
          "SDM vol. 3A 8.3, 18.3.1.5: the T flag raises #DB before the new task's first instruction");

    if (world == PAGED) {
        // The new task's page tables: a copy of the directory.
        fresh(world, 0);
        new_task(TSS32);
        set_way(JUMP);
        u32 directory = PAGES + 0x8000;
        for (u32 i = 0; i < 1024; i++)
            dwords(directory)[i] = dwords(low(context.cr3))[i];
        dwords(directory)[3] = dwords(directory)[1];    // C00000h is 400000h
        *dwords(USER_DATA) = 0x600DF00D;
        new_tss[CR3] = directory;
        place(NEW_CODE, A32("mov eax, [0xC10000]"));
        run();
        check(result.vector == BP && record.r[RAX] == 0x600DF00D && record.cr3 == directory,
              "SDM vol. 3A 8.5, 8.6: CR3 is the new task's");
    }

    // An error code goes to the new task's stack.
    fresh(world, 0);
    new_task(TSS32);
    idt[GP] = gate(SEL_NEW, 0, TASK_GATE | PRESENT, 0);
    run_program(A32("mov eax, 0x3F8; mov ds, eax"));
    check(result.vector == BP && result.rsp == NEW_STACK - 4 && *dwords(NEW_STACK - 4) == 0x3F8 &&
              old_tss()[EIP] == low(context.rip) + 5,
          "SDM vol. 3A 6.12.2, 6.13: a task gate for an exception: the error code on the new stack");
    fresh(world, 3);
    new_task(TSS32);
    idt[DF] = gate(SEL_NEW, 0, TASK_GATE | PRESENT, 0);
    old_tss()[ESP0] = 0;
    old_tss()[SS0] = 0x3F8;
    run_program(A32("ud2"));
    check(result.vector == BP && result.rip == NEW_CODE + 1 && *dwords(NEW_STACK - 4) == 0 &&
              result.rsp == NEW_STACK - 4,
          "SDM vol. 3A 6.15 (#DF), 6.12.2: a double fault's task gate saves a kernel without a stack");
}

static void checks(enum world world) {
    begin("SDM vol. 2 JMP, CALL: TSS descriptors by type, DPL, RPL, P: #GP, #NP(selector)");
    for (u32 call = 0; call < 2; call++)
        for (u32 cpl = 0; cpl < 4; cpl += 3)
            for (u32 rpl = 0; rpl < 4; rpl++)
                for (u32 byte = 0; byte < 256; byte++) {
                    struct access a = access_of(byte);
                    if (!a.system || (a.type != TSS32 && a.type != TSS32_BUSY &&
                                      a.type != TSS16_BUSY))
                        continue;
                    fresh(world, cpl);
                    new_task(TSS32);
                    set_way(call ? CALL : JUMP);
                    far_pointer(context.r[RBX], SEL_NEW | rpl);
                    set_gdt(SEL_NEW, descriptor(NEW_TSS, 0x67, byte));
                    run();
                    title("byte %x, CPL %u, RPL %u, call %u", byte, cpl, rpl, call);
                    if (a.dpl < cpl || a.dpl < rpl || a.type != TSS32)
                        expect_fault(GP, SEL_NEW);
                    else if (!a.present)
                        expect_fault(NP, SEL_NEW);
                    else
                        expect(result.vector == BP && result.rip == NEW_CODE + 1);
                }
    end();
    begin("SDM vol. 2 JMP, CALL, INT n: task gates by DPL, RPL, P");
    for (enum way way = GATE_JUMP; way < WAYS; way++)
        for (u32 cpl = 0; cpl < 4; cpl += 3)
            for (u32 rpl = 0; rpl < 4; rpl++)
                for (u32 i = 0; i < 8; i++) {
                    fresh(world, cpl);
                    new_task(TSS32);
                    set_way(way);
                    u32 dpl = i & 3, present = i & 4 ? PRESENT : 0;
                    u32 selector = way == INT ? 0x80 * 8 + ERROR_IDT : SEL_GATE;
                    u64 value = gate(SEL_NEW, 0, TASK_GATE | present | DPL(dpl), 0);
                    if (way == INT) {
                        if (rpl)
                            continue;
                        idt[0x80] = value;
                    } else {
                        set_gdt(SEL_GATE, value);
                        far_pointer(context.r[RBX], SEL_GATE | rpl);
                    }
                    run();
                    title("%s, DPL %u, present %x, CPL %u, RPL %u", ways[way], dpl, present, cpl,
                          rpl);
                    if (dpl < cpl || (way != INT && dpl < rpl))
                        expect_fault(GP, selector);
                    else if (!present)
                        expect_fault(NP, selector);
                    else
                        expect(result.vector == BP && result.rip == NEW_CODE + 1);
                }
    end();
    begin("SDM vol. 2: a task gate to a busy TSS, to the LDT, past the GDT, to no TSS: #GP(selector)");
    for (enum way way = GATE_JUMP; way < WAYS; way++)
        for (u32 i = 0; i < 4; i++) {
            static const u16 targets[] = {SEL_TSS, 0x84, 0x3F8, SEL_DATA};
            fresh(world, 0);
            new_task(TSS32);
            set_way(way);
            set_gdt(SEL_GATE, gate(targets[i], 0, TASK_GATE | PRESENT | DPL(3), 0));
            idt[0x80] = gdt[SEL_GATE >> 3];
            run();
            title("%s, target %x", ways[way], targets[i]);
            expect_fault(GP, targets[i]);
        }
    end();
    begin("SDM vol. 2, vol. 3A 8.3, table 8-1: a TSS with a limit below 67h is #TS(selector)");
    for (enum way way = JUMP; way < WAYS; way++)
        for (u32 limit = 0x66; limit < 0x69; limit++) {
            fresh(world, 0);
            new_task(TSS32);
            set_way(way);
            set_gdt(SEL_NEW, descriptor(NEW_TSS, limit, TSS32 | PRESENT | DPL(3)));
            run();
            title("%s, limit %x", ways[way], limit);
            if (limit < 0x67)
                expect_fault(TS, SEL_NEW);
            else
                expect(result.vector == BP && result.rip == NEW_CODE + 1);
        }
    end();
    begin("SDM vol. 2 IRET: NT with a link that is null, past the GDT, not busy, not a TSS: #TS");
    for (u32 i = 0; i < 5; i++) {
        static const u16 links[] = {0, 0x3F8, SEL_NEW, SEL_DATA, 0x84};
        fresh(world, 0);
        new_task(TSS32);
        old_tss()[LINK] = links[i];
        run_program(A32("pushfd; or dword ptr [esp], 0x4000; popfd; iretd"));
        title("link %x", links[i]);
        expect_fault(TS, links[i] & ~3);
    }
    end();
}

/// What of the new state is wrong is found in the new task (SDM vol. 3A table 8-1).
static void new_state(enum world world) {
    static const struct {
        const char *name;
        u8 field;
        u16 selector;
        u32 vector;
    } table[] = {
        {"LDT selector to data", LDTR, SEL_DATA, TS},
        {"LDT selector into the LDT", LDTR, 0x84, TS},
        {"LDT not present", LDTR, SEL_TEST + 0x10, TS},
        {"CS null", CS_, 0, TS},
        {"CS data", CS_, SEL_DATA, TS},
        {"CS past the GDT", CS_, 0x3F8, TS},
        {"CS not present", CS_, SEL_TEST + 0x18, NP},
        {"CS with RPL 3 and DPL 0", CS_, SEL_CODE32 | 3, TS},
        {"SS null", SS_, 0, TS},
        {"SS code", SS_, SEL_CODE32, TS},
        {"SS past the GDT", SS_, 0x3F8, TS},
        {"SS not present", SS_, SEL_TEST + 0x20, SS},
        {"SS of ring 3", SS_, SEL_USER_DATA, TS},
        {"DS a system segment", DS_, SEL_TSS, TS},
        {"DS past the GDT", DS_, 0x3F8, TS},
        {"DS not present", DS_, SEL_TEST + 0x20, NP},
        {"ES execute-only code", ES_, SEL_TEST + 0x28, TS},
        {"FS past the GDT", FS_, 0x3F8, TS},
        {"GS not present", GS_, SEL_TEST + 0x20, NP},
    };
    begin("SDM vol. 3A table 8-1, 6.15 (#TS): faults by the new task's state come in the new task");
    for (u32 i = 0; i < COUNT(table); i++)
        for (enum way way = JUMP; way < WAYS; way++) {
            fresh(world, 0);
            new_task(TSS32);
            set_way(way);
            set_gdt(SEL_TEST + 0x10, descriptor((u32)ldt, 127, LDT));
            set_gdt(SEL_TEST + 0x18, descriptor(0, 0xFFFFF, CODE_SEGMENT | B | G));
            set_gdt(SEL_TEST + 0x20, descriptor(0, 0xFFFFF, DATA | WRITABLE | B | G));
            set_gdt(SEL_TEST + 0x28, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | B | G));
            // The handler needs a stack whatever became of SS: that of another task.
            u32 vector = table[i].vector;
            volatile u32 *third = (volatile u32 *)(KERNEL_DATA + 0xA00);
            for (u32 j = 0; j < 26; j++)
                third[j] = new_tss[j];
            third[EIP] = NEW_CODE + 0x80;
            third[ESP] = NEW_STACK - 0x400;
            place(NEW_CODE + 0x80, A32("nop"));
            set_gdt(SEL_TEST + 0x30, descriptor((u32)third, 0x67, TSS32 | PRESENT));
            idt[vector] = gate(SEL_TEST + 0x30, 0, TASK_GATE | PRESENT, 0);
            new_tss[table[i].field] = table[i].selector;
            run();
            title("%s, %s", table[i].name, ways[way]);
            if (!expect(result.vector == BP && result.rip == NEW_CODE + 0x82))
                continue;
            // EXT is clear: these switches are the program's own doing.
            expect_value("error code", *dwords(NEW_STACK - 0x404), table[i].selector & ~3);
            expect_value("task that faulted", third[LINK] & 0xFFFF, SEL_NEW);
            expect_value("its EIP", new_tss[EIP], NEW_CODE);
        }
    end();
}

/// 16-bit TSSs (SDM vol. 3A 8.6).
static void narrow_tasks(void) {
    fresh(FLAT, 0);
    new_task(TSS16);
    volatile u16 *t = (volatile u16 *)NEW_TSS;
    for (u32 i = 0; i < 22; i++)
        t[i] = 0;
    // IP, FLAGS, AX, CX, DX, BX, SP, BP, SI, DI, ES, CS, SS, DS, LDT from 14 on.
    t[1] = 0x7000;
    t[2] = SEL_DATA;
    t[7] = 0x400;
    t[8] = 2;
    for (u32 i = 0; i < 8; i++)
        t[9 + i] = 0xB000 + i;
    t[13] = 0xF000;
    t[17] = SEL_DATA;
    set_gdt(SEL_TEST + 0x10, descriptor(NEW_CODE, 0xFFFF, CODE_SEGMENT | PRESENT));
    set_gdt(SEL_TEST + 0x18, descriptor(LOW_STACK, 0xFFFF, DATA | WRITABLE | PRESENT));
    t[18] = SEL_TEST + 0x10;
    t[19] = SEL_TEST + 0x18;
    t[20] = SEL_DATA;
    t[21] = SEL_LDT;
    set_gdt(SEL_NEW, descriptor(NEW_TSS, 0x2B, TSS16 | PRESENT));
    *bytes(NEW_CODE + 0x400) = 0xCC;
    set_way(JUMP);
    run();
    check(result.vector == BP && result.rip == 0x401 && (record.r[RAX] & 0xFFFF) == 0xB000 &&
              (record.r[RDI] & 0xFFFF) == 0xB007 && record.ds == SEL_DATA && record.fs == 0 &&
              (result.rsp & 0xFFFF) == 0xF000 && type_of(SEL_NEW) == TSS16_BUSY,
          "SDM vol. 3A 8.6, 8.3: a switch to a 16-bit TSS; FS and GS become null");
    set_gdt(SEL_NEW, descriptor(NEW_TSS, 0x2A, TSS16 | PRESENT));
    run();
    check_fault(TS, SEL_NEW, "SDM vol. 3A 8.3: a 16-bit TSS with a limit below 2Bh is #TS");
}

void chapter(void) {
    static const enum world worlds[] = {FLAT, PAGED};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        about(world_names[worlds[i]]);
        switches(worlds[i]);
        checks(worlds[i]);
        new_state(worlds[i]);
    }
    about(world_names[FLAT]);
    narrow_tasks();
}
