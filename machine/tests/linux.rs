//! Linux on a whole machine: from the kernel's entry to user space and power-off.

use std::sync::LazyLock;
use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_machine::testing::{self, Console, guest_file, moments};
use trivium_machine::{Accel, ClockMode, KernelConfig, Machine, MachineConfig, RunEnd, StateHash};

const LIMIT: Duration = Duration::from_secs(600);

/// The reference guest, which ends as soon as it is up.
fn config(accel: Accel, clock: ClockMode) -> Option<MachineConfig> {
    let mut config = MachineConfig::new(CpuModel::parse("max").ok()?, 512 << 20);
    config.kernel = Some(KernelConfig {
        image: guest_file("cloud", "vmlinuz")?,
        initrd: Some(guest_file("initrd", "initrd")?),
        command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
        ..KernelConfig::default()
    });
    config.clock = clock;
    config.accel = accel;
    config.no_reboot = true;
    Some(config)
}

/// Boots under icount; `pause` is called at each of the moments.
fn boot_icount(
    accel: Accel,
    moments: &[VmTime],
    mut pause: impl FnMut(&mut Machine),
) -> Option<(String, StateHash, VmTime)> {
    let console = Console::default();
    let mut config = config(accel, ClockMode::Icount { sleep: false })?;
    config.serial[0] = Some(console.backend());
    let mut machine = Machine::new(config).unwrap();
    for moment in moments {
        assert_eq!(machine.run_until(*moment).unwrap(), None, "{}", console.text());
        pause(&mut machine);
    }
    let end = testing::run_limited(&mut machine, LIMIT).unwrap();
    assert_eq!(end, (RunEnd::PowerOff, false), "{}", console.text());
    Some((console.text(), machine.state_hash().unwrap(), machine.now()))
}

#[test]
fn the_reference_guest_comes_up_and_powers_off() {
    for accel in [Accel::Interp, Accel::Jit] {
        let Some(config) = config(accel, ClockMode::Real) else { return };
        let outcome = testing::run(config, [], LIMIT).unwrap();
        assert_eq!(outcome.end, RunEnd::PowerOff, "{}", outcome.output);
        assert!(outcome.output.contains("=== GUEST UP"), "{}", outcome.output);
    }
}

/// A boot of the interpreter without a pause.
static PLAIN: LazyLock<Option<(String, StateHash, VmTime)>> =
    LazyLock::new(|| boot_icount(Accel::Interp, &[], |_| ()));

#[test]
fn the_jits_boot_is_the_interpreters_at_every_moment() {
    let Some((output, hash, end)) = PLAIN.clone() else { return };
    let moments = moments(10, end);
    let mut hashes = [Vec::new(), Vec::new()];
    for (hashes, accel) in hashes.iter_mut().zip([Accel::Interp, Accel::Jit]) {
        let last = boot_icount(accel, &moments, |machine| {
            hashes.push((machine.now(), machine.state_hash().unwrap()));
        });
        assert_eq!(last.unwrap(), (output.clone(), hash, end));
    }
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn two_boots_are_equal_even_if_all_devices_are_rebuilt_50_times_in_one() {
    let Some((output, hash, end)) = PLAIN.clone() else { return };
    let mut rebuilt = 0;
    let again = boot_icount(Accel::Interp, &moments(50, end), |machine| {
        machine.rebuild_devices().unwrap();
        rebuilt += 1;
    });
    assert_eq!(rebuilt, 50);
    let (output_again, hash_again, end_again) = again.unwrap();
    assert_eq!(output, output_again);
    assert_eq!((hash, end), (hash_again, end_again));
}
