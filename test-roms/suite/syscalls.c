//! System calls: SYSENTER, SYSEXIT, SYSCALL, SYSRET, SWAPGS (SDM vol. 3A 5.8.7, 5.8.8; vol. 2).

#include "suite.h"

const char chapter_name[] = "syscalls";

enum {
    SYSENTER_CS = 0x174, SYSENTER_ESP = 0x175, SYSENTER_EIP = 0x176,
    STAR = 0xC0000081, LSTAR = 0xC0000082, CSTAR = 0xC0000083, SFMASK = 0xC0000084,
    FS_BASE = 0xC0000100, GS_BASE = 0xC0000101, KERNEL_GS_BASE = 0xC0000102,
};

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }

/// AMD's processors know SYSENTER and SYSEXIT in legacy mode only (APM vol. 3).
static bool has_sysenter(enum world world) {
    return HAS_SEP && !(cpu.amd && (is_wide(world) || world == COMPAT));
}

#define BOTH(text) (is_wide(world) ? A64(text) : A32(text))

static void sysenter(enum world world) {
    u32 entry = KERNEL_CODE + 0x400;
    fresh(world, 3);
    if (!has_sysenter(world)) {
        run_program(BOTH("sysenter"));
        check_fault(UD, 0, "AMD APM vol. 3 SYSENTER: #UD in long mode (and where CPUID lacks SEP)");
        fresh(world, 0);
        run_program(BOTH(".byte 0x0F, 0x35"));
        check_fault(UD, 0, "AMD APM vol. 3 SYSEXIT: #UD in long mode (and where CPUID lacks SEP)");
        return;
    }
    bool wide = is_wide(world) || world == COMPAT;
    for (u32 cpl = 0; cpl < 4; cpl++) {
        fresh(world, cpl);
        context.rflags |= FLAGS_IF | 0xD5;
        write_msr(SYSENTER_CS, SEL_CODE32);
        write_msr(SYSENTER_ESP, RING0_STACK_TOP - 0x40);
        write_msr(SYSENTER_EIP, entry);
        *bytes(entry) = 0xCC;
        run_program(BOTH("sysenter"));
        check(result.vector == BP && result.rip == entry + 1 && result.cs == SEL_CODE32 &&
                  result.ss == SEL_DATA && result.rsp == RING0_STACK_TOP - 0x40 &&
                  !(result.rflags & (FLAGS_IF | FLAGS_VM)) && (result.rflags & 0xFF) == 0xD7,
              "SDM vol. 2 SYSENTER: CS, SS = CS + 8, ESP and EIP from the MSRs, IF clear, any ring");
    }
    begin("SDM vol. 2 SYSENTER: IA32_SYSENTER_CS with only RPL bits set is #GP(0)");
    for (u32 cs = 0; cs < 4; cs++) {
        fresh(world, 3);
        write_msr(SYSENTER_CS, cs);
        run_program(BOTH("sysenter"));
        title("%u", cs);
        expect_fault(GP, 0);
    }
    end();
    // The segments are flat whatever the descriptors say.
    fresh(world, 3);
    set_gdt(SEL_TEST, 0);
    set_gdt(SEL_TEST + 8, 0);
    write_msr(SYSENTER_CS, SEL_TEST | 3);
    write_msr(SYSENTER_ESP, RING0_STACK_TOP - 0x40);
    write_msr(SYSENTER_EIP, entry);
    place(entry, wide ? A64("mov ecx, cs; mov edx, ss") : A32("mov ecx, cs; mov edx, ss"));
    run_program(BOTH("sysenter"));
    check(result.vector == BP && record.r[RCX] == SEL_TEST && record.r[RDX] == SEL_TEST + 8,
          "SDM vol. 2 SYSENTER: the GDT is not read, RPL becomes 0");
    fresh(world, 0);
    write_msr(SYSENTER_CS, SEL_CODE32);
    context.r[RDX] = USER_CODE + 0x400;
    context.r[RCX] = USER_STACK_TOP - 0x40;
    *bytes(USER_CODE + 0x400) = 0xCC;
    run_program(BOTH(".byte 0x0F, 0x35"));
    check(result.vector == BP && result.rip == USER_CODE + 0x401 && result.cs == SEL_USER_CODE32 &&
              result.ss == SEL_USER_DATA && result.rsp == USER_STACK_TOP - 0x40,
          "SDM vol. 2 SYSEXIT: CS = MSR + 16, SS = MSR + 24, EIP from EDX, ESP from ECX");
    begin("SDM vol. 2 SYSEXIT: #GP(0) outside ring 0");
    for (u32 cpl = 1; cpl < 4; cpl++) {
        fresh(world, cpl);
        run_program(BOTH(".byte 0x0F, 0x35"));
        title("CPL %u", cpl);
        expect_fault(GP, 0);
    }
    end();
    fresh(world, 0);
    write_msr(SYSENTER_CS, 0);
    run_program(BOTH(".byte 0x0F, 0x35"));
    check_fault(GP, 0, "SDM vol. 2 SYSEXIT: IA32_SYSENTER_CS of 0 is #GP(0)");
    if (is_wide(world)) {
        fresh(world, 0);
        write_msr(SYSENTER_CS, SEL_CODE32);
        context.r[RDX] = USER_CODE + 0x400;
        context.r[RCX] = USER_STACK_TOP - 0x40;
        run_program(A64(".byte 0x48, 0x0F, 0x35"));
        check(result.vector == BP && result.cs == SEL_USER_CODE64 && result.ss == SEL_USER_DATA2,
              "SDM vol. 2 SYSEXIT: with REX.W CS = MSR + 32, SS = MSR + 40, 64-bit code");
        context.r[RDX] = 1ull << 47;
        run();
        check_fault(GP, 0, "SDM vol. 2 SYSEXIT: a non-canonical RDX is #GP(0)");
        context.r[RDX] = USER_CODE;
        context.r[RCX] = 1ull << 47;
        run();
        check_fault(GP, 0, "SDM vol. 2 SYSEXIT: a non-canonical RCX is #GP(0)");
    }
    if (world == FLAT) {
        fresh(REAL, 0);
        run_program(A16("sysenter"));
        check_fault(GP, 0, "SDM vol. 2 SYSENTER: #GP in real mode");
        fresh(REAL, 0);
        run_program(A16(".byte 0x0F, 0x35"));
        check_fault(GP, 0, "SDM vol. 2 SYSEXIT: #GP in real mode");
    }
}

static void syscall(enum world world) {
    u32 entry = KERNEL_CODE + 0x400;
    bool long_active = world != FLAT;
    // Intel's processors know SYSCALL in 64-bit mode only.
    bool known = HAS_SYSCALL && (cpu.amd || is_wide(world));
    begin("SDM, APM vol. 3 SYSCALL, SYSRET: #UD while EFER.SCE is clear or where there is none");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 back = 0; back < 2; back++) {
            fresh(world, cpl);
            run_program(back ? BOTH(".byte 0x0F, 0x07") : BOTH("syscall"));
            title("CPL %u, SYSRET %u", cpl, back);
            expect_fault(UD, 0);
        }
    end();
    if (!known) {
        skip("SDM vol. 2 SYSCALL", "not in this mode of this processor");
        return;
    }
    for (u32 cpl = 0; cpl < 4; cpl++) {
        fresh(world, cpl);
        context.efer |= EFER_SCE;
        context.rflags |= FLAGS_IF | 0x8D5 | FLAGS_AC;
        write_msr(STAR, (u64)SEL_CODE32 << 32 | entry);
        if (HAS_LM) {
            write_msr(LSTAR, entry);
            write_msr(CSTAR, entry);
            write_msr(SFMASK, FLAGS_IF | 0x15);
        }
        *bytes(entry) = 0xCC;
        run_program(BOTH("syscall"));
        u64 flags = (2 | FLAGS_IF | 0x8D5 | FLAGS_AC);
        // Legacy mode has no mask: IF, VM and RF are cleared.
        u64 masked = long_active ? flags & ~(u64)(FLAGS_IF | 0x15) : flags & ~(u64)FLAGS_IF;
        check(result.vector == BP && result.rip == entry + 1 && result.cs == SEL_CODE32 &&
                  result.ss == SEL_DATA && record.r[RCX] == context.rip + 2 &&
                  (!long_active || record.r[R11] == flags) && result.rflags == masked &&
                  (world != LONG || result.rsp == context.r[RSP]),
              "SDM vol. 2, APM vol. 3 SYSCALL: CS, SS, RIP of the MSRs; RCX, R11; SFMASK");
        // CSTAR and LSTAR: which one for which mode.
        if (long_active) {
            write_msr(is_wide(world) ? CSTAR : LSTAR, USER_CODE);
            run();
            check(result.vector == BP && result.rip == entry + 1,
                  "SDM vol. 3A 5.8.8, APM vol. 2 6.1.1: LSTAR for 64-bit code, CSTAR for "
                  "compatibility mode");
        }
    }
    // SYSRET.
    fresh(world, 0);
    context.efer |= EFER_SCE;
    write_msr(STAR, (u64)SEL_USER_CODE32 << 48);
    context.r[RCX] = USER_CODE + 0x400;
    context.r[R11] = 2 | FLAGS_IF | 0x8D5 | 3 << 12;
    *bytes(USER_CODE + 0x400) = 0xCC;
    run_program(BOTH(".byte 0x0F, 0x07"));
    check(result.vector == BP && result.rip == USER_CODE + 0x401 && result.cs == SEL_USER_CODE32 &&
              result.ss == SEL_USER_DATA &&
              (is_wide(world) ? result.rflags == context.r[R11] : (result.rflags & FLAGS_IF) != 0),
          "SDM vol. 2, APM vol. 3 SYSRET: CS, SS of STAR to 32-bit code; RCX; R11");
    begin("SDM vol. 2 SYSRET: #GP(0) outside ring 0");
    for (u32 cpl = 1; cpl < 4; cpl++) {
        fresh(world, cpl);
        context.efer |= EFER_SCE;
        run_program(BOTH(".byte 0x0F, 0x07"));
        title("CPL %u", cpl);
        expect_fault(GP, 0);
    }
    end();
    if (!is_wide(world))
        return;
    fresh(world, 0);
    context.efer |= EFER_SCE;
    context.r[RCX] = USER_CODE + 0x400;
    context.r[R11] = ~0ull & ~(u64)FLAGS_TF;
    run_program(A64(".byte 0x48, 0x0F, 0x07"));
    u64 kept = 0x3C7ED7 & ~(u64)FLAGS_TF;       // SDM vol. 2 SYSRET: RFLAGS = (R11 & 3C7FD7H) | 2
    check(result.vector == BP && result.cs == SEL_USER_CODE64 && result.ss == SEL_USER_DATA &&
              (result.rflags & ~(u64)(FLAGS_VIF | FLAGS_VIP)) ==
                  ((kept | 2) & ~(u64)(FLAGS_VIF | FLAGS_VIP)),
          "SDM vol. 2 SYSRET: with REX.W to 64-bit code, CS = STAR + 16; RFLAGS = R11 & 3C7FD7h | 2");
    fresh(world, 0);
    context.efer |= EFER_SCE;
    context.r[RCX] = 1ull << 47;
    context.r[R11] = 2;
    run_program(A64(".byte 0x48, 0x0F, 0x07"));
    if (cpu.amd)
        check(result.vector == GP && result.cs == SEL_USER_CODE64,
              "AMD APM vol. 3 SYSRET: a non-canonical RCX is #GP in ring 3");
    else
        check(result.vector == GP && result.cs == SEL_CODE64,
              "SDM vol. 2 SYSRET: a non-canonical RCX is #GP(0) in ring 0");
    fresh(world, 0);
    context.r[RCX] = LSTAR;
    context.r[RDX] = 0x8000;
    run_program(A64("wrmsr"));
    check_fault(GP, 0, "SDM vol. 2 WRMSR: a non-canonical LSTAR is #GP(0)");
    fresh(world, 0);
    context.r[RCX] = SFMASK;
    context.r[RDX] = 0;
    context.r[RAX] = FLAGS_IF;
    run_program(A64("wrmsr; rdmsr"));
    check(completed() && record.r[RAX] == FLAGS_IF, "SDM vol. 3A 5.8.8: IA32_FMASK can be read back");
}

static void swapgs(void) {
    about(world_names[LONG]);
    fresh(LONG, 0);
    write_msr(GS_BASE, 0x1111);
    write_msr(KERNEL_GS_BASE, 0x123456789ABCull);
    context.r[RCX] = GS_BASE;
    // Entering the world loads GS, which sets the base anew; the selector stays as it was.
    run_program(A64("mov ecx, 0xC0000101; mov eax, 0x1111; xor edx, edx; wrmsr; swapgs; rdmsr; "
                    "mov esi, eax; mov edi, edx; inc ecx; rdmsr"));
    check(completed() && record.r[RSI] == 0x56789ABC && record.r[RDI] == 0x1234 &&
              record.r[RAX] == 0x1111 && record.r[RDX] == 0,
          "SDM vol. 2 SWAPGS: exchanges GS.base and IA32_KERNEL_GS_BASE");
    fresh(LONG, 3);
    run_program(A64("swapgs"));
    check_fault(GP, 0, "SDM vol. 2 SWAPGS: #GP(0) outside ring 0");
    fresh(COMPAT, 0);
    run_program(A32(".byte 0x0F, 0x01, 0xF8"));
    check_fault(UD, 0, "SDM vol. 2 SWAPGS: #UD outside 64-bit mode");
    begin("SDM vol. 2 RDFSBASE and others: #UD without CR4.FSGSBASE, with it any ring");
    for (u32 on = 0; on < (HAS_FSGSBASE ? 2 : 1); on++)
        for (u32 cpl = 0; cpl < 4; cpl++)
            for (u32 i = 0; i < 4; i++) {
                fresh(LONG, cpl);
                context.cr4 |= on ? CR4_FSGSBASE : 0;
                u8 code[] = {0xF3, 0x48, 0x0F, 0xAE, 0xC0 | i << 3};
                context.r[RAX] = 0x12345678;
                load_bytes(code, sizeof code);
                run();
                title("CPL %u, FSGSBASE %u, instruction %u", cpl, on, i);
                if (on)
                    expect_completes();
                else
                    expect_fault(UD, 0);
            }
    end();
    if (HAS_FSGSBASE) {
        fresh(LONG, 3);
        context.cr4 |= CR4_FSGSBASE;
        context.r[RAX] = 1ull << 47;
        run_program(A64(".byte 0xF3, 0x48, 0x0F, 0xAE, 0xD0"));
        check_fault(GP, 0, "SDM vol. 2 WRFSBASE: a non-canonical address is #GP(0)");
        fresh(COMPAT, 3);
        context.cr4 |= CR4_FSGSBASE;
        run_program(A32(".byte 0xF3, 0x0F, 0xAE, 0xC0"));
        check_fault(UD, 0, "SDM vol. 2 RDFSBASE: #UD outside 64-bit mode");
    }
}

void chapter(void) {
    static const enum world worlds[] = {FLAT, LONG, COMPAT};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        about(world_names[worlds[i]]);
        if (!has_world(worlds[i])) {
            skip(world_names[worlds[i]], "CPUID lacks it");
            continue;
        }
        sysenter(worlds[i]);
        syscall(worlds[i]);
    }
    if (has_world(LONG))
        swapgs();
}
