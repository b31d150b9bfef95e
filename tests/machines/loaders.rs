//! Kernels of other boot protocols than Linux's, and firmware that is given.

use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trivium_machine::testing::{self, Outcome, Step, guest_file};
use trivium_machine::{
    Accel, KernelConfig, Machine, ModuleConfig, RunEnd, TraceCategories, TraceConfig,
};

use crate::{ACCELS, LIMIT, PC, machine};

const MODULES: [(&[u8], &str); 2] =
    [(b"first file", "/first one two"), (b"the second file", "/second")];
const COMMAND_LINE: &str = "some arguments";
/// isa-debug-exit's status after the guest has written 0.
const PASSED: u32 = 1;

fn module(data: &[u8], command_line: &str) -> ModuleConfig {
    ModuleConfig { data: data.to_vec(), command_line: command_line.into() }
}

/// What a Multiboot test kernel says.
fn multiboot(accel: Accel, image: &[u8]) -> String {
    let mut config = machine(accel, 64, PC);
    config.debug_exit_port = Some(0x501);
    config.kernel = Some(KernelConfig {
        image: image.to_vec(),
        name: "/boot/kernel.elf".into(),
        command_line: COMMAND_LINE.into(),
        modules: MODULES.iter().map(|(data, text)| module(data, text)).collect(),
        ..KernelConfig::default()
    });
    let outcome = testing::run(config, [], LIMIT).expect("the machine runs");
    assert_eq!(outcome.end, RunEnd::DebugExit(PASSED), "{}", outcome.output);
    outcome.output
}

/// The lines about modules, which name their sizes, sums and strings.
fn modules(output: &str) -> Vec<&str> {
    output.lines().filter(|line| line.starts_with("module ")).collect()
}

#[test]
fn multiboot_kernels_of_both_versions_are_told_everything() {
    let magics = ["2badb002", "36d76289"];
    for accel in ACCELS {
        for (image, magic) in trivium_test_roms::MULTIBOOT.iter().zip(magics) {
            let output = multiboot(*accel, image);
            for line in [
                &format!("entry magic {magic} protected"),
                "command kernel.elf some arguments",
                "loader Trivium",
                "memory 639 64384",
                "sections 8 names .header .text .rodata .bss .symtab .strtab .shstrtab",
                "map 0000000000100000 0000000003ee0000 1",
                "done",
            ] {
                assert!(output.lines().any(|l| l.trim_end() == line), "{line}\n{output}");
            }
            assert_eq!(modules(&output).len(), MODULES.len());
        }
    }
}

#[test]
fn a_multiboot_kernel_is_told_the_same_as_by_qemu() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [image, _] = trivium_test_roms::MULTIBOOT;
    let files: [(&str, &[u8]); 3] =
        [("kernel.elf", image), ("first", MODULES[0].0), ("second", MODULES[1].0)];
    for (name, data) in files {
        std::fs::write(folder.path().join(name), data).expect("it can be written");
    }
    let modules_option = format!("{} one two,{}", path("first"), path("second"));
    let qemu = Command::new("qemu-system-x86_64")
        .args(["-m", "64", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
        .args(["-kernel", &path("kernel.elf"), "-append", COMMAND_LINE])
        .args(["-initrd", &modules_option])
        .output();
    let Ok(qemu) = qemu else {
        println!("SKIP: qemu-system-x86_64 is not installed");
        return;
    };
    let prefix = format!("{}/", folder.path().display());
    let theirs = String::from_utf8_lossy(&qemu.stdout).replace(&prefix, "/");
    for accel in ACCELS {
        let ours = multiboot(*accel, image);
        assert_eq!(modules(&ours), modules(&theirs), "{theirs}");
        let same = ["entry magic", "memory 639", "map 0000000000000000", "map 000000000009fc00"];
        for start in same {
            let find = |output: &str| {
                output.lines().find(|line| line.starts_with(start)).map(str::to_owned)
            };
            assert_eq!(find(&ours), find(&theirs), "{start}\n{theirs}");
        }
    }
}

fn xen(accel: Accel) -> Option<Outcome> {
    let mut config = machine(accel, 512, PC);
    let linux = "linux console=hvc0 earlyprintk=xen panic=-1 quickexit";
    config.kernel = Some(KernelConfig {
        image: guest_file("xen", "xen")?,
        name: "xen".into(),
        command_line: "console=com1 com1=115200,8n1".into(),
        modules: vec![
            // The installer's kernel; the cloud kernel cannot be Xen's first guest.
            module(&guest_file("installer-amd64", "linux")?, linux),
            module(&guest_file("initrd", "initrd")?, "initrd"),
        ],
        ..KernelConfig::default()
    });
    // The first thing that Linux does with the firmware's tables.
    let script = [Step::stop("ACPI: Reserving")];
    Some(testing::run(config, script, LIMIT).expect("the machine runs"))
}

#[test]
fn xen_starts_its_first_guest_which_finds_the_acpi_tables() {
    for accel in ACCELS {
        let Some(outcome) = xen(*accel) else { return };
        let output = &outcome.output;
        assert_eq!(outcome.end, RunEnd::Stopped, "{output}");
        assert!(output.contains("Xen version 4.17"), "{output}");
        assert!(output.contains("Bootloader: Trivium"), "{output}");
        assert!(output.contains("ACPI: RSDP 0x00000000000F0050"), "{output}");
    }
}

#[test]
fn u_boot_starts_as_firmware() {
    for accel in ACCELS {
        for file in ["u-boot.rom", "u-boot64.rom"] {
            let mut config = machine(*accel, 128, PC);
            let Some(image) = guest_file("u-boot", file) else { return };
            config.firmware = Some(image);
            let script = [Step::stop("Hit any key to stop autoboot")];
            let outcome = testing::run(config, script, LIMIT).expect("the machine runs");
            let output = &outcome.output;
            assert_eq!(outcome.end, RunEnd::Stopped, "{output}");
            assert!(output.contains("U-Boot 2023.01"), "{output}");
            assert!(output.contains("Model: QEMU x86 (I440FX)"), "{output}");
        }
    }
}

/// Counts the reads of the keyboard controller's status in a trace.
#[derive(Clone, Default)]
struct KeyboardPolls(Arc<Mutex<(Vec<u8>, usize)>>);

impl KeyboardPolls {
    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl Write for KeyboardPolls {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (line, count) = &mut *state;
        for &byte in bytes {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            *count += usize::from(String::from_utf8_lossy(line).contains("read 0064"));
            line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The game has no serial line; its main loop looks at the keyboard between two waits for the
/// timer.
#[test]
fn grub_invaders_reaches_its_main_loop() {
    for accel in ACCELS {
        let Some(image) = guest_file("invaders", "invaders.exec") else { return };
        let mut config = machine(*accel, 32, PC);
        config.kernel = Some(KernelConfig { image, ..KernelConfig::default() });
        let polls = KeyboardPolls::default();
        let sink = Box::new(polls.clone());
        config.trace = Some(TraceConfig { categories: TraceCategories::IO, sink });
        let mut machine = Machine::new(config).expect("it is loaded");
        let limit = Duration::from_secs(2);
        let (end, _) = testing::run_limited(&mut machine, limit).expect("the machine runs");
        assert_eq!(end, RunEnd::Stopped);
        assert!(polls.count() > 100, "{} looks at the keyboard", polls.count());
    }
}
