//! Random numbers that a seed and an index alone decide.

/// The generator splitmix64.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// The numbers that belong to these two.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut first = Self(seed);
        let start = first.any() ^ index.rotate_left(32);
        Self(Self(start).any())
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number less than `n`; zero if that is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.any()) * u128::from(n) >> 64) as u64
    }

    /// True so often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these, each as likely; there must be one.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// These bits, each set so often in a hundred.
    pub fn bits(&mut self, mask: u64, percent: u64) -> u64 {
        let mut found = 0;
        for bit in (0..64).filter(|bit| mask >> bit & 1 != 0) {
            found |= u64::from(self.percent(percent)) << bit;
        }
        found
    }
}
