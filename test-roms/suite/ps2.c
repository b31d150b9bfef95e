//! The keyboard controller (Intel 8042 as IBM's PS/2 programs it), the keyboard and the mouse (IBM PS/2
//! Hardware Technical Reference; the wheel is Microsoft's).

#include "chip.h"

const char chapter_name[] = "ps2";

#define PS2 "PS/2 technical reference, "

enum { DATA_PORT = 0x60, CONTROL = 0x64 };
enum { OBF = 1, IBF = 2, SYSTEM = 4, COMMAND = 8, AUX = 0x20 };
enum { ACK = 0xFA, RESEND = 0xFE, NO_ANSWER = 0x100 };
enum { BYTE_KEYBOARD_OFF = 0x10, BYTE_MOUSE_OFF = 0x20, BYTE_TRANSLATE = 0x40 };

static void write(u16 port, u8 value) {
    while (in8(CONTROL) & IBF) {
    }
    out8(port, value);
    while (in8(CONTROL) & IBF) {
    }
}

/// The next byte, if it comes soon; bit 9 is set if it is the mouse's.
static u32 read(void) {
    for (u32 i = 0; i < 30; i++) {
        u8 status = in8(CONTROL);
        if (status & OBF)
            return in8(DATA_PORT) | (status & AUX ? 0x200 : 0);
        wait_ticks(600);
    }
    return NO_ANSWER;
}
static void empty(void) {
    for (u32 i = 0; i < 100 && in8(CONTROL) & OBF; i++) {
        in8(DATA_PORT);
        wait_ticks(100);
    }
}
static u32 ask(u8 command) {
    write(CONTROL, command);
    return read();
}
static u8 command_byte(void) { return ask(0x20); }
static void set_command_byte(u8 value) {
    write(CONTROL, 0x60);
    write(DATA_PORT, value);
}
/// Bytes to the keyboard, and to the mouse: what they answer first.
static u32 keyboard(u8 byte) {
    write(DATA_PORT, byte);
    return read();
}
static u32 mouse(u8 byte) {
    write(CONTROL, 0xD4);
    write(DATA_PORT, byte);
    u32 answer = read();
    // A check of its origin, and the byte alone.
    return answer == NO_ANSWER || !(answer & 0x200) ? answer | 0x400 : answer & 0xFF;
}
static u32 mouse_byte(void) {
    u32 answer = read();
    return answer == NO_ANSWER || !(answer & 0x200) ? answer | 0x400 : answer & 0xFF;
}

static void start(void) {
    write(CONTROL, 0xAD);
    write(CONTROL, 0xA7);
    empty();
    set_command_byte(SYSTEM);                   // no interrupts, no translation, both on
    empty();
}

static void controller(void) {
    start();
    check_value(ask(0xAA), 0x55, PS2 "controller command AAh: the self-test gives 55h");
    start();
    check_value(ask(0xAB), 0x00, PS2 "controller command ABh: the keyboard's interface is good: 00h");
    check_value(ask(0xA9), 0x00, PS2 "controller command A9h: the mouse's interface is good: 00h");
    start();
    begin(PS2 "controller commands 20h and 60h: the command byte");
    static const u8 values[] = {0x00, 0x04, 0x34, 0x74, 0x70, 0x44};
    for (u32 i = 0; i < COUNT(values); i++) {
        set_command_byte(values[i]);
        expect_value("command byte", command_byte(), values[i]);
        expect_value("system flag", !!(in8(CONTROL) & SYSTEM), !!(values[i] & SYSTEM));
    }
    end();
    start();
    write(CONTROL, 0xAD);
    bool off = command_byte() & BYTE_KEYBOARD_OFF;
    write(CONTROL, 0xAE);
    check(off && !(command_byte() & BYTE_KEYBOARD_OFF), PS2 "controller commands ADh and AEh: the keyboard off and on");
    write(CONTROL, 0xA7);
    off = command_byte() & BYTE_MOUSE_OFF;
    write(CONTROL, 0xA8);
    check(off && !(command_byte() & BYTE_MOUSE_OFF), PS2 "controller commands A7h and A8h: the mouse off and on");
    write(CONTROL, 0x20);
    bool after_command = in8(CONTROL) & COMMAND;
    read();
    write(CONTROL, 0x60);
    write(DATA_PORT, SYSTEM);
    check(after_command && !(in8(CONTROL) & COMMAND), PS2 "status: bit 3 says whether the last write was a command");
    check((ask(0xD0) & 3) == 3, PS2 "controller command D0h: the output port: no reset, A20 open");
    start();
    write(CONTROL, 0xD2);
    write(DATA_PORT, 0x5A);
    u8 status = in8(CONTROL);
    check((status & (OBF | AUX)) == OBF && in8(DATA_PORT) == 0x5A && !(in8(CONTROL) & OBF),
          PS2 "controller command D2h: a byte as if from the keyboard; a read empties the buffer");
    write(CONTROL, 0xD3);
    write(DATA_PORT, 0xA5);
    status = in8(CONTROL);
    check((status & (OBF | AUX)) == (OBF | AUX) && in8(DATA_PORT) == 0xA5, PS2 "controller command D3h: a byte as if from the mouse");
    begin(PS2 "command byte: bits 0 and 1 let IRQ 1 and IRQ 12 through");
    for (u32 enabled = 0; enabled < 4; enabled++)
        for (u32 which = 0; which < 2; which++) {
            start();
            pics_init(0xF9, 0xEF);
            set_command_byte(SYSTEM | enabled);
            write(CONTROL, which ? 0xD3 : 0xD2);
            write(DATA_PORT, 1);
            title("enables %u, mouse %u", enabled, which);
            u32 vector = which ? SLAVE_VECTORS + 4 : VECTORS + 1;
            expect_value("vector", take(), enabled >> which & 1 ? vector : NOTHING);
            empty();
            pics_init(0xFF, 0xFF);
        }
    end();
    start();
}

static void keyboards(void) {
    start();
    write(CONTROL, 0xA7);
    u32 first = keyboard(0xFF), second = read();
    check(first == ACK && second == 0xAA, PS2 "keyboard command FFh: FAh, and AAh when its test is done");
    empty();
    check(keyboard(0xEE) == 0xEE, PS2 "keyboard command EEh: echo");
    first = keyboard(0xF2);
    second = read();
    check(first == ACK && second == 0xAB && read() == 0x83, PS2 "keyboard command F2h: FAh, ABh, 83h");
    check(keyboard(0xED) == ACK && keyboard(7) == ACK, PS2 "keyboard command EDh: the lights");
    check(keyboard(0xF3) == ACK && keyboard(0x20) == ACK, PS2 "keyboard command F3h: typematic rate");
    first = keyboard(0xF0);
    second = keyboard(0);
    check(first == ACK && second == ACK && read() == 2, PS2 "keyboard command F0h: scan code set 2 at first");
    begin(PS2 "keyboard command F0h: sets 1, 2 and 3");
    for (u32 i = 0; i < 3; i++) {
        static const u8 sets[] = {1, 3, 2};
        expect_value("answer", keyboard(0xF0), ACK);
        expect_value("to the number", keyboard(sets[i]), ACK);
        keyboard(0xF0);
        keyboard(0);
        expect_value("set", read(), sets[i]);
    }
    end();
    check(keyboard(0xF5) == ACK && keyboard(0xF6) == ACK && keyboard(0xF4) == ACK, PS2 "keyboard commands F4h to F6h: enable, disable, defaults");
    check_value(keyboard(0xEB), RESEND, PS2 "keyboard: what is no command is answered by FEh");
    keyboard(0xEE);
    check_value(keyboard(0xFE), 0xEE, PS2 "keyboard command FEh: the last byte again");
    start();
    set_command_byte(SYSTEM | BYTE_TRANSLATE | BYTE_MOUSE_OFF);
    first = keyboard(0xF2);
    second = read();
    check(first == ACK && second == 0xAB && read() == 0x41, PS2 "command byte: with translation 83h of the keyboard is 41h");
    start();
}

static u32 status_bytes(u8 bytes[3]) {
    u32 first = mouse(0xE9);
    for (u32 i = 0; i < 3; i++)
        bytes[i] = mouse_byte();
    return first;
}
static bool rate(u8 n) { return mouse(0xF3) == ACK && mouse(n) == ACK; }

static void mice(void) {
    u8 bytes[3];
    start();
    write(CONTROL, 0xAD);
    write(CONTROL, 0xA8);
    u32 first = mouse(0xFF), second = mouse_byte();
    check(first == ACK && second == 0xAA && mouse_byte() == 0, PS2 "mouse command FFh: FAh, AAh, 00h, from the mouse");
    check(status_bytes(bytes) == ACK && bytes[0] == 0 && bytes[1] == 2 && bytes[2] == 100,
          PS2 "mouse command E9h: after reset off, stream mode, scaling 1:1, 4 counts a millimetre, 100 a second");
    mouse(0xE8);
    mouse(3);
    rate(40);
    mouse(0xE7);
    mouse(0xF4);
    check(status_bytes(bytes) == ACK && bytes[0] == 0x30 && bytes[1] == 3 && bytes[2] == 40,
          PS2 "mouse commands E7h, E8h, F3h, F4h: they show in the status");
    mouse(0xF6);
    check(status_bytes(bytes) == ACK && bytes[0] == 0 && bytes[1] == 2 && bytes[2] == 100, PS2 "mouse command F6h: the defaults");
    first = mouse(0xF2);
    check(first == ACK && mouse_byte() == 0, PS2 "mouse command F2h: it is a mouse: 00h");
    mouse(0xF0);
    first = mouse(0xEB);
    u8 flags = mouse_byte();
    bool packet = mouse_byte() == 0 && mouse_byte() == 0;
    check(first == ACK && (flags & 0xCF) == 0x08 && packet, PS2 "mouse commands F0h, EBh: in remote mode a report when asked");
    mouse(0xEA);
    mouse(0xEE);
    bool echo = mouse(0x55) == 0x55 && mouse(0xF4) == 0xF4;
    check(echo && mouse(0xEC) == ACK, PS2 "mouse commands EEh, ECh: wrap mode sends back what it gets");
    bool rates = rate(200) && rate(100) && rate(80);
    first = mouse(0xF2);
    check(rates && first == ACK && mouse_byte() == 3, "Microsoft, IntelliMouse: rates 200, 100, 80 switch the wheel on: identity 3");
    mouse(0xF0);
    first = mouse(0xEB);
    mouse_byte();
    mouse_byte();
    mouse_byte();
    check(first == ACK && mouse_byte() == 0, "Microsoft, IntelliMouse: a report has a fourth byte");
    mouse(0xFF);
    mouse_byte();
    mouse_byte();
    first = mouse(0xF2);
    check(first == ACK && mouse_byte() == 0, PS2 "mouse command FFh: everything is as at first");
    check_value(mouse(0xE0), RESEND, PS2 "mouse: what is no command is answered by FEh");
    start();
}

void chapter(void) {
    ticks_init();
    if (in8(CONTROL) == 0xFF) {
        skip(PS2 "keyboard controller", "there is none");
        return;
    }
    controller();
    keyboards();
    mice();
    pics_quiet();
}
