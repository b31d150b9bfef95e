//! The arena: one host mapping that backs all RAM and ROM of a machine, and typed access to it.
//!
//! The guest and other host threads may write the arena at any time, so no Rust reference to its
//! bytes is ever made: all access is by volatile loads and stores or atomic instructions. Each
//! access of up to eight bytes is one host access of that width, so that the host's memory order
//! is the guest's.

#![allow(unsafe_code)]

use std::arch::asm;
use std::fs::File;
use std::io;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::host::{self, MemoryOptions};

/// One host mapping.
pub(crate) struct Arena {
    base: *mut u8,
    len: usize,
    mapping: MmapRaw,
    /// What is mapped, if others may map it too.
    file: Option<File>,
}

// SAFETY: the mapping is only accessed through raw pointers with volatile or atomic accesses, and
// it lives as long as the arena; where it is accessed from does not matter.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) fn new(len: usize, options: MemoryOptions) -> io::Result<Self> {
        let mut map = MmapOptions::new();
        map.len(len).no_reserve_swap();
        let (mapping, file) = match options.share {
            true => {
                let file = host::shared_file(len as u64)?;
                (map.map_raw(&file)?, Some(file))
            }
            false => (MmapRaw::from(map.map_anon()?), None),
        };
        if options.huge_pages {
            mapping.advise(Advice::HugePage)?;
        }
        Ok(Self { base: mapping.as_mut_ptr(), len, mapping, file })
    }

    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Makes the host give the pages of a range now. Their content stays.
    pub(crate) fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.mapping.advise_range(Advice::PopulateWrite, offset, len)
    }
}

/// The widest access that is checked against one limit, in bytes.
const MAX_WORD: usize = 16;

/// A handle to the arena, cheap to copy into a CPU.
#[derive(Clone)]
pub struct RamView {
    base: *mut u8,
    /// The last offset at which an access of [`MAX_WORD`] bytes still fits.
    limit: usize,
    arena: Arc<Arena>,
}

// SAFETY: `base` points into `arena`, which is Send and Sync and kept alive by this struct.
unsafe impl Send for RamView {}
// SAFETY: as above.
unsafe impl Sync for RamView {}

/// A value that can be loaded from and stored to guest memory in one access.
pub trait Word: Copy + Default + sealed::Sealed {
    /// Width in bytes.
    const BYTES: usize;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! words {
    ($($t:ty),*) => {$(
        impl sealed::Sealed for $t {}
        impl Word for $t { const BYTES: usize = size_of::<$t>(); }
    )*};
}
words!(u8, u16, u32, u64, [u64; 2]);

/// A value at any address: volatile accesses want their alignment, which guests do not keep.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Unaligned<T>(T);

macro_rules! compare_exchange {
    ($name:ident, $t:ty, $ins:literal, $class:ident, $acc:tt) => {
        /// Stores `new` at `offset` if the value there is `old`, as one locked access at any
        /// alignment; gives the value that was there.
        #[inline]
        pub fn $name(&self, offset: usize, old: $t, new: $t) -> $t {
            if offset > self.limit {
                return old;
            }
            let found;
            // SAFETY: the offset is inside the arena, checked above; LOCK CMPXCHG takes any
            // alignment.
            unsafe {
                asm!($ins, p = in(reg) self.base.add(offset), new = in($class) new,
                     inout($acc) old => found, options(nostack));
            }
            found
        }
    };
}

impl RamView {
    pub(crate) fn new(arena: Arc<Arena>) -> Self {
        Self { base: arena.base, limit: arena.len.saturating_sub(MAX_WORD), arena }
    }

    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The size of the arena in bytes, scratch pages included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.arena.len
    }

    /// Whether the arena has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arena.len == 0
    }

    /// Loads a value. An offset outside the arena (never one that `lookup` gave) loads zero.
    #[inline(always)]
    #[must_use]
    pub fn load<T: Word>(&self, offset: usize) -> T {
        if offset > self.limit {
            return T::default();
        }
        // SAFETY: the offset is inside the arena, checked above; every bit pattern is a T.
        unsafe { self.base.add(offset).cast::<Unaligned<T>>().read_volatile().0 }
    }

    /// The host's address of the arena's first byte.
    #[inline(always)]
    #[must_use]
    pub fn base_address(&self) -> u64 {
        self.base.addr() as u64
    }

    /// The offset of a host address; one outside the arena if the address is.
    #[inline(always)]
    #[must_use]
    pub fn offset_of(&self, address: u64) -> usize {
        address.wrapping_sub(self.base_address()) as usize
    }

    /// Loads a value from an address of the host. One outside the arena loads zero.
    #[inline(always)]
    #[must_use]
    pub fn load_at<T: Word>(&self, address: u64) -> T {
        self.load(self.offset_of(address))
    }

    /// Stores a value. An offset outside the arena (never one that `lookup` gave) stores nothing.
    #[inline(always)]
    pub fn store<T: Word>(&self, offset: usize, value: T) {
        if offset > self.limit {
            return;
        }
        // SAFETY: the offset is inside the arena, checked above.
        unsafe { self.base.add(offset).cast::<Unaligned<T>>().write_volatile(Unaligned(value)) }
    }

    compare_exchange!(
        compare_exchange_u8,
        u8,
        "lock cmpxchg byte ptr [{p}], {new}",
        reg_byte,
        "al"
    );
    compare_exchange!(compare_exchange_u16, u16, "lock cmpxchg word ptr [{p}], {new:x}", reg, "ax");
    compare_exchange!(
        compare_exchange_u32,
        u32,
        "lock cmpxchg dword ptr [{p}], {new:e}",
        reg,
        "eax"
    );
    compare_exchange!(compare_exchange_u64, u64, "lock cmpxchg qword ptr [{p}], {new}", reg, "rax");

    /// Stores the two halves `new` at `offset`, a multiple of 16, if the values there are `old`,
    /// as one locked access; gives the values that were there.
    #[inline]
    pub fn compare_exchange_u128(&self, offset: usize, old: [u64; 2], new: [u64; 2]) -> [u64; 2] {
        if offset > self.limit || !offset.is_multiple_of(16) {
            return old;
        }
        let [mut low, mut high] = old;
        // SAFETY: the offset is inside the arena and aligned, checked above. RBX is restored.
        unsafe {
            asm!("xchg rbx, rsi",
                 "lock cmpxchg16b [rdi]",
                 "mov rbx, rsi",
                 in("rdi") self.base.add(offset), inout("rsi") new[0] => _,
                 in("rcx") new[1], inout("rax") low, inout("rdx") high, options(nostack));
        }
        [low, high]
    }

    /// Copies bytes out of the arena; what lies outside it reads as zero.
    pub fn read_slice(&self, offset: usize, buf: &mut [u8]) {
        let inside = self.arena.len.saturating_sub(offset).min(buf.len());
        let (inside, outside) = buf.split_at_mut(inside);
        outside.fill(0);
        // SAFETY: `inside` was cut to what the arena holds after `offset`; the buffer is ours, so
        // the two do not overlap. Bytes that others write meanwhile come out old or new.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.base.add(offset.min(self.arena.len)),
                inside.as_mut_ptr(),
                inside.len(),
            )
        }
    }

    /// Whether the arena has these bytes at an offset; what lies outside it is not equal to anything.
    #[must_use]
    pub fn equals(&self, offset: usize, bytes: &[u8]) -> bool {
        if self.arena.len.saturating_sub(offset) < bytes.len() {
            return false;
        }
        // SAFETY: the arena holds as many bytes after `offset`, checked above. Nobody may write them
        // meanwhile and count on the answer; the slice does not outlive this function.
        unsafe {
            std::slice::from_raw_parts(self.base.add(offset).cast_const(), bytes.len()) == bytes
        }
    }

    /// Copies bytes into the arena; what lies outside it is dropped.
    pub fn write_slice(&self, offset: usize, data: &[u8]) {
        let inside = self.arena.len.saturating_sub(offset).min(data.len());
        // SAFETY: as in `read_slice`, the other way round.
        unsafe {
            std::ptr::copy_nonoverlapping(
                data.as_ptr(),
                self.base.add(offset.min(self.arena.len)),
                inside,
            )
        }
    }

    /// Copies bytes within the arena, which may overlap; what lies outside it is left out.
    pub fn copy_within(&self, from: usize, to: usize, len: usize) {
        let len = self.arena.len.saturating_sub(from.max(to)).min(len);
        if len > 0 {
            // SAFETY: both ranges were cut to what the arena holds after `from` and `to`.
            unsafe { std::ptr::copy(self.base.add(from), self.base.add(to), len) }
        }
    }

    /// Sets bytes of the arena; what lies outside it is left out.
    pub fn fill(&self, offset: usize, len: usize, value: u8) {
        let inside = self.arena.len.saturating_sub(offset).min(len);
        // SAFETY: the range was cut to what the arena holds after `offset`.
        unsafe { std::ptr::write_bytes(self.base.add(offset.min(self.arena.len)), value, inside) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> RamView {
        RamView::new(Arc::new(Arena::new(8192, MemoryOptions::default()).unwrap()))
    }

    #[test]
    fn values_are_little_endian_at_any_alignment() {
        let ram = view();
        ram.store(4093, 0x1122_3344_5566_7788_u64);
        assert_eq!(ram.load::<u8>(4093), 0x88);
        assert_eq!(ram.load::<u16>(4099), 0x1122);
        assert_eq!(ram.load::<u32>(4094), 0x4455_6677);
        ram.store(16, [1_u64, 2]);
        assert_eq!(ram.load::<u64>(24), 2);
    }

    #[test]
    fn offsets_outside_load_zero_and_store_nothing() {
        let ram = view();
        ram.store(8192, 1_u8);
        ram.store(usize::MAX, 1_u64);
        assert_eq!(ram.load::<u64>(usize::MAX - 3), 0);
        let mut buf = [9; 4];
        ram.read_slice(8190, &mut buf);
        assert_eq!(buf, [0; 4]);
        ram.write_slice(8190, &[1, 2, 3]);
        assert_eq!(ram.load::<u8>(8191 - 15), 0);
        ram.fill(9000, 10, 1);
    }

    #[test]
    fn copies_within_the_arena_may_overlap_and_end_with_it() {
        let ram = view();
        ram.write_slice(0, &[1, 2, 3, 4]);
        ram.copy_within(0, 2, 4);
        let mut buf = [0; 6];
        ram.read_slice(0, &mut buf);
        assert_eq!(buf, [1, 2, 1, 2, 3, 4]);
        ram.copy_within(0, 8190, 100);
        ram.read_slice(8190, &mut buf[..2]);
        assert_eq!(buf[..2], [1, 2]);
        ram.copy_within(9000, 0, 1);
        ram.copy_within(0, usize::MAX, 1);
    }

    #[test]
    fn compare_exchange_stores_only_on_a_match() {
        let ram = view();
        ram.store(3, 5_u32);
        assert_eq!(ram.compare_exchange_u32(3, 4, 9), 5);
        assert_eq!(ram.load::<u32>(3), 5);
        assert_eq!(ram.compare_exchange_u32(3, 5, 9), 5);
        assert_eq!(ram.load::<u32>(3), 9);
        assert_eq!(ram.compare_exchange_u8(3, 9, 1), 9);
        assert_eq!(ram.compare_exchange_u16(3, 1, 2), 1);
        assert_eq!(ram.compare_exchange_u64(3, 2, 3), 2);
        assert_eq!(ram.compare_exchange_u128(16, [0, 0], [1, 2]), [0, 0]);
        assert_eq!(ram.compare_exchange_u128(16, [0, 0], [3, 4]), [1, 2]);
        assert_eq!(ram.load::<[u64; 2]>(16), [1, 2]);
    }
}
