//! A wave on a square: each place from its four neighbours, eight floats at a time by AVX.

#include "loop.h"

#define SIZE 130
#define STEPS 3000

static float now[SIZE][SIZE], before[SIZE][SIZE];

const u64 loop_expected = 0x142AF227FE84F002;

static void step(float (*restrict to)[SIZE], float (*restrict from)[SIZE])
{
    for (u32 i = 1; i < SIZE - 1; i++)
        for (u32 j = 1; j < SIZE - 1; j++) {
            float sides = from[i - 1][j] + from[i + 1][j] + from[i][j - 1] + from[i][j + 1];
            to[i][j] = 2 * from[i][j] - to[i][j] + 0.25f * (sides - 4 * from[i][j]);
        }
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 1; i < SIZE - 1; i++)
        for (u32 j = 1; j < SIZE - 1; j++)
            now[i][j] = before[i][j] = (int)(next_random(&state) >> 8) / 65536.0f;
    for (u32 count = 0; count < STEPS; count += 2) {
        step(before, now);
        step(now, before);
    }
    u64 sum = 0;
    for (u32 i = 0; i < SIZE; i++)
        for (u32 j = 0; j < SIZE; j++) {
            union { float value; u32 bits; } place = { now[i][j] };
            sum = sum * 31 + place.bits;
        }
    return sum;
}
