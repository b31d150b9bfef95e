//! Serial presence detect: what memory modules tell of themselves. JEDEC Standard 21-C, 4.1.2.5
//! (synchronous DRAM), revision 1.2.

use super::eeprom::Eeprom;

/// Address of the first module's EEPROM; the others follow.
pub const EEPROM_ADDRESS: u8 = 0x50;
/// Modules that there are places for: EEPROMs have three address pins.
pub const MAX_MODULES: usize = 8;

/// The largest bank that byte 31 can tell of, in MiB.
const MAX_BANK_MIB: u64 = 512;
/// The smallest module of synchronous DRAM here, in MiB.
const MIN_MODULE_MIB: u64 = 8;
/// Banks of the largest size on one module.
const MAX_BANKS: u64 = 2;

/// Bytes that are the same for all modules, from byte 0 on: PC100 at CAS latency 2, PC133 at 3.
#[rustfmt::skip]
const COMMON: &[(usize, u8)] = &[
    (0, 128), (1, 8),           // 128 bytes written of 2^8.
    (2, 0x04),                  // Synchronous DRAM.
    (6, 64), (7, 0),            // 64 bits wide.
    (8, 0x01),                  // LVTTL.
    (9, 0x75), (10, 0x54),      // Cycle 7.5 ns and access 5.4 ns at the highest CAS latency.
    (11, 0x00),                 // Neither parity nor ECC.
    (12, 0x80),                 // Refresh every 15.625 us; self-refresh.
    (13, 8), (14, 0),           // Chips of 8 bits.
    (15, 1),                    // Random column accesses a clock apart.
    (16, 0x8f),                 // Bursts of 1, 2, 4, 8 and a page.
    (18, 0x06),                 // CAS latencies 2 and 3.
    (19, 0x01), (20, 0x01),     // CS and write latency 0.
    (21, 0x00), (22, 0x0e),     // Unbuffered; precharge all, auto precharge, write1/read burst.
    (23, 0xa0), (24, 0x60),     // Cycle 10 ns and access 6 ns at the next lower CAS latency.
    (25, 0x00), (26, 0x00),
    (27, 20), (28, 15),         // tRP and tRRD, in ns.
    (29, 20), (30, 45),         // tRCD and tRAS, in ns.
    (32, 0x15), (33, 0x08),     // Set-up 1.5 ns and hold 0.8 ns of addresses,
    (34, 0x15), (35, 0x08),     // and of data.
    (62, 0x12),                 // Revision 1.2.
    (93, 0x98), (94, 0x01),     // Made in the first week of 1998.
    (126, 100),                 // 100 MHz,
    (127, 0xcf),                // CAS latencies 2 and 3 there; all four clocks; junction at 100 C.
];
/// Byte 63: the low byte of the sum of those before it.
const CHECKSUM: usize = 63;
const PART_NUMBER: (usize, &[u8; 18]) = (73, b"TRIVIUM SDRAM     ");
/// The serial number's first byte.
const SERIAL: usize = 95;

/// The chips of a bank: size of the bank in MiB, row and column address bits, internal banks.
/// 8 bytes times 2^rows times 2^columns times the banks is the size.
const GEOMETRIES: [(u64, u8, u8, u8); 7] = [
    (8, 11, 8, 2),
    (16, 12, 8, 2),
    (32, 12, 8, 4),
    (64, 12, 9, 4),
    (128, 12, 10, 4),
    (256, 13, 10, 4),
    (512, 13, 11, 4),
];

/// The modules that make up this much memory, in MiB, the largest first. What does not fit into
/// eight modules, or is less than the smallest, no module tells of.
#[must_use]
pub fn module_sizes(memory_mib: u64) -> Vec<u64> {
    let mut left = memory_mib;
    let mut sizes = Vec::new();
    while left >= MIN_MODULE_MIB && sizes.len() < MAX_MODULES {
        let size = (1u64 << left.ilog2()).min(MAX_BANK_MIB * MAX_BANKS);
        sizes.push(size);
        left -= size;
    }
    sizes
}

/// What the module in place `place` tells, of `size_mib` MiB: a size of [`module_sizes`].
#[must_use]
pub fn spd_of_module(size_mib: u64, place: u8) -> [u8; 256] {
    let bank = size_mib.min(MAX_BANK_MIB);
    let mut data = [0; 256];
    data[128..].fill(0xff); // Not written by the module's maker.
    for &(at, value) in COMMON {
        data[at] = value;
    }
    if let Some((_, rows, columns, internal)) = GEOMETRIES.iter().find(|known| known.0 == bank) {
        (data[3], data[4], data[17]) = (*rows, *columns, *internal);
    }
    data[5] = u8::try_from(size_mib / bank.max(1)).unwrap_or(u8::MAX);
    // Bit 0 is 4 MiB, each one further twice that.
    data[31] = u8::try_from(bank / 4).unwrap_or(0);
    let (first, name) = PART_NUMBER;
    for (to, from) in data.iter_mut().skip(first).zip(name) {
        *to = *from;
    }
    data[SERIAL + 3] = place;
    data[CHECKSUM] = data[..CHECKSUM].iter().fold(0, |sum, byte| sum.wrapping_add(*byte));
    data
}

/// The EEPROMs of the modules that make up this much memory, with their addresses on the bus.
pub fn spd_eeproms(memory_mib: u64) -> impl Iterator<Item = (u8, Eeprom)> {
    (0..)
        .zip(module_sizes(memory_mib))
        .map(|(place, size)| (EEPROM_ADDRESS + place, Eeprom::new(spd_of_module(size, place))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_make_up_the_memory() {
        assert_eq!(module_sizes(128), [128]);
        assert_eq!(module_sizes(100), [64, 32]);
        assert_eq!(module_sizes(1536), [1024, 512]);
        assert_eq!(module_sizes(2), []);
        assert_eq!(module_sizes(64 << 10), [1024; 8]);
        assert_eq!(module_sizes(u64::MAX).len(), MAX_MODULES);
    }

    #[test]
    fn byte_31_and_the_geometry_tell_of_the_same_size() {
        for size in [8, 16, 32, 64, 128, 256, 512, 1024] {
            let spd = spd_of_module(size, 0);
            let density = u64::from(spd[31]) * 4;
            assert!(spd[31].is_power_of_two());
            assert_eq!(density * u64::from(spd[5]), size);
            let bank = 8 * (1u64 << (spd[3] + spd[4])) * u64::from(spd[17]);
            assert_eq!(bank, density << 20, "{size} MiB");
        }
    }

    #[test]
    fn byte_63_is_the_sum_of_those_before_it() {
        let spd = spd_of_module(256, 3);
        let sum: u32 = spd[..63].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(u32::from(spd[63]), sum & 0xff);
        assert_eq!(&spd[73..86], b"TRIVIUM SDRAM");
        assert_eq!(spd[98], 3, "serial number");
    }
}
