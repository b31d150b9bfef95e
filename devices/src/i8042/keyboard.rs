//! The PS/2 keyboard at the other end of the cable (IBM PS/2 Hardware Technical Reference,
//! "101- and 102-key keyboard").

use std::collections::VecDeque;

use super::translate::{BREAK, Translator};
use crate::access::warn_once;

/// Scan codes that the keyboard holds while it may not send.
pub(super) const BUFFER_SIZE: usize = 16;
/// Answers to commands that it holds besides: no command has more than three bytes of them, and one
/// is answered before the next comes.
pub(super) const ANSWERS: usize = 4;

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
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// The parameter byte that a command awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Leds,
    ScanCodeSet,
    Typematic,
}

/// The keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyboard {
    /// Answers to commands; they go before scan codes.
    pub(super) answers: VecDeque<u8>,
    /// Scan codes in the set chosen.
    pub(super) codes: VecDeque<u8>,
    pub(super) awaited: Option<Parameter>,
    /// The byte last sent, for the resend command.
    pub(super) last: u8,
    pub(super) scanning: bool,
    /// Scroll Lock, Num Lock and Caps Lock from bit 0 on.
    pub(super) leds: u8,
    /// 1 or 2.
    pub(super) scan_code_set: u8,
    pub(super) typematic: u8,
}

impl Keyboard {
    /// A keyboard after its power-on test, whose result it has already told.
    pub(super) fn new() -> Self {
        Self {
            answers: VecDeque::with_capacity(ANSWERS),
            codes: VecDeque::with_capacity(BUFFER_SIZE),
            awaited: None,
            last: BAT_OK,
            scanning: true,
            leds: 0,
            scan_code_set: 2,
            typematic: DEFAULT_TYPEMATIC,
        }
    }

    /// A key was pressed or released: its whole code in set 2. One that does not fit leaves an
    /// overrun code.
    pub(super) fn key(&mut self, set_2: &[u8]) {
        if !self.scanning {
            return;
        }
        let mut translator = Translator::default();
        let code: Vec<u8> = match self.scan_code_set {
            1 => set_2.iter().filter_map(|&byte| translator.translate(byte)).collect(),
            _ => set_2.to_vec(),
        };
        if self.codes.len() + code.len() < BUFFER_SIZE {
            self.codes.extend(code);
        } else if self.codes.back() != Some(&self.overrun()) && self.codes.len() < BUFFER_SIZE {
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
            (Parameter::ScanCodeSet, 1 | 2) => {
                self.codes.clear();
                self.scan_code_set = byte;
            }
            (Parameter::ScanCodeSet, _) => {
                // As keyboards without set 3 do.
                warn_once!("Keyboard: there is no scan code set {byte}");
                self.answer(RESEND);
                return;
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
                self.codes.clear();
                self.scanning = true;
                self.answer(ACK);
            }
            command::DEFAULT_DISABLE => self.set_default(false),
            command::DEFAULT => self.set_default(self.scanning),
            command::RESEND => self.answer(self.last),
            command::RESET => {
                *self = Self::new();
                self.answer(ACK);
                self.answer(BAT_OK);
            }
            _ => {
                warn_once!("Keyboard: command {byte:02x}h is unknown");
                self.answer(RESEND);
            }
        }
    }

    fn await_parameter(&mut self, parameter: Parameter) {
        self.awaited = Some(parameter);
        self.answer(ACK);
    }

    fn set_default(&mut self, scanning: bool) {
        self.codes.clear();
        self.scanning = scanning;
        self.scan_code_set = 2;
        self.typematic = DEFAULT_TYPEMATIC;
        self.answer(ACK);
    }

    /// Whether `code` is one key's whole make or break code in set 2.
    pub(super) fn is_whole(code: &[u8]) -> bool {
        !code.is_empty() && code.len() <= 8 && code.last() != Some(&BREAK)
    }
}
