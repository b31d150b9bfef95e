//! Translation of scan code set 2 into set 1, as the 8042's firmware does it when its configuration
//! byte says so (IBM PC AT Technical Reference, "Keyboard translation"; Microsoft's Keyboard Scan
//! Code Specification, appendix C).

/// The prefix of a break code in sets 2 and 3.
pub(super) const BREAK: u8 = 0xf0;
/// What a break code adds in set 1.
const BREAK_1: u8 = 0x80;

/// Set 1 for the codes 00h to 7Fh of set 2. Codes that no key has are translated, too.
const TABLE: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

/// Translates a stream of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Translator {
    /// A break prefix came; it is held back and marks the next code.
    pub(super) after_break: bool,
}

impl Translator {
    /// The byte of set 1 for the next byte of set 2, if it gives one.
    pub(super) fn translate(&mut self, byte: u8) -> Option<u8> {
        if byte == BREAK {
            self.after_break = true;
            return None;
        }
        let mark = if std::mem::take(&mut self.after_break) { BREAK_1 } else { 0 };
        Some(to_set_1(byte) | mark)
    }
}

/// Codes from 80h on are prefixes and answers and stay what they are, but for F7 and SysRq.
fn to_set_1(byte: u8) -> u8 {
    match byte {
        0x83 => 0x41,
        0x84 => 0x54,
        _ => TABLE.get(usize::from(byte)).copied().unwrap_or(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_1(bytes: &[u8]) -> Vec<u8> {
        let mut translator = Translator::default();
        bytes.iter().filter_map(|&byte| translator.translate(byte)).collect()
    }

    #[test]
    fn keys_become_those_of_set_1() {
        // Escape, A, Enter, left Shift, space, F1, F7, F12, keypad 5, SysRq
        for (two, one) in [
            (0x76, 0x01),
            (0x1c, 0x1e),
            (0x5a, 0x1c),
            (0x12, 0x2a),
            (0x29, 0x39),
            (0x05, 0x3b),
            (0x83, 0x41),
            (0x07, 0x58),
            (0x73, 0x4c),
            (0x84, 0x54),
        ] {
            assert_eq!(set_1(&[two]), [one], "{two:02x}h");
            assert_eq!(set_1(&[0xf0, two]), [one | 0x80], "{two:02x}h released");
            assert_eq!(set_1(&[0xe0, 0xf0, two]), [0xe0, one | 0x80], "E0h {two:02x}h released");
        }
    }

    #[test]
    fn answers_stay_what_they_are() {
        assert_eq!(set_1(&[0xfa, 0xaa, 0xee, 0xfe]), [0xfa, 0xaa, 0xee, 0xfe]);
        assert_eq!(set_1(&[0xfa, 0xab, 0x83]), [0xfa, 0xab, 0x41], "the translated identity");
    }

    #[test]
    fn the_make_codes_of_set_1_are_all_different() {
        let mut codes: Vec<u8> = (0x00..0x80).map(to_set_1).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 128);
    }
}
