//! An interrupt from outside at a known time: the 8254's counter 0 through the 8259A.

#pragma once

#include "suite.h"

#define IRQ_VECTOR 0x20

static inline u8 irq_requests(void) {
    out8(0x20, 0x0A);                           // OCW3: read IRR
    return in8(0x20);
}

static inline void irq_init(void) {
    // ICW1 to ICW4: edges, cascaded, vectors from 20h on.
    out8(0x20, 0x11);
    out8(0x21, IRQ_VECTOR);
    out8(0x21, 4);
    out8(0x21, 1);
    out8(0xA0, 0x11);
    out8(0xA1, IRQ_VECTOR + 8);
    out8(0xA1, 2);
    out8(0xA1, 1);
    out8(0x21, 0xFE);
    out8(0xA1, 0xFF);
    if (HAS_APIC) {
        // Virtual wire mode: LINT0 is the 8259A's line.
        *dwords(0xFEE000F0) = 0x1FF;
        *dwords(0xFEE00350) = 0x700;
    }
}

/// Has IRQ 0 requested and not yet taken when this returns: interrupts must be off.
static inline void irq_request(void) {
    out8(0x20, 0x20);                           // end of what came before
    out8(0x43, 0x30);                           // counter 0, mode 0: OUT goes high at the end
    out8(0x40, 20);
    out8(0x40, 0);
    while (!(irq_requests() & 1)) {
    }
}

/// Takes the request back.
static inline void irq_done(void) {
    irq_init();
    out8(0x21, 0xFF);
}
