//! The guest's memory as KVM's slots, over the same mapping that the other CPUs use.

#![allow(unsafe_code)]

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use trivium_memory::{FlatMap, GuestMemory, PAGE_SIZE, Piece, RamView};

use crate::error::{KvmError, call};
use crate::ioctls::Ioctls;

const MIB: u64 = 1 << 20;

/// The slots of one machine.
pub(crate) struct Slots {
    memory: Arc<GuestMemory>,
    /// What the slots show, by number; none where one is free.
    slots: Vec<Option<Shown>>,
    /// The memory's generation that they show.
    generation: Option<u64>,
    /// How many KVM takes.
    limit: usize,
    /// KVM has an address space for system-management mode.
    smm: bool,
}

/// A piece of memory, and which processors see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shown {
    space: Space,
    piece: Piece,
}

/// KVM's address spaces. Their numbers are bits 16 and up of a slot's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    /// What processors see.
    Normal = 0,
    /// What they see in system-management mode.
    Smm = 1,
}

impl Shown {
    /// What KVM calls it if its number is `slot`.
    fn id(self, slot: usize) -> u32 {
        slot as u32 | (self.space as u32) << 16
    }
}

impl Slots {
    pub(crate) fn new(memory: Arc<GuestMemory>, limit: usize, smm: bool) -> Self {
        Self { memory, slots: Vec::new(), generation: None, limit, smm }
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
        let wanted = self.wanted();
        if wanted.len() > self.limit {
            return Err(KvmError::Slots { pieces: wanted.len(), slots: self.limit });
        }
        // What goes may have been written; what stays keeps its log.
        self.collect_dirty(io)?;
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_some_and(|shown| !wanted.contains(&shown)) {
                self.delete(io, slot)?;
            }
        }
        for shown in wanted {
            if !self.slots.contains(&Some(shown)) {
                self.add(io, shown)?;
            }
        }
        self.generation = Some(generation);
        Ok(())
    }

    /// What the slots must show.
    fn wanted(&self) -> Vec<Shown> {
        let maps = self.memory.maps();
        let of = |space, map| {
            let pieces = pieces(map, self.memory.a20());
            pieces.into_iter().map(move |piece| Shown { space, piece })
        };
        let mut wanted: Vec<_> = of(Space::Normal, &maps.all).collect();
        if self.smm {
            wanted.extend(of(Space::Smm, &maps.smm));
        }
        wanted
    }

    /// Deletes all slots and makes them anew: KVM then forgets what it has made of the guest's page
    /// tables, which others may have changed behind its back.
    pub(crate) fn recreate(&mut self, io: &mut dyn Ioctls) -> Result<(), KvmError> {
        self.collect_dirty(io)?;
        for slot in 0..self.slots.len() {
            if let Some(shown) = self.slots[slot].filter(|shown| !shown.piece.read_only) {
                self.delete(io, slot)?;
                self.put(io, slot, shown)?;
            }
        }
        self.refresh(io)
    }

    /// Tells the machine's memory which pages the guest has written through KVM.
    pub(crate) fn collect_dirty(&self, io: &mut dyn Ioctls) -> Result<(), KvmError> {
        for (slot, shown) in self.slots.iter().enumerate() {
            let Some(shown) = shown.filter(|shown| !shown.piece.read_only) else { continue };
            let piece = shown.piece;
            let log = io.dirty_log(shown.id(slot), piece.size as usize);
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

    fn add(&mut self, io: &mut dyn Ioctls, shown: Shown) -> Result<(), KvmError> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.put(io, free, shown)
    }

    fn put(&mut self, io: &mut dyn Ioctls, slot: usize, shown: Shown) -> Result<(), KvmError> {
        let piece = shown.piece;
        let flags = if piece.read_only { KVM_MEM_READONLY } else { KVM_MEM_LOG_DIRTY_PAGES };
        let base = self.memory.ram().base_address();
        let region = kvm_userspace_memory_region {
            slot: shown.id(slot),
            flags,
            guest_phys_addr: piece.start,
            memory_size: piece.size,
            userspace_addr: base.wrapping_add(piece.offset as u64),
        };
        // SAFETY: the range lies in the arena of `self.memory`, which lives as long as the processor
        // that has these slots.
        let done = unsafe { io.set_region(region) };
        done.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        self.slots[slot] = Some(shown);
        Ok(())
    }

    fn delete(&mut self, io: &mut dyn Ioctls, slot: usize) -> Result<(), KvmError> {
        let Some(shown) = self.slots[slot] else { return Ok(()) };
        let region = kvm_userspace_memory_region { slot: shown.id(slot), ..Default::default() };
        // SAFETY: a size of zero deletes the slot; no memory is named.
        let done = unsafe { io.set_region(region) };
        done.map_err(call("KVM_SET_USER_MEMORY_REGION"))?;
        self.slots[slot] = None;
        // Should what follows fail, the next refresh looks at all of them.
        self.generation = None;
        Ok(())
    }
}

/// What the guest sees of the arena by a map, through the A20 gate.
fn pieces(map: &FlatMap, a20: bool) -> Vec<Piece> {
    if a20 {
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
    use trivium_memory::{Region, RegionKind};

    #[test]
    fn a_closed_a20_gate_shows_even_mebibytes_twice() {
        let memory = GuestMemory::new(3 * MIB, 0).unwrap();
        memory.set_map(FlatMap::new(&[Region::new(0, 3 * MIB, RegionKind::Ram { offset: 0 })]));
        let map = memory.map();
        assert_eq!(pieces(&map, true).len(), 1);
        let seen: Vec<_> =
            pieces(&map, false).iter().map(|p| (p.start / MIB, p.offset as u64 / MIB)).collect();
        assert_eq!(seen, [(0, 0), (1, 0), (2, 2), (3, 2)]);
    }

    #[test]
    fn system_management_mode_has_slots_of_its_own() {
        use crate::faulty::Idle;
        let memory = GuestMemory::new(3 * MIB, 0).unwrap();
        let ram = |start: u64, size: u64| {
            FlatMap::new(&[Region::new(start, size, RegionKind::Ram { offset: start as usize })])
        };
        let all = Arc::new(ram(0, MIB));
        let smm = Arc::new(ram(0, 2 * MIB));
        memory.set_maps(trivium_memory::Maps { all, smm: smm.clone(), smm_code: smm });
        let memory = Arc::new(memory);
        for (has_smm, expected) in [(false, vec![0]), (true, vec![0, 1 << 16 | 1])] {
            let mut slots = Slots::new(memory.clone(), 8, has_smm);
            slots.refresh(&mut Idle::default()).unwrap();
            let shown = slots.slots.iter().flatten().enumerate();
            let ids: Vec<_> = shown.map(|(slot, shown)| shown.id(slot)).collect();
            assert_eq!(ids, expected);
        }
    }

    #[test]
    fn bits_are_numbered_over_words() {
        assert_eq!(set_bits(&[1, 0, 1 << 63 | 2]).collect::<Vec<_>>(), [0, 129, 191]);
    }
}
