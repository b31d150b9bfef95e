//! vmcoreinfo, by which a guest's kernel says where its notes for memory dumps are: an item of
//! fw_cfg, by QEMU's documentation `docs/specs/vmcoreinfo.rst`.

/// The item's name.
pub const FILE: &str = "etc/vmcoreinfo";

/// The item's size: formats of host and guest (16 bits each), size (32 bits), address (64 bits),
/// all little-endian.
const SIZE: usize = 16;
/// The format of an ELF note, the only one that there is.
const FORMAT_ELF: u16 = 1;
/// Notes are smaller than this.
const SIZE_LIMIT: u32 = 1 << 20;

/// Where the note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmCoreInfo {
    /// Its guest-physical address.
    pub address: u64,
    /// Its size in bytes, less than 1 MiB.
    pub size: u32,
}

impl VmCoreInfo {
    /// The item before a guest has written it.
    #[must_use]
    pub fn unwritten() -> Vec<u8> {
        let mut item = FORMAT_ELF.to_le_bytes().to_vec();
        item.resize(SIZE, 0);
        item
    }

    /// What a guest has written; none if it took its word back, or speaks of another format.
    #[must_use]
    pub fn parse(item: &[u8]) -> Option<Self> {
        let item = item.first_chunk::<SIZE>()?;
        let [_, _, f0, f1, s0, s1, s2, s3, address @ ..] = *item;
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let known = u16::from_le_bytes([f0, f1]) == FORMAT_ELF && size < SIZE_LIMIT;
        known.then_some(Self { address: u64::from_le_bytes(address), size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_offers_elf_notes_and_nothing_is_there_yet() {
        assert_eq!(VmCoreInfo::unwritten(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(VmCoreInfo::parse(&VmCoreInfo::unwritten()), None);
    }

    #[test]
    fn the_layout_is_little_endian() {
        let item = [1, 0, 1, 0, 0x24, 0x10, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1];
        let info = VmCoreInfo { address: 0x0102_0304_0506_0708, size: 0x1024 };
        assert_eq!(VmCoreInfo::parse(&item), Some(info));
        assert_eq!(VmCoreInfo::parse(&item[..15]), None);
    }

    #[test]
    fn other_formats_and_sizes_from_1_mib_on_are_ignored() {
        let item = [1, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(VmCoreInfo::parse(&item), None);
        let item = [1, 0, 1, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(VmCoreInfo::parse(&item), None);
    }
}
