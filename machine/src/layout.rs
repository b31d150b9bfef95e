//! Where RAM and ROM lie: in the arena one after the other, in the guest's address space as on a PC.

use std::sync::Arc;

use trivium_devices::pci::{PamRegion, Smram};
use trivium_firmware::layout::{HIGH_RAM_START, LOW_RAM_LIMIT};
use trivium_memory::{
    FlatMap, GuestMemory, Maps, MemoryError, MemoryOptions, PAGE_SIZE, Region, RegionKind,
};

/// The display's memory, which is the PCI bus's.
const VGA_HOLE: (u64, u64) = (0xa_0000, 0x2_0000);
/// Where the first mebibyte ends.
const MIB: u64 = 1 << 20;
/// What of the firmware image shows below 1 MiB.
const SHADOW_SIZE: u64 = 128 << 10;
/// Nothing answers here: the board's number for it.
const OPEN_BUS: u32 = 0;
/// Regions that PAM0 to PAM6 describe.
const PAM_REGIONS: usize = 13;

/// Where everything is in the arena, and thus how much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaLayout {
    ram_size: u64,
    rom_size: u64,
    /// The uppermost bytes of low RAM that the guest must leave alone.
    reserved: u64,
}

impl ArenaLayout {
    /// RAM of `ram_size` bytes (rounded down to pages), and room for a firmware image of
    /// `firmware` bytes.
    #[must_use]
    pub fn new(ram_size: u64, firmware: usize) -> Self {
        let rom_size = (firmware as u64).next_multiple_of(PAGE_SIZE);
        Self { ram_size: ram_size & !(PAGE_SIZE - 1), rom_size, reserved: 0 }
    }

    /// The same with so many bytes of low RAM that the guest is told to leave alone.
    #[must_use]
    pub fn with_reserved(self, reserved: u64) -> Self {
        Self { reserved, ..self }
    }

    /// RAM below 4 GiB that the guest is told of, in bytes.
    #[must_use]
    pub fn usable_low_ram(&self) -> u64 {
        self.low_ram().saturating_sub(self.reserved)
    }

    /// Makes the memory with the firmware in it, and `scratch_pages` more; no address leads
    /// anywhere yet.
    ///
    /// # Errors
    /// The host refuses.
    pub fn allocate(
        &self,
        firmware: Option<&[u8]>,
        scratch_pages: u32,
        options: MemoryOptions,
    ) -> Result<GuestMemory, MemoryError> {
        let memory = GuestMemory::with_options(
            self.ram_size.saturating_add(self.rom_size),
            scratch_pages,
            options,
        )?;
        if let Some(image) = firmware {
            // The image ends where the ROM ends; what is left before it is erased flash.
            let padding = self.rom_size as usize - image.len();
            memory.ram().fill(self.rom_offset(), padding, 0xff);
            memory.write_arena(self.rom_offset() + padding, image);
        }
        Ok(memory)
    }

    /// Size of RAM in bytes.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.ram_size
    }

    /// RAM below 4 GiB, in bytes.
    #[must_use]
    pub fn low_ram(&self) -> u64 {
        self.ram_size.min(LOW_RAM_LIMIT)
    }

    fn rom_offset(&self) -> usize {
        self.ram_size as usize
    }

    /// The flat maps, with what the host bridge says of the regions below 1 MiB.
    #[must_use]
    pub fn maps(&self, shadow: &ShadowMap) -> Maps {
        let smram = shadow.smram;
        let enabled = smram.contains(Smram::G_SMRAME);
        let map = |visible: bool| Arc::new(self.map_with(shadow, enabled && visible));
        Maps {
            all: map(smram.contains(Smram::D_OPEN)),
            smm: map(!smram.contains(Smram::D_CLS)),
            smm_code: map(true),
        }
    }

    /// The flat map that everybody sees.
    #[must_use]
    pub fn map(&self, shadow: &ShadowMap) -> FlatMap {
        let open = Smram::G_SMRAME | Smram::D_OPEN;
        self.map_with(shadow, shadow.smram.contains(open))
    }

    /// The flat map of a board without PAM registers: C0000h to FFFFFh is ROM if there is any.
    #[must_use]
    pub fn fixed_map(&self) -> FlatMap {
        let mut shadow = ShadowMap::default();
        if self.rom_size > 0 {
            let (base, size) = (0xc_0000, 0x4_0000);
            shadow.set(PamRegion { base, size, read_ram: false, write_ram: false });
        }
        self.map(&shadow)
    }

    /// A flat map with or without SMRAM.
    fn map_with(&self, shadow: &ShadowMap, smram: bool) -> FlatMap {
        let ram = |offset: u64| RegionKind::Ram { offset: offset as usize };
        let rom = |offset: u64| RegionKind::Rom { offset: self.rom_offset() + offset as usize };
        let (low, high) = (self.low_ram(), self.ram_size - self.low_ram());
        let mut layers = vec![Region::new(0, low, ram(0))];
        if high > 0 {
            layers.push(Region::new(HIGH_RAM_START, high, ram(low)));
        }
        let open = RegionKind::Mmio { id: OPEN_BUS };
        let hole = if smram { ram(VGA_HOLE.0) } else { open };
        layers.push(Region::new(VGA_HOLE.0, VGA_HOLE.1, hole));
        if self.rom_size > 0 {
            layers.push(Region::new(HIGH_RAM_START - self.rom_size, self.rom_size, rom(0)));
        }
        let shadowed = self.rom_size.min(SHADOW_SIZE);
        for region in shadow.regions.iter().flatten() {
            let (base, size) = (u64::from(region.base), u64::from(region.size));
            if region.read_ram {
                let offset = base as usize;
                layers.push(match region.write_ram {
                    true => Region::new(base, size, ram(base)),
                    false => Region::new(base, size, RegionKind::Rom { offset }),
                });
            } else {
                layers.push(Region::new(base, size, open));
                let start = base.max(MIB - shadowed);
                let end = base + size;
                if start < end {
                    let offset = self.rom_size - (MIB - start);
                    layers.push(Region::new(start, end - start, rom(offset)));
                }
            }
        }
        FlatMap::new(&layers)
    }
}

/// What the host bridge's PAM registers say of the regions from C0000h to FFFFFh, and SMRAMC of
/// those from A0000h to BFFFFh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShadowMap {
    regions: [Option<PamRegion>; PAM_REGIONS],
    smram: Smram,
}

impl Default for ShadowMap {
    fn default() -> Self {
        Self { regions: [None; PAM_REGIONS], smram: Smram::empty() }
    }
}

impl ShadowMap {
    /// Notes SMRAMC; says whether it is new in any way.
    pub fn set_smram(&mut self, smram: Smram) -> bool {
        std::mem::replace(&mut self.smram, smram) != smram
    }

    /// Whether writes at an address go to DRAM while reads do not.
    #[must_use]
    pub fn takes_writes(&self, gpa: u64) -> bool {
        self.regions.iter().flatten().any(|region| {
            let within = gpa.checked_sub(region.base.into());
            within.is_some_and(|within| within < region.size.into())
                && region.write_ram
                && !region.read_ram
        })
    }

    /// Notes a region; says whether it is new in any way.
    pub fn set(&mut self, region: PamRegion) -> bool {
        let same = |known: &Option<PamRegion>| known.is_some_and(|known| known.base == region.base);
        let known = self.regions.iter().position(same);
        let place = known.or_else(|| self.regions.iter().position(Option::is_none));
        let Some(place) = place.and_then(|place| self.regions.get_mut(place)) else { return false };
        place.replace(region) != Some(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivium_devices::pci::I440fx;
    use trivium_memory::{Backing, GuestPhysAddr};

    const GIB: u64 = 1 << 30;

    fn lookup(map: &FlatMap, gpa: u64) -> Backing {
        map.lookup(GuestPhysAddr(gpa))
    }

    fn after_reset() -> ShadowMap {
        let mut shadow = ShadowMap::default();
        for region in I440fx::new(None).pam_regions() {
            shadow.set(region);
        }
        shadow
    }

    #[test]
    fn ram_beyond_3_gib_continues_at_4_gib() {
        let layout = ArenaLayout::new(4 * GIB, 0);
        let map = layout.map(&ShadowMap::default());
        assert_eq!(lookup(&map, 0xbfff_ffff), Backing::Ram(0xbfff_ffff));
        assert_eq!(lookup(&map, 0xc000_0000), Backing::Nothing);
        assert_eq!(lookup(&map, 0x1_0000_0000), Backing::Ram(0xc000_0000));
        assert_eq!(lookup(&map, 0x1_4000_0000), Backing::Nothing);
    }

    #[test]
    fn the_displays_window_is_no_ram_and_the_rest_below_1_mib_is() {
        let map = ArenaLayout::new(GIB, 0).map(&ShadowMap::default());
        assert_eq!(lookup(&map, 0x9_ffff), Backing::Ram(0x9_ffff));
        assert_eq!(lookup(&map, 0xa_0000), Backing::Mmio { id: OPEN_BUS });
        assert_eq!(lookup(&map, 0xb_ffff), Backing::Mmio { id: OPEN_BUS });
        assert_eq!(lookup(&map, 0xc_0000), Backing::Ram(0xc_0000));
        assert_eq!(lookup(&map, 0xf_ffff), Backing::Ram(0xf_ffff));
    }

    #[test]
    fn firmware_ends_at_4_gib_and_shows_below_1_mib_after_reset() {
        let rom = GIB as usize;
        let map = ArenaLayout::new(GIB, 256 << 10).map(&after_reset());
        assert_eq!(lookup(&map, 0xffff_fff0), Backing::Rom(rom + 0x3_fff0));
        assert_eq!(lookup(&map, 0xfffc_0000), Backing::Rom(rom));
        assert_eq!(lookup(&map, 0xf_fff0), Backing::Rom(rom + 0x3_fff0));
        assert_eq!(lookup(&map, 0xe_0000), Backing::Rom(rom + 0x2_0000));
        let small = ArenaLayout::new(GIB, 64 << 10).map(&after_reset());
        assert_eq!(lookup(&small, 0xf_0000), Backing::Rom(rom));
        assert_eq!(lookup(&small, 0xe_ffff), Backing::Mmio { id: OPEN_BUS });
    }

    #[test]
    fn pam_turns_rom_into_ram_by_regions() {
        let mut shadow = after_reset();
        let rom = GIB as usize;
        let bios = PamRegion { base: 0xf_0000, size: 0x1_0000, read_ram: true, write_ram: true };
        assert!(shadow.set(bios));
        assert!(!shadow.set(bios));
        let layout = ArenaLayout::new(GIB, 128 << 10);
        assert_eq!(lookup(&layout.map(&shadow), 0xf_0000), Backing::Ram(0xf_0000));
        assert_eq!(lookup(&layout.map(&shadow), 0xe_c000), Backing::Rom(rom + 0xc000));
        shadow.set(PamRegion { write_ram: false, ..bios });
        assert_eq!(lookup(&layout.map(&shadow), 0xf_0000), Backing::Rom(0xf_0000));
    }

    #[test]
    fn a_board_without_pam_registers_has_rom_below_1_mib_if_there_is_any() {
        let with = ArenaLayout::new(GIB, 64 << 10).fixed_map();
        assert_eq!(lookup(&with, 0xf_0000), Backing::Rom(GIB as usize));
        assert_eq!(lookup(&with, 0xc_0000), Backing::Mmio { id: OPEN_BUS });
        let without = ArenaLayout::new(GIB, 0).fixed_map();
        assert_eq!(lookup(&without, 0xf_0000), Backing::Ram(0xf_0000));
    }

    #[test]
    fn smram_is_seen_in_smm_only_unless_it_is_open_or_closed() {
        const HIDDEN: Backing = Backing::Mmio { id: OPEN_BUS };
        const SHOWN: Backing = Backing::Ram(0xa_8000);
        let layout = ArenaLayout::new(GIB, 0);
        let cases = [
            (Smram::empty(), [HIDDEN, HIDDEN, HIDDEN]),
            (Smram::D_OPEN, [HIDDEN, HIDDEN, HIDDEN]),
            (Smram::G_SMRAME, [HIDDEN, SHOWN, SHOWN]),
            (Smram::G_SMRAME | Smram::D_OPEN, [SHOWN, SHOWN, SHOWN]),
            (Smram::G_SMRAME | Smram::D_CLS, [HIDDEN, HIDDEN, SHOWN]),
            (Smram::G_SMRAME | Smram::D_LCK, [HIDDEN, SHOWN, SHOWN]),
        ];
        for (smram, expected) in cases {
            let mut shadow = after_reset();
            shadow.set_smram(smram);
            let maps = layout.maps(&shadow);
            let seen = [&maps.all, &maps.smm, &maps.smm_code].map(|map| lookup(map, 0xa_8000));
            assert_eq!(seen, expected, "{smram:?}");
            assert_eq!(lookup(&layout.map(&shadow), 0xa_8000), expected[0]);
        }
    }

    #[test]
    fn a_write_only_region_is_read_from_rom() {
        let mut shadow = after_reset();
        let bios = PamRegion { base: 0xf_0000, size: 0x1_0000, read_ram: false, write_ram: true };
        shadow.set(bios);
        let map = ArenaLayout::new(GIB, 64 << 10).map(&shadow);
        assert_eq!(lookup(&map, 0xf_0000), Backing::Rom(GIB as usize));
        assert!(shadow.takes_writes(0xf_0000) && shadow.takes_writes(0xf_ffff));
        assert!(!shadow.takes_writes(0xe_ffff) && !shadow.takes_writes(0x10_0000));
        shadow.set(PamRegion { read_ram: true, ..bios });
        assert!(!shadow.takes_writes(0xf_0000));
    }

    #[test]
    fn an_image_of_odd_size_ends_where_the_rom_ends() {
        let layout = ArenaLayout::new(2 << 20, 100);
        let memory = layout.allocate(Some(&[0x90; 100]), 0, MemoryOptions::default()).unwrap();
        memory.set_map(layout.map(&after_reset()));
        let mut bytes = [0; 2];
        memory.read(GuestPhysAddr((1 << 32) - 101), &mut bytes).unwrap();
        assert_eq!(bytes, [0xff, 0x90]);
        memory.read(GuestPhysAddr((1 << 20) - 101), &mut bytes).unwrap();
        assert_eq!(bytes, [0xff, 0x90]);
    }
}
