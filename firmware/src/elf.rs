//! ELF kernels: Linux's `vmlinux`, and kernels of the PVH start protocol.

use object::LittleEndian;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use trivium_memory::GuestPhysAddr;

use crate::bytes::{u8_at, u16_at, u32_at};
use crate::diagnose::GIVE_A_KERNEL;
use crate::place::Placer;
use crate::{BootState, Kernel, LoadError, Subject, linux, multiboot2, pvh};

/// Offsets in the ELF header that are the same for both classes.
const EI_CLASS: usize = 4;
const EI_DATA: usize = 5;
const E_MACHINE: usize = 18;
const ELFCLASS32: u8 = 1;
const ELFDATA2MSB: u8 = 2;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;

/// Kernels have few segments. More would be an attempt to keep the loader busy.
const MAX_SEGMENTS: usize = 64;

/// Names of other architectures' machine numbers.
const OTHER_MACHINES: &[(u16, &str)] = &[
    (2, "SPARC"),
    (4, "m68k"),
    (8, "MIPS"),
    (15, "PA-RISC"),
    (20, "PowerPC"),
    (21, "64-bit PowerPC"),
    (22, "S/390"),
    (40, "ARM"),
    (42, "SuperH"),
    (43, "64-bit SPARC"),
    (50, "Itanium"),
    (183, "ARM64"),
    (243, "RISC-V"),
    (258, "LoongArch"),
];

/// Whether the image has ELF's magic number.
pub(crate) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(&elf::ELFMAG)
}

/// A part of the image that is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    physical: u64,
    virtual_address: u64,
    data: &'a [u8],
    memory_size: u64,
}

/// What is used of an ELF image.
#[derive(Debug)]
pub(crate) struct Elf<'a> {
    is_64: bool,
    entry: u64,
    segments: Vec<Segment<'a>>,
    /// The entry point of PVH's start protocol.
    pvh_entry: Option<u64>,
}

fn corrupt(what: &'static str) -> LoadError {
    LoadError::Corrupt { subject: Subject::Kernel, what }
}

impl<'a> Elf<'a> {
    pub(crate) fn parse(image: &'a [u8]) -> Result<Self, LoadError> {
        check_machine(image)?;
        if u8_at(image, EI_CLASS) == Some(ELFCLASS32) {
            Self::parse_class::<FileHeader32<LittleEndian>>(image)
        } else {
            Self::parse_class::<FileHeader64<LittleEndian>>(image)
        }
    }

    fn parse_class<H>(image: &'a [u8]) -> Result<Self, LoadError>
    where
        H: FileHeader<Endian = LittleEndian>,
    {
        if image.len() < size_of::<H>() {
            return Err(truncated(image, size_of::<H>() as u64));
        }
        let header = H::parse(image).map_err(|_| corrupt("kernel's ELF header is invalid"))?;
        match header.e_type(LittleEndian) {
            elf::ET_EXEC | elf::ET_DYN => {}
            _ => {
                return Err(LoadError::NotAKernel {
                    found: "an ELF object, module or core dump",
                    remedy: "give a linked kernel",
                });
            }
        }
        let headers = header
            .program_headers(LittleEndian, image)
            .map_err(|_| truncated(image, header.e_phoff(LittleEndian).into()))?;
        let mut found = Self {
            is_64: header.is_type_64(),
            entry: header.e_entry(LittleEndian).into(),
            segments: Vec::new(),
            pvh_entry: None,
        };
        for segment in headers {
            match segment.p_type(LittleEndian) {
                elf::PT_LOAD => found.add_segment(image, segment)?,
                elf::PT_NOTE => found.find_pvh_entry::<H>(image, segment),
                elf::PT_INTERP => {
                    return Err(LoadError::NotAKernel {
                        found: "a program for an operating system",
                        remedy: GIVE_A_KERNEL,
                    });
                }
                _ => {}
            }
        }
        if found.segments.is_empty() {
            return Err(corrupt("kernel has no segment to load"));
        }
        Ok(found)
    }

    fn add_segment<P>(&mut self, image: &'a [u8], segment: &P) -> Result<(), LoadError>
    where
        P: ProgramHeader<Endian = LittleEndian>,
    {
        let memory_size: u64 = segment.p_memsz(LittleEndian).into();
        if memory_size == 0 {
            return Ok(());
        }
        let (offset, size) = segment.file_range(LittleEndian);
        let data = segment
            .data(LittleEndian, image)
            .map_err(|()| truncated(image, offset.saturating_add(size)))?;
        if size > memory_size {
            return Err(corrupt("kernel has a segment that is longer in the file than in memory"));
        }
        if self.segments.len() == MAX_SEGMENTS {
            return Err(corrupt("kernel has too many segments"));
        }
        self.segments.push(Segment {
            physical: segment.p_paddr(LittleEndian).into(),
            virtual_address: segment.p_vaddr(LittleEndian).into(),
            data,
            memory_size,
        });
        Ok(())
    }

    /// Looks for the note XEN_ELFNOTE_PHYS32_ENTRY.
    fn find_pvh_entry<H>(&mut self, image: &'a [u8], segment: &H::ProgramHeader)
    where
        H: FileHeader<Endian = LittleEndian>,
    {
        const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
        let Ok(Some(notes)) = segment.notes(LittleEndian, image) else { return };
        for note in notes.map_while(Result::ok) {
            if note.name() == b"Xen" && note.n_type(LittleEndian).0 == XEN_ELFNOTE_PHYS32_ENTRY {
                // A pointer of the kernel's own size, of which the lower half counts.
                self.pvh_entry = u32_at(note.desc(), 0).map(u64::from);
            }
        }
    }

    /// Copies the segments to `delta` above where they want to lie; gives the end of the highest.
    pub(crate) fn load(&self, place: &Placer<'_>, delta: u64) -> Result<u64, LoadError> {
        let mut end = 0;
        for segment in &self.segments {
            let start = segment.physical.wrapping_add(delta);
            place.check("kernel", start, segment.memory_size)?;
            let data_size = segment.data.len() as u64;
            place.write(start, segment.data)?;
            let bss = segment.memory_size.saturating_sub(data_size);
            place.clear(start + data_size, bss)?;
            end = end.max(start + segment.memory_size);
        }
        Ok(end)
    }

    /// From the lowest segment's start to the highest one's end.
    pub(crate) fn extent(&self) -> std::ops::Range<u64> {
        let start = self.segments.iter().map(|s| s.physical).min().unwrap_or(0);
        let ends = self.segments.iter().map(|s| s.physical.saturating_add(s.memory_size));
        start..ends.max().unwrap_or(start)
    }

    /// The physical address of the entry point, which some kernels give as a virtual one.
    pub(crate) fn entry(&self) -> Result<u64, LoadError> {
        self.entry_at(self.entry)
    }

    /// The physical address of `entry`, which must be in a segment.
    fn entry_at(&self, entry: u64) -> Result<u64, LoadError> {
        let within = |start: u64, size| entry.checked_sub(start).filter(|&at| at < size);
        let of = |start: fn(&Segment<'_>) -> u64| {
            let mut segments = self.segments.iter();
            segments.find_map(|s| s.physical.checked_add(within(start(s), s.memory_size)?))
        };
        of(|s| s.physical)
            .or_else(|| of(|s| s.virtual_address))
            .ok_or_else(|| corrupt("kernel's entry point is outside of its segments"))
    }
}

fn truncated(image: &[u8], needed: u64) -> LoadError {
    LoadError::Truncated {
        subject: Subject::Kernel,
        what: "ELF kernel",
        have: image.len() as u64,
        needed: needed.max(image.len() as u64 + 1),
    }
}

/// That the image is for x86.
fn check_machine(image: &[u8]) -> Result<(), LoadError> {
    let too_short = || truncated(image, 64);
    let data = u8_at(image, EI_DATA).ok_or_else(too_short)?;
    let machine = u16_at(image, E_MACHINE).ok_or_else(too_short)?;
    let machine = if data == ELFDATA2MSB { machine.swap_bytes() } else { machine };
    if data != ELFDATA2MSB && [EM_386, EM_X86_64].contains(&machine) {
        return Ok(());
    }
    let name = OTHER_MACHINES.iter().find(|(number, _)| *number == machine);
    let found = name.map_or_else(|| format!("ELF machine {machine}"), |(_, name)| (*name).into());
    Err(LoadError::WrongArchitecture { found })
}

/// Loads an ELF kernel: one with a PVH entry by that protocol, others as Linux.
pub(crate) fn load(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    rsdp: Option<GuestPhysAddr>,
) -> Result<BootState, LoadError> {
    let elf = Elf::parse(kernel.image)?;
    if let Some(entry) = elf.pvh_entry {
        let (entry, end) = (elf.entry_at(entry)?, elf.load(place, 0)?);
        return pvh::start(place, kernel, rsdp, entry, end);
    }
    if let Some(header) = multiboot2::find_header(kernel.image) {
        return multiboot2::load(place, kernel, header, rsdp);
    }
    let end = elf.load(place, 0)?;
    linux::start_vmlinux(place, kernel, rsdp, elf.entry()?, elf.is_64, end)
}
