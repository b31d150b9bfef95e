//! Puts parts of a kernel into guest RAM, checking that RAM is there and free.

use trivium_memory::{GuestMemory, GuestPhysAddr};

use crate::LoadError;
use crate::boot::low;
use crate::layout::{CONVENTIONAL_END, MIB, MemoryLayout};

const PAGE: u64 = 0x1000;

/// The address rounded up to a page.
pub(crate) fn page_up(address: u64) -> u64 {
    address.checked_add(PAGE - 1).map_or(!(PAGE - 1), |a| a & !(PAGE - 1))
}

/// Guest RAM that is being filled.
pub(crate) struct Placer<'a> {
    pub(crate) memory: &'a GuestMemory,
    pub(crate) layout: &'a MemoryLayout,
}

impl Placer<'_> {
    /// That `size` bytes at `start` are RAM below 4 GiB which a kernel may be loaded to.
    pub(crate) fn check(&self, what: &'static str, start: u64, size: u64) -> Result<(), LoadError> {
        let end = start.checked_add(size);
        let end = end.ok_or(LoadError::NoRamThere { start, end: u64::MAX })?;
        let inside = |range: std::ops::Range<u64>| range.start <= start && end <= range.end;
        if inside(low::END..CONVENTIONAL_END) || inside(self.layout.loadable()) {
            return Ok(());
        }
        // Within the first 4 GiB, more RAM would help.
        if start >= MIB && end <= crate::layout::LOW_RAM_LIMIT {
            return Err(self.too_small(what, end));
        }
        Err(LoadError::NoRamThere { start, end })
    }

    /// The error that extended memory up to `end` is needed.
    pub(crate) fn too_small(&self, what: &'static str, end: u64) -> LoadError {
        let reserved = self.layout.low_ram_end() - self.layout.loadable().end;
        LoadError::RamTooSmall {
            what,
            needed_mib: end.saturating_add(reserved).div_ceil(MIB),
            have_mib: self.layout.ram_size() / MIB,
        }
    }

    /// Writes bytes without further checks.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), LoadError> {
        Ok(self.memory.write(GuestPhysAddr(at), bytes)?)
    }

    /// Clears a range that was checked before. Pages that are zero are left alone, for the host
    /// then need not provide them.
    pub(crate) fn clear(&self, start: u64, size: u64) -> Result<(), LoadError> {
        let zeroes = [0; PAGE as usize];
        let mut page = [0; PAGE as usize];
        let (mut at, end) = (start, start.saturating_add(size));
        while at < end {
            let len = (PAGE - at % PAGE).min(end - at) as usize;
            let (Some(page), Some(zeroes)) = (page.get_mut(..len), zeroes.get(..len)) else {
                break;
            };
            self.memory.read(GuestPhysAddr(at), page)?;
            if page != zeroes {
                self.write(at, zeroes)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Puts the initial RAM disk as high as `max_end` and RAM allow, above `kernel_end`; gives its
    /// address.
    pub(crate) fn initrd(
        &self,
        initrd: &[u8],
        kernel_end: u64,
        max_end: u64,
    ) -> Result<u64, LoadError> {
        let size = initrd.len() as u64;
        let end = self.layout.loadable().end.min(max_end);
        let start = end.checked_sub(size).map(|a| a & !(PAGE - 1));
        let needed = page_up(kernel_end).saturating_add(page_up(size));
        match start {
            Some(start) if start >= kernel_end => {
                self.write(start, initrd)?;
                Ok(start)
            }
            _ if needed > max_end => Err(LoadError::Unsupported {
                what: format!(
                    "wants its initial RAM disk below {max_end:#x}, where it does not fit"
                ),
                remedy: "give a smaller initial RAM disk",
            }),
            _ => Err(self.too_small("kernel with its initial RAM disk", needed)),
        }
    }

    /// Writes the command line, after checking that it has at most `limit` bytes.
    pub(crate) fn command_line(&self, line: &str, limit: usize) -> Result<u64, LoadError> {
        let room = (low::COMMAND_LINE.end - low::COMMAND_LINE.start - 1) as usize;
        let limit = limit.min(room);
        if line.len() > limit {
            return Err(LoadError::CommandLineTooLong { have: line.len(), limit });
        }
        let mut bytes = line.as_bytes().to_vec();
        if bytes.contains(&0) {
            return Err(LoadError::CommandLineNul);
        }
        bytes.push(0);
        self.write(low::COMMAND_LINE.start, &bytes)?;
        Ok(low::COMMAND_LINE.start)
    }
}
