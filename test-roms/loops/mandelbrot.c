//! The Mandelbrot set: scalar double-precision multiplications, a comparison in each turn.

#include "loop.h"

#define WIDTH 320
#define HEIGHT 240
#define MOST 200

const u64 loop_expected = 0x84BFA4CACA2F42C0;

static u32 iterations(double cx, double cy)
{
    double x = 0, y = 0;
    u32 count = 0;
    while (count < MOST && x * x + y * y <= 4) {
        double next = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = next;
        count++;
    }
    return count;
}

u64 loop_body(void)
{
    u64 sum = 0;
    for (u32 row = 0; row < HEIGHT; row++)
        for (u32 column = 0; column < WIDTH; column++) {
            double x = (double)(int)column * 3 / WIDTH - 2.25;
            double y = (double)(int)row * 2.5 / HEIGHT - 1.25;
            sum = sum * 3 + iterations(x, y);
        }
    return sum;
}
