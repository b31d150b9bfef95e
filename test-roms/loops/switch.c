//! An interpreter: bytecode of a stack machine, a loop around a switch.

#include "loop.h"

#define LIMIT 6000

enum op { PUSH, LOAD, STORE, ADD, MULTIPLY, HALVE, ODD, LESS, JUMP, JUMP_IF_NOT, HALT };

enum variable { START, N, STEPS, MOST, BEST, VARIABLES };

struct instruction {
    u32 op;
    u32 operand;
};

// The start below LIMIT with the longest Collatz sequence, and its number of steps.
static const struct instruction program[] = {
    /*  0 */ { PUSH, 1 }, { STORE, START },
    /*  2 */ { LOAD, START }, { PUSH, LIMIT }, { LESS, 0 }, { JUMP_IF_NOT, 44 },
    /*  6 */ { LOAD, START }, { STORE, N }, { PUSH, 0 }, { STORE, STEPS },
    // while 1 < n
    /* 10 */ { PUSH, 1 }, { LOAD, N }, { LESS, 0 }, { JUMP_IF_NOT, 31 },
    // n = odd(n) ? n * 3 + 1 : n / 2
    /* 14 */ { LOAD, N }, { ODD, 0 }, { JUMP_IF_NOT, 23 },
    /* 17 */ { LOAD, N }, { PUSH, 3 }, { MULTIPLY, 0 }, { PUSH, 1 }, { ADD, 0 }, { JUMP, 25 },
    /* 23 */ { LOAD, N }, { HALVE, 0 },
    /* 25 */ { STORE, N },
    /* 26 */ { LOAD, STEPS }, { PUSH, 1 }, { ADD, 0 }, { STORE, STEPS }, { JUMP, 10 },
    // if most < steps
    /* 31 */ { LOAD, MOST }, { LOAD, STEPS }, { LESS, 0 }, { JUMP_IF_NOT, 39 },
    /* 35 */ { LOAD, STEPS }, { STORE, MOST }, { LOAD, START }, { STORE, BEST },
    /* 39 */ { LOAD, START }, { PUSH, 1 }, { ADD, 0 }, { STORE, START }, { JUMP, 2 },
    /* 44 */ { HALT, 0 },
};

// Starts below 6,000: 3,711 takes the most steps, 237 (OEIS A006877, A006878).
const u64 loop_expected = (u64)3711 << 32 | 237;

static u64 variables[VARIABLES];
static u64 stack[16];

static void interpret(const struct instruction *next)
{
    u64 *top = stack; // the highest value in use
    for (;;) {
        u32 operand = next->operand;
        switch ((enum op)(next++)->op) {
        case PUSH:
            *++top = operand;
            break;
        case LOAD:
            *++top = variables[operand];
            break;
        case STORE:
            variables[operand] = *top--;
            break;
        case ADD:
            top--;
            top[0] += top[1];
            break;
        case MULTIPLY:
            top--;
            top[0] *= top[1];
            break;
        case HALVE:
            *top /= 2;
            break;
        case ODD:
            *top %= 2;
            break;
        case LESS:
            top--;
            top[0] = top[0] < top[1];
            break;
        case JUMP:
            next = program + operand;
            break;
        case JUMP_IF_NOT:
            if (!*top--)
                next = program + operand;
            break;
        case HALT:
            return;
        }
    }
}

u64 loop_body(void)
{
    interpret(program);
    return variables[BEST] << 32 | variables[MOST];
}
