//! A program whose output is the same wherever it is compiled and run: all that it computes has a
//! width of its own, and what it does with floating point is exact.

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t next(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
}

static uint32_t crc32(const uint8_t *data, size_t size)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static int by_value(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void sorting(void)
{
    enum { COUNT = 20000 };
    int32_t *numbers = malloc(COUNT * sizeof *numbers);
    for (int i = 0; i < COUNT; i++)
        numbers[i] = (int32_t)(next() >> 32);
    qsort(numbers, COUNT, sizeof *numbers, by_value);
    printf("sorted %08x, median %d\n", crc32((uint8_t *)numbers, COUNT * sizeof *numbers), numbers[COUNT / 2]);
    free(numbers);
}

static void division(void)
{
    uint64_t sum = 0;
    int64_t balance = 0;
    for (int i = 0; i < 200000; i++) {
        uint64_t a = next(), b = next() >> (i % 63) | 1;
        sum += a / b ^ a % b;
        balance += (int64_t)a / (int64_t)(b >> 1 | 1) - (int64_t)a % (int64_t)(b >> 1 | 1);
        sum = sum << (a & 63) | sum >> (-a & 63);
    }
    printf("quotients %016llx %016llx\n", (unsigned long long)sum, (unsigned long long)balance);
}

/// Multiples of 2^-20 below 2^20: sums and products of them are exact.
static void floating_point(void)
{
    volatile double sum = 0, product = 1;
    volatile float narrow = 0;
    for (int i = 0; i < 100000; i++) {
        double x = (double)(next() >> 44) / 1048576.0;
        sum += x * 0.5 - 0.25;
        narrow = (float)((int)(narrow + (float)(next() >> 56)) % 65536);
        if (i % 1000 == 0)
            product = product * 3 - (double)(int64_t)(product * 3 / 4096) * 4096;
    }
    printf("floats %.17g %.17g %g, %d\n", sum, product, narrow, (int)(sum * 1024));
}

static uint32_t ackermann(uint32_t m, uint32_t n)
{
    return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static uint64_t add_all(int count, ...)
{
    uint64_t sum = 0;
    va_list list;
    va_start(list, count);
    for (int i = 0; i < count; i++)
        sum = sum * 31 + va_arg(list, uint64_t);
    va_end(list);
    return sum;
}

static void jumps(void)
{
    jmp_buf there;
    volatile int times = 0;
    int value = setjmp(there);
    times += value;
    if (value < 100)
        longjmp(there, value + 1);
    printf("jumps %d\n", times);
}

static void texts(void)
{
    static char text[20000];
    size_t length = 0;
    for (int i = 0; i < 900; i++)
        length += (size_t)sprintf(text + length, "%d:%x:%5.2f;", i, (unsigned)(next() >> 40), i / 8.0);
    char *found = strstr(text, "899:");
    printf("text %zu %08x %td\n", length, crc32((uint8_t *)text, length), found ? found - text : -1);
    memmove(text + 3, text, 10000);
    printf("moved %08x %d\n", crc32((uint8_t *)text, length), memcmp(text, text + 3, 500) == 0);
}

int main(void)
{
    sorting();
    division();
    floating_point();
    printf("ackermann %u\n", ackermann(2, 300));
    uint64_t a = next(), b = next(), c = next();
    printf("arguments %016llx\n", (unsigned long long)add_all(9, a, b, c, a + b, b ^ c, c - a, ~a, -b, c << 7));
    jumps();
    texts();
    return 0;
}
