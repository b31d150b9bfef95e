//! Control registers, EFER and model-specific registers (SDM vol. 3A 2.2.1, 2.5; vol. 4).

#include "suite.h"

const char chapter_name[] = "registers";

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }

static void cr0(void) {
    about("CR0");
    // PG without PE is tried last of all, since a processor that takes it is lost.
    static const struct {
        u32 set, clear;
        bool bad;
        const char *text;
    } table[] = {
        {CR0_NW, CR0_CD, true, "NW without CD"}, {CR0_CD, CR0_NW, false, "CD without NW"},
        {CR0_CD | CR0_NW, 0, false, "CD and NW"},
        {CR0_AM | CR0_MP | CR0_TS | CR0_EM, CR0_NE, false, "AM, MP, TS, EM, no NE"},
    };
    for (enum world world = FLAT; world <= LONG; world++) {
        if (!has_world(world))
            continue;
        begin("SDM vol. 3A 2.5, vol. 2 MOV to CR0: NW without CD is #GP(0)");
        for (u32 i = 0; i < COUNT(table); i++) {
            fresh(world, 0);
            context.r[RAX] = (context.cr0 | table[i].set) & ~(u64)table[i].clear & 0xFFFFFFFF;
            context.r[RDX] = context.cr0;
            run_program(is_wide(world) ? A64("mov cr0, rax; mov rcx, cr0; mov cr0, rdx")
                                       : A32("mov cr0, eax; mov ecx, cr0; mov cr0, edx"));
            title("%s in %s", table[i].text, world_names[world]);
            if (table[i].bad)
                expect_fault(GP, 0);
            else if (expect_completes())
                expect_value("CR0", record.r[RCX], context.r[RAX]);
        }
        end();
    }
    if (HAS_LM) {
        begin("SDM vol. 2 MOV to CR0: bits 63 to 32 are reserved: #GP(0)");
        for (int bit = 32; bit < 64; bit++) {
            fresh(LONG, 0);
            context.r[RAX] = context.cr0 | 1ull << bit;
            run_program(A64("mov cr0, rax"));
            title("bit %d", bit);
            expect_fault(GP, 0);
        }
        end();
    }
    fresh(FLAT, 0);
    run_program(A32("mov eax, cr0; and eax, ~0x10; mov cr0, eax; mov ecx, cr0"));
    check(completed() && record.r[RCX] & CR0_ET, "SDM vol. 3A 2.5: CR0.ET is always set");
    fresh(FLAT, 0);
    context.cr0 |= CR0_TS;
    run_program(A32("mov eax, 0xFFF1; lmsw ax; mov ecx, cr0; xor eax, eax; lmsw ax; mov edx, cr0; "
                    "mov eax, 0x0A; lmsw ax; mov esi, cr0; clts; mov edi, cr0"));
    check(completed() && (record.r[RCX] & 0x1F) == 0x11 && (record.r[RDX] & 0x1F) == 0x11 &&
              (record.r[RSI] & 0x1F) == 0x1B && (record.r[RDI] & 0x1F) == 0x13 &&
              (record.r[RCX] & CR0_NE),
          "SDM vol. 2 LMSW, CLTS: LMSW changes PE, MP, EM, TS, and does not clear PE");
}

static u64 cr4_known(void) {
    u64 bits = 0;
    bits |= HAS_VME ? CR4_VME | CR4_PVI : 0;
    bits |= HAS_TSC ? CR4_TSD : 0;
    bits |= HAS_DE ? CR4_DE : 0;
    bits |= HAS_PSE ? CR4_PSE : 0;
    bits |= HAS_PAE ? CR4_PAE : 0;
    bits |= cpu.edx1 & 1 << 7 ? CR4_MCE : 0;
    bits |= HAS_PGE ? CR4_PGE : 0;
    bits |= HAS_FXSR ? CR4_OSFXSR : 0;
    bits |= HAS_SSE ? CR4_OSXMMEXCPT : 0;
    bits |= HAS_UMIP ? CR4_UMIP : 0;
    bits |= HAS_LA57 ? CR4_LA57 : 0;
    bits |= HAS_FSGSBASE ? CR4_FSGSBASE : 0;
    bits |= HAS_PCID ? CR4_PCIDE : 0;
    bits |= HAS_XSAVE ? CR4_OSXSAVE : 0;
    bits |= HAS_SMEP ? CR4_SMEP : 0;
    bits |= HAS_SMAP ? CR4_SMAP : 0;
    bits |= HAS_PKU ? CR4_PKE : 0;
    return bits;
}

/// Bits whose feature has no test here, or none in CPUID: PCE; VMXE, SMXE, KL, CET, PKS, UINTR.
enum { CR4_UNTESTED = 1 << 8 | 1 << 13 | 1 << 14 | 1 << 19 | 1 << 23 | 1 << 24 | 1 << 25 };

static void cr4(void) {
    about("CR4");
    if (!*dwords(HAS_CR4)) {
        fresh(FLAT, 0);
        run_program(A32("mov eax, cr4"));
        check_fault(UD, 0, "SDM vol. 3B 23.18.1: there is no CR4 on processors without its features");
        return;
    }
    u64 known = cr4_known();
    for (enum world world = FLAT; world <= LONG; world++) {
        if (!has_world(world))
            continue;
        begin("SDM vol. 3A 2.5: bits of CR4 that CPUID lacks or that are reserved are #GP(0)");
        for (int bit = 0; bit < (is_wide(world) ? 64 : 32); bit++) {
            u64 mask = 1ull << bit;
            // PCIDE and LA57 have conditions of their own; PAE is paging's.
            if (mask & (CR4_UNTESTED | CR4_PCIDE | CR4_LA57 | CR4_PAE))
                continue;
            fresh(world, 0);
            context.r[RAX] = context.cr4 ^ mask;
            context.r[RDX] = context.cr4;
            run_program(is_wide(world) ? A64("mov cr4, rax; mov rcx, cr4; mov cr4, rdx")
                                       : A32("mov cr4, eax; mov ecx, cr4; mov cr4, edx"));
            title("bit %d in %s", bit, world_names[world]);
            if (!(known & mask))
                expect_fault(GP, 0);
            else if (expect_completes())
                expect_value("CR4", record.r[RCX], context.r[RAX]);
        }
        end();
    }
    if (HAS_PCID) {
        fresh(FLAT, 0);
        run_program(A32("mov eax, cr4; bts eax, 17; mov cr4, eax"));
        check_fault(GP, 0, "SDM vol. 3A 4.10.1: CR4.PCIDE cannot be set outside IA-32e mode");
        fresh(LONG, 0);
        run_program(A64("mov rax, cr3; or rax, 1; mov cr3, rax; mov rax, cr4; bts rax, 17; "
                        "mov cr4, rax"));
        check_fault(GP, 0, "SDM vol. 3A 4.10.1: nor while bits 11 to 0 of CR3 are not zero");
        fresh(LONG, 0);
        run_program(A64("mov rax, cr4; bts rax, 17; mov cr4, rax; mov rbx, cr3; mov rax, rbx; "
                        "or rax, 5; bts rax, 63; mov cr3, rax; mov rcx, cr3; mov cr3, rbx"));
        check(completed() && record.r[RCX] == (context.cr3 | 5),
              "SDM vol. 3A 4.10.4.1: with PCIDE bit 63 of CR3 is taken and reads as zero");
        if (HAS_INVPCID) {
            begin("SDM vol. 2 INVPCID: type above 3, reserved bits, PCID without PCIDE, non-canonical "
                  "address: #GP(0)");
            for (u32 i = 0; i < 6; i++) {
                fresh(LONG, 0);
                qwords(KERNEL_DATA)[0] = i == 1 ? 0x1000 : i == 2 ? 1 : 0;
                qwords(KERNEL_DATA)[1] = i == 3 ? 1ull << 47 : 0x1000;
                context.r[RAX] = i == 0 ? 4 : 0;
                context.r[RBX] = KERNEL_DATA;
                if (i == 5)
                    context.r[RAX] = 2;
                run_program(A64("invpcid rax, [rbx]"));
                title("case %u", i);
                if (i < 4)
                    expect_fault(GP, 0);
                else
                    expect_completes();
            }
            end();
            fresh(LONG, 3);
            run_program(A64("invpcid rax, [rbx]"));
            check_fault(GP, 0, "SDM vol. 2 INVPCID: #GP(0) outside ring 0");
        }
    }
    if (HAS_LM) {
        fresh(LONG, 0);
        run_program(A64("mov rax, cr4; btr rax, 5; mov cr4, rax"));
        check_fault(GP, 0, "SDM vol. 2 MOV to CR4: clearing PAE in IA-32e mode is #GP(0)");
        if (HAS_LA57) {
            fresh(LONG, 0);
            run_program(A64("mov rax, cr4; btc rax, 12; mov cr4, rax"));
            check_fault(GP, 0, "SDM vol. 2 MOV to CR4: changing LA57 in IA-32e mode is #GP(0)");
        }
        begin("SDM vol. 2 MOV to CR3: bits from MAXPHYADDR on are #GP(0)");
        for (int bit = cpu.phys_bits; bit < 63; bit++) {
            // Bits 61 and 62 are LAM's where there is that.
            fresh(LONG, 0);
            context.r[RAX] = context.cr3 | 1ull << bit;
            run_program(A64("mov cr3, rax"));
            title("bit %d", bit);
            if (bit < 61)
                expect_fault(GP, 0);
        }
        end();
    }
    // TSD.
    if (HAS_TSC) {
        begin("SDM vol. 2 RDTSC: with CR4.TSD #GP(0) outside ring 0");
        for (u32 cpl = 0; cpl < 4; cpl++)
            for (u32 tsd = 0; tsd < 2; tsd++) {
                fresh(FLAT, cpl);
                context.cr4 |= tsd ? CR4_TSD : 0;
                run_program(A32("rdtsc"));
                title("CPL %u, TSD %u", cpl, tsd);
                if (tsd && cpl)
                    expect_fault(GP, 0);
                else
                    expect_completes();
            }
        end();
    }
}

static void other_registers(void) {
    about("others");
    begin("SDM vol. 2 MOV: CR1, CR5 to CR7 are #UD");
    for (u32 cr = 0; cr < 8; cr++)
        for (u32 write = 0; write < 2; write++) {
            if (cr == 0 || (cr >= 2 && cr <= 4))
                continue;
            fresh(FLAT, 0);
            u8 code[] = {0x0F, 0x20 | (write ? 2 : 0), 0xC0 | cr << 3};
            load_bytes(code, 3);
            run();
            title("CR%u, write %u", cr, write);
            expect_fault(UD, 0);
        }
    end();
    begin("SDM vol. 2 MOV: the mod field is ignored for control and debug registers");
    for (u32 mod = 0; mod < 4; mod++) {
        fresh(FLAT, 0);
        u8 code[] = {0x0F, 0x20, mod << 6};     // MOV EAX, CR0
        load_bytes(code, 3);
        run();
        title("mod %u", mod);
        if (expect_completes())
            expect_value("EAX", record.r[RAX], context.cr0);
    }
    end();
    if (!HAS_LM)
        return;
    begin("SDM vol. 2 MOV: CR8 holds 4 bits; the others are reserved, #GP(0)");
    for (int bit = 0; bit < 64; bit++) {
        fresh(LONG, 0);
        context.r[RAX] = 1ull << bit;
        run_program(A64("mov cr8, rax; mov rbx, cr8; xor eax, eax; mov cr8, rax"));
        title("bit %d", bit);
        if (bit >= 4)
            expect_fault(GP, 0);
        else if (expect_completes())
            expect_value("CR8", record.r[RBX], 1ull << bit);
    }
    end();
    fresh(LONG, 3);
    run_program(A64("mov rax, cr8"));
    check_fault(GP, 0, "SDM vol. 2 MOV: CR8 is #GP(0) outside ring 0");
}

static void efer(void) {
    about("EFER");
    if (!*dwords(HAS_EFER)) {
        skip("SDM vol. 3A 2.2.1: IA32_EFER", "CPUID lacks its features");
        return;
    }
    begin("SDM vol. 3A 2.2.1: bits of EFER that are reserved are #GP(0)");
    for (int bit = 0; bit < 64; bit++) {
        // AMD's SVME, LMSLE, FFXSR, TCE and more have no test here.
        if (bit >= 12 && bit < 32 && cpu.amd)
            continue;
        if ((bit == 8 && !HAS_LM) || (bit == 11 && !HAS_NX) || (bit == 0 && !HAS_SYSCALL))
            continue;
        fresh(FLAT, 0);
        context.r[RCX] = EFER;
        u64 value = 1ull << bit;
        context.r[RAX] = low(value);
        context.r[RDX] = low(value >> 32);
        run_program(A32("wrmsr; rdmsr"));
        title("bit %d", bit);
        if (bit == 0 || bit == 8 || bit == 11) {
            if (expect_completes())
                expect_value("EFER", record.r[RAX], value);
        } else if (bit == 10) {
            // LMA is not written; AMD has #GP if it would change, Intel ignores it.
            expect(completed() || result.vector == GP);
        } else {
            expect_fault(GP, 0);
        }
    }
    end();
    if (!HAS_LM)
        return;
    fresh(LONG, 0);
    context.r[RCX] = EFER;
    run_program(A64("rdmsr"));
    check(completed() && record.r[RAX] & EFER_LMA, "SDM vol. 3A 2.2.1: LMA is set in IA-32e mode");
    fresh(LONG, 0);
    context.r[RCX] = EFER;
    run_program(A64("rdmsr; btr eax, 8; wrmsr"));
    check_fault(GP, 0, "SDM vol. 3A 10.8.5: changing LME while paging is on is #GP(0)");
    fresh(PAGED, 0);
    context.r[RCX] = EFER;
    run_program(A32("rdmsr; bts eax, 8; wrmsr"));
    check_fault(GP, 0, "SDM vol. 3A 10.8.5: setting LME while paging is on is #GP(0)");
    fresh(PAGED, 0);
    context.cr0 &= ~(u64)CR0_PG;
    context.efer |= EFER_LME;
    run_program(A32("mov eax, cr0; bts eax, 31; mov cr0, eax"));
    check_fault(GP, 0, "SDM vol. 2 MOV to CR0: PG with LME but without PAE is #GP(0)");
    fresh(COMPAT, 0);
    // Not yet in long mode: everything is ready but CS, which has L set.
    u64 cr3 = context.cr3, cr4_value = context.cr4;
    fresh(FLAT, 0);
    context.cr3 = cr3;
    context.cr4 = cr4_value;
    context.efer = EFER_LME;
    set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | G | B | L));
    context.cs = SEL_TEST;
    run_program(A32("mov eax, cr0; bts eax, 31; mov cr0, eax"));
    check_fault(GP, 0, "SDM vol. 2 MOV to CR0: entering IA-32e mode with CS.L set is #GP(0)");
    if (cpu.amd) {
        skip("SDM vol. 2 MOV to CR0: entering IA-32e mode with a 16-bit TSS is #GP(0)", "Intel's rule");
        return;
    }
    fresh(FLAT, 0);
    context.cr3 = cr3;
    context.cr4 = cr4_value;
    context.efer = EFER_LME;
    set_gdt(SEL_TEST, descriptor((u32)tss, 0x2B, TSS16 | PRESENT));
    context.tr = SEL_TEST;
    run_program(A32("mov eax, cr0; bts eax, 31; mov cr0, eax"));
    check_fault(GP, 0, "SDM vol. 2 MOV to CR0: entering IA-32e mode with a 16-bit TSS is #GP(0)");
}

//
// MSRs
//

static void msrs(void) {
    about("MSRs");
    if (!HAS_MSR) {
        fresh(FLAT, 0);
        run_program(A32("rdmsr"));
        check_fault(UD, 0, "SDM vol. 2 RDMSR: #UD where CPUID lacks MSR");
        return;
    }
    begin("SDM vol. 2 RDMSR, WRMSR: an MSR that does not exist is #GP(0)");
    static const u32 none[] = {0x12345678, 0x40001234, 0xBFFFFFFF, 0xC1000000, 0xFFFFFFFF};
    for (u32 i = 0; i < COUNT(none); i++)
        for (u32 write = 0; write < 2; write++) {
            fresh(FLAT, 0);
            context.r[RCX] = none[i];
            run_program(write ? A32("wrmsr") : A32("rdmsr"));
            title("%x, write %u", none[i], write);
            expect_fault(GP, 0);
        }
    end();
    static const struct {
        u32 msr;
        const char *text;
    } addresses[] = {
        {0xC0000100, "SDM vol. 4 IA32_FS_BASE: holds an address; a non-canonical one is #GP(0)"},
        {0xC0000101, "SDM vol. 4 IA32_GS_BASE: holds an address; a non-canonical one is #GP(0)"},
        {0xC0000102, "SDM vol. 4 IA32_KERNEL_GS_BASE: holds an address; a non-canonical one is #GP(0)"},
        {0xC0000082, "SDM vol. 4 IA32_LSTAR: holds an address; a non-canonical one is #GP(0)"},
    };
    for (u32 i = 0; HAS_LM && i < COUNT(addresses); i++) {
        fresh(LONG, 0);
        context.r[RCX] = addresses[i].msr;
        context.r[RAX] = 0x9ABCDEF0;
        context.r[RDX] = 0x00001234;
        run_program(A64("wrmsr; xor eax, eax; xor edx, edx; rdmsr"));
        bool holds = completed() && record.r[RAX] == 0x9ABCDEF0 && record.r[RDX] == 0x1234;
        context.r[RDX] = 0x80001234;
        run_program(A64("wrmsr"));
        check(holds && result.vector == GP && result.error == 0, addresses[i].text);
    }
    if (HAS_PAT) {
        begin("SDM vol. 3A 12.12.4: IA32_PAT takes types 0, 1, 4, 5, 6, 7 in each byte, else #GP(0)");
        for (u32 value = 0; value < 256; value++)
            for (u32 byte = 0; byte < 8; byte += 7) {
                fresh(FLAT, 0);
                context.r[RCX] = 0x277;
                u64 all = 0x0606060606060606ull;
                all = (all & ~(0xFFull << 8 * byte)) | (u64)value << 8 * byte;
                context.r[RAX] = low(all);
                context.r[RDX] = low(all >> 32);
                run_program(A32("wrmsr; rdmsr"));
                title("type %x in byte %u", value, byte);
                if (value > 7 || value == 2 || value == 3)
                    expect_fault(GP, 0);
                else if (expect_completes())
                    expect_value("PAT", record.r[RAX] | record.r[RDX] << 32, all);
            }
        end();
        write_msr(0x277, 0x0007040600070406ull);
    }
    if (HAS_APIC && HAS_MSR) {
        fresh(FLAT, 0);
        context.r[RCX] = 0x1B;
        run_program(A32("rdmsr"));
        check(completed() && (record.r[RAX] & 0xFFFFF900) == 0xFEE00900,
              "SDM vol. 3A 11.4.4: IA32_APIC_BASE after reset: FEE00000h, enabled, bootstrap processor");
    }
    if (HAS_TSC) {
        fresh(FLAT, 0);
        run_program(A32("mov ecx, 0x10; xor edx, edx; mov eax, 0x12345678; wrmsr; rdtsc; mov ebx, eax; "
                        "rdmsr"));
        check(completed() && low(record.r[RBX]) - 0x12345678 < 0x10000000 &&
                  record.r[RAX] >= record.r[RBX] && record.r[RDX] == 0,
              "SDM vol. 3B 18.17: IA32_TIME_STAMP_COUNTER is what RDTSC reads, and can be written");
    }
    if (HAS_RDTSCP) {
        fresh(FLAT, 3);
        write_msr(0xC0000103, 0x1234);
        run_program(A32("rdtscp"));
        check(completed() && record.r[RCX] == 0x1234, "SDM vol. 2 RDTSCP: ECX is IA32_TSC_AUX");
    }
}

//
// CPUID and reset (SDM vol. 2 CPUID; vol. 3A 10.1)
//

static void identification(void) {
    about("CPUID");
    if (!cpu.cpuid) {
        skip("SDM vol. 2 CPUID", "RFLAGS.ID cannot be changed");
        return;
    }
    fresh(FLAT, 3);
    run_program(A32("mov eax, 1; cpuid; mov esi, eax; mov edi, edx; xor eax, eax; cpuid"));
    check(completed() && record.r[RAX] >= 1 && low(record.r[RSI]) == cpu.signature,
          "SDM vol. 2 CPUID: runs in ring 3");
    if (HAS_LM) {
        fresh(LONG, 3);
        run_program(A64("mov rax, -1; mov rbx, -1; mov rcx, -1; mov rdx, -1; mov eax, 1; cpuid; "
                        "or rax, rbx; or rax, rcx; or rax, rdx; shr rax, 32"));
        check(completed() && record.r[RAX] == 0, "SDM vol. 2 CPUID: clears the upper halves");
    }
    if (HAS_XSAVE) {
        begin("SDM vol. 2 CPUID: OSXSAVE follows CR4");
        for (u32 on = 0; on < 2; on++) {
            fresh(FLAT, 3);
            context.cr4 |= on ? CR4_OSXSAVE : 0;
            run_program(A32("mov eax, 1; cpuid; shr ecx, 27; and ecx, 1"));
            expect_value("OSXSAVE", record.r[RCX], on);
        }
        end();
        begin("SDM vol. 2 XSETBV: bit 0 clear, AVX without SSE, unknown bits, XCR above 0: #GP(0)");
        for (u32 i = 0; i < 5; i++) {
            static const u32 values[] = {0, 2, 5, 1 | 1 << 30, 1};
            fresh(FLAT, 0);
            context.cr4 |= CR4_OSXSAVE;
            context.r[RAX] = values[i];
            context.r[RCX] = i == 4;
            run_program(A32(".byte 0x0F, 0x01, 0xD1"));
            title("XCR%u = %x", i == 4, values[i]);
            expect_fault(GP, 0);
        }
        end();
        fresh(FLAT, 0);
        run_program(A32(".byte 0x0F, 0x01, 0xD0"));
        check_fault(UD, 0, "SDM vol. 2 XGETBV: #UD while CR4.OSXSAVE is clear");
        fresh(FLAT, 3);
        context.cr4 |= CR4_OSXSAVE;
        run_program(A32(".byte 0x0F, 0x01, 0xD1"));
        check_fault(GP, 0, "SDM vol. 2 XSETBV: #GP(0) outside ring 0");
    }
    begin("SDM vol. 2: instructions that CPUID lacks are #UD");
    static const struct {
        const char *name;
        u8 length, code[6];
    } table[] = {
        {"RDTSC", 2, {0x0F, 0x31}}, {"CMPXCHG8B", 3, {0x0F, 0xC7, 0x0B}}, {"CMOVE", 3, {0x0F, 0x44, 0xC0}},
        {"FXSAVE", 3, {0x0F, 0xAE, 0x03}}, {"MOVD MM", 3, {0x0F, 0x6E, 0xC0}},
        {"CLFLUSH", 3, {0x0F, 0xAE, 0x3B}}, {"RDTSCP", 3, {0x0F, 0x01, 0xF9}},
        {"CLAC", 3, {0x0F, 0x01, 0xCA}}, {"RDRAND", 3, {0x0F, 0xC7, 0xF0}},
        {"RDSEED", 3, {0x0F, 0xC7, 0xF8}}, {"XSAVE", 3, {0x0F, 0xAE, 0x23}},
        {"INVPCID", 5, {0x66, 0x0F, 0x38, 0x82, 0x03}}, {"ADCX", 5, {0x66, 0x0F, 0x38, 0xF6, 0xC0}},
        {"MONITOR", 3, {0x0F, 0x01, 0xC8}}, {"MOVBE", 4, {0x0F, 0x38, 0xF0, 0x03}},
    };
    u32 has[] = {HAS_TSC, HAS_CX8, cpu.edx1 & 1 << 15, HAS_FXSR, HAS_MMX, cpu.edx1 & 1 << 19,
                 HAS_RDTSCP, HAS_SMAP, cpu.ecx1 & 1 << 30, cpu.ebx7 & 1 << 18, HAS_XSAVE, HAS_INVPCID,
                 cpu.ebx7 & 1 << 19, HAS_MONITOR, cpu.ecx1 & 1 << 22};
    for (u32 i = 0; i < COUNT(table); i++) {
        fresh(FLAT, 0);
        context.r[RBX] = KERNEL_DATA;
        context.cr4 |= HAS_XSAVE ? CR4_OSXSAVE : 0;
        load_bytes(table[i].code, table[i].length);
        run();
        title("%s, CPUID %u", table[i].name, has[i] != 0);
        expect(has[i] ? result.vector != UD : result.vector == UD);
    }
    end();
}

/// The last ones, because a processor that takes it is lost.
static void paging_switches(void) {
    about("CR0");
    begin("SDM vol. 3A 2.5, vol. 2 MOV to CR0: PG without PE is #GP(0)");
    for (enum world world = REAL; world <= LONG; world++) {
        if (!has_world(world))
            continue;
        fresh(world, 0);
        context.r[RAX] = (context.cr0 | CR0_PG) & ~(u64)CR0_PE;
        run_program(world == REAL ? A16("mov cr0, eax") : is_wide(world) ? A64("mov cr0, rax")
                                                                      : A32("mov cr0, eax"));
        title("%s", world_names[world]);
        expect_fault(GP, 0);
    }
    end();
    if (!HAS_LM)
        return;
    fresh(LONG, 0);
    run_program(A64("mov rax, cr0; btr rax, 31; mov cr0, rax"));
    check_fault(GP, 0, "SDM vol. 3A 10.8.5.4: clearing CR0.PG in 64-bit mode is #GP(0)");
    if (!HAS_PCID)
        return;
    fresh(LONG, 0);
    run_program(A64("mov rax, cr4; bts rax, 17; mov cr4, rax; mov rax, cr0; btr rax, 31; "
                    "mov cr0, rax"));
    check_fault(GP, 0, "SDM vol. 3A 4.10.1: CR0.PG cannot be cleared while CR4.PCIDE is set");
}

void chapter(void) {
    cr0();
    cr4();
    other_registers();
    efer();
    msrs();
    identification();
    paging_switches();
}
