//! Numbers for code segments, by their bases and limits: so that a few bits tell where RIP leads.

use std::collections::HashMap;

/// How many there may be at a time.
const MOST: usize = 1 << (20 - crate::cpu::Mode::BITS);

/// The code segments that there were.
#[derive(Debug, Default)]
pub(crate) struct CodeSegments {
    known: HashMap<(u32, u32), u16>,
    present: (u32, u32),
    number: u16,
}

impl CodeSegments {
    /// Goes over to the segment of a base and a limit; false if the numbers of all others are void.
    #[inline]
    pub(crate) fn enter(&mut self, segment: (u32, u32)) -> bool {
        if segment == self.present && !self.known.is_empty() {
            return true;
        }
        self.find(segment)
    }

    #[inline(never)]
    fn find(&mut self, segment: (u32, u32)) -> bool {
        self.present = segment;
        if let Some(number) = self.known.get(&segment) {
            self.number = *number;
            return true;
        }
        let fits = self.known.len() < MOST;
        if !fits {
            self.known.clear();
        }
        self.number = self.known.len() as u16;
        self.known.insert(segment, self.number);
        fits
    }

    /// The present one's number, less than [`MOST`].
    #[inline(always)]
    pub(crate) fn number(&self) -> u64 {
        u64::from(self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_its_number_until_there_are_too_many() {
        let mut segments = CodeSegments::default();
        let mut numbers = Vec::new();
        for base in 0..MOST as u32 {
            assert!(segments.enter((base, 0xffff)));
            numbers.push(segments.number());
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), MOST);
        assert!(segments.enter((7, 0xffff)));
        assert_eq!(segments.number(), 7);
        assert!(!segments.enter((7, 0xfffe)), "all numbers are taken");
        assert!(segments.enter((7, 0xffff)));
        assert_ne!(segments.number(), 0);
    }
}
