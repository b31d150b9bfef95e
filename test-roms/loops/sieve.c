//! Sieve of Eratosthenes: byte stores with a stride, and a counting loop.

#include "loop.h"

#define LIMIT 1000000
#define ROUNDS 5

static u8 composite[LIMIT];

const u64 loop_expected = 78498 * ROUNDS; // pi(10^6) = 78498

static u64 count_primes(void)
{
    for (u32 i = 0; i < LIMIT; i++)
        composite[i] = 0;
    for (u32 i = 2; i * i < LIMIT; i++)
        if (!composite[i])
            for (u32 j = i * i; j < LIMIT; j += i)
                composite[j] = 1;
    u64 count = 0;
    for (u32 i = 2; i < LIMIT; i++)
        count += !composite[i];
    return count;
}

u64 loop_body(void)
{
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++)
        sum += count_primes();
    return sum;
}
