//! Paging: rights, error codes, reserved bits, A and D, invalidation (SDM vol. 3A chapter 4).

#include "suite.h"

const char chapter_name[] = "paging";

enum kind { READ, WRITE, FETCH };
static const char *const kinds[] = {"read", "write", "fetch"};

struct setting {
    bool wp, smep, smap, ac, nxe;
};

static bool is_long(enum world world) { return world != PAGED && world != PAGED_PAE; }

/// A context that makes one access to the victim's page: programs in rings 0 and 3.
static void prepare(enum world world, const struct victim *victim, enum kind kind, bool user,
                    struct setting setting) {
    fresh(world, user ? 3 : 0);
    context.cr0 = (context.cr0 & ~CR0_WP) | (setting.wp ? CR0_WP : 0);
    context.cr4 |= (setting.smep ? CR4_SMEP : 0) | (setting.smap ? CR4_SMAP : 0);
    context.rflags |= setting.ac ? FLAGS_AC : 0;
    if (!setting.nxe)
        context.efer &= ~EFER_NXE;
    context.r[RBX] = victim->linear;
    if (kind == FETCH) {
        context.rip = victim->linear;
        program_size = 0;
        *bytes(victim->frame) = 0xCC;
    } else if (is_long(world) && world != COMPAT) {
        load(kind == READ ? A64("mov al, [rbx]") : A64("mov [rbx], al"));
    } else {
        load(kind == READ ? A32("mov al, [ebx]") : A32("mov [ebx], al"));
    }
}

static u32 access_bits(enum kind kind, bool user, struct setting setting) {
    return (user ? PF_U : 0) | (kind == WRITE ? PF_W : 0) |
           (kind == FETCH && (setting.nxe || setting.smep) ? PF_I : 0);
}

/// SDM vol. 3A 4.6.1: whether an access is allowed, if all entries are present.
static bool allowed(bool u, bool w, bool nx, enum kind kind, bool user, struct setting s) {
    if (user)
        return u && (kind == READ || (kind == WRITE ? w : !nx));
    if (kind == FETCH)
        return !nx && !(u && s.smep);
    if (u && s.smap && !s.ac)
        return false;
    return kind == READ || w || !s.wp;
}

/// The settings that this processor has.
static u32 settings(enum world world, struct setting *list) {
    u32 count = 0;
    for (u32 bits = 0; bits < 32; bits++) {
        struct setting s = {bits & 1, bits & 2, bits & 4, bits & 8, bits & 16};
        if ((s.smep && !HAS_SMEP) || (s.smap && !HAS_SMAP) || (s.ac && !s.smap))
            continue;
        if (s.nxe && (!HAS_NX || world == PAGED))
            continue;
        list[count++] = s;
    }
    return count;
}

static const char *describe(struct setting s) {
    static char text[32];
    char *p = text;
    static const char *const names[] = {"WP ", "SMEP ", "SMAP ", "AC ", "NXE "};
    bool on[] = {s.wp, s.smep, s.smap, s.ac, s.nxe};
    for (u32 i = 0; i < COUNT(on); i++)
        for (const char *name = names[i]; on[i] && *name;)
            *p++ = *name++;
    *p = 0;
    return text;
}

static void expect_page_fault(const struct victim *victim, u32 error) {
    if (expect_fault(PF, error))
        expect_value("CR2", result.cr2, victim->linear);
}

/// The levels whose entries have rights: not the PAE's PDPTE.
static bool has_rights(const struct victim *v, int level) { return !(v->levels == 3 && level == 3); }

/// Rights as U and W at each level, two bits a level; at most two levels lack some.
static bool few_lacks(u32 rights, const struct victim *v) {
    int lacks = 0;
    for (int level = v->leaf; level <= v->levels; level++) {
        u32 here = rights >> 2 * level & 3;
        if (has_rights(v, level))
            lacks += here != 3;
        else if (here != 3)
            return false;
    }
    return lacks <= 2;
}

static void rights_case(enum world world, const struct victim *v, u32 rights, int nx_level,
                        struct setting s) {
    bool u = true, w = true;
    u64 before[6];
    for (int level = v->leaf; level <= v->levels; level++) {
        before[level] = get_entry(v, level);
        if (!has_rights(v, level))
            continue;
        u32 here = rights >> 2 * level & 3;
        u = u && here & 1;
        w = w && here & 2;
        set_entry(v, level, (before[level] & ~(u64)(PTE_U | PTE_W)) | (here & 1 ? PTE_U : 0) |
                                (here & 2 ? PTE_W : 0) | (level == nx_level ? PTE_NX : 0));
    }
    for (enum kind kind = READ; kind <= FETCH; kind++)
        for (u32 user = 0; user < 2; user++) {
            prepare(world, v, kind, user, s);
            run();
            title("%s by %s, U and W by level %x, XD at level %d, %s", kinds[kind],
                  user ? "user" : "supervisor", rights >> 2 * v->leaf, nx_level, describe(s));
            if (allowed(u, w, nx_level && s.nxe, kind, user, s))
                expect_completes();
            else
                expect_page_fault(v, PF_P | access_bits(kind, user, s));
        }
    for (int level = v->leaf; level <= v->levels; level++)
        set_entry(v, level, before[level]);
}

static void rights(enum world world, int leaf) {
    struct victim v = map_victim(world, leaf);
    struct setting list[32];
    u32 count = settings(world, list);
    begin("SDM vol. 3A 4.6.1, 4.7: rights of all levels, WP, SMEP, SMAP, AC, XD; error code, CR2");
    u32 end_rights = 1u << 2 * (v.levels - leaf + 1);
    for (u32 r = 0; r < end_rights; r++) {
        u32 all = r << 2 * leaf;
        if (!few_lacks(all, &v))
            continue;
        for (u32 i = 0; i < count; i++) {
            rights_case(world, &v, all, 0, list[i]);
            if (!list[i].nxe)
                continue;
            for (int level = leaf; level <= v.levels; level++)
                if (has_rights(&v, level))
                    rights_case(world, &v, all, level, list[i]);
        }
    }
    end();
}

static void present(enum world world, int leaf) {
    struct victim v = map_victim(world, leaf);
    struct setting list[32];
    u32 count = settings(world, list);
    begin("SDM vol. 3A 4.7: P clear at any level: error code without P, other bits ignored");
    for (int level = leaf; level <= v.levels; level++) {
        if (!has_rights(&v, level))
            continue;
        u64 before = get_entry(&v, level);
        for (u32 garbage = 0; garbage < 2; garbage++)
            for (u32 i = 0; i < count; i++)
                for (enum kind kind = READ; kind <= FETCH; kind++)
                    for (u32 user = 0; user < 2; user++) {
                        set_entry(&v, level, garbage ? ~1ull : before & ~(u64)PTE_P);
                        prepare(world, &v, kind, user, list[i]);
                        run();
                        title("level %d, %s by %s, %s", level, kinds[kind],
                              user ? "user" : "supervisor", describe(list[i]));
                        expect_page_fault(&v, access_bits(kind, user, list[i]));
                    }
        set_entry(&v, level, before);
    }
    end();
}

/// The reserved bits of an entry (SDM vol. 3A tables 4-4 to 4-6, 4-9 to 4-11, 4-15 to 4-20).
static u64 reserved_bits(enum world world, const struct victim *v, int level, bool nxe) {
    bool leaf = level == v->leaf;
    u64 bits = 0;
    if (world == PAGED) {
        if (level == 1 || !leaf)
            return 0;
        u32 width = cpu.phys_bits > 40 ? 40 : cpu.phys_bits;
        u32 first = HAS_PSE36 ? width - 19 : 13;    // bits 39:32 of the address are in 20:13
        return (1u << 22) - (1u << first);
    }
    u64 high = (1ull << 52) - 1;
    bits |= high & ~((1ull << cpu.phys_bits) - 1);
    if (world == PAGED_PAE)
        bits |= 0x7FFull << 52;
    if (!nxe)
        bits |= PTE_NX;
    if (leaf && level == 2)
        bits |= 0x1FE000;
    if (leaf && level == 3)
        bits |= 0x3FFFE000;
    if (level >= 4 || (level == 3 && !leaf && !HAS_1G && !has_rights(v, 3)))
        bits |= PTE_PS;
    return bits;
}

static void reserved(enum world world, int leaf) {
    struct victim v = map_victim(world, leaf);
    begin("SDM vol. 3A 4.7: each reserved bit of each entry: RSVD and P in the error code");
    for (int level = leaf; level <= v.levels; level++) {
        if (!has_rights(&v, level))
            continue;
        u64 before = get_entry(&v, level);
        for (u32 nxe = 0; nxe < 2; nxe++) {
            struct setting s = {.wp = true, .nxe = nxe};
            if (nxe && (!HAS_NX || world == PAGED))
                continue;
            u64 bits = reserved_bits(world, &v, level, nxe);
            for (int bit = 0; bit < 64; bit++) {
                if (!(bits >> bit & 1))
                    continue;
                for (u32 i = 0; i < 6; i++) {
                    enum kind kind = i % 3;
                    // The rights do not matter, nor do those of other levels.
                    set_entry(&v, level, (before | 1ull << bit) & (i & 1 ? ~0ull : ~6ull));
                    prepare(world, &v, kind, i >= 3, s);
                    run();
                    title("level %d, bit %d, NXE %u, %s", level, bit, nxe, kinds[kind]);
                    expect_page_fault(&v, PF_P | PF_RSVD | access_bits(kind, i >= 3, s));
                }
            }
        }
        set_entry(&v, level, before);
    }
    end();
}

static void ignored(enum world world, int leaf) {
    struct victim v = map_victim(world, leaf);
    begin("SDM vol. 3A 4.3 to 4.5: ignored bits and PWT, PCD, G, PAT do not matter to rights");
    for (int level = leaf; level <= v.levels; level++) {
        if (!has_rights(&v, level))
            continue;
        u64 before = get_entry(&v, level);
        // PWT, PCD, 9 to 11; G; PAT where the page ends; 52 to 58 with long mode's formats.
        u64 bits = 0xE18 | (level == leaf && HAS_PGE ? PTE_G : 0);
        if (level == leaf && HAS_PAT)
            bits |= level == 1 ? PTE_PS : PTE_PAT_LARGE;
        if (is_long(world))
            bits |= 0x7Full << 52;
        for (int bit = 0; bit < 64; bit++) {
            if (!(bits >> bit & 1))
                continue;
            set_entry(&v, level, before | 1ull << bit);
            prepare(world, &v, WRITE, true, (struct setting){.wp = true});
            run();
            title("level %d, bit %d", level, bit);
            expect_completes();
        }
        set_entry(&v, level, before);
    }
    end();
}

static void accessed_and_dirty(enum world world, int leaf) {
    struct victim v = map_victim(world, leaf);
    begin("SDM vol. 3A 4.8: A is set at each level, D where a write ends, and only then");
    for (enum kind kind = READ; kind <= FETCH; kind++)
        for (u32 preset = 0; preset < 4; preset++) {
            u64 before[6];
            for (int level = leaf; level <= v.levels; level++) {
                u64 clear = has_rights(&v, level) ? ~(u64)(PTE_A | PTE_D) : ~0ull;
                before[level] = get_entry(&v, level) & clear;
                if (has_rights(&v, level))
                    before[level] |= (preset & 1 ? PTE_A : 0);
                if (level == leaf)
                    before[level] |= (preset & 2 ? PTE_D : 0);
                set_entry(&v, level, before[level]);
            }
            prepare(world, &v, kind, true, (struct setting){.wp = true});
            run();
            for (int level = leaf; level <= v.levels; level++) {
                u64 expected = before[level];
                if (has_rights(&v, level))
                    expected |= PTE_A;
                if (level == leaf && kind == WRITE)
                    expected |= PTE_D;
                title("%s, A and D before %u, level %d", kinds[kind], preset, level);
                expect_value("entry", get_entry(&v, level), expected);
            }
        }
    end();

    // A read that is in the TLB must not keep a later write from setting D.
    map_victim(world, leaf);
    prepare(world, &v, READ, true, (struct setting){.wp = true});
    load(is_long(world) && world != COMPAT ? A64("mov al, [rbx]; mov [rbx], al")
                                           : A32("mov al, [ebx]; mov [ebx], al"));
    run();
    check(completed() && (get_entry(&v, leaf) & (PTE_A | PTE_D)) == (PTE_A | PTE_D),
          "SDM vol. 3A 4.8: a write after a read sets D");

    map_victim(world, leaf);
    set_entry(&v, leaf, get_entry(&v, leaf) & ~(u64)PTE_W);
    prepare(world, &v, WRITE, true, (struct setting){.wp = true});
    run();
    check(result.vector == PF && !(get_entry(&v, leaf) & PTE_D),
          "SDM vol. 3A 4.8: a write that faults does not set D");
    map_victim(world, leaf);
}

//
// Invalidation (SDM vol. 3A 4.10.4). RSI: the entry's address, RCX: what to put there.
//

static void invalidation(enum world world, int leaf) {
    bool wide = is_long(world) && world != COMPAT;
    struct victim v;
    struct {
        const char *text;
        bool global;
        struct program program;
    } cases[] = {
        {"SDM vol. 3A 4.10.4.1: INVLPG drops the page's translation", false,
         wide ? A64("mov al, [rbx]; mov [rsi], ecx; invlpg [rbx]; nop; mov al, [rbx]")
              : A32("mov al, [ebx]; mov [esi], ecx; invlpg [ebx]; nop; mov al, [ebx]")},
        {"SDM vol. 3A 4.10.4.1: INVLPG with any address in the page drops it", false,
         wide ? A64("mov al, [rbx]; mov [rsi], ecx; invlpg [rbx + 0xFFF]; nop; mov al, [rbx]")
              : A32("mov al, [ebx]; mov [esi], ecx; invlpg [ebx + 0xFFF]; nop; mov al, [ebx]")},
        {"SDM vol. 3A 4.10.4.1: INVLPG drops a global translation too", true,
         wide ? A64("mov al, [rbx]; mov [rsi], ecx; invlpg [rbx]; nop; mov al, [rbx]")
              : A32("mov al, [ebx]; mov [esi], ecx; invlpg [ebx]; nop; mov al, [ebx]")},
        {"SDM vol. 3A 4.10.4.1: MOV to CR3 drops translations that are not global", false,
         wide ? A64("mov al, [rbx]; mov [rsi], ecx; mov rax, cr3; mov cr3, rax; nop; mov al, [rbx]")
              : A32("mov al, [ebx]; mov [esi], ecx; mov eax, cr3; mov cr3, eax; nop; "
                    "mov al, [ebx]")},
        {"SDM vol. 3A 4.10.4.1: changing CR4.PGE drops all translations", true,
         wide ? A64("mov al, [rbx]; mov [rsi], ecx; mov rax, cr4; xor al, 0x80; mov cr4, rax; nop; "
                    "mov al, [rbx]")
              : A32("mov al, [ebx]; mov [esi], ecx; mov eax, cr4; xor al, 0x80; mov cr4, eax; nop; "
                    "mov al, [ebx]")},
    };
    for (int level = leaf; level <= leaf + 1; level++)
        for (u32 i = 0; i < COUNT(cases); i++) {
            v = map_victim(world, leaf);
            if (level > v.levels || !has_rights(&v, level))
                continue;
            if (!HAS_PGE && (cases[i].global || i == 4))
                continue;
            prepare(world, &v, READ, false, (struct setting){.wp = true});
            if (cases[i].global) {
                context.cr4 |= CR4_PGE;
                set_entry(&v, leaf, get_entry(&v, leaf) | PTE_G);
            }
            context.r[RSI] = (u32)v.entry[level];
            context.r[RCX] = low(get_entry(&v, level)) & ~PTE_P;
            run_program(cases[i].program);
            about(level == leaf ? world_names[world] : "the entry above the page's");
            check(result.vector == PF && result.error == 0 && result.cr2 == v.linear,
                  cases[i].text);
        }
    about(world_names[world]);

    if (!is_long(world)) {
        v = map_victim(world, leaf);
        // Paging goes off and on again in identity-mapped code.
        prepare(world, &v, READ, false, (struct setting){.wp = true});
        context.r[RSI] = (u32)v.entry[leaf];
        context.r[RCX] = low(get_entry(&v, leaf)) & ~PTE_P;
        run_program(A32("mov al, [ebx]; mov edx, cr0; mov edi, edx; and edx, 0x7FFFFFFF; "
                        "mov cr0, edx; jmp 1f; 1: mov [esi], ecx; mov cr0, edi; jmp 1f; 1: "
                        "mov al, [ebx]"));
        check_fault(PF, 0, "SDM vol. 3A 4.10.4.1: changing CR0.PG drops all translations");
    }

    // What was not present is in no TLB: the handler makes the page present and returns.
    for (int level = leaf; level <= leaf + 1; level++) {
        v = map_victim(world, leaf);
        if (level > v.levels || !has_rights(&v, level))
            continue;
        u32 good = low(get_entry(&v, level));
        set_entry(&v, level, get_entry(&v, level) & ~(u64)PTE_P);
        prepare(world, &v, READ, false, (struct setting){.wp = true});
        if (wide || world == COMPAT)
            gate64(&idt[2 * PF], SEL_CODE64, KERNEL_CODE + 0x1000, INT_GATE32 | PRESENT, 0);
        else
            idt[PF] = gate(SEL_CODE32, KERNEL_CODE + 0x1000, INT_GATE32 | PRESENT, 0);
        place(KERNEL_CODE + 0x1000,
              is_long(world) ? A64("mov [rsi], ecx; inc edi; add rsp, 8; iretq")
                             : A32("mov [esi], ecx; inc edi; add esp, 4; iretd"));
        context.r[RSI] = (u32)v.entry[level];
        context.r[RCX] = good;
        *bytes(v.frame) = 0x5A;
        run();
        check(completed() && (record.r[RAX] & 0xFF) == 0x5A && record.r[RDI] == 1,
              "SDM vol. 3A 4.10.2.1, 4.10.4.3: making an entry present needs no invalidation");
    }

    // More rights without invalidation: at most one fault, which drops the translation.
    v = map_victim(world, leaf);
    u32 good = low(get_entry(&v, leaf));
    set_entry(&v, leaf, get_entry(&v, leaf) & ~(u64)PTE_W);
    prepare(world, &v, READ, false, (struct setting){.wp = true});
    if (is_long(world))
        gate64(&idt[2 * PF], SEL_CODE64, KERNEL_CODE + 0x1000, INT_GATE32 | PRESENT, 0);
    else
        idt[PF] = gate(SEL_CODE32, KERNEL_CODE + 0x1000, INT_GATE32 | PRESENT, 0);
    place(KERNEL_CODE + 0x1000, is_long(world) ? A64("inc edi; add rsp, 8; iretq")
                                               : A32("inc edi; add esp, 4; iretd"));
    context.r[RSI] = (u32)v.entry[leaf];
    context.r[RCX] = good;
    run_program(wide ? A64("mov al, [rbx]; mov [rsi], ecx; mov byte ptr [rbx], 1")
                     : A32("mov al, [ebx]; mov [esi], ecx; mov byte ptr [ebx], 1"));
    check(completed() && record.r[RDI] <= 1,
          "SDM vol. 3A 4.10.4.3: more rights without invalidation cost one page fault at most");

    // A stale translation may be used or not, but it is the old one or the new one.
    v = map_victim(world, leaf);
    *bytes(v.frame) = 0x11;
    u32 step = leaf == 1 ? 0x1000 : 0;
    *bytes(v.frame + step) = 0x22;
    if (step) {
        *bytes(v.frame) = 0x11;
        prepare(world, &v, READ, false, (struct setting){.wp = true});
        context.r[RSI] = (u32)v.entry[leaf];
        context.r[RCX] = low(get_entry(&v, leaf)) + step;
        run_program(wide ? A64("mov al, [rbx]; mov [rsi], ecx; mov ah, [rbx]; invlpg [rbx]; "
                               "mov dl, [rbx]")
                         : A32("mov al, [ebx]; mov [esi], ecx; mov ah, [ebx]; invlpg [ebx]; "
                               "mov dl, [ebx]"));
        u32 second = record.r[RAX] >> 8 & 0xFF;
        check(completed() && (record.r[RAX] & 0xFF) == 0x11 && (second == 0x11 || second == 0x22) &&
                  (record.r[RDX] & 0xFF) == 0x22,
              "SDM vol. 3A 4.10.2.3, 4.10.4.1: an old translation or the new, after INVLPG the new");
    }

    // CR0.WP counts at once.
    v = map_victim(world, leaf);
    set_entry(&v, leaf, get_entry(&v, leaf) & ~(u64)PTE_W);
    prepare(world, &v, WRITE, false, (struct setting){.wp = false});
    run_program(wide ? A64("mov [rbx], al; mov rcx, cr0; bts ecx, 16; mov cr0, rcx; mov [rbx], al")
                     : A32("mov [ebx], al; mov ecx, cr0; bts ecx, 16; mov cr0, ecx; "
                           "mov [ebx], al"));
    check_fault(PF, PF_P | PF_W, "SDM vol. 3A 4.6.1: CR0.WP counts from the next instruction on");
    if (HAS_SMAP) {
        v = map_victim(world, leaf);
        prepare(world, &v, READ, false, (struct setting){.wp = true, .smap = true});
        run_program(wide ? A64("stac; mov al, [rbx]; clac; nop; mov al, [rbx]")
                         : A32("stac; mov al, [ebx]; clac; nop; mov al, [ebx]"));
        check_fault(PF, PF_P, "SDM vol. 3A 4.6.1: CLAC takes the supervisor's way to user pages");
    }
    if (HAS_SMEP) {
        v = map_victim(world, leaf);
        prepare(world, &v, READ, false, (struct setting){.wp = true});
        *bytes(v.frame) = 0xC3;
        run_program(wide ? A64("call rbx; mov rcx, cr4; bts ecx, 20; mov cr4, rcx; call rbx")
                         : A32("call ebx; mov ecx, cr4; bts ecx, 20; mov cr4, ecx; call ebx"));
        check_fault(PF, PF_P | PF_I, "SDM vol. 3A 4.6.1, 4.10.4.1: CR4.SMEP counts when it is set");
    }
    map_victim(world, leaf);
}

static void crossing(enum world world) {
    bool wide = is_long(world) && world != COMPAT;
    struct victim v = map_victim(world, 1);
    begin("SDM vol. 3A 4.7, 6.15 (#PF): of an access across pages CR2 names the page that faults");
    for (u32 write = 0; write < 2; write++)
        for (u32 back = 1; back < 4; back++) {
            prepare(world, &v, write ? WRITE : READ, true, (struct setting){.wp = true});
            context.r[RBX] = v.linear + 0x1000 - back;
            load(wide ? (write ? A64("mov [rbx], eax") : A64("mov eax, [rbx]"))
                      : (write ? A32("mov [ebx], eax") : A32("mov eax, [ebx]")));
            run();
            title("%u bytes in the first page, write %u", back, write);
            if (expect_fault(PF, PF_U | (write ? PF_W : 0)))
                expect_value("CR2", result.cr2, v.linear + 0x1000);
        }
    end();

    // An instruction whose second half is not there.
    prepare(world, &v, FETCH, true, (struct setting){.wp = true});
    context.rip = v.linear + 0xFFE;
    bytes(v.frame)[0xFFE] = 0xB8;                   // MOV EAX, imm32
    run();
    check(result.vector == PF && result.error == PF_U && result.cr2 == v.linear + 0x1000 &&
              result.rip == v.linear + 0xFFE,
          "SDM vol. 3A 6.5, 6.15: a fetch across pages faults with RIP at the instruction's start");
}

/// Accesses of the processor itself to descriptor tables are the supervisor's in any ring.
static void system_accesses(enum world world) {
    bool wide = world == LONG;
    static const struct {
        const char *text;
        u64 set, clear;
        bool accessed, smap;
        u32 error;
    } table[] = {
        {"SDM vol. 3A 4.6.1, 4.7: a GDT that is not present: a read by the supervisor, in ring 3 too",
         0, PTE_P, true, false, 0},
        {"SDM vol. 3A 4.6, 3.4.5.1: setting A in a read-only GDT is a write by the supervisor", 0,
         PTE_W, false, false, PF_P | PF_W},
        {"SDM vol. 3A 4.6.1: with SMAP a GDT in user pages faults whatever AC is", PTE_U, 0, true,
         true, PF_P},
    };
    for (u32 i = 0; i < COUNT(table); i++) {
        if (table[i].smap && !HAS_SMAP)
            continue;
        fresh(world, 3);
        context.cr4 |= table[i].smap ? CR4_SMAP : 0;
        context.rflags |= table[i].smap ? FLAGS_AC : 0;
        u64 *copy = (u64 *)KERNEL_DATA;
        for (u32 j = 0; j < GDT_ENTRIES; j++)
            copy[j] = gdt[j];
        copy[0x1008 >> 3] = descriptor(0, 0xFFFFF, DATA | WRITABLE | PRESENT | DPL(3) | B | G |
                                                       (table[i].accessed ? ACCESSED : 0));
        context.gdtr.base = KERNEL_DATA;
        context.gdtr.limit = 0x1FFF;
        set_identity(world, KERNEL_DATA + 0x1000, table[i].set, table[i].clear);
        context.r[RAX] = 0x100B;
        run_program(wide ? A64("mov ds, eax") : A32("mov ds, eax"));
        set_identity(world, KERNEL_DATA + 0x1000, PTE_P | PTE_W, PTE_U);
        copy[SEL_TSS >> 3] = gdt[SEL_TSS >> 3];
        check(result.vector == PF && result.error == table[i].error &&
                  (result.cr2 & ~7ull) == KERNEL_DATA + 0x1008,
              table[i].text);
    }

    // The same for the IDT: INT 80h from ring 3, whose gate is in the next page.
    fresh(world, 3);
    u32 size = is_long(world) ? 16 : 8;
    u32 base = KERNEL_DATA + 0x1000 - 0x80 * size;
    for (u32 j = 0; j < 0x80 * size; j++)
        bytes(base)[j] = ((u8 *)idt)[j];
    context.idtr.base = base;
    context.idtr.limit = 256 * size - 1;
    set_identity(world, KERNEL_DATA + 0x1000, 0, PTE_P);
    run_program(wide ? A64("int 0x80") : A32("int 0x80"));
    set_identity(world, KERNEL_DATA + 0x1000, PTE_P, 0);
    check(result.vector == PF && result.error == 0 && result.rip == context.rip &&
              (result.cr2 & ~15ull) == KERNEL_DATA + 0x1000,
          "SDM vol. 3A 4.6.1: an IDT that is not present: a read by the supervisor");

    // And for the stack that a change of rings switches to.
    fresh(world, 3);
    u32 *fields = (u32 *)tss;
    fields[1] = KERNEL_DATA + 0x1000;
    set_identity(world, KERNEL_DATA, 0, PTE_P);
    // The page fault cannot be delivered on the same stack either: a double fault, on its own.
    if (is_long(world)) {
        run_program(wide ? A64("int 0x80") : A32("int 0x80"));
        set_identity(world, KERNEL_DATA, PTE_P, 0);
        check(result.vector == DF && result.error == 0 && result.cr2 < KERNEL_DATA + 0x1000 &&
                  result.cr2 >= KERNEL_DATA + 0xF00,
              "SDM vol. 3A 6.15 (#DF): a page fault while a page fault is delivered is #DF(0)");
    }
    set_identity(world, KERNEL_DATA, PTE_P, 0);
}

static void pae_pointers(void) {
    struct victim v = map_victim(PAGED_PAE, 1);
    u64 before = get_entry(&v, 3);
    u64 bits = 0x1E6 | ~((1ull << cpu.phys_bits) - 1);
    begin(cpu.amd ? "AMD APM vol. 2 5.3.2: reserved bits of a PDPTE: #GP at CR3 or #PF when it is used"
                  : "SDM vol. 3A 4.4.1: MOV to CR3 with a reserved bit in a PDPTE is #GP(0)");
    for (int bit = 0; bit < 64; bit++) {
        if (!(bits >> bit & 1))
            continue;
        set_entry(&v, 3, before);
        prepare(PAGED_PAE, &v, READ, false, (struct setting){.wp = true, .nxe = HAS_NX != 0});
        u64 bad = before | 1ull << bit;
        context.r[RSI] = (u32)v.entry[3];
        context.r[RCX] = low(bad);
        context.r[RDX] = low(bad >> 32);
        run_program(A32("mov [esi], ecx; mov [esi + 4], edx; mov eax, cr3; mov cr3, eax; "
                        "mov al, [ebx]"));
        title("bit %d", bit);
        if (cpu.amd && result.vector == PF)
            expect_fault(PF, PF_P | PF_RSVD);
        else
            expect_fault(GP, 0);
    }
    set_entry(&v, 3, before);
    end();

    if (cpu.amd) {
        skip("SDM vol. 3A 4.4.1: PDPTEs are read by MOV to CR3 and kept", "Intel's rule");
        return;
    }
    prepare(PAGED_PAE, &v, READ, false, (struct setting){.wp = true});
    context.r[RSI] = (u32)v.entry[3];
    run_program(A32("mov dword ptr [esi], 0; invlpg [ebx]; mov al, [ebx]"));
    set_entry(&v, 3, before);
    check_completes("SDM vol. 3A 4.4.1: PDPTEs are read by MOV to CR3 and kept");
}

static void page_size_extension(void) {
    about(world_names[PAGED]);
    // PS in a PDE without CR4.PSE is ignored.
    struct victim v = map_victim(PAGED, 1);
    set_entry(&v, 2, get_entry(&v, 2) | PTE_PS);
    *bytes(v.frame) = 0x77;
    prepare(PAGED, &v, READ, true, (struct setting){.wp = true});
    context.cr4 &= ~CR4_PSE;
    run();
    check(completed() && (record.r[RAX] & 0xFF) == 0x77,
          "SDM vol. 3A 4.3: PS in a PDE is ignored while CR4.PSE is clear");
    map_victim(PAGED, 1);
}

void chapter(void) {
    static const enum world worlds[] = {PAGED, PAGED_PAE, LONG, LONG5, COMPAT};
    for (u32 i = 0; i < COUNT(worlds); i++) {
        enum world world = worlds[i];
        if (!has_world(world)) {
            skip(world_names[world], "CPUID lacks it");
            continue;
        }
        // Compatibility mode reaches 4 GiB only, and the victim is above it.
        if (world == COMPAT) {
            about(world_names[world]);
            system_accesses(world);
            continue;
        }
        static const char *const sizes[][3] = {
            {"32-bit paging, 4 KiB", "32-bit paging, 4 MiB"},
            {"PAE paging, 4 KiB", "PAE paging, 2 MiB"},
            {"4 levels, 4 KiB", "4 levels, 2 MiB", "4 levels, 1 GiB"},
            {"5 levels, 4 KiB", "5 levels, 2 MiB", "5 levels, 1 GiB"},
        };
        for (int leaf = 1; leaf <= (is_long(world) ? 3 : 2); leaf++) {
            about(sizes[i][leaf - 1]);
            if ((leaf == 2 && world == PAGED && !HAS_PSE) || (leaf == 3 && !HAS_1G)) {
                skip(sizes[i][leaf - 1], "CPUID lacks it");
                continue;
            }
            rights(world, leaf);
            present(world, leaf);
            reserved(world, leaf);
            ignored(world, leaf);
            accessed_and_dirty(world, leaf);
            invalidation(world, leaf);
        }
        about(world_names[world]);
        crossing(world);
        if (world != LONG5)
            system_accesses(world);
    }
    if (has_world(PAGED_PAE)) {
        about(world_names[PAGED_PAE]);
        pae_pointers();
    }
    if (HAS_PSE)
        page_size_extension();
}
