//! The physical memory of a case: a few windows of RAM, far apart.

/// A piece of RAM.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its first physical address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Data at the bottom of memory, where large pages at 0 reach it.
pub const LOW: Window = Window { start: 0, len: 0x8000 };
/// What belongs to the supervisor: see [`super::layout`].
pub const SYSTEM: Window = Window { start: 0x10_0000, len: 0x2_8000 };
/// Data above 4 GiB, at a multiple of 1 GiB.
pub const HIGH: Window = Window { start: 0x1_4000_0000, len: 0x2000 };
/// Data that needs 40 bits of physical address, for those CPUs that have them.
pub const TOP: Window = Window { start: 1 << 39, len: 0x2000 };

/// All RAM, in the order in which an image holds it.
pub const WINDOWS: [Window; 4] = [LOW, SYSTEM, HIGH, TOP];

/// Bytes of all RAM.
pub const SIZE: u64 = LOW.len + SYSTEM.len + HIGH.len + TOP.len;

impl Window {
    /// Whether an address lies in it.
    #[must_use]
    pub const fn contains(&self, physical: u64) -> bool {
        physical >= self.start && physical - self.start < self.len
    }
}

/// What the memory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Default for Image {
    fn default() -> Self {
        Self { bytes: vec![0; SIZE as usize] }
    }
}

impl Image {
    /// An image of zeroes but for the data, where each byte tells its address.
    #[must_use]
    pub fn with_data() -> Self {
        let mut image = Self::default();
        for window in [LOW, HIGH, TOP] {
            for physical in window.start..window.start + window.len {
                image.put(physical, &[crate::layout::pattern(physical)]);
            }
        }
        image
    }

    /// All bytes, window by window.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Where a physical address is in the image, if there is RAM.
    #[must_use]
    pub fn offset(physical: u64) -> Option<usize> {
        let mut before = 0;
        for window in &WINDOWS {
            if window.contains(physical) {
                return usize::try_from(before + physical - window.start).ok();
            }
            before += window.len;
        }
        None
    }

    /// The physical address of an offset in the image.
    #[must_use]
    pub fn physical(offset: usize) -> u64 {
        let mut offset = offset as u64;
        for window in &WINDOWS {
            if offset < window.len {
                return window.start + offset;
            }
            offset -= window.len;
        }
        offset
    }

    /// A byte; all ones where there is no RAM.
    #[must_use]
    pub fn byte(&self, physical: u64) -> u8 {
        Self::offset(physical).and_then(|o| self.bytes.get(o)).copied().unwrap_or(0xff)
    }

    /// Up to eight bytes as a number.
    #[must_use]
    pub fn get(&self, physical: u64, size: u64) -> u64 {
        (0..size).fold(0, |value, n| value | u64::from(self.byte(physical + n)) << (8 * n))
    }

    /// Writes bytes; those where there is no RAM are lost.
    pub fn put(&mut self, physical: u64, bytes: &[u8]) {
        for (at, &byte) in (physical..).zip(bytes) {
            if let Some(place) = Self::offset(at).and_then(|o| self.bytes.get_mut(o)) {
                *place = byte;
            }
        }
    }

    /// Writes a number of so many bytes.
    pub fn put_number(&mut self, physical: u64, value: u64, size: usize) {
        self.put(physical, &value.to_le_bytes()[..size]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_offsets_go_together() {
        for window in WINDOWS {
            for physical in [window.start, window.start + window.len - 1] {
                let offset = Image::offset(physical).unwrap_or_default();
                assert_eq!(Image::physical(offset), physical);
            }
            assert_eq!(Image::offset(window.start + window.len), None);
        }
    }
}
