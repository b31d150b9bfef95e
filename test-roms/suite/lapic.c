//! The local APIC (Intel SDM vol. 3A chapter 11; x2APIC mode 11.12).

#include "chip.h"

const char chapter_name[] = "lapic";

#define SDM "SDM vol. 3A "

enum {
    ID = 0x20, VERSION = 0x30, TPR = 0x80, APR = 0x90, PPR = 0xA0, EOI_REGISTER = 0xB0, LDR = 0xD0, DFR = 0xE0,
    SVR = 0xF0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR_HIGH = 0x310,
    LVT_TIMER = 0x320, LVT_THERMAL = 0x330, LVT_PMC = 0x340, LVT_LINT0 = 0x350, LVT_LINT1 = 0x360, LVT_ERROR = 0x370,
    INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3E0, SELF_IPI = 0x3F0,
};
enum { SVR_ENABLE = 0x100, MASKED = 1 << 16, PERIODIC = 1 << 17, TSC_DEADLINE = 2 << 17 };
enum { ICR_SELF = 1 << 18, ICR_ALL = 2 << 18, ICR_OTHERS = 3 << 18, LOGICAL = 1 << 11, PENDING = 1 << 12 };
enum { MODE_NMI = 4 << 8, MODE_LOWEST = 1 << 8 };
enum { APIC_BASE = 0x1B, BASE_BSP = 1 << 8, BASE_X2APIC = 1 << 10, BASE_ENABLE = 1 << 11, DEADLINE_MSR = 0x6E0 };
enum { ESR_SEND_VECTOR = 1 << 5, ESR_RECEIVED_VECTOR = 1 << 6, ESR_REGISTER = 1 << 7 };
enum { X2APIC = 1 << 21, CPUID_DEADLINE = 1 << 24 };

static bool x2;

static u32 get(u32 offset) { return x2 ? low(read_msr(0x800 + (offset >> 4))) : *dwords(0xFEE00000 + offset); }
static void put(u32 offset, u32 value) {
    if (x2)
        write_msr(0x800 + (offset >> 4), value);
    else
        *dwords(0xFEE00000 + offset) = value;
}
static bool is_set(u32 array, u8 vector) { return get(array + vector / 32 * 16) >> vector % 32 & 1; }

/// Enabled, nothing masked by priority, nothing in service or requested.
static void start(void) {
    put(SVR, SVR_ENABLE | 0xFF);
    put(LVT_TIMER, MASKED);
    put(LVT_LINT0, MASKED);
    put(LVT_LINT1, MASKED);
    put(LVT_ERROR, MASKED);
    put(INITIAL, 0);
    put(TPR, 0);
    for (u32 i = 0; i < 600; i++) {
        bool any = false;
        for (u32 j = 0; j < 8; j++)
            any |= get(ISR + 16 * j) != 0;
        if (any)
            put(EOI_REGISTER, 0);
        else if (take() == NOTHING)
            break;
    }
    put(ESR, 0);
    put(ESR, 0);
}

static void self(u32 vector) { put(ICR, ICR_SELF | vector); }

static u32 errors(void) {
    put(ESR, 0);
    return get(ESR);
}

//
// Registers
//

static void reset_state(void) {
    // Nothing was written yet, but for SVR and LINT0 perhaps, by firmware: this is the firmware.
    begin(SDM "11.4.7.1: after reset the LVT entries are masked, SVR is FFh, DFR all ones, TPR, LDR, IRR, ISR, counts are 0");
    static const u16 lvts[] = {LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR};
    for (u32 i = 0; i < COUNT(lvts); i++) {
        title("LVT at %x", lvts[i]);
        expect_value("entry", get(lvts[i]), MASKED);
    }
    title("register");
    expect_value("SVR", get(SVR), 0xFF);
    expect_value("DFR", get(DFR), 0xFFFFFFFF);
    expect_value("TPR", get(TPR), 0);
    expect_value("LDR", get(LDR), 0);
    expect_value("initial count", get(INITIAL), 0);
    expect_value("current count", get(CURRENT), 0);
    expect_value("divide configuration", get(DIVIDE), 0);
    for (u32 i = 0; i < 8; i++) {
        expect_value("ISR", get(ISR + 16 * i), 0);
        expect_value("IRR", get(IRR + 16 * i), 0);
        expect_value("TMR", get(TMR + 16 * i), 0);
    }
    end();
    if (HAS_MSR)
        check((read_msr(APIC_BASE) & 0xFFFFFFFFFFull) == (0xFEE00000 | BASE_ENABLE | BASE_BSP),
              SDM "11.4.4: IA32_APIC_BASE: FEE00000h, enabled, the bootstrap processor");
    u32 version = get(VERSION);
    check((version & 0xFF) >= 0x10 && (version & 0xFF) <= 0x15 && (version >> 16 & 0xFF) >= 3,
          SDM "11.4.8: version 10h to 15h, and at least four LVT entries");
    u32 r[4];
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(1));
    check_value(get(ID) >> 24, r[1] >> 24, SDM "11.4.6: the APIC ID is CPUID's initial APIC ID");
    put(SVR, 0xFF);
    put(LVT_LINT0, 0x700);
    bool masked = get(LVT_LINT0) & MASKED;
    put(SVR, SVR_ENABLE | 0xFF);
    put(LVT_LINT0, 0x700);
    bool open = !(get(LVT_LINT0) & MASKED);
    put(SVR, 0xFF);
    check(masked && open && get(LVT_LINT0) & MASKED,
          SDM "11.4.7.2: while SVR disables the APIC, the mask bits are set and cannot be cleared");
}

static void writable_bits(void) {
    start();
    static const struct {
        const char *name;
        u16 offset;
        u32 ones;
    } registers[] = {
        {"TPR", TPR, 0xFF}, {"LVT timer", LVT_TIMER, MASKED | PERIODIC | 0xFF},
        {"LVT LINT0", LVT_LINT0, MASKED | 0xA7FF}, {"LVT LINT1", LVT_LINT1, MASKED | 0xA7FF},
        {"LVT error", LVT_ERROR, MASKED | 0xFF}, {"divide", DIVIDE, 0xB}, {"LDR", LDR, 0xFF000000},
    };
    begin(SDM "11.5.1, 11.6.2.2, 11.8.3.1: the fields of a register can be written, reserved bits are 0");
    for (u32 i = 0; i < COUNT(registers); i++) {
        u32 old = get(registers[i].offset);
        put(registers[i].offset, registers[i].ones);
        title("%s", registers[i].name);
        expect_value("ones", get(registers[i].offset), registers[i].ones);
        put(registers[i].offset, old);
        expect_value("back", get(registers[i].offset), old);
    }
    put(DFR, 0x0FFFFFFF);
    title("DFR");
    expect_value("cluster model", get(DFR), 0x0FFFFFFF);
    put(DFR, 0xFFFFFFFF);
    expect_value("flat model", get(DFR), 0xFFFFFFFF);
    put(LVT_ERROR, MASKED | PENDING | 0x40);
    title("delivery status");
    expect_value("LVT error", get(LVT_ERROR), MASKED | 0x40);
    u32 version = get(VERSION);
    put(VERSION, 0);
    title("version");
    expect_value("version", get(VERSION), version);
    end();
}

//
// Interrupts
//

static void priorities(void) {
    start();
    self(0x51);
    check(is_set(IRR, 0x51) && !is_set(ISR, 0x51), SDM "11.8.4: an accepted interrupt waits in IRR");
    bool came = take() == 0x51;
    check(came && !is_set(IRR, 0x51) && is_set(ISR, 0x51), SDM "11.8.4: it moves to ISR when the processor takes it");
    put(EOI_REGISTER, 0);
    check(!is_set(ISR, 0x51) && take() == NOTHING, SDM "11.8.5: EOI clears the highest bit of ISR");

    self(0x51);
    self(0x51);
    bool once = take() == 0x51;
    self(0x51);
    bool both = is_set(IRR, 0x51) && is_set(ISR, 0x51);
    put(EOI_REGISTER, 0);
    bool again = take() == 0x51;
    put(EOI_REGISTER, 0);
    check(once && both && again && take() == NOTHING,
          SDM "11.8.4: one of a vector may be in service and one more requested");

    static const u8 order[] = {0xEF, 0xE1, 0x93, 0x92, 0x41, 0x31, 0x20};
    for (u32 i = 0; i < COUNT(order); i++)
        self(order[(i * 3) % COUNT(order)]);
    begin(SDM "11.8.3: the highest vector first");
    for (u32 i = 0; i < COUNT(order); i++) {
        expect_value("vector", take(), order[i]);
        put(EOI_REGISTER, 0);
    }
    end();

    start();
    self(0x51);
    take();
    self(0x5F);
    bool same_class = take() == NOTHING;
    self(0x60);
    check(same_class && take() == 0x60, SDM "11.8.3: only a higher priority class interrupts one in service");
    start();

    begin(SDM "11.8.3.1: PPR is TPR, or the class of the highest vector in service if that is higher; an interrupt "
              "comes if its class is above PPR's");
    for (u32 tpr = 0; tpr < 256; tpr += 0x17) {
        start();
        self(0x71);
        take();
        put(TPR, tpr);
        u32 ppr = (tpr >> 4) >= 7 ? tpr : 0x70;
        title("TPR %x, 71h in service", tpr);
        expect_value("PPR", get(PPR), ppr);
        self(0xA5);
        bool comes = 0xA > ppr >> 4;
        expect_value("A5h", take(), comes ? 0xA5 : NOTHING);
        expect_value("PPR then", get(PPR), comes ? 0xA0 : ppr);
        put(TPR, 0);
    }
    end();
    start();
    put(TPR, 0x60);
    self(0x61);
    bool held = take() == NOTHING && is_set(IRR, 0x61);
    put(TPR, 0x50);
    check(held && take() == 0x61, SDM "11.8.3.1: an interrupt that TPR holds back comes when TPR falls");
    start();
    if (HAS_LM) {
        fresh(LONG, 0);
        context.r[RAX] = 9;
        run_program(A64("mov cr8, rax; mov rbx, cr8"));
        bool stored = completed() && record.r[RBX] == 9 && get(TPR) == 0x90;
        put(TPR, 0x35);
        run_program(A64("mov rbx, cr8"));
        check(stored && record.r[RBX] == 3, SDM "11.8.6: CR8 is bits 7 to 4 of TPR");
    }
    start();
    put(TPR, 0);
    for (u32 i = 0; i < 3; i++)
        put(EOI_REGISTER, 0);
    check_value(get(PPR), 0, SDM "11.8.5: an EOI without an interrupt in service does nothing");
}

static void ipis(void) {
    start();
    u32 own = get(ID);
    begin(SDM "11.6.1: an IPI goes to itself by shorthand, by its ID, by broadcast, and not by \"all but self\"");
    static const struct {
        const char *name;
        u32 low, high;
        bool comes;
    } cases[] = {
        {"self", ICR_SELF, 0, true}, {"all including self", ICR_ALL, 0, true}, {"all excluding self", ICR_OTHERS, 0, false},
        {"physical broadcast", 0, 0xFF000000, true}, {"another ID", 0, 0x0E000000, false},
    };
    for (u32 i = 0; i < COUNT(cases); i++) {
        put(ICR_HIGH, cases[i].high);
        put(ICR, cases[i].low | 0x4000 | 0x55);
        title("%s", cases[i].name);
        expect_value("vector", take(), cases[i].comes ? 0x55 : NOTHING);
        expect_value("delivery status", get(ICR) & PENDING, 0);
        put(EOI_REGISTER, 0);
    }
    put(ICR_HIGH, own);
    put(ICR, 0x4000 | 0x56);
    title("physical, own ID");
    expect_value("vector", take(), 0x56);
    put(EOI_REGISTER, 0);
    end();

    begin(SDM "11.6.2.2: logical destinations: flat is one bit of LDR, cluster is the number and one bit");
    static const struct {
        u32 dfr, ldr, mda;
        bool comes;
    } logical[] = {
        {0xFFFFFFFF, 0x04, 0x04, true}, {0xFFFFFFFF, 0x04, 0xF4, true}, {0xFFFFFFFF, 0x04, 0x03, false},
        {0xFFFFFFFF, 0x00, 0x04, false}, {0xFFFFFFFF, 0x80, 0xFF, true}, {0x0FFFFFFF, 0x24, 0x24, true},
        {0x0FFFFFFF, 0x24, 0x2F, true}, {0x0FFFFFFF, 0x24, 0x14, false}, {0x0FFFFFFF, 0x24, 0x2B, false},
        {0x0FFFFFFF, 0x24, 0xFF, true}, {0xFFFFFFFF, 0x04, 0x00, false},
    };
    for (u32 i = 0; i < COUNT(logical); i++) {
        put(DFR, logical[i].dfr);
        put(LDR, logical[i].ldr << 24);
        put(ICR_HIGH, logical[i].mda << 24);
        put(ICR, LOGICAL | 0x4000 | 0x57);
        title("DFR %x, LDR %x, destination %x", logical[i].dfr, logical[i].ldr, logical[i].mda);
        expect_value("vector", take(), logical[i].comes ? 0x57 : NOTHING);
        put(EOI_REGISTER, 0);
        put(ICR, LOGICAL | MODE_LOWEST | 0x4000 | 0x58);
        expect_value("lowest priority", take(), logical[i].comes ? 0x58 : NOTHING);
        put(EOI_REGISTER, 0);
    }
    end();
    put(DFR, 0xFFFFFFFF);
    put(LDR, 0);

    put(ICR_HIGH, own);
    fresh(FLAT, 0);
    context.r[RBX] = 0xFEE00000 + ICR;
    context.r[RAX] = 0x4000 | MODE_NMI;
    run_program(A32("mov [ebx], eax; nop; nop; nop; nop; nop; nop"));
    check(result.vector == NMI, SDM "11.6.1: an IPI of delivery mode NMI is one, whatever IF is");
    fresh(FLAT, 0);
    u32 sent = ICR_SELF | 0x4000 | 0x77;
    put(ICR_HIGH, 0xAB000000);
    put(ICR, sent);
    check((get(ICR) & 0xCCFFF) == sent && get(ICR_HIGH) == 0xAB000000, SDM "11.6.1: ICR can be read back");
    start();
}

static void error_register(void) {
    start();
    self(0x05);
    u32 seen = errors();
    check((seen & ESR_SEND_VECTOR) && !(seen & ESR_REGISTER) && take() == NOTHING,
          SDM "11.5.3: an IPI with a vector below 16 is not sent: \"send illegal vector\" in ESR");
    check_value(errors(), 0, SDM "11.5.3: a write to ESR shows what was noted since the last, and begins anew");
    (void)*dwords(0xFEE00000 + 0x40);
    *dwords(0xFEE00000 + 0x40) = 0;
    check(errors() & ESR_REGISTER, SDM "11.5.3: an access to a reserved register is \"illegal register address\" in ESR");
    put(LVT_ERROR, 0x44);
    errors();
    *dwords(0xFEE00000 + 0x50) = 0;
    bool came = take() == 0x44;
    put(EOI_REGISTER, 0);
    check(came, SDM "11.5.3: an error interrupts through the LVT's error entry");
    put(LVT_ERROR, MASKED);
    errors();
    put(LVT_TIMER, 0x05);
    put(DIVIDE, 0xB);
    put(INITIAL, 10);
    wait_ticks(50);
    seen = errors();
    put(LVT_TIMER, MASKED);
    check(seen & (ESR_RECEIVED_VECTOR | ESR_SEND_VECTOR), SDM "11.5.2, 11.5.3: an LVT entry with a vector below 16 is an error when it is to be delivered");
    start();
}

//
// The timer
//

/// Counts of the timer in so many clocks of the 8254, and the bounds that a busy host leaves.
struct rate {
    u32 least, most;
};

static bool divides(u32 unused) {
    static const u8 codes[] = {0xB, 0, 1, 2, 3, 8, 9, 0xA};
    u64 rates[8];
    (void)unused;
    put(LVT_TIMER, MASKED | 0x60);
    for (u32 i = 0; i < 8; i++) {
        put(DIVIDE, codes[i]);
        put(INITIAL, 0xFFFFFFFF);
        u16 t0 = ticks();
        u32 c0 = get(CURRENT);
        u16 t1 = ticks();
        wait_ticks(2000);
        u16 t2 = ticks();
        u32 c1 = get(CURRENT);
        u16 t3 = ticks();
        u32 inner = (u16)(t2 - t1), outer = (u16)(t3 - t0);
        // The host was elsewhere: say no.
        if (outer - inner > inner / 50)
            return false;
        rates[i] = (u64)(c0 - c1) << i;
        rates[i] = rates[i] * 1000;
        rates[i] = low(rates[i] >> 8) / inner;
    }
    for (u32 i = 1; i < 8; i++) {
        u32 a = low(rates[0]), b = low(rates[i]);
        if (b < a - a / 20 || b > a + a / 20)
            return false;
    }
    return low(rates[0]) > 0;
}

static bool one_shot(u32 unused) {
    (void)unused;
    start();
    put(DIVIDE, 0xB);
    put(LVT_TIMER, 0x61);
    put(INITIAL, 20000);
    u32 first = get(CURRENT);
    bool runs = first <= 20000;
    bool came = take_waiting() == 0x61;
    put(EOI_REGISTER, 0);
    bool stopped = get(CURRENT) == 0 && get(INITIAL) == 20000;
    return runs && came && stopped && take() == NOTHING;
}

static bool periodic(u32 unused) {
    (void)unused;
    start();
    put(DIVIDE, 0xB);
    put(LVT_TIMER, PERIODIC | 0x62);
    put(INITIAL, 200000);
    for (u32 i = 0; i < 5; i++) {
        if (take_waiting() != 0x62)
            return false;
        put(EOI_REGISTER, 0);
        u32 count = get(CURRENT);
        if (count > 200000)
            return false;
    }
    put(LVT_TIMER, MASKED | PERIODIC | 0x62);
    put(INITIAL, 0);
    bool stopped = get(CURRENT) == 0;
    take();
    put(EOI_REGISTER, 0);
    return stopped && take() == NOTHING;
}

static bool masked_timer(u32 unused) {
    (void)unused;
    start();
    put(DIVIDE, 0xB);
    put(LVT_TIMER, MASKED | 0x63);
    put(INITIAL, 1000);
    wait_ticks(200);
    bool expired = get(CURRENT) == 0;
    put(LVT_TIMER, 0x63);
    return expired && take() == NOTHING;
}

static bool deadline(u32 unused) {
    (void)unused;
    start();
    put(LVT_TIMER, TSC_DEADLINE | 0x64);
    put(INITIAL, 1000);
    bool no_count = get(CURRENT) == 0;
    u64 now;
    asm volatile("rdtsc" : "=A"(now));
    write_msr(DEADLINE_MSR, now + 3000000);
    bool armed = read_msr(DEADLINE_MSR) == now + 3000000;
    bool came = take_waiting() == 0x64;
    u64 then;
    asm volatile("rdtsc" : "=A"(then));
    put(EOI_REGISTER, 0);
    bool in_time = then >= now + 3000000 && read_msr(DEADLINE_MSR) == 0;
    write_msr(DEADLINE_MSR, now);
    bool past = take_waiting() == 0x64;
    put(EOI_REGISTER, 0);
    write_msr(DEADLINE_MSR, then + (1ull << 40));
    write_msr(DEADLINE_MSR, 0);
    bool disarmed = read_msr(DEADLINE_MSR) == 0 && take() == NOTHING;
    write_msr(DEADLINE_MSR, then + (1ull << 40));
    put(LVT_TIMER, MASKED);
    return no_count && armed && came && in_time && past && disarmed && read_msr(DEADLINE_MSR) == 0;
}

static void timer(void) {
    start();
    check_timed(divides, 0, SDM "11.5.4: the divide configuration divides by 1, 2, 4, ... 128");
    check_timed(one_shot, 0, SDM "11.5.4: one-shot: counts to 0, interrupts once, and stands");
    check_timed(periodic, 0, SDM "11.5.4: periodic: begins again by itself; an initial count of 0 stops it");
    check_timed(masked_timer, 0, SDM "11.5.1: what expires while the entry is masked is lost");
    if (cpu.ecx1 & CPUID_DEADLINE)
        check_timed(deadline, 0, SDM "11.5.4.1: TSC-deadline: interrupts when the TSC is there, and disarms; a write of "
                                     "0 or another mode disarms");
    else
        skip(SDM "11.5.4.1: TSC-deadline", "CPUID lacks it");
    start();
}

static void lint(void) {
    start();
    pics_init(0xFF, 0xFF);
    put(LVT_LINT0, 0x700);
    raise_line(4);
    out8(MASTER + 1, 0xEF);
    bool ext = take() == VECTORS + 4 && !is_set(ISR, VECTORS + 4);
    check(ext, SDM "11.5.1: LINT0 as ExtINT: the vector is the 8259A's, and it is not in ISR");
    lower_line(4);
    out8(MASTER, EOI);
    raise_line(4);
    put(LVT_LINT0, MASKED | 0x700);
    check_value(take(), NOTHING, SDM "11.5.1: masked, LINT0 brings nothing");
    lower_line(4);
    out8(MASTER, EOI);
    pics_init(0xEF, 0xFF);
    put(LVT_LINT0, 0x65);
    raise_line(4);
    check(take() == 0x65 && is_set(ISR, 0x65), SDM "11.5.1: LINT0 as a fixed interrupt has the entry's vector");
    put(EOI_REGISTER, 0);
    lower_line(4);
    pics_quiet();
    start();
}

//
// x2APIC mode
//

static u32 fault_of(struct program program, u32 msr, u32 value, u32 high) {
    fresh(FLAT, 0);
    context.r[RCX] = msr;
    context.r[RAX] = value;
    context.r[RDX] = high;
    run_program(program);
    return result.vector;
}

static void x2apic(void) {
    if (!(cpu.ecx1 & X2APIC)) {
        skip(SDM "11.12: x2APIC mode", "CPUID lacks it");
        return;
    }
    start();
    check_value(fault_of(A32("rdmsr"), 0x802, 0, 0), GP, SDM "11.12.2: its MSRs are #GP while the mode is off");
    u64 base = read_msr(APIC_BASE);
    write_msr(APIC_BASE, base | BASE_X2APIC);
    x2 = true;
    about("x2APIC mode");
    start();
    u32 id = get(ID);
    check_value(low(read_msr(0x80D)), (id & ~15u) << 12 | 1 << (id & 15), SDM "11.12.10.2: the logical ID is derived from the ID");
    check_value(fault_of(A32("wrmsr"), 0x802, 1, 0), GP, SDM "table 11-6: ID is read-only");
    check_value(fault_of(A32("wrmsr"), 0x80D, 1, 0), GP, SDM "table 11-6: LDR is read-only");
    check_value(fault_of(A32("rdmsr"), 0x80E, 0, 0), GP, SDM "table 11-6: there is no DFR");
    check_value(fault_of(A32("rdmsr"), 0x831, 0, 0), GP, SDM "table 11-6: there is no ICR's upper half");
    check_value(fault_of(A32("wrmsr"), 0x80B, 1, 0), GP, SDM "table 11-6: a write of anything but 0 to EOI is #GP");
    check_value(fault_of(A32("rdmsr"), 0x80B, 0, 0), GP, SDM "table 11-6: EOI is write-only");
    check_value(fault_of(A32("wrmsr"), 0x808, 0x100, 0), GP, SDM "11.12.1.2: a 1 in a reserved bit is #GP");
    check_value(fault_of(A32("rdmsr"), 0x83F, 0, 0), GP, SDM "table 11-6: SELF IPI is write-only");
    put(SELF_IPI, 0x71);
    check_value(take(), 0x71, SDM "11.12.11: SELF IPI sends an interrupt to itself");
    put(EOI_REGISTER, 0);
    write_msr(0x830, (u64)id << 32 | 0x4000 | 0x72);
    check_value(take(), 0x72, SDM "11.12.9: ICR is one MSR of 64 bits; the destination is 32 bits");
    put(EOI_REGISTER, 0);
    write_msr(0x830, 0xFFFFFFFFull << 32 | 0x4000 | 0x73);
    check_value(take(), 0x73, SDM "11.12.9: FFFFFFFFh is all processors");
    put(EOI_REGISTER, 0);
    write_msr(0x830, (u64)low(read_msr(0x80D)) << 32 | LOGICAL | 0x4000 | 0x74);
    check_value(take(), 0x74, SDM "11.12.10: a logical destination is the logical ID");
    put(EOI_REGISTER, 0);
    check_value(fault_of(A32("wrmsr"), APIC_BASE, 0xFEE00000 | BASE_ENABLE | BASE_BSP, 0), GP,
                SDM "11.12.5: from x2APIC to xAPIC mode is #GP");
    write_msr(APIC_BASE, 0xFEE00000 | BASE_BSP);
    x2 = false;
    check_value(fault_of(A32("wrmsr"), APIC_BASE, 0xFEE00000 | BASE_X2APIC | BASE_BSP, 0), GP,
                SDM "11.12.5: x2APIC mode without the enable bit is #GP");
    write_msr(APIC_BASE, 0xFEE00000 | BASE_ENABLE | BASE_BSP);
    check(get(SVR) == 0xFF && get(LVT_TIMER) == MASKED, SDM "11.12.5.1: after it was disabled, the APIC is as after reset");
    about(0);
}

static void relocation(void) {
    if (!HAS_MSR)
        return;
    start();
    u32 version = get(VERSION);
    write_msr(APIC_BASE, 0xFED40000 | BASE_ENABLE | BASE_BSP);
    bool moved = *dwords(0xFED40000 + VERSION) == version;
    write_msr(APIC_BASE, 0xFEE00000 | BASE_ENABLE | BASE_BSP);
    check(moved && get(VERSION) == version, SDM "11.4.5: the registers can be moved by IA32_APIC_BASE");
}

void chapter(void) {
    if (!HAS_APIC) {
        skip("SDM vol. 3A 11: local APIC", "CPUID lacks it");
        return;
    }
    ticks_init();
    reset_state();
    writable_bits();
    priorities();
    ipis();
    error_register();
    timer();
    lint();
    relocation();
    x2apic();
    start();
}
