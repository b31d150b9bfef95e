//! Bus masters: how devices read and write the guest's memory themselves.

use std::sync::Mutex;

use thiserror::Error;

/// A bus master's cycles went to where there is no memory that takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("No memory at {address:#x} for {len} bytes")]
pub struct DmaError {
    /// The first address of the access.
    pub address: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// Guest memory as a bus master sees it: by guest-physical address, and past the A20 gate, which is
/// at the processor (A20M#). Writes are noticed by processors that hold decoded code of the place,
/// and by whoever tracks dirty pages.
pub trait DmaMemory: Send + Sync {
    /// Reads RAM or ROM.
    ///
    /// # Errors
    /// Part of the range is neither; the buffer may be partly filled.
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError>;

    /// Writes RAM.
    ///
    /// # Errors
    /// Part of the range is not RAM; what lies before that part may have been written.
    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError>;
}

/// Memory from address 0 on, all of it RAM: for tests of bus masters.
#[derive(Debug, Default)]
pub struct PlainMemory(Mutex<Vec<u8>>);

impl PlainMemory {
    /// So many bytes of zeros.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self(Mutex::new(vec![0; size]))
    }

    /// Does something with the bytes of an access, if they are all there.
    fn with<R>(
        &self,
        address: u64,
        len: usize,
        f: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, DmaError> {
        let mut bytes = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let start = usize::try_from(address).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(len)?));
        let place = range.and_then(|range| bytes.get_mut(range));
        place.map(f).ok_or(DmaError { address, len })
    }
}

impl DmaMemory for PlainMemory {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        self.with(address, data.len(), |bytes| data.copy_from_slice(bytes))
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.with(address, data.len(), |bytes| bytes.copy_from_slice(data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_memory_ends_where_it_ends() {
        let memory = PlainMemory::new(16);
        assert_eq!(memory.write(12, &[1, 2, 3, 4]), Ok(()));
        let mut data = [0; 2];
        assert_eq!(memory.read(14, &mut data), Ok(()));
        assert_eq!(data, [3, 4]);
        let refused = |address| Err(DmaError { address, len: 2 });
        for address in [15, 16, u64::MAX] {
            assert_eq!(memory.read(address, &mut data), refused(address));
            assert_eq!(memory.write(address, &data), refused(address));
        }
    }
}
