//! What a guest is told of its machine, as the guest's own tools and kernel see it.

use trivium_machine::testing::{self, Outcome, Step, guest_file};
use trivium_machine::{Accel, KernelConfig, RunEnd};

use crate::{ACCELS, Guest, LIMIT, PC, machine};

/// A table that defines nothing but the name TEST.
fn ssdt() -> Vec<u8> {
    let mut table = b"SSDT\0\0\0\0\x02\0TRIVIUTESTTEST\x01\0\0\0TEST\x01\0\0\0".to_vec();
    table.extend(b"\x08TEST\x01");
    table[4] = table.len() as u8;
    table[9] = table.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
    table
}

fn run_tools(accel: Accel) -> Option<Outcome> {
    let mut config = machine(accel, 512, PC);
    config.kernel = Some(KernelConfig {
        image: guest_file("cloud", "vmlinuz")?,
        initrd: Some(guest_file("firmware-tools", "initrd")?),
        command_line: "console=ttyS0 quiet panic=-1".into(),
        ..KernelConfig::default()
    });
    for setting in [
        "manufacturer=ACME,product=Box,serial=1234",
        "uuid=00112233-4455-6677-8899-aabbccddeeff",
        "type=11,value=first,value=second",
    ] {
        config.smbios.extend(setting.parse().expect("it is a setting"));
    }
    config.acpi_tables.push(ssdt());
    let outcome = testing::run(config, [], LIMIT).expect("the machine runs");
    assert_eq!(outcome.end, RunEnd::PowerOff, "{}", outcome.output);
    Some(outcome)
}

/// What is between two of the guest's headings.
fn chapter<'a>(output: &'a str, name: &str) -> &'a str {
    let heading = format!("=== {name}\r\n");
    let (_, rest) = output.split_once(heading.as_str()).expect("the guest prints it");
    rest.split_once("=== ").map_or(rest, |(chapter, _)| chapter)
}

fn check_dmidecode(said: &str) {
    for line in [
        "SMBIOS 3.0.0 present.",
        "Manufacturer: ACME",
        "Product Name: Box",
        "Serial Number: 1234",
        "UUID: 00112233-4455-6677-8899-aabbccddeeff",
        "String 2: second",
        "System is a virtual machine",
        "Maximum Capacity: 512 MB",
        "Range Size: 512 MB",
        "Core Count: 1",
        "Status: No errors detected",
        "End Of Table",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    for complaint in ["BAD INDEX", "OUT OF SPEC", "nvalid", "roken", "wrong", "truncated"] {
        assert!(!said.contains(complaint), "{complaint}\n{said}");
    }
}

/// The tables of acpidump's text: name and content.
fn dumped(said: &str) -> Vec<(String, Vec<u8>)> {
    let mut tables: Vec<(String, Vec<u8>)> = Vec::new();
    for line in said.lines() {
        if let Some((name, _)) = line.split_once(" @ 0x") {
            tables.push((name.trim().into(), Vec::new()));
            continue;
        }
        let Some((_, bytes)) = line.split_once(": ") else { continue };
        let digits = bytes.get(..48).unwrap_or(bytes).split_whitespace();
        let bytes = digits.map_while(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some((_, content)) = tables.last_mut() {
            content.extend(bytes);
        }
    }
    tables
}

fn check_acpidump(said: &str) {
    let tables = dumped(said);
    let mut names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["APIC", "DSDT", "FACP", "FACS", "HPET", "SSDT", "WAET"], "{said}");
    for (name, content) in tables.iter().filter(|(name, _)| name != "FACS") {
        let sum = content.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum, 0, "{name}");
        if name == "SSDT" {
            assert_eq!(content, &ssdt());
        }
    }
}

/// What the kernel says that concerns the firmware and is not well.
fn complaints(messages: &str) -> Vec<&str> {
    const ABOUT: &[&str] = &["ACPI", "acpi", "DMI", "SMBIOS", "e820", "MPTABLE", "pnp", "RSDP"];
    const BAD: &[&str] =
        &["rror", "arning", "BUG", "(bug)", "nvalid", "fail", "ismatch", "not present"];
    /// The i440FX has no memory-mapped configuration space.
    const FINE: &[&str] = &["fail to add MMCONFIG"];
    let has = |line: &str, words: &[&str]| words.iter().any(|word| line.contains(word));
    let lines = messages.lines();
    lines.filter(|line| has(line, ABOUT) && has(line, BAD) && !has(line, FINE)).collect()
}

#[test]
fn dmidecode_and_acpidump_find_whole_tables_and_the_kernel_has_no_complaint() {
    for accel in ACCELS {
        let Some(outcome) = run_tools(*accel) else { return };
        let output = &outcome.output;
        check_dmidecode(chapter(output, "DMIDECODE"));
        check_dmidecode(chapter(output, "DMIDECODE-MEM"));
        check_acpidump(chapter(output, "ACPIDUMP"));
        let messages = chapter(output, "DMESG");
        assert_eq!(complaints(messages), Vec::<&str>::new());
        assert!(messages.contains("DMI: ACME Box"), "{messages}");
        assert!(messages.contains("2 ACPI AML tables successfully acquired"), "{messages}");
        assert!(chapter(output, "INTERRUPTS").contains("2-edge      timer"), "{output}");
    }
}

#[test]
fn without_acpi_linux_takes_its_interrupts_from_the_mp_table() {
    let guest = Guest {
        kernel: ("linux686pae", "vmlinuz"),
        initrd: Some(("initrd386", "initrd")),
        command_line: "console=ttyS0 panic=-1 quickexit acpi=off lapic=notscdeadline",
        memory_mib: 512,
    };
    for accel in ACCELS {
        let Some(outcome) = guest.run(*accel, &[Step::stop("=== GUEST UP")]) else { return };
        for line in [
            "Intel MultiProcessor Specification v1.4",
            "MPTABLE: Product ID: PC",
            "IOAPIC[0]: apic_id 0",
            "..TIMER: vector=0x30 apic1=0 pin1=2",
        ] {
            assert!(outcome.output.contains(line), "{line}\n{}", outcome.output);
        }
    }
}
