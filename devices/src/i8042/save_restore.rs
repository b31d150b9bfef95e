//! The saved state of the 8042, its keyboard and its mouse.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError, VmTime};

use super::I8042;
use super::controller::{self, Config, Controller, DataTo, MEMORY_SIZE, OutputPort, Poll, Source};
use super::keyboard::{self, Key, KeyMode, Keyboard, Parameter, Repeat};
use super::mouse::Parameter as MouseParameter;
use super::mouse::{self, COUNTS, Counter, Kind, Mouse, MouseButtons, Movement, WHEEL_STEPS};
use super::password::{self, Password};
use super::translate::Translator;

const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct SavedI8042 {
    keyboard: SavedKeyboard,
    mouse: Option<SavedMouse>,
    password: Vec<u8>,
    password_typed: Option<u8>,
    poll: Option<SavedPoll>,
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
    modes: Vec<SavedKeyMode>,
    held: Vec<bool>,
    repeat: Option<(u8, VmTime)>,
}

#[derive(Serialize, Deserialize)]
struct SavedMouse {
    queue: Vec<u8>,
    last: Vec<u8>,
    awaited: Option<SavedMouseParameter>,
    kind: SavedKind,
    enabled: bool,
    remote: bool,
    wrap: bool,
    double: bool,
    resolution: u8,
    rate: u8,
    knock: [u8; 3],
    mistaken: bool,
    x: (i16, bool),
    y: (i16, bool),
    wheel: i32,
    buttons: u8,
    told: u8,
    next_report: VmTime,
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
saved_enum!(SavedPoll of Poll { Low, High });
saved_enum!(SavedKeyMode of KeyMode { Typematic, MakeBreak, Make, TypematicMakeBreak });
saved_enum!(SavedKind of Kind { Standard, IntelliMouse, Explorer });
saved_enum!(SavedMouseParameter of MouseParameter { Resolution, SampleRate });
saved_enum!(SavedDataTo of DataTo {
    Keyboard, Memory(at: u8), OutputPort, KeyboardBuffer, AuxBuffer, Aux, Password,
});

#[derive(Serialize, Deserialize)]
enum SavedParameter {
    Leds,
    ScanCodeSet,
    Typematic,
    Keys(SavedKeyMode),
}

impl From<Parameter> for SavedParameter {
    fn from(parameter: Parameter) -> Self {
        match parameter {
            Parameter::Leds => Self::Leds,
            Parameter::ScanCodeSet => Self::ScanCodeSet,
            Parameter::Typematic => Self::Typematic,
            Parameter::Keys(mode) => Self::Keys(mode.into()),
        }
    }
}

impl From<SavedParameter> for Parameter {
    fn from(parameter: SavedParameter) -> Self {
        match parameter {
            SavedParameter::Leds => Self::Leds,
            SavedParameter::ScanCodeSet => Self::ScanCodeSet,
            SavedParameter::Typematic => Self::Typematic,
            SavedParameter::Keys(mode) => Self::Keys(mode.into()),
        }
    }
}

impl SavedKeyboard {
    fn of(keyboard: &Keyboard) -> Self {
        let Keyboard {
            answers,
            codes,
            awaited,
            last,
            scanning,
            leds,
            scan_code_set,
            typematic,
            modes,
            held,
            repeat,
        } = keyboard;
        Self {
            answers: answers.iter().copied().collect(),
            codes: codes.iter().copied().collect(),
            awaited: awaited.map(Into::into),
            last: *last,
            scanning: *scanning,
            leds: *leds,
            scan_code_set: *scan_code_set,
            typematic: *typematic,
            modes: modes.iter().map(|mode| (*mode).into()).collect(),
            held: held.to_vec(),
            repeat: repeat.map(|Repeat { key, next }| (key as u8, next)),
        }
    }

    fn into_keyboard(self) -> Result<Keyboard, StateError> {
        let Self {
            answers,
            codes,
            awaited,
            last,
            scanning,
            leds,
            scan_code_set,
            typematic,
            modes,
            held,
            repeat,
        } = self;
        if answers.len() > keyboard::ANSWERS || codes.len() > keyboard::BUFFER_SIZE + 1 {
            return Err(StateError::Impossible("too many bytes in the keyboard"));
        }
        if !(1..=3).contains(&scan_code_set) {
            return Err(StateError::Impossible("the keyboard's scan code set"));
        }
        let keys = StateError::Impossible("the keyboard's keys");
        let modes: Vec<KeyMode> = modes.into_iter().map(Into::into).collect();
        let (Ok(modes), Ok(held)) = (modes.try_into(), held.try_into()) else { return Err(keys) };
        let repeat = match repeat {
            None => None,
            Some((number, next)) => {
                let key = Key::from_number(number).ok_or(keys)?;
                Some(Repeat { key, next })
            }
        };
        Ok(Keyboard {
            answers: answers.into(),
            codes: codes.into(),
            awaited: awaited.map(Into::into),
            last,
            scanning,
            leds,
            scan_code_set,
            typematic,
            modes,
            held,
            repeat,
        })
    }
}

impl SavedMouse {
    fn of(mouse: &Mouse) -> Self {
        let Mouse {
            queue,
            last,
            awaited,
            kind,
            enabled,
            remote,
            wrap,
            double,
            resolution,
            rate,
            knock,
            mistaken,
            movement: Movement { x, y, wheel },
            buttons,
            told,
            next_report,
        } = mouse;
        let counter = |Counter { value, overflow }: &Counter| (*value, *overflow);
        Self {
            queue: queue.iter().copied().collect(),
            last: last.clone(),
            awaited: awaited.map(Into::into),
            kind: (*kind).into(),
            enabled: *enabled,
            remote: *remote,
            wrap: *wrap,
            double: *double,
            resolution: *resolution,
            rate: *rate,
            knock: *knock,
            mistaken: *mistaken,
            x: counter(x),
            y: counter(y),
            wheel: *wheel,
            buttons: buttons.bits(),
            told: told.bits(),
            next_report: *next_report,
        }
    }

    fn into_mouse(self) -> Result<Mouse, StateError> {
        let Self {
            queue,
            last,
            awaited,
            kind,
            enabled,
            remote,
            wrap,
            double,
            resolution,
            rate,
            knock,
            mistaken,
            x,
            y,
            wheel,
            buttons,
            told,
            next_report,
        } = self;
        if queue.len() > mouse::QUEUE || last.len() > mouse::QUEUE {
            return Err(StateError::Impossible("too many bytes in the mouse"));
        }
        if !COUNTS.contains(&x.0.into()) || !COUNTS.contains(&y.0.into()) {
            return Err(StateError::Impossible("the mouse's counters"));
        }
        if !(-WHEEL_STEPS..=WHEEL_STEPS).contains(&wheel) {
            return Err(StateError::Impossible("the mouse's wheel"));
        }
        let counter = |(value, overflow)| Counter { value, overflow };
        let buttons_of = |bits| {
            MouseButtons::from_bits(bits).ok_or(StateError::Impossible("the mouse's buttons"))
        };
        Ok(Mouse {
            queue: queue.into(),
            last,
            awaited: awaited.map(Into::into),
            kind: kind.into(),
            enabled,
            remote,
            wrap,
            double,
            resolution,
            rate,
            knock,
            mistaken,
            movement: Movement { x: counter(x), y: counter(y), wheel },
            buttons: buttons_of(buttons)?,
            told: buttons_of(told)?,
            next_report,
        })
    }
}

impl SaveRestore for I8042 {
    fn save(&self) -> Section {
        let Self { controller, lines, clock: _, irq1: _, irq12: _, a20: _, power: _ } = self;
        let Controller {
            keyboard,
            mouse,
            password: Password { codes, typed },
            poll,
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
            mouse: mouse.as_ref().map(SavedMouse::of),
            password: codes.clone(),
            password_typed: *typed,
            poll: poll.map(Into::into),
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
            mouse,
            password,
            password_typed,
            poll,
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
        let typed_ok = password_typed.is_none_or(|typed| usize::from(typed) < password.len());
        if password.len() > password::LONGEST || !typed_ok {
            return Err(StateError::Impossible("password of the 8042"));
        }
        self.controller = Controller {
            keyboard: keyboard.into_keyboard()?,
            mouse: mouse.map(SavedMouse::into_mouse).transpose()?,
            password: Password { codes: password, typed: password_typed },
            poll: poll.map(Into::into),
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
