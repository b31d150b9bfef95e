//! The saved state of fw_cfg: what the guest may change. The other items are the machine's
//! configuration.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::FwCfg;
use super::items::Writable;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    selector: u16,
    offset: u32,
    dma_high: u32,
    items: Vec<SavedItem>,
}

#[derive(Serialize, Deserialize)]
struct SavedItem {
    key: u16,
    bytes: Vec<u8>,
    complete: bool,
}

impl SaveRestore for FwCfg {
    fn save(&self) -> Section {
        let Self { items, selector, offset, dma_high, memory: _ } = self;
        let save_item = |(key, item): (u16, &Writable)| {
            let Writable { initial: _, bytes, complete } = item;
            SavedItem { key, bytes: bytes.clone(), complete: *complete }
        };
        let saved = Saved {
            selector: *selector,
            offset: *offset,
            dma_high: *dma_high,
            items: items.writable().map(save_item).collect(),
        };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let Saved { selector, offset, dma_high, items } = section.decode(VERSION)?;
        let here = self.items.writable().map(|(key, item)| (key, item.bytes.len()));
        if !here.eq(items.iter().map(|item| (item.key, item.bytes.len()))) {
            return Err(StateError::Impossible("items that fw_cfg does not have"));
        }
        for ((_, item), SavedItem { key: _, bytes, complete }) in
            self.items.writable_mut().zip(items)
        {
            item.bytes = bytes;
            item.complete = complete;
        }
        (self.selector, self.offset, self.dma_high) = (selector, offset, dma_high);
        Ok(())
    }
}
