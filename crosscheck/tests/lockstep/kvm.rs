//! This host's processor, under KVM, beside the interpreter and the JIT.

use std::sync::Arc;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_crosscheck::lockstep::{self, Found, Pair, Side, Sync, Verdict, Wish};
use trivium_interp::planted;
use trivium_machine::kvm::{Report, Sample, Stepper};
use trivium_machine::testing::guest_file;
use trivium_machine::{Accel, ClockMode, KernelConfig, KvmOptions, Machine, MachineConfig};

use crate::duels::on_large_stack;

/// Whether this host's KVM can be compared with; a line says why not, which is a failure where
/// all must be.
fn has_kvm() -> bool {
    let missing = match Report::of_host() {
        Ok(report) => {
            report.lacks(&Stepper::NEEDED).map(|info| format!("/dev/kvm lacks {}", info.name))
        }
        Err(error) => Some(error.to_string()),
    };
    let Some(why) = missing else { return true };
    let required = std::env::var_os("KVM_REQUIRE").is_some_and(|value| value == "hw");
    assert!(!required, "KVM_REQUIRE=hw: {why}");
    println!("SKIP: {why}");
    false
}

/// A machine beside KVM.
fn side(accel: Accel, sample: Sample, change: impl FnOnce(&mut MachineConfig)) -> Side {
    let mut config = MachineConfig::new(CpuModel::by_name("max").unwrap(), 16 << 20);
    config.debug_exit_port = Some(0x501);
    config.clock = ClockMode::Icount { sleep: false };
    config.no_reboot = true;
    config.accel = accel;
    config.kvm = KvmOptions { counted: Some(sample), ..KvmOptions::default() };
    change(&mut config);
    let blocks = Arc::clone(&config.blocks);
    let machine = Machine::new(config).unwrap();
    Side { name: format!("{accel:?}"), machine, blocks, around: None }
}

fn variety(accel: Accel) -> Side {
    let image = trivium_test_roms::VARIETY.to_vec();
    side(accel, Sample::ALL, |config| config.firmware = Some(image))
}

/// Runs two machines so many nanoseconds; what is found if they differ.
fn run(sides: [Side; 2], sync: u64, nanos: u64) -> Option<Found> {
    let mut pair = Pair::new(sides).unwrap();
    let far = VmTime::from_nanos(nanos);
    let verdict = lockstep::run(&mut pair, Sync::Every(sync), |progress| {
        if progress.now >= far { Wish::Stop } else { Wish::GoOn(Vec::new()) }
    });
    match verdict.unwrap() {
        Verdict::Stopped(_) | Verdict::Agreed(..) => None,
        Verdict::Diverged(difference) => Some(lockstep::locate(&mut pair, difference).unwrap()),
    }
}

/// A little of everything, in ring 3 of 64-bit code.
#[test]
fn the_hosts_processor_does_what_the_others_do_in_user_level_code() {
    if !has_kvm() {
        return;
    }
    on_large_stack(|| {
        for other in [Accel::Interp, Accel::Jit] {
            let found = run([variety(other), variety(Accel::Kvm)], 1000, ROUNDS);
            if let Some(found) = found {
                panic!("{}", lockstep::render(&found, ["other", "kvm"]));
            }
        }
    });
}

/// VARIETY's way to ring 3, and its first rounds.
const ROUNDS: u64 = 170_000;

/// Bugs of the interpreter that only the processor knows of: both sides' interpreters have them.
const BUGS: &[&str] = &[
    "ADC leaves out the carry",
    "SAR shifts zeroes in",
    "CMOVE of 32 bits keeps the upper half",
    "XADD leaves the source",
    "PADDSB wraps",
];

thread_local! {
    static BUG: std::cell::Cell<Option<&'static planted::Bug>> = const { std::cell::Cell::new(None) };
}

fn broken(begins: bool) {
    planted::plant(BUG.get().filter(|_| begins));
}

#[test]
fn bugs_of_all_our_processors_are_located_by_the_hosts() {
    if !has_kvm() {
        return;
    }
    on_large_stack(|| {
        for name in BUGS {
            BUG.set(planted::BUGS.iter().find(|bug| bug.name == *name));
            let sides = [Accel::Interp, Accel::Kvm].map(|accel| {
                let around: Option<Box<dyn FnMut(bool)>> = Some(Box::new(broken));
                Side { around, ..variety(accel) }
            });
            let found = run(sides, 2000, ROUNDS).unwrap_or_else(|| panic!("{name}: not found"));
            println!("{name}\n{}", lockstep::render(&found, ["interp", "kvm"]));
            assert!(found.is_small && found.instructions == 1, "{name}: {}", found.instructions);
        }
    });
}

/// The reference guest's programs, a sample of them.
#[test]
fn linux_boots_beside_the_hosts_processor() {
    let image = || Some((guest_file("cloud", "vmlinuz")?, guest_file("initrd", "initrd")?));
    if !has_kvm() || image().is_none() {
        return;
    }
    on_large_stack(move || {
        let sides = [Accel::Interp, Accel::Kvm].map(|accel| {
            side(accel, Sample::default(), |config| {
                let (image, initrd) = image().unwrap();
                config.memory_size = 512 << 20;
                config.kernel = Some(KernelConfig {
                    image,
                    initrd: Some(initrd),
                    command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
                    ..KernelConfig::default()
                });
            })
        });
        let found = run(sides, 1_000_000, u64::MAX);
        assert!(found.is_none(), "{}", lockstep::render(&found.unwrap(), ["interp", "kvm"]));
    });
}
