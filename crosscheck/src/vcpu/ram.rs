//! The memory of the small machine: the supervisor's tables, and the regions of cases.

use std::sync::Arc;

use trivium_memory::{FlatMap, GuestMemory, GuestPhysAddr, MemoryError, Region, RegionKind};

use super::guest::{self, SYSTEM_SIZE};
use crate::case::Case;
use crate::layout::{LDT_ENTRIES, PAGE, REGIONS};
use crate::outcome::{self, Change};

/// A region of cases in guest memory.
struct Part {
    /// Linear address.
    linear: u64,
    /// Guest-physical address.
    gpa: u64,
    /// What it is filled with before a case.
    pristine: Vec<u8>,
    /// What is there when the case begins.
    before: Vec<u8>,
    /// Room to read it.
    after: Vec<u8>,
}

/// All of it.
pub(super) struct Ram {
    memory: Arc<GuestMemory>,
    parts: Vec<Part>,
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
            let (before, after) = (pristine.clone(), pristine.clone());
            parts.push(Part { linear: region.start, gpa, pristine, before, after });
            gpa += region.len;
        }
        Ok(Self { memory, parts })
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
                let part = self.parts.iter_mut().find_map(|p| {
                    let offset = usize::try_from(at.checked_sub(p.linear)?).ok()?;
                    p.before.get_mut(offset)
                });
                if let Some(place) = part {
                    *place = byte;
                }
            }
        }
        for part in &self.parts {
            write_differing(&self.memory, part.gpa, &part.pristine, &part.before);
        }
        let mut ldt = [0; LDT_ENTRIES * 8];
        for (place, entry) in ldt.as_chunks_mut::<8>().0.iter_mut().zip(&case.ldt) {
            *place = entry.map_or(0, |e| e.descriptor()).to_le_bytes();
        }
        self.write(guest::LDT, &ldt);
    }

    /// What the case has changed.
    pub(super) fn changes(&self) -> Vec<Change> {
        let mut found = Vec::new();
        let mut order: Vec<&Part> = self.parts.iter().collect();
        order.sort_by_key(|p| p.linear);
        let mut after = Vec::new();
        for part in order {
            after.resize(part.before.len(), 0);
            self.read(part.gpa, &mut after);
            outcome::changes(part.linear, &part.before, &after, &mut found);
        }
        found
    }

    /// Makes memory what it was when the case began. Pages that are so already are not written.
    pub(super) fn rewind(&mut self) {
        for part in &mut self.parts {
            if self.memory.read(GuestPhysAddr(part.gpa), &mut part.after).is_err() {
                unreachable!("{IN_RAM}");
            }
            write_differing(&self.memory, part.gpa, &part.after, &part.before);
        }
    }

    /// Makes memory what it was before the case.
    pub(super) fn end(&mut self) {
        for part in &mut self.parts {
            if self.memory.read(GuestPhysAddr(part.gpa), &mut part.after).is_err() {
                unreachable!("{IN_RAM}");
            }
            write_differing(&self.memory, part.gpa, &part.after, &part.pristine);
            part.before.copy_from_slice(&part.pristine);
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

/// Writes the pages of `new` that differ from what is there.
fn write_differing(memory: &GuestMemory, gpa: u64, there: &[u8], new: &[u8]) {
    let pages = there.chunks(PAGE as usize).zip(new.chunks(PAGE as usize));
    for ((there, new), gpa) in pages.zip((gpa..).step_by(PAGE as usize)) {
        if there != new && memory.write(GuestPhysAddr(gpa), new).is_err() {
            unreachable!("{IN_RAM}");
        }
    }
}
