//! Random numbers that a seed and an index alone decide.

/// The generator xoshiro256** of Blackman and Vigna, seeded by splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Rng([u64; 4]);

/// One step of splitmix64.
const fn splitmix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ z >> 31)
}

/// A number that depends on all bits of both.
pub(super) const fn hash(a: u64, b: u64) -> u64 {
    splitmix(splitmix(a).1 ^ b.rotate_left(32)).1
}

impl Rng {
    /// The numbers that belong to these two.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut state = hash(seed, index);
        let words = std::array::from_fn(|_| {
            let (next, word) = splitmix(state);
            state = next;
            word
        });
        Self(words)
    }

    /// Any number.
    #[inline]
    pub fn any(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number less than `n`; zero if that is zero.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.any()) * u128::from(n) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// True so often in a hundred.
    #[inline]
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these, each as likely; there must be one.
    #[inline]
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

    /// One of these, each with its weight; there must be one.
    pub fn weighted<T: Copy>(&mut self, items: &[(u32, T)]) -> T {
        let total: u32 = items.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(u64::from(total)) as u32;
        for &(weight, item) in items {
            if at < weight {
                return item;
            }
            at -= weight;
        }
        items[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_and_index_alone() {
        let take = |seed, index| {
            let mut rng = Rng::new(seed, index);
            [rng.any(), rng.any()]
        };
        assert_eq!(take(1, 2), take(1, 2));
        assert_ne!(take(1, 2), take(2, 1));
        assert_ne!(take(1, 2), take(1, 3));
    }

    #[test]
    fn weights_decide_how_often() {
        let mut rng = Rng::new(0, 0);
        let rare = (0..10_000).filter(|_| rng.weighted(&[(1, true), (9, false)])).count();
        assert!((800..1200).contains(&rare), "{rare}");
        assert!((0..1000).all(|_| (-3..=3).contains(&rng.between(-3, 3))));
    }
}
