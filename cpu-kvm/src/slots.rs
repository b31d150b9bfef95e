//! The guest's memory as KVM's slots, over the same mapping that the other CPUs use.

#![allow(unsafe_code)]

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use trivium_memory::{GuestMemory, PAGE_SIZE, Piece, RamView};

use crate::error::{KvmError, call};
use crate::ioctls::Ioctls;

const MIB: u64 = 1 << 20;

/// The slots of one machine.
pub(crate) struct Slots {
    memory: Arc<GuestMemory>,
    /// What the slots show, by number; none where one is free.
    slots: Vec<Option<Piece>>,
    /// The memory's generation that they show.
    generation: Option<u64>,
    /// How many KVM takes.
    limit: usize,
}

impl Slots {
    pub(crate) fn new(memory: Arc<GuestMemory>, limit: usize) -> Self {
        Self { memory, slots: Vec::new(), generation: None, limit }
    }

    pub(crate) fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Makes the slots show the memory as it is now.
    pub(crate) fn refresh(&mut self, io: &mut dyn Ioctls) -> Result<(), KvmError> {
        let generation = self.memory.generation();
        if self.generation == Some(generation) {
            return Ok(());
        }
        let wanted = pieces(&self.memory);
        if wanted.len() > self.limit {
            return Err(KvmError::Slots { pieces: wanted.len(), slots: self.limit });
        }
        // What goes may have been written; what stays keeps its log.
        self.collect_dirty(io)?;
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_some_and(|piece| !wanted.contains(&piece)) {
                self.delete(io, slot)?;
            }
        }
        for piece in wanted {
            if !self.slots.contains(&Some(piece)) {
                self.add(io, piece)?;
            }
        }
        self.generation = Some(generation);
        Ok(())
    }

    /// Deletes all slots and makes them anew: KVM then forgets what it has made of the guest's page
    /// tables, which others may have changed behind its back.
    pub(crate) fn recreate(&mut self, io: &mut dyn Ioctls) -> Result<(), KvmError> {
        self.collect_dirty(io)?;
        for slot in 0..self.slots.len() {
            if let Some(piece) = self.slots[slot].filter(|piece| !piece.read_only) {
                self.delete(io, slot)?;
                self.put(io, slot, piece)?;
            }
        }
        self.refresh(io)
    }

    /// Tells the machine's memory which pages the guest has written through KVM.
    pub(crate) fn collect_dirty(&self, io: &mut dyn Ioctls) -> Result<(), KvmError> {
        for (slot, piece) in self.slots.iter().enumerate() {
            let Some(piece) = piece.filter(|piece| !piece.read_only) else { continue };
            let log = io.dirty_log(slot as u32, piece.size as usize);
            for page in set_bits(&log.map_err(call("KVM_GET_DIRTY_LOG"))?) {
                let offset = piece.offset + page * PAGE_SIZE as usize;
                self.memory.dirty().mark(offset, PAGE_SIZE as usize);
                self.memory.code().note_write(offset, PAGE_SIZE as usize);
            }
        }
        Ok(())
    }

    /// Makes a slot of memory that is not the machine's, anew each time.
    pub(crate) fn place_island(
        &mut self,
        io: &mut dyn Ioctls,
        ram: &RamView,
        gpa: u64,
        size: usize,
    ) -> Result<(), KvmError> {
        // The last number: those of the machine's count from zero.
        let slot = self.limit.saturating_sub(1) as u32;
        for memory_size in [0, size as u64] {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: gpa,
                memory_size,
                userspace_addr: ram.base_address(),
            };
            // SAFETY: the memory is the island's, which lives as long as the processor does.
            match unsafe { io.set_region(region) } {
                Ok(()) => {}
                // The first time there is nothing to delete.
                Err(_) if memory_size == 0 => {}
                Err(error) => return Err(call("KVM_SET_USER_MEMORY_REGION")(error)),
            }
        }
        Ok(())
    }

    fn add(&mut self, io: &mut dyn Ioctls, piece: Piece) -> Result<(), KvmError> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.put(io, free, piece)
    }

    fn put(&mut self, io: &mut dyn Ioctls, slot: usize, piece: Piece) -> Result<(), KvmError> {
        let flags = if piece.read_only { KVM_MEM_READONLY } else { KVM_MEM_LOG_DIRTY_PAGES };
        let base = self.memory.ram().base_address();
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            flags,
            guest_phys_addr: piece.start,
            memory_size: piece.size,
            userspace_addr: base.wrapping_add(piece.offset as u64),
        };
        // SAFETY: the range lies in the arena of `self.memory`, which lives as long as the processor
        // that has these slots.
        let done = unsafe { io.set_region(region) };
        done.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        self.slots[slot] = Some(piece);
        Ok(())
    }

    fn delete(&mut self, io: &mut dyn Ioctls, slot: usize) -> Result<(), KvmError> {
        let region = kvm_userspace_memory_region { slot: slot as u32, ..Default::default() };
        // SAFETY: a size of zero deletes the slot; no memory is named.
        let done = unsafe { io.set_region(region) };
        done.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        self.slots[slot] = None;
        // Should what follows fail, the next refresh looks at all of them.
        self.generation = None;
        Ok(())
    }
}

/// What the guest sees of the arena now, through the A20 gate.
fn pieces(memory: &GuestMemory) -> Vec<Piece> {
    let map = memory.map();
    if memory.a20() {
        return map.pieces().collect();
    }
    // Each odd mebibyte shows what the even one below it has.
    let even = map.pieces().flat_map(|piece| cut(&piece)).filter(|piece| piece.start & MIB == 0);
    even.flat_map(|piece| [piece, Piece { start: piece.start | MIB, ..piece }]).collect()
}

/// Cuts a piece where mebibytes begin.
fn cut(piece: &Piece) -> Vec<Piece> {
    let mut parts = Vec::new();
    let mut done = 0;
    while done < piece.size {
        let start = piece.start + done;
        let size = (MIB - start % MIB).min(piece.size - done);
        parts.push(Piece { start, size, offset: piece.offset + done as usize, ..*piece });
        done += size;
    }
    parts
}

/// The numbers of the bits that are set.
fn set_bits(words: &[u64]) -> impl Iterator<Item = usize> {
    words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(|(index, &word)| {
        (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| index * 64 + bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivium_memory::{FlatMap, Region, RegionKind};

    #[test]
    fn a_closed_a20_gate_shows_even_mebibytes_twice() {
        let memory = GuestMemory::new(3 * MIB, 0).unwrap();
        memory.set_map(FlatMap::new(&[Region::new(0, 3 * MIB, RegionKind::Ram { offset: 0 })]));
        assert_eq!(pieces(&memory).len(), 1);
        memory.set_a20(false);
        let seen: Vec<_> =
            pieces(&memory).iter().map(|p| (p.start / MIB, p.offset as u64 / MIB)).collect();
        assert_eq!(seen, [(0, 0), (1, 0), (2, 2), (3, 2)]);
    }

    #[test]
    fn bits_are_numbered_over_words() {
        assert_eq!(set_bits(&[1, 0, 1 << 63 | 2]).collect::<Vec<_>>(), [0, 129, 191]);
    }
}
