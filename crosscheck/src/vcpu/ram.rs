//! The memory of the small machine: the supervisor's tables, and the regions of cases.

use std::sync::Arc;

use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, MemoryError, Region, RegionKind};

use super::guest::{self, SYSTEM_SIZE};
use crate::case::Case;
use crate::layout::{LDT_ENTRIES, PAGE, REGIONS};
use crate::outcome::{self, Change};

/// Bytes that are written together: those of a line that holds code drop it, so no more are than
/// have changed.
const LINE: usize = 64;

/// A region of cases in guest memory.
struct Part {
    /// Linear address.
    linear: u64,
    /// Guest-physical address, which is its offset in RAM too.
    gpa: u64,
    /// What it is filled with before a case.
    pristine: Vec<u8>,
    /// What is there when the case begins.
    before: Vec<u8>,
}

/// The number of a part, and the offset of a line in it.
type Line = (usize, usize);

/// All of it.
pub(super) struct Ram {
    memory: Arc<GuestMemory>,
    /// By linear address.
    parts: Vec<Part>,
    /// What the case has of its own.
    own: Vec<Line>,
    /// What had changed when that was last asked.
    changed: Vec<Line>,
    /// The local descriptor table.
    ldt: [u8; LDT_ENTRIES * 8],
}

/// What a write into this machine's own RAM can fail with: nothing, for it is all RAM.
const IN_RAM: &str = "the machine's own layout lies in its RAM";

impl Ram {
    /// # Errors
    /// The host refuses memory.
    pub(super) fn new() -> Result<Self, MemoryError> {
        let user: u64 = REGIONS.iter().map(|r| r.len).sum();
        let size = SYSTEM_SIZE + user;
        let memory = Arc::new(GuestMemory::new(size, 1)?);
        memory.set_map(FlatMap::new(&[Region::new(0, size, RegionKind::Ram { offset: 0 })]));
        for (gpa, bytes) in guest::system_memory() {
            memory.write(GuestPhysAddr(gpa), &bytes)?;
        }
        let mut gpa = SYSTEM_SIZE;
        let mut parts = Vec::new();
        for region in &REGIONS {
            let pristine = region.initial();
            memory.write(GuestPhysAddr(gpa), &pristine)?;
            let before = pristine.clone();
            parts.push(Part { linear: region.start, gpa, pristine, before });
            gpa += region.len;
        }
        parts.sort_by_key(|part| part.linear);
        let (own, changed) = Default::default();
        Ok(Self { memory, parts, own, changed, ldt: [0; LDT_ENTRIES * 8] })
    }

    pub(super) fn memory(&self) -> Arc<GuestMemory> {
        self.memory.clone()
    }

    /// The arena offset of the scratch page.
    pub(super) fn scratch(&self) -> usize {
        self.memory.scratch(0, 1).unwrap_or_default()
    }

    /// Puts a case's bytes into memory.
    pub(super) fn begin(&mut self, case: &Case) {
        for (address, bytes) in case.patches() {
            for (at, &byte) in (address..).zip(bytes) {
                self.put(at, byte);
            }
        }
        for &line in &self.own {
            self.restore(line);
        }
        let mut ldt = [0; LDT_ENTRIES * 8];
        for (place, entry) in ldt.as_chunks_mut::<8>().0.iter_mut().zip(&case.ldt) {
            *place = entry.map_or(0, |e| e.descriptor()).to_le_bytes();
        }
        if ldt != self.ldt {
            self.write(guest::LDT, &ldt);
            self.ldt = ldt;
        }
    }

    /// A byte is to be at a linear address when the case begins; none if nothing is mapped there.
    fn put(&mut self, address: u64, byte: u8) {
        for (number, part) in self.parts.iter_mut().enumerate() {
            let Some(offset) = address.checked_sub(part.linear).map(|offset| offset as usize)
            else {
                continue;
            };
            if let Some(place) = part.before.get_mut(offset) {
                *place = byte;
                let line = (number, offset / LINE * LINE);
                if self.own.last() != Some(&line) {
                    self.own.push(line);
                }
                return;
            }
        }
    }

    /// What the case has changed.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let Self { memory, parts, changed, .. } = self;
        let mut found = Vec::new();
        let mut after = [0; PAGE as usize];
        changed.clear();
        for (number, part) in parts.iter().enumerate() {
            let pages = part.before.chunks(after.len()).zip((0..).step_by(after.len()));
            for (before, offset) in pages {
                let gpa = part.gpa + offset as u64;
                if memory.ram().equals(gpa as usize, before) {
                    continue;
                }
                memory.ram().read_slice(gpa as usize, &mut after);
                outcome::changes(part.linear + offset as u64, before, &after, &mut found);
                let lines =
                    before.chunks(LINE).zip(after.chunks(LINE)).zip((offset..).step_by(LINE));
                let differing = lines.filter(|((before, after), _)| before != after);
                changed.extend(differing.map(|(_, offset)| (number, offset)));
            }
        }
        found
    }

    /// Makes memory what it was when the case began, after [`Self::changes`].
    pub(super) fn rewind(&mut self) {
        for line in std::mem::take(&mut self.changed) {
            self.restore(line);
        }
    }

    /// Makes memory what it was before the case, after [`Self::changes`].
    pub(super) fn end(&mut self) {
        self.rewind();
        for line in std::mem::take(&mut self.own) {
            if let Some(part) = self.parts.get_mut(line.0) {
                let bytes = line.1..line.1 + LINE;
                part.before[bytes.clone()].copy_from_slice(&part.pristine[bytes]);
            }
            self.restore(line);
        }
    }

    /// Writes a line as it is when the case begins.
    fn restore(&self, (number, offset): Line) {
        if let Some(part) = self.parts.get(number) {
            self.write(part.gpa + offset as u64, &part.before[offset..offset + LINE]);
        }
    }

    /// Reads guest-physical memory.
    pub(super) fn read(&self, gpa: u64, into: &mut [u8]) {
        if self.memory.read(GuestPhysAddr(gpa), into).is_err() {
            into.fill(0xff);
        }
    }

    fn write(&self, gpa: u64, bytes: &[u8]) {
        if self.memory.write(GuestPhysAddr(gpa), bytes).is_err() {
            unreachable!("{IN_RAM}");
        }
    }
}
