//! The Multiboot2 boot information: what a kernel is told (3.6).

use trivium_memory::GuestPhysAddr;

use crate::boot::low;
use crate::elf_sections::Sections;
use crate::info::PlacedModule;
use crate::layout::{CONVENTIONAL_END, MIB, bios};
use crate::multiboot::{LOADER_NAME, command_line};
use crate::place::Placer;
use crate::{Kernel, LoadError};

/// Types of tags.
mod tag {
    pub const END: u32 = 0;
    pub const COMMAND_LINE: u32 = 1;
    pub const LOADER_NAME: u32 = 2;
    pub const MODULE: u32 = 3;
    pub const BASIC_MEMORY: u32 = 4;
    pub const MEMORY_MAP: u32 = 6;
    pub const ELF_SECTIONS: u32 = 9;
    pub const SMBIOS: u32 = 13;
    pub const ACPI_OLD_RSDP: u32 = 14;
    pub const ACPI_NEW_RSDP: u32 = 15;
    pub const LOAD_BASE: u32 = 21;
}

/// What it is made of.
pub(super) struct Content<'a> {
    pub(super) kernel: &'a Kernel<'a>,
    pub(super) modules: &'a [PlacedModule<'a>],
    pub(super) sections: Option<&'a Sections>,
    /// Where a kernel that may lie elsewhere has been loaded.
    pub(super) base: Option<u32>,
    pub(super) rsdp: Option<GuestPhysAddr>,
}

/// Tags, one after the other, each on a multiple of 8.
struct Tags(Vec<u8>);

impl Tags {
    /// Total size and a reserved field come first.
    fn new() -> Self {
        Self(vec![0; 8])
    }

    fn add(&mut self, kind: u32, parts: &[&[u8]]) {
        let size: usize = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
        self.0.extend(kind.to_le_bytes());
        self.0.extend((size as u32).to_le_bytes());
        parts.iter().for_each(|part| self.0.extend(*part));
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn add_string(&mut self, kind: u32, before: &[u8], text: &str) -> Result<(), LoadError> {
        if text.as_bytes().contains(&0) {
            return Err(LoadError::CommandLineNul);
        }
        self.add(kind, &[before, text.as_bytes(), &[0]]);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.add(tag::END, &[]);
        let size = (self.0.len() as u32).to_le_bytes();
        crate::bytes::put(&mut self.0, 0, &size);
        self.0
    }
}

/// Writes it, to low memory if it fits there and else to `spare`; gives its address.
pub(super) fn write(
    place: &Placer<'_>,
    content: &Content<'_>,
    spare: u64,
) -> Result<u64, LoadError> {
    let bytes = build(place, content)?;
    let size = bytes.len() as u64;
    let room = low::START_INFO;
    let at = if size <= room.end - room.start {
        room.start
    } else {
        place.check("kernel with what it is told", spare, size)?;
        spare
    };
    place.write(at, &bytes)?;
    Ok(at)
}

fn build(place: &Placer<'_>, content: &Content<'_>) -> Result<Vec<u8>, LoadError> {
    let mut tags = Tags::new();
    tags.add_string(tag::COMMAND_LINE, &[], &command_line(content.kernel))?;
    tags.add_string(tag::LOADER_NAME, &[], LOADER_NAME)?;
    for module in content.modules {
        let range = [module.start as u32, module.end as u32].map(u32::to_le_bytes).concat();
        tags.add_string(tag::MODULE, &range, module.command_line)?;
    }
    let upper = place.layout.loadable();
    let kib = [CONVENTIONAL_END / 1024, (upper.end - MIB) / 1024];
    tags.add(tag::BASIC_MEMORY, &[&kib.map(|kib| (kib as u32).to_le_bytes()).concat()]);
    tags.add(tag::MEMORY_MAP, &[&memory_map(place)]);
    if let Some(sections) = content.sections {
        tags.add(tag::ELF_SECTIONS, &[&section_counts(sections), &sections.headers]);
    }
    if let Some(base) = content.base {
        tags.add(tag::LOAD_BASE, &[&base.to_le_bytes()]);
    }
    if let Some(rsdp) = content.rsdp {
        add_rsdp(&mut tags, place, rsdp)?;
    }
    add_smbios(&mut tags, place)?;
    Ok(tags.finish())
}

/// Entry size and version, then each range: start, size, kind, reserved.
fn memory_map(place: &Placer<'_>) -> Vec<u8> {
    const ENTRY_SIZE: u32 = 24;
    const ENTRY_VERSION: u32 = 0;
    let mut bytes = [ENTRY_SIZE, ENTRY_VERSION].map(u32::to_le_bytes).concat();
    for range in place.layout.e820() {
        bytes.extend(range.start.to_le_bytes());
        bytes.extend(range.size.to_le_bytes());
        bytes.extend(u64::from(range.kind as u32).to_le_bytes());
    }
    bytes
}

/// Number, size of each and string index, as `multiboot2.h` of the specification's example has
/// them: 32 bits each. (The text has 16 bits each, which no loader and no kernel uses.)
fn section_counts(sections: &Sections) -> Vec<u8> {
    let Sections { count, entry_size, names, .. } = *sections;
    [count, entry_size, names].map(|field| u32::from(field).to_le_bytes()).concat()
}

/// Copies of the RSDP as ACPI 1.0 has it, and as later versions do.
fn add_rsdp(tags: &mut Tags, place: &Placer<'_>, at: GuestPhysAddr) -> Result<(), LoadError> {
    const OLD_SIZE: usize = 20;
    let mut rsdp = [0; 36];
    place.memory.read(at, &mut rsdp)?;
    tags.add(tag::ACPI_OLD_RSDP, &[rsdp.get(..OLD_SIZE).unwrap_or_default()]);
    tags.add(tag::ACPI_NEW_RSDP, &[&rsdp]);
    Ok(())
}

/// A copy of the SMBIOS structures, if they are in memory.
fn add_smbios(tags: &mut Tags, place: &Placer<'_>) -> Result<(), LoadError> {
    const SIZE: usize = 0x0c;
    let mut entry = [0; 0x18];
    place.memory.read(GuestPhysAddr(bios::SMBIOS3_ENTRY), &mut entry)?;
    if !entry.starts_with(b"_SM3_") {
        return Ok(());
    }
    let room = (bios::SMBIOS_TABLE.end - bios::SMBIOS_TABLE.start) as usize;
    let size = crate::bytes::u32_at(&entry, SIZE).unwrap_or(0) as usize;
    let mut table = vec![0; size.min(room)];
    place.memory.read(GuestPhysAddr(bios::SMBIOS_TABLE.start), &mut table)?;
    let [_, _, _, _, _, _, _, major, minor, ..] = entry;
    tags.add(tag::SMBIOS, &[&[major, minor, 0, 0, 0, 0, 0, 0], &table]);
    Ok(())
}
