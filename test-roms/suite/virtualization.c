//! What a monitor would have to see, and what of it traps (SDM vol. 2 and vol. 3A 5.9, 21.2.7).
//!
//! Popek and Goldberg (Communications of the ACM 17, 1974): a machine can be virtualized by running
//! the guest without privilege if each of its sensitive instructions, those that read or change the
//! machine's privileged state or depend on it, is privileged, that is, traps. Robin and Irvine (USENIX
//! Security 2000) found seventeen of the x86 that do not. Each is here, in the rings that a guest's
//! kernel would be moved to.

#include "suite.h"

const char chapter_name[] = "virtualization";

static bool is_wide(enum world world) { return world == LONG; }
static u32 data_of(u32 ring) { return ring == 3 ? USER_DATA : KERNEL_DATA; }
static u32 code_of(u32 ring) { return ring == 3 ? USER_CODE : KERNEL_CODE; }

#define BOTH(text32, text64) (is_wide(world) ? A64(text64) : A32(text32))

/// A case for each ring that a kernel may be moved to.
#define IN_EACH_RING(...) \
    for (u32 ring = 1; ring < 4; ring++) { \
        fresh(world, ring); \
        title("ring %u", ring); \
        __VA_ARGS__ \
    }

/// SGDT, SIDT, SLDT, STR, SMSW: the true tables and modes, and nobody is told.
static void stores(enum world world) {
    begin("SDM vol. 2 SGDT: outside ring 0 it gives the true base and limit of the GDT, no trap");
    IN_EACH_RING({
        context.r[RBX] = data_of(ring);
        run_program(BOTH("sgdt [ebx]", "sgdt [rbx]"));
        volatile u32 *stored = dwords(data_of(ring));
        if (expect_completes()) {
            expect_value("limit", stored[0] & 0xFFFF, context.gdtr.limit);
            expect_value("base", stored[0] >> 16 | stored[1] << 16, low(context.gdtr.base));
        }
    })
    end();
    begin("SDM vol. 2 SIDT: outside ring 0 it gives the true base and limit of the IDT, no trap");
    IN_EACH_RING({
        context.r[RBX] = data_of(ring);
        run_program(BOTH("sidt [ebx]", "sidt [rbx]"));
        volatile u32 *stored = dwords(data_of(ring));
        if (expect_completes()) {
            expect_value("limit", stored[0] & 0xFFFF, context.idtr.limit);
            expect_value("base", stored[0] >> 16 | stored[1] << 16, low(context.idtr.base));
        }
    })
    end();
    begin("SDM vol. 2 SLDT, STR: outside ring 0 they give the true selectors, no trap");
    IN_EACH_RING({
        run_program(BOTH("sldt ax; str cx", "sldt ax; str cx"));
        if (expect_completes()) {
            expect_value("LDTR", record.r[RAX] & 0xFFFF, SEL_LDT);
            expect_value("TR", record.r[RCX] & 0xFFFF, SEL_TSS);
        }
    })
    end();
    begin("SDM vol. 2 SMSW: outside ring 0 it gives the true CR0, no trap");
    IN_EACH_RING({
        run_program(BOTH("smsw ax", "smsw ax"));
        if (expect_completes())
            expect_value("CR0", record.r[RAX] & 0xFFFF, low(context.cr0) & 0xFFFF);
    })
    end();
}

/// PUSHF and POPF: IF and IOPL are read as they are, and stay as they are.
static void flags(enum world world) {
    begin("SDM vol. 2 PUSHF: outside ring 0 it gives the true IF, no trap");
    for (u32 on = 0; on < 2; on++)
        IN_EACH_RING({
            context.rflags |= on ? FLAGS_IF : 0;
            run_program(BOTH("pushfd; pop eax", "pushfq; pop rax"));
            title("ring %u, IF %u", ring, on);
            if (expect_completes())
                expect_value("IF", record.r[RAX] & FLAGS_IF, on ? FLAGS_IF : 0);
        })
    end();
    fresh(world, 0);
    context.rflags |= FLAGS_IF;
    run_program(BOTH("push 0x3002; popfd; pushfd; pop eax; push 2; popfd",
                     "push 0x3002; popfq; pushfq; pop rax; push 2; popfq"));
    check(completed() && (record.r[RAX] & 0x3200) == 0x3000,
          "SDM vol. 2 POPF: in ring 0 it changes IF and IOPL");
    begin("SDM vol. 2 POPF: with CPL > IOPL it leaves IF and IOPL as they were, no trap");
    IN_EACH_RING({
        context.rflags |= FLAGS_IF;
        run_program(BOTH("push 0x3002; popfd; pushfd; pop eax",
                         "push 0x3002; popfq; pushfq; pop rax"));
        if (expect_completes())
            expect_value("IF and IOPL", record.r[RAX] & 0x3200, FLAGS_IF);
    })
    end();
}

/// LAR, LSL, VERR, VERW: the answer depends on the ring.
static void queries(enum world world) {
    static const struct {
        const char *name;
        u8 code[3];
    } table[] = {
        {"LAR", {0x0F, 0x02, 0xC8}}, {"LSL", {0x0F, 0x03, 0xC8}},
        {"VERR", {0x0F, 0x00, 0xE0}}, {"VERW", {0x0F, 0x00, 0xE8}},
    };
    begin("SDM vol. 2 LAR, LSL, VERR, VERW: ZF for a segment of DPL 0 is 1 in ring 0, else 0, no trap");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 ring = 0; ring < 4; ring++) {
            fresh(world, ring);
            context.r[RAX] = SEL_DATA;
            context.rflags |= ring ? 1 << 6 : 0;
            load_bytes(table[i].code, 3);
            run();
            title("%s, ring %u", table[i].name, ring);
            if (expect_completes())
                expect_value("ZF", result.rflags >> 6 & 1, ring == 0);
        }
    end();
}

/// MOV from, PUSH and POP of segment registers.
static void selectors(enum world world) {
    begin("SDM vol. 2 MOV: MOV r, CS and MOV r, SS tell the ring, no trap");
    IN_EACH_RING({
        run_program(BOTH("mov eax, cs; mov ecx, ss", "mov eax, cs; mov ecx, ss"));
        if (expect_completes()) {
            expect_value("RPL of CS", record.r[RAX] & 3, ring);
            expect_value("RPL of SS", record.r[RCX] & 3, ring);
        }
    })
    end();
    if (!is_wide(world)) {
        begin("SDM vol. 2 PUSH: PUSH CS and PUSH SS tell the ring, no trap");
        IN_EACH_RING({
            run_program(A32("push cs; push ss; pop ecx; pop eax"));
            if (expect_completes()) {
                expect_value("RPL of CS", record.r[RAX] & 3, ring);
                expect_value("RPL of SS", record.r[RCX] & 3, ring);
            }
        })
        end();
    }
    begin("SDM vol. 2 POP, vol. 3A 3.4.5.1: POP FS reads the GDT and writes to it (A), no trap");
    IN_EACH_RING({
        run_program(BOTH("push 0x23; pop fs", "push 0x23; pop fs"));
        if (expect_completes())
            expect_value("A", gdt[SEL_USER_DATA >> 3] >> 40 & 1, 1);
    })
    end();
    begin("SDM vol. 2 POP: a data segment of DPL 0 is taken in ring 0, else #GP(selector)");
    for (u32 ring = 0; ring < 4; ring++) {
        fresh(world, ring);
        run_program(BOTH("push 0x10; pop fs", "push 0x10; pop fs"));
        title("ring %u", ring);
        if (ring)
            expect_fault(GP, SEL_DATA);
        else
            expect_completes();
    }
    end();
}

/// Far transfers: they check against the ring, and leave it in CS.
static void transfers(enum world world) {
    static const char *const names[] = {"JMP", "CALL", "RET"};
    u32 conforming = CODE_SEGMENT | READABLE | CONFORMING | PRESENT | G | (is_wide(world) ? L : B);
    begin("SDM vol. 2 JMP, CALL, RET: far ones to conforming code leave the ring in CS, no trap");
    for (u32 kind = 0; kind < 3; kind++)
        IN_EACH_RING({
            u32 target = code_of(ring) + 0x400;
            set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, conforming));
            context.r[RBX] = data_of(ring);
            context.r[RAX] = target;
            context.r[RCX] = SEL_TEST | ring;
            dwords(data_of(ring))[0] = target;
            dwords(data_of(ring))[1] = SEL_TEST;
            *bytes(target) = 0xCC;
            run_program(kind == 0   ? BOTH("jmp fword ptr [ebx]", "jmp fword ptr [rbx]")
                        : kind == 1 ? BOTH("call fword ptr [ebx]", "call fword ptr [rbx]")
                                    : BOTH("push ecx; push eax; retf", "push rcx; push rax; retfq"));
            title("%s, ring %u", names[kind], ring);
            if (expect(result.vector == BP && result.rip == target + 1))
                expect_value("CS", result.cs, SEL_TEST | ring);
        })
    end();
    begin("SDM vol. 2 JMP, CALL: far ones to code of DPL 0 are taken in ring 0, else #GP(selector)");
    u32 selector = is_wide(world) ? SEL_CODE64 : SEL_CODE32;
    for (u32 kind = 0; kind < 2; kind++)
        for (u32 ring = 0; ring < 4; ring++) {
            fresh(world, ring);
            u32 target = code_of(ring) + 0x400;
            context.r[RBX] = data_of(ring);
            dwords(data_of(ring))[0] = target;
            dwords(data_of(ring))[1] = selector;
            *bytes(target) = 0xCC;
            run_program(kind ? BOTH("call fword ptr [ebx]", "call fword ptr [rbx]")
                             : BOTH("jmp fword ptr [ebx]", "jmp fword ptr [rbx]"));
            title("%s, ring %u", names[kind], ring);
            if (ring)
                expect_fault(GP, selector);
            else
                expect(result.vector == BP && result.rip == target + 1);
        }
    end();
    begin("SDM vol. 2 INT n: it goes through the true IDT, from a gate's DPL on without a trap");
    IN_EACH_RING({
        u32 entry = is_wide(world) ? 2 * 0x80 : 0x80;
        idt[entry] |= (u64)DPL(ring) << 40;
        run_program(BOTH("int 0x80", "int 0x80"));
        if (expect(result.vector == 0x80))
            expect_value("ring that it came from", result.cs & 3, ring);
    })
    end();
}

/// What is sensitive and privileged: a monitor is told.
static void privileged(enum world world) {
    static const struct {
        const char *name;
        u8 code[3];
    } table[] = {
        {"LGDT", {0x0F, 0x01, 0x13}}, {"LIDT", {0x0F, 0x01, 0x1B}}, {"LLDT", {0x0F, 0x00, 0xD0}},
        {"LTR", {0x0F, 0x00, 0xD8}}, {"LMSW", {0x0F, 0x01, 0xF0}}, {"CLTS", {0x0F, 0x06, 0x90}},
        {"HLT", {0xF4, 0x90, 0x90}}, {"INVD", {0x0F, 0x08, 0x90}}, {"WBINVD", {0x0F, 0x09, 0x90}},
        {"INVLPG", {0x0F, 0x01, 0x3B}}, {"MOV r, CR0", {0x0F, 0x20, 0xC0}},
        {"MOV CR0, r", {0x0F, 0x22, 0xC0}}, {"MOV r, CR3", {0x0F, 0x20, 0xD8}},
        {"MOV CR3, r", {0x0F, 0x22, 0xD8}}, {"MOV r, DR7", {0x0F, 0x21, 0xF8}},
        {"MOV DR7, r", {0x0F, 0x23, 0xF8}}, {"CLI", {0xFA, 0x90, 0x90}}, {"STI", {0xFB, 0x90, 0x90}},
        {"IN", {0xE4, 0x80, 0x90}}, {"OUT", {0xE6, 0x80, 0x90}},
    };
    begin("SDM vol. 3A 5.9, vol. 1 19.5: what sets the machine's state traps outside ring 0: #GP(0)");
    for (u32 i = 0; i < COUNT(table); i++)
        IN_EACH_RING({
            context.r[RBX] = data_of(ring);
            load_bytes(table[i].code, 3);
            run();
            title("%s, ring %u", table[i].name, ring);
            expect_fault(GP, 0);
        })
    end();
}

/// UMIP mends five of the seventeen (SDM vol. 3A 2.5).
static void umip(enum world world) {
    const char *text = "SDM vol. 3A 2.5: with CR4.UMIP set SGDT, SIDT, SLDT, STR and SMSW trap: #GP(0)";
    static const u8 codes[][3] = {
        {0x0F, 0x01, 0x03}, {0x0F, 0x01, 0x0B}, {0x0F, 0x00, 0x03}, {0x0F, 0x00, 0x0B},
        {0x0F, 0x01, 0x23},
    };
    if (!HAS_UMIP) {
        skip(text, "CPUID lacks UMIP");
        return;
    }
    begin(text);
    for (u32 i = 0; i < COUNT(codes); i++)
        IN_EACH_RING({
            context.cr4 |= CR4_UMIP;
            context.r[RBX] = data_of(ring);
            load_bytes(codes[i], 3);
            run();
            title("instruction %u, ring %u", i, ring);
            expect_fault(GP, 0);
        })
    end();
}

/// The 8086 was virtualized right: what concerns interrupts traps by IOPL.
static void v86(void) {
    static const struct {
        const char *name;
        u8 code[2];
    } table[] = {
        {"CLI", {0xFA, 0x90}}, {"STI", {0xFB, 0x90}}, {"PUSHF", {0x9C, 0x90}},
        {"POPF", {0x9D, 0x90}}, {"INT n", {0xCD, 0x80}}, {"IRET", {0xCF, 0x90}},
    };
    about(world_names[V86]);
    begin("SDM vol. 3A 21.2.7: with IOPL < 3 CLI, STI, PUSHF, POPF, INT n and IRET trap: #GP(0)");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 iopl = 0; iopl < 3; iopl++) {
            fresh(V86, 3);
            context.rflags |= iopl << 12;
            load_bytes(table[i].code, 2);
            run();
            title("%s, IOPL %u", table[i].name, iopl);
            expect_fault(GP, 0);
        }
    end();
    fresh(V86, 3);
    run_program(A16("smsw ax"));
    check(completed() && (record.r[RAX] & CR0_PE),
          "SDM vol. 2 SMSW: in virtual-8086 mode too it tells of protected mode, no trap");
}

void chapter(void) {
    static const enum world worlds[] = {FLAT, PAGED, LONG};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        enum world world = worlds[i];
        about(world_names[world]);
        if (!has_world(world)) {
            skip(world_names[world], "CPUID lacks it");
            continue;
        }
        stores(world);
        flags(world);
        queries(world);
        selectors(world);
        transfers(world);
        privileged(world);
        umip(world);
    }
    v86();
}
