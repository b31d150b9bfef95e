//! A hash table with open addressing: inserts, and lookups that hit and miss.

#include "loop.h"

#define SLOTS (1u << 17) // 2 MiB
#define KEYS 80000
#define LOOKUPS 2000000

struct slot {
    u64 key; // 0: free
    u64 value;
};

static struct slot slots[SLOTS];

const u64 loop_expected = 0xA198BB2DB99D7AD9;

static u32 slot_of(u64 key)
{
    return key * 0x9E3779B97F4A7C15 >> 47; // 2^64 / golden ratio; the upper 17 bits
}

static void insert(u64 key, u64 value)
{
    u32 i = slot_of(key);
    while (slots[i].key && slots[i].key != key)
        i = (i + 1) % SLOTS;
    slots[i].key = key;
    slots[i].value += value;
}

static u64 lookup(u64 key)
{
    u32 i = slot_of(key);
    while (slots[i].key) {
        if (slots[i].key == key)
            return slots[i].value;
        i = (i + 1) % SLOTS;
    }
    return 1;
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    u64 sum = 0;
    for (u32 i = 1; i <= KEYS; i++)
        insert(i * 3ul, next_random(&state));
    for (u32 i = 0; i < LOOKUPS; i++)
        sum = sum * 5 + lookup(next_random(&state) % (KEYS * 4) + 1);
    return sum;
}
