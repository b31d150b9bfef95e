//! What must be known of each page of the arena: whether it was written, and which of its
//! 64-byte lines hold code that a CPU has decoded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::PAGE_SIZE;

const PAGE_SHIFT: u32 = PAGE_SIZE.trailing_zeros();
const LINE_SHIFT: u32 = 6;

fn bitmap(bits: usize) -> Box<[AtomicU64]> {
    (0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()
}

/// The pages that a range touches.
fn pages(offset: usize, len: usize) -> std::ops::RangeInclusive<usize> {
    offset >> PAGE_SHIFT..=(offset + len.max(1) - 1) >> PAGE_SHIFT
}

/// Which pages were written since they were last cleaned.
pub struct DirtyPages(Box<[AtomicU64]>);

impl DirtyPages {
    pub(crate) fn new(size: usize) -> Self {
        Self(bitmap(size >> PAGE_SHIFT))
    }

    /// Marks the pages of a range.
    pub fn mark(&self, offset: usize, len: usize) {
        for page in pages(offset, len) {
            if let Some(word) = self.0.get(page / 64) {
                word.fetch_or(1 << (page % 64), Ordering::Relaxed);
            }
        }
    }

    /// Whether a page was written.
    #[must_use]
    pub fn is_dirty(&self, page: usize) -> bool {
        self.0.get(page / 64).is_some_and(|w| w.load(Ordering::Relaxed) >> (page % 64) & 1 != 0)
    }

    /// Takes the marks away, giving the numbers of the pages that had one. CPUs must have dropped
    /// their write translations before, or later writes go unnoticed.
    #[must_use]
    pub fn take(&self) -> Vec<usize> {
        let mut taken = Vec::new();
        for (index, word) in self.0.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::AcqRel);
            while bits != 0 {
                taken.push(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        taken
    }
}

/// Which 64-byte lines hold code that a CPU has decoded.
///
/// A CPU keeps no fast write translation for a page with such lines; its writes there, and all
/// writes by devices, are reported here when they hit one.
pub struct CodePages {
    lines: Box<[AtomicU64]>,
    written: Mutex<Vec<usize>>,
    any_written: AtomicBool,
}

impl CodePages {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            lines: (0..size >> PAGE_SHIFT).map(|_| AtomicU64::new(0)).collect(),
            written: Mutex::default(),
            any_written: AtomicBool::new(false),
        }
    }

    /// The lines of `page` that a range touches.
    fn mask(page: usize, offset: usize, len: usize) -> u64 {
        let last = offset + len.max(1) - 1;
        let first_line = if offset >> PAGE_SHIFT == page { (offset >> LINE_SHIFT) & 63 } else { 0 };
        let last_line = if last >> PAGE_SHIFT == page { (last >> LINE_SHIFT) & 63 } else { 63 };
        (!0 << first_line) & (!0 >> (63 - last_line))
    }

    /// Says that a CPU has decoded this range. True if a page had no code before: write
    /// translations of it must go.
    pub fn mark(&self, offset: usize, len: usize) -> bool {
        let mut new_page = false;
        for page in pages(offset, len) {
            if let Some(lines) = self.lines.get(page) {
                let mask = Self::mask(page, offset, len);
                new_page |= lines.fetch_or(mask, Ordering::AcqRel) == 0;
            }
        }
        new_page
    }

    /// Says that no CPU holds decoded code of this page any more.
    pub fn clear(&self, page: usize) {
        if let Some(lines) = self.lines.get(page) {
            lines.store(0, Ordering::Release);
        }
    }

    /// Whether a page holds decoded code.
    #[must_use]
    pub fn has_code(&self, offset: usize) -> bool {
        self.lines.get(offset >> PAGE_SHIFT).is_some_and(|l| l.load(Ordering::Acquire) != 0)
    }

    /// Reports a write; pages whose decoded code it hit are remembered for [`Self::take_written`].
    pub fn note_write(&self, offset: usize, len: usize) {
        for page in pages(offset, len) {
            let Some(lines) = self.lines.get(page) else { return };
            if lines.load(Ordering::Acquire) & Self::mask(page, offset, len) != 0 {
                self.written.lock().unwrap_or_else(PoisonError::into_inner).push(page);
                self.any_written.store(true, Ordering::Release);
            }
        }
    }

    /// Whether [`Self::take_written`] has something to give.
    #[inline]
    #[must_use]
    pub fn any_written(&self) -> bool {
        self.any_written.load(Ordering::Acquire)
    }

    /// The pages whose decoded code was written since the last call.
    #[must_use]
    pub fn take_written(&self) -> Vec<usize> {
        self.any_written.store(false, Ordering::Release);
        std::mem::take(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_pages_are_taken_once() {
        let dirty = DirtyPages::new(0x10_0000);
        dirty.mark(0x1fff, 2);
        assert!(dirty.is_dirty(1) && dirty.is_dirty(2) && !dirty.is_dirty(3));
        assert_eq!(dirty.take(), [1, 2]);
        assert!(dirty.take().is_empty());
    }

    #[test]
    fn only_writes_to_marked_lines_are_reported() {
        let code = CodePages::new(0x4000);
        assert!(code.mark(0x1040, 64));
        assert!(!code.mark(0x1080, 1), "the page held code already");
        code.note_write(0x103f, 1);
        code.note_write(0x10c0, 0x100);
        assert!(!code.any_written());
        code.note_write(0x103f, 2);
        assert_eq!(code.take_written(), [1]);
        code.clear(1);
        code.note_write(0x1040, 64);
        assert!(!code.any_written());
    }
}
