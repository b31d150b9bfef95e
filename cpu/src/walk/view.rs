//! A CPU's own copy of the memory map, so that a page walk takes no lock.

use std::sync::Arc;

use trivium_memory::{Backing, FlatMap, GuestMemory, GuestPhysAddr};

/// The flat map as it was at one generation of [`GuestMemory`], with the state of the A20 gate.
#[derive(Debug, Clone)]
pub struct MemoryView {
    /// The CPU is in system-management mode.
    smm: bool,
    map: Arc<FlatMap>,
    /// What instruction fetches see.
    code: Arc<FlatMap>,
    a20_mask: u64,
    generation: u64,
    /// The largest range of RAM: (start, size, offset in the arena). Most page tables lie there.
    main: (u64, u64, usize),
}

impl MemoryView {
    /// The present map, outside of system-management mode.
    #[must_use]
    pub fn new(memory: &GuestMemory) -> Self {
        Self::of(memory, false)
    }

    fn of(memory: &GuestMemory, smm: bool) -> Self {
        // The generation first: a change meanwhile makes the next `refresh` take the map again.
        let generation = memory.generation();
        let maps = memory.maps();
        let (map, code) =
            if smm { (maps.smm, maps.smm_code) } else { (maps.all.clone(), maps.all) };
        let a20_mask = if memory.a20() { !0 } else { !(1 << 20) };
        let main = map.ram().map(|(start, end, offset)| (start, end - start, offset));
        let main = main.max_by_key(|&(_, size, _)| size).unwrap_or_default();
        Self { smm, map, code, a20_mask, generation, main }
    }

    /// Whether the map has changed since.
    #[inline]
    #[must_use]
    pub fn is_old(&self, memory: &GuestMemory) -> bool {
        memory.generation() != self.generation
    }

    /// Takes the map again if it has changed; says whether it had.
    #[inline]
    pub fn refresh(&mut self, memory: &GuestMemory) -> bool {
        let changed = self.is_old(memory);
        if changed {
            *self = Self::of(memory, self.smm);
        }
        changed
    }

    /// The CPU is now in system-management mode, or no longer: it sees SMRAM, or does not.
    /// Translations that it has made are void.
    pub fn set_smm(&mut self, memory: &GuestMemory, smm: bool) {
        if self.smm != smm {
            *self = Self::of(memory, smm);
        }
    }

    /// What lies at a guest-physical address for instruction fetches, through the A20 gate.
    #[must_use]
    pub fn lookup_code(&self, gpa: u64) -> Backing {
        self.code.lookup(GuestPhysAddr(gpa & self.a20_mask))
    }

    /// What lies at a guest-physical address, through the A20 gate.
    #[inline]
    #[must_use]
    pub fn lookup(&self, gpa: u64) -> Backing {
        let gpa = gpa & self.a20_mask;
        let (start, size, offset) = self.main;
        let within = gpa.wrapping_sub(start);
        if within < size {
            return Backing::Ram(offset + within as usize);
        }
        self.map.lookup(GuestPhysAddr(gpa))
    }
}
