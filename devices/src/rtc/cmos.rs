//! What PC firmware leaves in CMOS memory for operating systems: sizes of memory, equipment, and a
//! checksum (IBM PC AT Technical Reference, "CMOS RAM address map").

use super::registers::Registers;

/// Equipment byte.
const EQUIPMENT: u8 = 0x14;
/// Base memory in KiB, low byte; the high byte follows.
const BASE_MEMORY: u8 = 0x15;
/// Memory above 1 MiB in KiB, as set up.
const EXTENDED_MEMORY: u8 = 0x17;
/// Checksum of 10h to 2Dh, high byte; the low byte follows.
const CHECKSUM: u8 = 0x2e;
/// What the checksum covers.
const CHECKED: std::ops::RangeInclusive<u8> = 0x10..=0x2d;
/// Memory above 1 MiB in KiB, as found.
const EXTENDED_MEMORY_FOUND: u8 = 0x30;
/// Memory above 16 MiB in units of 64 KiB.
const MEMORY_ABOVE_16M: u8 = 0x34;
/// Memory above 4 GiB in units of 64 KiB, three bytes: where virtual machines tell their firmware.
const MEMORY_ABOVE_4G: u8 = 0x5b;

/// Equipment byte: an x87 is present.
const EQUIPMENT_FPU: u8 = 1 << 1;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const UNIT_64K: u64 = 1 << 16;
const BASE_MEMORY_KIB: u64 = 640;

/// The sizes of RAM that firmware leaves in CMOS memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CmosMemory {
    /// RAM below 4 GiB, in bytes, from address 0.
    pub below_4g: u64,
    /// RAM from 4 GiB on, in bytes.
    pub above_4g: u64,
}

impl CmosMemory {
    /// Writes the sizes, the equipment and the checksum.
    pub(super) fn fill(self, registers: &mut Registers) {
        let above = |start: u64| self.below_4g.saturating_sub(start);
        let extended = (above(MIB) / KIB).min(0xffff);
        registers.set(EQUIPMENT, EQUIPMENT_FPU);
        set_bytes(registers, BASE_MEMORY, 2, (self.below_4g / KIB).min(BASE_MEMORY_KIB));
        set_bytes(registers, EXTENDED_MEMORY, 2, extended);
        set_bytes(registers, EXTENDED_MEMORY_FOUND, 2, extended);
        set_bytes(registers, MEMORY_ABOVE_16M, 2, (above(16 * MIB) / UNIT_64K).min(0xffff));
        set_bytes(registers, MEMORY_ABOVE_4G, 3, (self.above_4g / UNIT_64K).min(0xff_ffff));
        set_checksum(registers);
    }
}

/// Writes the low `count` bytes of `value`, little-endian.
fn set_bytes(registers: &mut Registers, address: u8, count: u8, value: u64) {
    for (at, byte) in (address..address.saturating_add(count)).zip(value.to_le_bytes()) {
        registers.set(at, byte);
    }
}

/// Makes the checksum right.
pub(super) fn set_checksum(registers: &mut Registers) {
    let sum: u16 = CHECKED.map(|address| u16::from(registers.get(address))).sum();
    let [high, low] = sum.to_be_bytes();
    registers.set(CHECKSUM, high);
    registers.set(CHECKSUM + 1, low);
}
