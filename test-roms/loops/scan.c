//! Lines counted and their ends found in a text, 16 bytes at a time, as libraries' memchr does:
//! SSE2 comparisons, masks to general registers, counts of bits.

#include "loop.h"

#define SIZE 65536
#define ROUNDS 1600

typedef char v16 __attribute__((vector_size(16)));

static v16 text[SIZE / 16];

const u64 loop_expected = 0x49881F1DB8670363;

static u64 scan(char what)
{
    v16 wanted;
    for (u32 i = 0; i < 16; i++)
        wanted[i] = what;
    u64 sum = 0;
    for (u32 i = 0; i < SIZE / 16; i++) {
        u32 mask = __builtin_ia32_pmovmskb128((v16)(text[i] == wanted));
        while (mask) {
            sum = sum * 3 + i * 16 + __builtin_ctz(mask);
            mask &= mask - 1;
        }
    }
    return sum;
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    u64 sum = 0;
    for (u32 i = 0; i < SIZE; i++)
        text[i / 16][i % 16] = next_random(&state) >> 24;
    for (u32 round = 0; round < ROUNDS; round++)
        sum = sum * 5 + scan(round);
    return sum;
}
