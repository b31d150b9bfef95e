//! Has ACPICA's compiler read the tables: `iasl -d` takes them apart, and takes the DSDT's source
//! again without a complaint.

use std::path::Path;
use std::process::Command;

use super::{AcpiConfig, bytes, dsdt, tables};

/// Runs iasl on a file; gives what it says.
fn iasl(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("iasl").args(arguments).current_dir(dir).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "iasl {arguments:?}:\n{text}");
    text
}

fn check(config: &AcpiConfig<'_>) {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        ("dsdt", dsdt::dsdt(config)),
        ("facp", bytes(&tables::fadt(config, 0x1000, 0x2000))),
        ("facs", bytes(&acpi_tables::facs::FACS::new())),
        ("apic", bytes(&tables::madt(config))),
        ("hpet", bytes(&tables::hpet())),
        ("waet", bytes(&tables::waet())),
        ("rsdt", bytes(&tables::rsdt(&[0x1000, 0x2000]))),
        ("xsdt", bytes(&tables::xsdt(&[0x1000, 0x2000]))),
    ];
    for (name, table) in &all {
        let file = format!("{name}.aml");
        std::fs::write(dir.path().join(&file), table).unwrap();
        let said = iasl(dir.path(), &["-d", &file]);
        for complaint in ["Error", "Warning", "Invalid", "ncorrect", "nknown", "truncated"] {
            assert!(!said.contains(complaint), "{name}: {said}");
        }
        let source = std::fs::read_to_string(dir.path().join(format!("{name}.dsl"))).unwrap();
        for complaint in ["Invalid", "ncorrect", "Unknown", "**** "] {
            assert!(!source.contains(complaint), "{name}: {source}");
        }
        let said = iasl(dir.path(), &["-p", "again", &format!("{name}.dsl")]);
        assert!(said.contains("0 Errors, 0 Warnings, 0 Remarks"), "{name}: {said}");
    }
}

/// Has ACPICA's interpreter load the DSDT and run its methods.
fn execute(config: &AcpiConfig<'_>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("dsdt.aml"), dsdt::dsdt(config)).unwrap();
    for (method, gives) in [
        ("\\_PIC 1", ""),
        ("\\_S5", "Package"),
        ("\\_SB.LNKA._STA", "Integer"),
        ("\\_SB.LNKA._CRS", "Buffer"),
        ("\\_SB.LNKA._DIS", ""),
        ("\\_SB.LNKS._CRS", "Buffer"),
        ("\\_SB.PCI0._CRS", "Buffer"),
        ("\\_SB.PCI0.ISA.MBRD._CRS", "Buffer"),
    ] {
        let output = Command::new("acpiexec")
            .args(["-b", &format!("execute {method}"), "dsdt.aml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("1 ACPI AML tables successfully acquired"), "{method}: {said}");
        assert!(!said.contains("Error") && !said.contains("Warning"), "{method}: {said}");
        assert!(said.contains(gives), "{method}: {said}");
    }
}

#[test]
fn iasl_finds_nothing_wrong() {
    if Command::new("iasl").arg("-v").output().is_err() {
        let required = std::env::var_os("TRIVIUM_REQUIRE_GUESTS").is_some_and(|value| value == "1");
        assert!(!required, "iasl is not installed; it is in Debian's acpica-tools");
        println!("SKIP: iasl not installed");
        return;
    }
    let everything = AcpiConfig {
        apic_ids: &[0, 1, 2, 3, 300],
        hpet: true,
        com_ports: [true; 4],
        parallel: true,
        mouse: true,
        pm_timer_32: true,
        vga: true,
        extra: &[],
    };
    let least = AcpiConfig {
        apic_ids: &[0],
        hpet: false,
        com_ports: [false; 4],
        parallel: false,
        mouse: false,
        pm_timer_32: false,
        vga: false,
        extra: &[],
    };
    check(&everything);
    check(&least);
    execute(&everything);
}
