//! A set of interrupt vectors: IRR, ISR or TMR, 256 bits each.

/// 256 bits, one per vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    pub fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] |= 1 << (vector & 63);
    }

    pub fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] &= !(1 << (vector & 63));
    }

    pub fn set(&mut self, vector: u8, present: bool) {
        if present { self.insert(vector) } else { self.remove(vector) }
    }

    /// Whether it holds no vector.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// The vector of the highest priority.
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        let vector = index as u32 * 64 + word.ilog2();
        u8::try_from(vector).ok()
    }

    /// One of the eight registers that show the set, 32 vectors each; `index` below 8.
    pub fn register(&self, index: u8) -> u32 {
        (self.0[usize::from(index >> 1 & 3)] >> (32 * (index & 1))) as u32
    }

    /// The set that these registers show.
    pub fn of_registers(registers: [u32; 8]) -> Self {
        let word = |n: usize| u64::from(registers[2 * n]) | u64::from(registers[2 * n + 1]) << 32;
        Self(std::array::from_fn(word))
    }

    /// Whether it holds a vector that is not allowed (0 to 15).
    pub fn has_illegal(&self) -> bool {
        self.0[0] & 0xffff != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_is_found_and_shown_in_its_register() {
        let mut set = VectorSet::default();
        assert_eq!(set.highest(), None);
        for vector in [16, 63, 64, 200, 255] {
            set.insert(vector);
            assert!(set.contains(vector));
            assert_eq!(set.highest(), Some(vector));
            assert_ne!(set.register(vector >> 5) & 1 << (vector & 31), 0);
        }
        set.remove(255);
        assert_eq!(set.highest(), Some(200));
    }
}
