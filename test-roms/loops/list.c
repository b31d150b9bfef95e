//! Linked lists: nodes in random order in memory, walked, reversed and sorted by merging.

#include "loop.h"

#define NODES 20000
#define ROUNDS 8

struct node {
    struct node *next;
    u64 key;
};

static struct node nodes[NODES];
static u32 order[NODES];

const u64 loop_expected = 0xF81ABDA3EA54FF1A;

static struct node *build(u32 *state)
{
    for (u32 i = 0; i < NODES; i++)
        order[i] = i;
    for (u32 i = NODES - 1; i > 0; i--) {
        u32 j = next_random(state) % (i + 1);
        u32 swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
    struct node *head = 0;
    for (u32 i = 0; i < NODES; i++) {
        struct node *node = &nodes[order[i]];
        node->key = next_random(state);
        node->next = head;
        head = node;
    }
    return head;
}

static u64 walk(const struct node *head)
{
    u64 sum = 0;
    for (; head; head = head->next)
        sum = sum * 31 + head->key;
    return sum;
}

static struct node *reverse(struct node *head)
{
    struct node *done = 0;
    while (head) {
        struct node *next = head->next;
        head->next = done;
        done = head;
        head = next;
    }
    return done;
}

static struct node *merge(struct node *a, struct node *b)
{
    struct node *head = 0;
    struct node **tail = &head;
    while (a && b) {
        if (b->key < a->key) {
            *tail = b;
            b = b->next;
        } else {
            *tail = a;
            a = a->next;
        }
        tail = &(*tail)->next;
    }
    *tail = a ? a : b;
    return head;
}

static struct node *sort(struct node *head)
{
    if (!head || !head->next)
        return head;
    struct node *middle = head;
    for (struct node *end = head->next; end && end->next; end = end->next->next)
        middle = middle->next;
    struct node *second = middle->next;
    middle->next = 0;
    return merge(sort(head), sort(second));
}

u64 loop_body(void)
{
    u32 state = 2463534242;
    u64 sum = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        struct node *head = build(&state);
        sum += walk(head);
        head = reverse(head);
        sum ^= walk(head);
        head = sort(head);
        for (u32 i = 0; i < 20; i++)
            sum += walk(head);
    }
    return sum;
}
