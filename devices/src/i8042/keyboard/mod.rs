//! The PS/2 keyboard at the other end of the cable (IBM PS/2 Hardware Technical Reference,
//! "101- and 102-key keyboard").

mod codes;
mod keys;

use std::collections::VecDeque;

use trivium_chipset::{VmTime, guest_log};

use self::codes::{Modifiers, Stroke};
pub use self::keys::Key;
pub(super) use self::keys::KeyMode;

/// Scan codes that the keyboard holds while it may not send.
pub(super) const BUFFER_SIZE: usize = 16;
/// Answers to commands that it holds besides: no command has more than three bytes of them, and one
/// is answered before the next comes.
pub(super) const ANSWERS: usize = 4;
/// Number of keys.
pub(super) const KEYS: usize = Key::ALL.len();

/// Answers.
const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
const ECHO: u8 = 0xee;
const BAT_OK: u8 = 0xaa;
/// The identity of the 101- and 102-key keyboards.
const IDENTITY: [u8; 2] = [0xab, 0x83];
/// The code for keys that found the buffer full, in sets 2 and 3.
const OVERRUN: u8 = 0x00;
/// And in set 1.
const OVERRUN_1: u8 = 0xff;

/// The rate and delay after a reset: 10.9 characters a second after 500 ms.
const DEFAULT_TYPEMATIC: u8 = 0x2b;

/// The three LEDs.
const LEDS: u8 = 0x07;
/// The Num Lock LED.
const LED_NUM_LOCK: u8 = 1 << 1;

/// Commands.
mod command {
    pub(super) const SET_LEDS: u8 = 0xed;
    pub(super) const ECHO: u8 = 0xee;
    pub(super) const SCAN_CODE_SET: u8 = 0xf0;
    pub(super) const IDENTIFY: u8 = 0xf2;
    pub(super) const TYPEMATIC: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DEFAULT_DISABLE: u8 = 0xf5;
    pub(super) const DEFAULT: u8 = 0xf6;
    pub(super) const ALL_TYPEMATIC: u8 = 0xf7;
    pub(super) const ALL_MAKE_BREAK: u8 = 0xf8;
    pub(super) const ALL_MAKE: u8 = 0xf9;
    pub(super) const ALL_TYPEMATIC_MAKE_BREAK: u8 = 0xfa;
    pub(super) const KEY_TYPEMATIC: u8 = 0xfb;
    pub(super) const KEY_MAKE_BREAK: u8 = 0xfc;
    pub(super) const KEY_MAKE: u8 = 0xfd;
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// The parameter byte that a command awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Leds,
    ScanCodeSet,
    Typematic,
    /// Keys, by their codes in set 3, that are to get this mode.
    Keys(KeyMode),
}

/// A key that is held down and repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) key: Key,
    pub(super) next: VmTime,
}

/// The keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyboard {
    /// Answers to commands; they go before scan codes.
    pub(super) answers: VecDeque<u8>,
    /// Scan codes in the set chosen; one more than the buffer holds if it ends in an overrun code.
    pub(super) codes: VecDeque<u8>,
    pub(super) awaited: Option<Parameter>,
    /// The byte last sent, for the resend command.
    pub(super) last: u8,
    pub(super) scanning: bool,
    /// Scroll Lock, Num Lock and Caps Lock from bit 0 on.
    pub(super) leds: u8,
    /// 1 to 3.
    pub(super) scan_code_set: u8,
    pub(super) typematic: u8,
    /// What each key does in set 3.
    pub(super) modes: [KeyMode; KEYS],
    /// The keys that are down.
    pub(super) held: [bool; KEYS],
    pub(super) repeat: Option<Repeat>,
}

fn default_modes() -> [KeyMode; KEYS] {
    std::array::from_fn(|n| Key::ALL[n].default_mode())
}

impl Keyboard {
    /// A keyboard after its power-on test, whose result it has already told.
    pub(super) fn new() -> Self {
        Self {
            answers: VecDeque::with_capacity(ANSWERS),
            codes: VecDeque::with_capacity(BUFFER_SIZE + 1),
            awaited: None,
            last: BAT_OK,
            scanning: true,
            leds: 0,
            scan_code_set: 2,
            typematic: DEFAULT_TYPEMATIC,
            modes: default_modes(),
            held: [false; KEYS],
            repeat: None,
        }
    }

    /// A key was pressed or released. What it is already is nothing new: repeating is the
    /// keyboard's own business.
    pub(super) fn key(&mut self, key: Key, pressed: bool, now: VmTime) {
        let held = &mut self.held[key as usize];
        if std::mem::replace(held, pressed) == pressed {
            return;
        }
        if pressed {
            self.repeat = self
                .repeats(key)
                .then(|| Repeat { key, next: now.saturating_add(self.typematic_delay()) });
        } else if self.repeat.is_some_and(|repeat| repeat.key == key) {
            self.repeat = None;
        }
        self.stroke(key, if pressed { Stroke::Press } else { Stroke::Release });
    }

    /// When the key that is held down is to be repeated.
    pub(super) fn deadline(&self) -> Option<VmTime> {
        self.repeat.filter(|_| self.scanning).map(|repeat| repeat.next)
    }

    /// Repeats the key that is held down, if it is time. While the keyboard may not send, only the
    /// first code of a key is kept.
    pub(super) fn advance(&mut self, now: VmTime, may_send: bool) {
        let Some(Repeat { key, next }) = self.repeat else { return };
        if next > now || !self.scanning {
            return;
        }
        self.repeat = Some(Repeat { key, next: now.saturating_add(self.typematic_period()) });
        if may_send && self.codes.is_empty() {
            self.stroke(key, Stroke::Repeat);
        }
    }

    fn repeats(&self, key: Key) -> bool {
        match self.scan_code_set {
            3 => self.modes[key as usize].repeats(),
            _ => key != Key::Pause,
        }
    }

    /// "Delay: the binary value of bits 6 and 5, plus 1, multiplied by 250 ms": in nanoseconds.
    fn typematic_delay(&self) -> u64 {
        (u64::from(self.typematic >> 5 & 3) + 1) * 250_000_000
    }

    /// "Period = (8 + A) x (2^B) x 0.00417 seconds", A being bits 2 to 0 and B bits 4 and 3: in
    /// nanoseconds.
    fn typematic_period(&self) -> u64 {
        let (a, b) = (self.typematic & 7, self.typematic >> 3 & 3);
        (8 + u64::from(a)) * (1 << b) * 4_170_000
    }

    fn modifiers(&self) -> Modifiers {
        let held = |key: Key| self.held[key as usize];
        Modifiers {
            left_shift: held(Key::ShiftLeft),
            right_shift: held(Key::ShiftRight),
            ctrl: held(Key::CtrlLeft) || held(Key::CtrlRight),
            alt: held(Key::AltLeft) || held(Key::AltRight),
            num_lock: self.leds & LED_NUM_LOCK != 0,
        }
    }

    /// Puts what a key sends into the buffer. "The entire sequence must fit into the available
    /// buffer space or the keystroke is discarded and a buffer-overrun condition occurs": the
    /// overrun code is then the seventeenth byte at most.
    fn stroke(&mut self, key: Key, stroke: Stroke) {
        if !self.scanning {
            return;
        }
        let code = match self.scan_code_set {
            1 => codes::set_1(key, stroke, self.modifiers()),
            3 => codes::set_3(key, stroke, self.modes[key as usize]),
            _ => codes::set_2(key, stroke, self.modifiers()),
        };
        if self.codes.len() + code.len() <= BUFFER_SIZE {
            self.codes.extend(code);
        } else if self.codes.back() != Some(&self.overrun()) {
            self.codes.push_back(self.overrun());
        }
    }

    fn overrun(&self) -> u8 {
        if self.scan_code_set == 1 { OVERRUN_1 } else { OVERRUN }
    }

    /// The next byte for the controller.
    pub(super) fn send(&mut self) -> Option<u8> {
        let byte = self.answers.pop_front().or_else(|| self.codes.pop_front())?;
        self.last = byte;
        Some(byte)
    }

    fn answer(&mut self, byte: u8) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back(byte);
        }
    }

    /// A byte from the controller: a command, or the parameter byte of one.
    pub(super) fn receive(&mut self, byte: u8) {
        // A command ends what the keyboard was answering.
        self.answers.clear();
        match self.awaited.take() {
            // Parameter bytes lie below the commands, which are taken for what they are.
            Some(awaited) if byte < command::SET_LEDS => self.take_parameter(awaited, byte),
            _ => self.command(byte),
        }
    }

    fn take_parameter(&mut self, awaited: Parameter, byte: u8) {
        match (awaited, byte) {
            (Parameter::Leds, _) => self.leds = byte & LEDS,
            (Parameter::Typematic, _) => self.typematic = byte & 0x7f,
            (Parameter::ScanCodeSet, 0) => {
                self.answer(ACK);
                self.answer(self.scan_code_set);
                return;
            }
            (Parameter::ScanCodeSet, 1..=3) => {
                self.empty();
                self.scan_code_set = byte;
            }
            (Parameter::ScanCodeSet, _) => {
                self.answer(RESEND);
                return;
            }
            (Parameter::Keys(mode), code) => {
                if let Some(key) = Key::from_set_3(code) {
                    self.modes[key as usize] = mode;
                }
                // More keys may follow, until a command comes.
                self.awaited = Some(awaited);
            }
        }
        self.answer(ACK);
    }

    fn command(&mut self, byte: u8) {
        match byte {
            command::SET_LEDS => self.await_parameter(Parameter::Leds),
            command::ECHO => self.answer(ECHO),
            command::SCAN_CODE_SET => self.await_parameter(Parameter::ScanCodeSet),
            command::IDENTIFY => {
                self.answer(ACK);
                IDENTITY.into_iter().for_each(|byte| self.answer(byte));
            }
            command::TYPEMATIC => self.await_parameter(Parameter::Typematic),
            command::ENABLE => {
                self.empty();
                self.scanning = true;
                self.answer(ACK);
            }
            command::DEFAULT_DISABLE => self.set_default(false),
            command::DEFAULT => self.set_default(self.scanning),
            command::ALL_TYPEMATIC => self.set_modes(KeyMode::Typematic),
            command::ALL_MAKE_BREAK => self.set_modes(KeyMode::MakeBreak),
            command::ALL_MAKE => self.set_modes(KeyMode::Make),
            command::ALL_TYPEMATIC_MAKE_BREAK => self.set_modes(KeyMode::TypematicMakeBreak),
            command::KEY_TYPEMATIC => self.await_keys(KeyMode::Typematic),
            command::KEY_MAKE_BREAK => self.await_keys(KeyMode::MakeBreak),
            command::KEY_MAKE => self.await_keys(KeyMode::Make),
            command::RESEND => self.answer(self.last),
            command::RESET => {
                let held = self.held;
                *self = Self { held, ..Self::new() };
                self.answer(ACK);
                self.answer(BAT_OK);
            }
            _ => {
                guest_log!(Warn, "Keyboard: command {byte:02x}h is unknown");
                self.answer(RESEND);
            }
        }
    }

    fn await_parameter(&mut self, parameter: Parameter) {
        self.awaited = Some(parameter);
        self.answer(ACK);
    }

    fn await_keys(&mut self, mode: KeyMode) {
        self.empty();
        self.await_parameter(Parameter::Keys(mode));
    }

    fn set_modes(&mut self, mode: KeyMode) {
        self.empty();
        self.modes = [mode; KEYS];
        self.answer(ACK);
    }

    /// "Clears its output buffer" and forgets the key that it repeats.
    fn empty(&mut self) {
        self.codes.clear();
        self.repeat = None;
    }

    fn set_default(&mut self, scanning: bool) {
        self.empty();
        self.scanning = scanning;
        self.scan_code_set = 2;
        self.typematic = DEFAULT_TYPEMATIC;
        self.modes = default_modes();
        self.answer(ACK);
    }
}
