//! What the loops share: types, a random number generator, and the interface to who measures them.

#ifndef LOOP_H
#define LOOP_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/// Runs the loop and returns a checksum of its results.
u64 loop_body(void);

/// What loop_body must return.
extern const u64 loop_expected;

/// The next number of a xorshift generator (Marsaglia, 2003).
static inline u32 next_random(u32 *state)
{
    u32 x = *state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

#endif
