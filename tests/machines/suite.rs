//! The self-tests of `test-roms/suite` on every kind of CPU and every model.

use trivium_cpu::model::MODELS;
use trivium_devices::parallel::ParallelBackend;
use trivium_devices::ports::DebugConsoleBackend;
use trivium_machine::kvm::{BEHAVIOURS, Report};
use trivium_machine::testing;
use trivium_machine::{Accel, Board, ClockMode, RunEnd};

use crate::{ACCELS, Hardware, LIMIT, PC, machine};

/// What `isa-debug-exit` ends the run with after the guest has written 0.
const PASSED: u32 = 1;

/// What a report says that is not well: failed checks with their diagnostics, or a plan that does
/// not match.
fn complaints(report: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let (mut checks, mut plan) = (0, None);
    for line in report.lines() {
        if line.starts_with("not ok ") || line.starts_with("Bail out!") {
            complaints.push(line.to_owned());
        }
        if line.starts_with("not ok ") || line.starts_with("ok ") {
            checks += 1;
        }
        if let Some(count) = line.strip_prefix("1..") {
            plan = count.trim().parse::<u32>().ok();
        }
    }
    if plan != Some(checks) {
        complaints.push(format!("{checks} checks, plan {plan:?}"));
    }
    complaints
}

/// Who reads what the guest prints, or tells its host.
struct Nobody;

impl ParallelBackend for Nobody {
    fn print(&mut self, _: u8) {}
}

impl DebugConsoleBackend for Nobody {
    fn write(&mut self, _: u8) {}
}

fn passes(accel: Accel, clock: ClockMode, hardware: Hardware, name: &str) {
    let (_, image) = trivium_test_roms::SUITE.iter().find(|(n, _)| *n == name).expect("a ROM");
    let Hardware { board, model } = hardware;
    let mut config = machine(accel, 16, hardware);
    config.clock = clock;
    config.firmware = Some(image.to_vec());
    config.debug_exit_port = Some(0x501);
    config.debug_console = Some(Box::new(Nobody));
    config.parallel = Some(Box::new(Nobody));
    let outcome = testing::run(config, [], LIMIT).expect("the machine runs");
    let failed = complaints(&outcome.output);
    assert!(
        failed.is_empty() && outcome.end == RunEnd::DebugExit(PASSED),
        "{name} on {model}, {board:?}, {clock:?}: {:?}\n{}\n{}",
        outcome.end,
        failed.join("\n"),
        outcome.output
    );
}

/// The models that the JIT runs: the oldest, the last of 32 bits, and the one with everything.
const TRANSLATED: [&str; 3] = ["486", "pentium3", "max"];

/// A chapter about the processor.
fn cpu(name: &str) {
    for accel in ACCELS {
        let is_run = |model: &str| *accel == Accel::Interp || TRANSLATED.contains(&model);
        for model in MODELS.iter().filter(|model| is_run(model.name)) {
            passes(*accel, ClockMode::Real, Hardware { model: model.name, ..PC }, name);
        }
    }
}

/// The boards and processors for chips, which depend on the processor only by its local APIC: there
/// is none, an old one, and one with all modes.
const CHIPS_ON: [Hardware; 4] = [
    Hardware { board: Board::Pc, model: "486" },
    Hardware { board: Board::Pc, model: "pentium3" },
    PC,
    Hardware { board: Board::IsaPc, model: "486" },
];

/// A chapter about a chip. Time matters: it comes from the instructions, and in one run from the host.
fn chip(name: &str) {
    for accel in ACCELS {
        // Chips do not know what kind of CPU they serve, but for the time that passes.
        let hardware = if *accel == Accel::Interp { &CHIPS_ON[..] } else { &[PC] };
        for hardware in hardware {
            passes(*accel, ClockMode::Icount { sleep: false }, *hardware, name);
        }
        passes(*accel, ClockMode::Real, PC, name);
    }
}

macro_rules! chapters {
    (cpu: [$($cpu:ident),* $(,)?], chip: [$($chip:ident),* $(,)?]) => {
        $(#[test]
        fn $cpu() {
            cpu(stringify!($cpu));
        })*

        $(#[test]
        fn $chip() {
            chip(stringify!($chip));
        })*

        #[test]
        fn every_chapter_is_here() {
            let names: Vec<_> = trivium_test_roms::SUITE.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($cpu)),*, $(stringify!($chip)),*]);
        }
    };
}

chapters![
    cpu: [
        segmentation,
        protection,
        paging,
        interrupts,
        tasks,
        syscalls,
        v86,
        registers,
        debug,
        x87,
        sse,
        smm,
        virtualization,
    ],
    chip: [pic, pit, lapic, ioapic, hpet, rtc, uart, ports, ps2, dma, fwcfg, pci, acpi]
];

/// On KVM alone where the host's runs whole systems; with the JIT behind it on every host.
#[test]
fn chapters_on_kvm_as_far_as_its_probes_allow() {
    let report = match Report::of_host() {
        Ok(report) => report,
        Err(error) => return skip_kvm(&error.to_string()),
    };
    let lacking = BEHAVIOURS.iter().filter(|info| !report.has(info.behaviour));
    let lacking: Vec<_> = lacking.map(|info| info.name).collect();
    assert!(lacking.is_empty() || !required(), "/dev/kvm lacks {}", lacking.join(", "));
    for (name, _) in trivium_test_roms::SUITE {
        match report.is_whole() {
            true => passes(Accel::Kvm, ClockMode::Real, PC, name),
            false => println!("SKIP {name} on KVM alone: /dev/kvm lacks {}", lacking.join(", ")),
        }
        if report.is_good_for_programs() {
            passes(Accel::KvmJit, ClockMode::Real, PC, name);
        }
    }
}

/// Says why something is not done on KVM; a failure where all must be.
pub fn skip_kvm(why: &str) {
    assert!(!required(), "KVM_REQUIRE=hw: {why}");
    println!("SKIP: {why}");
}

/// Whether what KVM lacks is a failure.
fn required() -> bool {
    std::env::var_os("KVM_REQUIRE").is_some_and(|value| value == "hw")
}
