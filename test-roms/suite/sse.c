//! SSE and AVX as system software sees them: CR0, CR4, XCR0, MXCSR, #XM, alignment, XSAVE (SDM vol. 1
//! chapters 10, 11, 13; vol. 2 2.4; vol. 3A chapter 14).

#include "suite.h"

const char chapter_name[] = "sse";

#define WORK    (context.cs & 3 ? USER_DATA : KERNEL_DATA)
#define FILL    0xA5
#define MXCSR_RESET 0x1F80

enum { IE = 1, DENORMAL = 2, ZE = 4, OVERFLOW = 8, UNDERFLOW = 16, PE = 32, DAZ = 64, FTZ = 1 << 15 };
enum { X87 = 1, XMM = 2, YMM = 4 };

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }

/// MXCSR_MASK (SDM vol. 1 11.6.6).
static u32 mxcsr_mask;

static void begin_in(enum world world, int ring) {
    fresh(world, ring);
    context.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | (HAS_XSAVE ? CR4_OSXSAVE : 0);
    context.r[RBX] = WORK;
    for (u32 i = 0; i < 0x800; i++)
        *bytes(WORK + i) = 0;
    *dwords(WORK) = MXCSR_RESET;
}

#define BY_WORLD(world, text32, text64) (is_wide(world) ? A64(text64) : A32(text32))

static void set_xcr0(u32 value) {
    begin_in(FLAT, 0);
    context.r[RAX] = value;
    run_program(A32("xor ecx, ecx; xor edx, edx; xsetbv"));
}

static void leave_clean(void) {
    begin_in(FLAT, 0);
    run_program(A32("fninit; ldmxcsr [ebx]; xorps xmm0, xmm0"));
}

static void reset_state(void) {
    begin_in(FLAT, 0);
    run_program(A32("stmxcsr [ebx]"));
    check(completed() && *dwords(KERNEL_DATA) == MXCSR_RESET, "SDM vol. 3A table 10-1: MXCSR is 1F80h after reset");
    begin_in(FLAT, 0);
    run_program(A32("fxsave [ebx]"));
    mxcsr_mask = *dwords(KERNEL_DATA + 28) ? *dwords(KERNEL_DATA + 28) : 0xFFBF;
    check(completed() && *dwords(KERNEL_DATA + 24) == MXCSR_RESET, "SDM vol. 1 table 10-2: FXSAVE has MXCSR at 24");
}

//
// CR0.EM, CR0.TS, CR4.OSFXSR
//

static void availability(enum world world) {
    static const struct {
        const char *name;
        bool state;                             // it uses XMM registers or MXCSR
        u8 length, code[4];
    } table[] = {
        {"MOVAPS", true, 3, {0x0F, 0x28, 0xC1}}, {"ADDPS", true, 3, {0x0F, 0x58, 0xC1}},
        {"SQRTSS", true, 4, {0xF3, 0x0F, 0x51, 0xC1}}, {"MOVUPS [BX]", true, 3, {0x0F, 0x11, 0x03}},
        {"LDMXCSR [BX]", true, 3, {0x0F, 0xAE, 0x13}}, {"STMXCSR [BX]", true, 3, {0x0F, 0xAE, 0x1B}},
        {"UCOMISS", true, 3, {0x0F, 0x2E, 0xC1}}, {"MOVMSKPS", true, 3, {0x0F, 0x50, 0xC1}},
        {"SFENCE", false, 3, {0x0F, 0xAE, 0xF8}}, {"PREFETCHT0", false, 3, {0x0F, 0x18, 0x0B}},
        {"PAUSE", false, 2, {0xF3, 0x90}},
    };
    begin("SDM vol. 3A table 14-1, vol. 2 table 2-21: SSE is #UD with EM or without OSFXSR, else #NM with TS; "
          "PAUSE, PREFETCH, SFENCE never");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 flags = 0; flags < 8; flags++) {
            begin_in(world, 3);
            bool em = flags & 1, ts = flags & 2, os = flags & 4;
            context.cr0 |= (em ? CR0_EM : 0) | (ts ? CR0_TS : 0);
            if (!os)
                context.cr4 &= ~(u64)CR4_OSFXSR;
            load_bytes(table[i].code, table[i].length);
            run();
            title("%s, EM %u, TS %u, OSFXSR %u", table[i].name, em, ts, os);
            if (table[i].state && (em || !os))
                expect_fault(UD, 0);
            else if (table[i].state && ts)
                expect_fault(NM, 0);
            else
                expect_completes();
        }
    end();
}

//
// MXCSR and #XM
//

static void mxcsr(enum world world) {
    begin("SDM vol. 2 LDMXCSR, FXRSTOR: bits that MXCSR_MASK lacks are #GP(0), and MXCSR stays");
    for (u32 bit = 0; bit < 32; bit++)
        for (u32 fx = 0; fx < 2; fx++) {
            leave_clean();
            begin_in(world, 3);
            context.r[RDX] = WORK + 0x600;
            *dwords(WORK + (fx ? 24 : 0)) = MXCSR_RESET ^ 1u << bit;
            *dwords(WORK + 0x600) = MXCSR_RESET;
            run_program(fx ? BY_WORLD(world, "fxrstor [ebx]; stmxcsr [edx]; ldmxcsr [edx + 64]",
                                      "fxrstor [rbx]; stmxcsr [rdx]; ldmxcsr [rdx + 64]")
                           : BY_WORLD(world, "ldmxcsr [ebx]; stmxcsr [edx]; ldmxcsr [edx + 64]",
                                      "ldmxcsr [rbx]; stmxcsr [rdx]; ldmxcsr [rdx + 64]"));
            title("bit %u, %s", bit, fx ? "FXRSTOR" : "LDMXCSR");
            if (!(mxcsr_mask & 1u << bit))
                expect_fault(GP, 0);
            else if (expect_completes())
                expect_value("MXCSR", *dwords(WORK + 0x600), MXCSR_RESET ^ 1u << bit);
        }
    end();
    leave_clean();
}

static void exceptions(enum world world) {
    static const struct {
        const char *name;
        u32 flag, with;
        u8 opcode;                              // 0F xx: MULSS 59h, DIVSS 5Eh
        u32 first, second, masked;              // the masked result
    } causes[] = {
        {"0 / 0", IE, 0, 0x5E, 0, 0, 0xFFC00000},
        {"signalling NaN * 1", IE, 0, 0x59, 0x7F800001, 0x3F800000, 0x7FC00001},
        {"denormal * 1", DENORMAL, 0, 0x59, 0x00400000, 0x3F800000, 0x00400000},
        {"1 / 0", ZE, 0, 0x5E, 0x3F800000, 0, 0x7F800000},
        {"the largest * 2", OVERFLOW, PE, 0x59, 0x7F7FFFFF, 0x40000000, 0x7F800000},
        {"the smallest normal and a bit / 4", UNDERFLOW, PE, 0x59, 0x00800001, 0x3E800000, 0x00200000},
        {"1 / 3", PE, 0, 0x5E, 0x3F800000, 0x40400000, 0x3EAAAAAB},
    };
    begin("SDM vol. 1 11.5.2, vol. 3A 2.5: masked exceptions set flags; unmasked ones are #XM faults with "
          "OSXMMEXCPT, else #UD; the destination stays");
    for (u32 i = 0; i < COUNT(causes); i++)
        for (u32 unmasked = 0; unmasked < 2; unmasked++)
            for (u32 os = 0; os < 2; os++) {
                leave_clean();
                begin_in(world, 3);
                if (!os)
                    context.cr4 &= ~(u64)CR4_OSXMMEXCPT;
                *dwords(WORK) = MXCSR_RESET & ~(unmasked ? causes[i].flag << 7 : 0);
                *dwords(WORK + 16) = causes[i].first;
                *dwords(WORK + 32) = causes[i].second;
                // LDMXCSR; MOVSS XMM0, [BX+16]; MOVSS XMM1, [BX+32]; operation
                u8 code[] = {0x0F, 0xAE, 0x13, 0xF3, 0x0F, 0x10, 0x43, 16, 0xF3, 0x0F, 0x10, 0x4B, 32,
                             0xF3, 0x0F, causes[i].opcode, 0xC1};
                load_bytes(code, sizeof code);
                run();
                title("%s, %s, OSXMMEXCPT %u", causes[i].name, unmasked ? "unmasked" : "masked", os);
                if (unmasked)
                    expect(result.vector == (os ? XM : UD) && result.rip == context.rip + 13 && !result.has_error);
                else
                    expect_completes();
                // What is in MXCSR and XMM0 now: the exception has left them.
                begin_in(world, 3);
                run_program(BY_WORLD(world, "stmxcsr [ebx]; movss [ebx + 16], xmm0",
                                     "stmxcsr [rbx]; movss [rbx + 16], xmm0"));
                u32 flags = *dwords(WORK) & 63;
                // An unmasked overflow or underflow may show the rounding too.
                u32 with = causes[i].with;
                expect_value("flags", unmasked ? flags & ~with : flags, causes[i].flag | (unmasked ? 0 : with));
                expect_value("XMM0", *dwords(WORK + 16), unmasked ? causes[i].first : causes[i].masked);
            }
    end();
    leave_clean();

    begin_in(world, 3);
    *dwords(WORK) = (MXCSR_RESET & ~(ZE << 7)) | ZE;
    run_program(BY_WORLD(world, "ldmxcsr [ebx]; xorps xmm0, xmm0; addps xmm0, xmm0; nop",
                         "ldmxcsr [rbx]; xorps xmm0, xmm0; addps xmm0, xmm0; nop"));
    check_completes("SDM vol. 1 11.5.4, vol. 2 LDMXCSR: a flag that is set and unmasked raises nothing by itself");
    begin_in(world, 3);
    *dwords(WORK) = MXCSR_RESET & ~(ZE << 7);
    for (u32 i = 0; i < 4; i++) {
        dwords(WORK + 16)[i] = i == 2 ? 0x3F800000 : i == 1 ? 0x00400000 : 0x3F800000;
        dwords(WORK + 32)[i] = i == 2 ? 0 : i == 3 ? 0x40400000 : 0x3F800000;
    }
    run_program(BY_WORLD(world, "ldmxcsr [ebx]; movaps xmm0, [ebx + 16]; divps xmm0, [ebx + 32]",
                         "ldmxcsr [rbx]; movaps xmm0, [rbx + 16]; divps xmm0, [rbx + 32]"));
    bool faulted = result.vector == XM;
    begin_in(world, 3);
    run_program(BY_WORLD(world, "stmxcsr [ebx]", "stmxcsr [rbx]"));
    check(faulted && (*dwords(WORK) & 63) == (DENORMAL | ZE),
          "SDM vol. 1 11.5.3: with an unmasked exception of operands, the flags of all elements' operands are "
          "set, and none of results");
    leave_clean();
    if (mxcsr_mask & DAZ) {
        begin_in(world, 3);
        *dwords(WORK) = (MXCSR_RESET & ~(DENORMAL << 7)) | DAZ;
        *dwords(WORK + 16) = 0x80400000;
        run_program(BY_WORLD(world, "ldmxcsr [ebx]; movss xmm0, [ebx + 16]; addss xmm0, xmm0; movss [ebx + 16], xmm0; "
                                    "stmxcsr [ebx]",
                             "ldmxcsr [rbx]; movss xmm0, [rbx + 16]; addss xmm0, xmm0; movss [rbx + 16], xmm0; "
                             "stmxcsr [rbx]"));
        check(completed() && *dwords(WORK + 16) == 0x80000000 && !(*dwords(WORK) & 63),
              "SDM vol. 1 10.2.3.4: with DAZ, denormal operands are zeros of their sign, and no exception");
    }
    begin_in(world, 3);
    *dwords(WORK) = MXCSR_RESET | FTZ;
    *dwords(WORK + 16) = 0x80800001;
    *dwords(WORK + 32) = 0x3E800000;
    run_program(BY_WORLD(world, "ldmxcsr [ebx]; movss xmm0, [ebx + 16]; mulss xmm0, [ebx + 32]; "
                                "movss [ebx + 16], xmm0; stmxcsr [ebx]",
                         "ldmxcsr [rbx]; movss xmm0, [rbx + 16]; mulss xmm0, [rbx + 32]; "
                         "movss [rbx + 16], xmm0; stmxcsr [rbx]"));
    check(completed() && *dwords(WORK + 16) == 0x80000000 && (*dwords(WORK) & 63) == (UNDERFLOW | PE),
          "SDM vol. 1 10.2.3.3: with FTZ, a masked underflow gives zero of its sign, UE and PE");
    leave_clean();
    if (!HAS_MMX)
        return;
    begin_in(world, 3);
    *(volatile u16 *)(WORK + 0x40) = 0x37B;
    run_program(BY_WORLD(world, "fninit; fldcw [ebx + 0x40]; fld1; fldz; fdivp; 1: cvtpi2ps xmm0, mm0",
                         "fninit; fldcw [rbx + 0x40]; fld1; fldz; fdivp; 1: cvtpi2ps xmm0, mm0"));
    check(result.vector == MF && result.rip == context.rip + program_size - 3,
          "SDM vol. 2 CVTPI2PS: #MF if an x87 exception is pending");
    leave_clean();
}

//
// Alignment
//

static void alignment(enum world world) {
    begin("SDM vol. 2 2.4, tables 2-18 to 2-22: 16 bytes that are not aligned are #GP(0), whether or not alignment "
          "is checked; MOVUPS takes them; scalars are #AC(0) when it is checked");
    enum { ALIGNED, UNALIGNED, SCALAR };
    for (u32 i = 0; i < 6; i++)
        for (u32 offset = 0; offset < 16; offset++)
            for (u32 ac = 0; ac < 2; ac++) {
                leave_clean();
                begin_in(world, 3);
                context.r[RBX] = WORK + 0x100 + offset;
                context.cr0 |= ac ? CR0_AM : 0;
                context.rflags |= ac ? FLAGS_AC : 0;
                static const struct {
                    const char *name;
                    u8 kind, length, code[4];
                } table[] = {
                    {"MOVAPS XMM0, [BX]", ALIGNED, 3, {0x0F, 0x28, 0x03}},
                    {"MOVAPS [BX], XMM0", ALIGNED, 3, {0x0F, 0x29, 0x03}},
                    {"ADDPS XMM0, [BX]", ALIGNED, 3, {0x0F, 0x58, 0x03}},
                    {"MOVUPS XMM0, [BX]", UNALIGNED, 3, {0x0F, 0x10, 0x03}},
                    {"MOVSS XMM0, [BX]", SCALAR, 4, {0xF3, 0x0F, 0x10, 0x03}},
                    {"MOVSS [BX], XMM0", SCALAR, 4, {0xF3, 0x0F, 0x11, 0x03}},
                };
                // What MOVUPS does when alignment is checked depends on the implementation.
                if (table[i].kind == UNALIGNED && ac)
                    continue;
                load_bytes(table[i].code, table[i].length);
                run();
                title("%s, offset %u, checked %u", table[i].name, offset, ac);
                if (table[i].kind == ALIGNED && offset)
                    expect_fault(GP, 0);
                else if (table[i].kind == SCALAR && ac && offset & 3)
                    expect_fault(AC, 0);
                else
                    expect_completes();
            }
    end();
    if (is_wide(world)) {
        begin_in(world, 3);
        context.r[RBP] = 1ull << 47;
        run_program(A64("movaps xmm0, [rbp]"));
        check_fault(SS, 0, "SDM vol. 2 table 2-18: a non-canonical address in the stack segment is #SS(0)");
    }
}

static void registers_in_images(enum world world) {
    begin_in(world, 3);
    for (u32 i = 0; i < 256; i++)
        *bytes(WORK + 160 + i) = i;
    *dwords(WORK + 24) = MXCSR_RESET;
    run_program(BY_WORLD(world, "fxrstor [ebx]; movups [ebx + 0x200], xmm0; movups [ebx + 0x210], xmm7",
                         "fxrstor [rbx]; movups [rbx + 0x200], xmm0; movups [rbx + 0x210], xmm15"));
    u32 last = is_wide(world) ? 240 : 112;
    check(completed() && *bytes(WORK + 0x200) == 0 && *bytes(WORK + 0x20F) == 15 && *bytes(WORK + 0x210) == last &&
              *bytes(WORK + 0x21F) == last + 15,
          "SDM vol. 1 table 10-2: FXRSTOR: XMM0 to XMM7, in 64-bit mode XMM15, from 160 on");
    begin_in(world, 3);
    for (u32 i = 0; i < 512; i++)
        *bytes(WORK + i) = FILL;
    run_program(BY_WORLD(world, "fxsave [ebx]", "fxsave [rbx]"));
    bool good = completed() && *bytes(WORK + 160) == 0 && *bytes(WORK + 160 + 127) == 127;
    for (u32 i = 0; i < 128; i++)
        good &= *bytes(WORK + 288 + i) == (is_wide(world) ? 128 + i : FILL);
    check(good, "SDM vol. 1 table 10-2: FXSAVE: outside 64-bit mode XMM8 to XMM15 are not written");
}

//
// XSAVE (SDM vol. 1 chapter 13)
//

#define AREA (WORK + 0x400)
#define HEADER (AREA + 512)

static void xsave(enum world world) {
    static const struct {
        const char *name;
        u8 length, code[4];
        bool state;
    } table[] = {
        {"XGETBV", 3, {0x0F, 0x01, 0xD0}, false}, {"XSAVE [BX]", 3, {0x0F, 0xAE, 0x23}, true},
        {"XRSTOR [BX]", 3, {0x0F, 0xAE, 0x2B}, true},
    };
    set_xcr0(X87 | XMM);
    begin("SDM vol. 1 13.5, vol. 2 XSAVE, XRSTOR, XGETBV: #UD without OSXSAVE, #NM with TS; EM does not matter");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 flags = 0; flags < 8; flags++) {
            bool em = flags & 1, ts = flags & 2, os = flags & 4;
            begin_in(world, 3);
            context.cr0 |= (em ? CR0_EM : 0) | (ts ? CR0_TS : 0);
            if (!os)
                context.cr4 &= ~(u64)CR4_OSXSAVE;
            context.r[RBX] = AREA;
            load_bytes(table[i].code, table[i].length);
            run();
            title("%s, EM %u, TS %u, OSXSAVE %u", table[i].name, em, ts, os);
            if (!os)
                expect_fault(UD, 0);
            else if (ts && table[i].state)
                expect_fault(NM, 0);
            else
                expect_completes();
        }
    end();

    begin("SDM vol. 2 XSAVE, XRSTOR: an area that is not aligned to 64 bytes is #GP(0)");
    for (u32 offset = 1; offset < 64; offset += offset)
        for (u32 restore = 0; restore < 2; restore++) {
            begin_in(world, 3);
            context.r[RBX] = AREA + offset;
            load_bytes(table[1 + restore].code, 3);
            run();
            title("offset %u, restore %u", offset, restore);
            expect_fault(GP, 0);
        }
    end();

    begin("SDM vol. 1 13.8: XRSTOR: XSTATE_BV with bits that XCR0 lacks, a header that is not zero from byte 8 to "
          "23, bad MXCSR: #GP(0)");
    for (u32 i = 0; i < 8; i++) {
        begin_in(world, 3);
        context.r[RBX] = AREA;
        context.r[RAX] = X87 | XMM;
        *dwords(AREA + 24) = MXCSR_RESET;
        *qwords(HEADER) = X87 | XMM;
        bool bad = true;
        switch (i) {
        case 0: *qwords(HEADER) = X87 | XMM | YMM; break;
        case 1: *qwords(HEADER) = 1ull << 63; break;
        case 2: *qwords(HEADER + 8) = 1; break;         // XCOMP_BV, not compacted
        case 3: *qwords(HEADER + 16) = 1; break;
        case 4: *dwords(AREA + 24) = 1u << 31; break;
        case 5: bad = false; break;
        case 6: *dwords(AREA + 24) = 1u << 31; context.r[RAX] = X87; bad = false; break;   // not asked for
        case 7: *qwords(HEADER + 40) = 1; bad = false; break;   // software's in the standard form
        }
        load_bytes(table[2].code, 3);
        run();
        title("case %u", i);
        if (bad)
            expect_fault(GP, 0);
        else
            expect_completes();
    }
    end();
    leave_clean();

    begin_in(world, 3);
    context.r[RBX] = AREA;
    context.r[RAX] = X87 | XMM;
    *dwords(AREA + 24) = MXCSR_RESET | ZE;
    *qwords(HEADER) = 0;
    run_program(BY_WORLD(world, "fninit; fld1; pcmpeqb xmm1, xmm1; xrstor [ebx]; fnstenv [ebx - 0x100]; "
                                "movups [ebx - 0x80], xmm1; stmxcsr [ebx - 0x60]",
                         "fninit; fld1; pcmpeqb xmm1, xmm1; xrstor [rbx]; fnstenv [rbx - 0x100]; "
                         "movups [rbx - 0x80], xmm1; stmxcsr [rbx - 0x60]"));
    check(completed() && *(volatile u16 *)(AREA - 0x100) == 0x37F && *(volatile u16 *)(AREA - 0x100 + 8) == 0xFFFF &&
              !*qwords(AREA - 0x80) && *dwords(AREA - 0x60) == (MXCSR_RESET | ZE),
          "SDM vol. 1 13.6, 13.8.1: XRSTOR puts what XSTATE_BV lacks into its first state; MXCSR is loaded "
          "all the same");
    begin_in(world, 3);
    context.r[RBX] = AREA;
    context.r[RAX] = XMM;
    for (u32 i = 0; i < 512; i++)
        *bytes(AREA + i) = FILL;
    *qwords(HEADER) = X87;
    run_program(BY_WORLD(world, "fninit; pcmpeqb xmm1, xmm1; xsave [ebx]", "fninit; pcmpeqb xmm1, xmm1; xsave [rbx]"));
    check(completed() && *qwords(HEADER) == (X87 | XMM) && *(volatile u16 *)AREA == FILL * 0x101 &&
              *dwords(AREA + 24) == (MXCSR_RESET | ZE) && *qwords(AREA + 176) == ~0ull,
          "SDM vol. 1 13.7: XSAVE writes what EDX:EAX asks for, and leaves the other bits of XSTATE_BV");
    leave_clean();
    set_xcr0(X87);
    begin_in(world, 3);
    context.r[RBX] = AREA;
    context.r[RAX] = ~0u;
    for (u32 i = 0; i < 512; i++)
        *bytes(AREA + i) = FILL;
    *qwords(HEADER) = 0;
    load_bytes(table[1].code, 3);
    run();
    check(completed() && !(*qwords(HEADER) & ~(u64)X87) && *bytes(AREA + 160) == FILL && *bytes(AREA + 24) == FILL,
          "SDM vol. 1 13.7: what XCR0 lacks is not written, neither is MXCSR");
}

static void avx(enum world world) {
    if (!HAS_AVX) {
        skip("SDM vol. 2 2.4: AVX", "CPUID lacks AVX");
        return;
    }
    begin("SDM vol. 2 table 2-18, vol. 1 14.8: VEX is #UD without OSXSAVE or XCR0[2:1] = 11b, then #NM with TS; EM and "
          "OSFXSR do not matter");
    for (u32 xcr0 = 1; xcr0 < 8; xcr0 += 2)
        for (u32 flags = 0; flags < 16; flags++) {
            if (xcr0 == (X87 | YMM))
                continue;                       // XSETBV does not take it
            bool em = flags & 1, ts = flags & 2, os = flags & 4, fx = flags & 8;
            set_xcr0(xcr0);
            begin_in(world, 3);
            context.cr0 |= (em ? CR0_EM : 0) | (ts ? CR0_TS : 0);
            context.cr4 &= ~(u64)((os ? 0 : CR4_OSXSAVE) | (fx ? 0 : CR4_OSFXSR));
            run_program(BY_WORLD(world, "vxorps ymm0, ymm0, ymm1", "vxorps ymm0, ymm0, ymm1"));
            title("XCR0 %x, EM %u, TS %u, OSXSAVE %u, OSFXSR %u", xcr0, em, ts, os, fx);
            if (!os || xcr0 != (X87 | XMM | YMM))
                expect_fault(UD, 0);
            else if (ts)
                expect_fault(NM, 0);
            else
                expect_completes();
        }
    end();
    set_xcr0(X87 | XMM | YMM);
    begin("SDM vol. 2 2.4, table 2-18: VMOVAPS wants its 32 bytes aligned, else #GP(0); VADDPS and VMOVUPS do not");
    for (u32 offset = 0; offset < 32; offset += 4)
        for (u32 i = 0; i < 3; i++) {
            begin_in(world, 3);
            context.r[RBX] = WORK + 0x100 + offset;
            run_program(i == 0   ? BY_WORLD(world, "vmovaps ymm0, [ebx]", "vmovaps ymm0, [rbx]")
                        : i == 1 ? BY_WORLD(world, "vaddps ymm0, ymm0, [ebx]", "vaddps ymm0, ymm0, [rbx]")
                                 : BY_WORLD(world, "vmovups ymm0, [ebx]", "vmovups ymm0, [rbx]"));
            title("%s, offset %u", i == 0 ? "VMOVAPS" : i == 1 ? "VADDPS" : "VMOVUPS", offset);
            if (i == 0 && offset)
                expect_fault(GP, 0);
            else
                expect_completes();
        }
    end();
    begin_in(world, 3);
    context.r[RBX] = AREA;
    context.r[RAX] = X87 | XMM | YMM;
    run_program(BY_WORLD(world, "vpcmpeqb xmm1, xmm1, xmm1; vinsertf128 ymm2, ymm1, xmm1, 1; xsave [ebx]",
                         "vpcmpeqb xmm1, xmm1, xmm1; vinsertf128 ymm2, ymm1, xmm1, 1; xsave [rbx]"));
    check(completed() && (*qwords(HEADER) & (XMM | YMM)) == (XMM | YMM) && *qwords(AREA + 576 + 16) == 0 &&
              *qwords(AREA + 576 + 32) == ~0ull && *qwords(AREA + 176 + 8) == ~0ull,
          "SDM vol. 1 13.4.2, 13.5.3: XSAVE has the upper halves of YMM0 to YMM15 at 576");
    set_xcr0(X87);
    leave_clean();
    if (world != FLAT)
        return;
    begin("SDM vol. 2 2.3.5: in real and virtual-8086 mode VEX is #UD");
    for (u32 virtual = 0; virtual < 2; virtual++) {
        set_xcr0(X87 | XMM | YMM);
        fresh(virtual ? V86 : REAL, 3);
        context.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
        load_bytes((const u8[]){0xC5, 0xFC, 0x57, 0xC1}, 4);
        run();
        title("%s", virtual ? "virtual-8086" : "real");
        expect_fault(UD, 0);
    }
    end();
    set_xcr0(X87);
}

void chapter(void) {
    if (!HAS_SSE) {
        fresh(FLAT, 0);
        if (*dwords(HAS_CR4) && HAS_FXSR)
            context.cr4 |= CR4_OSFXSR;
        load_bytes((const u8[]){0x0F, 0x28, 0xC1}, 3);
        run();
        check_fault(UD, 0, "SDM vol. 2 MOVAPS: #UD where CPUID lacks SSE");
        return;
    }
    about(0);
    reset_state();
    static const enum world worlds[] = {FLAT, LONG, COMPAT};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        enum world world = worlds[i];
        if (!has_world(world))
            continue;
        about(world_names[world]);
        availability(world);
        mxcsr(world);
        exceptions(world);
        alignment(world);
        registers_in_images(world);
        if (HAS_XSAVE) {
            xsave(world);
            avx(world);
        } else {
            skip("SDM vol. 1 chapter 13: XSAVE", "CPUID lacks XSAVE");
        }
    }
    about(0);
}
