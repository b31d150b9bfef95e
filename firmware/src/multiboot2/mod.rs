//! Kernels of the Multiboot2 specification, version 2.0.

mod header;
mod info;

use std::ops::Range;

use trivium_memory::GuestPhysAddr;

use crate::elf::{self, Elf};
use crate::elf_sections::{self, Sections};
use crate::flat::Flat;
use crate::info::place_modules;
use crate::place::{Placer, page_up};
use crate::{BootState, Kernel, LoadError, Subject};
use header::{Preference, Relocation, Wishes};

pub(crate) use header::{Header, find_header};

/// In EAX when the kernel is entered (3.3).
const LOADER_MAGIC: u64 = 0x36d7_6289;

fn corrupt(what: &'static str) -> LoadError {
    LoadError::Corrupt { subject: Subject::Kernel, what }
}

/// The kernel's file, in one of its two forms.
enum Image<'a> {
    Elf(Elf<'a>),
    Flat(Flat<'a>),
}

impl<'a> Image<'a> {
    fn new(image: &'a [u8], header: Header, wishes: &Wishes) -> Result<Self, LoadError> {
        match wishes.addresses {
            Some(addresses) => addresses.cut(image, header.offset).map(Self::Flat),
            None if elf::is_elf(image) => Elf::parse(image).map(Self::Elf),
            None => {
                Err(corrupt("kernel is no ELF file and its Multiboot2 header has no addresses"))
            }
        }
    }

    /// Where it is linked to lie.
    fn extent(&self) -> Range<u64> {
        match self {
            Self::Elf(elf) => elf.extent(),
            Self::Flat(flat) => flat.start..flat.end,
        }
    }

    /// Loads it `delta` above where it is linked; gives its end.
    fn load(&self, place: &Placer<'_>, delta: u64) -> Result<u64, LoadError> {
        match self {
            Self::Elf(elf) => elf.load(place, delta),
            Self::Flat(flat) => {
                flat.load(place, delta)?;
                Ok(flat.end.wrapping_add(delta))
            }
        }
    }

    /// The entry point, as it is linked.
    fn entry(&self, wishes: &Wishes) -> Result<u64, LoadError> {
        match (wishes.entry, self) {
            (Some(entry), _) => Ok(entry.into()),
            (None, Self::Elf(elf)) => elf.entry(),
            (None, Self::Flat(_)) => {
                Err(corrupt("kernel's Multiboot2 header has addresses but no entry point"))
            }
        }
    }
}

/// Loads a kernel that has a Multiboot2 header.
pub(crate) fn load(
    place: &Placer<'_>,
    kernel: &Kernel<'_>,
    header: Header,
    rsdp: Option<GuestPhysAddr>,
) -> Result<BootState, LoadError> {
    let wishes = header.wishes(kernel.image)?;
    let image = Image::new(kernel.image, header, &wishes)?;
    let linked = image.extent();
    let base = match &wishes.relocation {
        Some(relocation) => choose(place, &linked, relocation)?,
        None => linked.start,
    };
    let delta = base.wrapping_sub(linked.start);
    let entry = image.entry(&wishes)?;
    if !linked.contains(&entry) {
        return Err(corrupt("kernel's entry point is outside of it"));
    }
    let mut end = image.load(place, delta)?;
    let sections: Option<Sections> = match image {
        Image::Elf(_) => elf_sections::load(place, kernel.image, end)?,
        Image::Flat(_) => None,
    };
    end = sections.as_ref().map_or(end, |sections| sections.end);
    let modules = place_modules(place, kernel, end)?;
    let free = modules.last().map_or(end, |last| last.end);
    let content = info::Content {
        kernel,
        modules: &modules,
        sections: sections.as_ref(),
        base: wishes.relocation.is_some().then_some(base as u32),
        rsdp,
    };
    let info = info::write(place, &content, page_up(free))?;
    let state = BootState::protected32(place.memory, entry.wrapping_add(delta))?;
    Ok(BootState { rax: LOADER_MAGIC, rbx: info, ..state })
}

/// Where a kernel that can lie anywhere goes (3.1.11): where it is linked if it has no preference
/// and may lie there, else as low or as high as it wants.
fn choose(
    place: &Placer<'_>,
    linked: &Range<u64>,
    relocation: &Relocation,
) -> Result<u64, LoadError> {
    let size = linked.end - linked.start;
    let free = place.layout.loadable();
    let (min, max) = (u64::from(relocation.min), u64::from(relocation.max));
    let allowed = min <= linked.start && linked.end - 1 <= max;
    if relocation.preference == Preference::None
        && allowed
        && place.check("kernel", linked.start, size).is_ok()
    {
        return Ok(linked.start);
    }
    let align = u64::from(relocation.align);
    let lowest = free.start.max(min).next_multiple_of(align);
    let end = free.end.min(max + 1);
    let highest = end.checked_sub(size).map(|start| start / align * align);
    let highest = highest.filter(|start| *start >= lowest);
    let highest = highest.ok_or_else(|| place.too_small("kernel", lowest.saturating_add(size)))?;
    Ok(if relocation.preference == Preference::Highest { highest } else { lowest })
}
