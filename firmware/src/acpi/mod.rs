//! The ACPI tables of board `pc` (ACPI specification 6.5).

mod dsdt;
mod extra;
#[cfg(test)]
mod iasl_tests;
mod isa;
pub mod pc;
mod resources;
mod tables;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use trivium_memory::{GuestMemory, GuestPhysAddr};

use crate::layout::{EBDA, MemoryLayout, bios};
use crate::{LoadError, place::Placer};

/// Where the BIOS data area keeps the segment of the EBDA.
const BDA_EBDA_SEGMENT: u64 = 0x40e;
/// Where the BIOS data area keeps the size of memory below the EBDA, in KiB.
const BDA_MEMORY_KIB: u64 = 0x413;

/// What of the board is configurable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcpiConfig<'a> {
    /// The APIC IDs of the processors, the boot processor first.
    pub apic_ids: &'a [u32],
    /// Whether there is an HPET.
    pub hpet: bool,
    /// Which of COM1 to COM4 there are.
    pub com_ports: [bool; 4],
    /// Whether there is a parallel port.
    pub parallel: bool,
    /// Whether the keyboard controller has a mouse.
    pub mouse: bool,
    /// Whether the PM timer has 32 bits instead of the PIIX4's 24.
    pub pm_timer_32: bool,
    /// Whether there is a VGA.
    pub vga: bool,
    /// The user's tables, with their headers.
    pub extra: &'a [Vec<u8>],
}

/// Writes the tables into the areas that `layout` keeps for them, and the RSDP into the BIOS's segment;
/// gives the RSDP's address.
///
/// # Errors
/// RAM is not mapped as `layout` says, there are so many processors that their tables do not fit,
/// or a table of the user's is none.
pub fn build(
    memory: &GuestMemory,
    layout: &MemoryLayout,
    config: &AcpiConfig<'_>,
) -> Result<GuestPhysAddr, LoadError> {
    let place = Placer { memory, layout };
    let facs = layout.acpi_nvs().start;
    place.write(facs, &bytes(&FACS::new()))?;

    let mut writer = TableWriter { place: &place, next: layout.acpi_reclaim().start };
    let dsdt = writer.add(&dsdt::dsdt(config))?;
    let mut pointers = vec![
        writer.add(&bytes(&tables::fadt(config, facs as u32, dsdt)))?,
        writer.add(&bytes(&tables::madt(config)))?,
        writer.add(&bytes(&tables::waet()))?,
    ];
    if config.hpet {
        pointers.push(writer.add(&bytes(&tables::hpet()))?);
    }
    for (index, table) in config.extra.iter().enumerate() {
        extra::check(index, table)?;
        let at = writer.add(table).map_err(|_| extra::does_not_fit(index))?;
        pointers.push(at);
    }
    let rsdt = writer.add(&bytes(&tables::rsdt(&pointers)))?;
    let xsdt = writer.add(&bytes(&tables::xsdt(&pointers)))?;

    // The EBDA's first byte is its size in KiB.
    let ebda_segment = (EBDA.start >> 4) as u16;
    let ebda_kib = ((EBDA.end - EBDA.start) / 1024) as u8;
    place.write(BDA_EBDA_SEGMENT, &ebda_segment.to_le_bytes())?;
    place.write(EBDA.start, &[ebda_kib])?;
    place.write(BDA_MEMORY_KIB, &((EBDA.start / 1024) as u16).to_le_bytes())?;
    place.write(bios::RSDP, &tables::rsdp(rsdt, xsdt))?;
    Ok(GuestPhysAddr(bios::RSDP))
}

/// The bytes of a table.
fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

/// Writes tables one after the other.
struct TableWriter<'a> {
    place: &'a Placer<'a>,
    next: u64,
}

impl TableWriter<'_> {
    /// Writes a table; gives its address, which is below 4 GiB.
    fn add(&mut self, table: &[u8]) -> Result<u32, LoadError> {
        let at = self.next;
        let end = at + table.len() as u64;
        if end > self.place.layout.acpi_reclaim().end {
            return Err(LoadError::AcpiTooLarge);
        }
        self.place.write(at, table)?;
        self.next = end.next_multiple_of(16);
        Ok(at as u32)
    }
}
