//! Real guests on whole machines.

use trivium_machine::kvm::Report;
use trivium_machine::testing::Step;
use trivium_machine::{Accel, Board, RunEnd};

use crate::{ACCELS, Guest, Hardware};

/// Boots a Linux with our initial RAM disk to power-off.
fn linux(kernel: &'static str, initrd: &'static str, command_line: &'static str) -> Vec<String> {
    linux_on(ACCELS, kernel, initrd, command_line)
}

/// The same on some kinds of CPU.
fn linux_on(
    accels: &[Accel],
    kernel: &'static str,
    initrd: &'static str,
    command_line: &'static str,
) -> Vec<String> {
    let guest = Guest {
        kernel: (kernel, "vmlinuz"),
        initrd: Some((initrd, "initrd")),
        command_line,
        memory_mib: 512,
    };
    let outcomes = accels.iter().filter_map(|accel| guest.run(*accel, &[]));
    outcomes
        .map(|outcome| {
            assert_eq!(outcome.end, RunEnd::PowerOff, "{}", outcome.output);
            assert!(outcome.output.contains("=== GUEST UP"), "{}", outcome.output);
            outcome.output
        })
        .collect()
}

/// All kinds of CPU, and KVM: alone where it runs whole systems, and with the JIT behind it.
fn with_kvm() -> Vec<Accel> {
    let mut accels = ACCELS.to_vec();
    match Report::of_host() {
        Ok(report) if report.is_whole() => accels.extend([Accel::Kvm, Accel::KvmJit]),
        Ok(report) if report.is_good_for_programs() => accels.push(Accel::KvmJit),
        Ok(_) => crate::suite::skip_kvm("/dev/kvm lacks UserFast or UserFaults"),
        Err(error) => crate::suite::skip_kvm(&error.to_string()),
    }
    accels
}

/// The results are those of the same programs on a real processor.
#[test]
fn the_reference_guest_does_its_four_jobs() {
    for output in linux_on(&with_kvm(), "cloud", "initrd", "console=ttyS0 panic=-1") {
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

#[test]
fn a_32_bit_kernel_boots_on_an_isa_board() {
    let guest = Guest {
        kernel: ("linux686", "vmlinuz"),
        initrd: Some(("initrd386", "initrd")),
        command_line: "console=ttyS0 panic=-1 quickexit nolapic noapic",
        memory_mib: 256,
    };
    let isa = Hardware { board: Board::IsaPc, model: "pentium2" };
    for accel in ACCELS {
        let Some(outcome) = guest.run_on(*accel, isa, &[Step::stop("=== GUEST UP")]) else {
            return;
        };
        assert_eq!(outcome.end, RunEnd::Stopped, "{}", outcome.output);
        assert!(!outcome.output.contains("ACPI: RSDP"), "{}", outcome.output);
    }
}

/// The ways in which Linux can be told to keep time and to take interrupts, each with what its log
/// then says.
const CLOCKS_AND_INTERRUPTS: [(&str, &str); 12] = [
    ("noapic", "Skipping IOAPIC probe due to 'noapic' option"),
    ("nolapic", "APIC: switched to apic NOOP"),
    ("clocksource=hpet", "Switched to clocksource hpet"),
    ("clocksource=acpi_pm", "Switched to clocksource acpi_pm"),
    ("clocksource=pit", "Switched to clocksource"),
    ("clocksource=tsc", "Switched to clocksource tsc"),
    ("notsc", "due to boot parameter notsc"),
    ("hpet=disable", "Switched to clocksource"),
    ("nohpet", "Switched to clocksource"),
    ("hpet=disable nolapic", "APIC: switched to apic NOOP"),
    ("hpet=disable notsc noapic", "Switched to clocksource acpi_pm"),
    ("nox2apic lapic=notscdeadline", "Switched to clocksource"),
];

#[test]
fn linux_keeps_time_by_every_clock_and_takes_interrupts_in_every_way() {
    for (options, text) in CLOCKS_AND_INTERRUPTS {
        let command_line = format!("console=ttyS0 panic=-1 quickexit {options}").leak();
        // The kind of CPU makes no difference to clocks.
        for output in linux_on(&[Accel::Interp], "cloud", "initrd", command_line) {
            assert!(output.contains(text), "{options}: {output}");
        }
    }
}

/// Without ACPI there is no way to switch off: the kernel halts.
#[test]
fn linux_runs_without_acpi() {
    for options in ["acpi=off", "acpi=off nolapic"] {
        let guest = Guest {
            kernel: ("cloud", "vmlinuz"),
            initrd: Some(("initrd", "initrd")),
            command_line: format!("console=ttyS0 panic=-1 quickexit {options}").leak(),
            memory_mib: 512,
        };
        for accel in ACCELS {
            let Some(outcome) = guest.run(*accel, &[Step::stop("reboot: System halted")]) else {
                return;
            };
            assert_eq!(outcome.end, RunEnd::Stopped, "{}", outcome.output);
            assert!(outcome.output.contains("=== GUEST UP"), "{}", outcome.output);
        }
    }
}

/// Runs a guest that follows a script until that stops it.
fn follows(guest: &Guest, script: &[Step]) {
    for accel in ACCELS {
        let Some(outcome) = guest.run(*accel, script) else { return };
        assert_eq!(outcome.end, RunEnd::Stopped, "{}", outcome.output);
    }
}

/// Debian's installer, by keyboard through its dialogs up to the network card that is not there.
fn install(guest: &'static str) {
    let guest = Guest {
        kernel: (guest, "linux"),
        initrd: Some((guest, "initrd.gz")),
        command_line: "console=ttyS0 TERM=vt102",
        memory_mib: 1024,
    };
    let script = [
        Step::reply("Choose the language", "\r"),
        Step::reply("Country, territory or area", "\r"),
        Step::reply("Keymap to use", "\r"),
        Step::stop("No Ethernet card was detected"),
    ];
    follows(&guest, &script);
}

#[test]
fn debians_64_bit_installer_goes_through_its_first_dialogs() {
    install("installer-amd64");
}

#[test]
fn debians_32_bit_installer_goes_through_its_first_dialogs() {
    install("installer-i386");
}

/// Until the first test that takes minutes by design: bit fade, number 10.
#[test]
fn memtest86_finds_no_error_in_its_first_nine_tests() {
    let guest = Guest {
        kernel: ("memtest86+", "memtest86+x64.bin"),
        initrd: None,
        command_line: "console=ttyS0,115200",
        memory_mib: 16,
    };
    for accel in ACCELS {
        let Some(outcome) = guest.run(*accel, &[Step::stop("Bit fade test")]) else { return };
        assert_eq!(outcome.end, RunEnd::Stopped, "{}", outcome.output);
        // The heading of the table of errors.
        assert!(!outcome.output.contains("Failing Address"), "{}", outcome.output);
    }
}

#[test]
fn memtest86_shows_its_banner_in_32_bits() {
    let guest = Guest {
        kernel: ("memtest86+", "memtest86+ia32.bin"),
        initrd: None,
        command_line: "console=ttyS0,115200",
        memory_mib: 32,
    };
    follows(&guest, &[Step::stop("Memtest86+")]);
}
