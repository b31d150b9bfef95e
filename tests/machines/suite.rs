//! The self-tests of `test-roms/suite` on every kind of CPU and every model.

use trivium_cpu::CpuModel;
use trivium_cpu::model::MODELS;
use trivium_machine::testing;
use trivium_machine::{Accel, ClockMode, RunEnd};

use crate::{ACCELS, LIMIT, machine};

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

fn passes(accel: Accel, clock: ClockMode, model: &CpuModel, name: &str) {
    let (_, image) = trivium_test_roms::SUITE.iter().find(|(n, _)| *n == name).expect("a ROM");
    let mut config = machine(accel, 16, crate::PC);
    config.model = *model;
    config.clock = clock;
    config.firmware = Some(image.to_vec());
    config.debug_exit_port = Some(0x501);
    let outcome = testing::run(config, [], LIMIT).expect("the machine runs");
    let failed = complaints(&outcome.output);
    assert!(
        failed.is_empty() && outcome.end == RunEnd::DebugExit(PASSED),
        "{name} on {}, {clock:?}: {:?}\n{}\n{}",
        model.name,
        outcome.end,
        failed.join("\n"),
        outcome.output
    );
}

/// A chapter about the processor.
fn cpu(name: &str) {
    for accel in ACCELS {
        for model in MODELS {
            passes(*accel, ClockMode::Real, model, name);
        }
    }
}

/// A chapter about a chip, which does not depend on the processor but for the local APIC. Time
/// matters, so it comes from the instructions, and in one run from the host.
fn chip(name: &str) {
    let model = |name| CpuModel::by_name(name).expect("the model is there");
    for accel in ACCELS {
        for without_apic_old_and_new in ["486", "pentium3", "max"] {
            let clock = ClockMode::Icount { sleep: false };
            passes(*accel, clock, &model(without_apic_old_and_new), name);
        }
        passes(*accel, ClockMode::Real, &model("max"), name);
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
    ],
    chip: [pic, pit, lapic, ioapic, hpet]
];
