//! What a key sends when it is pressed, held and released, in each of the three scan code sets
//! (IBM PS/2 Hardware Technical Reference, "Keyboard scan codes").

use super::super::translate::{BREAK, Translator};
use super::keys::{Key, KeyMode};

/// The prefix of keys that the first keyboards did not have.
const E0: u8 = 0xe0;
const LEFT_SHIFT: u8 = 0x12;
const RIGHT_SHIFT: u8 = 0x59;
const PRINT_SCREEN: u8 = 0x7c;
const SYSRQ: u8 = 0x84;

const PAUSE: [u8; 8] = [0xe1, 0x14, 0x77, 0xe1, BREAK, 0x14, BREAK, 0x77];
const CTRL_PAUSE: [u8; 5] = [E0, 0x7e, E0, BREAK, 0x7e];

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    Press,
    Repeat,
    Release,
}

/// What some keys' codes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Modifiers {
    pub(super) left_shift: bool,
    pub(super) right_shift: bool,
    pub(super) ctrl: bool,
    pub(super) alt: bool,
    /// The Num Lock LED is on.
    pub(super) num_lock: bool,
}

/// Pretended moves of the Shift keys, which go before a make code and are undone after the break
/// code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pretence {
    None,
    ShiftPressed,
    ShiftsReleased,
}

impl Modifiers {
    fn shift(self) -> bool {
        self.left_shift || self.right_shift
    }

    fn pretence(self, key: Key) -> Pretence {
        match key {
            Key::Print if !self.shift() && !self.ctrl => Pretence::ShiftPressed,
            Key::KpDivide if self.shift() => Pretence::ShiftsReleased,
            _ if !key.is_navigation() || self.shift() && self.num_lock => Pretence::None,
            _ if self.shift() => Pretence::ShiftsReleased,
            _ if self.num_lock => Pretence::ShiftPressed,
            _ => Pretence::None,
        }
    }

    /// The pretence's codes, of the kind that goes before a make code or of that after a break code.
    fn pretend(self, pretence: Pretence, before: bool, bytes: &mut Vec<u8>) {
        let mut shift = |code, pressed: bool| push(bytes, true, code, !pressed);
        match pretence {
            Pretence::None => {}
            Pretence::ShiftPressed => shift(LEFT_SHIFT, before),
            Pretence::ShiftsReleased => {
                if self.left_shift {
                    shift(LEFT_SHIFT, !before);
                }
                if self.right_shift {
                    shift(RIGHT_SHIFT, !before);
                }
            }
        }
    }
}

fn push(bytes: &mut Vec<u8>, prefix: bool, code: u8, released: bool) {
    if prefix {
        bytes.push(E0);
    }
    if released {
        bytes.push(BREAK);
    }
    bytes.push(code);
}

/// What is sent in set 2.
pub(super) fn set_2(key: Key, stroke: Stroke, modifiers: Modifiers) -> Vec<u8> {
    let mut bytes = Vec::new();
    let released = stroke == Stroke::Release;
    match key {
        Key::Pause if stroke != Stroke::Press => {}
        Key::Pause if modifiers.ctrl => bytes.extend(CTRL_PAUSE),
        Key::Pause => bytes.extend(PAUSE),
        Key::Print if modifiers.alt => push(&mut bytes, false, SYSRQ, released),
        _ => {
            let pretence = modifiers.pretence(key);
            if stroke == Stroke::Press {
                modifiers.pretend(pretence, true, &mut bytes);
            }
            let (prefix, code) = match key {
                Key::Print => (true, PRINT_SCREEN),
                _ => key.set_2(),
            };
            push(&mut bytes, prefix, code, released);
            if released {
                modifiers.pretend(pretence, false, &mut bytes);
            }
        }
    }
    bytes
}

/// What is sent in set 1.
pub(super) fn set_1(key: Key, stroke: Stroke, modifiers: Modifiers) -> Vec<u8> {
    let mut translator = Translator::default();
    let bytes = set_2(key, stroke, modifiers);
    bytes.into_iter().filter_map(|byte| translator.translate(byte)).collect()
}

/// What is sent in set 3 by a key of this mode.
pub(super) fn set_3(key: Key, stroke: Stroke, mode: KeyMode) -> Vec<u8> {
    let mut bytes = Vec::new();
    let sends = match stroke {
        Stroke::Press => true,
        Stroke::Repeat => mode.repeats(),
        Stroke::Release => mode.breaks(),
    };
    if sends && key.set_3() != 0 {
        push(&mut bytes, false, key.set_3(), stroke == Stroke::Release);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::Stroke::{Press, Release, Repeat};
    use super::*;

    const NONE: Modifiers = Modifiers {
        left_shift: false,
        right_shift: false,
        ctrl: false,
        alt: false,
        num_lock: false,
    };
    const LEFT: Modifiers = Modifiers { left_shift: true, ..NONE };
    const RIGHT: Modifiers = Modifiers { right_shift: true, ..NONE };
    const CTRL: Modifiers = Modifiers { ctrl: true, ..NONE };
    const ALT: Modifiers = Modifiers { alt: true, ..NONE };
    const NUM: Modifiers = Modifiers { num_lock: true, ..NONE };
    const NUM_LEFT: Modifiers = Modifiers { num_lock: true, ..LEFT };

    #[test]
    fn print_screen_in_set_2() {
        for (modifiers, make, brk) in [
            (NONE, &[0xe0, 0x12, 0xe0, 0x7c][..], &[0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12][..]),
            (LEFT, &[0xe0, 0x7c], &[0xe0, 0xf0, 0x7c]),
            (CTRL, &[0xe0, 0x7c], &[0xe0, 0xf0, 0x7c]),
            (ALT, &[0x84], &[0xf0, 0x84]),
        ] {
            assert_eq!(set_2(Key::Print, Press, modifiers), make, "{modifiers:?}");
            assert_eq!(set_2(Key::Print, Release, modifiers), brk, "{modifiers:?}");
        }
        assert_eq!(set_2(Key::Print, Repeat, NONE), [0xe0, 0x7c]);
    }

    #[test]
    fn print_screen_and_pause_in_set_1() {
        assert_eq!(set_1(Key::Print, Press, NONE), [0xe0, 0x2a, 0xe0, 0x37]);
        assert_eq!(set_1(Key::Print, Release, NONE), [0xe0, 0xb7, 0xe0, 0xaa]);
        assert_eq!(set_1(Key::Print, Press, ALT), [0x54]);
        assert_eq!(set_1(Key::Print, Release, ALT), [0xd4]);
        assert_eq!(set_1(Key::Pause, Press, NONE), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
        assert_eq!(set_1(Key::Pause, Press, CTRL), [0xe0, 0x46, 0xe0, 0xc6]);
    }

    #[test]
    fn pause_is_not_typematic_and_has_no_break_code() {
        let make = [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77];
        assert_eq!(set_2(Key::Pause, Press, NONE), make);
        assert_eq!(set_2(Key::Pause, Press, CTRL), [0xe0, 0x7e, 0xe0, 0xf0, 0x7e]);
        assert_eq!(set_2(Key::Pause, Repeat, NONE), []);
        assert_eq!(set_2(Key::Pause, Release, NONE), []);
    }

    #[test]
    fn navigation_keys_pretend_shift() {
        for (modifiers, make, brk) in [
            (NONE, &[0xe0, 0x75][..], &[0xe0, 0xf0, 0x75][..]),
            (NUM_LEFT, &[0xe0, 0x75], &[0xe0, 0xf0, 0x75]),
            (NUM, &[0xe0, 0x12, 0xe0, 0x75], &[0xe0, 0xf0, 0x75, 0xe0, 0xf0, 0x12]),
            (LEFT, &[0xe0, 0xf0, 0x12, 0xe0, 0x75], &[0xe0, 0xf0, 0x75, 0xe0, 0x12]),
            (RIGHT, &[0xe0, 0xf0, 0x59, 0xe0, 0x75], &[0xe0, 0xf0, 0x75, 0xe0, 0x59]),
        ] {
            assert_eq!(set_2(Key::Up, Press, modifiers), make, "{modifiers:?}");
            assert_eq!(set_2(Key::Up, Release, modifiers), brk, "{modifiers:?}");
        }
        assert_eq!(set_2(Key::Up, Repeat, NUM), [0xe0, 0x75]);
        assert_eq!(set_1(Key::Up, Press, LEFT), [0xe0, 0xaa, 0xe0, 0x48]);
        assert_eq!(set_1(Key::Up, Release, LEFT), [0xe0, 0xc8, 0xe0, 0x2a]);
    }

    #[test]
    fn the_divide_key_pretends_that_shift_is_released() {
        assert_eq!(set_2(Key::KpDivide, Press, NUM), [0xe0, 0x4a]);
        assert_eq!(set_2(Key::KpDivide, Press, LEFT), [0xe0, 0xf0, 0x12, 0xe0, 0x4a]);
        assert_eq!(set_2(Key::KpDivide, Release, LEFT), [0xe0, 0xf0, 0x4a, 0xe0, 0x12]);
    }

    #[test]
    fn set_3_has_one_code_for_each_key() {
        for (key, code) in [
            (Key::Print, 0x57),
            (Key::Pause, 0x62),
            (Key::Up, 0x63),
            (Key::CtrlLeft, 0x11),
            (Key::CapsLock, 0x14),
        ] {
            assert_eq!(set_3(key, Press, KeyMode::Make), [code]);
        }
        assert_eq!(set_3(Key::A, Repeat, KeyMode::Typematic), [0x1c]);
        assert_eq!(set_3(Key::A, Release, KeyMode::Typematic), []);
        assert_eq!(set_3(Key::A, Repeat, KeyMode::MakeBreak), []);
        assert_eq!(set_3(Key::A, Release, KeyMode::MakeBreak), [0xf0, 0x1c]);
        assert_eq!(set_3(Key::Mail, Press, KeyMode::Make), [], "not a key of set 3");
    }
}
