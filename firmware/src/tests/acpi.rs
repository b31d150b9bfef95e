//! The ACPI tables in memory, found as a guest finds them.

use super::Machine;
use crate::LoadError;
use crate::acpi::{AcpiConfig, build};

const CONFIG: AcpiConfig<'_> = AcpiConfig {
    apic_ids: &[0, 1],
    hpet: true,
    com_ports: [true, false, false, false],
    parallel: true,
    mouse: false,
    pm_timer_32: false,
    vga: false,
    extra: &[],
};

/// Checks the table at an address; gives its signature and content.
fn table(machine: &Machine, at: u64) -> (String, Vec<u8>) {
    let mut bytes = vec![0; machine.u32(at + 4) as usize];
    machine.memory.read(trivium_memory::GuestPhysAddr(at), &mut bytes).unwrap();
    let signature = String::from_utf8(bytes[..4].to_vec()).unwrap();
    if signature != "FACS" {
        assert_eq!(bytes.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0, "{signature}");
    }
    (signature, bytes)
}

#[test]
fn the_rsdp_is_in_the_bios_segment_and_leads_to_all_tables() {
    let machine = Machine::new(64);
    let rsdp = build(&machine.memory, &machine.layout, &CONFIG).unwrap().0;
    assert!(rsdp.is_multiple_of(16) && (0xe_0000..0x10_0000).contains(&rsdp));
    assert_eq!(machine.read(0x40e), 0x9fc0_u16.to_le_bytes(), "segment of the EBDA");
    assert_eq!(machine.read(0x413), 639_u16.to_le_bytes(), "KiB of memory below it");
    assert_eq!(machine.read(rsdp), *b"RSD PTR ");
    let rsdt = u64::from(machine.u32(rsdp + 16));
    let xsdt = machine.u64(rsdp + 24);
    let (_, pointers) = table(&machine, xsdt);
    assert_eq!(table(&machine, rsdt).1.len() - 36, (pointers.len() - 36) / 2);

    let mut found = Vec::new();
    for pointer in pointers[36..].chunks_exact(8) {
        let (signature, _) = table(&machine, u64::from_le_bytes(pointer.try_into().unwrap()));
        found.push(signature);
    }
    assert_eq!(found, ["FACP", "APIC", "WAET", "HPET"]);
    let fadt = machine.u64(xsdt + 36);
    assert_eq!(table(&machine, machine.u32(fadt + 36).into()).0, "FACS");
    assert_eq!(table(&machine, machine.u32(fadt + 40).into()).0, "DSDT");
    assert!(machine.layout.acpi_nvs().contains(&machine.u32(fadt + 36).into()));
    assert!(machine.layout.acpi_reclaim().contains(&xsdt));
}

#[test]
fn hundreds_of_processors_fit_and_too_many_are_refused() {
    let machine = Machine::new(64);
    let ids: Vec<u32> = (0..10_000).collect();
    let build_with = |count: usize| {
        build(&machine.memory, &machine.layout, &AcpiConfig { apic_ids: &ids[..count], ..CONFIG })
    };
    build_with(1024).unwrap();
    assert!(matches!(build_with(10_000), Err(LoadError::AcpiTooLarge)));
}
