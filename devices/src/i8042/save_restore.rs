//! The saved state of the 8042 and its keyboard.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::I8042;
use super::controller::{self, Config, Controller, DataTo, MEMORY_SIZE, OutputPort, Source};
use super::keyboard::{self, Keyboard, Parameter};
use super::translate::Translator;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct SavedI8042 {
    keyboard: SavedKeyboard,
    after_break: bool,
    config: u8,
    memory: [u8; MEMORY_SIZE],
    port: u8,
    full: Option<SavedSource>,
    output: u8,
    answers: Vec<(u8, SavedSource)>,
    data_to: SavedDataTo,
    last_was_command: bool,
    lines: (bool, bool),
}

#[derive(Serialize, Deserialize)]
struct SavedKeyboard {
    answers: Vec<u8>,
    codes: Vec<u8>,
    awaited: Option<SavedParameter>,
    last: u8,
    scanning: bool,
    leds: u8,
    scan_code_set: u8,
    typematic: u8,
}

/// A saved enum of the same variants as a runtime one, and the ways between them.
macro_rules! saved_enum {
    ($saved:ident of $runtime:ident { $($variant:ident $(($field:ident: $type:ty))?),+ $(,)? }) => {
        #[derive(Serialize, Deserialize)]
        enum $saved {
            $($variant $(($type))?),+
        }

        impl From<$runtime> for $saved {
            fn from(value: $runtime) -> Self {
                match value {
                    $($runtime::$variant $(($field))? => Self::$variant $(($field))?),+
                }
            }
        }

        impl From<$saved> for $runtime {
            fn from(value: $saved) -> Self {
                match value {
                    $($saved::$variant $(($field))? => Self::$variant $(($field))?),+
                }
            }
        }
    };
}

saved_enum!(SavedSource of Source { Keyboard, Aux, AuxTimeout });
saved_enum!(SavedParameter of Parameter { Leds, ScanCodeSet, Typematic });
saved_enum!(SavedDataTo of DataTo {
    Keyboard, Memory(at: u8), OutputPort, KeyboardBuffer, AuxBuffer, Aux,
});

impl SavedKeyboard {
    fn of(keyboard: &Keyboard) -> Self {
        let Keyboard { answers, codes, awaited, last, scanning, leds, scan_code_set, typematic } =
            keyboard;
        Self {
            answers: answers.iter().copied().collect(),
            codes: codes.iter().copied().collect(),
            awaited: awaited.map(Into::into),
            last: *last,
            scanning: *scanning,
            leds: *leds,
            scan_code_set: *scan_code_set,
            typematic: *typematic,
        }
    }

    fn into_keyboard(self) -> Result<Keyboard, StateError> {
        let Self { answers, codes, awaited, last, scanning, leds, scan_code_set, typematic } = self;
        if answers.len() > keyboard::ANSWERS || codes.len() > keyboard::BUFFER_SIZE {
            return Err(StateError::Impossible("too many bytes in the keyboard"));
        }
        if !(1..=2).contains(&scan_code_set) {
            return Err(StateError::Impossible("the keyboard's scan code set"));
        }
        Ok(Keyboard {
            answers: answers.into(),
            codes: codes.into(),
            awaited: awaited.map(Into::into),
            last,
            scanning,
            leds,
            scan_code_set,
            typematic,
        })
    }
}

impl SaveRestore for I8042 {
    fn save(&self) -> Section {
        let Self { controller, lines, irq1: _, irq12: _, a20: _, power: _ } = self;
        let Controller {
            keyboard,
            translator: Translator { after_break },
            config,
            memory,
            port,
            full,
            output,
            answers,
            data_to,
            last_was_command,
        } = controller;
        let saved = SavedI8042 {
            keyboard: SavedKeyboard::of(keyboard),
            after_break: *after_break,
            config: config.bits(),
            memory: *memory,
            port: port.bits(),
            full: full.map(Into::into),
            output: *output,
            answers: answers.iter().map(|&(byte, source)| (byte, source.into())).collect(),
            data_to: (*data_to).into(),
            last_was_command: *last_was_command,
            lines: *lines,
        };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let SavedI8042 {
            keyboard,
            after_break,
            config,
            memory,
            port,
            full,
            output,
            answers,
            data_to,
            last_was_command,
            lines,
        } = section.decode(VERSION)?;
        if answers.len() > controller::ANSWERS {
            return Err(StateError::Impossible("too many answers in the 8042"));
        }
        self.controller = Controller {
            keyboard: keyboard.into_keyboard()?,
            translator: Translator { after_break },
            config: Config::from_bits(config)
                .ok_or(StateError::Impossible("reserved bits of the 8042"))?,
            memory,
            port: OutputPort::from_bits_retain(port),
            full: full.map(Into::into),
            output,
            answers: answers.into_iter().map(|(byte, source)| (byte, source.into())).collect(),
            data_to: data_to.into(),
            last_was_command,
        };
        self.lines = lines;
        Ok(())
    }
}
