//! What must be known of each page of the arena: whether it was written, and which of its
//! 64-byte lines hold code that a CPU has decoded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Which 64-byte lines hold code that CPUs have decoded.
///
/// A CPU keeps no fast write translation for a page with such lines; its writes there, and all
/// writes by devices, are reported here when they hit one. Each CPU reads the reports at its own
/// pace, through a [`CodeReader`]: one that does not run reads them when it runs again.
pub struct CodePages {
    lines: Box<[AtomicU64]>,
    log: Mutex<Log>,
    /// Reports so far: [`Log::end`], readable without the lock.
    reports: AtomicU64,
    readers: AtomicU32,
}

/// The latest reports. They are numbered from 0 on.
#[derive(Default)]
struct Log {
    pages: VecDeque<usize>,
    /// The number of the first in `pages`.
    start: u64,
    /// The first report that no reader has taken.
    fresh: u64,
}

/// The most reports that are kept. A reader that is further behind begins anew.
const MOST_REPORTS: usize = 4096;

impl Log {
    fn end(&self) -> u64 {
        self.start + self.pages.len() as u64
    }

    fn push(&mut self, page: usize) {
        if self.pages.len() == MOST_REPORTS {
            self.pages.pop_front();
            self.start += 1;
        }
        self.pages.push_back(page);
    }

    /// The pages of the reports from a number on, if all are there.
    fn since(&self, number: u64) -> Option<impl Iterator<Item = usize>> {
        let skipped = number.checked_sub(self.start)? as usize;
        Some(self.pages.iter().skip(skipped).copied())
    }
}

/// How far a CPU has read what [`CodePages`] reports.
#[derive(Debug)]
pub struct CodeReader {
    seen: u64,
}

impl CodeReader {
    /// What is at [`CodePages::address`] as long as there is nothing that it does not know.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

/// What a [`CodeReader`] has not known.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// The decoded code of these pages was written. A page may be named more than once.
    Pages(Vec<usize>),
    /// Any code may have been.
    Any,
}

impl CodePages {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            lines: (0..size >> PAGE_SHIFT).map(|_| AtomicU64::new(0)).collect(),
            log: Mutex::default(),
            reports: AtomicU64::new(0),
            readers: AtomicU32::new(0),
        }
    }

    /// A CPU that has decoded nothing yet comes to the others.
    #[must_use]
    pub fn add_reader(&self) -> CodeReader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        CodeReader { seen: self.reports.load(Ordering::Acquire) }
    }

    /// Address of a number of 64 bits that changes when decoded code is written.
    #[must_use]
    pub fn address(&self) -> usize {
        (&raw const self.reports).addr()
    }

    /// A CPU leaves.
    pub fn remove_reader(&self) {
        self.readers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no other CPU can hold decoded code.
    #[must_use]
    pub fn has_one_reader(&self) -> bool {
        self.readers.load(Ordering::Acquire) <= 1
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
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
                let mut log = self.log();
                log.push(page);
                self.reports.store(log.end(), Ordering::Release);
            }
        }
    }

    /// Whether [`Self::take_written`] has something to give.
    #[inline]
    #[must_use]
    pub fn any_written(&self, reader: &CodeReader) -> bool {
        self.reports.load(Ordering::Acquire) != reader.seen
    }

    /// The pages whose decoded code was written since the reader's last call: it must drop what it
    /// has decoded of them. With the first reader that takes a report the page counts as without
    /// code; the others know what they must drop by the report.
    #[must_use]
    pub fn take_written(&self, reader: &mut CodeReader) -> Written {
        let mut log = self.log();
        let (seen, end) = (std::mem::replace(&mut reader.seen, log.end()), log.end());
        for page in log.since(log.fresh.max(log.start)).into_iter().flatten() {
            self.clear(page);
        }
        log.fresh = end;
        log.since(seen).map_or(Written::Any, |pages| Written::Pages(pages.collect()))
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

    fn some(pages: &[usize]) -> Written {
        Written::Pages(pages.to_vec())
    }

    #[test]
    fn only_writes_to_marked_lines_are_reported() {
        let code = CodePages::new(0x4000);
        let mut reader = code.add_reader();
        assert!(code.mark(0x1040, 64));
        assert!(!code.mark(0x1080, 1), "the page held code already");
        code.note_write(0x103f, 1);
        code.note_write(0x10c0, 0x100);
        assert!(!code.any_written(&reader));
        code.note_write(0x103f, 2);
        assert!(code.any_written(&reader));
        assert_eq!(code.take_written(&mut reader), some(&[1]));
        code.note_write(0x1040, 64);
        assert!(!code.any_written(&reader), "there is no code any more");
    }

    #[test]
    fn a_reader_that_comes_late_learns_of_all_and_takes_no_code_from_the_others() {
        let code = CodePages::new(0x4000);
        let (mut first, mut late) = (code.add_reader(), code.add_reader());
        assert!(!code.has_one_reader());
        assert!(code.mark(0x1000, 64));
        code.note_write(0x1000, 1);
        assert_eq!(code.take_written(&mut first), some(&[1]));
        assert!(code.mark(0x1000, 64), "the first has decoded it anew");
        code.mark(0x2000, 64);
        code.note_write(0x2000, 1);
        assert_eq!(code.take_written(&mut late), some(&[1, 2]));
        assert!(code.has_code(0x1000) && !code.has_code(0x2000));
        assert_eq!(code.take_written(&mut first), some(&[2]));
        assert!(!code.any_written(&first) && !code.any_written(&late));
        code.remove_reader();
        assert!(code.has_one_reader());
    }

    #[test]
    fn reports_without_bound_are_not_kept() {
        let code = CodePages::new(0x4000);
        let (mut first, mut late) = (code.add_reader(), code.add_reader());
        for _ in 0..=MOST_REPORTS {
            code.mark(0x1000, 1);
            code.note_write(0x1000, 1);
            assert_eq!(code.take_written(&mut first), some(&[1]));
        }
        assert_eq!(code.take_written(&mut late), Written::Any);
        assert_eq!(code.take_written(&mut late), some(&[]));
    }
}
