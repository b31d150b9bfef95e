//! Linux bzImages, by the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst of Linux), and
//! `boot_params`, which other forms of Linux take too.

use trivium_memory::GuestPhysAddr;

use crate::boot::{BootState, low};
use crate::bytes::{put, u8_at, u16_at, u32_at, u64_at};
use crate::layout::{HIGH_RAM_START, MIB};
use crate::place::Placer;
use crate::{Kernel, LoadError, MemoryLayout, Subject, initrd};

/// Fields of the setup header: offsets into the image and into `boot_params` alike.
mod header {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const SYSSIZE: usize = 0x1f4;
    pub const VID_MODE: usize = 0x1fa;
    pub const BOOT_FLAG: usize = 0x1fe;
    /// Low byte of the offset of a jump over the header: where the header ends, from 0x202.
    pub const JUMP: usize = 0x201;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const RELOCATABLE_KERNEL: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PAYLOAD_OFFSET: usize = 0x248;
    pub const PAYLOAD_LENGTH: usize = 0x24c;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    /// The end of the space for the header in `boot_params`.
    pub const END: usize = 0x290;
}

/// Fields of `boot_params` outside the setup header (Documentation/arch/x86/zero-page.rst).
mod params {
    /// Extended memory in KiB, as INT 15h, AH=88h tells.
    pub const EXT_MEM_K: usize = 0x002;
    pub const ACPI_RSDP_ADDR: usize = 0x070;
    /// Extended memory in KiB, as INT 15h, AX=E801h tells.
    pub const ALT_MEM_K: usize = 0x1e0;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const E820_TABLE: usize = 0x2d0;
    pub const E820_ENTRY_SIZE: usize = 20;
    pub const SIZE: usize = 0x1000;
}

const BOOT_FLAG_MAGIC: u16 = 0xaa55;
const HEADER_MAGIC: [u8; 4] = *b"HdrS";
/// `type_of_loader` of a loader without an assigned number.
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode` "normal": the mode that is there.
const VID_MODE_NORMAL: u16 = 0xffff;
/// `loadflags`: the protected-mode code is loaded at 1 MiB (bzImage) and not at 64 KiB (zImage).
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry point at 200h.
const XLF_KERNEL_64: u16 = 1 << 0;
const ENTRY_64_OFFSET: u64 = 0x200;
const SECTOR: usize = 512;
/// The first version whose command line is passed by pointer.
const OLDEST_VERSION: u16 = 0x0202;
/// `initrd_addr_max` of versions that do not have the field.
const DEFAULT_INITRD_ADDR_MAX: u32 = 0x37ff_ffff;
/// `cmdline_size` of versions that do not have the field.
const DEFAULT_CMDLINE_SIZE: u32 = 255;

/// Whether the image has the setup header's magic numbers.
pub(crate) fn is_linux(image: &[u8]) -> bool {
    u16_at(image, header::BOOT_FLAG) == Some(BOOT_FLAG_MAGIC)
        && image.get(header::MAGIC..header::MAGIC + 4) == Some(&HEADER_MAGIC)
}

/// What the setup header says, with the defaults of older versions.
struct Setup<'a> {
    /// The header as it is in the image.
    header: &'a [u8],
    /// The protected-mode code.
    code: &'a [u8],
    initrd_addr_max: u32,
    cmdline_size: u32,
    /// Where the code is loaded.
    load_address: u64,
    /// How much memory it needs there until it has unpacked itself.
    memory_size: u64,
    entry_64: bool,
}

fn corrupt(what: &'static str) -> LoadError {
    LoadError::Corrupt { subject: Subject::Kernel, what }
}

fn truncated(image: &[u8], needed: u64) -> LoadError {
    LoadError::Truncated {
        subject: Subject::Kernel,
        what: "Linux kernel",
        have: image.len() as u64,
        needed,
    }
}

impl<'a> Setup<'a> {
    fn parse(image: &'a [u8]) -> Result<Self, LoadError> {
        let too_short = || truncated(image, header::END as u64);
        let version = u16_at(image, header::VERSION).ok_or_else(too_short)?;
        let loadflags = u8_at(image, header::LOADFLAGS).ok_or_else(too_short)?;
        if version < OLDEST_VERSION || loadflags & LOADED_HIGH == 0 {
            return Err(LoadError::Unsupported {
                what: format!(
                    "is a zImage or uses boot protocol {}.{:02}",
                    version >> 8,
                    version & 0xff
                ),
                remedy: "give a bzImage of Linux 2.4 or later",
            });
        }
        let header_end = header::MAGIC + usize::from(u8_at(image, header::JUMP).unwrap_or(0));
        let header = image.get(header::SETUP_SECTS..header_end.min(header::END));
        let header = header.ok_or_else(too_short)?;
        let code = protected_mode_code(image, version)?;
        check_payload(image, code, version)?;

        // A field that this version of the protocol has.
        let since = |first: u16, offset: usize| u32_at(image, offset).filter(|_| version >= first);
        let load_address = load_address(image, version)?;
        let init_size = since(0x020a, header::INIT_SIZE).unwrap_or(0);
        let xloadflags = u16_at(image, header::XLOADFLAGS).filter(|_| version >= 0x020c);
        let entry_64 = xloadflags.unwrap_or(0) & XLF_KERNEL_64 != 0;
        if entry_64 && code.len() as u64 <= ENTRY_64_OFFSET {
            return Err(corrupt("kernel's 64-bit entry point is outside of it"));
        }
        Ok(Self {
            header,
            code,
            initrd_addr_max: since(0x0203, header::INITRD_ADDR_MAX)
                .unwrap_or(DEFAULT_INITRD_ADDR_MAX),
            cmdline_size: since(0x0206, header::CMDLINE_SIZE).unwrap_or(DEFAULT_CMDLINE_SIZE),
            load_address,
            memory_size: u64::from(init_size).max(code.len() as u64),
            entry_64,
        })
    }
}

/// The part of the image after the real-mode code, as long as `syssize` says.
fn protected_mode_code(image: &[u8], version: u16) -> Result<&[u8], LoadError> {
    let sectors = match u8_at(image, header::SETUP_SECTS) {
        Some(0) | None => 4,
        Some(n) => usize::from(n),
    };
    let start = (sectors + 1) * SECTOR;
    let paragraphs = if version >= 0x0204 {
        u32_at(image, header::SYSSIZE).unwrap_or(0)
    } else {
        u16_at(image, header::SYSSIZE).map_or(0, u32::from)
    };
    let size = u64::from(paragraphs) * 16;
    if size == 0 {
        return Err(corrupt("Linux header says that there is no kernel after it (syssize is 0)"));
    }
    let needed = start as u64 + size;
    // The last paragraph need not be whole.
    if image.len() as u64 + 15 < needed {
        return Err(truncated(image, needed));
    }
    let end = usize::try_from(needed).unwrap_or(usize::MAX).min(image.len());
    image.get(start..end).ok_or_else(|| truncated(image, needed))
}

/// Since 2.08, the header says where in the code the compressed kernel lies.
fn check_payload(image: &[u8], code: &[u8], version: u16) -> Result<(), LoadError> {
    if version < 0x0208 {
        return Ok(());
    }
    let field = |offset| u64::from(u32_at(image, offset).unwrap_or(0));
    let end = field(header::PAYLOAD_OFFSET) + field(header::PAYLOAD_LENGTH);
    if end > code.len() as u64 {
        return Err(corrupt(
            "compressed kernel (payload_offset, payload_length) is outside of the file",
        ));
    }
    Ok(())
}

/// Where the protected-mode code wants to lie: a relocatable kernel where it will run, so that it
/// need not move; others at 1 MiB.
fn load_address(image: &[u8], version: u16) -> Result<u64, LoadError> {
    let relocatable =
        version >= 0x0205 && u8_at(image, header::RELOCATABLE_KERNEL).unwrap_or(0) != 0;
    if !relocatable {
        return Ok(MIB);
    }
    let alignment = u64::from(u32_at(image, header::KERNEL_ALIGNMENT).unwrap_or(0));
    if !alignment.is_power_of_two() {
        return Err(corrupt("Linux header's kernel_alignment is no power of two"));
    }
    let preferred = if version >= 0x020a { u64_at(image, header::PREF_ADDRESS) } else { None };
    let preferred = preferred.unwrap_or(MIB).max(MIB);
    preferred
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| corrupt("Linux header's pref_address is out of range"))
}

/// Loads a bzImage.
pub(crate) fn load(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    rsdp: Option<GuestPhysAddr>,
) -> Result<BootState, LoadError> {
    if !kernel.modules.is_empty() {
        return Err(LoadError::ModulesUnsupported);
    }
    initrd::check_during(kernel.initrd, || load_bzimage(place, kernel, rsdp))
}

fn load_bzimage(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    rsdp: Option<GuestPhysAddr>,
) -> Result<BootState, LoadError> {
    let setup = Setup::parse(kernel.image)?;
    place.check("Linux kernel", setup.load_address, setup.memory_size)?;
    place.write(setup.load_address, setup.code)?;

    let mut params = BootParams::new(place.layout, rsdp);
    params.copy_header(setup.header);
    params.set_u32(header::CODE32_START, setup.load_address as u32);
    let kernel_end = setup.load_address + setup.memory_size;
    let initrd_end = u64::from(setup.initrd_addr_max) + 1;
    params.place_files(place, kernel, kernel_end, initrd_end, setup.cmdline_size as usize)?;
    place.write(low::BOOT_PARAMS, &params.0)?;

    let state = if setup.entry_64 {
        BootState::long(place.memory, setup.load_address + ENTRY_64_OFFSET)?
    } else {
        BootState::protected32(place.memory, setup.load_address)?
    };
    Ok(BootState { rsi: low::BOOT_PARAMS, ..state })
}

/// Enters a `vmlinux` whose segments are loaded, as a bzImage does once it has unpacked itself.
pub(crate) fn start_vmlinux(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    rsdp: Option<GuestPhysAddr>,
    entry: u64,
    is_64: bool,
    kernel_end: u64,
) -> Result<BootState, LoadError> {
    /// `COMMAND_LINE_SIZE` of Linux on x86, without the NUL.
    const COMMAND_LINE_LIMIT: usize = 2047;
    const VERSION: u16 = 0x020c;
    /// `initrd_addr_max` as the bzImages of both kinds have it.
    const INITRD_END: u64 = 0x8000_0000;
    const INITRD_END_32: u64 = DEFAULT_INITRD_ADDR_MAX as u64 + 1;
    if !kernel.modules.is_empty() {
        return Err(LoadError::ModulesUnsupported);
    }
    kernel.initrd.map_or(Ok(()), initrd::check)?;
    let mut params = BootParams::new(place.layout, rsdp);
    params.copy_header(&[]);
    put(&mut params.0, header::BOOT_FLAG, &BOOT_FLAG_MAGIC.to_le_bytes());
    put(&mut params.0, header::MAGIC, &HEADER_MAGIC);
    put(&mut params.0, header::VERSION, &VERSION.to_le_bytes());
    put(&mut params.0, header::LOADFLAGS, &[LOADED_HIGH]);
    let initrd_end = if is_64 { INITRD_END } else { INITRD_END_32 };
    params.place_files(place, kernel, kernel_end, initrd_end, COMMAND_LINE_LIMIT)?;
    place.write(low::BOOT_PARAMS, &params.0)?;
    let state = if is_64 {
        BootState::long(place.memory, entry)?
    } else {
        BootState::protected32(place.memory, entry)?
    };
    Ok(BootState { rsi: low::BOOT_PARAMS, ..state })
}

/// `boot_params`, the zero page.
struct BootParams(Vec<u8>);

impl BootParams {
    /// The memory map, the RSDP's address and no screen: consoles are serial.
    fn new(layout: &MemoryLayout, rsdp: Option<GuestPhysAddr>) -> Self {
        let mut params = Self(vec![0; params::SIZE]);
        put(&mut params.0, params::ACPI_RSDP_ADDR, &rsdp.unwrap_or_default().0.to_le_bytes());
        let extended_kib = layout.loadable().end.saturating_sub(MIB) / 1024;
        let ext_mem_k = u16::try_from(extended_kib).unwrap_or(u16::MAX);
        put(&mut params.0, params::EXT_MEM_K, &ext_mem_k.to_le_bytes());
        params.set_u32(params::ALT_MEM_K, u32::try_from(extended_kib).unwrap_or(u32::MAX));

        let map = layout.e820();
        put(&mut params.0, params::E820_ENTRIES, &[map.len() as u8]);
        for (i, entry) in map.iter().enumerate() {
            let at = params::E820_TABLE + i * params::E820_ENTRY_SIZE;
            put(&mut params.0, at, &entry.start.to_le_bytes());
            put(&mut params.0, at + 8, &entry.size.to_le_bytes());
            put(&mut params.0, at + 16, &(entry.kind as u32).to_le_bytes());
        }
        params
    }

    fn set_u32(&mut self, offset: usize, value: u32) {
        put(&mut self.0, offset, &value.to_le_bytes());
    }

    fn copy_header(&mut self, header: &[u8]) {
        put(&mut self.0, header::SETUP_SECTS, header);
        put(&mut self.0, header::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        put(&mut self.0, header::VID_MODE, &VID_MODE_NORMAL.to_le_bytes());
    }

    /// Places the initial RAM disk and the command line.
    fn place_files(
        &mut self,
        place: &Placer<'_>,
        kernel: &Kernel<'_>,
        kernel_end: u64,
        initrd_end: u64,
        command_line_limit: usize,
    ) -> Result<(), LoadError> {
        if let Some(initrd) = kernel.initrd {
            let initrd_end = initrd_end.min(HIGH_RAM_START);
            let at = place.initrd(initrd, kernel_end, initrd_end)?;
            self.set_u32(header::RAMDISK_IMAGE, at as u32);
            self.set_u32(header::RAMDISK_SIZE, initrd.len() as u32);
        }
        let line = place.command_line(kernel.command_line, command_line_limit)?;
        self.set_u32(header::CMD_LINE_PTR, line as u32);
        Ok(())
    }
}
