//! Calls through pointers: objects of several kinds, each with a table of methods.

#include "loop.h"

#define OBJECTS 1000
#define ROUNDS 2500

struct object;

struct methods {
    u32 (*value)(const struct object *);
    void (*step)(struct object *, u32);
};

struct object {
    const struct methods *methods;
    u32 a, b;
};

static struct object objects[OBJECTS];

const u64 loop_expected = 0xC7F6578F7DAFA5FA;

#define KIND(name, VALUE, STEP)                                                                    \
    static u32 name##_value(const struct object *self)                                             \
    {                                                                                              \
        return VALUE;                                                                              \
    }                                                                                              \
    static void name##_step(struct object *self, u32 by)                                           \
    {                                                                                              \
        STEP;                                                                                      \
    }

KIND(sum, self->a + self->b, self->a += by)
KIND(difference, self->a - self->b, self->b += by)
KIND(product, self->a * self->b, self->a ^= by)
KIND(mask, self->a & self->b, self->b = self->b * 5 + by)
KIND(shift, self->a >> (self->b & 31), self->b += by | 1)
KIND(greater, self->a > self->b ? self->a : self->b, (self->a -= by, self->b++))
KIND(parity, __builtin_parity(self->a ^ self->b), self->a = self->b + by)
KIND(constant, self->b, ((void)self, (void)by))

#define METHODS(name) { name##_value, name##_step }

static const struct methods kinds[] = {
    METHODS(sum), METHODS(difference), METHODS(product), METHODS(mask),
    METHODS(shift), METHODS(greater), METHODS(parity), METHODS(constant),
};

u64 loop_body(void)
{
    u32 state = 2463534242;
    for (u32 i = 0; i < OBJECTS; i++) {
        objects[i].methods = &kinds[next_random(&state) >> 29];
        objects[i].a = next_random(&state);
        objects[i].b = next_random(&state);
    }
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++)
        for (u32 i = 0; i < OBJECTS; i++) {
            struct object *object = &objects[i];
            u32 value = object->methods->value(object);
            object->methods->step(object, value);
            sum = sum * 3 + value;
        }
    return sum;
}
