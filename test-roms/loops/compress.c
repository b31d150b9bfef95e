//! Compression by repeated strings (Lempel and Ziv, 1977) with a hash table of recent places, and
//! unpacking: bytes, comparisons, branches that cannot be foreseen.

#include "loop.h"

#define SIZE 131072
#define ROUNDS 12
#define HASH_BITS 13
#define SHORTEST 4
#define LONGEST 255
#define WORDS 256

static u8 text[SIZE + LONGEST];
static u8 packed[SIZE * 2];
static u8 unpacked[SIZE];
static u32 recent[1 << HASH_BITS];

const u64 loop_expected = 0xB6D222F997DD7A2E;

/// Text of words that are drawn unevenly from a small vocabulary.
static void fill(u32 *state)
{
    static u8 words[WORDS][8];
    for (u32 i = 0; i < WORDS; i++)
        for (u32 j = 0; j < 8; j++)
            words[i][j] = 'a' + next_random(state) % 26;
    u32 size = 0;
    while (size < SIZE) {
        u32 random = next_random(state);
        u32 word = (random >> 8) % (1 + (random >> 16) % WORDS);
        u32 length = 2 + word % 7;
        for (u32 j = 0; j < length && size < SIZE; j++)
            text[size++] = words[word][j];
        if (size < SIZE)
            text[size++] = ' ';
    }
}

static u32 hash(const u8 *at)
{
    u32 value = at[0] | at[1] << 8 | at[2] << 16 | (u32)at[3] << 24;
    return value * 2654435761u >> (32 - HASH_BITS); // 2^32 / golden ratio
}

static u32 match(const u8 *a, const u8 *b, u32 limit)
{
    u32 length = 0;
    while (length < limit && a[length] == b[length])
        length++;
    return length;
}

/// A zero and a byte, or the length and the distance in two bytes.
static u32 pack(void)
{
    u8 *out = packed;
    for (u32 i = 0; i < 1 << HASH_BITS; i++)
        recent[i] = 0;
    for (u32 at = 0; at < SIZE;) {
        u32 *slot = &recent[hash(text + at)];
        u32 before = *slot;
        u32 limit = SIZE - at < LONGEST ? SIZE - at : LONGEST;
        u32 length = before && at + 1 - before < 65536 ? match(text + before - 1, text + at, limit) : 0;
        *slot = at + 1;
        if (length < SHORTEST) {
            *out++ = 0;
            *out++ = text[at++];
            continue;
        }
        u32 distance = at + 1 - before;
        *out++ = length;
        *out++ = distance;
        *out++ = distance >> 8;
        at += length;
    }
    return out - packed;
}

static u32 unpack(u32 size)
{
    u8 *out = unpacked;
    for (const u8 *in = packed; in < packed + size;) {
        u32 length = *in++;
        if (!length) {
            *out++ = *in++;
            continue;
        }
        const u8 *from = out - (in[0] | in[1] << 8);
        in += 2;
        while (length--)
            *out++ = *from++;
    }
    return out - unpacked;
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        fill(&state);
        u32 size = pack();
        if (unpack(size) != SIZE)
            return 1;
        for (u32 i = 0; i < SIZE; i++)
            if (text[i] != unpacked[i])
                return 2;
        sum = sum * 31 + size;
    }
    return sum;
}
