//! Boots kernels without a BIOS: puts a kernel of any usual form into guest memory, with what its
//! boot protocol says it is to be told, and gives the state the first processor starts in. Also
//! the tables that tell a guest of its machine: ACPI, SMBIOS, and the MultiProcessor
//! Specification's.

#![forbid(unsafe_code)]

pub mod acpi;
pub mod boot;
mod bytes;
mod diagnose;
mod elf;
mod elf_sections;
mod error;
mod flat;
mod info;
mod initrd;
pub mod layout;
mod linux;
pub mod mptable;
mod multiboot;
mod multiboot2;
mod place;
mod pvh;
pub mod smbios;
#[cfg(test)]
mod tests;

use trivium_memory::{GuestMemory, GuestPhysAddr};

pub use boot::{BootState, EntryMode};
pub use error::{LoadError, Subject};
pub use layout::{E820Entry, E820Kind, MemoryLayout};

use place::Placer;

/// A file that a Multiboot or PVH kernel is given.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// The file's content.
    pub data: &'a [u8],
    /// What the kernel is told with it: by custom the file's name and then its arguments.
    pub command_line: &'a str,
}

/// What to boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kernel<'a> {
    /// The kernel file's content.
    pub image: &'a [u8],
    /// The kernel file's name, the first word of a Multiboot kernel's command line.
    pub name: &'a str,
    /// The initial RAM disk. For Multiboot and PVH kernels it is the first module.
    pub initrd: Option<&'a [u8]>,
    /// Modules for Multiboot and PVH kernels.
    pub modules: &'a [Module<'a>],
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// Loads a kernel. RAM must be mapped as `layout` says; `rsdp` is where the ACPI tables start, if
/// there are any.
///
/// # Errors
/// The kernel or a file given with it is none, or does not fit; see [`LoadError`].
pub fn load(
    memory: &GuestMemory,
    layout: &MemoryLayout,
    kernel: &Kernel<'_>,
    rsdp: Option<GuestPhysAddr>,
) -> Result<BootState, LoadError> {
    let place = Placer { memory, layout };
    if kernel.image.is_empty() {
        return Err(LoadError::EmptyKernel);
    }
    if linux::is_linux(kernel.image) {
        return linux::load(&place, kernel, rsdp);
    }
    if let Some(header) = multiboot::find_header(kernel.image) {
        return multiboot::load(&place, kernel, header);
    }
    if elf::is_elf(kernel.image) {
        return elf::load(&place, kernel, rsdp);
    }
    if let Some(header) = multiboot2::find_header(kernel.image) {
        return multiboot2::load(&place, kernel, header, rsdp);
    }
    Err(diagnose::not_a_kernel(kernel.image))
}
