//! Kernels of the Multiboot specification, version 0.6.96 ("Multiboot 1").

use crate::bytes::{put, u32_at};
use crate::elf::{self, Elf};
use crate::info::{InfoSpace, PlacedModule, place_modules};
use crate::layout::{CONVENTIONAL_END, MIB};
use crate::place::Placer;
use crate::{BootState, Kernel, LoadError, Subject};

/// The header lies in this many bytes of the image, on a multiple of 4 (3.1.1).
const SEARCH: usize = 8192;
const HEADER_MAGIC: u32 = 0x1bad_b002;
/// In EAX when the kernel is entered (3.2).
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// Where Multiboot2 has its header, and its magic number.
const SEARCH_2: usize = 32768;
const HEADER_MAGIC_2: u32 = 0xe852_50d6;
const LOADER_NAME: &str = "Trivium";

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
    pub const MMAP_LENGTH: usize = 44;
    pub const MMAP_ADDR: usize = 48;
    pub const BOOT_LOADER_NAME: usize = 64;
    pub const SIZE: usize = 116;

    pub const HAS_MEMORY: u32 = 1 << 0;
    pub const HAS_CMDLINE: u32 = 1 << 2;
    pub const HAS_MODS: u32 = 1 << 3;
    pub const HAS_MMAP: u32 = 1 << 6;
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

/// Whether the image has a header of Multiboot2.
pub(crate) fn is_multiboot2(image: &[u8]) -> bool {
    (0..SEARCH_2 - 15).step_by(8).any(|offset| {
        let field = |n: usize| u32_at(image, offset + 4 * n).unwrap_or(0);
        let sum = (0..4).fold(0_u32, |sum, n| sum.wrapping_add(field(n)));
        field(0) == HEADER_MAGIC_2 && sum == 0
    })
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
    let (entry, end) = if header.flags & flag::ADDRESSES != 0 {
        load_flat(place, kernel.image, header)?
    } else {
        let elf = Elf::parse(kernel.image)?;
        let end = elf.load(place)?;
        (elf.entry()?, end)
    };
    let modules = place_modules(place, kernel, end)?;
    let info = write_info(place, kernel, &modules)?;
    let state = BootState::protected32(place.memory, entry)?;
    Ok(BootState { rax: LOADER_MAGIC, rbx: info, ..state })
}

/// Loads the image to the addresses that the header gives (3.1.3); gives entry point and end.
fn load_flat(place: &Placer<'_>, image: &[u8], header: Header) -> Result<(u64, u64), LoadError> {
    let corrupt = |what| LoadError::Corrupt { subject: Subject::Kernel, what };
    let mut fields = [0; 5];
    for (n, field) in fields.iter_mut().enumerate() {
        let offset = header.offset + 12 + 4 * n;
        *field = u32_at(image, offset).ok_or_else(|| truncated(image, offset as u64 + 4))?;
    }
    let [header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr] = fields;
    let text_offset = header_addr
        .checked_sub(load_addr)
        .and_then(|before| header.offset.checked_sub(before as usize))
        .ok_or_else(|| corrupt("kernel's Multiboot load address is outside of the file"))?;
    let size = if load_end_addr == 0 {
        image.len().saturating_sub(text_offset)
    } else {
        let size = load_end_addr.checked_sub(load_addr);
        size.ok_or_else(|| corrupt("kernel ends before it starts"))? as usize
    };
    let text_end = text_offset.saturating_add(size);
    let text = image.get(text_offset..text_end);
    let text = text.ok_or_else(|| truncated(image, text_end as u64))?;

    let load_addr = u64::from(load_addr);
    let end = (load_addr + size as u64).max(bss_end_addr.into());
    place.check("kernel", load_addr, end - load_addr)?;
    place.write(load_addr, text)?;
    place.clear(load_addr + size as u64, end - load_addr - size as u64)?;
    if !(load_addr..end).contains(&entry_addr.into()) {
        return Err(corrupt("kernel's entry point is outside of it"));
    }
    Ok((entry_addr.into(), end))
}

fn truncated(image: &[u8], needed: u64) -> LoadError {
    LoadError::Truncated {
        subject: Subject::Kernel,
        what: "Multiboot kernel",
        have: image.len() as u64,
        needed,
    }
}

/// Writes the Multiboot information; gives its address.
fn write_info(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    modules: &[PlacedModule<'_>],
) -> Result<u64, LoadError> {
    // By custom the first word is the kernel's name.
    let name = kernel.name.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("kernel");
    let line = format!("{} {}", name.replace(' ', "_"), kernel.command_line);
    let line = place.command_line(line.trim_end(), usize::MAX)?;
    let mut space = InfoSpace::new(place);
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
    let fields = [
        (
            info::FLAGS,
            u64::from(
                info::HAS_MEMORY
                    | info::HAS_CMDLINE
                    | info::HAS_MODS
                    | info::HAS_MMAP
                    | info::HAS_BOOT_LOADER_NAME,
            ),
        ),
        (info::MEM_LOWER, CONVENTIONAL_END / 1024),
        (info::MEM_UPPER, (upper.end - MIB) / 1024),
        (info::CMDLINE, line),
        (info::MODS_COUNT, modules.len() as u64),
        (info::MODS_ADDR, module_list),
        (info::MMAP_LENGTH, map.len() as u64),
        (info::MMAP_ADDR, map_at),
        (info::BOOT_LOADER_NAME, loader_name),
    ];
    let mut bytes = vec![0; info::SIZE];
    for (offset, value) in fields {
        put(&mut bytes, offset, &(value as u32).to_le_bytes());
    }
    space.add(&bytes)
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
