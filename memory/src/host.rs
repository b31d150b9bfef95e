//! What the host is asked for with its memory, and what it has.

use std::fs::{self, File};
use std::io;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::MemoryError;

/// What is preallocated at once, in bytes.
pub(crate) const PREALLOC_STEP: usize = 64 << 20;

/// How the host backs guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryOptions {
    /// In a file without a name, which other processes can map too: see
    /// [`crate::GuestMemory::shared_file`].
    pub share: bool,
    /// With transparent huge pages, madvise(2).
    pub huge_pages: bool,
}

/// The host's settings of transparent huge pages, for private and for shared memory. The chosen
/// word is in brackets. Linux, admin-guide/mm/transhuge.rst.
const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const THP_SHARED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

impl MemoryOptions {
    /// Says whether the host can.
    pub(crate) fn check(self) -> Result<(), MemoryError> {
        let setting = if self.share { THP_SHARED } else { THP };
        let says = |text: String| offers_huge_pages(&text);
        if self.huge_pages && !fs::read_to_string(setting).is_ok_and(says) {
            return Err(MemoryError::NoHugePages { setting });
        }
        Ok(())
    }
}

/// Whether a setting leaves huge pages to those who ask for them.
fn offers_huge_pages(setting: &str) -> bool {
    !setting.contains("[never]") && !setting.contains("[deny]")
}

/// A file of memory of a fixed size.
pub(crate) fn shared_file(len: u64) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("trivium-ram", flags)?);
    file.set_len(len)?;
    // Nobody who has it may cut it: an access beyond its end would kill us.
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Says whether the host has so many bytes left.
pub(crate) fn check_available(size: u64) -> Result<(), MemoryError> {
    match available() {
        Some(available) if available < size => {
            Err(MemoryError::Unavailable { size_mib: size >> 20, available_mib: available >> 20 })
        }
        _ => Ok(()),
    }
}

/// What the host has left, in bytes: in all, and for our control group.
fn available() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let host = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    Some(group_available().map_or(host, |group| host.min(group)))
}

/// What our control group may still take, if it has a limit. Linux, admin-guide/cgroup-v2.rst.
fn group_available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let number = |name: &str| {
        let file = format!("/sys/fs/cgroup{path}/{name}");
        fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_word_decides_on_huge_pages() {
        assert!(offers_huge_pages("always [madvise] never\n"));
        assert!(offers_huge_pages("[always] madvise never\n"));
        assert!(!offers_huge_pages("always madvise [never]\n"));
        assert!(!offers_huge_pages("always within_size advise never [deny] force\n"));
    }

    #[test]
    fn more_than_any_host_has_is_not_available() {
        let error = check_available(1 << 60).unwrap_err().to_string();
        assert!(error.contains("prealloc") && !error.contains('\n'), "{error}");
        assert!(check_available(4096).is_ok());
    }
}
