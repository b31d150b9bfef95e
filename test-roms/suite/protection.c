//! Protection: transfers between segments and rings, gates, privileged instructions, queries
//! (SDM vol. 3A chapter 5; the operation sections of vol. 2).

#include "access.h"

const char chapter_name[] = "protection";

/// Programs of all rings are in one place here; with paging off or with ring 3 at user pages.
static u32 code_place(u32 cpl) { return cpl == 3 ? USER_CODE : KERNEL_CODE; }
static u32 stack_place(u32 cpl) { return cpl == 3 ? USER_STACK_TOP : KERNEL_STACK_TOP; }

static bool is_wide(enum world world) { return world == LONG || world == LONG5; }

/// INT3 at an address.
static void stop_at(u32 address) { *bytes(address) = 0xCC; }

/// The processor went on at `address` in this segment.
static void expect_arrival(u32 selector, u32 address) {
    if (expect(result.vector == BP)) {
        expect_value("CS", result.cs, selector);
        expect_value("RIP", result.rip, address + 1);
    }
}

//
// JMP, CALL, RET and IRET to code segments (SDM vol. 2; vol. 3A 5.8.1)
//

/// JMP or CALL to what is not a gate or a TSS.
static struct fault direct(u32 byte, u32 selector, u32 cpl) {
    struct access a = access_of(byte);
    u32 rpl = selector & 3, error = selector & ~3;
    if (!a.code)
        return fault(GP, error);
    if (a.conforming ? a.dpl > cpl : rpl > cpl || a.dpl != cpl)
        return fault(GP, error);
    return a.present ? NO_FAULT : fault(NP, error);
}

static bool is_gate_or_tss(struct access a, enum world world) {
    static const u16 narrow = 1 << TSS16 | 1 << TSS16_BUSY | 1 << CALL_GATE16 | 1 << TASK_GATE |
                              1 << TSS32 | 1 << TSS32_BUSY | 1 << CALL_GATE32;
    u16 types = world == FLAT ? narrow : 1 << CALL_GATE32;
    return a.system && types >> a.type & 1;
}

static void far_pointer(u32 at, u32 offset, u16 selector) {
    *dwords(at) = offset;
    *(volatile u16 *)(at + 4) = selector;
}

static void direct_transfers(enum world world) {
    for (u32 call = 0; call < 2; call++) {
        begin(call ? "SDM vol. 3A 5.8.1, vol. 2 CALL: far call to a segment checks type, DPL, RPL, P"
                   : "SDM vol. 3A 5.8.1, vol. 2 JMP: far jump to a segment checks type, DPL, RPL, P");
        for (u32 cpl = 0; cpl < 4; cpl++) {
            fresh(world, cpl);
            u32 target = code_place(cpl) + 0x100;
            u32 pointer = cpl == 3 ? USER_DATA : KERNEL_DATA;
            context.r[RBX] = pointer;
            load(is_wide(world) ? (call ? A64("call fword ptr [rbx]") : A64("jmp fword ptr [rbx]"))
                                : (call ? A32("call fword ptr [ebx]") : A32("jmp fword ptr [ebx]")));
            stop_at(target);
            for (u32 byte = 0; byte < 256; byte++)
                for (u32 rpl = 0; rpl < 4; rpl++) {
                    u32 selector = SEL_TEST | rpl;
                    if (is_gate_or_tss(access_of(byte), world))
                        continue;
                    set_gdt(SEL_TEST, flat_segment(byte));
                    set_gdt(SEL_TEST + 8, 0);
                    far_pointer(pointer, target, selector);
                    run();
                    struct fault expected = direct(byte, selector, cpl);
                    title("CPL %u, RPL %u, access byte %x", cpl, rpl, byte);
                    if (expected.vector == BP)
                        expect_arrival(SEL_TEST | cpl, target);
                    else
                        expect_fault(expected.vector, expected.error);
                }
        }
        end();
    }

    begin("SDM vol. 2 JMP, CALL: a null selector is #GP(0), one past the table #GP(selector)");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 i = 0; i < 6; i++) {
            static const u16 selectors[] = {0, 3, 0x200, 0xFFF8, 0x84, 0xFFFF};
            fresh(world, cpl);
            context.r[RBX] = cpl == 3 ? USER_DATA : KERNEL_DATA;
            far_pointer(context.r[RBX], 0, selectors[i]);
            run_program(is_wide(world) ? A64("jmp fword ptr [rbx]") : A32("jmp fword ptr [ebx]"));
            title("selector %x", selectors[i]);
            expect_fault(GP, i < 2 ? 0 : selectors[i] & ~3);
        }
    end();

    fresh(world, 0);
    context.r[RBX] = KERNEL_DATA;
    far_pointer(KERNEL_DATA, KERNEL_CODE + 0x100, SEL_CODE32);
    stop_at(KERNEL_CODE + 0x100);
    run_program(is_wide(world) ? A64("call fword ptr [rbx]") : A32("call fword ptr [ebx]"));
    check(result.vector == BP && low(result.rsp) == KERNEL_STACK_TOP - 8 &&
              *dwords(KERNEL_STACK_TOP - 4) == context.cs &&
              *dwords(KERNEL_STACK_TOP - 8) == low(context.rip) + 2,
          "SDM vol. 2 CALL: a 32-bit far call pushes CS and EIP");

    if (is_wide(world)) {
        begin("SDM vol. 2 JMP, CALL: with long mode active, L and D both set are #GP(selector)");
        for (u32 call = 0; call < 2; call++) {
            fresh(world, 0);
            set_gdt(SEL_TEST, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | G | L | B));
            context.r[RBX] = KERNEL_DATA;
            far_pointer(KERNEL_DATA, KERNEL_CODE + 0x100, SEL_TEST);
            stop_at(KERNEL_CODE + 0x100);
            run_program(call ? A64("call fword ptr [rbx]") : A64("jmp fword ptr [rbx]"));
            expect_fault(GP, SEL_TEST);
        }
        end();
    } else {
        begin("SDM vol. 2 JMP, CALL: an offset past the limit of the new segment is #GP(0)");
        for (u32 call = 0; call < 2; call++)
            for (u32 limit = 0xFE; limit < 0x102; limit++) {
                fresh(world, 0);
                set_gdt(SEL_TEST, descriptor(KERNEL_CODE, limit, CODE_SEGMENT | PRESENT | B));
                context.r[RBX] = KERNEL_DATA;
                far_pointer(KERNEL_DATA, 0x100, SEL_TEST);
                stop_at(KERNEL_CODE + 0x100);
                run_program(call ? A32("call fword ptr [ebx]") : A32("jmp fword ptr [ebx]"));
                title("limit %x, call %u", limit, call);
                if (limit >= 0x100)
                    expect_arrival(SEL_TEST, 0x100);
                else if (expect_fault(GP, 0))
                    expect_value("CS", result.cs, SEL_CODE32);
            }
        end();
    }
}

/// RET and IRET: the code segment's checks.
static struct fault back(u32 byte, u32 selector, u32 cpl) {
    struct access a = access_of(byte);
    u32 rpl = selector & 3, error = selector & ~3;
    if (!a.code || rpl < cpl || (a.conforming ? a.dpl > rpl : a.dpl != rpl))
        return fault(GP, error);
    return a.present ? NO_FAULT : fault(NP, error);
}

/// RET and IRET to another ring: the stack segment's checks. `rpl` is that of CS.
static struct fault back_stack(u32 byte, u32 selector, u32 rpl) {
    struct access a = access_of(byte);
    u32 error = selector & ~3;
    if ((selector & 3) != rpl || !a.writable || a.dpl != rpl)
        return fault(GP, error);
    return a.present ? NO_FAULT : fault(SS, error);
}

/// Puts a frame for RETF or IRET on the context's stack, in slots of 4 or 8 bytes.
static void frame(bool wide, bool interrupt, u32 rip, u32 cs, u32 sp, u32 ss) {
    u32 values[] = {rip, cs, 2, sp, ss}, slot = wide ? 8 : 4;
    u32 at = low(context.r[RSP]);
    for (u32 i = 0; i < 5; i++) {
        if (i == 2 && !interrupt)
            continue;
        *dwords(at) = values[i];
        if (wide)
            *dwords(at + 4) = 0;
        at += slot;
    }
}

static struct program returning(enum world world, bool interrupt) {
    if (is_wide(world))
        return interrupt ? A64("iretq") : A64("retfq");
    return interrupt ? A32("iretd") : A32("retf");
}

static void returns(enum world world) {
    for (u32 interrupt = 0; interrupt < 2; interrupt++) {
        begin(interrupt ? "SDM vol. 2 IRET: checks type, DPL, RPL, P of the code segment"
                        : "SDM vol. 2 RET, vol. 3A 5.8.6: checks type, DPL, RPL, P of the code segment");
        for (u32 cpl = 0; cpl < 4; cpl++) {
            fresh(world, cpl);
            load(returning(world, interrupt));
            context.r[RSP] -= 0x80;
            for (u32 byte = 0; byte < 256; byte++)
                for (u32 rpl = 0; rpl < 4; rpl++) {
                    u32 selector = SEL_TEST | rpl;
                    u32 target = code_place(rpl) + 0x100;
                    stop_at(target);
                    set_gdt(SEL_TEST, flat_segment(byte));
                    // A stack that suits the ring that is returned to.
                    set_gdt(SEL_TEST + 8, flat_segment(DATA | WRITABLE | PRESENT | DPL(rpl)));
                    frame(is_wide(world), interrupt, target, selector, stack_place(rpl),
                          (SEL_TEST + 8) | rpl);
                    run();
                    struct fault expected = back(byte, selector, cpl);
                    title("CPL %u, RPL %u, access byte %x", cpl, rpl, byte);
                    if (expected.vector != BP)
                        expect_fault(expected.vector, expected.error);
                    else
                        expect_arrival(selector, target);
                }
        }
        end();

        begin(interrupt ? "SDM vol. 2 IRET: to an outer ring, checks RPL, type, DPL, P of SS"
                        : "SDM vol. 2 RET, vol. 3A 5.8.6: to an outer ring, checks SS");
        for (u32 cpl = 0; cpl < 3; cpl++)
            for (u32 rpl = cpl + 1; rpl < 4; rpl++) {
                fresh(world, cpl);
                load(returning(world, interrupt));
                context.r[RSP] -= 0x80;
                set_gdt(SEL_TEST, flat_segment(CODE_SEGMENT | PRESENT | DPL(rpl)));
                u32 target = code_place(rpl) + 0x100;
                stop_at(target);
                for (u32 byte = 0; byte < 256; byte++)
                    for (u32 ss_rpl = 0; ss_rpl < 4; ss_rpl++) {
                        u32 ss = (SEL_TEST + 8) | ss_rpl;
                        set_gdt(SEL_TEST + 8, flat_segment(byte));
                        frame(is_wide(world), interrupt, target, SEL_TEST | rpl,
                              stack_place(rpl), ss);
                        run();
                        struct fault expected = back_stack(byte, ss, rpl);
                        title("CPL %u to %u, RPL of SS %u, access byte %x", cpl, rpl, ss_rpl, byte);
                        if (expected.vector != BP)
                            expect_fault(expected.vector, expected.error);
                        else
                            expect_arrival(SEL_TEST | rpl, target);
                    }
            }
        end();

        begin("SDM vol. 2 RET, IRET: a null CS is #GP(0); past the table #GP(selector)");
        for (u32 i = 0; i < 4; i++) {
            static const u16 selectors[] = {0, 3, 0x200, 0xFFFC};
            fresh(world, 0);
            context.r[RSP] -= 0x80;
            frame(is_wide(world), interrupt, KERNEL_CODE, selectors[i], 0, 0);
            run_program(returning(world, interrupt));
            title("selector %x", selectors[i]);
            expect_fault(GP, i < 2 ? 0 : selectors[i] & ~3);
        }
        end();

        fresh(world, 0);
        context.r[RSP] -= 0x80;
        frame(is_wide(world), interrupt, USER_CODE, SEL_USER_CODE32, USER_STACK_TOP, 0);
        run_program(returning(world, interrupt));
        check_fault(GP, 0, "SDM vol. 2 RET, IRET: a null SS for an outer ring is #GP(0)");

        // Segment registers that the outer ring may not have are made null.
        fresh(world, 0);
        context.r[RSP] -= 0x80;
        set_gdt(SEL_TEST, flat_segment(CODE_SEGMENT | READABLE | CONFORMING | PRESENT));
        set_gdt(SEL_TEST + 8, flat_segment(CODE_SEGMENT | READABLE | PRESENT | DPL(2)));
        context.ds = SEL_DATA;
        context.es = SEL_USER_DATA;
        context.fs = SEL_TEST;
        context.gs = SEL_TEST + 8;
        stop_at(USER_CODE);
        frame(is_wide(world), interrupt, USER_CODE, SEL_USER_CODE32, USER_STACK_TOP, SEL_USER_DATA);
        run_program(returning(world, interrupt));
        check(result.vector == BP && record.ds == 0 && record.es == SEL_USER_DATA &&
                  record.fs == SEL_TEST && record.gs == 0,
              "SDM vol. 3A 5.8.6, vol. 2 RET, IRET: to an outer ring, data segments of more "
              "privilege become null, conforming code stays");
    }

    fresh(world, 0);
    context.r[RSP] -= 0x80;
    // The parameters lie between CS and the stack pointer, and are dropped on both stacks.
    u32 at = low(context.r[RSP]), slot = is_wide(world) ? 8 : 4;
    frame(is_wide(world), false, USER_CODE, SEL_USER_CODE32, 0, 0);
    for (u32 i = 0; i < 4; i++)
        *dwords(at + 2 * slot + 16 + 4 * i) = 0;
    *dwords(at + 2 * slot + 16) = USER_STACK_TOP - 0x40;
    *dwords(at + 3 * slot + 16) = SEL_USER_DATA;
    stop_at(USER_CODE);
    run_program(is_wide(world) ? CODE(64, ".byte 0x48, 0xCA; .word 16") : CODE(32, ".byte 0xCA; .word 16"));
    check(result.vector == BP && result.cs == SEL_USER_CODE32 &&
              low(result.rsp) == USER_STACK_TOP - 0x40 + 16,
          "SDM vol. 2 RET: RET n to an outer ring drops n bytes on both stacks");
}

//
// Call gates (SDM vol. 3A 5.8.3 to 5.8.5)
//

static void set_call_gate(enum world world, u32 byte, u16 selector, u32 target, u8 parameters) {
    if (world == FLAT)
        set_gdt(SEL_TEST, gate(selector, target, byte, parameters));
    else
        gate64(&gdt[SEL_TEST >> 3], selector, target, byte, 0);
}

/// CALL (or JMP) through a gate: the gate's own checks, then the code segment's.
static struct fault through_gate(bool jump, u32 gate_byte, u32 gate_selector, u32 code_byte,
                                 u32 code_selector, u32 cpl) {
    struct access g = access_of(gate_byte), c = access_of(code_byte);
    if (g.dpl < cpl || (gate_selector & 3) > g.dpl)
        return fault(GP, gate_selector & ~3);
    if (!g.present)
        return fault(NP, gate_selector & ~3);
    if (!c.code || c.dpl > cpl || (jump && !c.conforming && c.dpl != cpl))
        return fault(GP, code_selector & ~3);
    return c.present ? NO_FAULT : fault(NP, code_selector & ~3);
}

static void call_gates(enum world world) {
    bool wide = world != FLAT;
    u32 code = SEL_TEST + 0x10;
    for (u32 jump = 0; jump < 2; jump++) {
        begin(jump ? "SDM vol. 3A 5.8.4: JMP through a call gate: DPL of gate and code, RPL, P, type"
                   : "SDM vol. 3A 5.8.4: CALL through a call gate: DPL of gate and code, RPL, P, type");
        for (u32 cpl = 0; cpl < 4; cpl++) {
            fresh(world, cpl);
            u32 pointer = cpl == 3 ? USER_DATA : KERNEL_DATA;
            context.r[RBX] = pointer;
            load(is_wide(world) ? (jump ? A64("jmp fword ptr [rbx]") : A64("call fword ptr [rbx]"))
                                : (jump ? A32("jmp fword ptr [ebx]") : A32("call fword ptr [ebx]")));
            // Which code: every type in some states; which gate: every DPL and RPL.
            for (u32 g = 0; g < 8; g++)
                for (u32 rpl = 0; rpl < 4; rpl++)
                    for (u32 byte = 0; byte < 256; byte += (g & 4) ? 1 : 29) {
                        u32 gate_byte = CALL_GATE32 | DPL(g & 3) | (g & 4 ? PRESENT : 0);
                        if (byte % 8 == 1 && byte != 0x99)
                            continue;
                        struct access c = access_of(byte);
                        u64 segment = wide ? descriptor(0, 0xFFFFF, byte | L | G)
                                           : flat_segment(byte);
                        set_gdt(code, segment);
                        u32 ring = c.conforming ? cpl : c.dpl;
                        u32 target = code_place(ring) + 0x200;
                        stop_at(target);
                        set_call_gate(world, gate_byte, code, target, 0);
                        // Stacks for all inner rings.
                        set_gdt(SEL_TEST + 0x20, flat_segment(DATA | WRITABLE | PRESENT | DPL(1)));
                        set_gdt(SEL_TEST + 0x28, flat_segment(DATA | WRITABLE | PRESENT | DPL(2)));
                        if (!wide) {
                            ((u32 *)tss)[4] = SEL_TEST + 0x21;
                            ((u32 *)tss)[6] = SEL_TEST + 0x2A;
                        }
                        far_pointer(pointer, 0x12345678, SEL_TEST | rpl);
                        run();
                        struct fault expected =
                            through_gate(jump, gate_byte, SEL_TEST | rpl, byte, code, cpl);
                        title("CPL %u, gate %x, RPL %u, code %x", cpl, gate_byte, rpl, byte);
                        if (expected.vector != BP)
                            expect_fault(expected.vector, expected.error);
                        else
                            expect_arrival(code | ring, target);
                    }
        }
        end();
    }

    fresh(world, 3);
    context.r[RBX] = USER_DATA;
    far_pointer(USER_DATA, 0, SEL_TEST | 3);
    load(is_wide(world) ? A64("call fword ptr [rbx]") : A32("call fword ptr [ebx]"));
    set_call_gate(world, CALL_GATE32 | PRESENT | DPL(3), 0, 0, 0);
    run();
    check_fault(GP, 0, "SDM vol. 2 CALL: a call gate with a null selector is #GP(0)");
    set_call_gate(world, CALL_GATE32 | PRESENT | DPL(3), 0x3F8, 0, 0);
    run();
    check_fault(GP, 0x3F8, "SDM vol. 2 CALL: a call gate to a selector past the GDT is #GP(selector)");

    if (wide) {
        fresh(world, 3);
        context.r[RBX] = USER_DATA;
        far_pointer(USER_DATA, 0, SEL_TEST | 3);
        stop_at(KERNEL_CODE + 0x200);
        set_call_gate(world, CALL_GATE32 | PRESENT | DPL(3), SEL_CODE64, KERNEL_CODE + 0x200, 0);
        run_program(is_wide(world) ? A64("call fword ptr [rbx]") : A32("call fword ptr [ebx]"));
        const u64 *frame = (const u64 *)(RING0_STACK_TOP - 32);
        check(result.vector == BP && result.cs == SEL_CODE64 && result.ss == 0 &&
                  result.rsp == RING0_STACK_TOP - 32 && frame[0] == context.rip + 2 &&
                  frame[1] == context.cs && frame[2] == context.r[RSP] && frame[3] == context.ss,
              "SDM vol. 3A 5.8.5.1: a 64-bit call gate pushes SS, RSP, CS, RIP and makes SS null");

        begin("SDM vol. 2 CALL: a 64-bit call gate to a segment that is not 64-bit is #GP(selector)");
        for (u32 i = 0; i < 3; i++) {
            static const u32 attributes[] = {B, 0, B | L};
            set_gdt(code, descriptor(0, 0xFFFFF, CODE_SEGMENT | PRESENT | G | attributes[i]));
            set_call_gate(world, CALL_GATE32 | PRESENT | DPL(3), code, KERNEL_CODE + 0x200, 0);
            run();
            title("attributes %x", attributes[i]);
            expect_fault(GP, code);
        }
        end();

        begin("SDM vol. 3A 5.8.3.1: a non-zero type in a 64-bit gate's upper half is #GP(selector)");
        for (u32 type = 1; type < 32; type++) {
            set_call_gate(world, CALL_GATE32 | PRESENT | DPL(3), SEL_CODE64, KERNEL_CODE + 0x200, 0);
            gdt[(SEL_TEST >> 3) + 1] |= (u64)type << 40;
            run();
            title("type %x", type);
            expect_fault(GP, SEL_TEST);
        }
        end();

        fresh(world, 3);
        context.r[RBX] = USER_DATA;
        far_pointer(USER_DATA, 0, SEL_TEST | 3);
        gate64(&gdt[SEL_TEST >> 3], SEL_CODE64, 1ull << 47, CALL_GATE32 | PRESENT | DPL(3), 0);
        run_program(is_wide(world) ? A64("call fword ptr [rbx]") : A32("call fword ptr [ebx]"));
        check_fault(GP, 0, "SDM vol. 2 CALL: a non-canonical offset in a 64-bit call gate is #GP(0)");

        begin("SDM vol. 2 CALL: 16-bit call gates, task gates and TSSs are #GP(selector) in long mode");
        static const u32 gone[] = {TSS16, TSS16_BUSY, CALL_GATE16, TASK_GATE, TSS32, TSS32_BUSY};
        for (u32 i = 0; i < COUNT(gone); i++) {
            gate64(&gdt[SEL_TEST >> 3], SEL_CODE64, KERNEL_CODE + 0x200, gone[i] | PRESENT | DPL(3), 0);
            run();
            title("type %x", gone[i]);
            expect_fault(GP, SEL_TEST);
        }
        end();
        return;
    }

    begin("SDM vol. 3A 5.8.5: a call gate copies 0 to 31 parameters of its size to the new stack");
    for (u32 narrow = 0; narrow < 2; narrow++)
        for (u32 count = 0; count < 32; count++) {
            fresh(world, 3);
            context.r[RBX] = USER_DATA;
            far_pointer(USER_DATA, 0, SEL_TEST | 3);
            stop_at(KERNEL_CODE + 0x200);
            u32 target = narrow ? 0x200 : KERNEL_CODE + 0x200;
            set_gdt(code, descriptor(narrow ? KERNEL_CODE : 0, 0xFFFFF, CODE_SEGMENT | PRESENT | B |
                                                                            G));
            set_gdt(SEL_TEST, gate(code, target, (narrow ? CALL_GATE16 : CALL_GATE32) | PRESENT |
                                                     DPL(3), count));
            context.r[RSP] -= 0x100;
            for (u32 i = 0; i < 64; i++)
                dwords(low(context.r[RSP]))[i] = 0xA5000000 + 0x10001 * i;
            run_program(A32("call fword ptr [ebx]"));
            title("%u parameters, 16 bits %u", count, narrow);
            if (!expect(result.vector == BP && result.cs == code))
                continue;
            u32 size = narrow ? 2 : 4;
            u32 sp = RING0_STACK_TOP - size * (4 + count);
            expect_value("ESP", low(result.rsp), sp);
            u32 mask = narrow ? 0xFFFF : 0xFFFFFFFF;
            expect_value("return offset", *dwords(sp) & mask, (low(context.rip) + 2) & mask);
            expect_value("return CS", *dwords(sp + size) & 0xFFFF, context.cs);
            expect_value("outer SP", *dwords(sp + size * (2 + count)) & mask,
                         low(context.r[RSP]) & mask);
            expect_value("outer SS", *dwords(sp + size * (3 + count)) & 0xFFFF, context.ss);
            bool same = true;
            for (u32 i = 0; i < size * count; i++)
                same = same && bytes(sp + 2 * size)[i] == bytes(low(context.r[RSP]))[i];
            expect(same);
        }
    end();

    begin("SDM vol. 2 CALL, vol. 3A 5.8.5: the new stack segment: #TS(selector), #SS(selector) if not "
          "present");
    for (u32 byte = 0; byte < 256; byte++)
        for (u32 rpl = 0; rpl < 4; rpl++) {
            fresh(world, 3);
            context.r[RBX] = USER_DATA;
            far_pointer(USER_DATA, 0, SEL_TEST | 3);
            // To ring 1, so that ring 0's stack is there for the exception.
            set_gdt(code, flat_segment(CODE_SEGMENT | PRESENT | DPL(1)));
            stop_at(KERNEL_CODE + 0x200);
            set_gdt(SEL_TEST, gate(code, KERNEL_CODE + 0x200, CALL_GATE32 | PRESENT | DPL(3), 0));
            u32 stack = (SEL_TEST + 8) | rpl;
            set_gdt(stack, flat_segment(byte));
            ((u32 *)tss)[4] = stack;
            run_program(A32("call fword ptr [ebx]"));
            struct access a = access_of(byte);
            title("RPL %u, access byte %x", rpl, byte);
            if (rpl != 1 || a.dpl != 1 || !a.writable)
                expect_fault(TS, stack & ~3);
            else if (!a.present)
                expect_fault(SS, stack & ~3);
            else if (a.expand_down)
                expect(result.vector == BP);
            else
                expect_arrival(code | 1, KERNEL_CODE + 0x200);
        }
    end();

    fresh(world, 3);
    context.r[RBX] = USER_DATA;
    far_pointer(USER_DATA, 0, SEL_TEST | 3);
    set_gdt(code, flat_segment(CODE_SEGMENT | PRESENT | DPL(1)));
    set_gdt(SEL_TEST, gate(code, KERNEL_CODE + 0x200, CALL_GATE32 | PRESENT | DPL(3), 0));
    stop_at(KERNEL_CODE + 0x200);
    ((u32 *)tss)[4] = 0;
    run_program(A32("call fword ptr [ebx]"));
    check_fault(TS, 0, "SDM vol. 2 CALL: a null stack selector in the TSS is #TS(selector)");
    ((u32 *)tss)[4] = 0x3F9;
    run();
    check_fault(TS, 0x3F8, "SDM vol. 2 CALL: a stack selector past the GDT is #TS(selector)");
    ((u32 *)tss)[4] = SEL_TEST + 9;
    set_gdt(SEL_TEST + 8, descriptor(0, 0xFFF, DATA | WRITABLE | PRESENT | DPL(1) | B));
    run();
    check_fault(SS, SEL_TEST + 8, "SDM vol. 2 CALL: no room on the new stack is #SS(selector)");
    // TSS with a limit that ends inside ring 1's SS.
    set_gdt(SEL_TSS, descriptor((u32)tss, 0x10, TSS32 | PRESENT));
    run();
    check_fault(TS, SEL_TSS, "SDM vol. 2 CALL: a TSS too small for the ring's stack is #TS(TSS)");
}

//
// LAR, LSL, VERR, VERW, ARPL
//

static bool visible(struct access a, u32 rpl, u32 cpl) {
    return a.conforming || (a.dpl >= cpl && a.dpl >= rpl);
}

static bool has_type(struct access a, u32 types) { return !a.system || types >> a.type & 1; }

static void queries(enum world world) {
    bool long_active = world != FLAT && world != PAGED && world != PAGED_PAE;
    u32 lar_types = long_active ? 0x1A04 : 0x1A3E, lsl_types = long_active ? 0xA04 : 0xA0E;
    begin("SDM vol. 2 LAR, LSL, VERR, VERW; vol. 3A 5.10: types, DPL, RPL, conforming; access rights, "
          "limit");
    for (u32 cpl = 0; cpl < 4; cpl++) {
        fresh(world, cpl);
        load(is_wide(world)
                 ? A64("mov ebx, 0x55; mov ecx, 0x55; lar ebx, eax; setz dl; lsl ecx, eax; setz dh; "
                       "verr ax; setz sil; verw ax; setz dil; movzx r8d, sil; movzx r9d, dil; "
                       "mov esi, r8d; mov edi, r9d")
                 : A32("mov ebx, 0x55; mov ecx, 0x55; lar ebx, eax; setz dl; lsl ecx, eax; setz dh; "
                       "mov ebp, eax; verr bp; setz al; movzx esi, al; verw bp; setz al; "
                       "movzx edi, al"));
        for (u32 byte = 0; byte < 256; byte++)
            for (u32 rpl = 0; rpl < 4; rpl++)
                for (u32 granular = 0; granular < 2; granular++) {
                    struct access a = access_of(byte);
                    u64 d = descriptor(0x1234, 0x54321, byte | (granular ? G : 0) | AVL | B);
                    set_gdt(SEL_TEST, d);
                    set_gdt(SEL_TEST + 8, 0);
                    context.r[RAX] = SEL_TEST | rpl;
                    run();
                    bool sees = visible(a, rpl, cpl);
                    bool lar = sees && has_type(a, lar_types), lsl = sees && has_type(a, lsl_types);
                    title("CPL %u, RPL %u, access byte %x, G %u", cpl, rpl, byte, granular);
                    if (!expect_completes())
                        continue;
                    expect_value("LAR's ZF", record.r[RDX] & 1, lar);
                    expect_value("LSL's ZF", record.r[RDX] >> 8 & 1, lsl);
                    expect_value("VERR's ZF", low(record.r[RSI]), sees && a.readable);
                    expect_value("VERW's ZF", low(record.r[RDI]), sees && a.writable);
                    // Bits 16 to 19 are undefined.
                    if (lar)
                        expect_value("LAR", record.r[RBX] & ~0xF0000ull, d >> 32 & 0xF0FF00);
                    else
                        expect_value("LAR", record.r[RBX], 0x55);
                    expect_value("LSL", record.r[RCX],
                                 !lsl ? 0x55 : granular ? 0x54321FFF : 0x54321);
                }
    }
    end();

    begin("SDM vol. 2 LAR, LSL, VERR, VERW: null selectors and those past the table clear ZF");
    for (u32 i = 0; i < 4; i++) {
        static const u16 selectors[] = {0, 3, 0x200, 0xFFFC};
        fresh(world, 0);
        context.r[RAX] = selectors[i];
        run_program(is_wide(world) ? A64("lar ebx, eax; setz cl; lsl ebx, eax; setz ch; verr ax; "
                                         "setz dl; verw ax; setz dh")
                                   : A32("lar ebx, eax; setz cl; lsl ebx, eax; setz ch; verr ax; "
                                         "setz dl; verw ax; setz dh"));
        title("selector %x", selectors[i]);
        if (expect_completes())
            expect_value("ZF", record.r[RCX] | record.r[RDX], 0);
    }
    end();

    if (!is_wide(world)) {
        begin("SDM vol. 2 ARPL: RPL of the destination raised to the source's, ZF when it was lower");
        for (u32 to = 0; to < 4; to++)
            for (u32 from = 0; from < 4; from++) {
                fresh(world, 3);
                context.r[RAX] = 0xFFFF1230 | to;
                context.r[RBX] = 0x4560 | from;
                run_program(A32("arpl ax, bx; setz cl"));
                title("%u to %u", from, to);
                if (expect_completes()) {
                    expect_value("EAX", record.r[RAX], 0xFFFF1230 | (to < from ? from : to));
                    expect_value("ZF", record.r[RCX] & 1, to < from);
                }
            }
        end();
    }
}

//
// LLDT, LTR, SLDT, STR (SDM vol. 2; vol. 3A 2.4, 3.5, 8.2.2)
//

static void table_registers(enum world world) {
    bool wide = is_wide(world);
    for (u32 task = 0; task < 2; task++) {
        begin(task ? "SDM vol. 2 LTR: wants an available TSS (#GP(selector)), present (#NP); sets busy"
                   : "SDM vol. 2 LLDT: wants an LDT (#GP(selector)) that is present (#NP(selector))");
        fresh(world, 0);
        load(task ? (wide ? A64("ltr ax; str ebx") : A32("ltr ax; str ebx"))
                  : (wide ? A64("lldt ax; sldt ebx") : A32("lldt ax; sldt ebx")));
        u32 types = !task ? 1 << LDT : wide ? 1 << TSS32 : 1 << TSS32 | 1 << TSS16;
        for (u32 byte = 0; byte < 256; byte++)
            for (u32 rpl = 0; rpl < 4; rpl++) {
                struct access a = access_of(byte);
                set_gdt(SEL_TEST, descriptor((u32)tss, 0x67, byte));
                set_gdt(SEL_TEST + 8, 0);
                context.r[RAX] = SEL_TEST | rpl;
                run();
                title("access byte %x, RPL %u", byte, rpl);
                if (!(a.system && types >> a.type & 1)) {
                    expect_fault(GP, SEL_TEST);
                } else if (!a.present) {
                    expect_fault(NP, SEL_TEST);
                } else if (expect_completes()) {
                    expect_value("register", record.r[RBX] & 0xFFFF, SEL_TEST | rpl);
                    expect_value("access byte", gdt[SEL_TEST >> 3] >> 40 & 0xFF,
                                 byte | (task ? 2 : 0));
                }
            }
        end();
        fresh(world, 0);
        context.r[RAX] = 0;
        run_program(task ? (wide ? A64("ltr ax") : A32("ltr ax"))
                         : (wide ? A64("lldt ax") : A32("lldt ax")));
        if (task)
            check_fault(GP, 0, "SDM vol. 2 LTR: a null selector is #GP(0)");
        else
            check_completes("SDM vol. 2 LLDT: a null selector is taken");
        context.r[RAX] = SEL_TEST | 4;
        run();
        check_fault(GP, SEL_TEST | 4, task ? "SDM vol. 2 LTR: a selector into the LDT is #GP(selector)"
                                           : "SDM vol. 2 LLDT: a selector into the LDT is #GP(selector)");
        context.r[RAX] = 0x200;
        run();
        check_fault(GP, 0x200, task ? "SDM vol. 2 LTR: past the GDT is #GP(selector)"
                                    : "SDM vol. 2 LLDT: past the GDT is #GP(selector)");
        if (wide) {
            begin("SDM vol. 3A 8.2.3, vol. 2 LTR, LLDT: a type in the upper half is #GP(selector)");
            for (u32 type = 1; type < 32; type++) {
                fresh(world, 0);
                set_gdt(SEL_TEST, descriptor((u32)tss, 0x67, (task ? TSS32 : LDT) | PRESENT));
                set_gdt(SEL_TEST + 8, (u64)type << 40);
                context.r[RAX] = SEL_TEST;
                run_program(task ? A64("ltr ax") : A64("lldt ax"));
                title("type %x", type);
                expect_fault(GP, SEL_TEST);
            }
            end();
            begin("SDM vol. 2 LTR, LLDT: a non-canonical base is #GP(selector)");
            fresh(world, 0);
            set_gdt(SEL_TEST, descriptor((u32)tss, 0x67, (task ? TSS32 : LDT) | PRESENT));
            set_gdt(SEL_TEST + 8, 0x8000);
            context.r[RAX] = SEL_TEST;
            run_program(task ? A64("ltr ax") : A64("lldt ax"));
            // AMD names error code and exception alike, but not every processor checks.
            expect(result.vector == GP || cpu.amd);
            end();
        }
    }
}

//
// Privileged instructions (SDM vol. 3A 5.9)
//

struct instruction {
    const char *name;
    u8 code[4];
    u8 length;
    /// It touches nothing in ring 0 and can be run there.
    bool harmless;
};

static const struct instruction privileged[] = {
    {"LGDT", {0x0F, 0x01, 0x13}, 3, false},  {"LIDT", {0x0F, 0x01, 0x1B}, 3, false},
    {"LLDT", {0x0F, 0x00, 0xD0}, 3, false},  {"LTR", {0x0F, 0x00, 0xD8}, 3, false},
    {"LMSW", {0x0F, 0x01, 0xF0}, 3, false},  {"CLTS", {0x0F, 0x06}, 2, true},
    {"HLT", {0xF4}, 1, false},               {"INVD", {0x0F, 0x08}, 2, false},
    {"WBINVD", {0x0F, 0x09}, 2, true},       {"INVLPG", {0x0F, 0x01, 0x3B}, 3, true},
    {"MOV EAX, CR0", {0x0F, 0x20, 0xC0}, 3, true},
    {"MOV EAX, CR2", {0x0F, 0x20, 0xD0}, 3, true},
    {"MOV EAX, CR3", {0x0F, 0x20, 0xD8}, 3, true},
    {"MOV CR2, EAX", {0x0F, 0x22, 0xD0}, 3, true},
    {"MOV EAX, DR0", {0x0F, 0x21, 0xC0}, 3, true},
    {"MOV EAX, DR7", {0x0F, 0x21, 0xF8}, 3, true},
    {"MOV DR0, EAX", {0x0F, 0x23, 0xC0}, 3, true},
    {"RDMSR", {0x0F, 0x32}, 2, false},       {"WRMSR", {0x0F, 0x30}, 2, false},
    {"MOV CR0, EAX", {0x0F, 0x22, 0xC0}, 3, false},
    {"MOV CR3, EAX", {0x0F, 0x22, 0xD8}, 3, false},
};

static void privileges(enum world world) {
    bool v86 = world == V86;
    begin(v86 ? "SDM vol. 3A 5.9, 21.2.6: privileged instructions are #GP(0) in virtual-8086 mode"
              : "SDM vol. 3A 5.9: privileged instructions are #GP(0) outside ring 0");
    for (u32 i = 0; i < COUNT(privileged); i++)
        for (u32 cpl = v86 ? 3 : 1; cpl < 4; cpl++) {
            const struct instruction *in = &privileged[i];
            if (!HAS_MSR && in->code[0] == 0x0F && (in->code[1] == 0x32 || in->code[1] == 0x30))
                continue;
            // LLDT and LTR are #UD where selectors are not descriptors.
            bool undefined = v86 && in->code[0] == 0x0F && in->code[1] == 0;
            fresh(world, cpl);
            context.r[RBX] = v86 ? 0 : cpl == 3 ? USER_DATA : KERNEL_DATA;
            context.r[RCX] = 0x10;
            load_bytes(in->code, in->length);
            run();
            title("%s in ring %u", in->name, cpl);
            expect_fault(undefined ? UD : GP, 0);
        }
    end();
    if (v86)
        return;
    begin("SDM vol. 3A 5.9: and run in ring 0");
    for (u32 i = 0; i < COUNT(privileged); i++) {
        if (!privileged[i].harmless)
            continue;
        fresh(world, 0);
        context.r[RBX] = KERNEL_DATA;
        load_bytes(privileged[i].code, privileged[i].length);
        run();
        title("%s", privileged[i].name);
        expect_completes();
    }
    end();

    // IOPL: CLI, STI, IN, OUT, POPF.
    begin("SDM vol. 2 CLI, STI: #GP(0) when CPL > IOPL");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 iopl = 0; iopl < 4; iopl++)
            for (u32 i = 0; i < 2; i++) {
                fresh(world, cpl);
                context.rflags |= iopl << 12;
                run_program(i ? A32("cli") : A32("sti; cli"));
                title("CPL %u, IOPL %u, %s", cpl, iopl, i ? "CLI" : "STI");
                if (cpl > iopl)
                    expect_fault(GP, 0);
                else
                    expect_completes();
            }
    end();
    begin("SDM vol. 2 POPF: IF changes if CPL <= IOPL, IOPL if CPL = 0; no fault");
    for (u32 cpl = 0; cpl < 4; cpl++)
        for (u32 iopl = 0; iopl < 4; iopl++) {
            fresh(world, cpl);
            context.rflags |= iopl << 12;
            u32 wanted = 0x202 | (iopl ^ 3) << 12;
            context.r[RAX] = wanted;
            run_program(is_wide(world) ? A64("push rax; popfq; pushfq; pop rbx; mov eax, 2; push rax; "
                                             "popfq")
                                       : A32("push eax; popfd; pushfd; pop ebx; push 2; popfd"));
            u32 expected = 2 | iopl << 12;
            if (cpl <= iopl)
                expected |= FLAGS_IF;
            if (cpl == 0)
                expected = wanted;
            title("CPL %u, IOPL %u", cpl, iopl);
            if (expect_completes())
                expect_value("flags", record.r[RBX], expected);
        }
    end();
}

/// I/O permissions (SDM vol. 1 19.5).
static void io_permissions(enum world world) {
    bool v86 = world == V86;
    begin("SDM vol. 1 19.5: IN and OUT by IOPL, else by the TSS's map: one bit for each byte");
    for (u32 iopl = 0; iopl < 4; iopl++)
        for (u32 size = 1; size <= 4; size *= 2)
            for (u32 denied = 0; denied < 8; denied++) {
                fresh(world, 3);
                context.rflags |= iopl << 12;
                u32 port = 0x82;
                for (u32 i = 0; i < 0x2000; i++)
                    tss[0x68 + i] = 0;
                u32 bit = port + denied - 2;
                tss[0x68 + bit / 8] |= 1 << bit % 8;
                context.r[RDX] = port;
                struct program p =
                    v86             ? (size == 1 ? A16("in al, dx") : size == 2 ? A16("in ax, dx")
                                                                              : A16("in eax, dx"))
                    : size == 1 ? A32("in al, dx") : size == 2 ? A32("in ax, dx")
                                                             : A32("in eax, dx");
                run_program(p);
                bool allowed = (!v86 && iopl == 3) || bit < port || bit >= port + size;
                title("IOPL %u, %u bytes, denied %x", iopl, size, bit);
                if (allowed)
                    expect_completes();
                else
                    expect_fault(GP, 0);
            }
    end();

    // The map ends with the TSS's limit, and two bytes are read.
    begin("SDM vol. 1 19.5.2: ports past the end of the map are denied; both bytes must be there");
    for (u32 limit = 0; limit < 4; limit++) {
        fresh(world, 3);
        for (u32 i = 0; i < 0x2000; i++)
            tss[0x68 + i] = 0;
        // Port 80h is bit 0 of byte 10h of the map.
        set_gdt(SEL_TSS, descriptor((u32)tss, 0x68 + 0x10 + limit - 1, TSS32 | PRESENT));
        context.r[RDX] = 0x80;
        run_program(v86 ? A16("in al, dx") : A32("in al, dx"));
        title("limit %x", 0x68 + 0x10 + limit - 1);
        if (limit >= 2)
            expect_completes();
        else
            expect_fault(GP, 0);
    }
    end();
    fresh(world, 3);
    ((u32 *)tss)[25] = 0xFFFFu << 16;
    context.r[RDX] = 0x80;
    run_program(v86 ? A16("in al, dx") : A32("in al, dx"));
    check_fault(GP, 0, "SDM vol. 1 19.5.2: a map past the TSS's limit denies all ports");
}

/// UMIP (SDM vol. 3A 2.5), and what ring 3 may store without it.
static void stores(enum world world) {
    static const struct {
        const char *name;
        u8 code[3];
    } table[] = {
        {"SGDT", {0x0F, 0x01, 0x03}}, {"SIDT", {0x0F, 0x01, 0x0B}}, {"SLDT", {0x0F, 0x00, 0x03}},
        {"STR", {0x0F, 0x00, 0x0B}}, {"SMSW", {0x0F, 0x01, 0x23}},
    };
    begin("SDM vol. 3A 2.5: SGDT, SIDT, SLDT, STR, SMSW in ring 3 are #GP(0) with CR4.UMIP only");
    for (u32 i = 0; i < COUNT(table); i++)
        for (u32 umip = 0; umip < (HAS_UMIP ? 2 : 1); umip++)
            for (u32 cpl = 0; cpl < 4; cpl++) {
                fresh(world, cpl);
                context.cr4 |= umip ? CR4_UMIP : 0;
                context.r[RBX] = cpl == 3 ? USER_DATA : KERNEL_DATA;
                load_bytes(table[i].code, 3);
                run();
                title("%s, UMIP %u, CPL %u", table[i].name, umip, cpl);
                if (umip && cpl)
                    expect_fault(GP, 0);
                else
                    expect_completes();
            }
    end();
}

static void real_mode(void) {
    static const struct {
        const char *name;
        u8 code[3];
    } table[] = {
        {"SLDT", {0x0F, 0x00, 0xC0}}, {"STR", {0x0F, 0x00, 0xC8}}, {"LLDT", {0x0F, 0x00, 0xD0}},
        {"LTR", {0x0F, 0x00, 0xD8}}, {"VERR", {0x0F, 0x00, 0xE0}}, {"VERW", {0x0F, 0x00, 0xE8}},
        {"LAR", {0x0F, 0x02, 0xC0}}, {"LSL", {0x0F, 0x03, 0xC0}}, {"ARPL", {0x63, 0xC0, 0x90}},
    };
    for (u32 v86 = 0; v86 < 2; v86++) {
        about(world_names[v86 ? V86 : REAL]);
        begin("SDM vol. 3A 21.1.1, vol. 2: SLDT, STR, LLDT, LTR, VERR, VERW, LAR, LSL, ARPL are #UD");
        for (u32 i = 0; i < COUNT(table); i++) {
            fresh(v86 ? V86 : REAL, 3);
            load_bytes(table[i].code, 3);
            run();
            title("%s", table[i].name);
            expect_fault(UD, 0);
        }
        end();
    }
    about(world_names[REAL]);
    fresh(REAL, 0);
    run_program(A16("sgdt [0]; sidt [6]; smsw [12]; mov eax, cr0; clts; lgdt [0]; lidt [6]; "
                    "mov cr0, eax"));
    check(completed() && *(volatile u16 *)LOW_DATA == context.gdtr.limit &&
              *(volatile u16 *)(LOW_DATA + 6) == 0x3FF &&
              *(volatile u16 *)(LOW_DATA + 12) == (CR0_ET & 0xFFFF),
          "SDM vol. 3A 21.1.1: SGDT, SIDT, SMSW, CLTS, LGDT, LIDT, MOV CR0 work in real mode");
}

void chapter(void) {
    static const enum world worlds[] = {FLAT, LONG, COMPAT};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        enum world world = worlds[i];
        about(world_names[world]);
        if (!has_world(world)) {
            skip(world_names[world], "CPUID lacks it");
            continue;
        }
        direct_transfers(world);
        returns(world);
        call_gates(world);
        queries(world);
        if (world != COMPAT)
            table_registers(world);
        privileges(world);
        io_permissions(world);
        stores(world);
    }
    about(world_names[V86]);
    privileges(V86);
    io_permissions(V86);
    real_mode();
}
