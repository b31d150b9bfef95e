//! Page tables: one set for each kind of paging, and a page that tests may do with as they like.

#include "suite.h"

/// A kind of paging's tables: a page for each level and two, and what they map one to one.
struct space {
    u32 root;
    int levels;
    bool wide;                  // entries of 8 bytes
    u32 tables;                 // the level-1 tables of the first 8 MiB, one after the other
    u32 victim;                 // the tables of the victim: level 1, 2, ...
};

static u32 next_table;

static u32 new_table(void) {
    u32 table = next_table;
    next_table += 0x1000;
    for (int i = 0; i < 0x400; i++)
        dwords(table)[i] = 0;
    return table;
}

static void set(const struct space *space, u32 table, u32 index, u64 value) {
    if (space->wide)
        qwords(table)[index] = value;
    else
        dwords(table)[index] = low(value);
}

/// The rights of a page that is mapped one to one.
static u64 identity(u32 address) {
    bool user = (address >= LOW_CODE && address < LOW_END) ||
                (address >= USER_CODE && address < USER_END);
    return address | PTE_P | PTE_W | (user ? PTE_U : 0);
}

enum { ALL = PTE_P | PTE_W | PTE_U };

static void map_identity(struct space *space) {
    u32 per_table = space->wide ? 512 : 1024;
    u32 count = (MAPPED_END >> 12) / per_table;
    u32 directory = 0;
    space->tables = next_table;
    for (u32 i = 0; i < count; i++)
        new_table();
    for (u32 page = 0; page < MAPPED_END; page += 0x1000)
        set(space, space->tables + (page >> 12) / per_table * 0x1000, (page >> 12) % per_table,
            identity(page));
    directory = new_table();
    for (u32 i = 0; i < count; i++)
        set(space, directory, i, (space->tables + 0x1000 * i) | ALL);
    space->root = directory;
    for (int level = 3; level <= space->levels; level++) {
        u32 table = new_table();
        // The entries of the PAE's first table have neither W nor U (SDM vol. 3A table 4-8).
        set(space, table, 0, space->root | (space->levels == 3 ? PTE_P : ALL));
        space->root = table;
    }
    space->victim = next_table;
    for (int level = 1; level < space->levels; level++)
        new_table();
}

static struct space spaces[4];

static struct space *space_of(enum world world) {
    switch (world) {
    case PAGED: return &spaces[0];
    case PAGED_PAE: return &spaces[1];
    case LONG5: return &spaces[3];
    default: return &spaces[2];
    }
}

/// Makes all tables. What tests change in them they put right themselves.
void spaces_init(void) {
    next_table = TABLES;
    for (int i = 0; i < 4; i++) {
        spaces[i].levels = i + 2;
        spaces[i].wide = i > 0;
        map_identity(&spaces[i]);
    }
}

u32 space_root(enum world world) { return space_of(world)->root; }

void set_identity(enum world world, u32 address, u64 set_bits, u64 clear_bits) {
    struct space *space = space_of(world);
    u32 page = address >> 12;
    if (space->wide)
        qwords(space->tables)[page] = (qwords(space->tables)[page] | set_bits) & ~clear_bits;
    else
        dwords(space->tables)[page] =
            (dwords(space->tables)[page] | low(set_bits)) & ~low(clear_bits);
}

u64 get_entry(const struct victim *victim, int level) {
    return victim->levels == 2 ? *(volatile u32 *)victim->entry[level]
                               : *(volatile u64 *)victim->entry[level];
}

void set_entry(const struct victim *victim, int level, u64 value) {
    if (victim->levels == 2)
        *(volatile u32 *)victim->entry[level] = low(value);
    else
        *(volatile u64 *)victim->entry[level] = value;
}

struct victim map_victim(enum world world, int leaf) {
    struct space *space = space_of(world);
    struct victim victim = {
        .frame = leaf == 1 ? PAGES : leaf == 2 ? LARGE_PAGE : 0,
        .levels = space->levels,
        .leaf = leaf,
    };
    // The second entry of the top table, and in it, the third of each but the last: 4.
    static const u64 at[] = {0x40804000, 0x40404000, 0x8080404000, 0x1008080404000};
    victim.linear = at[space->levels - 2];
    u32 table = space->root;
    for (int level = space->levels; level >= leaf; level--) {
        int shift = space->wide ? 12 + 9 * (level - 1) : 12 + 10 * (level - 1);
        u32 index = low(victim.linear >> shift) & (space->wide ? 511 : 1023);
        victim.entry[level] = bytes(table + index * (space->wide ? 8 : 4));
        u32 next = space->victim + 0x1000 * (level - 2);
        u64 rights = space->levels == 3 && level == 3 ? PTE_P : ALL;
        u64 value = level == leaf ? victim.frame | ALL | (leaf > 1 ? PTE_PS : 0) : next | rights;
        set_entry(&victim, level, value);
        table = next;
    }
    if (leaf > 1) {
        // Not the first page of the large one.
        u64 size = space->wide ? 1ull << (12 + 9 * (leaf - 1)) : 1ull << 22;
        victim.frame += low(victim.linear & (size - 1));
    }
    return victim;
}
