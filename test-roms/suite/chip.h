//! What the chapters about chips share: wider ports, interrupt lines that software can drive, and a
//! processor that takes what interrupts there are.

#pragma once

#include "suite.h"

static inline void out16(u16 port, u16 value) { asm volatile("out dx, ax" ::"a"(value), "d"(port)); }
static inline void out32(u16 port, u32 value) { asm volatile("out dx, eax" ::"a"(value), "d"(port)); }
static inline u16 in16(u16 port) {
    u16 value;
    asm volatile("in ax, dx" : "=a"(value) : "d"(port));
    return value;
}
static inline u32 in32(u16 port) {
    u32 value;
    asm volatile("in eax, dx" : "=a"(value) : "d"(port));
    return value;
}

//
// The two 8259As
//

enum { MASTER = 0x20, SLAVE = 0xA0, ELCR = 0x4D0 };
enum { VECTORS = 0x20, SLAVE_VECTORS = 0x28 };
enum { CASCADE = 2 };
/// OCW3 that reads IRR and ISR.
enum { READ_IRR = 0x0A, READ_ISR = 0x0B };
/// OCW2s.
enum { EOI = 0x20, EOI_OF = 0x60, ROTATE_EOI = 0xA0, ROTATE_EOI_OF = 0xE0, SET_PRIORITY = 0xC0,
       ROTATE_AEOI = 0x80, NO_ROTATE_AEOI = 0x00 };
/// Bits of ICW4.
enum { ICW4_8086 = 1, ICW4_AEOI = 2, ICW4_SFNM = 16 };

static inline u8 irr(u16 chip) {
    out8(chip, READ_IRR);
    return in8(chip);
}
static inline u8 isr(u16 chip) {
    out8(chip, READ_ISR);
    return in8(chip);
}
/// ICW1 to ICW4 of one; nothing is masked behind it.
static inline void pic_init(u16 chip, u8 vectors, u8 icw4) {
    out8(chip, 0x11);
    out8(chip + 1, vectors);
    out8(chip + 1, chip == MASTER ? 1 << CASCADE : CASCADE);
    out8(chip + 1, icw4);
}
/// Both as a PC has them, with these masks, and the processor listening to them.
void pics_init(u8 master_mask, u8 slave_mask);
/// Masks everything, and takes back all requests.
void pics_quiet(void);

//
// Interrupt lines
//

/// Drives an interrupt line: 0 by the 8254's counter 0, 1 and 12 by the 8042's output buffer, 4 by
/// COM1's transmitter, 8 by the MC146818's periodic interrupt.
void raise_line(u8 irq);
void lower_line(u8 irq);
/// The MC146818's registers and memory.
u8 cmos(u8 index);
void cmos_set(u8 index, u8 value);
/// Lets the processor take interrupts for a few instructions: the vector of the first that comes,
/// or NOTHING.
u32 take(void);
/// The same, but it waits with HLT in a loop until one comes.
u32 take_waiting(void);

//
// The 8254
//

enum { PIT = 0x40, PIT_CONTROL = 0x43, PIT_HZ = 1193182 };
/// Makes counter 0 the time base: mode 2, 65,536 clocks a round.
void ticks_init(void);
/// Its clocks so far, modulo 2^16.
u16 ticks(void);
/// Waits for so many clocks of counter 0, 60,000 at most.
void wait_ticks(u16 count);

//
// Checks that ask for the time
//

/// A check by a function, which may do it several times: an emulator whose host has other things to do
/// may stand still for longer than the check waits.
void check_timed(bool (*test)(u32), u32 argument, const char *text);
/// The same as one of many cases.
bool expect_timed(bool (*test)(u32), u32 argument);

//
// The I/O APIC and the local APIC in xAPIC mode
//

static inline u32 ioapic(u8 index) {
    *dwords(0xFEC00000) = index;
    return *dwords(0xFEC00010);
}
static inline void ioapic_set(u8 index, u32 value) {
    *dwords(0xFEC00000) = index;
    *dwords(0xFEC00010) = value;
}
/// An entry of the redirection table.
static inline void redirect(u8 pin, u32 low, u32 high) {
    ioapic_set(0x11 + 2 * pin, high);
    ioapic_set(0x10 + 2 * pin, low);
}
enum { REDIRECT_MASKED = 1 << 16 };
/// Switches the local APIC on, with the 8259A on LINT0 masked, and masks all of the I/O APIC.
void apics_init(void);
static inline void apic_eoi(void) { *dwords(0xFEE000B0) = 0; }
/// Whether there is an I/O APIC.
static inline bool has_ioapic(void) { return HAS_APIC && (ioapic(1) & 0xFF) >= 0x11 && (ioapic(1) & 0xFF) < 0x30; }
