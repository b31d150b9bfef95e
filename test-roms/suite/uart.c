//! The 16550A (National Semiconductor PC16550D data sheet), COM1, in loopback mode for the most part. The
//! report goes through the same port, so a check is made when the port is as the report wants it.

#include "chip.h"

const char chapter_name[] = "uart";

#define SHEET "PC16550D data sheet "

enum { COM = 0x3F8, RBR = COM, THR = COM, IER, IIR, LCR, MCR, LSR, MSR, SCR, DLL = COM, DLM = IER, FCR = IIR };
enum { ERBFI = 1, ETBEI = 2, ELSI = 4, EDSSI = 8 };
enum { NONE = 1, MODEM = 0, THRE_INT = 2, RECEIVED = 4, LINE = 6, TIMEOUT = 0x0C };
enum { FIFO = 1, CLEAR_RECEIVER = 2, CLEAR_TRANSMITTER = 4 };
enum { DLAB = 0x80, WORD8 = 3 };
enum { DTR = 1, RTS = 2, OUT1 = 4, OUT2 = 8, LOOP = 16 };
enum { DR = 1, OE = 2, PE = 4, FE = 8, BI = 16, THRE = 32, TEMT = 64, FIFO_ERROR = 128 };

void serial_init(void);

/// Loopback, without FIFOs, without interrupts, nothing received.
static void start(void) {
    while (!(in8(LSR) & TEMT)) {
    }
    out8(IER, 0);
    out8(LCR, DLAB | WORD8);
    out8(DLL, 1);
    out8(DLM, 0);
    out8(LCR, WORD8);
    out8(FCR, FIFO | CLEAR_RECEIVER | CLEAR_TRANSMITTER);
    out8(FCR, 0);
    out8(MCR, LOOP);
    in8(LSR);
    in8(RBR);
    in8(MSR);
    in8(IIR);
}

/// For the report.
static void finish(void) {
    while (!(in8(LSR) & TEMT)) {
    }
    serial_init();
}

static u8 iir(void) { return in8(IIR) & 0x0F; }

/// Sends a byte and waits until it is out.
static void send(u8 byte) {
    while (!(in8(LSR) & THRE)) {
    }
    out8(THR, byte);
}
static void sent(void) {
    for (u32 i = 0; i < 100000; i++) {
        out8(0x80, 0);
        if ((in8(LSR) & (THRE | TEMT)) == (THRE | TEMT))
            return;
    }
}

static bool holds(u16 port, u8 mask) {
    bool good = true;
    for (u32 value = 0; value < 256; value++) {
        out8(port, value);
        good &= in8(port) == (value & mask);
    }
    return good;
}

static bool registers(u32 which) {
    start();
    bool good = true;
    switch (which) {
    case 0: good = holds(SCR, 0xFF); break;
    case 1: good = holds(LCR, 0xFF); break;
    case 2: good = holds(IER, 0x0F); break;
    case 3:
        for (u32 value = 0; value < 256; value++) {
            out8(MCR, value | LOOP);
            good &= in8(MCR) == ((value | LOOP) & 0x1F);
        }
        break;
    case 4:
        out8(IER, 5);
        out8(LCR, DLAB | WORD8);
        out8(DLL, 0x34);
        out8(DLM, 0x12);
        good = in8(DLL) == 0x34 && in8(DLM) == 0x12;
        out8(LCR, WORD8);
        good &= in8(IER) == 5;
        break;
    case 5:
        good = in8(IIR) == NONE;
        out8(FCR, FIFO);
        good &= in8(IIR) == (0xC0 | NONE);
        out8(FCR, 0);
        good &= in8(IIR) == NONE;
        break;
    case 6:
        out8(FCR, FIFO);
        send(0x11);
        sent();
        out8(FCR, 0);
        good = !(in8(LSR) & DR);
        break;
    }
    return good;
}

/// Loopback connects RTS, DTR, OUT1, OUT2 to CTS, DSR, RI, DCD; deltas are noted until MSR is read.
static bool modem(u32 which) {
    start();
    bool good = true;
    u8 old = 0;
    for (u32 i = 0; i < 64; i++) {
        u8 outputs = (i * 7) & 15;
        out8(MCR, LOOP | outputs);
        u8 lines = (outputs & RTS ? 0x10 : 0) | (outputs & DTR ? 0x20 : 0) | (outputs & OUT1 ? 0x40 : 0) |
                   (outputs & OUT2 ? 0x80 : 0);
        u8 changed = (lines ^ old) & 0xB0, ring_end = old & ~lines & 0x40;
        u8 seen = in8(MSR);
        good &= which ? (seen & 0x0F) == (changed | ring_end) >> 4 : (seen & 0xF0) == lines;
        good &= !(in8(MSR) & 0x0F);
        old = lines;
    }
    return good;
}

static bool loopback(u32 unused) {
    (void)unused;
    start();
    bool good = !(in8(LSR) & DR);
    for (u32 byte = 0; byte < 256; byte += 15) {
        send(byte);
        sent();
        good &= in8(LSR) == (DR | THRE | TEMT) && in8(RBR) == byte && in8(LSR) == (THRE | TEMT);
    }
    return good;
}

static bool overrun(u32 unused) {
    (void)unused;
    start();
    send(0x41);
    for (u32 i = 0; i < 1000; i++)
        out8(0x80, 0);
    send(0x42);
    for (u32 i = 0; i < 1000; i++)
        out8(0x80, 0);
    u8 status = in8(LSR), byte = in8(RBR), after = in8(LSR);
    return status & OE && byte == 0x42 && !(after & OE);
}

/// Fills the receiver's FIFO by loopback.
static void fill(u32 count) {
    for (u32 i = 0; i < count; i++) {
        send(0x60 + i);
        for (u32 j = 0; j < 1000 && !(in8(LSR) & TEMT); j++)
            out8(0x80, 0);
    }
}

static bool fifo(u32 count) {
    start();
    out8(FCR, FIFO | CLEAR_RECEIVER | CLEAR_TRANSMITTER);
    for (u32 i = 0; i < count; i++) {
        out8(THR, 0x60 + i);
        // No look at LSR: it would clear the error.
        for (u32 j = 0; j < 400; j++)
            out8(0x80, 0);
    }
    u8 status = in8(LSR);
    bool good = !(status & OE) == (count <= 16);
    for (u32 i = 0; i < (count < 16 ? count : 16); i++)
        good &= in8(LSR) & DR && in8(RBR) == 0x60 + i;
    return good && !(in8(LSR) & DR);
}

static bool triggers(u32 unused) {
    static const u8 levels[] = {1, 4, 8, 14};
    (void)unused;
    bool good = true;
    for (u32 i = 0; i < 4; i++) {
        start();
        out8(FCR, i << 6 | FIFO | CLEAR_RECEIVER | CLEAR_TRANSMITTER);
        out8(IER, ERBFI);
        for (u32 n = 1; n <= levels[i]; n++) {
            good &= iir() != RECEIVED;
            fill(1);
        }
        good &= iir() == RECEIVED;
        in8(RBR);
        good &= iir() != RECEIVED;
    }
    return good;
}

static bool timeout(u32 unused) {
    (void)unused;
    start();
    out8(FCR, 3 << 6 | FIFO | CLEAR_RECEIVER | CLEAR_TRANSMITTER);
    out8(IER, ERBFI);
    bool none = iir() == NONE;
    fill(2);
    // Four characters' time at 115,200 baud: 347 microseconds, 414 clocks.
    wait_ticks(900);
    bool came = iir() == TIMEOUT;
    in8(RBR);
    bool gone = iir() == NONE;
    wait_ticks(900);
    return none && came && gone && iir() == TIMEOUT;
}

static bool transmitter(u32 which) {
    start();
    out8(IER, ETBEI);
    if (which == 0) {
        bool first = iir() == THRE_INT, second = iir() == NONE;
        return first && second;
    }
    if (which == 1) {
        iir();
        send(0x33);
        sent();
        return iir() == THRE_INT;
    }
    // A higher one hides it, and reading that does not clear it.
    out8(IER, ETBEI | ERBFI);
    iir();
    send(0x44);
    sent();
    bool data = iir() == RECEIVED && iir() == RECEIVED;
    in8(RBR);
    return data && iir() == THRE_INT;
}

static bool priorities(u32 unused) {
    (void)unused;
    start();
    out8(IER, 0);
    send(0x31);
    sent();
    send(0x32);                                 // an overrun
    for (u32 i = 0; i < 1000; i++)
        out8(0x80, 0);
    out8(MCR, LOOP | RTS);
    out8(IER, ERBFI | ETBEI | ELSI | EDSSI);
    bool line = iir() == LINE;
    in8(LSR);
    bool data = iir() == RECEIVED;
    in8(RBR);
    in8(RBR);
    bool thre = iir() == THRE_INT;
    bool modem = iir() == MODEM;
    in8(MSR);
    return line && data && thre && modem && iir() == NONE;
}

static bool interrupts(u32 with_out2) {
    start();
    out8(MCR, DTR | RTS | (with_out2 ? OUT2 : 0));
    pics_init(0xEF, 0xFF);
    out8(IER, ETBEI);
    u32 vector = take();
    bool again = take() != NOTHING;
    out8(IER, 0);
    pics_init(0xFF, 0xFF);
    return !again && vector == (with_out2 ? VECTORS + 4 : NOTHING);
}

void chapter(void) {
    static const struct {
        bool (*test)(u32);
        u32 argument;
        const char *text;
    } checks[] = {
        {registers, 0, SHEET "8.11: the scratchpad register holds what was written"},
        {registers, 1, SHEET "8.1: LCR holds what was written"},
        {registers, 2, SHEET "8.7: IER: bits 4 to 7 are 0"},
        {registers, 3, SHEET "8.8: MCR: bits 5 to 7 are 0"},
        {registers, 4, SHEET "8.1, 8.3: DLAB gives access to the divisor latches, in place of data and IER"},
        {registers, 5, SHEET "8.6: IIR is 1 without an interrupt; bits 6 and 7 are set with FIFOs"},
        {registers, 6, SHEET "8.5: a change of FIFO mode clears the FIFOs"},
        {modem, 0, SHEET "8.8: loopback connects RTS, DTR, OUT1, OUT2 to CTS, DSR, RI, DCD"},
        {modem, 1, SHEET "8.9: deltas of CTS, DSR, DCD and the end of RI are noted until MSR is read"},
        {loopback, 0, SHEET "8.4, 8.8: loopback: what is sent is received"},
        {overrun, 0, SHEET "8.4: without FIFOs a character that was not read is replaced: OE, until LSR is read"},
        {fifo, 1, SHEET "8.13: the FIFO gives back one character"},
        {fifo, 16, SHEET "8.13: the FIFO holds 16 characters, in order"},
        {fifo, 17, SHEET "8.4: with FIFOs the 17th is lost: OE"},
        {triggers, 0, SHEET "8.5, 8.13: received data interrupt from the trigger level on, until there is less: 1, 4, 8, 14"},
        {timeout, 0, SHEET "8.13: character timeout after four characters' time; a read takes it back and begins it anew"},
        {transmitter, 0, SHEET "8.6: THR empty interrupts when it is enabled; reading IIR takes it back"},
        {transmitter, 1, SHEET "8.6: and when THR becomes empty"},
        {transmitter, 2, SHEET "8.6: reading IIR does not take it back while it shows a higher interrupt"},
        {priorities, 0, SHEET "table IV: line status, received data, THR empty, modem status, in this order"},
        {interrupts, 1, "IBM PC AT technical reference, serial adapter: OUT2 lets the interrupt through to IRQ 4"},
        {interrupts, 0, "IBM PC AT technical reference, serial adapter: without OUT2 there is none"},
    };
    ticks_init();
    for (u32 i = 0; i < COUNT(checks); i++) {
        bool good = false;
        for (u32 tries = 0; tries < 4 && !good; tries++)
            good = checks[i].test(checks[i].argument);
        finish();
        check(good, checks[i].text);
    }
    pics_quiet();
}
