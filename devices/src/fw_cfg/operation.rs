//! The DMA interface of fw_cfg: an operation, which a structure in the guest's memory describes.

use super::FwCfg;
use crate::vmcoreinfo;

/// Size of the structure: control, length, address; all big-endian.
const DESCRIPTOR: usize = 16;
/// Control: something went wrong.
const ERROR: u32 = 1 << 0;
/// Control: copy from the item to memory.
const READ: u32 = 1 << 1;
/// Control: move the offset on.
const SKIP: u32 = 1 << 2;
/// Control: select the item of the upper 16 bits.
const SELECT: u32 = 1 << 3;
/// Control: copy from memory to the item.
const WRITE: u32 = 1 << 4;

/// The most bytes read beyond an item's end, which are zeros. The documentation sets no limit; no
/// guest has a use for so many.
const MOST_PADDING: usize = 16 << 20;
const ZEROS: [u8; 4096] = [0; 4096];

/// What an operation could not do.
struct Refused;

/// The `N` bytes at `at`.
fn field<const N: usize>(descriptor: &[u8; DESCRIPTOR], at: usize) -> [u8; N] {
    let bytes = descriptor.get(at..).and_then(|rest| rest.first_chunk());
    bytes.copied().unwrap_or([0; N])
}

impl FwCfg {
    /// Does what the structure at an address says, and clears its control field or sets the error
    /// bit there.
    pub(super) fn operate(&mut self, at: u64) {
        let mut descriptor = [0; DESCRIPTOR];
        if self.memory.read(at, &mut descriptor).is_err() {
            // There is no place to say so.
            trivium_chipset::guest_log!(
                Debug,
                "fw_cfg: no RAM at {at:#x}, where the guest says that it describes DMA"
            );
            return;
        }
        let control = u32::from_be_bytes(field(&descriptor, 0));
        let length = u32::from_be_bytes(field(&descriptor, 4));
        let address = u64::from_be_bytes(field(&descriptor, 8));
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let result = match control {
            _ if control & READ != 0 => self.read_item(address, length),
            _ if control & WRITE != 0 => self.write_item(address, length),
            _ => Ok(()),
        };
        if result.is_ok() && control & (READ | WRITE | SKIP) != 0 {
            self.offset = self.offset.saturating_add(length);
        }
        let result = if result.is_ok() { 0 } else { ERROR };
        let _ = self.memory.write(at, &u32::to_be_bytes(result));
    }

    /// Copies what is left of the item to memory, and zeros after it.
    fn read_item(&self, address: u64, length: u32) -> Result<(), Refused> {
        let length = length as usize;
        let rest = self.rest();
        let data = rest.get(..length).unwrap_or(rest);
        let mut padding = length - data.len();
        if padding > MOST_PADDING {
            return Err(Refused);
        }
        self.memory.write(address, data).map_err(|_| Refused)?;
        let mut at = address.checked_add(data.len() as u64).ok_or(Refused)?;
        while padding > 0 {
            let zeros = ZEROS.get(..padding).unwrap_or(&ZEROS);
            self.memory.write(at, zeros).map_err(|_| Refused)?;
            at = at.checked_add(zeros.len() as u64).ok_or(Refused)?;
            padding -= zeros.len();
        }
        Ok(())
    }

    /// Copies from memory to an item that may be written, if it all fits.
    fn write_item(&mut self, address: u64, length: u32) -> Result<(), Refused> {
        let (selector, first) = (self.selector, self.offset as usize);
        let item = self.items.get_writable(selector).ok_or(Refused)?;
        let whole = item.bytes.len();
        let place = first
            .checked_add(length as usize)
            .and_then(|end| item.bytes.get_mut(first..end))
            .ok_or(Refused)?;
        // What memory does not have must not be left half written.
        let mut data = vec![0; place.len()];
        self.memory.read(address, &mut data).map_err(|_| Refused)?;
        place.copy_from_slice(&data);
        item.complete = data.len() == whole;
        if self.items.key_of(vmcoreinfo::FILE) == Some(selector)
            && let Some(info) = self.vmcoreinfo()
        {
            trivium_chipset::guest_log!(
                Debug,
                "The guest's vmcoreinfo: {} bytes at {:#x}",
                info.size,
                info.address
            );
        }
        Ok(())
    }
}
