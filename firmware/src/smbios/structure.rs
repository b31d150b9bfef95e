//! One structure of the SMBIOS table: its formatted area and the strings after it (SMBIOS
//! specification 3.0, 6.1).

use crate::bytes::put;

/// A structure that is being put together. Offsets are those of the specification's tables, from
/// the structure's start.
pub(super) struct Structure {
    formatted: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    /// A structure whose formatted area has `length` bytes, all 0 but for its header.
    pub(super) fn new(kind: u8, length: u8, handle: u16) -> Self {
        let mut formatted = vec![0; length.into()];
        put(&mut formatted, 0, &[kind, length]);
        put(&mut formatted, 2, &handle.to_le_bytes());
        Self { formatted, strings: Vec::new() }
    }

    /// Sets a field.
    pub(super) fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        put(&mut self.formatted, offset, bytes);
        self
    }

    /// Sets a byte.
    pub(super) fn byte(self, offset: usize, value: u8) -> Self {
        self.put(offset, &[value])
    }

    /// Sets a 16-bit field.
    pub(super) fn word(self, offset: usize, value: u16) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    /// Sets the number of a string (6.1.3); an empty one is number 0.
    pub(super) fn string(mut self, offset: usize, text: &str) -> Self {
        let Ok(number) = u8::try_from(self.strings.len() + 1) else { return self };
        if text.is_empty() {
            return self;
        }
        self.strings.push(text.replace('\0', ""));
        self.byte(offset, number)
    }

    /// The structure's bytes: strings end with a NUL, and the last is followed by one more.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = self.formatted;
        for text in &self.strings {
            bytes.extend(text.bytes());
            bytes.push(0);
        }
        if self.strings.is_empty() {
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_numbered_from_1_and_end_with_two_nuls() {
        let structure = Structure::new(1, 6, 0x100).string(4, "a").string(5, "bc").finish();
        assert_eq!(structure, [&[1, 6, 0, 1, 1, 2][..], b"a\0bc\0\0"].concat());
    }

    #[test]
    fn a_structure_without_strings_ends_with_two_nuls() {
        assert_eq!(Structure::new(127, 4, 0x7f00).string(4, "").finish(), [127, 4, 0, 0x7f, 0, 0]);
    }
}
