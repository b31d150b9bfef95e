//! One picture over another: bytes widened, multiplied and packed again, 16 at a time by SSE2.

#include "loop.h"

#define SIZE 16384
#define ROUNDS 4800

static u8 above[SIZE] __attribute__((aligned(16)));
static u8 below[SIZE] __attribute__((aligned(16)));
static u8 alpha[SIZE] __attribute__((aligned(16)));

const u64 loop_expected = 0x16F5A118A9178D10;

static void blend(void)
{
    for (u32 i = 0; i < SIZE; i++) {
        u16 mixed = above[i] * alpha[i] + below[i] * (255 - alpha[i]);
        below[i] = mixed >> 8;
        above[i] += alpha[i];
    }
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < SIZE; i++) {
        above[i] = next_random(&state);
        below[i] = next_random(&state) >> 8;
        alpha[i] = next_random(&state) >> 16;
    }
    for (u32 round = 0; round < ROUNDS; round++)
        blend();
    u64 sum = 0;
    for (u32 i = 0; i < SIZE; i++)
        sum = sum * 31 + below[i];
    return sum;
}
