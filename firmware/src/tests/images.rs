//! Makes kernel images.

/// Fields of a bzImage that tests vary.
#[derive(Clone)]
pub(super) struct BzImage {
    pub(super) version: u16,
    pub(super) loadflags: u8,
    pub(super) xloadflags: u16,
    pub(super) relocatable: u8,
    pub(super) pref_address: u64,
    pub(super) init_size: u32,
    pub(super) initrd_addr_max: u32,
    pub(super) cmdline_size: u32,
    pub(super) code: Vec<u8>,
}

impl Default for BzImage {
    fn default() -> Self {
        Self {
            version: 0x020f,
            loadflags: 1,
            xloadflags: 0,
            relocatable: 1,
            pref_address: 0x100_0000,
            init_size: 0x80_0000,
            initrd_addr_max: 0x7fff_ffff,
            cmdline_size: 2047,
            code: (0..0x1000_u32).map(|n| (n % 251) as u8).collect(),
        }
    }
}

/// Overwrites bytes, making the image longer if need be.
pub(super) fn set(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A bzImage with two setup sectors (Linux/x86 boot protocol, "The Real-Mode Kernel Header").
pub(super) fn bzimage(fields: &BzImage) -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    set(&mut image, 0x1f1, &[2]);
    set(&mut image, 0x1f4, &(fields.code.len().div_ceil(16) as u32).to_le_bytes());
    set(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    set(&mut image, 0x202, b"HdrS");
    set(&mut image, 0x206, &fields.version.to_le_bytes());
    set(&mut image, 0x211, &[fields.loadflags]);
    set(&mut image, 0x22c, &fields.initrd_addr_max.to_le_bytes());
    set(&mut image, 0x230, &0x20_0000_u32.to_le_bytes());
    set(&mut image, 0x234, &[fields.relocatable]);
    set(&mut image, 0x236, &fields.xloadflags.to_le_bytes());
    set(&mut image, 0x238, &fields.cmdline_size.to_le_bytes());
    set(&mut image, 0x248, &0x200_u32.to_le_bytes());
    set(&mut image, 0x24c, &0x100_u32.to_le_bytes());
    set(&mut image, 0x258, &fields.pref_address.to_le_bytes());
    set(&mut image, 0x260, &fields.init_size.to_le_bytes());
    image.extend(&fields.code);
    image
}

/// A segment of an ELF image: physical and virtual address, content, size in memory.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) physical: u32,
    pub(super) virtual_address: u32,
    pub(super) data: Vec<u8>,
    pub(super) memory_size: u32,
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// A little-endian ELF executable; `note`, if any, is the content of a note segment.
pub(super) fn elf(is_64: bool, entry: u32, segments: &[Segment], note: Option<&[u8]>) -> Vec<u8> {
    let count = segments.len() + usize::from(note.is_some());
    let (header_size, entry_size) = if is_64 { (64, 56) } else { (52, 32) };
    let mut image = b"\x7fELF".to_vec();
    set(&mut image, 4, &[if is_64 { 2 } else { 1 }, 1, 1]);
    set(&mut image, 16, &[2, 0, if is_64 { 62 } else { 3 }, 0, 1]);
    if is_64 {
        set(&mut image, 24, &u64::from(entry).to_le_bytes());
        set(&mut image, 32, &(header_size as u64).to_le_bytes());
        set(&mut image, 52, &[64, 0, 56, 0, count as u8, 0, 64, 0]);
    } else {
        set(&mut image, 24, &entry.to_le_bytes());
        set(&mut image, 28, &(header_size as u32).to_le_bytes());
        set(&mut image, 40, &[52, 0, 32, 0, count as u8, 0, 40, 0]);
    }
    image.resize(header_size + count * entry_size, 0);
    let parts = segments.iter().map(|s| (PT_LOAD, s.clone())).chain(note.map(|note| {
        let data = note.to_vec();
        let memory_size = data.len() as u32;
        (PT_NOTE, Segment { physical: 0, virtual_address: 0, data, memory_size })
    }));
    for (index, (kind, part)) in parts.enumerate() {
        let offset = image.len() as u32;
        let size = part.data.len() as u32;
        let fields = [offset, part.virtual_address, part.physical, size, part.memory_size];
        let mut header = kind.to_le_bytes().to_vec();
        if is_64 {
            header.extend(7_u32.to_le_bytes());
            for field in fields.into_iter().chain([4]) {
                header.extend(u64::from(field).to_le_bytes());
            }
        } else {
            for field in fields.into_iter().chain([7, 4]) {
                header.extend(field.to_le_bytes());
            }
        }
        set(&mut image, header_size + index * entry_size, &header);
        image.extend(&part.data);
        image.resize(image.len().next_multiple_of(4), 0);
    }
    image
}

/// Adds section headers to an ELF image: none, and a string table that is in no segment.
pub(super) fn with_sections(mut image: Vec<u8>) -> Vec<u8> {
    let is_64 = image[4] == 2;
    let (header_size, at_offset, at_address) = if is_64 { (64, 24, 40) } else { (40, 16, 32) };
    let names = image.len();
    image.extend(b"\0.shstrtab\0");
    image.resize(image.len().next_multiple_of(8), 0);
    let table = image.len();
    image.resize(table + 2 * header_size, 0);
    let section = table + header_size;
    set(&mut image, section, &[1, 0, 0, 0, 3]);
    set(&mut image, section + at_offset, &(names as u32).to_le_bytes());
    set(&mut image, section + at_offset + if is_64 { 8 } else { 4 }, &[11]);
    set(&mut image, at_address, &(table as u32).to_le_bytes());
    let counts = if is_64 { 58 } else { 46 };
    set(&mut image, counts, &[header_size as u8, 0, 2, 0, 1, 0]);
    image
}

/// The note that gives a PVH entry point.
pub(super) fn pvh_note(entry: u32) -> Vec<u8> {
    let mut note = Vec::new();
    for field in [4_u32, 4, 18] {
        note.extend(field.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(entry.to_le_bytes());
    note
}

/// A Multiboot header with its checksum, and the address fields.
pub(super) fn multiboot_header(flags: u32, addresses: [u32; 5]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    [magic, flags, checksum].into_iter().chain(addresses).flat_map(u32::to_le_bytes).collect()
}

/// A "new ASCII" cpio archive of files.
pub(crate) fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, data) in files {
        let name_size = name.len() + 1;
        archive.extend(b"070701");
        for field in 0..13 {
            let value = match field {
                6 => data.len(),
                11 => name_size,
                _ => 0,
            };
            archive.extend(format!("{value:08X}").bytes());
        }
        archive.extend(name.bytes().chain([0]));
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(*data);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}
