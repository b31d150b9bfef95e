//! The two 8259A interrupt controllers (Intel 8259A data sheet, order number 231468), and the
//! edge/level control registers of the 82371SB.

#include "chip.h"

const char chapter_name[] = "pic";

#define SHEET "8259A data sheet, "

/// How both are at the beginning of a check.
static void start(u8 master_mask, u8 slave_mask) {
    static const u8 irqs[] = {0, 1, 4, 8, 12};
    for (u32 i = 0; i < COUNT(irqs); i++)
        lower_line(irqs[i]);
    out8(ELCR, 0);
    out8(ELCR + 1, 0);
    pics_init(master_mask, slave_mask);
}

static u8 poll(u16 chip) {
    out8(chip, 0x0C);
    return in8(chip);
}

//
// Command words
//

static void masks(void) {
    begin(SHEET "OCW1: it sets and clears the mask bits, and a read with A0 = 1 gives them back");
    for (u16 chip = MASTER; chip <= SLAVE; chip += SLAVE - MASTER)
        for (u32 mask = 0; mask < 256; mask++) {
            out8(chip + 1, mask);
            title("chip at %x", chip);
            expect_value("mask", in8(chip + 1), mask);
        }
    end();
    begin(SHEET "ICW1: the mask register is cleared");
    for (u16 chip = MASTER; chip <= SLAVE; chip += SLAVE - MASTER) {
        out8(chip + 1, 0xFF);
        pic_init(chip, VECTORS, ICW4_8086);
        title("chip at %x", chip);
        expect_value("mask", in8(chip + 1), 0);
        out8(chip + 1, 0xFF);
    }
    end();
}

static void vectors(void) {
    begin(SHEET "ICW2: T7 to T3 are bits 7 to 3 of the vector, the level is the others");
    static const u8 irqs[] = {0, 1, 4, 8, 12};
    for (u32 base = 0x20; base < 0x100; base += 0x2B)
        for (u32 i = 0; i < COUNT(irqs); i++) {
            start(0xFF, 0xFF);
            pic_init(MASTER, base, ICW4_8086);
            pic_init(SLAVE, base ^ 0xC0, ICW4_8086);
            raise_line(irqs[i]);
            title("IRQ %u, ICW2 %x", irqs[i], base);
            u8 expected = irqs[i] < 8 ? (base & 0xF8) | irqs[i] : ((base ^ 0xC0) & 0xF8) | (irqs[i] - 8);
            // Not where exceptions are.
            if (expected >= 0x20)
                expect_value("vector", take(), expected);
        }
    end();
}

static void initialization(void) {
    start(0xFF, 0xFF);
    raise_line(0);
    pics_init(0, 0xFF);
    check(!(irr(MASTER) & 1) && take() == NOTHING,
          SHEET "ICW1 (a): the edge sense circuit is reset: a line that is high must fall and rise again");
    lower_line(0);
    raise_line(0);
    check(irr(MASTER) & 1 && take() == VECTORS, SHEET "ICW1 (a): and then makes a request");

    start(0, 0xFF);
    out8(MASTER, SET_PRIORITY | 0);             // IR1 first
    pics_init(0xFF, 0xFF);
    raise_line(0);
    raise_line(1);
    out8(MASTER + 1, 0);
    check_value(take(), VECTORS, SHEET "ICW1 (c): IR7 gets the lowest priority");

    start(0xEE, 0xFF);
    raise_line(0);
    take();
    out8(MASTER, READ_ISR);
    bool in_service = in8(MASTER) == 1;
    pics_init(0xFF, 0xFF);
    raise_line(4);
    check(in_service && in8(MASTER) == 0x10, SHEET "ICW1 (e): reads give IRR again");

    start(0xFF, 0xFF);
    pic_init(MASTER, VECTORS, ICW4_8086 | ICW4_AEOI);
    pic_init(MASTER, VECTORS, ICW4_8086);
    out8(MASTER + 1, 0xFE);
    raise_line(0);
    check(take() == VECTORS && isr(MASTER) == 1, SHEET "ICW4: without AEOI a level stays in service");

    // In cascade mode ICW3 follows, with SNGL it does not.
    start(0xFF, 0xFF);
    out8(MASTER, 0x13);
    out8(MASTER + 1, 0x48);
    out8(MASTER + 1, ICW4_8086);
    out8(MASTER + 1, 0xFE);
    raise_line(0);
    check(in8(MASTER + 1) == 0xFE && take() == 0x48, SHEET "ICW1: with SNGL there is no ICW3");
}

//
// Requests
//

static void requests(void) {
    static const u8 irqs[] = {0, 1, 4, 8, 12};
    begin(SHEET "\"Reading the 8259A status\": IRR holds the requests, masked ones too, and ISR the levels in service");
    for (u32 i = 0; i < COUNT(irqs); i++) {
        u8 irq = irqs[i], bit = 1 << irq % 8;
        u16 chip = irq < 8 ? MASTER : SLAVE;
        start(0xFF, 0xFF);
        title("IRQ %u", irq);
        expect_value("IRR before", irr(chip), 0);
        raise_line(irq);
        expect_value("IRR, masked", irr(chip), bit);
        expect_value("taken, masked", take(), NOTHING);
        expect_value("ISR, masked", isr(chip), 0);
        out8(chip + 1, ~bit);
        if (chip == SLAVE)
            out8(MASTER + 1, (u8)~(1 << CASCADE));
        expect_value("IRR, unmasked", irr(chip), bit);
        expect_value("vector", take(), VECTORS + irq);
        expect_value("IRR in service", irr(chip), 0);
        expect_value("ISR in service", isr(chip), bit);
        if (chip == SLAVE)
            expect_value("ISR of the master", isr(MASTER), 1 << CASCADE);
        expect_value("again", take(), NOTHING);
        out8(chip, EOI);
        expect_value("ISR after EOI", isr(chip), 0);
        if (chip == SLAVE) {
            expect_value("the master's ISR after the slave's EOI", isr(MASTER), 1 << CASCADE);
            out8(MASTER, EOI);
        }
        expect_value("ISR of the master after EOI", isr(MASTER), 0);
        expect_value("a level that stays high, on edges", take(), NOTHING);
        lower_line(irq);
        raise_line(irq);
        expect_value("the next edge", take(), VECTORS + irq);
    }
    end();

    start(0, 0xFF);
    raise_line(4);
    lower_line(4);
    check(irr(MASTER) == 0 && take() == NOTHING,
          SHEET "\"IR triggering timing requirements\": a request lasts only while the line is high");

    start(0, 0xFF);
    out8(MASTER, READ_ISR);
    u8 first = in8(MASTER), second = in8(MASTER);
    raise_line(4);
    u8 still_isr = in8(MASTER);
    out8(MASTER, 0x08);                         // RR is 0: no action
    u8 same = in8(MASTER);
    out8(MASTER, READ_IRR);
    check(!first && !second && !still_isr && !same && in8(MASTER) == 0x10 && in8(MASTER) == 0x10,
          SHEET "\"Reading the 8259A status\": the register that OCW3 selects stays selected");

    start(0xFF, (u8)~0x10);
    raise_line(12);
    bool held = take() == NOTHING && irr(MASTER) == 1 << CASCADE;
    out8(MASTER + 1, (u8)~(1 << CASCADE));
    check(held && take() == SLAVE_VECTORS + 4, SHEET "\"Interrupt masks\": a mask on the cascade holds all of the slave back");
}

static void levels(void) {
    out8(ELCR, 0xFF);
    out8(ELCR + 1, 0xFF);
    if (in8(ELCR) == 0xFF) {
        skip("82371SB data sheet 2.5.5: levels", "the board has no ELCR");
        return;
    }
    check(in8(ELCR) == 0xF8 && in8(ELCR + 1) == 0xDE,
          "82371SB data sheet 2.5.5, ELCR1, ELCR2: IRQ 0, 1, 2, 8 and 13 are always of edges");
    start(0xEF, 0xFF);
    out8(ELCR, 0x10);
    raise_line(4);
    bool first = take() == VECTORS + 4;
    bool waits = irr(MASTER) == 0x10 && take() == NOTHING;
    out8(MASTER, EOI);
    bool again = take() == VECTORS + 4;
    lower_line(4);
    bool gone = irr(MASTER) == 0;
    out8(MASTER, EOI);
    check(first && waits && again && gone && take() == NOTHING,
          SHEET "\"Edge and level triggered modes\": a level that is still there after EOI requests again");
    start(0xEF, 0xFF);
    raise_line(4);
    out8(ELCR, 0x10);
    pics_init(0xEF, 0xFF);
    check_value(take(), VECTORS + 4, SHEET "\"Edge and level triggered modes\": a level needs no edge, after ICW1 either");
    start(0xFF, 0xFF);
}

//
// Priorities
//

static void nesting(void) {
    start(0, 0xFF);
    raise_line(1);
    bool outer = take() == VECTORS + 1;
    raise_line(4);
    bool lower_waits = take() == NOTHING;
    raise_line(0);
    bool higher_comes = take() == VECTORS && isr(MASTER) == 3;
    check(outer && lower_waits && higher_comes,
          SHEET "\"Fully nested mode\": a higher level interrupts, the same and lower ones wait");
    out8(MASTER, EOI);
    bool highest_ended = isr(MASTER) == 2 && take() == NOTHING;
    out8(MASTER, EOI);
    check(highest_ended && isr(MASTER) == 0 && take() == VECTORS + 4,
          SHEET "\"End of interrupt\": a non-specific EOI ends the highest level in service");
    out8(MASTER, EOI);
    out8(MASTER, EOI);
    check_value(isr(MASTER), 0, SHEET "\"End of interrupt\": and does nothing when there is none");

    start(0, 0xFF);
    raise_line(4);
    take();
    raise_line(0);
    take();
    out8(MASTER, EOI_OF | 4);
    bool named = isr(MASTER) == 1;
    out8(MASTER, EOI_OF | 3);
    check(named && isr(MASTER) == 1, SHEET "OCW2: a specific EOI ends the level that it names and no other");
}

static void automatic_end(void) {
    start(0xFF, 0xFF);
    pic_init(MASTER, VECTORS, ICW4_8086 | ICW4_AEOI);
    raise_line(0);
    check(take() == VECTORS && isr(MASTER) == 0 && take() == NOTHING,
          SHEET "\"Automatic end of interrupt\": nothing is in service after the acknowledge");
    start(0xFF, 0xFF);
    pic_init(MASTER, VECTORS, ICW4_8086 | ICW4_AEOI);
    out8(MASTER, ROTATE_AEOI);
    out8(MASTER + 1, 0xFF);
    raise_line(0);
    raise_line(1);
    raise_line(4);
    out8(MASTER + 1, 0);
    bool first = take() == VECTORS;
    lower_line(0);
    raise_line(0);
    check(first && take() == VECTORS + 1 && take() == VECTORS + 4 && take() == VECTORS,
          SHEET "\"Automatic rotation\": in AEOI mode, the level that was served gets the lowest priority");
    start(0xFF, 0xFF);
    pic_init(MASTER, VECTORS, ICW4_8086 | ICW4_AEOI);
    out8(MASTER, ROTATE_AEOI);
    out8(MASTER, NO_ROTATE_AEOI);
    raise_line(0);
    take();
    out8(MASTER + 1, 0xFF);
    lower_line(0);
    raise_line(0);
    raise_line(1);
    out8(MASTER + 1, 0);
    check_value(take(), VECTORS, SHEET "OCW2: 000 ends rotation in AEOI mode");
}

/// The order in which lines 0, 1 and 4 are served when `lowest` has the lowest priority.
static void rotation(void) {
    begin(SHEET "\"Specific rotation\": set priority makes a level the lowest, and the next one the highest");
    for (u8 lowest = 0; lowest < 8; lowest++) {
        start(0xFF, 0xFF);
        out8(MASTER, SET_PRIORITY | lowest);
        raise_line(0);
        raise_line(1);
        raise_line(4);
        out8(MASTER + 1, 0xEC);
        title("lowest %u", lowest);
        for (u8 i = 1; i <= 8; i++) {
            u8 level = (lowest + i) % 8;
            if (level == 0 || level == 1 || level == 4) {
                expect_value("vector", take(), VECTORS + level);
                out8(MASTER, EOI);
            }
        }
        expect_value("end", take(), NOTHING);
    }
    end();

    start(0xFF, 0xFF);
    raise_line(0);
    raise_line(1);
    out8(MASTER + 1, 0);
    bool first = take() == VECTORS;
    out8(MASTER, ROTATE_EOI);
    lower_line(0);
    raise_line(0);
    check(first && isr(MASTER) == 0 && take() == VECTORS + 1,
          SHEET "\"Automatic rotation\": rotate on non-specific EOI makes the level that ends the lowest");
    out8(MASTER, EOI);
    check_value(take(), VECTORS, SHEET "\"Automatic rotation\": and it is served after the others");

    start(0, 0xFF);
    raise_line(4);
    take();
    raise_line(0);
    take();
    out8(MASTER, ROTATE_EOI_OF | 4);
    bool ended = isr(MASTER) == 1;
    out8(MASTER, EOI);
    out8(MASTER + 1, 0xFF);
    lower_line(4);
    lower_line(0);
    raise_line(0);
    raise_line(4);
    out8(MASTER + 1, 0);
    check(ended && take() == VECTORS, SHEET "\"Specific rotation\": rotate on specific EOI ends a level and makes it the lowest");
}

static void special_mask(void) {
    start(0, 0xFF);
    raise_line(1);
    take();
    out8(MASTER + 1, 0x02);
    raise_line(4);
    check_value(take(), NOTHING, SHEET "\"Special mask mode\": without it, a masked level in service holds lower ones back");
    out8(MASTER, 0x68);
    check(take() == VECTORS + 4 && isr(MASTER) == 0x12,
          SHEET "\"Special mask mode\": with it, it holds nothing back but itself");
    out8(MASTER, EOI_OF | 4);
    lower_line(4);
    raise_line(4);
    out8(MASTER, 0x28);                         // ESMM is 0: SMM does not matter
    bool kept = take() == VECTORS + 4;
    out8(MASTER, EOI_OF | 4);
    lower_line(4);
    raise_line(4);
    out8(MASTER, 0x48);
    check(kept && take() == NOTHING, SHEET "OCW3: SMM counts only with ESMM, which also ends the mode");
    out8(MASTER, 0x68);
    pics_init(0, 0xFF);
    lower_line(1);
    raise_line(1);
    take();
    out8(MASTER + 1, 2);
    lower_line(4);
    raise_line(4);
    check_value(take(), NOTHING, SHEET "ICW1 (e): special mask mode is cleared");
}

static void polling(void) {
    start(0, 0xFF);
    check_value(poll(MASTER) & 0x80, 0, SHEET "\"Poll command\": I is 0 when there is no request");
    raise_line(4);
    u8 word = poll(MASTER);
    check(word == 0x84 && isr(MASTER) == 0x10 && irr(MASTER) == 0 && take() == NOTHING,
          SHEET "\"Poll command\": the read is the acknowledge and gives the highest level");
    start(0, 0xFF);
    raise_line(4);
    raise_line(0);
    out8(MASTER, 0x0E);                         // P and RR
    word = in8(MASTER);
    check(word == 0x80 && isr(MASTER) == 1, SHEET "\"Reading the 8259A status\": polling overrides reading when P and RR are both 1");
    check_value(poll(MASTER) & 0x80, 0, SHEET "\"Poll command\": a level that waits for one in service is no request");
    start(0xFB, 0);
    raise_line(12);
    u8 above = poll(MASTER), below = poll(SLAVE);
    check(above == 0x82 && below == 0x84 && isr(MASTER) == 4 && isr(SLAVE) == 0x10,
          SHEET "\"Poll command\": through a cascade, each is polled");
}

static void cascade(void) {
    start(0, 0);
    raise_line(12);
    bool first = take() == SLAVE_VECTORS + 4;
    raise_line(8);
    bool blocked = take() == NOTHING;
    raise_line(0);
    check(first && blocked && take() == VECTORS,
          SHEET "\"Fully nested mode\": the master holds the whole slave back while one of its levels is in service");
    out8(MASTER, EOI);
    out8(MASTER, EOI);
    check_value(take(), SLAVE_VECTORS, SHEET "\"Cascade mode\": after the master's EOI, a higher level of the slave comes");

    start(0xFF, 0xFF);
    pic_init(MASTER, VECTORS, ICW4_8086 | ICW4_SFNM);
    out8(SLAVE + 1, 0);
    raise_line(12);
    first = take() == SLAVE_VECTORS + 4;
    raise_line(8);
    bool nested = take() == SLAVE_VECTORS && isr(SLAVE) == 0x11 && isr(MASTER) == 4;
    check(first && nested, SHEET "\"Special fully nested mode\": a higher level of the slave is not locked out");
    out8(SLAVE, EOI);
    check_value(isr(SLAVE), 0x10, SHEET "\"Special fully nested mode\": software reads the slave's ISR after its EOI, to see if it was the only one");
    start(0, 0);
    raise_line(8);
    raise_line(4);
    check(take() == SLAVE_VECTORS && take() == NOTHING,
          SHEET "\"Cascade mode\": the slave's levels come at the priority of the pin it is on");
    out8(SLAVE, EOI);
    out8(MASTER, EOI_OF | CASCADE);
    check_value(take(), VECTORS + 4, SHEET "\"Cascade mode\": an EOI must be issued twice");
}

void chapter(void) {
    about(0);
    masks();
    initialization();
    vectors();
    requests();
    levels();
    nesting();
    automatic_end();
    rotation();
    special_mask();
    polling();
    cascade();
    pics_quiet();
}
