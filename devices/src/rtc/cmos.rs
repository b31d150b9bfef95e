//! What PC firmware leaves in CMOS memory for operating systems: sizes of memory, equipment, and a
//! checksum (IBM PC AT Technical Reference, "CMOS RAM address map").

use super::registers::Registers;

/// Types of the floppy drives: the first in the high half.
const FLOPPY: u8 = 0x10;
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
/// The third boot device in the high half; bit 0: floppies are booted without a look at their
/// signature.
const BOOT_ORDER_3: u8 = 0x38;
/// The second boot device in the high half and the first in the low one.
const BOOT_ORDER_1_2: u8 = 0x3d;
/// Memory above 16 MiB in units of 64 KiB.
const MEMORY_ABOVE_16M: u8 = 0x34;
/// Memory above 4 GiB in units of 64 KiB, three bytes: where virtual machines tell their firmware.
const MEMORY_ABOVE_4G: u8 = 0x5b;

/// Equipment byte: an x87 is present.
const EQUIPMENT_FPU: u8 = 1 << 1;
/// Equipment byte: a PS/2 mouse is present.
const EQUIPMENT_MOUSE: u8 = 1 << 2;
/// Equipment byte: there is a floppy drive, and bits 7 and 6 have the number of drives less one.
const EQUIPMENT_FLOPPY: u8 = 1 << 0;
const EQUIPMENT_TWO_FLOPPIES: u8 = 1 << 6;
const EQUIPMENT_FLOPPIES: u8 = 0xc1;
/// Byte 38h: do not look for a signature on floppies.
const NO_SIGNATURE: u8 = 1 << 0;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const UNIT_64K: u64 = 1 << 16;
const BASE_MEMORY_KIB: u64 = 640;

/// What firmware may boot from, with the numbers that QEMU's firmware has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BootDevice {
    /// The first floppy drive.
    Floppy = 1,
    /// The first hard disk.
    Disk = 2,
    /// The first CD-ROM drive.
    CdRom = 3,
    /// The network.
    Network = 4,
}

/// Types of floppy drives, with their numbers in byte 10h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FloppyDrive {
    /// 360 KiB, 5.25 inches.
    Kib360 = 1,
    /// 1.2 MiB, 5.25 inches.
    Mib1_2 = 2,
    /// 720 KiB, 3.5 inches.
    Kib720 = 3,
    /// 1.44 MiB, 3.5 inches.
    Mib1_44 = 4,
    /// 2.88 MiB, 3.5 inches.
    Mib2_88 = 5,
}

pub(super) fn set_boot_order(
    registers: &mut Registers,
    order: [Option<BootDevice>; 3],
    check_floppy: bool,
) {
    let [first, second, third] = order.map(|device| device.map_or(0, |device| device as u8));
    registers.set(BOOT_ORDER_1_2, second << 4 | first);
    registers.set(BOOT_ORDER_3, third << 4 | if check_floppy { 0 } else { NO_SIGNATURE });
}

pub(super) fn set_floppies(registers: &mut Registers, drives: [Option<FloppyDrive>; 2]) {
    let [first, second] = drives.map(|drive| drive.map_or(0, |drive| drive as u8));
    registers.set(FLOPPY, first << 4 | second);
    let equipment = match drives.iter().flatten().count() {
        0 => 0,
        1 => EQUIPMENT_FLOPPY,
        _ => EQUIPMENT_FLOPPY | EQUIPMENT_TWO_FLOPPIES,
    };
    registers.set(EQUIPMENT, registers.get(EQUIPMENT) & !EQUIPMENT_FLOPPIES | equipment);
    set_checksum(registers);
}

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
        registers.set(EQUIPMENT, EQUIPMENT_FPU | EQUIPMENT_MOUSE);
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
