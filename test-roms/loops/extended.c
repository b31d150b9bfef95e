//! Exponentials by their series in the x87's 80-bit format: its stack, multiplications, divisions.

#include "loop.h"

#define COUNT 48000
#define TERMS 40

const u64 loop_expected = 0x985AAD5A287FDB86;

static long double exponential(long double x)
{
    long double sum = 1, term = 1;
    for (int i = 1; i < TERMS; i++) {
        term = term * x / i;
        sum += term;
    }
    return sum;
}

u64 loop_body(void)
{
    u64 sum = 0;
    for (int i = 0; i < COUNT; i++) {
        union { long double value; u64 significand; } result = { exponential(i / 16384.0L) };
        sum = sum * 31 + result.significand;
    }
    return sum;
}
