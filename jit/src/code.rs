//! Code memory: one object of the host's memory mapped twice, to write and to execute, so that no
//! page is ever both.

use std::ops::Range;

use thiserror::Error;

use crate::mapping::Twice;

/// Why there is no code memory.
#[derive(Debug, Error)]
pub enum CodeError {
    /// The host refuses it.
    #[error("The host gives no memory for translated code: {0}")]
    Host(#[from] std::io::Error),
    /// The folder for listings cannot be made.
    #[error("The folder for listings cannot be made: {0}")]
    Dump(std::io::Error),
    /// The map for perf cannot be written.
    #[error("The map for perf cannot be written to /tmp: {0}")]
    PerfMap(std::io::Error),
}

/// Where code begins: as processors fetch it.
const ALIGNMENT: usize = 16;

/// How many parts there are of both halves, of which one is given up when all are full.
pub(crate) const REGIONS: usize = 8;

/// Memory for translated code. Its first half holds what is often run, its second the rest; both
/// are filled region by region, and the one that was filled first is given up first.
pub(crate) struct CodeMemory {
    memory: Twice,
    /// Bytes at the beginning that stay.
    routines: usize,
    /// The present region.
    region: usize,
    used: usize,
    /// Bytes in use from the middle on: code that is seldom run.
    used_cold: usize,
}

/// The addresses of a region: of what is often run, and of the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) hot: Range<u64>,
    pub(crate) cold: Range<u64>,
}

impl Region {
    /// Whether it has code at an address.
    pub(crate) fn has(&self, address: u64) -> bool {
        self.hot.contains(&address) || self.cold.contains(&address)
    }
}

impl CodeMemory {
    /// So many bytes; such that perf finds names for them, if it is to.
    pub(crate) fn new(size: usize, for_perf: bool) -> Result<Self, CodeError> {
        let memory = if for_perf { Twice::anonymous(size) } else { Twice::new(size) }?;
        Ok(Self { memory, routines: 0, region: 0, used: 0, used_cold: size / 2 })
    }

    /// The offsets of a region.
    fn bounds(&self, region: usize) -> (Range<usize>, Range<usize>) {
        let middle = self.memory.len() / 2;
        let size = middle / REGIONS / ALIGNMENT * ALIGNMENT;
        let hot = region * size..(region + 1) * size;
        let cold = middle + hot.start..middle + hot.end;
        (hot.start.max(self.routines)..hot.end, cold)
    }

    /// What has been put in up to now stays.
    pub(crate) fn keep(&mut self) {
        self.routines = self.used;
    }

    /// Goes on with another region, whose code must not be run any more.
    pub(crate) fn next_region(&mut self) -> Region {
        self.region = (self.region + 1) % REGIONS;
        let (hot, cold) = self.bounds(self.region);
        (self.used, self.used_cold) = (hot.start, cold.start);
        let base = self.memory.execute();
        let range = |range: Range<usize>| base + range.start as u64..base + range.end as u64;
        Region { hot: range(hot), cold: range(cold) }
    }

    /// The address at which the next code will be executed.
    pub(crate) fn next(&self) -> u64 {
        self.next_two().0
    }

    /// The same, and that of the next code that is seldom run.
    pub(crate) fn next_two(&self) -> (u64, u64) {
        let base = self.memory.execute();
        (base + self.used as u64, base + self.used_cold as u64)
    }

    /// Puts code at [`Self::next`]; false if there is no room.
    pub(crate) fn put(&mut self, code: &[u8]) -> bool {
        self.put_two(code, &[])
    }

    /// Puts code at [`Self::next_two`]; false if there is no room in the region.
    pub(crate) fn put_two(&mut self, hot: &[u8], cold: &[u8]) -> bool {
        let (used, used_cold) = (self.used + hot.len(), self.used_cold + cold.len());
        let (bounds, bounds_cold) = self.bounds(self.region);
        if used > bounds.end || used_cold > bounds_cold.end {
            return false;
        }
        let (at, at_cold) = (self.used, self.used_cold);
        let bytes = self.memory.bytes();
        for (range, code) in [(at..used, hot), (at_cold..used_cold, cold)] {
            if let Some(place) = bytes.get_mut(range) {
                place.copy_from_slice(code);
            }
        }
        self.used = used.next_multiple_of(ALIGNMENT);
        self.used_cold = used_cold;
        true
    }

    /// Whether an empty region would have room for this.
    pub(crate) fn could_hold(&self, hot: &[u8], cold: &[u8]) -> bool {
        let (bounds, _) = self.bounds(1);
        hot.len().max(cold.len()) <= bounds.len()
    }

    /// Makes the relative operand at an address lead to another.
    pub(crate) fn jump_to(&mut self, site: u64, target: u64) {
        let relative = target.wrapping_sub(site + 4) as u32;
        self.write(site, &relative.to_le_bytes());
    }

    /// Where the relative operand at an address leads.
    pub(crate) fn target(&mut self, site: u64) -> u64 {
        let relative = i32::from_le_bytes(self.read(site));
        (site + 4).wrapping_add_signed(relative.into())
    }

    /// Overwrites code at an address. What is there already is left alone: processors stop for every
    /// write to code that they may have fetched.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = address.wrapping_sub(self.memory.execute()) as usize;
        let place = self.memory.bytes().get_mut(at..at + bytes.len());
        if let Some(place) = place.filter(|place| **place != *bytes) {
            place.copy_from_slice(bytes);
        }
    }

    /// The bytes of code at an address; zeros if there is none.
    pub(crate) fn read<const N: usize>(&mut self, address: u64) -> [u8; N] {
        let at = address.wrapping_sub(self.memory.execute()) as usize;
        self.memory.bytes().get(at..).and_then(|code| code.first_chunk()).copied().unwrap_or([0; N])
    }

    /// Bytes in use of the present region and those before.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Gives up all code but that which stays.
    pub(crate) fn clear(&mut self) {
        self.region = 0;
        (self.used, self.used_cold) = (self.routines, self.memory.len() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;
    const REGION: usize = SIZE / 2 / REGIONS;

    #[test]
    fn regions_are_filled_one_after_the_other_and_routines_stay() {
        let mut memory = CodeMemory::new(SIZE, false).unwrap();
        let (first, cold) = memory.next_two();
        assert_eq!(cold - first, SIZE as u64 / 2);
        assert!(memory.put(&[1; 100]));
        memory.keep();
        assert_eq!(memory.next(), first + 112);
        assert!(memory.put_two(&vec![2; REGION - 112], &[3; 10]));
        assert!(!memory.put(&[4]));
        let region = memory.next_region();
        assert_eq!(region.hot.start, first + REGION as u64);
        assert_eq!(region.cold, cold + REGION as u64..cold + 2 * REGION as u64);
        assert!(region.has(memory.next()) && !region.has(first));
        // What is seldom run fills a region too.
        assert!(memory.put_two(&[5], &vec![6; REGION]));
        assert!(!memory.put_two(&[5], &[6]));
        let again = (1..REGIONS).map(|_| memory.next_region()).last().unwrap();
        assert_eq!((again.hot.start, again.cold.start), (first + 112, cold));
        assert!(memory.put(&[7]));
        memory.clear();
        assert_eq!(memory.next_two(), (first + 112, cold));
    }
}
