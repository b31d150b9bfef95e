//! Debug registers, breakpoints, single step and RFLAGS.RF (SDM vol. 3B chapter 18).

#include "suite.h"

const char chapter_name[] = "debug";

/// DR6 (SDM vol. 3B 18.2.3) and DR7 (18.2.4).
enum { B0 = 1, B1 = 2, B2 = 4, B3 = 8, BD = 1 << 13, BS = 1 << 14, BT = 1 << 15 };
enum { CONDITIONS = 15 | BD | BS | BT };
enum { ON_EXECUTE = 0, ON_WRITE = 1, ON_IO = 2, ON_ACCESS = 3 };
enum { DR7_FIXED = 1 << 10, DR7_GD = 1 << 13 };

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }
static bool is_small(enum world world) { return world == REAL || world == V86; }

/// LEN for a length in bytes.
static u32 length_bits(u32 length) {
    return length == 1 ? 0 : length == 2 ? 1 : length == 4 ? 3 : 2;
}

/// Breakpoint `n` of the context: globally or locally enabled, for one condition.
static void set_breakpoint(u32 n, u64 linear, u32 on, u32 length) {
    context.dr[n] = linear;
    context.dr7 |= (u64)(n & 1 ? 2 : 1) << 2 * n;
    context.dr7 |= (u64)(length_bits(length) << 2 | on) << (16 + 4 * n);
}

/// A ring that the world has, with data that it may use.
static void begin_in(enum world world, int ring) {
    fresh(world, is_small(world) ? 3 : ring);
    context.rflags |= world == V86 ? 3 << 12 : 0;
}

static u64 linear_code(void) {
    return is_small(context.rflags & FLAGS_VM || context.kind == KIND_REAL ? REAL : FLAT)
               ? (context.cs << 4) + context.rip
               : context.rip;
}

/// Data of the context's world and ring: linear address, and the offset that reaches it in RBX.
static u64 set_data(enum world world, int ring, u32 offset) {
    u32 base = is_small(world) ? LOW_DATA : ring == 3 ? USER_DATA : KERNEL_DATA;
    context.r[RBX] = is_small(world) ? offset : base + offset;
    return base + offset;
}

#define BY_WORLD(world, text) \
    (is_small(world) ? A16(text) : is_wide(world) ? A64(text) : A32(text))

/// #DB with these of DR6's conditions, this far into the program.
static bool expect_debug(u32 conditions, u32 offset) {
    return expect(result.vector == DB && (record.dr6 & CONDITIONS) == conditions &&
                  result.rip == context.rip + offset);
}

static void check_debug(u32 conditions, u32 offset, const char *text) {
    check(result.vector == DB && (record.dr6 & CONDITIONS) == conditions &&
              result.rip == context.rip + offset,
          text);
    if (result.vector == DB && (record.dr6 & CONDITIONS) != conditions)
        note("  DR6 %x, expected %x", low(record.dr6), conditions);
}

//
// The registers
//

static void registers(void) {
    about("registers");
    begin("SDM vol. 2 MOV (debug registers): #GP(0) outside ring 0");
    for (int ring = 1; ring < 4; ring++)
        for (u32 dr = 0; dr < 8; dr++)
            for (u32 write = 0; write < 2; write++) {
                if (dr == 4 || dr == 5)
                    continue;
                fresh(FLAT, ring);
                u8 code[] = {0x0F, 0x21 | (write ? 2 : 0), 0xC0 | dr << 3};
                load_bytes(code, 3);
                run();
                title("DR%u, ring %d, write %u", dr, ring, write);
                expect_fault(GP, 0);
            }
    for (u32 write = 0; write < 2; write++) {
        fresh(V86, 3);
        context.rflags |= 3 << 12;
        run_program(write ? A16("mov dr0, eax") : A16("mov eax, dr0"));
        title("virtual-8086 mode, write %u", write);
        expect_fault(GP, 0);
    }
    end();

    begin("SDM vol. 3B 18.2.2: DR4 and DR5 are #UD with CR4.DE, else DR6 and DR7");
    for (u32 dr = 4; dr < 6; dr++)
        for (u32 write = 0; write < 2; write++)
            for (u32 de = 0; de < 2; de++) {
                if (de && !HAS_DE)
                    continue;
                fresh(FLAT, 0);
                context.cr4 |= de ? CR4_DE : 0;
                context.r[RAX] = 0x400;
                u8 code[] = {0x0F, 0x21 | (write ? 2 : 0), 0xC0 | dr << 3};
                load_bytes(code, 3);
                run();
                title("DR%u, write %u, DE %u", dr, write, de);
                if (de)
                    expect_fault(UD, 0);
                else if (expect_completes() && !write && dr == 5)
                    expect_value("DR5", record.r[RAX], 0x400);
            }
    end();

    // Bits 11 and 16 tell of bus locks and transactions on processors that have them.
    fresh(FLAT, 0);
    run_program(A32("xor eax, eax; mov dr6, eax; mov ecx, dr6; mov eax, 0xF00F; mov dr6, eax; "
                    "mov edx, dr6"));
    check(completed() && (record.r[RCX] & 0xFFFEF7FF) == 0xFFFE07F0 &&
              (record.r[RDX] & 0xFFFEF7FF) == 0xFFFEE7FF,
          "SDM vol. 3B 18.2.3, figure 18-1: DR6's reserved bits are 1, but bit 12, which is 0");
    fresh(FLAT, 0);
    run_program(A32("xor eax, eax; mov dr7, eax; mov ecx, dr7; mov eax, 0x0000D000; mov dr7, eax; "
                    "mov edx, dr7; xor eax, eax; mov dr7, eax"));
    check(completed() && record.r[RCX] == DR7_FIXED && record.r[RDX] == DR7_FIXED,
          "SDM vol. 3B 18.2.4, figure 18-1: DR7's bit 10 is 1, bits 12, 14 and 15 are 0");
    fresh(FLAT, 0);
    run_program(A32("mov eax, 0x12345678; mov dr0, eax; not eax; mov dr1, eax; mov dr2, eax; not eax; "
                    "mov dr3, eax; mov ebx, dr0; mov ecx, dr1; mov edx, dr2; mov esi, dr3"));
    check(completed() && record.r[RBX] == 0x12345678 && record.r[RCX] == 0xEDCBA987 &&
              record.r[RDX] == 0xEDCBA987 && record.r[RSI] == 0x12345678,
          "SDM vol. 3B 18.2.1: DR0 to DR3 hold addresses");
    if (!HAS_LM)
        return;
    begin("SDM vol. 3B 18.2.6: in 64-bit mode bits 63 to 32 of DR6 and DR7 must be zero: #GP(0)");
    for (u32 bit = 32; bit < 64; bit++)
        for (u32 seven = 0; seven < 2; seven++) {
            fresh(LONG, 0);
            context.r[RAX] = 1ull << bit | 0x400;
            run_program(seven ? A64("mov dr7, rax") : A64("mov dr6, rax"));
            title("DR%u, bit %u", 6 + seven, bit);
            expect_fault(GP, 0);
        }
    end();
    fresh(LONG, 0);
    context.r[RAX] = 0x0123456789ABCDEFull;
    run_program(A64("mov dr0, rax; mov dr3, rax; mov rbx, dr0; mov rcx, dr3"));
    check(completed() && record.r[RBX] == context.r[RAX] && record.r[RCX] == context.r[RAX],
          "SDM vol. 3B 18.2.6: DR0 to DR3 have 64 bits, and the address may be non-canonical");
}

static void general_detect(enum world world) {
    begin("SDM vol. 3B 18.2.4, 18.3.1.3: with DR7.GD any MOV of a debug register is a #DB fault, BD set; "
          "GD is cleared");
    for (u32 dr = 0; dr < 8; dr++)
        for (u32 write = 0; write < 2; write++) {
            if (dr == 4 || dr == 5)
                continue;
            begin_in(world, 0);
            context.dr7 |= DR7_GD;
            context.r[RAX] = 0x400;
            u8 code[] = {0x90, 0x0F, 0x21 | (write ? 2 : 0), 0xC0 | dr << 3};
            load_bytes(code, 4);
            run();
            title("DR%u, write %u", dr, write);
            if (expect_debug(BD, 1))
                expect_value("DR7 in the handler", record.dr7 & DR7_GD, 0);
        }
    end();
}

//
// Instruction breakpoints
//

static void instruction_breakpoints(enum world world) {
    begin("SDM vol. 3B 18.3.1.1: an instruction breakpoint is a fault at the instruction, with RF clear");
    for (u32 n = 0; n < 4; n++)
        for (u32 enable = 0; enable < 4; enable++) {
            begin_in(world, 3);
            load(BY_WORLD(world, "nop; nop; mov cl, 1; mov cl, 2; nop"));
            context.dr[n] = linear_code() + 2;
            context.dr7 |= enable << 2 * n;
            run();
            title("DR%u, enable %u", n, enable);
            if (!enable) {
                expect_completes();
            } else if (expect_debug(1 << n, 2)) {
                expect_value("CL", record.r[RCX] & 0xFF, 0);
                expect_value("RF", result.rflags & FLAGS_RF, 0);
            }
        }
    end();

    begin("SDM vol. 3B 18.3.1.1: a breakpoint must be at the first byte, with prefixes, else none");
    for (u32 offset = 0; offset < 5; offset++) {
        begin_in(world, 3);
        static const u8 code[] = {0x90, 0x26, 0x66, 0x90, 0x90};    // NOP; ES, 66h, NOP; NOP
        load_bytes(code, 5);
        set_breakpoint(1, linear_code() + offset, ON_EXECUTE, 1);
        run();
        title("offset %u", offset);
        if (offset == 2 || offset == 3)
            expect_completes();
        else
            expect_debug(B1, offset);
    }
    end();

    begin_in(world, 3);
    load(BY_WORLD(world, "ud2"));
    set_breakpoint(2, linear_code(), ON_EXECUTE, 1);
    run();
    check_debug(B2, 0, "SDM vol. 3A table 6-2: a code breakpoint comes before #UD");

    begin_in(world, 3);
    load(BY_WORLD(world, "nop; nop"));
    set_breakpoint(0, linear_code(), ON_EXECUTE, 1);
    set_breakpoint(3, linear_code(), ON_EXECUTE, 1);
    run();
    check_debug(B0 | B3, 0, "SDM vol. 3B 18.2.3: all conditions that are met are in DR6");

    if (world == REAL)
        return;                                 // IRETD there loads RF too, but this is enough
    begin_in(world, 3);
    context.rflags |= FLAGS_RF;
    load(BY_WORLD(world, "nop; nop"));
    set_breakpoint(0, linear_code(), ON_EXECUTE, 1);
    run();
    check_completes("SDM vol. 3B 18.3.1.1: RF, set by IRET, suppresses the breakpoint once");
    begin_in(world, 3);
    context.rflags |= FLAGS_RF;
    load(BY_WORLD(world, "nop; nop"));
    set_breakpoint(0, linear_code(), ON_EXECUTE, 1);
    set_breakpoint(1, linear_code() + 1, ON_EXECUTE, 1);
    run();
    check_debug(B1, 1, "SDM vol. 3B 18.3.1.1: RF is cleared after the instruction");
    begin_in(world, 3);
    context.rflags |= FLAGS_RF;
    u64 data = set_data(world, 3, 0x40);
    load(is_small(world)  ? A16("mov [bx], al; nop")
         : is_wide(world) ? A64("mov [rbx], al; nop")
                          : A32("mov [ebx], al; nop"));
    set_breakpoint(0, data, ON_WRITE, 1);
    run();
    check_debug(B0, 2, "SDM vol. 3B 18.3.1.1: RF does not suppress data breakpoints");
}

/// MOV SS and POP SS hold debug exceptions back for one instruction (SDM vol. 3A 6.8.3).
static void stack_switches(enum world world) {
    begin_in(world, 3);
    load(BY_WORLD(world, "mov eax, ss; mov ss, eax; nop; nop"));
    if (is_small(world))
        load(A16("mov ax, ss; mov ss, ax; nop; nop"));
    set_breakpoint(0, linear_code() + 4, ON_EXECUTE, 1);
    run();
    check_completes("SDM vol. 3B 18.3.1.1, vol. 3A 6.8.3: a breakpoint behind MOV SS is suppressed");
    begin_in(world, 3);
    load(is_small(world) ? A16("mov ax, ss; mov ss, ax; nop; nop")
                         : BY_WORLD(world, "mov eax, ss; mov ss, eax; nop; nop"));
    context.rflags |= FLAGS_TF;
    set_breakpoint(0, linear_code() + 6, ON_EXECUTE, 1);
    u32 expected[] = {2, 5};                    // behind MOV EAX, SS; behind the NOP after MOV SS
    begin("SDM vol. 3A 6.8.3: no single-step trap between MOV SS and the next instruction");
    run();
    title("before");
    expect_debug(BS, expected[0]);
    context.rip += 2;
    context.r[RAX] = context.ss;
    run();
    title("behind");
    expect_debug(BS, expected[1] - 2);
    end();
    if (!is_wide(world)) {
        begin_in(world, 3);
        context.rflags |= FLAGS_TF;
        load(is_small(world) ? A16("push ss; pop ss; nop; nop") : A32("push ss; pop ss; nop; nop"));
        run();
        context.rip += 1;
        *(volatile u16 *)(is_small(world) ? (u32)LOW_STACK + LOW_STACK_TOP : USER_STACK_TOP) = context.ss;
        run();
        check_debug(BS, 2, "SDM vol. 3A 6.8.3: nor behind POP SS");
    }
}

//
// Data breakpoints
//

/// Accesses of a width, of writing and reading kind, at [EBX]; each is two bytes, or three.
static struct program access_program(enum world world, u32 width, bool write) {
    if (is_wide(world))
        switch (width) {
        case 1: return write ? A64("mov [rbx], al") : A64("mov al, [rbx]");
        case 2: return write ? A64("mov [rbx], ax") : A64("mov ax, [rbx]");
        case 4: return write ? A64("mov [rbx], eax") : A64("mov eax, [rbx]");
        default: return write ? A64("mov [rbx], rax") : A64("mov rax, [rbx]");
        }
    if (is_small(world))
        switch (width) {
        case 1: return write ? A16("mov [bx], al") : A16("mov al, [bx]");
        case 2: return write ? A16("mov [bx], ax") : A16("mov ax, [bx]");
        default: return write ? A16("mov [bx], eax") : A16("mov eax, [bx]");
        }
    switch (width) {
    case 1: return write ? A32("mov [ebx], al") : A32("mov al, [ebx]");
    case 2: return write ? A32("mov [ebx], ax") : A32("mov ax, [ebx]");
    default: return write ? A32("mov [ebx], eax") : A32("mov eax, [ebx]");
    }
}

static void data_breakpoints(enum world world) {
    begin("SDM vol. 3B 18.2.4, 18.2.5, 18.3.1.2: a data breakpoint is a trap behind each access that "
          "touches its bytes; those for writes let reads be");
    u32 widest = is_wide(world) ? 8 : 4;
    for (u32 length = 1; length <= widest; length *= 2)
        for (u32 width = 1; width <= widest; width *= 2)
            for (u32 at = 0x38; at < 0x50; at++)
                for (u32 kind = 0; kind < 4; kind++) {
                    bool write = kind & 1, any = kind & 2;
                    u32 n = (at + kind) & 3;
                    begin_in(world, 3);
                    u64 data = set_data(world, 3, 0x40);
                    context.r[RBX] += (int)at - 0x40;
                    *dwords(low(data)) = 0;
                    set_breakpoint(n, data, any ? ON_ACCESS : ON_WRITE, length);
                    run_program(access_program(world, width, write));
                    title("LEN of %u bytes at 40h, %u bytes at %x, %s, %s", length, width, at,
                          write ? "write" : "read", any ? "R/W 11" : "R/W 01");
                    bool touches = at < 0x40 + length && 0x40 < at + width;
                    if (!touches || (!any && !write))
                        expect_completes();
                    else if (expect_debug(1 << n, program_size))
                        expect_value("RF", result.rflags & FLAGS_RF, 0);
                }
    end();
}

/// Other instructions than MOV: by linear address of what they write, in 32-bit code.
static void implicit_accesses(void) {
    static const struct {
        const char *name;
        u8 length, code[6];
        int32_t at;                                 // relative to ESP, or to EBX
        bool stack, read_only;
    } table[] = {
        {"PUSH EAX", 1, {0x50}, -4, true, false},
        {"POP EAX", 1, {0x58}, 0, true, true},
        {"PUSHFD", 1, {0x9C}, -4, true, false},
        {"CALL EAX", 2, {0xFF, 0xD0}, -4, true, false},
        {"PUSHAD", 1, {0x60}, -32, true, false},
        {"XCHG [EBX], EAX", 2, {0x87, 0x03}, 0, false, false},
        {"INC BYTE [EBX]", 2, {0xFE, 0x03}, 0, false, false},
        {"CMP [EBX], EAX", 2, {0x39, 0x03}, 0, false, true},
        {"TEST [EBX], EAX", 2, {0x85, 0x03}, 0, false, true},
        {"STOSB", 1, {0xAA}, 0, false, false},
        {"LODSB", 1, {0xAC}, 0, false, true},
        {"SCASB", 1, {0xAE}, 0, false, true},
        {"BTS [EBX], EAX", 3, {0x0F, 0xAB, 0x03}, 0, false, false},
        {"BT [EBX], EAX", 3, {0x0F, 0xA3, 0x03}, 0, false, true},
        {"XLAT", 1, {0xD7}, 0, false, true},
        {"SIDT [EBX]", 3, {0x0F, 0x01, 0x0B}, 2, false, false},
        {"FLDCW [EBX]", 2, {0xD9, 0x2B}, 0, false, true},
        {"FNSTCW [EBX]", 2, {0xD9, 0x3B}, 0, false, false},
    };
    begin("SDM vol. 3B 18.3.1.2: every access to memory counts, of the stack and of string instructions too");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 any = 0; any < 2; any++) {
            fresh(FLAT, 3);
            load_bytes(table[i].code, table[i].length);
            context.r[RBX] = context.r[RSI] = context.r[RDI] = USER_DATA + 0x100;
            bool call = table[i].code[0] == 0xFF;
            context.r[RAX] = call ? USER_CODE + 0x100 : 0;
            *bytes(USER_CODE + 0x100) = 0xCC;
            *dwords(USER_DATA + 0x100) = 0;
            u32 base = low(table[i].stack ? context.r[RSP] : context.r[RBX]);
            set_breakpoint(3, base + table[i].at, any ? ON_ACCESS : ON_WRITE, 1);
            run();
            title("%s, R/W %u", table[i].name, any);
            if (table[i].read_only && !any)
                expect_completes();
            else
                expect_debug(B3, call ? 0x100 : table[i].length);
        }
    end();

    fresh(FLAT, 3);
    load(A32("mov [ebx], al; nop"));
    context.r[RBX] = USER_DATA + 0x10;
    context.rflags |= FLAGS_TF;
    set_breakpoint(0, USER_DATA + 0x10, ON_WRITE, 1);
    run();
    check_debug(B0 | BS, 2, "SDM vol. 3B 18.2.3: a data breakpoint and a single step are one #DB");

    fresh(FLAT, 0);
    load(A32("mov eax, 0xFFFF2FF0; mov dr6, eax; mov [ebx], al; nop"));
    context.r[RBX] = KERNEL_DATA + 0x10;
    set_breakpoint(0, KERNEL_DATA + 0x10, ON_WRITE, 1);
    run();
    check_debug(B0 | BD, 10, "SDM vol. 3B 18.2.3: the processor leaves BD, BS and BT of DR6 set");

    fresh(FLAT, 3);
    load(A32("rep movsb; nop"));
    context.r[RSI] = USER_DATA;
    context.r[RDI] = USER_DATA + 0x100;
    context.r[RCX] = 0x40;
    set_breakpoint(1, USER_DATA + 0x120, ON_WRITE, 1);
    run();
    // With fast strings the exception may come with the end of a group of iterations.
    check(result.vector == DB && (record.dr6 & CONDITIONS) == B1 && record.r[RCX] <= 0x1F &&
              record.r[RDI] == USER_DATA + 0x140 - record.r[RCX] &&
              result.rip == USER_CODE + (record.r[RCX] ? 0 : 2),
          "SDM vol. 3B 18.3.1.2: a repeated MOVS stops behind an iteration that the breakpoint has seen");

    for (enum world world = PAGED; world <= COMPAT; world++) {
        if (!has_world(world) || world == LONG5)
            continue;
        about(world_names[world]);
        struct victim victim = map_victim(world, 1);
        if (world == COMPAT && victim.linear >> 32)
            continue;                           // out of its reach
        begin("SDM vol. 3B 18.2.1: breakpoints are linear addresses");
        for (u32 linear = 0; linear < 2; linear++) {
            fresh(world, 0);
            context.r[RBX] = victim.linear + 8;
            load(access_program(world, 1, true));
            set_breakpoint(0, linear ? victim.linear + 8 : victim.frame + 8, ON_WRITE, 1);
            run();
            title("%s address", linear ? "linear" : "physical");
            if (linear)
                expect_debug(B0, program_size);
            else
                expect_completes();
        }
        end();
        fresh(world, 0);
        load(is_wide(world) ? A64("mov [rbx], al; nop") : A32("mov [ebx], al; nop"));
        context.r[RBX] = victim.linear;
        set_entry(&victim, 1, get_entry(&victim, 1) & ~(u64)PTE_P);
        set_breakpoint(0, victim.linear, ON_ACCESS, 1);
        run();
        set_entry(&victim, 1, get_entry(&victim, 1) | PTE_P);
        check(result.vector == PF && result.rip == context.rip && !(record.dr6 & BS),
              "SDM vol. 3A table 6-2: a page fault ends the instruction before its data breakpoint's trap");
    }
    about(0);
}

//
// I/O breakpoints
//

static void io_breakpoints(enum world world) {
    if (!HAS_DE) {
        skip("SDM vol. 3B 18.2.4: I/O breakpoints", "CPUID lacks DE");
        return;
    }
    begin("SDM vol. 3B 18.2.4, 18.3.1.2: with CR4.DE, R/W 10 is a trap behind IN and OUT of its ports");
    for (u32 length = 1; length <= 4; length *= 2)
        for (u32 port = 0x82; port < 0x8A; port++)
            for (u32 kind = 0; kind < 4; kind++) {
                // 84h to 87h are latches beside the DMA controller's pages.
                begin_in(world, 0);
                tss[TSS32_SIZE + 0x10] = tss[TSS32_SIZE + 0x11] = 0;    // allowed in V86 mode
                context.cr4 |= CR4_DE;
                context.r[RDX] = port;
                bool wide = kind & 2;
                set_breakpoint(2, 0x84, ON_IO, length);
                run_program(kind & 1 ? wide ? BY_WORLD(world, "out dx, ax") : BY_WORLD(world, "out dx, al")
                            : wide   ? BY_WORLD(world, "in ax, dx")
                                     : BY_WORLD(world, "in al, dx"));
                title("LEN of %u at 84h, port %x, %s, %u bytes", length, port, kind & 1 ? "OUT" : "IN",
                      wide ? 2 : 1);
                if (port < 0x84 + length && 0x84 < port + (wide ? 2 : 1))
                    expect_debug(B2, program_size);
                else
                    expect_completes();
            }
    end();
    if (is_small(world))
        return;
    for (u32 output = 0; output < 2; output++) {
        begin_in(world, 0);
        context.cr4 |= CR4_DE;
        context.r[RDX] = 0x84;
        context.r[RCX] = 5;
        context.r[RSI] = context.r[RDI] = KERNEL_DATA;
        set_breakpoint(0, 0x84, ON_IO, 1);
        run_program(output ? BY_WORLD(world, "rep outsb") : BY_WORLD(world, "rep insb"));
        check(result.vector == DB && (record.dr6 & CONDITIONS) == B0 && record.r[RCX] == 4 &&
                  result.rip == context.rip,
              output ? "SDM vol. 3B 18.3.1.2: repeated OUTS stops behind the first iteration"
                     : "SDM vol. 3B 18.3.1.2: repeated INS stops behind the first iteration");
    }
    begin_in(world, 0);
    context.cr4 |= CR4_DE;
    context.r[RBX] = KERNEL_DATA;
    set_breakpoint(0, KERNEL_DATA, ON_IO, 1);
    run_program(access_program(world, 1, true));
    check_completes("SDM vol. 3B 18.2.4: a breakpoint for ports lets memory be");
}

//
// Single step, INT1, RF
//

static void single_step(enum world world) {
    static const struct {
        const char *name;
        u8 length, code[4];
    } table[] = {
        {"NOP", 1, {0x90}}, {"MOV CL, 1", 2, {0xB1, 1}}, {"JMP $+3", 2, {0xEB, 1}}, {"CLC", 1, {0xF8}},
        {"MOV DS, AX", 2, {0x8E, 0xD8}}, {"CPUID", 2, {0x0F, 0xA2}},
    };
    begin("SDM vol. 3B 18.3.1.4: with TF a #DB trap, BS set, follows each instruction; TF is cleared in "
          "the handler");
    for (u32 i = 0; i < COUNT(table); i++) {
        begin_in(world, 3);
        context.r[RAX] = context.ds;
        if (table[i].code[0] == 0x0F) {
            if (!cpu.cpuid)
                continue;
            context.r[RAX] = 0;
        }
        context.rflags |= FLAGS_TF;
        load_bytes(table[i].code, table[i].length);
        run();
        title("%s", table[i].name);
        if (!expect_debug(BS, table[i].length + (table[i].code[0] == 0xEB)))
            continue;
        expect_value("TF pushed", result.rflags & FLAGS_TF, FLAGS_TF);
        expect_value("RF pushed", result.rflags & FLAGS_RF, 0);
        expect_value("TF in the handler", record.handler_flags & FLAGS_TF, 0);
    }
    end();

    begin_in(world, 3);
    load(is_small(world) ? A16("push 0x3102; popf; nop; nop") : BY_WORLD(world, "push 0x102; popf; nop; nop"));
    run();
    u32 before = is_small(world) ? 4 : is_wide(world) ? 6 : 6;
    check(result.vector == DB && (record.dr6 & CONDITIONS) == BS && result.rip == context.rip + before + 1,
          "SDM vol. 2 POPF, vol. 3B 18.3.1.4: POPF that sets TF: the trap follows the next instruction");

    begin_in(world, 3);
    extern u8 handlers32[], handlers64[], handlers16[];
    (void)handlers16;
    if (world != REAL) {
        if (context.kind == KIND_LONG)
            gate64(&idt[2 * 0x80], SEL_CODE64, (u32)handlers64 + 5 * 0x80, INT_GATE32 | PRESENT | DPL(3), 0);
        else
            idt[0x80] = gate(SEL_CODE32, (u32)handlers32 + 5 * 0x80, INT_GATE32 | PRESENT | DPL(3), 0);
    }
    context.rflags |= FLAGS_TF;
    run_program(BY_WORLD(world, "int 0x80; nop"));
    check(result.vector == 0x80 && result.rip == context.rip + 2 && !(record.dr6 & BS) &&
              !(record.handler_flags & FLAGS_TF) && result.rflags & FLAGS_TF,
          "SDM vol. 3B 18.3.1.4, vol. 2 INT n: INT n clears TF before the handler; no trap follows it");

    begin_in(world, 3);
    context.rflags |= FLAGS_TF;
    context.r[RBX] = 0;
    run_program(BY_WORLD(world, "ud2"));
    check(result.vector == UD && !(record.dr6 & BS),
          "SDM vol. 3B 18.3.1.4, vol. 3A 6.9: a fault ends the instruction before its single-step trap");

    begin_in(world, 3);
    load_bytes((const u8[]){0xF1}, 1);
    run();
    check_debug(0, 1, "SDM vol. 2 INT1: #DB behind the instruction, whatever the gate's DPL; DR6 is unchanged");
}

static void resume_flag(enum world world) {
    static const struct {
        const char *name;
        u32 vector, rf;
        u8 length, code[6];
    } table[] = {
        {"UD2", UD, 1, 2, {0x0F, 0x0B}},
        {"DIV CL", DE, 1, 2, {0xF6, 0xF1}},
        {"HLT", GP, 1, 1, {0xF4}},
        {"MOV [EBX], AL", PF, 1, 2, {0x88, 0x03}},
        {"INT3", BP, 0, 1, {0xCC}},
        {"INT 80h", 0x80, 0, 2, {0xCD, 0x80}},
        {"INTO", OF, 0, 1, {0xCE}},
        {"BOUND EAX, [EDX]", BR, 1, 2, {0x62, 0x02}},
    };
    extern u8 handlers32[], handlers64[];
    begin("SDM vol. 3B 18.3.1.1, vol. 3A 2.3: faults push RF as 1, INT n, INT3 and INTO as 0");
    for (u32 i = 0; i < COUNT(table); i++) {
        if (is_wide(world) && (table[i].vector == OF || table[i].vector == BR))
            continue;
        if (!(world == PAGED || world == PAGED_PAE || is_wide(world) || world == COMPAT) &&
            table[i].vector == PF)
            continue;
        fresh(world, 3);
        context.r[RBX] = KERNEL_DATA;
        context.r[RDX] = USER_DATA;
        dwords(USER_DATA)[0] = 1;               // EAX, zero, is below
        dwords(USER_DATA)[1] = 2;
        if (context.kind == KIND_LONG) {
            gate64(&idt[2 * 0x80], SEL_CODE64, (u32)handlers64 + 5 * 0x80, INT_GATE32 | PRESENT | DPL(3), 0);
            idt[2 * OF] |= 3ull << 45;
        } else {
            idt[0x80] = gate(SEL_CODE32, (u32)handlers32 + 5 * 0x80, INT_GATE32 | PRESENT | DPL(3), 0);
            idt[OF] |= 3ull << 45;
        }
        if (table[i].vector == OF)
            context.rflags |= FLAGS_OF;
        load_bytes(table[i].code, table[i].length);
        run();
        title("%s", table[i].name);
        if (expect(result.vector == table[i].vector))
            expect_value("RF", (result.rflags & FLAGS_RF) != 0, table[i].rf);
    }
    end();
    fresh(world, 3);
    context.rflags |= FLAGS_RF;
    run_program(is_wide(world) ? A64("pushfq; pop rax") : A32("pushfd; pop eax"));
    check(completed() && !(record.r[RAX] & FLAGS_RF), "SDM vol. 2 PUSHF: RF is clear in the image");
    fresh(world, 0);
    set_breakpoint(0, 0, ON_EXECUTE, 1);
    run_program(is_wide(world) ? A64("push 0x10002; popfq; nop; nop") : A32("push 0x10002; popfd; nop; nop"));
    check(completed() && !(result.rflags & FLAGS_RF), "SDM vol. 2 POPF: RF is not set");
}

//
// Task switches
//

#define NEW_TSS (KERNEL_DATA + 0x800)
#define NEW_CODE (KERNEL_CODE + 0x800)

static void task_switch(void) {
    enum { CR3 = 7, EIP = 8, EFLAGS = 9, ESP = 14, ES_ = 18, CS_ = 19, SS_ = 20, DS_ = 21, FS_ = 22,
           GS_ = 23, TRAP = 25 };
    volatile u32 *task = dwords(NEW_TSS);
    for (u32 trap = 0; trap < 2; trap++) {
        fresh(FLAT, 0);
        for (u32 i = 0; i < 26; i++)
            task[i] = 0;
        task[EIP] = NEW_CODE;
        task[EFLAGS] = 2;
        task[ESP] = KERNEL_STACK_TOP - 0x800;
        task[CS_] = SEL_CODE32;
        task[SS_] = task[DS_] = task[ES_] = task[FS_] = task[GS_] = SEL_DATA;
        task[TRAP] = 0x68 << 16 | trap;
        *bytes(NEW_CODE) = 0x90;
        *bytes(NEW_CODE + 1) = 0xCC;
        set_gdt(SEL_TEST, descriptor(NEW_TSS, 0x67, TSS32 | PRESENT));
        context.dr7 |= 0xFF | 0x300;            // L0 to L3, G0 to G3, LE, GE
        for (u32 i = 0; i < 4; i++)
            context.dr[i] = 0xFFF00000 + i;
        run_program(A32("jmp 0x80:0"));
        if (trap)
            check(result.vector == DB && (record.dr6 & CONDITIONS) == BT && result.rip == NEW_CODE,
                  "SDM vol. 3B 18.3.1.5: a switch to a task whose T bit is set is #DB with BT, before its "
                  "first instruction");
        else
            check(result.vector == BP && result.rip == NEW_CODE + 2 && (record.dr7 & 0xFF) == 0xAA,
                  "SDM vol. 3B 18.2.4: a task switch clears L0 to L3 of DR7 and leaves G0 to G3");
    }
}

static void in_world(enum world world) {
    if (!has_world(world))
        return;
    about(world_names[world]);
    if (world != V86)
        general_detect(world);
    instruction_breakpoints(world);
    stack_switches(world);
    data_breakpoints(world);
    io_breakpoints(world);
    single_step(world);
    if (!is_small(world))
        resume_flag(world);
}

void chapter(void) {
    registers();
    about(0);
    implicit_accesses();
    task_switch();
    for (enum world world = FLAT; world < V86; world++)
        in_world(world);
    in_world(REAL);
    in_world(V86);
}
