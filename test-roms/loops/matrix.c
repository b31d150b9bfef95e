//! Powers of an integer matrix: three nested loops of multiplications and additions.

#include "loop.h"

#define SIZE 96
#define ROUNDS 28

typedef u32 matrix[SIZE][SIZE];

static matrix base, power, product;

const u64 loop_expected = 0x8D4A21FBD03B4262;

static void multiply(matrix result, matrix a, matrix b)
{
    for (u32 i = 0; i < SIZE; i++)
        for (u32 j = 0; j < SIZE; j++) {
            u32 sum = 0;
            for (u32 k = 0; k < SIZE; k++)
                sum += a[i][k] * b[k][j];
            result[i][j] = sum;
        }
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < SIZE; i++)
        for (u32 j = 0; j < SIZE; j++) {
            base[i][j] = next_random(&state);
            power[i][j] = i == j;
        }
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        multiply(product, power, base);
        for (u32 i = 0; i < SIZE; i++)
            for (u32 j = 0; j < SIZE; j++)
                sum = sum * 31 + (power[i][j] = product[i][j]);
    }
    return sum;
}
