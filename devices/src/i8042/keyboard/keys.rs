//! The keys of a keyboard with 101, 102 and more keys: their names, and what they send (IBM PS/2
//! Hardware Technical Reference, "Scan code set 2" and "Scan code set 3"; Microsoft's Keyboard Scan
//! Code Specification for keys that came later).

/// What a key does in scan code set 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum KeyMode {
    /// Make codes, repeated while it is held.
    Typematic,
    /// A make and a break code.
    MakeBreak,
    /// A make code alone.
    Make,
    /// A make code, repeated, and a break code.
    TypematicMakeBreak,
}

impl KeyMode {
    pub(super) fn repeats(self) -> bool {
        matches!(self, Self::Typematic | Self::TypematicMakeBreak)
    }

    pub(super) fn breaks(self) -> bool {
        matches!(self, Self::MakeBreak | Self::TypematicMakeBreak)
    }
}

/// What a key sends.
struct Codes {
    name: &'static str,
    /// Set 2, with the prefix E0h in the upper byte.
    set_2: u16,
    /// Set 3, or 0.
    set_3: u8,
    /// What it does in set 3 unless told otherwise.
    mode: KeyMode,
}

macro_rules! keys {
    ($($key:ident $name:literal $set_2:literal $set_3:literal $mode:ident,)*) => {
        /// A key, by its place on the keyboard of the United States.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // Their names say it all.
        pub enum Key { $($key,)* }

        impl Key {
            /// All keys, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$key,)*];
        }

        static CODES: [Codes; Key::ALL.len()] = [
            $(Codes { name: $name, set_2: $set_2, set_3: $set_3, mode: KeyMode::$mode },)*
        ];
    };
}

keys! {
    Esc "esc" 0x76 0x08 Make,
    F1 "f1" 0x05 0x07 Make,
    F2 "f2" 0x06 0x0f Make,
    F3 "f3" 0x04 0x17 Make,
    F4 "f4" 0x0c 0x1f Make,
    F5 "f5" 0x03 0x27 Make,
    F6 "f6" 0x0b 0x2f Make,
    F7 "f7" 0x83 0x37 Make,
    F8 "f8" 0x0a 0x3f Make,
    F9 "f9" 0x01 0x47 Make,
    F10 "f10" 0x09 0x4f Make,
    F11 "f11" 0x78 0x56 Make,
    F12 "f12" 0x07 0x5e Make,
    Print "print" 0xe07c 0x57 Make,
    ScrollLock "scroll_lock" 0x7e 0x5f Make,
    Pause "pause" 0xe177 0x62 Make,
    Grave "grave_accent" 0x0e 0x0e Typematic,
    Digit1 "1" 0x16 0x16 Typematic,
    Digit2 "2" 0x1e 0x1e Typematic,
    Digit3 "3" 0x26 0x26 Typematic,
    Digit4 "4" 0x25 0x25 Typematic,
    Digit5 "5" 0x2e 0x2e Typematic,
    Digit6 "6" 0x36 0x36 Typematic,
    Digit7 "7" 0x3d 0x3d Typematic,
    Digit8 "8" 0x3e 0x3e Typematic,
    Digit9 "9" 0x46 0x46 Typematic,
    Digit0 "0" 0x45 0x45 Typematic,
    Minus "minus" 0x4e 0x4e Typematic,
    Equal "equal" 0x55 0x55 Typematic,
    Backspace "backspace" 0x66 0x66 Typematic,
    Tab "tab" 0x0d 0x0d Typematic,
    Q "q" 0x15 0x15 Typematic,
    W "w" 0x1d 0x1d Typematic,
    E "e" 0x24 0x24 Typematic,
    R "r" 0x2d 0x2d Typematic,
    T "t" 0x2c 0x2c Typematic,
    Y "y" 0x35 0x35 Typematic,
    U "u" 0x3c 0x3c Typematic,
    I "i" 0x43 0x43 Typematic,
    O "o" 0x44 0x44 Typematic,
    P "p" 0x4d 0x4d Typematic,
    BracketLeft "bracket_left" 0x54 0x54 Typematic,
    BracketRight "bracket_right" 0x5b 0x5b Typematic,
    Backslash "backslash" 0x5d 0x5c Typematic,
    CapsLock "caps_lock" 0x58 0x14 MakeBreak,
    A "a" 0x1c 0x1c Typematic,
    S "s" 0x1b 0x1b Typematic,
    D "d" 0x23 0x23 Typematic,
    F "f" 0x2b 0x2b Typematic,
    G "g" 0x34 0x34 Typematic,
    H "h" 0x33 0x33 Typematic,
    J "j" 0x3b 0x3b Typematic,
    K "k" 0x42 0x42 Typematic,
    L "l" 0x4b 0x4b Typematic,
    Semicolon "semicolon" 0x4c 0x4c Typematic,
    Apostrophe "apostrophe" 0x52 0x52 Typematic,
    Enter "ret" 0x5a 0x5a Typematic,
    ShiftLeft "shift" 0x12 0x12 MakeBreak,
    Less "less" 0x61 0x13 Typematic,
    Z "z" 0x1a 0x1a Typematic,
    X "x" 0x22 0x22 Typematic,
    C "c" 0x21 0x21 Typematic,
    V "v" 0x2a 0x2a Typematic,
    B "b" 0x32 0x32 Typematic,
    N "n" 0x31 0x31 Typematic,
    M "m" 0x3a 0x3a Typematic,
    Comma "comma" 0x41 0x41 Typematic,
    Dot "dot" 0x49 0x49 Typematic,
    Slash "slash" 0x4a 0x4a Typematic,
    ShiftRight "shift_r" 0x59 0x59 MakeBreak,
    CtrlLeft "ctrl" 0x14 0x11 MakeBreak,
    MetaLeft "meta_l" 0xe01f 0x8b MakeBreak,
    AltLeft "alt" 0x11 0x19 MakeBreak,
    Space "spc" 0x29 0x29 Typematic,
    AltRight "alt_r" 0xe011 0x39 Make,
    MetaRight "meta_r" 0xe027 0x8c MakeBreak,
    Menu "menu" 0xe02f 0x8d MakeBreak,
    CtrlRight "ctrl_r" 0xe014 0x58 Make,
    Insert "insert" 0xe070 0x67 Make,
    Delete "delete" 0xe071 0x64 Typematic,
    Left "left" 0xe06b 0x61 Typematic,
    Home "home" 0xe06c 0x6e Make,
    End "end" 0xe069 0x65 Make,
    Up "up" 0xe075 0x63 Typematic,
    Down "down" 0xe072 0x60 Typematic,
    PageUp "pgup" 0xe07d 0x6f Make,
    PageDown "pgdn" 0xe07a 0x6d Make,
    Right "right" 0xe074 0x6a Typematic,
    NumLock "num_lock" 0x77 0x76 Make,
    Kp7 "kp_7" 0x6c 0x6c Make,
    Kp4 "kp_4" 0x6b 0x6b Make,
    Kp1 "kp_1" 0x69 0x69 Make,
    KpDivide "kp_divide" 0xe04a 0x77 Make,
    Kp8 "kp_8" 0x75 0x75 Make,
    Kp5 "kp_5" 0x73 0x73 Make,
    Kp2 "kp_2" 0x72 0x72 Make,
    Kp0 "kp_0" 0x70 0x70 Make,
    KpMultiply "kp_multiply" 0x7c 0x7e Make,
    Kp9 "kp_9" 0x7d 0x7d Make,
    Kp6 "kp_6" 0x74 0x74 Make,
    Kp3 "kp_3" 0x7a 0x7a Make,
    KpDecimal "kp_decimal" 0x71 0x71 Make,
    KpSubtract "kp_subtract" 0x7b 0x84 Make,
    KpAdd "kp_add" 0x79 0x7c Typematic,
    KpEnter "kp_enter" 0xe05a 0x79 Make,
    KpComma "kp_comma" 0x6d 0x7b Typematic,
    Ro "ro" 0x51 0x51 Typematic,
    Yen "yen" 0x6a 0x5d Typematic,
    Henkan "henkan" 0x64 0x86 Make,
    Muhenkan "muhenkan" 0x67 0x85 Make,
    KatakanaHiragana "katakanahiragana" 0x13 0x87 Make,
    Power "power" 0xe037 0x00 Make,
    Sleep "sleep" 0xe03f 0x00 Make,
    Wake "wake" 0xe05e 0x00 Make,
    AudioNext "audionext" 0xe04d 0x00 Make,
    AudioPrevious "audioprev" 0xe015 0x00 Make,
    AudioStop "audiostop" 0xe03b 0x00 Make,
    AudioPlay "audioplay" 0xe034 0x00 Make,
    AudioMute "audiomute" 0xe023 0x00 Make,
    VolumeUp "volumeup" 0xe032 0x00 Make,
    VolumeDown "volumedown" 0xe021 0x00 Make,
    Mail "mail" 0xe048 0x00 Make,
    Calculator "calculator" 0xe02b 0x00 Make,
    Computer "computer" 0xe040 0x00 Make,
    BrowserHome "ac_home" 0xe03a 0x00 Make,
    BrowserBack "ac_back" 0xe038 0x00 Make,
    BrowserForward "ac_forward" 0xe030 0x00 Make,
    BrowserRefresh "ac_refresh" 0xe020 0x00 Make,
}

/// Keys whose place on the numeric pad is older than they: in sets 1 and 2 they pretend that Shift
/// is as it must be for that place.
const NAVIGATION: [Key; 10] = [
    Key::Insert,
    Key::Delete,
    Key::Left,
    Key::Home,
    Key::End,
    Key::Up,
    Key::Down,
    Key::PageUp,
    Key::PageDown,
    Key::Right,
];

impl Key {
    fn codes(self) -> &'static Codes {
        // The table has a row for each key.
        &CODES[self as usize]
    }

    /// The key's name, as QEMU's monitor has it ("qcode").
    #[must_use]
    pub fn name(self) -> &'static str {
        self.codes().name
    }

    /// The key of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| key.name() == name)
    }

    pub(super) fn from_set_3(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|key| code != 0 && key.set_3() == code)
    }

    pub(in super::super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The make code in set 2 without prefix, and whether E0h goes before it. Pause has others.
    pub(super) fn set_2(self) -> (bool, u8) {
        let [code, prefix] = self.codes().set_2.to_le_bytes();
        (prefix != 0, code)
    }

    pub(super) fn set_3(self) -> u8 {
        self.codes().set_3
    }

    pub(super) fn default_mode(self) -> KeyMode {
        self.codes().mode
    }

    pub(super) fn is_navigation(self) -> bool {
        NAVIGATION.contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_unique() {
        for (n, key) in Key::ALL.iter().enumerate() {
            assert_eq!(Key::from_name(key.name()), Some(*key));
            assert_eq!(Key::from_number(n as u8), Some(*key));
            let same = Key::ALL.iter().filter(|other| other.set_2() == key.set_2());
            assert_eq!(same.count(), 1, "{key:?} in set 2");
            if key.set_3() != 0 {
                assert_eq!(Key::from_set_3(key.set_3()), Some(*key), "{key:?} in set 3");
            }
        }
        assert_eq!((Key::from_name("any"), Key::from_set_3(0)), (None, None));
    }
}
