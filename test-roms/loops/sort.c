//! Quicksort of random numbers, with insertion sort for short parts.

#include "loop.h"

#define COUNT 400000
#define SHORT 16

static u32 numbers[COUNT];

const u64 loop_expected = 0xB7E0C1040C58ECBC;

static void insertion_sort(u32 *first, u32 *last)
{
    for (u32 *next = first + 1; next <= last; next++) {
        u32 value = *next;
        u32 *hole = next;
        for (; hole > first && hole[-1] > value; hole--)
            *hole = hole[-1];
        *hole = value;
    }
}

static void quicksort(u32 *first, u32 *last)
{
    while (last - first >= SHORT) {
        u32 pivot = first[(last - first) / 2];
        u32 *left = first - 1;
        u32 *right = last + 1;
        for (;;) {
            do
                left++;
            while (*left < pivot);
            do
                right--;
            while (*right > pivot);
            if (left >= right)
                break;
            u32 swapped = *left;
            *left = *right;
            *right = swapped;
        }
        quicksort(first, right);
        first = right + 1;
    }
    insertion_sort(first, last);
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < COUNT; i++)
        numbers[i] = next_random(&state);
    quicksort(numbers, numbers + COUNT - 1);
    u64 sum = 0;
    for (u32 i = 0; i < COUNT; i++)
        sum = sum * 31 + numbers[i];
    return sum;
}
