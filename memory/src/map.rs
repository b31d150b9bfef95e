//! The flat map: which part of the guest-physical address space is RAM, ROM, a device, or nothing.

/// A guest-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestPhysAddr(pub u64);

/// What a region of the address space is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// RAM, at this offset of the arena.
    Ram {
        /// Byte offset into the arena, a multiple of the page size.
        offset: usize,
    },
    /// ROM, at this offset of the arena: writes are lost.
    Rom {
        /// Byte offset into the arena, a multiple of the page size.
        offset: usize,
    },
    /// A device's registers; the board knows what `id` stands for.
    Mmio {
        /// The board's number for it.
        id: u32,
    },
}

/// A region of the guest-physical address space, in whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    start: u64,
    end: u64,
    kind: RegionKind,
}

impl Region {
    /// `size` bytes at `start`; both multiples of the page size, and the end below 2^52.
    #[must_use]
    pub fn new(start: u64, size: u64, kind: RegionKind) -> Self {
        debug_assert!(start.is_multiple_of(4096) && size.is_multiple_of(4096));
        Self { start, end: start.saturating_add(size), kind }
    }

    /// The part of the region from `start` to `end`, if there is any.
    fn clip(&self, start: u64, end: u64) -> Option<Self> {
        let (from, to) = (self.start.max(start), self.end.min(end));
        if from >= to {
            return None;
        }
        let skipped = (from - self.start) as usize;
        let kind = match self.kind {
            RegionKind::Ram { offset } => RegionKind::Ram { offset: offset + skipped },
            RegionKind::Rom { offset } => RegionKind::Rom { offset: offset + skipped },
            // A device sees offsets from its own start, so `id` regions keep their origin apart.
            RegionKind::Mmio { id } => RegionKind::Mmio { id },
        };
        Some(Self { start: from, end: to, kind })
    }
}

/// What lies at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// RAM, at this offset of the arena.
    Ram(usize),
    /// ROM, at this offset of the arena.
    Rom(usize),
    /// A device's registers.
    Mmio {
        /// The board's number for it.
        id: u32,
    },
    /// Nothing: open bus.
    Nothing,
}

/// A range of the address space that the arena backs, in whole pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Guest-physical address of its first byte.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Arena offset of its first byte.
    pub offset: usize,
    /// Writes are lost.
    pub read_only: bool,
}

impl Piece {
    fn new(region: &Region, offset: usize, read_only: bool) -> Self {
        Self { start: region.start, size: region.end - region.start, offset, read_only }
    }
}

/// The flat map: regions in ascending order that do not overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlatMap {
    regions: Vec<Region>,
}

impl FlatMap {
    /// Lays the regions on top of each other: where two overlap, the later one shows.
    #[must_use]
    pub fn new(layers: &[Region]) -> Self {
        let mut regions: Vec<Region> = Vec::new();
        for layer in layers {
            let mut next: Vec<Region> = regions
                .iter()
                .flat_map(|r| [r.clip(0, layer.start), r.clip(layer.end, u64::MAX)])
                .flatten()
                .collect();
            next.push(*layer);
            next.sort_by_key(|r| r.start);
            regions = next;
        }
        Self { regions }
    }

    /// What lies at an address.
    #[must_use]
    pub fn lookup(&self, gpa: GuestPhysAddr) -> Backing {
        let after = self.regions.partition_point(|r| r.start <= gpa.0);
        let Some(region) = after.checked_sub(1).and_then(|i| self.regions.get(i)) else {
            return Backing::Nothing;
        };
        if gpa.0 >= region.end {
            return Backing::Nothing;
        }
        let within = (gpa.0 - region.start) as usize;
        match region.kind {
            RegionKind::Ram { offset } => Backing::Ram(offset + within),
            RegionKind::Rom { offset } => Backing::Rom(offset + within),
            RegionKind::Mmio { id } => Backing::Mmio { id },
        }
    }

    /// What the arena backs, ascending: RAM, and ROM.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        self.regions.iter().filter_map(|r| match r.kind {
            RegionKind::Ram { offset } => Some(Piece::new(r, offset, false)),
            RegionKind::Rom { offset } => Some(Piece::new(r, offset, true)),
            RegionKind::Mmio { .. } => None,
        })
    }

    /// The RAM ranges as (start, end, arena offset), ascending.
    pub fn ram(&self) -> impl Iterator<Item = (u64, u64, usize)> {
        self.regions.iter().filter_map(|r| match r.kind {
            RegionKind::Ram { offset } => Some((r.start, r.end, offset)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: RegionKind = RegionKind::Ram { offset: 0 };

    #[test]
    fn a_later_region_shows_where_two_overlap() {
        let map = FlatMap::new(&[
            Region::new(0, 0x10_0000, RAM),
            Region::new(0xa_0000, 0x2_0000, RegionKind::Mmio { id: 7 }),
            Region::new(0xf_0000, 0x1_0000, RegionKind::Rom { offset: 0x20_0000 }),
        ]);
        assert_eq!(map.lookup(GuestPhysAddr(0x9_ffff)), Backing::Ram(0x9_ffff));
        assert_eq!(map.lookup(GuestPhysAddr(0xa_0000)), Backing::Mmio { id: 7 });
        assert_eq!(map.lookup(GuestPhysAddr(0xc_0001)), Backing::Ram(0xc_0001));
        assert_eq!(map.lookup(GuestPhysAddr(0xf_0005)), Backing::Rom(0x20_0005));
        assert_eq!(map.lookup(GuestPhysAddr(0x10_0000)), Backing::Nothing);
        assert_eq!(map.ram().count(), 2);
    }

    #[test]
    fn an_empty_map_is_open_bus() {
        assert_eq!(FlatMap::default().lookup(GuestPhysAddr(0)), Backing::Nothing);
    }
}
