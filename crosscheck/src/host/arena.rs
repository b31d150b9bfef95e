//! The memory that the engine shares with its child, and where everything lies in it.
//!
//! The child maps it at [`ARENA_AT`], behind the page of the [blob](super::blob) that runs there.
//! A case may write into all that the child may write, so nothing read from here is trusted.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU32;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::layout::{PAGE, REGIONS};

/// Where the child's code is: one page, not written by anybody.
pub(super) const CODE_AT: u64 = 0x2a5a_7e00_0000;
/// Where the child has the arena.
pub(super) const ARENA_AT: u64 = 0x2a5a_7f00_0000;

/// Words that both sides read and write.
pub(super) mod control {
    /// The number of the batch that is asked for; a futex.
    pub const REQUEST: usize = 0x00;
    /// The number of the batch that is done; a futex.
    pub const DONE: usize = 0x04;
    /// Cases in the batch.
    pub const COUNT: usize = 0x08;
    /// Cases of it that are done.
    pub const FINISHED: usize = 0x0c;
    /// The setup call that failed, from 1.
    pub const FAILED_CALL: usize = 0x10;
    /// Its error number, negative.
    pub const FAILED_ERRNO: usize = 0x14;
    /// What the last `modify_ldt` that failed gave, negative.
    pub const LDT_ERRNO: usize = 0x18;
    /// The process that the child serves.
    pub const PARENT: usize = 0x1c;
    /// Where the next outcome goes; the child's address.
    pub const OUTPUT: usize = 0x20;
    /// The next case's record; the child's address.
    pub const INPUT: usize = 0x28;
    /// Number of the running case since the child began.
    pub const SERIAL: usize = 0x30;
    /// The case that the last tick of the timer met.
    pub const TICK_SERIAL: usize = 0x38;
    /// How many ticks have met it.
    pub const TICKS: usize = 0x40;
    /// Words of an XSAVE image.
    pub const XSAVE_WORDS: usize = 0x44;
}

/// Tables for the setup; read-only afterwards.
pub(super) const CONFIG: usize = 0x1000;
/// Bytes of it.
pub(super) const CONFIG_SIZE: usize = 0x2000;
/// The top of the child's own stack.
pub(super) const STACK_TOP: usize = 0x1_0000;
/// The alternate stack, on which signals arrive.
pub(super) const SIGNAL_STACK: usize = 0x1_0000;
/// Bytes of it.
pub(super) const SIGNAL_STACK_SIZE: usize = 0x1_0000;
/// The regions of cases, one behind the other.
pub(super) const WORKING: usize = 0x2_0000;
/// What they are filled with; read-only.
pub(super) const PRISTINE: usize = 0x4_0000;
/// Records of cases; read-only in the child.
pub(super) const INPUT: usize = 0x10_0000;
/// Bytes of them.
pub(super) const INPUT_SIZE: usize = 0x10_0000;
/// Records of outcomes.
pub(super) const OUTPUT: usize = 0x20_0000;
/// Bytes of them.
pub(super) const OUTPUT_SIZE: usize = 0x10_0000;
/// All of it.
pub(super) const SIZE: usize = OUTPUT + OUTPUT_SIZE;

/// Bytes of all regions together.
pub(super) const REGION_BYTES: usize = region_bytes();
/// Memory is compared and sent in pieces of this many bytes.
pub(super) const LINE: usize = 64;

const _: () = assert!(REGION_BYTES <= PRISTINE - WORKING && REGION_BYTES <= INPUT - PRISTINE);

const fn region_bytes() -> usize {
    let (mut sum, mut n) = (0, 0);
    while n < REGIONS.len() {
        assert!(REGIONS[n].len.is_multiple_of(PAGE));
        sum += REGIONS[n].len as usize;
        n += 1;
    }
    sum
}

/// The child's address of a place in the arena.
pub(super) const fn child_address(offset: usize) -> u64 {
    ARENA_AT + offset as u64
}

/// The arena as this process sees it.
pub(super) struct Arena {
    file: File,
    mapping: MmapRaw,
}

impl Arena {
    pub(super) fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("trivium-cases", MemfdFlags::CLOEXEC)?);
        file.set_len(SIZE as u64)?;
        let mapping = MmapOptions::new().len(SIZE).map_raw(&file)?;
        Ok(Self { file, mapping })
    }

    /// The file behind it, for the child.
    pub(super) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// A word of [`control`].
    pub(super) fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset < PAGE as usize && offset.is_multiple_of(4));
        // SAFETY: it lies inside the mapping, which lives as long as this borrow, is aligned, and
        // both processes access it by single 32-bit accesses only.
        unsafe { AtomicU32::from_ptr(self.mapping.as_mut_ptr().add(offset).cast()) }
    }

    /// Copies bytes in. Nothing if they do not fit.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > SIZE) {
            return;
        }
        // SAFETY: the range lies inside the mapping, no reference to which exists but atomics of
        // the control page. What the other process makes of it meanwhile does not concern this one.
        unsafe {
            let to = self.mapping.as_mut_ptr().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Copies bytes out, as many as there are.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) {
        let len = into.len().min(SIZE.saturating_sub(offset));
        // SAFETY: as above; any bytes are valid, should the other process write at the same time.
        unsafe {
            let from = self.mapping.as_ptr().add(offset.min(SIZE));
            std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), len);
        }
    }
}
