//! fw_cfg, by which firmware and guests are told of the machine: QEMU's firmware configuration
//! device, by its documentation `docs/specs/fw_cfg.rst`.

mod items;
mod operation;
mod save_restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, DmaMemory, PortIo};

pub use self::items::{Content, FwCfgItems, ItemError, key};
use crate::access::byte_only;
use crate::vmcoreinfo::{self, VmCoreInfo};

/// The selector: 16 bits, only written.
const SELECTOR: u16 = 0x510;
/// The data register: 8 bits.
const DATA: u16 = 0x511;
/// The DMA address register's more significant half, big-endian.
const DMA_HIGH: u16 = 0x514;
/// Its less significant half, whose write starts an operation.
const DMA_LOW: u16 = 0x518;
/// What the DMA address register reads as.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";

/// The device.
pub struct FwCfg {
    items: FwCfgItems,
    selector: u16,
    /// Offset of the next byte of the selected item.
    offset: u32,
    /// The more significant half of the DMA address.
    dma_high: u32,
    memory: Arc<dyn DmaMemory>,
}

impl FwCfg {
    /// The first port.
    pub const BASE: u16 = SELECTOR;
    /// How many ports there are.
    pub const PORTS: u16 = 12;

    /// A device that tells of these items.
    #[must_use]
    pub fn new(items: FwCfgItems, memory: Arc<dyn DmaMemory>) -> Self {
        Self { items, selector: 0, offset: 0, dma_high: 0, memory }
    }

    /// The present bytes of the item with a name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.items.get(self.items.key_of(name)?).map(items::Item::bytes)
    }

    /// Where the guest says that its kernel's notes for memory dumps are.
    #[must_use]
    pub fn vmcoreinfo(&self) -> Option<VmCoreInfo> {
        let key = self.items.key_of(vmcoreinfo::FILE)?;
        let (_, item) = self.items.writable().find(|(known, _)| *known == key)?;
        // Only full writes are considered valid.
        VmCoreInfo::parse(&item.bytes).filter(|_| item.complete)
    }

    fn select(&mut self, selector: u16) {
        self.selector = selector;
        self.offset = 0;
    }

    /// The bytes of the selected item from the offset on.
    fn rest(&self) -> &[u8] {
        let bytes = self.items.get(self.selector).map_or(&[][..], items::Item::bytes);
        bytes.get(self.offset as usize..).unwrap_or_default()
    }

    /// The next byte; 0 after the end.
    fn read_data(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.offset = self.offset.saturating_add(1);
        byte
    }
}

impl PortIo for FwCfg {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        match port {
            DATA => {
                byte_only(width)?;
                Ok(self.read_data().into())
            }
            DMA_HIGH.. => {
                let first = usize::from(port - DMA_HIGH);
                let bytes = DMA_SIGNATURE.get(first..first + usize::from(width.bytes()));
                let bytes = bytes.ok_or(match width {
                    AccessWidth::Byte => BusError::NoRegister,
                    _ => BusError::Width,
                })?;
                Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
            }
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        match (port, width) {
            (SELECTOR, AccessWidth::Word) => self.select(value as u16),
            // Data are written by DMA only.
            (DATA, AccessWidth::Byte) => {}
            (DMA_HIGH, AccessWidth::Dword) => self.dma_high = value.swap_bytes(),
            (DMA_LOW, AccessWidth::Dword) => {
                let high = std::mem::take(&mut self.dma_high);
                self.operate(u64::from(high) << 32 | u64::from(value.swap_bytes()));
            }
            _ => return Err(BusError::NoRegister),
        }
        Ok(())
    }
}

impl Device for FwCfg {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        self.select(0);
        self.dma_high = 0;
        for (_, item) in self.items.writable_mut() {
            item.bytes.clone_from(&item.initial);
            item.complete = false;
        }
    }
}
