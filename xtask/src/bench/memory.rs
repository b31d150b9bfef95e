//! How much memory a process has beyond its guest's RAM, from /proc/PID/smaps (see proc(5)).

use std::fs;

/// What is resident of `process` in KiB, without the mapping that holds `ram_mib` of guest RAM.
/// `None` when the process has none such yet, or is gone.
pub fn overhead_kib(process: u32, ram_mib: u64) -> Option<u64> {
    without_ram(&fs::read_to_string(format!("/proc/{process}/smaps")).ok()?, ram_mib * 1024)
}

/// Guest RAM is the mapping with the most resident pages of those that are large enough for it.
fn without_ram(smaps: &str, ram_kib: u64) -> Option<u64> {
    let sizes = smaps.lines().filter_map(|line| field(line, "Size:"));
    let resident = smaps.lines().filter_map(|line| field(line, "Rss:"));
    let mappings: Vec<(u64, u64)> = sizes.zip(resident).collect();
    let large = mappings.iter().filter(|(size, _)| *size >= ram_kib);
    let ram = large.map(|(_, resident)| *resident).max()?;
    let all: u64 = mappings.iter().map(|(_, resident)| *resident).sum();
    Some(all - ram)
}

/// The KiB of a line such as `Rss:      12 kB`.
fn field(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_mapping_that_can_hold_ram_is_left_out() {
        let smaps = "0-1 rw-p 0 0:0 0\nSize:  2048 kB\nRss:  10 kB\n\
                     1-2 rw-p 0 0:0 0\nSize:  1024 kB\nRss:  700 kB\n\
                     2-3 rw-p 0 0:0 0\nSize:   100 kB\nRss:  90 kB\n";
        assert_eq!(without_ram(smaps, 1024), Some(100));
        assert_eq!(without_ram(smaps, 4096), None);
    }
}
