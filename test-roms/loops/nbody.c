//! Planets around a sun: scalar double-precision arithmetic with a division and a square root.

#include "loop.h"

#define BODIES 5
#define STEPS 180000

struct body {
    double x[3], v[3], mass;
};

static struct body bodies[BODIES];

const u64 loop_expected = 0xDD0D368D3A1CEF97;

static double random_double(u32 *state)
{
    return (int)next_random(state) / 2147483648.0;
}

static void advance(double time)
{
    for (u32 i = 0; i < BODIES; i++)
        for (u32 j = i + 1; j < BODIES; j++) {
            struct body *a = &bodies[i], *b = &bodies[j];
            double d[3], square = 0.01; // no two bodies come too near
            for (u32 k = 0; k < 3; k++) {
                d[k] = a->x[k] - b->x[k];
                square += d[k] * d[k];
            }
            double force = time / (square * __builtin_sqrt(square));
            for (u32 k = 0; k < 3; k++) {
                a->v[k] -= d[k] * b->mass * force;
                b->v[k] += d[k] * a->mass * force;
            }
        }
    for (u32 i = 0; i < BODIES; i++)
        for (u32 k = 0; k < 3; k++)
            bodies[i].x[k] += time * bodies[i].v[k];
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < BODIES; i++) {
        for (u32 k = 0; k < 3; k++) {
            bodies[i].x[k] = 10 * random_double(&state);
            bodies[i].v[k] = random_double(&state);
        }
        bodies[i].mass = i ? 0.001 * i : 4;
    }
    for (u32 step = 0; step < STEPS; step++)
        advance(0.001);
    u64 sum = 0;
    for (u32 i = 0; i < BODIES; i++)
        for (u32 k = 0; k < 3; k++) {
            union { double value; u64 bits; } x = { bodies[i].x[k] };
            sum = sum * 31 + x.bits;
        }
    return sum;
}
