//! SMBIOS tables: what the machine is, for its guest (System Management BIOS reference
//! specification, DSP0134, version 3.0; the 32-bit entry point says 2.8).

mod settings;
mod structure;
mod tables;
#[cfg(test)]
mod tests;

use trivium_memory::GuestMemory;

use crate::layout::bios;
use crate::place::Placer;
use crate::{LoadError, MemoryLayout};

pub use settings::SmbiosSettings;

/// What SMBIOS says of the processors.
#[derive(Debug, Clone, Copy)]
pub struct SmbiosCpu<'a> {
    /// Who made them: CPUID's vendor.
    pub vendor: &'a str,
    /// Their name: CPUID's brand string.
    pub name: &'a str,
    /// EAX and EDX of CPUID leaf 1, the latter in the upper half.
    pub id: u64,
    /// Whether they have 64-bit mode.
    pub long_mode: bool,
}

/// What the tables are made of.
#[derive(Debug, Clone, Copy)]
pub struct SmbiosConfig<'a> {
    /// The machine's name.
    pub product: &'a str,
    /// Its version, in numbers with dots.
    pub version: &'a str,
    /// How many processors there are.
    pub processors: u32,
    /// What they are.
    pub cpu: SmbiosCpu<'a>,
    /// Whether there is a PCI bus.
    pub pci: bool,
    /// Whether there are ACPI tables.
    pub acpi: bool,
    /// What the user wants otherwise.
    pub settings: &'a SmbiosSettings,
}

/// The structures, and what the entry points tell of them.
struct Table {
    bytes: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Table {
    fn new(config: &SmbiosConfig<'_>, layout: &MemoryLayout) -> Result<Self, LoadError> {
        let structures = tables::all(config, layout);
        let largest = structures.iter().map(Vec::len).max().unwrap_or(0);
        let bytes = structures.concat();
        let room = (bios::SMBIOS_TABLE.end - bios::SMBIOS_TABLE.start) as usize;
        if bytes.len() > room {
            return Err(LoadError::SmbiosTooLarge { have: bytes.len(), limit: room });
        }
        // All fit into 64 KiB.
        Ok(Self { bytes, count: structures.len() as u16, largest: largest as u16 })
    }

    /// The 32-bit entry point (5.2.1).
    fn entry_point(&self) -> Vec<u8> {
        const LENGTH: u8 = 0x1f;
        const VERSION: [u8; 2] = [2, 8];
        const BCD_REVISION: u8 = 0x28;
        let mut dmi = b"_DMI_\0".to_vec();
        dmi.extend((self.bytes.len() as u16).to_le_bytes());
        dmi.extend((bios::SMBIOS_TABLE.start as u32).to_le_bytes());
        dmi.extend(self.count.to_le_bytes());
        dmi.push(BCD_REVISION);
        set_checksum(&mut dmi, 5);
        let mut entry = b"_SM_\0".to_vec();
        entry.push(LENGTH);
        entry.extend(VERSION);
        entry.extend(self.largest.to_le_bytes());
        entry.extend([0; 6]); // revision and formatted area
        entry.extend(dmi);
        set_checksum(&mut entry, 4);
        entry
    }

    /// The 64-bit entry point (5.2.2).
    fn entry_point_64(&self) -> Vec<u8> {
        const LENGTH: u8 = 0x18;
        /// Major, minor and document revision; entry point revision; reserved.
        const VERSION: [u8; 5] = [3, 0, 0, 1, 0];
        let mut entry = b"_SM3_\0".to_vec();
        entry.push(LENGTH);
        entry.extend(VERSION);
        entry.extend((self.bytes.len() as u32).to_le_bytes());
        entry.extend(bios::SMBIOS_TABLE.start.to_le_bytes());
        set_checksum(&mut entry, 5);
        entry
    }
}

/// Makes all bytes sum to 0.
fn set_checksum(bytes: &mut [u8], at: usize) {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = sum);
}

/// Writes the tables and both entry points into the BIOS's segment.
///
/// # Errors
/// RAM is not mapped there, or the user's strings are too long.
pub fn build(
    memory: &GuestMemory,
    layout: &MemoryLayout,
    config: &SmbiosConfig<'_>,
) -> Result<(), LoadError> {
    let place = Placer { memory, layout };
    let table = Table::new(config, layout)?;
    place.write(bios::SMBIOS_TABLE.start, &table.bytes)?;
    place.write(bios::SMBIOS_ENTRY, &table.entry_point())?;
    place.write(bios::SMBIOS3_ENTRY, &table.entry_point_64())
}
