//! The section headers of an ELF kernel, which Multiboot kernels are told of to find their symbols.

use crate::LoadError;
use crate::bytes::{put, u8_at, u16_at, u32_at, u64_at};
use crate::place::{Placer, page_up};

/// Section headers as the kernel gets them: the addresses are those of the sections in memory.
pub(crate) struct Sections {
    /// The headers, one after the other.
    pub(crate) headers: Vec<u8>,
    /// How many there are.
    pub(crate) count: u16,
    /// The size of each.
    pub(crate) entry_size: u16,
    /// Which section has the sections' names.
    pub(crate) names: u16,
    /// Where the memory that they use ends.
    pub(crate) end: u64,
}

/// Offsets of what is used of the ELF header and of a section header (System V ABI, chapter 4).
struct Offsets {
    e_shoff: usize,
    e_shentsize: usize,
    header_size: u16,
    sh_addr: usize,
    sh_offset: usize,
    sh_size: usize,
    wide: bool,
}

const ELF32: Offsets = Offsets {
    e_shoff: 32,
    e_shentsize: 46,
    header_size: 40,
    sh_addr: 12,
    sh_offset: 16,
    sh_size: 20,
    wide: false,
};
const ELF64: Offsets = Offsets {
    e_shoff: 40,
    e_shentsize: 58,
    header_size: 64,
    sh_addr: 16,
    sh_offset: 24,
    sh_size: 32,
    wide: true,
};

const EI_CLASS: usize = 4;
const ELFCLASS32: u8 = 1;
const SH_TYPE: usize = 4;
const SHT_NULL: u32 = 0;
const SHT_NOBITS: u32 = 8;

impl Offsets {
    /// A field as wide as an address.
    fn field(&self, bytes: &[u8], offset: usize) -> Option<u64> {
        if self.wide { u64_at(bytes, offset) } else { u32_at(bytes, offset).map(u64::from) }
    }

    fn set(&self, header: &mut [u8], offset: usize, value: u64) {
        let size = if self.wide { 8 } else { 4 };
        put(header, offset, value.to_le_bytes().get(..size).unwrap_or_default());
    }
}

/// The bytes from an offset that a file gives.
fn range(image: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(size).ok()?)?;
    image.get(start..end)
}

/// Puts the sections that no segment has, such as symbols, from `start` on into memory. A file
/// without good section headers, or whose sections do not fit, has none.
pub(crate) fn load(
    place: &Placer<'_>,
    image: &[u8],
    start: u64,
) -> Result<Option<Sections>, LoadError> {
    let offsets = if u8_at(image, EI_CLASS) == Some(ELFCLASS32) { &ELF32 } else { &ELF64 };
    let Some(mut sections) = find(image, offsets, start) else { return Ok(None) };
    // Honest sections do not overlap.
    let mut room = image.len() as u64;
    for header in sections.headers.chunks_exact_mut(offsets.header_size.into()) {
        let Some(data) = unloaded(image, offsets, header) else { continue };
        let at = page_up(sections.end);
        let size = data.len() as u64;
        let Some(left) = room.checked_sub(size) else { continue };
        if place.check("kernel's symbols", at, size).is_err() {
            continue;
        }
        place.write(at, data)?;
        offsets.set(header, offsets.sh_addr, at);
        sections.end = at.saturating_add(size);
        room = left;
    }
    Ok(Some(sections))
}

/// The section headers as they are in the file.
fn find(image: &[u8], offsets: &Offsets, start: u64) -> Option<Sections> {
    let entry_size = u16_at(image, offsets.e_shentsize)?;
    let count = u16_at(image, offsets.e_shentsize + 2)?;
    let names = u16_at(image, offsets.e_shentsize + 4)?;
    if entry_size != offsets.header_size || count == 0 {
        return None;
    }
    let size = u64::from(entry_size) * u64::from(count);
    let headers = range(image, offsets.field(image, offsets.e_shoff)?, size)?.to_vec();
    Some(Sections { headers, count, entry_size, names, end: start })
}

/// What a section has in the file, if it is in no segment.
fn unloaded<'a>(image: &'a [u8], offsets: &Offsets, header: &[u8]) -> Option<&'a [u8]> {
    let kind = u32_at(header, SH_TYPE)?;
    let address = offsets.field(header, offsets.sh_addr)?;
    if [SHT_NULL, SHT_NOBITS].contains(&kind) || address != 0 {
        return None;
    }
    let offset = offsets.field(header, offsets.sh_offset)?;
    let data = range(image, offset, offsets.field(header, offsets.sh_size)?)?;
    (!data.is_empty()).then_some(data)
}
