//! Virtual-8086 mode, with and without its extensions (SDM vol. 3A chapter 21).

#include "suite.h"

const char chapter_name[] = "v86";

#define stack_top ((volatile u16 *)anywhere(LOW_STACK + LOW_STACK_TOP))

/// A context with this IOPL and these bits of CR4, in which PUSHF and the like may be tried.
static void v86(u32 iopl, u32 cr4) {
    fresh(V86, 3);
    context.rflags |= iopl << 12;
    context.cr4 |= cr4;
}

static void entry_and_exit(void) {
    begin("SDM vol. 3A 21.2.5, 21.2.6: IRET loads all segment registers; an exception pushes and "
          "clears them");
    v86(0, 0);
    context.ds = 0x1111;
    context.es = 0x2222;
    context.fs = 0x3333;
    context.gs = 0x4444;
    run_program(A16("mov ax, ds; mov bx, es; mov cx, fs; mov dx, gs; ud2"));
    expect_fault(UD, 0);
    expect_value("AX", record.r[RAX], 0x1111);
    expect_value("BX", record.r[RBX], 0x2222);
    expect_value("CX", record.r[RCX], 0x3333);
    expect_value("DX", record.r[RDX], 0x4444);
    expect_value("DS", result.v86_ds, 0x1111);
    expect_value("ES", result.v86_es, 0x2222);
    expect_value("FS", result.v86_fs, 0x3333);
    expect_value("GS", result.v86_gs, 0x4444);
    expect_value("SS", result.ss, context.ss);
    expect_value("SP", result.rsp, context.r[RSP]);
    expect_value("VM", result.rflags & FLAGS_VM, FLAGS_VM);
    expect_value("ESP in the handler", record.handler_sp, RING0_STACK_TOP - 36);
    expect_value("DS in the handler", record.ds, 0);
    expect_value("ES in the handler", record.es, 0);
    expect_value("FS in the handler", record.fs, 0);
    expect_value("GS in the handler", record.gs, 0);
    expect_value("VM in the handler", record.handler_flags & FLAGS_VM, 0);
    end();

    v86(0, 0);
    set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | DPL(1) | B | G));
    set_gdt(SEL_TEST + 8, descriptor(0, 0xFFFFF, DATA | WRITABLE | PRESENT | DPL(1) | B | G));
    idt[UD] = gate(SEL_TEST, KERNEL_CODE, INT_GATE32 | PRESENT, 0);
    ((u32 *)tss)[4] = SEL_TEST + 9;
    run_program(A16("ud2"));
    check_fault(GP, SEL_TEST | ERROR_EXT, "SDM vol. 2 INT n, vol. 3A 21.3.1: a handler of another ring "
                                          "than 0 is #GP(selector)");
    v86(0, 0);
    set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, CODE_SEGMENT | CONFORMING | PRESENT | B | G));
    idt[UD] = gate(SEL_TEST, KERNEL_CODE, INT_GATE32 | PRESENT, 0);
    run_program(A16("ud2"));
    check_fault(GP, SEL_TEST | ERROR_EXT, "SDM vol. 2 INT n, vol. 3A 21.3.1: a conforming handler is "
                                          "#GP(selector)");

    // Outside ring 0, IRET cannot set VM.
    fresh(FLAT, 3);
    context.r[RBX] = context.cs;
    run_program(A32("call 2f; 2: pop edx; add edx, 1f - 2b; push 0x20002; push ebx; push edx; iretd; "
                    "1: nop"));
    check(completed() && !(result.rflags & FLAGS_VM), "SDM vol. 2 IRET: VM is not set outside ring 0");
    fresh(FLAT, 0);
    run_program(A32("pushfd; or dword ptr [esp], 0x20000; popfd; pushfd; pop eax"));
    check(completed() && !(record.r[RAX] & FLAGS_VM), "SDM vol. 2 POPF: VM is not changed");
}

struct sensitive {
    const char *name;
    u8 length, code[4];
};

/// CLI, STI, PUSHF, POPF, INT n, IRET (SDM vol. 3A 21.2.7).
static void sensitive_instructions(void) {
    static const struct sensitive table[] = {
        {"CLI", 1, {0xFA}}, {"STI", 1, {0xFB}}, {"PUSHF", 1, {0x9C}}, {"POPF", 1, {0x9D}},
        {"PUSHFD", 2, {0x66, 0x9C}}, {"POPFD", 2, {0x66, 0x9D}}, {"IRET", 1, {0xCF}},
        {"IRETD", 2, {0x66, 0xCF}}, {"INT 80h", 2, {0xCD, 0x80}},
    };
    begin("SDM vol. 3A 21.2.7: CLI, STI, PUSHF, POPF, INT n, IRET are #GP(0) with IOPL below 3");
    for (u32 iopl = 0; iopl < 4; iopl++)
        for (u32 i = 0; i < COUNT(table); i++) {
            v86(iopl, 0);
            context.r[RSP] -= 32;
            for (u32 j = 0; j < 16; j++)
                stack_top[j - 16] = 0;
            if (table[i].code[table[i].length - 1] == 0xCF) {
                // A frame that leads to the INT3 behind it.
                bool wide = table[i].length == 2;
                stack_top[-16] = table[i].length;
                stack_top[wide ? -14 : -15] = context.cs;
                stack_top[wide ? -12 : -14] = 2;
            }
            extern u8 handlers32[];
            idt[0x80] = gate(SEL_CODE32, (u32)handlers32 + 5 * 0x80, INT_GATE32 | PRESENT | DPL(3), 0);
            load_bytes(table[i].code, table[i].length);
            run();
            title("%s, IOPL %u", table[i].name, iopl);
            if (iopl < 3)
                expect_fault(GP, 0);
            else if (table[i].code[0] == 0xCD)
                expect(result.vector == 0x80 && result.rflags & FLAGS_VM);
            else
                expect_completes();
        }
    end();

    v86(0, 0);
    run_program(A16("int3"));
    check(result.vector == BP && result.rflags & FLAGS_VM,
          "SDM vol. 3A 21.2.7: INT3 does not ask for IOPL, and goes to the protected-mode handler");
    v86(0, 0);
    idt[OF] |= 3ull << 45;
    run_program(A16("mov al, 0x7F; add al, 1; into"));
    check_fault(OF, 0, "SDM vol. 3A 21.2.7: INTO does not ask for IOPL");
    v86(3, 0);
    run_program(A16("int 0x80"));
    check_fault(GP, 0x80 * 8 + 2, "SDM vol. 2 INT n: the gate's DPL counts in virtual-8086 mode");
    v86(3, 0);
    run_program(A16("pushf; pop ax; mov bx, ax; xor bx, 0x3000; push bx; popf; pushf; pop cx"));
    check(completed() && (record.r[RCX] & 0x3000) == 0x3000,
          "SDM vol. 2 POPF: IOPL is not changed in virtual-8086 mode");
    v86(3, 0);
    run_program(A16("push 0x202; popf; pushf; pop cx; cli; pushf; pop dx"));
    check(completed() && (record.r[RCX] & 0x200) && !(record.r[RDX] & 0x200),
          "SDM vol. 2 POPF, CLI: with IOPL 3 IF is changed");
}

static void addresses(void) {
    begin("SDM vol. 3A 21.2.1, 21.1.1: segments of 64 KiB at 16 times the selector; #GP, #SS past FFFFh");
    for (u32 offset = 0xFFFC; offset < 0x10002; offset++)
        for (u32 stack = 0; stack < 2; stack++) {
            v86(0, 0);
            context.r[RBX] = offset;
            run_program(stack ? A16("mov eax, ss:[ebx]") : A16("mov eax, [ebx]"));
            title("offset %x, stack %u", offset, stack);
            if (offset <= 0xFFFC)
                expect_completes();
            else
                expect_fault(stack ? SS : GP, 0);
        }
    end();
    v86(0, 0);
    context.ds = 0x2345;
    *dwords(0x23450 + 0x100) = 0xFACADE;
    run_program(A16("mov eax, [0x100]"));
    check(completed() && low(record.r[RAX]) == 0xFACADE, "SDM vol. 3A 21.2.1: base 16 times DS");
    v86(0, 0);
    context.ds = 0xFFFF;
    *dwords(0x100000 + 0x20) = 0xC0FFEE;
    run_program(A16("mov eax, [0x30]"));
    check(completed() && low(record.r[RAX]) == 0xC0FFEE,
          "SDM vol. 3A 21.2.1: addresses reach 10FFEFh");
    v86(0, 0);
    place(LOW_CODE + 0x1010, A16("mov cx, cs"));
    run_program(A16("jmp 0x1100:0x10"));
    check(result.vector == BP && record.r[RCX] == 0x1100 && result.rip == 0x13,
          "SDM vol. 3A 21.2.1: far jumps take the selector as a segment");
}

/// Paging with user pages: the pages below 1 MiB are what the 8086 program sees.
static void paged(void) {
    fresh(PAGED, 3);
    u64 cr3 = context.cr3, cr0 = context.cr0, cr4 = context.cr4;
    v86(0, 0);
    context.cr0 = cr0;
    context.cr3 = cr3;
    context.cr4 = cr4;
    context.ds = 0x5000;                        // 50000h: the supervisor's
    run_program(A16("mov al, [0x123]"));
    check(result.vector == PF && result.error == (PF_P | PF_U) && result.cr2 == 0x50123 &&
              result.rflags & FLAGS_VM,
          "SDM vol. 3A 21.2.4: pages are checked as for ring 3");
}

/// Virtual-mode extensions (SDM vol. 3A 21.3, tables 21-1 and 21-2).
static void extensions(void) {
    if (!HAS_VME) {
        skip("SDM vol. 3A 21.3, 21.4: VME and PVI", "CPUID lacks VME");
        return;
    }
    about("VME");
    begin("SDM vol. 3A 21.3.2, vol. 2 CLI, STI: with IOPL below 3, VIF is changed; STI with VIP is "
          "#GP(0)");
    for (u32 iopl = 0; iopl < 4; iopl++)
        for (u32 vif = 0; vif < 2; vif++)
            for (u32 vip = 0; vip < 2; vip++)
                for (u32 sti = 0; sti < 2; sti++) {
                    if (vif && vip)
                        continue;               // a #GP of its own, before the instruction
                    v86(iopl, CR4_VME);
                    context.rflags |= (vif ? FLAGS_VIF : 0) | (vip ? FLAGS_VIP : 0);
                    run_program(sti ? A16("sti") : A16("cli"));
                    title("IOPL %u, VIF %u, VIP %u, STI %u", iopl, vif, vip, sti);
                    if (sti && iopl < 3 && vip) {
                        expect_fault(GP, 0);
                    } else if (expect_completes()) {
                        expect_value("VIF", result.rflags >> 19 & 1, iopl < 3 ? sti : vif);
                        expect_value("IF", result.rflags >> 9 & 1, iopl == 3 && sti);
                    }
                }
    end();
    begin("SDM vol. 2 PUSHF: with VME and IOPL below 3, VIF stands for IF, and IOPL reads as 3");
    for (u32 iopl = 0; iopl < 4; iopl++)
        for (u32 vif = 0; vif < 2; vif++)
            for (u32 wide = 0; wide < 2; wide++) {
                v86(iopl, CR4_VME);
                context.rflags |= vif ? FLAGS_VIF : 0;
                run_program(wide ? A16("pushfd; pop eax") : A16("pushf; pop ax"));
                title("IOPL %u, VIF %u, 32 bits %u", iopl, vif, wide);
                if (iopl < 3 && wide) {
                    expect_fault(GP, 0);
                } else if (expect_completes()) {
                    bool virtual = iopl < 3;
                    expect_value("flags", record.r[RAX] & 0x3200,
                                 (virtual ? 3 : iopl) << 12 | (virtual && vif ? 0x200 : 0));
                }
            }
    end();
    begin("SDM vol. 2 POPF, IRET: with VME and IOPL below 3, IF goes to VIF; with VIP or TF #GP(0)");
    for (u32 iopl = 0; iopl < 4; iopl++)
        for (u32 vip = 0; vip < 2; vip++)
            for (u32 iret = 0; iret < 2; iret++)
                for (u32 flag = 0; flag < 2; flag++) {
                    v86(iopl, CR4_VME);
                    context.rflags |= vip ? FLAGS_VIP : 0;
                    context.r[RAX] = 2 | (flag ? 0x200 : 0);
                    run_program(iret ? A16("push ax; push cs; call 1f; 1: pop bx; add bx, 7; push bx; "
                                           "iret; nop; nop")
                                     : A16("push ax; popf; nop"));
                    title("IOPL %u, VIP %u, IRET %u, IF %u", iopl, vip, iret, flag);
                    if (iopl < 3 && vip && flag) {
                        expect_fault(GP, 0);
                    } else if (expect(result.vector == BP)) {
                        expect_value("VIF", result.rflags >> 19 & 1, iopl < 3 && flag);
                        expect_value("IF", result.rflags >> 9 & 1, iopl == 3 && flag);
                    }
                }
    end();
    v86(0, CR4_VME);
    run_program(A16("push 0x102; popf"));
    check_fault(GP, 0, "SDM vol. 2 POPF: with VME and IOPL below 3, setting TF is #GP(0)");

    // The redirection bitmap is the 32 bytes below the I/O map.
    begin("SDM vol. 3A 21.3.1, table 21-2: INT n by the redirection bitmap: to the 8086 program's "
          "handler or the monitor's");
    for (u32 iopl = 0; iopl < 4; iopl++)
        for (u32 redirected = 0; redirected < 2; redirected++)
            for (u32 vif = 0; vif < 2; vif++) {
                v86(iopl, CR4_VME);
                ((u32 *)tss)[25] = 0x88 << 16;
                for (u32 i = 0; i < 32; i++)
                    tss[0x68 + i] = 0xFF;
                if (redirected)
                    tss[0x68 + 0x80 / 8] = 0xFE;
                context.rflags |= (vif ? FLAGS_VIF : 0) | 0xD5;
                // Where 8086 programs find their handler: page 0 is mapped without paging.
                u32 saved = *dwords(4 * 0x80);
                *dwords(4 * 0x80) = (u32)(LOW_CODE >> 4) << 16 | 0x500;
                *bytes(LOW_CODE + 0x500) = 0xCC;
                extern u8 handlers32[];
                idt[0x80] =
                    gate(SEL_CODE32, (u32)handlers32 + 5 * 0x80, INT_GATE32 | PRESENT | DPL(3), 0);
                run_program(A16("int 0x80"));
                *dwords(4 * 0x80) = saved;
                title("IOPL %u, redirected %u, VIF %u", iopl, redirected, vif);
                if (redirected) {
                    if (!expect(result.vector == BP && result.rip == 0x501))
                        continue;
                    bool virtual = iopl < 3;
                    expect_value("SP", result.rsp, LOW_STACK_TOP - 6);
                    expect_value("IP pushed", stack_top[-3], 2);
                    expect_value("CS pushed", stack_top[-2], context.cs);
                    expect_value("FLAGS pushed", stack_top[-1],
                                 0xD7 | (virtual ? 3 : iopl) << 12 | (virtual && vif ? 0x200 : 0));
                    expect_value("VIF", result.rflags >> 19 & 1, virtual ? 0 : vif);
                } else if (iopl < 3) {
                    expect_fault(GP, 0);
                } else {
                    expect(result.vector == 0x80);
                }
            }
    end();

    about("PVI");
    begin("SDM vol. 3A 21.4, vol. 2 CLI, STI: in ring 3 with PVI and IOPL below 3, VIF is changed");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 iopl = 0; iopl < 4; iopl++)
            for (u32 vip = 0; vip < 2; vip++)
                for (u32 sti = 0; sti < 2; sti++) {
                    fresh(FLAT, cpl);
                    context.cr4 |= CR4_PVI;
                    context.rflags |= iopl << 12 | (vip ? FLAGS_VIP : 0) |
                                      (sti || vip ? 0 : FLAGS_VIF);
                    run_program(sti ? A32("sti; nop") : A32("cli"));
                    title("CPL %u, IOPL %u, VIP %u, STI %u", cpl, iopl, vip, sti);
                    bool virtual = cpl == 3 && iopl < 3;
                    if ((cpl > iopl && !virtual) || (virtual && sti && vip))
                        expect_fault(GP, 0);
                    else if (expect_completes()) {
                        expect_value("VIF", result.rflags >> 19 & 1, virtual ? sti : !sti && !vip);
                        expect_value("IF", result.rflags >> 9 & 1, !virtual && sti);
                    }
                }
    end();
}

void chapter(void) {
    about(0);
    entry_and_exit();
    sensitive_instructions();
    addresses();
    paged();
    extensions();
}
