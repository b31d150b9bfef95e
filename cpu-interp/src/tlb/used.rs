//! Which entries of a TLB are in use, so that a flush costs what it flushes: each entry once, however
//! often it was filled.

use super::TLB_SIZE;

/// Entries that one word tells of.
const BITS: usize = u64::BITS as usize;
const WORDS: usize = TLB_SIZE / BITS;

/// A bit for each entry.
#[derive(Debug, Clone)]
pub(super) struct Used {
    entries: [u64; WORDS],
    /// Those among them that are of global pages.
    global: [u64; WORDS],
    /// The words of `entries` that are not zero.
    words: u64,
}

const _: () = assert!(WORDS <= BITS);

impl Used {
    pub(super) const NONE: Self = Self { entries: [0; WORDS], global: [0; WORDS], words: 0 };

    /// An entry was filled.
    pub(super) fn note(&mut self, index: usize, global: bool) {
        let (word, bit) = (index / BITS % WORDS, 1 << (index % BITS));
        self.entries[word] |= bit;
        self.global[word] = self.global[word] & !bit | if global { bit } else { 0 };
        self.words |= 1 << word;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words == 0
    }

    /// Those that are in use.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        let words = bits(self.words);
        words.flat_map(|word| bits(self.entries[word]).map(move |bit| word * BITS + bit))
    }

    /// Takes out all entries, or those that are not of global pages, and gives each to `drop`.
    pub(super) fn drain(&mut self, keep_global: bool, mut drop: impl FnMut(usize)) {
        for word in bits(self.words) {
            let kept = if keep_global { self.global[word] } else { 0 };
            let gone = self.entries[word] & !kept;
            bits(gone).for_each(|bit| drop(word * BITS + bit));
            self.entries[word] &= kept;
            self.global[word] = kept & self.entries[word];
            if self.entries[word] == 0 {
                self.words &= !(1 << word);
            }
        }
    }
}

/// The numbers of the bits that are set.
fn bits(mut value: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = value.trailing_zeros() as usize;
        let is_one = value != 0;
        value &= value.wrapping_sub(1);
        is_one.then_some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(used: &mut Used, keep_global: bool) -> Vec<usize> {
        let mut all = Vec::new();
        used.drain(keep_global, |index| all.push(index));
        all
    }

    #[test]
    fn each_entry_comes_once_and_global_ones_may_stay() {
        let mut used = Used::NONE;
        for (index, global) in [(5, false), (4095, true), (5, false), (64, true), (64, false)] {
            used.note(index, global);
        }
        assert_eq!(used.all().collect::<Vec<_>>(), [5, 64, 4095]);
        assert_eq!(drained(&mut used, true), [5, 64], "64 is not of a global page any more");
        assert!(!used.is_empty());
        assert_eq!(drained(&mut used, false), [4095]);
        assert!(used.is_empty() && drained(&mut used, false).is_empty());
    }
}
