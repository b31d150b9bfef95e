//! The x87 floating-point unit as system software sees it: CR0, exceptions, images of its state (SDM
//! vol. 1 chapter 8; vol. 3A 2.5; vol. 1 10.5 for FXSAVE).

#include "irq.h"

const char chapter_name[] = "x87";

/// The status word (SDM vol. 1 8.1.3); the exceptions' flags are the masks of the control word too.
enum { IE = 1, DENORMAL = 2, ZE = 4, OVERFLOW = 8, UNDERFLOW = 16, PE = 32, SF = 64, ES = 128, C1 = 1 << 9,
       TOP = 7 << 11, BUSY = 1 << 15 };

/// Where the programs have what they load and store.
#define WORK    (context.cs & 3 ? USER_DATA : KERNEL_DATA)
#define OPERAND 0x40                            // two numbers of 10 bytes, 16 bytes apart
#define IMAGE   0x200
#define FILL    0xA5

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }

static void set_operand(u32 n, u16 exponent, u64 significand) {
    u32 at = WORK + OPERAND + 16 * n;
    *qwords(at) = significand;
    *(volatile u16 *)(at + 8) = exponent;
}

static void begin_in(enum world world, int ring) {
    fresh(world, ring);
    context.r[RBX] = WORK;
    for (u32 i = 0; i < 0x400; i++)
        *bytes(WORK + i) = 0;
}

/// Nothing pending, nothing on the stack, whatever came before.
static void leave_clean(void) {
    fresh(FLAT, 0);
    run_program(A32("fninit"));
}

//
// CR0.EM, MP, TS
//

static void availability(enum world world) {
    enum rule { X87, WAIT, MMX, FX };
    static const struct {
        const char *name;
        enum rule rule;
        u8 length, code[4];
    } table[] = {
        {"FNINIT", X87, 2, {0xDB, 0xE3}}, {"FNSTSW AX", X87, 2, {0xDF, 0xE0}},
        {"FNCLEX", X87, 2, {0xDB, 0xE2}}, {"FNOP", X87, 2, {0xD9, 0xD0}},
        {"FNSTCW [BX]", X87, 2, {0xD9, 0x3B}}, {"FNSTENV [BX]", X87, 2, {0xD9, 0x33}},
        {"FLD DWORD [BX]", X87, 2, {0xD9, 0x03}}, {"FFREE ST0", X87, 2, {0xDD, 0xC0}},
        {"WAIT", WAIT, 1, {0x9B}}, {"EMMS", MMX, 2, {0x0F, 0x77}},
        {"MOVQ MM0, MM0", MMX, 3, {0x0F, 0x6F, 0xC0}}, {"FXSAVE [BX]", FX, 3, {0x0F, 0xAE, 0x03}},
        {"FXRSTOR [BX]", FX, 3, {0x0F, 0xAE, 0x0B}},
    };
    begin("SDM vol. 3A tables 2-2, 13-1: #NM with EM or TS; WAIT with MP and TS; MMX is #UD with EM, "
          "#NM with TS");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 flags = 0; flags < 8; flags++) {
            if ((table[i].rule == MMX && !HAS_MMX) || (table[i].rule == FX && !HAS_FXSR))
                continue;
            leave_clean();
            begin_in(world, 3);
            bool em = flags & 1, mp = flags & 2, ts = flags & 4;
            context.cr0 |= (em ? CR0_EM : 0) | (mp ? CR0_MP : 0) | (ts ? CR0_TS : 0);
            load_bytes(table[i].code, table[i].length);
            run();
            title("%s, EM %u, MP %u, TS %u", table[i].name, em, mp, ts);
            if (table[i].rule == MMX && em)
                expect_fault(UD, 0);
            else if (table[i].rule == WAIT ? mp && ts : em || ts)
                expect_fault(NM, 0);
            else
                expect_completes();
        }
    end();
    leave_clean();
}

//
// Exceptions
//

/// An operation on two numbers that raises one exception: ST1 op ST0.
struct cause {
    const char *name;
    u32 flag, with;                             // the exception; others that come with it if masked
    u8 operation;                               // DE xx: FADDP, FMULP, FDIVP ST1, ST0
    u16 exponent[2];
    u64 significand[2];
    bool before;                                // found before the operation: operands stay
};
#define ONE 0x3FFF, 1ull << 63
static const struct cause causes[] = {
    {"0 / 0", IE, 0, 0xF9, {0, 0}, {0, 0}, true},
    {"denormal * 1", DENORMAL, 0, 0xC9, {0, 0x3FFF}, {1ull << 62, 1ull << 63}, true},
    {"1 / 0", ZE, 0, 0xF9, {0x3FFF, 0}, {1ull << 63, 0}, true},
    {"the largest * 2", OVERFLOW, PE, 0xC9, {0x7FFE, 0x4000}, {~0ull, 1ull << 63}, false},
    {"the smallest normal and a bit / 2", UNDERFLOW, PE, 0xC9, {1, 0x3FFE}, {(1ull << 63) | 1, 1ull << 63},
     false},
    {"1 / 3", PE, 0, 0xF9, {0x3FFF, 0x4000}, {1ull << 63, 3ull << 62}, false},
};

static void set_cause(const struct cause *cause, u16 control) {
    *(volatile u16 *)WORK = control;
    set_operand(0, cause->exponent[0], cause->significand[0]);
    set_operand(1, cause->exponent[1], cause->significand[1]);
}

/// FNINIT; FLDCW; FLD twice; the operation; what follows.
static void load_cause(const struct cause *cause, const u8 *then, u32 length) {
    u8 code[48] = {
        0xDB, 0xE3, 0xD9, 0x2B, 0xDB, 0x6B, OPERAND, 0xDB, 0x6B, OPERAND + 16, 0xDE, cause->operation,
        0xDF, 0xE0,                             // FNSTSW AX
    };
    for (u32 i = 0; i < length; i++)
        code[14 + i] = then[i];
    load_bytes(code, 14 + length);
}
enum { BEHIND = 14 };

static void exceptions(enum world world) {
    begin("SDM vol. 1 8.5, 8.7: masked exceptions set their flags; unmasked ones ES and B too, and #MF comes "
          "with the next waiting instruction");
    for (u32 i = 0; i < COUNT(causes); i++)
        for (u32 unmasked = 0; unmasked < 2; unmasked++) {
            begin_in(world, 3);
            const struct cause *cause = &causes[i];
            set_cause(cause, 0x37F & ~(unmasked ? cause->flag : 0));
            static const u8 wait[] = {0x9B};
            load_cause(cause, wait, 1);
            run();
            title("%s, %s", cause->name, unmasked ? "unmasked" : "masked");
            u32 status = record.r[RAX] & 0xFFFF;
            if (!unmasked) {
                expect_completes();
                expect_value("flags", status & (63 | SF | ES | BUSY), cause->flag | cause->with);
                continue;
            }
            expect(result.vector == MF && result.rip == context.rip + BEHIND);
            expect_value("flags", status & (cause->flag | SF | ES | BUSY), cause->flag | ES | BUSY);
            // Found before the operation: no pop, operands as they were.
            expect_value("TOP", (status & TOP) >> 11, cause->before ? 6 : 7);
        }
    end();

    static const struct {
        const char *name;
        bool waits;
        u8 length, code[4];
    } followers[] = {
        {"WAIT", true, 1, {0x9B}}, {"FLD1", true, 2, {0xD9, 0xE8}}, {"FNOP", true, 2, {0xD9, 0xD0}},
        {"FLDCW", true, 2, {0xD9, 0x2B}}, {"FSTP ST0", true, 2, {0xDD, 0xD8}},
        {"FLDENV", true, 2, {0xD9, 0x23}}, {"FRSTOR", true, 2, {0xDD, 0x23}},
        {"FNSTSW AX", false, 2, {0xDF, 0xE0}}, {"FNSTSW [BX]", false, 2, {0xDD, 0x3B}},
        {"FNSTCW [BX]", false, 2, {0xD9, 0x3B}}, {"FNCLEX", false, 2, {0xDB, 0xE2}},
        {"FNINIT", false, 2, {0xDB, 0xE3}}, {"FNSTENV [BX]", false, 2, {0xD9, 0x33}},
        {"FNSAVE [BX]", false, 2, {0xDD, 0x33}}, {"EMMS", true, 2, {0x0F, 0x77}},
        {"MOVQ MM0, MM1", true, 3, {0x0F, 0x6F, 0xC1}}, {"FXSAVE [BX]", false, 3, {0x0F, 0xAE, 0x03}},
    };
    begin("SDM vol. 1 8.3.12, 8.7, 9.5.1: #MF comes with waiting and MMX instructions, not with FNxxx and FXSAVE");
    for (u32 i = 0; i < COUNT(followers); i++) {
        bool mmx = followers[i].code[0] == 0x0F && followers[i].code[1] != 0xAE;
        if ((mmx && !HAS_MMX) || (followers[i].code[1] == 0xAE && !HAS_FXSR))
            continue;
        begin_in(world, 3);
        set_cause(&causes[2], 0x37F & ~ZE);
        load_cause(&causes[2], followers[i].code, followers[i].length);
        run();
        title("%s", followers[i].name);
        if (followers[i].waits)
            expect(result.vector == MF && result.rip == context.rip + BEHIND);
        else
            expect_completes();
    }
    end();

    begin_in(world, 3);
    set_cause(&causes[2], 0x37F & ~ZE);
    static const u8 clear[] = {0xDB, 0xE2, 0x9B, 0xDF, 0xE0};
    load_cause(&causes[2], clear, sizeof clear);
    run();
    check(completed() && !(record.r[RAX] & (63 | SF | ES | BUSY)),
          "SDM vol. 2 FCLEX: clears the flags, ES and B; nothing is pending any more");
    begin_in(world, 3);
    set_cause(&causes[2], 0x37F);
    *(volatile u16 *)(WORK + 2) = 0x37F & ~ZE;
    static const u8 unmask[] = {0xD9, 0x6B, 2, 0xDF, 0xE0, 0x9B};   // FLDCW [BX+2]; FNSTSW AX; WAIT
    load_cause(&causes[2], unmask, sizeof unmask);
    run();
    check(result.vector == MF && result.rip == context.rip + BEHIND + 5 && record.r[RAX] & ES,
          "SDM vol. 2 FLDCW: unmasking an exception whose flag is set makes it pending");
    leave_clean();
}

static void stack_faults(void) {
    begin("SDM vol. 1 8.5.1.1: overflow and underflow of the stack set IE and SF; C1 tells them apart; TOP "
          "and registers stay if unmasked");
    for (u32 unmasked = 0; unmasked < 2; unmasked++)
        for (u32 overflow = 0; overflow < 2; overflow++) {
            begin_in(FLAT, 3);
            *(volatile u16 *)WORK = unmasked ? 0x37E : 0x37F;
            run_program(overflow ? A32("fninit; fldcw [ebx]; fldz; fldz; fldz; fldz; fldz; fldz; fldz; fldz; "
                                       "fld1; fnstsw ax; mov ecx, eax; fnclex; fxam; fnstsw ax; mov edx, eax")
                                 : A32("fninit; fldcw [ebx]; fstp dword ptr [ebx + 8]; fnstsw ax; mov ecx, eax; "
                                       "fnclex; fxam; fnstsw ax; mov edx, eax"));
            title("%s, %s", overflow ? "overflow" : "underflow", unmasked ? "unmasked" : "masked");
            if (!expect_completes())
                continue;
            u32 status = low(record.r[RCX]), class = low(record.r[RDX]) & 0x4500;   // C3, C2, C0
            expect_value("flags", status & (63 | SF | ES | BUSY | C1),
                         IE | SF | (overflow ? C1 : 0) | (unmasked ? ES | BUSY : 0));
            u32 top = overflow ? unmasked ? 0 : 7 : unmasked ? 0 : 1;
            expect_value("TOP", (status & TOP) >> 11, top);
            if (overflow)                       // the zero that was there, or the indefinite
                expect_value("class of ST0", class, unmasked ? 0x4000 : 0x100);
            else
                expect_value("stored", *dwords(WORK + 8), unmasked ? 0 : 0xFFC00000);
        }
    end();
    leave_clean();
}

/// CR0.NE clear: the error goes out by FERR#, and comes back as IRQ 13.
static void external_error(void) {
    irq_init();
    out8(0x21, 0xFB);                           // the second 8259A
    out8(0xA1, 0xDF);                           // IRQ 13
    begin_in(FLAT, 0);
    context.cr0 &= ~(u64)CR0_NE;
    context.rflags |= FLAGS_IF;
    set_cause(&causes[2], 0x37F & ~ZE);
    static const u8 waits[] = {0x9B, 0x90, 0x90, 0x90, 0x90};
    load_cause(&causes[2], waits, sizeof waits);
    run();
    check(result.vector == IRQ_VECTOR + 13, "SDM vol. 1 8.7.2, vol. 3A 2.5: with CR0.NE clear, FERR# is "
                                            "asserted: IRQ 13 on a PC");
    out8(0xF0, 0);                              // FERR# is heard again
    out8(0xA0, 0x20);
    out8(0x20, 0x20);
    leave_clean();
    irq_done();
}

//
// Images
//

static void initial_state(enum world world) {
    begin_in(world, 3);
    run_program(is_wide(world) ? A64("fninit; fnstenv [rbx]") : A32("fninit; fnstenv [ebx]"));
    volatile u16 *image = (volatile u16 *)WORK;
    check(completed() && image[0] == 0x37F && image[2] == 0 && image[4] == 0xFFFF && !image[6] && !image[7] &&
              !image[8] && !image[10] && !image[11] && !image[12],
          "SDM vol. 2 FINIT: control 037Fh, status 0, tags FFFFh, pointers 0");
}

static void tags(void) {
    begin_in(FLAT, 3);
    set_operand(0, 0x7FFF, 1ull << 63);         // infinity
    set_operand(1, 0, 1);                       // a denormal number
    set_operand(2, 0x4000, 1);                  // unnormal: not supported
    run_program(A32("fninit; fldz; fld1; fld tbyte ptr [ebx + 0x40]; fld tbyte ptr [ebx + 0x50]; "
                    "fld tbyte ptr [ebx + 0x60]; fnstenv [ebx]; fnstcw [ebx + 30]"));
    check(completed() && *(volatile u16 *)(WORK + 8) == 0x4ABF,
          "SDM vol. 1 8.1.7: tags: valid 00, zero 01, special 10, empty 11");
    begin_in(FLAT, 3);
    *(volatile u16 *)WORK = 0x340;
    run_program(A32("fninit; fldcw [ebx]; fnstenv [ebx]; fnstcw [ebx + 30]"));
    check(completed() && *(volatile u16 *)WORK == 0x340 && *(volatile u16 *)(WORK + 30) == 0x37F,
          "SDM vol. 2 FSTENV: stores the control word, then masks all exceptions");
    begin_in(FLAT, 3);
    run_program(A32("fninit; fld1; fldz; fnsave [ebx]; fnstenv [ebx + 0x80]"));
    volatile u16 *image = (volatile u16 *)WORK, *after = (volatile u16 *)(WORK + 0x80);
    check(completed() && (image[2] & TOP) >> 11 == 6 && image[4] == 0x1FFF && !*qwords(WORK + 28) &&
              *qwords(WORK + 38) == 1ull << 63 && image[(38 + 8) / 2] == 0x3FFF && after[0] == 0x37F &&
              !after[2] && after[4] == 0xFFFF,
          "SDM vol. 2 FSAVE, vol. 1 8.1.10: environment, ST0 to ST7; then as FINIT");
}

/// FLDENV and FNSTENV, FRSTOR and FNSAVE, in each format (SDM vol. 1 figures 8-9 to 8-12).
static void formats(void) {
    // SDM vol. 2 CPUID: FCS and FDS are zero on processors that say so.
    bool selectors = !(cpu.ebx7 & 1 << 13);
    begin("SDM vol. 1 figures 8-9 to 8-12: FRSTOR and FSAVE, FLDENV and FSTENV in 16 and 32 bits, protected "
          "and real: the image comes back, and no byte behind it changes");
    for (u32 mode = 0; mode < 3; mode++)        // protected, real, virtual-8086
        for (u32 wide = 0; wide < 2; wide++)
            for (u32 all = 0; all < 2; all++) {
                leave_clean();
                bool real = mode > 0;
                fresh(mode == 0 ? FLAT : mode == 1 ? REAL : V86, 3);
                u32 work = real ? LOW_DATA : USER_DATA;
                context.r[RBX] = real ? 0 : work;
                for (u32 i = 0; i < 0x400; i++)
                    *bytes(work + i) = i < IMAGE ? 0 : FILL;
                u16 fields[7] = {0x27F, 0x3800 & ~ES, 0x3FFF, 0x1234, 0x5678, 0x9ABC, 0xDEF0};
                if (real) {                     // linear addresses of 20 bits; the opcode has 11
                    fields[4] = 0x5678 & 0xF7FF;
                    fields[6] = 0xD000;
                }
                if (!selectors && !real)
                    fields[4] = fields[6] = 0;
                volatile u16 *image = (volatile u16 *)work;
                for (u32 i = 0; i < 7; i++) {
                    image[wide ? 2 * i : i] = fields[i];
                    if (wide && i < 3)
                        image[2 * i + 1] = 0xFFFF;
                }
                if (wide && !real) {
                    image[7] = 0x4321;          // upper half of FIP
                    image[9] = 0x123;         // opcode
                    image[11] = 0x8765;         // upper half of FDP
                }
                u32 size = (wide ? 28 : 14) + (all ? 80 : 0);
                for (u32 i = wide ? 28 : 14; i < size; i++)
                    *bytes(work + i) = i * 7;
                // FLDENV, FRSTOR, FNSTENV [BX+200h], FNSAVE: with the other operand size by prefix.
                u8 code[16];
                u32 n = 0;
                bool prefix = wide == real;
                for (u32 store = 0; store < 2; store++) {
                    if (prefix)
                        code[n++] = 0x66;
                    code[n++] = all ? 0xDD : 0xD9;
                    code[n++] = real ? (store ? 0xB7 : 0x27) : (store ? 0xB3 : 0x23);
                    if (store) {
                        code[n++] = IMAGE & 0xFF;
                        code[n++] = IMAGE >> 8;
                        if (!real) {
                            code[n++] = 0;
                            code[n++] = 0;
                        }
                    }
                }
                load_bytes(code, n);
                run();
                title("%s, %u bits, %s", mode == 0 ? "protected" : mode == 1 ? "real" : "virtual-8086",
                      wide ? 32 : 16, all ? "FSAVE" : "FSTENV");
                expect_completes();
                for (u32 i = 0; i < 0x100; i++) {
                    // The upper halves of the first words are reserved, and AMD's opcode is its own affair.
                    bool reserved = wide && i < 28 && (i & 2) && (i < 12 || real || i >= 24);
                    bool real_selector = wide && real && i >= 14 && i < 28;
                    bool opcode = (wide && !real && i >= 18 && i < 20) || (real && i >= (wide ? 16u : 8u) &&
                                                                          i < (wide ? 20u : 10u));
                    bool tag = i >= (wide ? 8u : 4u) && i < (wide ? 10u : 6u);  // found from the contents
                    if (reserved || real_selector || opcode || tag)
                        continue;
                    u32 want = i < size ? *bytes(work + i) : FILL, got = *bytes(work + IMAGE + i);
                    if (got != want)
                        note("byte %u", i);
                    expect_value("byte", got, want);
                }
            }
    end();
    leave_clean();
}

/// What pointers are after an instruction with an operand in memory.
static void pointers(enum world world) {
    begin_in(world, 3);
    run_program(is_wide(world) ? A64("fninit; nop; fld dword ptr [rbx + 0x40]; fnstcw [rbx]; fnstenv [rbx]")
                               : A32("fninit; nop; fld dword ptr [ebx + 0x40]; fnstcw [ebx]; fnstenv [ebx]"));
    bool selectors = !(cpu.ebx7 & 1 << 13) && !is_wide(world);
    check(completed() && *dwords(WORK + 12) == low(context.rip) + 3 && *dwords(WORK + 20) == WORK + 0x40 &&
              (!selectors || (*(volatile u16 *)(WORK + 16) == context.cs &&
                              *(volatile u16 *)(WORK + 24) == context.ds)),
          "SDM vol. 1 8.1.8: pointers to the last instruction that is none of control, and to its operand");
}

static void pending_image(void) {
    begin_in(FLAT, 3);
    volatile u16 *image = (volatile u16 *)WORK;
    image[0] = 0x37F & ~ZE;
    image[2] = ZE;
    image[4] = 0xFFFF;
    run_program(A32("fninit; frstor [ebx]; fnstsw ax; fwait"));
    check(result.vector == MF && record.r[RAX] & ES,
          "SDM vol. 2 FRSTOR: flags that the control word does not mask are pending");
    begin_in(FLAT, 3);
    image[0] = 0x37F;
    image[2] = ZE | ES | BUSY;
    image[4] = 0xFFFF;
    run_program(A32("fninit; fldenv [ebx]; fnstsw ax; fwait"));
    check(completed() && !(record.r[RAX] & (ES | BUSY)),
          "SDM vol. 1 8.1.3.3: ES is whether an unmasked flag is set, and B is the same as ES");
    leave_clean();
}

static void mmx(void) {
    if (!HAS_MMX) {
        skip("SDM vol. 1 9.5: MMX and x87", "CPUID lacks MMX");
        return;
    }
    begin_in(FLAT, 3);
    *qwords(WORK + 0x40) = 0x0123456789ABCDEFull;
    run_program(A32("fninit; fld1; fld1; movq mm3, [ebx + 0x40]; fnsave [ebx + 0x100]"));
    volatile u16 *image = (volatile u16 *)(WORK + 0x100);
    check(completed() && !(image[2] & TOP) && *qwords(WORK + 0x100 + 28 + 30) == 0x0123456789ABCDEFull &&
              image[(28 + 38) / 2] == 0xFFFF,
          "SDM vol. 3A 13.2: an MMX instruction sets TOP to 0, and exponents that it writes to FFFFh");
    begin_in(FLAT, 3);
    run_program(A32("fninit; movq mm0, mm0; fnstenv [ebx]; emms; fnstenv [ebx + 0x40]"));
    check(completed() && *(volatile u16 *)(WORK + 0x48) == 0xFFFF && (*(volatile u16 *)(WORK + 8) & 0xFFFF) != 0xFFFF,
          "SDM vol. 3A 13.2: an MMX instruction makes all tags valid, EMMS all empty");
    leave_clean();
}

//
// FXSAVE
//

static void fxsave(enum world world) {
    if (!HAS_FXSR) {
        skip("SDM vol. 1 10.5: FXSAVE", "CPUID lacks FXSR");
        return;
    }
    bool wide = is_wide(world);
    begin_in(world, 3);
    for (u32 i = 0; i < 0x300; i++)
        *bytes(WORK + i) = FILL;
    run_program(wide ? A64("fninit; fld1; fldz; fldz; ffree st(1); fxsave [rbx]; fnstenv [rbx + 0x240]")
                     : A32("fninit; fld1; fldz; fldz; ffree st(1); fxsave [ebx]; fnstenv [ebx + 0x240]"));
    volatile u16 *image = (volatile u16 *)WORK;
    // Registers 7 (1), 6 (freed), 5 (0).
    check(completed() && image[0] == 0x37F && (image[1] & TOP) >> 11 == 5 && *bytes(WORK + 4) == 0xA0 &&
              !*qwords(WORK + 32) && *qwords(WORK + 64) == 1ull << 63 && image[36] == 0x3FFF,
          "SDM vol. 1 table 10-2: FXSAVE: control, status, a bit of tag for each register, ST0 to ST7");
    check(completed() && *(volatile u16 *)(WORK + 0x248) == 0x37FF &&
              (*(volatile u16 *)(WORK + 0x244) & TOP) >> 11 == 5,
          "SDM vol. 2 FXSAVE: the state stays as it is");
    bool same = true;
    for (u32 i = 464; i < 512; i++)
        same &= *bytes(WORK + i) == FILL;
    check(same && *bytes(WORK + 512) == FILL, "SDM vol. 2 FXSAVE: bytes 464 to 511 are not written");

    begin("SDM vol. 2 FXSAVE, FXRSTOR: an operand that is not aligned to 16 bytes is #GP(0)");
    for (u32 offset = 1; offset < 16; offset++)
        for (u32 restore = 0; restore < 2; restore++) {
            begin_in(world, 3);
            context.r[RBX] += offset;
            run_program(restore ? wide ? A64("fxrstor [rbx]") : A32("fxrstor [ebx]")
                        : wide  ? A64("fxsave [rbx]")
                                : A32("fxsave [ebx]"));
            title("offset %u, restore %u", offset, restore);
            expect_fault(GP, 0);
        }
    end();

    begin_in(world, 3);
    image = (volatile u16 *)WORK;
    image[0] = 0x37F & ~ZE;
    image[1] = 3 << 11 | ZE;
    *bytes(WORK + 4) = 0x08;                    // register 3: ST0
    *dwords(WORK + 24) = 0x1F80;
    set_operand(0, 0, 0);
    *qwords(WORK + 32) = 0x8000000000000000ull;
    image[20] = 0x4001;
    for (u32 n = 1; n < 8; n++)
        *qwords(WORK + 32 + 16 * n) = 0;
    run_program(wide ? A64("fninit; fxrstor [rbx]; fnsave [rbx + 0x240]; fnstsw ax; fxrstor [rbx]; fwait")
                     : A32("fninit; fxrstor [ebx]; fnsave [ebx + 0x240]; fnstsw ax; fxrstor [ebx]; fwait"));
    volatile u16 *saved = (volatile u16 *)(WORK + 0x240);
    check(result.vector == MF && saved[0] == (0x37F & ~ZE) && (saved[2] & TOP) >> 11 == 3 && saved[2] & ES &&
              saved[4] == 0xFF3F && *qwords(WORK + 0x240 + 28) == 1ull << 63 && saved[18] == 0x4001,
          "SDM vol. 2 FXRSTOR: restores control, status, tags, registers; an unmasked exception is pending");
    leave_clean();
    if (!wide)
        return;
    fresh(LONG, 3);
    context.r[RBX] = WORK;
    run_program(A64("fninit; fld dword ptr [rbx + 0x40]; fxsave64 [rbx]"));
    check(completed() && (cpu.amd || (*qwords(WORK + 8) == context.rip + 2 && *qwords(WORK + 16) == WORK + 0x40)),
          "SDM vol. 1 table 10-2, vol. 2 FXSAVE: with REX.W the pointers have 64 bits and no selectors");
    leave_clean();
}

void chapter(void) {
    static const enum world worlds[] = {FLAT, LONG, COMPAT};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        enum world world = worlds[i];
        if (!has_world(world))
            continue;
        about(world_names[world]);
        availability(world);
        exceptions(world);
        initial_state(world);
        pointers(world);
        fxsave(world);
    }
    about(0);
    stack_faults();
    tags();
    formats();
    pending_image();
    mmx();
    external_error();
}
