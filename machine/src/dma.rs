//! Guest memory as the board's bus masters see it.

use std::sync::Arc;

use trivium_chipset::dma::{DmaError, DmaMemory};
use trivium_memory::{GuestMemory, GuestPhysAddr};

/// The bus masters' way to guest memory. Device registers in memory are not reached by it.
#[derive(Clone)]
pub struct GuestDma(Arc<GuestMemory>);

impl GuestDma {
    /// The way to `memory`.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>) -> Self {
        Self(memory)
    }
}

impl DmaMemory for GuestDma {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaError> {
        let len = data.len();
        self.0.read(GuestPhysAddr(address), data).map_err(|_| DmaError { address, len })
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        let len = data.len();
        self.0.write(GuestPhysAddr(address), data).map_err(|_| DmaError { address, len })
    }
}

#[cfg(test)]
mod tests {
    use trivium_memory::{FlatMap, Region, RegionKind, Written};

    use super::*;

    fn memory() -> Arc<GuestMemory> {
        let memory = GuestMemory::new(0x2000, 0).unwrap();
        memory.set_map(FlatMap::new(&[
            Region::new(0, 0x1000, RegionKind::Ram { offset: 0 }),
            Region::new(0x10_0000, 0x1000, RegionKind::Ram { offset: 0x1000 }),
        ]));
        Arc::new(memory)
    }

    #[test]
    fn bus_masters_pass_the_a20_gate_and_are_seen_by_code_and_dirty_tracking() {
        let memory = memory();
        let dma = GuestDma::new(memory.clone());
        memory.set_a20(false);
        let mut reader = memory.code().add_reader();
        memory.code().mark(0x1000, 4);
        assert_eq!(dma.write(0x10_0000, &[7]), Ok(()));
        assert_eq!(memory.ram().load::<u8>(0x1000), 7);
        assert!(memory.dirty().is_dirty(1));
        assert_eq!(memory.code().take_written(&mut reader), Written::Pages(vec![1]));
    }

    #[test]
    fn what_is_not_ram_is_refused() {
        let dma = GuestDma::new(memory());
        for address in [0x1000, 0xfff, u64::MAX] {
            assert_eq!(dma.write(address, &[0; 2]), Err(DmaError { address, len: 2 }));
            assert_eq!(dma.read(address, &mut [0; 2]), Err(DmaError { address, len: 2 }));
        }
    }
}
