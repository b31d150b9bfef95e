//! Where RAM lies on board `pc`, what of it the firmware keeps, and the map of it that kernels
//! are given.

use std::ops::Range;

use crate::LoadError;

/// 1 MiB: the start of extended memory.
pub const MIB: u64 = 1 << 20;
/// End of the memory below 1 MiB that kernels may use; the extended BIOS data area follows.
pub const CONVENTIONAL_END: u64 = 0x9_fc00;
/// The extended BIOS data area (EBDA).
pub const EBDA: Range<u64> = CONVENTIONAL_END..0xa_0000;
/// The BIOS's segment, which kernels expect to be reserved.
pub const BIOS_SEGMENT: Range<u64> = 0xf_0000..MIB;
/// Where what guests look for lies in [`BIOS_SEGMENT`].
pub(crate) mod bios {
    use std::ops::Range;

    /// The floating pointer of the MultiProcessor Specification.
    pub const MP_FLOATING_POINTER: u64 = 0xf_0000;
    /// The 32-bit entry point of SMBIOS.
    pub const SMBIOS_ENTRY: u64 = 0xf_0010;
    /// The 64-bit entry point of SMBIOS.
    pub const SMBIOS3_ENTRY: u64 = 0xf_0030;
    /// The RSDP of ACPI, on a multiple of 16 (ACPI specification 6.5, 5.2.5.1). The extended BIOS
    /// data area would do as well, but not for the first guest of Xen, which does not see the
    /// BIOS data area that leads there.
    pub const RSDP: u64 = 0xf_0050;
    /// The MP configuration table.
    pub const MP_TABLE: Range<u64> = 0xf_0100..0xf_4000;
    /// The SMBIOS structures.
    pub const SMBIOS_TABLE: Range<u64> = 0xf_4000..0xf_fff0;
}

/// RAM below 4 GiB ends here at the latest: PCI devices follow.
pub const LOW_RAM_LIMIT: u64 = 0xc000_0000;
/// RAM that does not fit below [`LOW_RAM_LIMIT`] starts here.
pub const HIGH_RAM_START: u64 = 1 << 32;
/// The least RAM a machine can have for the boot without a BIOS, in bytes.
pub const MIN_RAM: u64 = 2 * MIB;

/// Size of the area at the top of low RAM that holds the ACPI tables.
const ACPI_RECLAIM_SIZE: u64 = 0x1_f000;
/// Size of the area after it that holds the FACS, which the guest must keep.
const ACPI_NVS_SIZE: u64 = 0x1000;

/// What a range of the memory map is, with the numbers of INT 15h, AX=E820h (ACPI specification
/// 6.5, table 15.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// RAM that the guest may use.
    Ram = 1,
    /// Not for the guest.
    Reserved = 2,
    /// ACPI tables; free once they are read.
    AcpiReclaim = 3,
    /// ACPI data that must be kept.
    AcpiNvs = 4,
}

/// One range of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct E820Entry {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is.
    pub kind: E820Kind,
}

/// Where RAM lies: below 3 GiB, the rest from 4 GiB on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLayout {
    low_end: u64,
    /// The uppermost bytes of low RAM that the guest must leave alone.
    reserved: u64,
    high_end: u64,
}

impl MemoryLayout {
    /// The lowest address that modules are loaded to.
    pub(crate) const FIRST_LOADABLE: u64 = MIB;

    /// The layout of `ram_size` bytes, rounded down to whole pages.
    ///
    /// # Errors
    /// `ram_size` is below [`MIN_RAM`].
    pub fn new(ram_size: u64) -> Result<Self, LoadError> {
        if ram_size < MIN_RAM {
            return Err(LoadError::RamTooSmall {
                what: "boot without a BIOS",
                needed_mib: MIN_RAM / MIB,
                have_mib: ram_size / MIB,
            });
        }
        let ram_size = ram_size & !0xfff;
        let low_end = ram_size.min(LOW_RAM_LIMIT);
        Ok(Self {
            low_end,
            reserved: 0,
            high_end: HIGH_RAM_START.saturating_add(ram_size - low_end),
        })
    }

    /// The same with the uppermost `reserved` bytes of low RAM (rounded up to whole pages) kept
    /// from the guest: the memory map says that they are reserved.
    ///
    /// # Errors
    /// Less than [`MIN_RAM`] is left below them.
    pub fn with_reserved(self, reserved: u64) -> Result<Self, LoadError> {
        let rounded = reserved.checked_next_multiple_of(0x1000);
        match rounded.filter(|rounded| self.low_end.saturating_sub(*rounded) >= MIN_RAM) {
            Some(reserved) => Ok(Self { reserved, ..self }),
            None => Err(LoadError::RamTooSmall {
                what: "boot beside the reserved memory",
                needed_mib: reserved.saturating_add(MIN_RAM).div_ceil(MIB),
                have_mib: self.low_end / MIB,
            }),
        }
    }

    /// The low RAM that is kept from the guest; empty if there is none.
    #[must_use]
    pub fn reserved(&self) -> Range<u64> {
        self.low_end - self.reserved..self.low_end
    }

    /// All RAM, in bytes.
    #[must_use]
    pub fn ram_size(&self) -> u64 {
        self.low_end + (self.high_end - HIGH_RAM_START)
    }

    /// End of the RAM that starts at 0.
    #[must_use]
    pub fn low_ram_end(&self) -> u64 {
        self.low_end
    }

    /// The RAM from 4 GiB on; empty if there is none.
    #[must_use]
    pub fn high_ram(&self) -> Range<u64> {
        HIGH_RAM_START..self.high_end
    }

    /// Where the ACPI tables lie.
    #[must_use]
    pub fn acpi_reclaim(&self) -> Range<u64> {
        let nvs = self.acpi_nvs().start;
        nvs - ACPI_RECLAIM_SIZE..nvs
    }

    /// Where the FACS lies.
    #[must_use]
    pub fn acpi_nvs(&self) -> Range<u64> {
        let end = self.reserved().start;
        end - ACPI_NVS_SIZE..end
    }

    /// The extended memory below 4 GiB that kernels and their modules may be loaded to.
    #[must_use]
    pub fn loadable(&self) -> Range<u64> {
        MIB..self.acpi_reclaim().start
    }

    /// The memory map for the guest, ascending.
    #[must_use]
    pub fn e820(&self) -> Vec<E820Entry> {
        let all = [
            (0..CONVENTIONAL_END, E820Kind::Ram),
            (EBDA, E820Kind::Reserved),
            (BIOS_SEGMENT, E820Kind::Reserved),
            (self.loadable(), E820Kind::Ram),
            (self.acpi_reclaim(), E820Kind::AcpiReclaim),
            (self.acpi_nvs(), E820Kind::AcpiNvs),
            (self.reserved(), E820Kind::Reserved),
            (self.high_ram(), E820Kind::Ram),
        ];
        all.into_iter()
            .filter(|(range, _)| !range.is_empty())
            .map(|(range, kind)| E820Entry {
                start: range.start,
                size: range.end - range.start,
                kind,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_beyond_3_gib_moves_above_4_gib() {
        let layout = MemoryLayout::new(4 << 30).unwrap();
        assert_eq!(layout.low_ram_end(), 0xc000_0000);
        assert_eq!(layout.high_ram(), 0x1_0000_0000..0x1_4000_0000);
        assert_eq!(layout.ram_size(), 4 << 30);
    }

    #[test]
    fn the_map_is_ascending_without_overlap_and_counts_all_ram_above_1_mib() {
        for mib in [2, 64, 512, 3072, 3073, 8192] {
            let layout = MemoryLayout::new(mib * MIB).unwrap();
            let map = layout.e820();
            assert!(map.windows(2).all(|w| w[0].start + w[0].size <= w[1].start));
            let above: u64 = map.iter().filter(|e| e.start >= MIB).map(|e| e.size).sum();
            assert_eq!(above, (mib - 1) * MIB);
        }
    }

    #[test]
    fn reserved_memory_is_the_top_of_low_ram_and_nothing_lies_there() {
        for mib in [64, 8192] {
            let layout = MemoryLayout::new(mib * MIB).unwrap();
            let low_end = layout.low_ram_end();
            let layout = layout.with_reserved(16 * MIB).unwrap();
            let map = layout.e820();
            let found = map.iter().find(|e| e.start == low_end - 16 * MIB).unwrap();
            assert_eq!((found.size, found.kind), (16 * MIB, E820Kind::Reserved));
            assert!(map.windows(2).all(|w| w[0].start + w[0].size <= w[1].start));
            assert!(layout.loadable().end < found.start && layout.acpi_nvs().end <= found.start);
            assert_eq!(layout.ram_size(), mib * MIB);
            assert!(layout.with_reserved(low_end - MIB).is_err());
            assert!(layout.with_reserved(u64::MAX).is_err());
        }
    }

    #[test]
    fn too_little_ram_is_refused() {
        assert!(MemoryLayout::new(MIN_RAM - 1).is_err());
    }
}
