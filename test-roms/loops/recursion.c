//! Fibonacci numbers by plain recursion: calls, returns and the stack.

#include "loop.h"

#define INDEX 32

const u64 loop_expected = 2178309; // F(32), OEIS A000045

static __attribute__((noinline)) u64 fibonacci(u32 n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

u64 loop_body(void)
{
    return fibonacci(INDEX);
}
