//! A descriptor's access byte taken apart (SDM vol. 3A 3.4.5), for rules written as the manual has
//! them.

#pragma once

#include "suite.h"

struct access {
    bool present, code, data, system, writable, readable, conforming, expand_down;
    u32 type, dpl;
};

static inline struct access access_of(u32 byte) {
    bool segment = byte & 0x10, code = segment && byte & 8;
    return (struct access){
        .present = byte & PRESENT,
        .code = code,
        .data = segment && !code,
        .system = !segment,
        .writable = segment && !code && byte & WRITABLE,
        .readable = segment && (!code || byte & READABLE),
        .conforming = code && byte & CONFORMING,
        .expand_down = segment && !code && byte & EXPAND_DOWN,
        .type = byte & 15,
        .dpl = byte >> 5 & 3,
    };
}

/// A flat 32-bit segment with this access byte: an expand-down one begins at one.
static inline u64 flat_segment(u32 byte) {
    struct access a = access_of(byte);
    return a.expand_down ? descriptor(0, 0, byte | B) : descriptor(0, 0xFFFFF, byte | B | G);
}

/// What a rule expects: vector and error code, or BP for none.
struct fault {
    u32 vector, error;
};
#define NO_FAULT ((struct fault){BP, 0})
static inline struct fault fault(u32 vector, u32 error) { return (struct fault){vector, error}; }
