//! What chooses: bytes while there are any, then numbers that depend on the first of them.

use crate::hot::Random;

/// A source of choices.
pub(super) struct Choices<'a> {
    bytes: &'a [u8],
    random: Random,
}

impl<'a> Choices<'a> {
    /// The first eight bytes are a seed.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let (seed, rest) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let mut random = Random(u64::from_le_bytes(*seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.any();
        Self { bytes: rest, random }
    }

    pub(super) fn any(&mut self) -> u64 {
        match self.bytes.split_first_chunk::<2>() {
            Some((chunk, rest)) => {
                self.bytes = rest;
                // All of a number, so that small changes of bytes are small changes of choices.
                u64::from(u16::from_le_bytes(*chunk)) * 0x0001_0001_0001_0001
            }
            None => self.random.any() >> 8,
        }
    }

    /// A number less than `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        (self.any() & 0xffff_ffff) % n
    }

    /// Whether something of this chance in 16 is so.
    pub(super) fn chance(&mut self, of_16: u64) -> bool {
        self.below(16) < of_16
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
