//! Space below 1 MiB for what a PVH or Multiboot kernel is told.

use crate::boot::low;
use crate::layout::MemoryLayout;
use crate::place::{Placer, page_up};
use crate::{Kernel, LoadError, Module, Subject};

/// Hands out the space, from its start up.
pub(crate) struct InfoSpace<'a> {
    place: &'a Placer<'a>,
    next: u64,
}

impl<'a> InfoSpace<'a> {
    pub(crate) fn new(place: &'a Placer<'a>) -> Self {
        Self { place, next: low::START_INFO.start }
    }

    /// Writes a structure; gives its address, a multiple of 8.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<u64, LoadError> {
        let at = self.next;
        let end = at.saturating_add(bytes.len() as u64);
        if end > low::START_INFO.end {
            return Err(LoadError::Unsupported {
                what: "cannot be told of so many modules with such long command lines".into(),
                remedy: "give fewer modules or shorter command lines",
            });
        }
        self.place.write(at, bytes)?;
        self.next = end.next_multiple_of(8);
        Ok(at)
    }

    /// Writes text as a C string; gives its address.
    pub(crate) fn add_string(&mut self, text: &str) -> Result<u64, LoadError> {
        if text.as_bytes().contains(&0) {
            return Err(LoadError::CommandLineNul);
        }
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.add(&bytes)
    }
}

/// A module that has been put into memory.
pub(crate) struct PlacedModule<'a> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) command_line: &'a str,
}

/// Puts the initial RAM disk and the modules behind the kernel, each on a page of its own.
pub(crate) fn place_modules<'a>(
    place: &Placer<'_>,
    kernel: &Kernel<'a>,
    kernel_end: u64,
) -> Result<Vec<PlacedModule<'a>>, LoadError> {
    let initrd = kernel.initrd.map(|data| Module { data, command_line: "initrd" });
    let first_module = usize::from(initrd.is_some());
    let all = initrd.into_iter().chain(kernel.modules.iter().copied());
    let mut next = page_up(kernel_end.max(MemoryLayout::FIRST_LOADABLE));
    let mut placed = Vec::new();
    for (index, module) in all.enumerate() {
        if module.data.is_empty() {
            let subject = index.checked_sub(first_module).map_or(Subject::Initrd, Subject::Module);
            return Err(LoadError::EmptyModule(subject));
        }
        let size = module.data.len() as u64;
        place.check("kernel with its modules", next, size)?;
        place.write(next, module.data)?;
        let end = next + size;
        placed.push(PlacedModule { start: next, end, command_line: module.command_line });
        next = page_up(end);
    }
    Ok(placed)
}
