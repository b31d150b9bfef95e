//! The Multiboot2 header of a kernel: what it wants of its loader (3.1).

use crate::LoadError;
use crate::bytes::{u16_at, u32_at};
use crate::flat::Addresses;

use super::corrupt;

/// The header lies in this many bytes of the image, on a multiple of 8 (3.1.1).
const SEARCH: usize = 32768;
const HEADER_MAGIC: u32 = 0xe852_50d6;
/// Magic number, architecture, length and checksum.
const FIXED_SIZE: usize = 16;
/// The architecture of kernels that are entered in the i386's protected mode.
const I386: u32 = 0;

/// Types of tags (3.1.3 and later).
mod tag {
    pub const END: u16 = 0;
    pub const INFORMATION_REQUEST: u16 = 1;
    pub const ADDRESS: u16 = 2;
    pub const ENTRY_ADDRESS: u16 = 3;
    pub const CONSOLE_FLAGS: u16 = 4;
    pub const FRAMEBUFFER: u16 = 5;
    pub const MODULE_ALIGNMENT: u16 = 6;
    /// The three that only a loader on EFI looks at.
    pub const EFI_BOOT_SERVICES: u16 = 7;
    pub const EFI_ENTRY_I386: u16 = 8;
    pub const EFI_ENTRY_AMD64: u16 = 9;
    pub const RELOCATABLE: u16 = 10;

    /// Flag: the loader may ignore a tag that it does not know.
    pub const OPTIONAL: u16 = 1 << 0;
}

/// The last type of boot information that the specification knows.
const LAST_INFORMATION: u32 = 21;
/// Console flags: there must be a console that the kernel knows.
const CONSOLE_REQUIRED: u32 = 1 << 0;

/// A header that was found in an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) offset: usize,
    architecture: u32,
    length: u32,
}

/// What a kernel wants.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Where its parts go, if not as its ELF headers say.
    pub(super) addresses: Option<Addresses>,
    /// Where it is entered, if not as its ELF header says.
    pub(super) entry: Option<u32>,
    /// It may lie elsewhere.
    pub(super) relocation: Option<Relocation>,
}

/// Where a kernel may lie (3.1.11).
#[derive(Debug, Clone, Copy)]
pub(super) struct Relocation {
    /// The lowest address.
    pub(super) min: u32,
    /// The highest address of its last byte.
    pub(super) max: u32,
    /// What its address is a multiple of; not 0.
    pub(super) align: u32,
    pub(super) preference: Preference,
}

/// Where a kernel likes to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preference {
    None,
    Lowest,
    Highest,
}

/// Looks for a header.
pub(crate) fn find_header(image: &[u8]) -> Option<Header> {
    (0..SEARCH.min(image.len())).step_by(8).find_map(|offset| {
        let mut fields = [0; 4];
        for (n, field) in fields.iter_mut().enumerate() {
            *field = u32_at(image, offset + 4 * n)?;
        }
        let sum = fields.iter().fold(0_u32, |sum, field| sum.wrapping_add(*field));
        let [magic, architecture, length, _] = fields;
        (magic == HEADER_MAGIC && sum == 0).then_some(Header { offset, architecture, length })
    })
}

fn unsupported(what: String) -> LoadError {
    LoadError::Unsupported {
        what,
        remedy: "give one that does without, or that has a Multiboot (version 1) header",
    }
}

impl Header {
    /// Reads the tags.
    pub(super) fn wishes(self, image: &[u8]) -> Result<Wishes, LoadError> {
        if self.architecture != I386 {
            let name = if self.architecture == 4 { "MIPS" } else { "an unknown architecture" };
            return Err(LoadError::WrongArchitecture { found: name.into() });
        }
        let end = self.offset.saturating_add(self.length as usize);
        let tags = image.get(self.offset.saturating_add(FIXED_SIZE)..end);
        let mut rest =
            tags.ok_or_else(|| corrupt("kernel's Multiboot2 header is outside of it"))?;
        let mut wishes = Wishes::default();
        loop {
            let bad_tag = || corrupt("kernel's Multiboot2 header has a tag that leaves it");
            let kind = u16_at(rest, 0).ok_or_else(bad_tag)?;
            let flags = u16_at(rest, 2).ok_or_else(bad_tag)?;
            let size = u32_at(rest, 4).ok_or_else(bad_tag)? as usize;
            let body = rest.get(8..size).ok_or_else(bad_tag)?;
            if kind == tag::END {
                return Ok(wishes);
            }
            wishes.take(kind, flags & tag::OPTIONAL != 0, body)?;
            let next = size.checked_next_multiple_of(8).ok_or_else(bad_tag)?;
            rest = rest.get(next..).ok_or_else(bad_tag)?;
        }
    }
}

impl Wishes {
    fn take(&mut self, kind: u16, optional: bool, body: &[u8]) -> Result<(), LoadError> {
        let short = || corrupt("kernel's Multiboot2 header has a tag that is too short");
        let field = |n: usize| u32_at(body, 4 * n).ok_or_else(short);
        match kind {
            tag::INFORMATION_REQUEST if !optional => check_requests(body)?,
            tag::ADDRESS => {
                self.addresses = Some(Addresses::read(body, 0).map_err(|_| short())?);
            }
            tag::ENTRY_ADDRESS => self.entry = Some(field(0)?),
            tag::CONSOLE_FLAGS if !optional && field(0)? & CONSOLE_REQUIRED != 0 => {
                return Err(unsupported("cannot do without a screen".into()));
            }
            tag::FRAMEBUFFER => {
                log::warn!("The Multiboot2 kernel asks for a video mode; it is told of none");
            }
            tag::RELOCATABLE => {
                self.relocation =
                    Some(Relocation::new([field(0)?, field(1)?, field(2)?, field(3)?])?);
            }
            // Modules start on pages in any case, and the machine has no EFI.
            tag::INFORMATION_REQUEST
            | tag::CONSOLE_FLAGS
            | tag::MODULE_ALIGNMENT
            | tag::EFI_BOOT_SERVICES
            | tag::EFI_ENTRY_I386
            | tag::EFI_ENTRY_AMD64 => {}
            _ if optional => {}
            _ => {
                return Err(unsupported(format!(
                    "asks for an unknown Multiboot2 feature ({kind})"
                )));
            }
        }
        Ok(())
    }
}

impl Relocation {
    fn new([min, max, align, preference]: [u32; 4]) -> Result<Self, LoadError> {
        let preference = match preference {
            1 => Preference::Lowest,
            2 => Preference::Highest,
            _ => Preference::None,
        };
        if min > max {
            return Err(corrupt(
                "kernel's Multiboot2 header has no place for it (min_addr, max_addr)",
            ));
        }
        Ok(Self { min, max, align: align.max(1), preference })
    }
}

/// That all requested information is of a kind that is known. What the machine does not have,
/// such as a framebuffer, the kernel is not told of.
fn check_requests(body: &[u8]) -> Result<(), LoadError> {
    let requests = body.chunks_exact(4).filter_map(|request| u32_at(request, 0));
    match requests.into_iter().find(|kind| *kind > LAST_INFORMATION) {
        Some(kind) => {
            Err(unsupported(format!("asks for unknown Multiboot2 information (type {kind})")))
        }
        None => Ok(()),
    }
}
