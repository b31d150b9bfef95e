//! Kernels that say in a Multiboot header of their own where they are to be loaded, whatever form
//! their file has.

use crate::bytes::u32_at;
use crate::place::Placer;
use crate::{LoadError, Subject};

/// Where the parts of a kernel go: the fields have the names of Multiboot 1 (3.1.3), and the
/// address tag of Multiboot2 has the same (3.1.5).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// Where the header itself will be.
    pub(crate) header_addr: u32,
    /// Where the text starts.
    pub(crate) load_addr: u32,
    /// Where the data end; 0: with the file.
    pub(crate) load_end_addr: u32,
    /// Where what is cleared ends; 0: there is nothing.
    pub(crate) bss_end_addr: u32,
}

/// A part of the file and where it goes.
pub(crate) struct Flat<'a> {
    text: &'a [u8],
    /// Where it wants to lie.
    pub(crate) start: u64,
    /// Where what is cleared after it ends.
    pub(crate) end: u64,
}

fn corrupt(what: &'static str) -> LoadError {
    LoadError::Corrupt { subject: Subject::Kernel, what }
}

pub(crate) fn truncated(image: &[u8], needed: u64) -> LoadError {
    LoadError::Truncated {
        subject: Subject::Kernel,
        what: "Multiboot kernel",
        have: image.len() as u64,
        needed,
    }
}

impl Addresses {
    /// Reads the four fields at `offset`.
    pub(crate) fn read(image: &[u8], offset: usize) -> Result<Self, LoadError> {
        let field = |n: usize| {
            let at = offset.saturating_add(4 * n);
            u32_at(image, at).ok_or_else(|| truncated(image, at as u64 + 4))
        };
        Ok(Self {
            header_addr: field(0)?,
            load_addr: field(1)?,
            load_end_addr: field(2)?,
            bss_end_addr: field(3)?,
        })
    }

    /// The part of the file that is loaded; its header was found at `header_offset`.
    pub(crate) fn cut<'a>(
        &self,
        image: &'a [u8],
        header_offset: usize,
    ) -> Result<Flat<'a>, LoadError> {
        /// Multiboot2: the file is loaded from its start.
        const FROM_START: u32 = u32::MAX;
        let text_offset = match self.load_addr {
            FROM_START => 0,
            _ => self
                .header_addr
                .checked_sub(self.load_addr)
                .and_then(|before| header_offset.checked_sub(before as usize))
                .ok_or_else(|| corrupt("kernel's Multiboot load address is outside of the file"))?,
        };
        let load_addr = match self.load_addr {
            FROM_START => u32::try_from(header_offset)
                .ok()
                .and_then(|offset| self.header_addr.checked_sub(offset))
                .ok_or_else(|| corrupt("kernel's Multiboot header address is below the file"))?,
            given => given,
        };
        let size = if self.load_end_addr == 0 {
            image.len().saturating_sub(text_offset)
        } else {
            let size = self.load_end_addr.checked_sub(load_addr);
            size.ok_or_else(|| corrupt("kernel ends before it starts"))? as usize
        };
        let text_end = text_offset.saturating_add(size);
        let text = image.get(text_offset..text_end);
        let text = text.ok_or_else(|| truncated(image, text_end as u64))?;
        let start = u64::from(load_addr);
        let end = (start + size as u64).max(self.bss_end_addr.into());
        Ok(Flat { text, start, end })
    }
}

impl Flat<'_> {
    /// Copies it to `delta` above where it wants to lie, and clears what follows.
    pub(crate) fn load(&self, place: &Placer<'_>, delta: u64) -> Result<(), LoadError> {
        let start = self.start.wrapping_add(delta);
        let size = self.end - self.start;
        place.check("kernel", start, size)?;
        place.write(start, self.text)?;
        let text_size = self.text.len() as u64;
        place.clear(start + text_size, size - text_size)
    }
}
