//! Vectors of four floats times a 4 x 4 matrix: SSE multiplications, additions and shuffles.

#include "loop.h"

#define VECTORS 1024
#define ROUNDS 5600

typedef float v4 __attribute__((vector_size(16)));
typedef int i4 __attribute__((vector_size(16)));

static v4 vectors[VECTORS];

const u64 loop_expected = 0x43AC48B43CBAE8B2;

static inline v4 all(v4 v, int lane)
{
    return __builtin_shuffle(v, (i4){ lane, lane, lane, lane });
}

/// A rotation about x, then one about z, both by an angle whose sine is 0.6.
static void transform(void)
{
    const v4 m[4] = {
        { 0.8f, 0.6f, 0, 0 },
        { -0.48f, 0.64f, 0.6f, 0 },
        { 0.36f, -0.48f, 0.8f, 0 },
        { 0.125f, -0.25f, 0.0625f, 1 },
    };
    for (u32 i = 0; i < VECTORS; i++) {
        v4 v = vectors[i];
        vectors[i] = all(v, 0) * m[0] + all(v, 1) * m[1] + all(v, 2) * m[2] + all(v, 3) * m[3];
    }
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < VECTORS; i++)
        for (u32 k = 0; k < 4; k++)
            vectors[i][k] = k < 3 ? (int)(next_random(&state) >> 8) / 65536.0f : 1;
    for (u32 round = 0; round < ROUNDS; round++)
        transform();
    u64 sum = 0;
    for (u32 i = 0; i < VECTORS; i++) {
        union { v4 floats; u32 bits[4]; } v = { vectors[i] };
        for (u32 k = 0; k < 4; k++)
            sum = sum * 31 + v.bits[k];
    }
    return sum;
}
