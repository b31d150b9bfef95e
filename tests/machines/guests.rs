//! Real guests on whole machines.

use trivium_machine::RunEnd;
use trivium_machine::testing::Step;

use crate::{ACCELS, Guest};

/// Boots a Linux with our initial RAM disk to power-off.
fn linux(kernel: &'static str, initrd: &'static str, command_line: &'static str) -> Vec<String> {
    let guest = Guest {
        kernel: (kernel, "vmlinuz"),
        initrd: Some((initrd, "initrd")),
        command_line,
        memory_mib: 512,
    };
    let outcomes = ACCELS.iter().filter_map(|accel| guest.run(*accel, &[]));
    outcomes
        .map(|outcome| {
            assert_eq!(outcome.end, RunEnd::PowerOff, "{}", outcome.output);
            assert!(outcome.output.contains("=== GUEST UP"), "{}", outcome.output);
            outcome.output
        })
        .collect()
}

/// The results are those of the same programs on a real processor.
#[test]
fn the_reference_guest_does_its_four_jobs() {
    for output in linux("cloud", "initrd", "console=ttyS0 panic=-1") {
        let sha256 = "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351";
        let jobs = [("loop", "200000"), ("sha256", sha256), ("gzip", "16303"), ("fork", "200")];
        for (job, result) in jobs {
            let prefix = format!("=== JOB {job} ");
            let line = output.lines().find(|line| line.starts_with(&prefix));
            assert!(line.is_some_and(|l| l.trim_end().ends_with(result)), "{job}: {line:?}");
        }
        assert!(output.contains("=== DONE"), "{output}");
    }
}

#[test]
fn a_32_bit_kernel_without_pae_boots() {
    for output in linux("linux686", "initrd386", "console=ttyS0 panic=-1 quickexit") {
        assert!(output.contains("i686"), "{output}");
    }
}

#[test]
fn a_32_bit_kernel_with_pae_boots() {
    for output in linux("linux686pae", "initrd386", "console=ttyS0 panic=-1 quickexit") {
        assert!(output.contains("i686"), "{output}");
    }
}

/// Runs a guest until it has written `text`.
fn shows(guest: &Guest, text: &str) {
    for accel in ACCELS {
        let Some(outcome) = guest.run(*accel, &[Step::stop(text)]) else { return };
        assert_eq!(outcome.end, RunEnd::Stopped, "{}", outcome.output);
        assert!(outcome.output.contains(text), "{}", outcome.output);
    }
}

#[test]
fn debians_installer_asks_for_the_language() {
    let guest = Guest {
        kernel: ("installer-amd64", "linux"),
        initrd: Some(("installer-amd64", "initrd.gz")),
        command_line: "console=ttyS0 TERM=vt102",
        memory_mib: 1024,
    };
    shows(&guest, "Choose the language");
}

#[test]
fn memtest86_shows_its_banner_in_both_sizes() {
    for file in ["memtest86+x64.bin", "memtest86+ia32.bin"] {
        let guest = Guest {
            kernel: ("memtest86+", file),
            initrd: None,
            command_line: "console=ttyS0,115200",
            memory_mib: 32,
        };
        shows(&guest, "Memtest86+");
    }
}
