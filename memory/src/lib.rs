//! Guest memory: one host mapping for all RAM and ROM (the arena), the flat map from guest-physical
//! addresses to it, and what must be known of each page: dirty, holding code.
//!
//! CPUs translate a guest-physical page once with [`GuestMemory::lookup`] and from then on access
//! the arena by offset, through [`RamView`]. Everything else reads and writes by guest-physical
//! address. The unsafe code of guest memory is in `arena.rs` alone.

#![deny(unsafe_code)]

mod arena;
mod host;
pub mod image;
mod map;
mod pages;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

pub use arena::{RamView, Word};
pub use host::MemoryOptions;
pub use image::RamImage;
pub use map::{Backing, FlatMap, GuestPhysAddr, Piece, Region, RegionKind};
pub use pages::{CodePages, CodeReader, DirtyPages, Written};

use arena::Arena;
use thiserror::Error;

/// The size of a page, and the unit of mapping, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// Why guest memory could not be made or accessed.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The host refused the mapping.
    #[error("The host cannot give {size_mib} MiB of memory: {source}")]
    Host {
        /// What was asked for.
        size_mib: u64,
        /// Why it was refused.
        source: std::io::Error,
    },
    /// The host has large pages switched off.
    #[error("This host gives no huge pages ({setting} says so); leave hugepages out")]
    NoHugePages {
        /// The host's setting.
        setting: &'static str,
    },
    /// All of the memory is to be there from the start, and is not.
    #[error(
        "The host has {available_mib} MiB left, not the {size_mib} MiB that prealloc wants; give the machine less, or leave prealloc out"
    )]
    Unavailable {
        /// What was asked for.
        size_mib: u64,
        /// What there is.
        available_mib: u64,
    },
    /// The range is not RAM throughout.
    #[error("No RAM at {start:#x}..{end:#x}")]
    NotRam {
        /// First address of the range.
        start: u64,
        /// The address after its last.
        end: u64,
    },
}

/// The flat maps: where SMRAM is hidden, processors in system-management mode have their own.
#[derive(Debug, Clone, Default)]
pub struct Maps {
    /// What everybody sees.
    pub all: Arc<FlatMap>,
    /// What a processor in system-management mode sees by its data accesses.
    pub smm: Arc<FlatMap>,
    /// What it sees by its instruction fetches.
    pub smm_code: Arc<FlatMap>,
}

/// All memory of one machine.
pub struct GuestMemory {
    ram: RamView,
    maps: RwLock<Maps>,
    /// Grows whenever `maps` or `a20_mask` changes: CPUs then drop their translations.
    generation: AtomicU64,
    a20_mask: AtomicU64,
    dirty: DirtyPages,
    code: CodePages,
}

impl GuestMemory {
    /// Makes an arena of `arena_size` bytes (rounded up to pages) with `scratch_pages` more pages
    /// after it that no guest address reaches: CPUs assemble accesses there that are not plain RAM.
    ///
    /// # Errors
    /// The host refuses so much memory.
    pub fn new(arena_size: u64, scratch_pages: u32) -> Result<Self, MemoryError> {
        Self::with_options(arena_size, scratch_pages, MemoryOptions::default())
    }

    /// [`Self::new`] with a say in how the host backs it.
    ///
    /// # Errors
    /// The host refuses so much memory, or has no huge pages.
    pub fn with_options(
        arena_size: u64,
        scratch_pages: u32,
        options: MemoryOptions,
    ) -> Result<Self, MemoryError> {
        options.check()?;
        let refused = |source| MemoryError::Host { size_mib: arena_size >> 20, source };
        let size = arena_size
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|s| usize::try_from(s + u64::from(scratch_pages) * PAGE_SIZE).ok());
        let size = size.ok_or_else(|| refused(std::io::ErrorKind::OutOfMemory.into()))?;
        let arena = Arena::new(size, options).map_err(refused)?;
        Ok(Self {
            ram: RamView::new(Arc::new(arena)),
            maps: RwLock::default(),
            generation: AtomicU64::new(0),
            a20_mask: AtomicU64::new(!0),
            dirty: DirtyPages::new(size),
            code: CodePages::new(size),
        })
    }

    /// Makes the host give all of the memory now instead of at its first use; `progress` is told
    /// how many bytes it has given.
    ///
    /// # Errors
    /// It has not so much.
    pub fn preallocate(&self, mut progress: impl FnMut(u64)) -> Result<(), MemoryError> {
        let len = self.ram.len();
        host::check_available(len as u64)?;
        let refused = |source| MemoryError::Host { size_mib: len as u64 >> 20, source };
        for start in (0..len).step_by(host::PREALLOC_STEP) {
            let step = host::PREALLOC_STEP.min(len - start);
            match self.ram.arena().populate(start, step) {
                Ok(()) => {}
                // Linux before 5.14 does not know how: a write that changes nothing does it too.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                    for page in (start..start + step).step_by(PAGE_SIZE as usize) {
                        self.ram.compare_exchange_u8(page, 0, 0);
                    }
                }
                Err(error) => return Err(refused(error)),
            }
            progress((start + step) as u64);
        }
        Ok(())
    }

    /// The file that backs the arena, if [`MemoryOptions::share`] was asked for. Another process
    /// that maps it sees the guest's memory, and the guest sees what it writes.
    #[must_use]
    pub fn shared_file(&self) -> Option<&std::fs::File> {
        self.ram.arena().file()
    }

    /// Access to the arena by offset.
    #[must_use]
    pub fn ram(&self) -> &RamView {
        &self.ram
    }

    /// Which pages were written.
    #[must_use]
    pub fn dirty(&self) -> &DirtyPages {
        &self.dirty
    }

    /// Which pages hold code that a CPU has decoded.
    #[inline]
    #[must_use]
    pub fn code(&self) -> &CodePages {
        &self.code
    }

    /// The offset of scratch page `index` in the arena; `None` if there are not so many.
    #[must_use]
    pub fn scratch(&self, index: u32, scratch_pages: u32) -> Option<usize> {
        let pages_from_end = scratch_pages.checked_sub(index).filter(|&n| n > 0)?;
        self.ram.len().checked_sub(pages_from_end as usize * PAGE_SIZE as usize)
    }

    /// Replaces the flat map: everybody sees the same.
    pub fn set_map(&self, map: FlatMap) {
        let all = Arc::new(map);
        self.set_maps(Maps { smm: all.clone(), smm_code: all.clone(), all });
    }

    /// Replaces the flat maps.
    pub fn set_maps(&self, maps: Maps) {
        *self.maps.write().unwrap_or_else(std::sync::PoisonError::into_inner) = maps;
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The present flat maps.
    #[must_use]
    pub fn maps(&self) -> Maps {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The present flat map, as everybody sees it outside of system-management mode.
    #[must_use]
    pub fn map(&self) -> Arc<FlatMap> {
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).all.clone()
    }

    /// Opens or closes the A20 gate: while closed, address line 20 is zero.
    pub fn set_a20(&self, open: bool) {
        let mask = if open { !0 } else { !(1 << 20) };
        if self.a20_mask.swap(mask, Ordering::AcqRel) != mask {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether the A20 gate is open.
    #[must_use]
    pub fn a20(&self) -> bool {
        self.a20_mask.load(Ordering::Acquire) == !0
    }

    /// A number that changes whenever translations of guest-physical addresses may have.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What lies at an address, as the CPU sees it (through the A20 gate).
    #[must_use]
    pub fn lookup(&self, gpa: GuestPhysAddr) -> Backing {
        let gpa = GuestPhysAddr(gpa.0 & self.a20_mask.load(Ordering::Relaxed));
        self.maps.read().unwrap_or_else(std::sync::PoisonError::into_inner).all.lookup(gpa)
    }

    /// Reads RAM or ROM, as a device or a loader does.
    ///
    /// # Errors
    /// Part of the range is neither; the buffer may be partly filled.
    pub fn read(&self, gpa: GuestPhysAddr, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.each_page(gpa, buf.len(), |backing, range| match backing {
            Backing::Ram(offset) | Backing::Rom(offset) => {
                self.ram.read_slice(offset, &mut buf[range]);
                true
            }
            Backing::Mmio { .. } | Backing::Nothing => false,
        })
    }

    /// Writes RAM, as a device or a loader does. CPUs that hold decoded code of the range are told.
    ///
    /// # Errors
    /// Part of the range is not RAM; the part before it has been written.
    pub fn write(&self, gpa: GuestPhysAddr, buf: &[u8]) -> Result<(), MemoryError> {
        self.each_page(gpa, buf.len(), |backing, range| match backing {
            Backing::Ram(offset) => {
                self.write_arena(offset, &buf[range]);
                true
            }
            _ => false,
        })
    }

    /// Fills a range of ROM, as the board's manufacturer does: `offset` is into the arena.
    pub fn write_arena(&self, offset: usize, data: &[u8]) {
        self.ram.write_slice(offset, data);
        self.dirty.mark(offset, data.len());
        self.code.note_write(offset, data.len());
    }

    /// Calls `access` for each page's share of a range, until it says `false`.
    fn each_page(
        &self,
        gpa: GuestPhysAddr,
        len: usize,
        mut access: impl FnMut(Backing, std::ops::Range<usize>) -> bool,
    ) -> Result<(), MemoryError> {
        let not_ram = MemoryError::NotRam { start: gpa.0, end: gpa.0.saturating_add(len as u64) };
        if gpa.0.checked_add(len as u64).is_none() {
            return Err(not_ram);
        }
        let map = self.map();
        let mut done = 0;
        while done < len {
            let at = gpa.0 + done as u64;
            let in_page = (PAGE_SIZE - at % PAGE_SIZE) as usize;
            let end = len.min(done + in_page);
            if !access(map.lookup(GuestPhysAddr(at)), done..end) {
                return Err(not_ram);
            }
            done = end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        let memory = GuestMemory::new(0x4000, 1).unwrap();
        memory.set_map(FlatMap::new(&[
            Region::new(0, 0x2000, RegionKind::Ram { offset: 0 }),
            Region::new(0x10_0000, 0x1000, RegionKind::Ram { offset: 0x2000 }),
            Region::new(0xffff_f000, 0x1000, RegionKind::Rom { offset: 0x3000 }),
        ]));
        memory
    }

    #[test]
    fn reads_and_writes_cross_pages_of_one_region() {
        let memory = memory();
        memory.write(GuestPhysAddr(0xffe), &[1, 2, 3, 4]).unwrap();
        let mut buf = [0; 4];
        memory.read(GuestPhysAddr(0xffe), &mut buf).unwrap();
        assert_eq!(buf, [1, 2, 3, 4]);
    }

    #[test]
    fn holes_roms_and_the_end_of_the_address_space_refuse_writes() {
        let memory = memory();
        assert!(memory.write(GuestPhysAddr(0x1fff), &[0; 2]).is_err());
        assert!(memory.write(GuestPhysAddr(0xffff_f000), &[0]).is_err());
        assert!(memory.read(GuestPhysAddr(0xffff_f000), &mut [0]).is_ok());
        assert!(memory.read(GuestPhysAddr(u64::MAX), &mut [0; 2]).is_err());
    }

    #[test]
    fn a_closed_a20_gate_wraps_at_one_mebibyte() {
        let memory = memory();
        assert_eq!(memory.lookup(GuestPhysAddr(0x10_0010)), Backing::Ram(0x2010));
        let before = memory.generation();
        memory.set_a20(false);
        assert_eq!(memory.lookup(GuestPhysAddr(0x10_0010)), Backing::Ram(0x10));
        assert_ne!(memory.generation(), before);
    }

    #[test]
    fn shared_memory_is_a_file_that_cannot_be_cut() {
        use std::os::unix::fs::FileExt;
        let options = MemoryOptions { share: true, ..MemoryOptions::default() };
        let memory = GuestMemory::with_options(0x4000, 1, options).unwrap();
        memory.write_arena(0x1234, b"from the guest");
        let file = memory.shared_file().unwrap();
        let mut bytes = [0; 14];
        file.read_exact_at(&mut bytes, 0x1234).unwrap();
        assert_eq!(&bytes, b"from the guest");
        file.write_all_at(b"to", 0x2000).unwrap();
        assert_eq!(memory.ram().load::<u16>(0x2000), u16::from_le_bytes(*b"to"));
        assert!(file.set_len(0).is_err());
        assert!(GuestMemory::new(0x4000, 1).unwrap().shared_file().is_none());
    }

    #[test]
    fn preallocated_memory_keeps_its_content() {
        for share in [false, true] {
            let options = MemoryOptions { share, ..MemoryOptions::default() };
            let memory = GuestMemory::with_options(3 << 20, 1, options).unwrap();
            memory.write_arena(0x1234, &[5]);
            let mut told = Vec::new();
            memory.preallocate(|done| told.push(done)).unwrap();
            assert_eq!(told, [(3 << 20) + PAGE_SIZE]);
            assert_eq!(memory.ram().load::<u8>(0x1234), 5);
        }
    }

    #[test]
    fn device_writes_to_code_are_reported() {
        let memory = memory();
        let mut reader = memory.code().add_reader();
        memory.code().mark(0x1000, 0x10);
        memory.write(GuestPhysAddr(0x1f00), &[0; 8]).unwrap();
        assert!(!memory.code().any_written(&reader), "another line of the same page");
        memory.write(GuestPhysAddr(0xff8), &[0; 16]).unwrap();
        assert_eq!(memory.code().take_written(&mut reader), Written::Pages(vec![1]));
    }

    #[test]
    fn scratch_pages_lie_after_the_guests_memory() {
        let memory = memory();
        assert_eq!(memory.scratch(0, 1), Some(0x4000));
        assert_eq!(memory.scratch(1, 1), None);
    }
}
