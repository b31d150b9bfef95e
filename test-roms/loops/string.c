//! Strings that end in a zero byte: numbers to text and back, length, comparison, search.

#include "loop.h"

#define NUMBERS 20000
#define ROUNDS 8
#define LONGEST 11

static char text[NUMBERS * LONGEST + 1];
static char words[NUMBERS][LONGEST + 1];

const u64 loop_expected = 0xBF3BD87B7E7D9AD2;

static u32 length(const char *string)
{
    const char *end = string;
    while (*end)
        end++;
    return end - string;
}

static int compare(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return (u8)*a - (u8)*b;
}

static char *append(char *to, const char *from)
{
    while ((*to = *from++))
        to++;
    return to;
}

static const char *find(const char *in, const char *what)
{
    for (; *in; in++) {
        u32 i = 0;
        while (what[i] && in[i] == what[i])
            i++;
        if (!what[i])
            return in;
    }
    return 0;
}

static void to_text(char *to, u32 number)
{
    char digits[LONGEST], *first = digits + LONGEST - 1;
    *first = 0;
    do
        *--first = '0' + number % 10;
    while (number /= 10);
    append(to, first);
}

static u32 to_number(const char *from)
{
    u32 number = 0;
    while (*from >= '0' && *from <= '9')
        number = number * 10 + (*from++ - '0');
    return number;
}

static u64 work(u32 *state)
{
    u64 sum = 0;
    char *end = text;
    for (u32 i = 0; i < NUMBERS; i++) {
        to_text(words[i], next_random(state));
        end = append(append(end, words[i]), " ");
    }
    for (u32 i = 1; i < NUMBERS; i++)
        sum += compare(words[i - 1], words[i]) < 0;
    for (const char *at = text; *at; at = find(at, " ") + 1)
        sum = sum * 5 + to_number(at);
    for (const char *at = text; (at = find(at, "177")); at++)
        sum += 1000003;
    return sum * 5 + length(text);
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++)
        sum = sum * 31 + work(&state);
    return sum;
}
