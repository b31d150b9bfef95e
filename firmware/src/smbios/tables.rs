//! The structures of the SMBIOS table: field offsets by clause 7 of the SMBIOS specification 3.0.

use super::structure::Structure;
use super::{SmbiosConfig, SmbiosSettings};
use crate::MemoryLayout;
use crate::layout::{BIOS_SEGMENT, HIGH_RAM_START, MIB};

/// The day that stands for this version of the firmware.
const BIOS_DATE: &str = "11/21/2026";
const MANUFACTURER: &str = "Trivium";

/// Handles, by custom the type in the upper byte; types 16 and up follow at 1000h.
mod handle {
    pub const BIOS: u16 = 0x0000;
    pub const SYSTEM: u16 = 0x0100;
    pub const BASEBOARD: u16 = 0x0200;
    pub const CHASSIS: u16 = 0x0300;
    pub const PROCESSOR: u16 = 0x0400;
    pub const OEM_STRINGS: u16 = 0x0b00;
    pub const MEMORY_ARRAY: u16 = 0x1000;
    pub const MEMORY_DEVICE: u16 = 0x1100;
    pub const MAPPED_ADDRESS: u16 = 0x1300;
    pub const BOOT: u16 = 0x2000;
    pub const END: u16 = 0x7f00;
    /// There is no such structure.
    pub const NONE: u16 = 0xffff;
    /// Nothing tells of memory errors.
    pub const NO_ERROR_INFORMATION: u16 = 0xfffe;
}

/// "Other" and "Unknown" in most enumerations.
const OTHER: u8 = 1;
const UNKNOWN: u8 = 2;

/// All structures in order.
pub(super) fn all(config: &SmbiosConfig<'_>, layout: &MemoryLayout) -> Vec<Vec<u8>> {
    let settings = config.settings;
    let mut all = vec![
        bios(config),
        system(config),
        baseboard(config),
        chassis(config),
        processor(config),
        oem_strings(settings),
    ];
    all.extend(memory(layout, settings));
    all.push(boot());
    all.push(Structure::new(127, 4, handle::END).finish());
    all.retain(|structure| !structure.is_empty());
    all
}

/// What the user has set, or else the default.
struct Text<'a> {
    settings: &'a SmbiosSettings,
    kind: u8,
}

impl<'a> Text<'a> {
    fn or(&self, name: &str, default: &'a str) -> &'a str {
        self.settings.get(self.kind, name).unwrap_or(default)
    }
}

/// BIOS Information (7.1).
fn bios(config: &SmbiosConfig<'_>) -> Vec<u8> {
    const CHARACTERISTICS_ISA: u64 = 1 << 4;
    const CHARACTERISTICS_PCI: u64 = 1 << 7;
    const EXTENSION_1_ACPI: u8 = 1 << 0;
    const EXTENSION_2_UEFI: u8 = 1 << 3;
    const EXTENSION_2_VIRTUAL_MACHINE: u8 = 1 << 4;
    /// There is no embedded controller.
    const NO_RELEASE: u8 = 0xff;
    let text = Text { settings: config.settings, kind: 0 };
    let pci = if config.pci { CHARACTERISTICS_PCI } else { 0 };
    let acpi = if config.acpi { EXTENSION_1_ACPI } else { 0 };
    let uefi = if text.or("uefi", "off") == "on" { EXTENSION_2_UEFI } else { 0 };
    let version = version_numbers(config.version);
    Structure::new(0, 0x18, handle::BIOS)
        .string(0x04, text.or("vendor", MANUFACTURER))
        .string(0x05, text.or("version", config.version))
        .word(0x06, (BIOS_SEGMENT.start >> 4) as u16)
        .string(0x08, text.or("date", BIOS_DATE))
        // 64 KiB.
        .byte(0x09, 0)
        .put(0x0a, &(CHARACTERISTICS_ISA | pci).to_le_bytes())
        .put(0x12, &[acpi, EXTENSION_2_VIRTUAL_MACHINE | uefi])
        .put(0x14, &config.settings.release().unwrap_or(version))
        .put(0x16, &[NO_RELEASE; 2])
        .finish()
}

/// The first two numbers of a version.
fn version_numbers(version: &str) -> [u8; 2] {
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)]
}

/// System Information (7.2).
fn system(config: &SmbiosConfig<'_>) -> Vec<u8> {
    const WAKE_UP_POWER_SWITCH: u8 = 6;
    let text = Text { settings: config.settings, kind: 1 };
    Structure::new(1, 0x1b, handle::SYSTEM)
        .string(0x04, text.or("manufacturer", MANUFACTURER))
        .string(0x05, text.or("product", config.product))
        .string(0x06, text.or("version", config.version))
        .string(0x07, text.or("serial", ""))
        // All 0: there is none.
        .put(0x08, &config.settings.uuid().unwrap_or([0; 16]))
        .byte(0x18, WAKE_UP_POWER_SWITCH)
        .string(0x19, text.or("sku", ""))
        .string(0x1a, text.or("family", ""))
        .finish()
}

/// Baseboard Information (7.3).
fn baseboard(config: &SmbiosConfig<'_>) -> Vec<u8> {
    const HOSTING_BOARD: u8 = 1 << 0;
    const MOTHERBOARD: u8 = 0x0a;
    let text = Text { settings: config.settings, kind: 2 };
    Structure::new(2, 0x0f, handle::BASEBOARD)
        .string(0x04, text.or("manufacturer", MANUFACTURER))
        .string(0x05, text.or("product", config.product))
        .string(0x06, text.or("version", config.version))
        .string(0x07, text.or("serial", ""))
        .string(0x08, text.or("asset", ""))
        .byte(0x09, HOSTING_BOARD)
        .string(0x0a, text.or("location", ""))
        .word(0x0b, handle::CHASSIS)
        .byte(0x0d, MOTHERBOARD)
        .finish()
}

/// System Enclosure or Chassis (7.4).
fn chassis(config: &SmbiosConfig<'_>) -> Vec<u8> {
    /// Boot-up, power supply and thermal state.
    const SAFE: u8 = 3;
    let text = Text { settings: config.settings, kind: 3 };
    Structure::new(3, 0x16, handle::CHASSIS)
        .string(0x04, text.or("manufacturer", MANUFACTURER))
        .byte(0x05, OTHER)
        .string(0x06, text.or("version", config.version))
        .string(0x07, text.or("serial", ""))
        .string(0x08, text.or("asset", ""))
        .put(0x09, &[SAFE, SAFE, SAFE, UNKNOWN])
        .string(0x15, text.or("sku", ""))
        .finish()
}

/// Processor Information (7.5). All processors are cores of one package, as CPUID has it.
fn processor(config: &SmbiosConfig<'_>) -> Vec<u8> {
    const CENTRAL_PROCESSOR: u8 = 3;
    /// Populated and enabled.
    const STATUS: u8 = 0x41;
    const CHARACTERISTIC_64_BIT: u16 = 1 << 2;
    const CHARACTERISTIC_MULTI_CORE: u16 = 1 << 3;
    let (settings, cpu) = (config.settings, &config.cpu);
    let text = Text { settings, kind: 4 };
    let cores = u16::try_from(config.processors).unwrap_or(u16::MAX);
    // More than 255 are told by the wider fields alone.
    let short_cores = u8::try_from(cores).unwrap_or(u8::MAX);
    let long = if cpu.long_mode { CHARACTERISTIC_64_BIT } else { 0 };
    let multi_core = if cores > 1 { CHARACTERISTIC_MULTI_CORE } else { 0 };
    let id = settings.number(4, "processor-id").unwrap_or(cpu.id);
    Structure::new(4, 0x30, handle::PROCESSOR)
        .string(0x04, &format!("{} 0", text.or("sock_pfx", "CPU")))
        .byte(0x05, CENTRAL_PROCESSOR)
        .byte(0x06, OTHER)
        .string(0x07, text.or("manufacturer", cpu.vendor))
        .put(0x08, &id.to_le_bytes())
        .string(0x10, text.or("version", cpu.name))
        .word(0x14, settings.number(4, "max-speed").unwrap_or(0))
        .word(0x16, settings.number(4, "current-speed").unwrap_or(0))
        .put(0x18, &[STATUS, OTHER])
        .word(0x1a, handle::NONE)
        .word(0x1c, handle::NONE)
        .word(0x1e, handle::NONE)
        .string(0x20, text.or("serial", ""))
        .string(0x21, text.or("asset", ""))
        .string(0x22, text.or("part", ""))
        .put(0x23, &[short_cores; 3])
        .word(0x26, long | multi_core)
        .word(0x28, OTHER.into())
        .word(0x2a, cores)
        .word(0x2c, cores)
        .word(0x2e, cores)
        .finish()
}

/// OEM Strings (7.12); nothing if there are none.
fn oem_strings(settings: &SmbiosSettings) -> Vec<u8> {
    let mut structure = Structure::new(11, 5, handle::OEM_STRINGS);
    let mut count = 0_u8;
    for text in settings.oem_strings().filter(|text| !text.is_empty()).take(u8::MAX.into()) {
        count = count.saturating_add(1);
        // Each sets the count, which is the last one's number.
        structure = structure.string(4, text);
    }
    if count == 0 { Vec::new() } else { structure.finish() }
}

/// The size of a memory module: all RAM is in as few of them as there can be.
const MODULE: u64 = 16 << 30;

/// Physical Memory Array, Memory Devices and Memory Array Mapped Addresses (7.17, 7.18, 7.20).
fn memory(layout: &MemoryLayout, settings: &SmbiosSettings) -> Vec<Vec<u8>> {
    let ram = layout.ram_size();
    let modules = ram.div_ceil(MODULE).clamp(1, 0xff) as u16;
    let mut all = vec![memory_array(ram, modules)];
    for index in 0..modules {
        let size = ram.saturating_sub(u64::from(index) * MODULE).min(MODULE);
        all.push(memory_device(index, size, settings));
    }
    let ranges = [0..layout.low_ram_end(), HIGH_RAM_START..layout.high_ram().end];
    for (index, range) in (0..).zip(ranges.into_iter().filter(|range| !range.is_empty())) {
        all.push(mapped_address(index, &range, modules));
    }
    all
}

fn memory_array(ram: u64, modules: u16) -> Vec<u8> {
    const USE_SYSTEM_MEMORY: u8 = 3;
    const ECC_NONE: u8 = 3;
    /// The capacity is in the wider field.
    const EXTENDED: u32 = 0x8000_0000;
    let kib = u32::try_from(ram / 1024).ok().filter(|kib| *kib < EXTENDED);
    let wide = if kib.is_some() { 0 } else { ram };
    Structure::new(16, 0x17, handle::MEMORY_ARRAY)
        .put(0x04, &[OTHER, USE_SYSTEM_MEMORY, ECC_NONE])
        .put(0x07, &kib.unwrap_or(EXTENDED).to_le_bytes())
        .word(0x0b, handle::NO_ERROR_INFORMATION)
        .word(0x0d, modules)
        .put(0x0f, &wide.to_le_bytes())
        .finish()
}

fn memory_device(index: u16, size: u64, settings: &SmbiosSettings) -> Vec<u8> {
    const UNKNOWN_WIDTH: u16 = 0xffff;
    const FORM_FACTOR_DIMM: u8 = 9;
    const TYPE_RAM: u8 = 7;
    const DETAIL_OTHER: u16 = 1 << 1;
    let text = Text { settings, kind: 17 };
    let speed = settings.number(17, "speed").unwrap_or(0);
    Structure::new(17, 0x28, handle::MEMORY_DEVICE.saturating_add(index))
        .word(0x04, handle::MEMORY_ARRAY)
        .word(0x06, handle::NO_ERROR_INFORMATION)
        .word(0x08, UNKNOWN_WIDTH)
        .word(0x0a, UNKNOWN_WIDTH)
        // In MiB; a module has at most 16 GiB.
        .word(0x0c, (size / MIB) as u16)
        .byte(0x0e, FORM_FACTOR_DIMM)
        .string(0x10, &format!("{} {index}", text.or("loc_pfx", "DIMM")))
        .string(0x11, text.or("bank", ""))
        .byte(0x12, TYPE_RAM)
        .word(0x13, DETAIL_OTHER)
        .word(0x15, speed)
        .string(0x17, text.or("manufacturer", MANUFACTURER))
        .string(0x18, text.or("serial", ""))
        .string(0x19, text.or("asset", ""))
        .string(0x1a, text.or("part", ""))
        .word(0x20, speed)
        .finish()
}

fn mapped_address(index: u16, range: &std::ops::Range<u64>, modules: u16) -> Vec<u8> {
    /// The addresses, which are in KiB and inclusive, are in the wider fields, in bytes.
    const EXTENDED: u32 = 0xffff_ffff;
    let last = range.end - 1;
    let short = u32::try_from(last / 1024).ok().filter(|kib| *kib != EXTENDED);
    let structure = Structure::new(19, 0x1f, handle::MAPPED_ADDRESS.saturating_add(index))
        .word(0x0c, handle::MEMORY_ARRAY)
        .byte(0x0e, modules as u8);
    let structure = match short {
        Some(end_kib) => structure
            .put(0x04, &((range.start / 1024) as u32).to_le_bytes())
            .put(0x08, &end_kib.to_le_bytes()),
        None => structure
            .put(0x04, &EXTENDED.to_le_bytes())
            .put(0x08, &EXTENDED.to_le_bytes())
            .put(0x0f, &range.start.to_le_bytes())
            .put(0x17, &last.to_le_bytes()),
    };
    structure.finish()
}

/// System Boot Information (7.33): no errors were detected.
fn boot() -> Vec<u8> {
    Structure::new(32, 0x0b, handle::BOOT).finish()
}
