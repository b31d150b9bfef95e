//! A copy of a machine's RAM, as saved states hold it, and the digest of RAM.
//!
//! Both take RAM as pages of which many are zero, and share the work among a few threads.

use std::num::NonZero;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::{GuestMemory, MemoryError, PAGE_SIZE};

const PAGE: usize = PAGE_SIZE as usize;
static ZEROES: [u8; PAGE] = [0; PAGE];
/// Pages in a [`Block`].
pub const BLOCK_PAGES: usize = 512;
/// Bytes in a [`Block`].
const BLOCK: usize = BLOCK_PAGES * PAGE;
/// Words of a block's bitmap.
const WORDS: usize = BLOCK_PAGES / 64;
/// What is digested at once, in bytes.
const LEAF: usize = 256 << 10;
/// More threads than this are of no use: they wait for memory.
const MOST_THREADS: usize = 8;

/// Which pages of a block are there, one bit each, the first page's lowest.
pub type Bitmap = [u64; WORDS];

/// A digest of some bytes.
type Digest = [u8; blake3::OUT_LEN];

/// A copy of RAM. Pages of zeroes take no room.
pub struct RamImage {
    size: u64,
    present: Vec<u64>,
    /// Each page at its place; what is not present is zero and was never touched.
    content: MmapMut,
}

/// 2 MiB of an image: aligned, and shorter only at its end.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Number of its first page.
    pub first_page: u64,
    /// The pages that are not zero.
    pub present: Bitmap,
    content: &'a [u8],
}

impl<'a> Block<'a> {
    /// The numbers of the pages that are not zero, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let Self { first_page, present, .. } = *self;
        (0..BLOCK_PAGES)
            .filter(move |page| is_set(&present, *page))
            .map(move |page| first_page + page as u64)
    }

    /// The pages that are not zero, in ascending order.
    pub fn pages(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let present = self.present;
        let pages = self.content.chunks(PAGE).enumerate();
        pages.filter(move |(page, _)| is_set(&present, *page)).map(|(_, content)| content)
    }
}

fn is_set(bitmap: &[u64], bit: usize) -> bool {
    bitmap.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 != 0)
}

fn set(bitmap: &mut [u64], bit: usize) {
    if let Some(word) = bitmap.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PAGE).all(|part| ZEROES.starts_with(part))
}

/// Does each piece of work on one of a few threads.
fn share<T: Send>(work: impl Iterator<Item = T> + Send, pieces: usize, f: impl Fn(T) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let work = Mutex::new(work);
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(piece) = next() {
            f(piece);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(MOST_THREADS).min(pieces) {
            // If the host has no thread for it, this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, run);
        }
        run();
    });
}

impl RamImage {
    /// An image of `size` bytes of RAM, rounded up to pages, all of them zero.
    ///
    /// # Errors
    /// The host refuses.
    pub fn new(size: u64) -> Result<Self, MemoryError> {
        let refused = |source| MemoryError::Host { size_mib: size >> 20, source };
        let len = size.checked_next_multiple_of(BLOCK as u64);
        let len = len.and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or_else(|| refused(std::io::ErrorKind::OutOfMemory.into()))?;
        let size = size.next_multiple_of(PAGE_SIZE);
        let mut options = MmapOptions::new();
        let content = options.len(len.max(BLOCK)).no_reserve_swap().map_anon().map_err(refused)?;
        // It is only faster; a host without large pages does without.
        let _ = content.advise(Advice::HugePage);
        Ok(Self { size, present: vec![0; len / PAGE / 64], content })
    }

    /// A copy of the first `size` bytes of the arena, a multiple of the page size. Nobody may write
    /// there meanwhile.
    ///
    /// # Errors
    /// The host has no memory for it.
    pub fn of(memory: &GuestMemory, size: u64) -> Result<Self, MemoryError> {
        let mut image = Self::new(size)?;
        let end = usize::try_from(size).unwrap_or(usize::MAX);
        let blocks = image.content.chunks_mut(BLOCK).zip(image.present.chunks_mut(WORDS));
        let pieces = end.div_ceil(BLOCK);
        share(blocks.enumerate(), pieces, |(block, (content, present))| {
            let mut page = [0; PAGE];
            for (number, place) in content.chunks_mut(PAGE).enumerate() {
                let offset = block * BLOCK + number * PAGE;
                if offset >= end {
                    break;
                }
                memory.ram().read_slice(offset, &mut page);
                if !is_zero(&page) {
                    place.copy_from_slice(&page);
                    set(present, number);
                }
            }
        });
        Ok(image)
    }

    /// Puts the pages back to the start of the arena; those that are the same already are not
    /// written. Nobody may write there meanwhile.
    pub fn put_back(&self, memory: &GuestMemory) {
        let end = usize::try_from(self.size).unwrap_or(usize::MAX);
        share(self.all_blocks(), end.div_ceil(BLOCK), |block| {
            let mut now = [0; PAGE];
            let first = block.first_page as usize * PAGE;
            for (number, wanted) in block.content.chunks(PAGE).enumerate() {
                let offset = first + number * PAGE;
                // What is not present is not read, for it would take room then.
                let wanted = if is_set(&block.present, number) { wanted } else { &ZEROES };
                memory.ram().read_slice(offset, &mut now);
                if offset < end && wanted != now {
                    memory.write_arena(offset, wanted);
                }
            }
        });
    }

    /// Size of the RAM in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    fn all_blocks(&self) -> impl Iterator<Item = Block<'_>> + Send {
        let blocks = self.content.chunks(BLOCK).zip(self.present.as_chunks().0).enumerate();
        blocks.map(|(number, (content, present))| Block {
            first_page: (number * BLOCK_PAGES) as u64,
            present: *present,
            content,
        })
    }

    /// The blocks that are not all zero, in ascending order.
    pub fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        self.all_blocks().filter(|block| block.present != [0; WORDS])
    }

    /// The places of the pages of a block that `present` names, to be filled; nothing if there is
    /// no such block.
    pub fn block_mut(
        &mut self,
        first_page: u64,
        present: &Bitmap,
    ) -> Option<impl Iterator<Item = &mut [u8]>> {
        let pages = (self.size / PAGE_SIZE) as usize;
        let first = usize::try_from(first_page).ok().filter(|page| page % BLOCK_PAGES == 0)?;
        let beyond = (0..BLOCK_PAGES).any(|page| is_set(present, page) && first + page >= pages);
        if first >= pages || beyond {
            return None;
        }
        let words = self.present.get_mut(first / 64..first / 64 + WORDS)?;
        words.copy_from_slice(present);
        let start = first * PAGE;
        let content = self.content.get_mut(start..start + BLOCK)?;
        let present = *present;
        let places = content.chunks_mut(PAGE).enumerate();
        Some(places.filter(move |(page, _)| is_set(&present, *page)).map(|(_, place)| place))
    }

    /// The digest of this RAM; see [`digest`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest_of(self.size, |range, buffer| {
            let (start, mut any) = (range.start, false);
            for (number, place) in buffer.chunks_mut(PAGE).enumerate() {
                let page = start / PAGE + number;
                let present = is_set(&self.present, page);
                any |= present;
                match self.content.get(page * PAGE..page * PAGE + place.len()) {
                    Some(content) if present => place.copy_from_slice(content),
                    _ => place.fill(0),
                }
            }
            any
        })
    }
}

impl PartialEq for RamImage {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (Block<'_>, Block<'_>)| a.pages().eq(b.pages());
        self.size == other.size
            && self.present == other.present
            && self.blocks().zip(other.blocks()).all(same)
    }
}

impl Eq for RamImage {}

impl std::fmt::Debug for RamImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pages: u32 = self.present.iter().map(|word| word.count_ones()).sum();
        f.debug_struct("RamImage").field("size", &self.size).field("pages", &pages).finish()
    }
}

/// The digest of the first `size` bytes of the arena, a multiple of the page size: BLAKE3 over the
/// number and BLAKE3 of each 256 KiB that are not all zero. Nobody may write there meanwhile.
#[must_use]
pub fn digest(memory: &GuestMemory, size: u64) -> Digest {
    digest_of(size, |range, buffer| {
        memory.ram().read_slice(range.start, buffer);
        !is_zero(buffer)
    })
}

/// The digest of what `read` gives; it says whether that is not all zero.
fn digest_of(size: u64, read: impl Fn(Range<usize>, &mut [u8]) -> bool + Sync) -> Digest {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut leaves: Vec<Option<Digest>> = vec![None; size.div_ceil(LEAF)];
    let pieces = leaves.len();
    share(leaves.iter_mut().enumerate(), pieces, |(number, leaf)| {
        let range = number * LEAF..size.min((number + 1) * LEAF);
        let mut buffer = vec![0; range.len()];
        if read(range, &mut buffer) {
            *leaf = Some(blake3::hash(&buffer).into());
        }
    });
    let mut hasher = blake3::Hasher::new();
    for (number, leaf) in leaves.iter().enumerate() {
        if let Some(leaf) = leaf {
            hasher.update(&(number as u64).to_le_bytes());
            hasher.update(leaf);
        }
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 5 << 20;

    fn memory() -> GuestMemory {
        let memory = GuestMemory::new(SIZE, 1).unwrap();
        for (offset, byte) in [(0, 1), (0x2fff, 2), (0x20_0000, 3), (0x4f_ffff, 4)] {
            memory.write_arena(offset, &[byte]);
        }
        memory
    }

    #[test]
    fn an_image_has_the_pages_that_are_not_zero() {
        let memory = memory();
        let image = RamImage::of(&memory, SIZE).unwrap();
        let blocks: Vec<_> = image.blocks().map(|b| (b.first_page, b.pages().count())).collect();
        assert_eq!(blocks, [(0, 2), (512, 1), (1024, 1)]);
        assert_eq!(image.size(), SIZE);
        assert_eq!(image, RamImage::of(&memory, SIZE).unwrap());
        memory.write_arena(0x2fff, &[9]);
        assert_ne!(image, RamImage::of(&memory, SIZE).unwrap());
    }

    #[test]
    fn what_was_put_back_is_what_was_taken_and_code_that_changes_is_told_of() {
        let memory = memory();
        let image = RamImage::of(&memory, SIZE).unwrap();
        let mut reader = memory.code().add_reader();
        memory.code().mark(0x5000, 1);
        memory.code().mark(0x20_0000, 1);
        memory.ram().fill(0x5000, 0x1000, 7);
        memory.ram().fill(0x4f_0000, 0x1_0000, 7);
        image.put_back(&memory);
        assert_eq!(RamImage::of(&memory, SIZE).unwrap(), image);
        assert_eq!(memory.code().take_written(&mut reader), crate::Written::Pages(vec![5]));
    }

    #[test]
    fn the_digest_tells_contents_and_their_places_apart() {
        let memory = memory();
        let first = digest(&memory, SIZE);
        assert_eq!(RamImage::of(&memory, SIZE).unwrap().digest(), first);
        memory.write_arena(0x20_0000, &[0]);
        memory.write_arena(0x24_0000, &[3]);
        assert_ne!(digest(&memory, SIZE), first, "256 KiB later");
        memory.write_arena(0x24_0000, &[0]);
        memory.write_arena(0x20_0000, &[3]);
        assert_eq!(digest(&memory, SIZE), first);
    }

    #[test]
    fn an_image_is_filled_block_by_block() {
        let image = RamImage::of(&memory(), SIZE).unwrap();
        let mut copy = RamImage::new(SIZE).unwrap();
        for block in image.blocks() {
            let places = copy.block_mut(block.first_page, &block.present).unwrap();
            places.zip(block.pages()).for_each(|(place, page)| place.copy_from_slice(page));
        }
        assert_eq!(copy, image);
        let mut last = [0; WORDS];
        set(&mut last, 256);
        assert!(copy.block_mut(1024, &last).is_none(), "beyond the end");
        assert!(copy.block_mut(1, &[0; WORDS]).is_none(), "not a block's first page");
        assert!(copy.block_mut(u64::MAX - 511, &[0; WORDS]).is_none());
    }
}
