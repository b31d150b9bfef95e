//! Code memory: one object of the host's memory mapped twice, to write and to execute, so that no
//! page is ever both.

use thiserror::Error;

use crate::mapping::Twice;

/// Why there is no code memory.
#[derive(Debug, Error)]
pub enum CodeError {
    /// Translated code is made of instructions that the host lacks.
    #[error("The host's processor lacks BMI2")]
    NoBmi2,
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

/// Memory for translated code.
pub(crate) struct CodeMemory {
    memory: Twice,
    used: usize,
    /// Bytes in use from the middle on: code that is seldom run.
    used_cold: usize,
}

impl CodeMemory {
    /// So many bytes; such that perf finds names for them, if it is to.
    pub(crate) fn new(size: usize, for_perf: bool) -> Result<Self, CodeError> {
        let memory = if for_perf { Twice::anonymous(size) } else { Twice::new(size) }?;
        Ok(Self { memory, used: 0, used_cold: size / 2 })
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

    /// Puts code at [`Self::next_two`]; false if there is no room.
    pub(crate) fn put_two(&mut self, hot: &[u8], cold: &[u8]) -> bool {
        let (used, used_cold) = (self.used + hot.len(), self.used_cold + cold.len());
        let middle = self.memory.len() / 2;
        let (first, second) = self.memory.bytes().split_at_mut(middle);
        let place = first.get_mut(self.used..used);
        let place_cold = second.get_mut(self.used_cold - middle..used_cold - middle);
        let (Some(place), Some(place_cold)) = (place, place_cold) else { return false };
        place.copy_from_slice(hot);
        place_cold.copy_from_slice(cold);
        self.used = used.next_multiple_of(ALIGNMENT);
        self.used_cold = used_cold;
        true
    }

    /// Makes the relative operand at an address lead to another.
    pub(crate) fn jump_to(&mut self, site: u64, target: u64) {
        let relative = target.wrapping_sub(site + 4) as u32;
        self.write(site, &relative.to_le_bytes());
    }

    /// Overwrites code at an address.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = address.wrapping_sub(self.memory.execute()) as usize;
        if let Some(place) = self.memory.bytes().get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// The bytes of code at an address; zeros if there is none.
    pub(crate) fn read<const N: usize>(&mut self, address: u64) -> [u8; N] {
        let at = address.wrapping_sub(self.memory.execute()) as usize;
        self.memory.bytes().get(at..).and_then(|code| code.first_chunk()).copied().unwrap_or([0; N])
    }

    /// Gives up all code after the first `keep` bytes.
    pub(crate) fn truncate(&mut self, keep: usize) {
        self.used = keep.min(self.used);
        self.used_cold = self.memory.len() / 2;
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}
