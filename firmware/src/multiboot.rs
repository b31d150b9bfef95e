//! Kernels of the Multiboot specification, version 0.6.96 ("Multiboot 1").

use crate::bytes::{put, u32_at};
use crate::elf::{self, Elf};
use crate::elf_sections::{self, Sections};
use crate::flat::{self, Addresses};
use crate::info::{InfoSpace, PlacedModule, place_modules};
use crate::layout::{CONVENTIONAL_END, MIB};
use crate::place::Placer;
use crate::{BootState, Kernel, LoadError, Subject};

/// The header lies in this many bytes of the image, on a multiple of 4 (3.1.1).
const SEARCH: usize = 8192;
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// In EAX when the kernel is entered (3.2).
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// What the loader is called.
pub(crate) const LOADER_NAME: &str = "Trivium";

/// Header flags (3.1.2): of the lower half, all must be understood.
mod flag {
    /// Modules start on page boundaries: they always do.
    pub const PAGE_ALIGN: u32 = 1 << 0;
    /// The kernel wants to know about memory: it always does.
    pub const MEMORY_INFO: u32 = 1 << 1;
    /// The kernel wants a video mode.
    pub const VIDEO_MODE: u32 = 1 << 2;
    pub const MUST_UNDERSTAND: u32 = 0xffff;
    /// The header has load addresses.
    pub const ADDRESSES: u32 = 1 << 16;
}

/// Multiboot information: offsets of fields and the flags for them (3.3).
mod info {
    pub const FLAGS: usize = 0;
    pub const MEM_LOWER: usize = 4;
    pub const MEM_UPPER: usize = 8;
    pub const CMDLINE: usize = 16;
    pub const MODS_COUNT: usize = 20;
    pub const MODS_ADDR: usize = 24;
    /// Number, size, address and string index of the ELF sections.
    pub const ELF_SECTIONS: usize = 28;
    pub const MMAP_LENGTH: usize = 44;
    pub const MMAP_ADDR: usize = 48;
    pub const CONFIG_TABLE: usize = 60;
    pub const BOOT_LOADER_NAME: usize = 64;
    pub const SIZE: usize = 116;

    pub const HAS_MEMORY: u32 = 1 << 0;
    pub const HAS_CMDLINE: u32 = 1 << 2;
    pub const HAS_MODS: u32 = 1 << 3;
    pub const HAS_ELF_SECTIONS: u32 = 1 << 5;
    pub const HAS_MMAP: u32 = 1 << 6;
    pub const HAS_CONFIG_TABLE: u32 = 1 << 8;
    pub const HAS_BOOT_LOADER_NAME: u32 = 1 << 9;
}

/// A header that was found in an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    offset: usize,
    flags: u32,
}

/// Looks for the header of a kernel that can be loaded: it has load addresses, or is ELF.
pub(crate) fn find_header(image: &[u8]) -> Option<Header> {
    (0..SEARCH - 11)
        .step_by(4)
        .find_map(|offset| {
            let magic = u32_at(image, offset)?;
            let flags = u32_at(image, offset + 4)?;
            let checksum = u32_at(image, offset + 8)?;
            let valid =
                magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(checksum) == 0;
            valid.then_some(Header { offset, flags })
        })
        .filter(|header| header.flags & flag::ADDRESSES != 0 || elf::is_elf(image))
}

/// Loads a kernel that has a Multiboot header.
pub(crate) fn load(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    header: Header,
) -> Result<BootState, LoadError> {
    let unknown = header.flags
        & flag::MUST_UNDERSTAND
        & !(flag::PAGE_ALIGN | flag::MEMORY_INFO | flag::VIDEO_MODE);
    if unknown != 0 {
        return Err(LoadError::Unsupported {
            what: format!("asks for unknown Multiboot features (flags {unknown:#x})"),
            remedy: "give one for Multiboot 0.6.96",
        });
    }
    if header.flags & flag::VIDEO_MODE != 0 {
        log::warn!("The Multiboot kernel asks for a video mode; it is told of none");
    }
    let (entry, end, sections) = if header.flags & flag::ADDRESSES != 0 {
        let (entry, end) = load_flat(place, kernel.image, header)?;
        (entry, end, None)
    } else {
        let elf = Elf::parse(kernel.image)?;
        let end = elf.load(place, 0)?;
        (elf.entry()?, end, elf_sections::load(place, kernel.image, end)?)
    };
    let end = sections.as_ref().map_or(end, |sections| sections.end);
    let modules = place_modules(place, kernel, end)?;
    let info = write_info(place, kernel, &modules, sections.as_ref())?;
    let state = BootState::protected32(place.memory, entry)?;
    Ok(BootState { rax: LOADER_MAGIC, rbx: info, ..state })
}

/// The addresses that the header has (3.1.3), and the entry point after them; gives entry point
/// and end.
fn load_flat(place: &Placer<'_>, image: &[u8], header: Header) -> Result<(u64, u64), LoadError> {
    let addresses = Addresses::read(image, header.offset + 12)?;
    let entry_offset = header.offset + 28;
    let entry = u32_at(image, entry_offset)
        .ok_or_else(|| flat::truncated(image, entry_offset as u64 + 4))?
        .into();
    let flat = addresses.cut(image, header.offset)?;
    flat.load(place, 0)?;
    if !(flat.start..flat.end).contains(&entry) {
        return Err(LoadError::Corrupt {
            subject: Subject::Kernel,
            what: "kernel's entry point is outside of it",
        });
    }
    Ok((entry, flat.end))
}

/// The system's configuration as INT 15h, AH=C0h tells it: length of what follows; model, submodel
/// and revision of an AT; features: two 8259As, a real-time clock, and an extended BIOS data area.
const CONFIG_TABLE: [u8; 10] = [8, 0, 0xfc, 1, 0, 1 << 6 | 1 << 5 | 1 << 2, 0, 0, 0, 0];

/// Writes the Multiboot information; gives its address.
fn write_info(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    modules: &[PlacedModule<'_>],
    sections: Option<&Sections>,
) -> Result<u64, LoadError> {
    let line = place.command_line(&command_line(kernel), usize::MAX)?;
    let mut space = InfoSpace::new(place);
    let config_table = space.add(&CONFIG_TABLE)?;
    let loader_name = space.add_string(LOADER_NAME)?;

    let mut module_list = Vec::new();
    for module in modules {
        let text = space.add_string(module.command_line)?;
        for field in [module.start, module.end, text, 0] {
            module_list.extend((field as u32).to_le_bytes());
        }
    }
    let module_list = space.add(&module_list)?;
    let map = memory_map(place);
    let map_at = space.add(&map)?;

    let upper = place.layout.loadable();
    let flags = info::HAS_MEMORY
        | info::HAS_CMDLINE
        | info::HAS_MODS
        | info::HAS_MMAP
        | info::HAS_CONFIG_TABLE
        | info::HAS_BOOT_LOADER_NAME;
    let has_sections = if sections.is_some() { info::HAS_ELF_SECTIONS } else { 0 };
    let fields = [
        (info::FLAGS, u64::from(flags | has_sections)),
        (info::MEM_LOWER, CONVENTIONAL_END / 1024),
        (info::MEM_UPPER, (upper.end - MIB) / 1024),
        (info::CMDLINE, line),
        (info::MODS_COUNT, modules.len() as u64),
        (info::MODS_ADDR, module_list),
        (info::MMAP_LENGTH, map.len() as u64),
        (info::MMAP_ADDR, map_at),
        (info::CONFIG_TABLE, config_table),
        (info::BOOT_LOADER_NAME, loader_name),
    ];
    let mut bytes = vec![0; info::SIZE];
    for (offset, value) in fields {
        put(&mut bytes, offset, &(value as u32).to_le_bytes());
    }
    if let Some(sections) = sections {
        let at = space.add(&sections.headers)? as u32;
        let Sections { count, entry_size, names, .. } = *sections;
        for (n, field) in [count.into(), entry_size.into(), at, names.into()].iter().enumerate() {
            put(&mut bytes, info::ELF_SECTIONS + 4 * n, &u32::to_le_bytes(*field));
        }
    }
    space.add(&bytes)
}

/// The command line: by custom, the first word is the kernel's name.
pub(crate) fn command_line(kernel: &Kernel<'_>) -> String {
    let name = kernel.name.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("kernel");
    format!("{} {}", name.replace(' ', "_"), kernel.command_line).trim_end().into()
}

/// The memory map: each range after its entry's size, which does not count itself.
fn memory_map(place: &Placer<'_>) -> Vec<u8> {
    const ENTRY_SIZE: u32 = 20;
    let mut bytes = Vec::new();
    for range in place.layout.e820() {
        bytes.extend(ENTRY_SIZE.to_le_bytes());
        bytes.extend(range.start.to_le_bytes());
        bytes.extend(range.size.to_le_bytes());
        bytes.extend((range.kind as u32).to_le_bytes());
    }
    bytes
}
