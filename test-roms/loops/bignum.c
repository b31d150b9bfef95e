//! A power modulo a number of 2,048 bits by Montgomery's multiplication: multiply, add, carry.

#include "loop.h"

#define LIMBS 64
#define EXPONENT_BITS 700

typedef u32 number[LIMBS];

static number modulus, base, result;

const u64 loop_expected = 0x1A864C4DE0C47EF8;

/// -1 / modulus modulo 2^32, by Newton's iteration.
static u32 inverse(u32 odd)
{
    u32 x = odd;
    for (u32 i = 0; i < 5; i++)
        x *= 2 - odd * x;
    return -x;
}

/// a - modulus if that is not negative; `carry` is the limb above a.
static void reduce(number to, const u32 *a, u32 carry)
{
    number less;
    u32 borrow = 0;
    for (u32 i = 0; i < LIMBS; i++) {
        u64 difference = (u64)a[i] - modulus[i] - borrow;
        less[i] = difference;
        borrow = difference >> 63;
    }
    const u32 *chosen = carry >= borrow ? less : a;
    for (u32 i = 0; i < LIMBS; i++)
        to[i] = chosen[i];
}

/// a * b / 2^(32 * LIMBS) modulo the modulus (Koc, Acar and Kaliski, 1996: CIOS).
static void multiply(number to, const number a, const number b, u32 factor)
{
    u32 t[LIMBS + 2] = { 0 };
    for (u32 i = 0; i < LIMBS; i++) {
        u64 carry = 0;
        for (u32 j = 0; j < LIMBS; j++) {
            carry += (u64)a[j] * b[i] + t[j];
            t[j] = carry;
            carry >>= 32;
        }
        carry += t[LIMBS];
        t[LIMBS] = carry;
        t[LIMBS + 1] = carry >> 32;
        u32 m = t[0] * factor;
        carry = ((u64)m * modulus[0] + t[0]) >> 32;
        for (u32 j = 1; j < LIMBS; j++) {
            carry += (u64)m * modulus[j] + t[j];
            t[j - 1] = carry;
            carry >>= 32;
        }
        carry += t[LIMBS];
        t[LIMBS - 1] = carry;
        t[LIMBS] = t[LIMBS + 1] + (carry >> 32);
    }
    reduce(to, t, t[LIMBS]);
}

/// The last 64 bits of base^exponent * 2^(-32 * LIMBS * (exponent - 1)) modulo the modulus, for an
/// exponent of EXPONENT_BITS ones.
u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < LIMBS; i++) {
        modulus[i] = next_random(&state);
        base[i] = next_random(&state);
    }
    modulus[0] |= 1;
    modulus[LIMBS - 1] |= 0x80000000;
    base[LIMBS - 1] &= 0x7FFFFFFF;
    u32 factor = inverse(modulus[0]);
    for (u32 i = 0; i < LIMBS; i++)
        result[i] = base[i];
    for (u32 bit = 1; bit < EXPONENT_BITS; bit++) {
        multiply(result, result, result, factor);
        multiply(result, result, base, factor);
    }
    return (u64)result[1] << 32 | result[0];
}
