//! Linux on a whole machine: from the kernel's entry to user space and power-off.

use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_machine::testing::{self, Console, guest_file, moments};
use trivium_machine::{ClockMode, KernelConfig, Machine, MachineConfig, RunEnd, StateHash};

const LIMIT: Duration = Duration::from_secs(600);

/// The reference guest, which ends as soon as it is up.
fn config(clock: ClockMode) -> Option<MachineConfig> {
    let mut config = MachineConfig::new(CpuModel::parse("max").ok()?, 512 << 20);
    config.kernel = Some(KernelConfig {
        image: guest_file("cloud", "vmlinuz")?,
        initrd: Some(guest_file("initrd", "initrd")?),
        command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
        ..KernelConfig::default()
    });
    config.clock = clock;
    config.no_reboot = true;
    Some(config)
}

/// Boots under icount; `pause` is called at each of the moments.
fn boot_icount(
    moments: &[VmTime],
    mut pause: impl FnMut(&mut Machine),
) -> Option<(String, StateHash, VmTime)> {
    let console = Console::default();
    let mut config = config(ClockMode::Icount { sleep: false })?;
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
    let Some(config) = config(ClockMode::Real) else { return };
    let outcome = testing::run(config, [], LIMIT).unwrap();
    assert_eq!(outcome.end, RunEnd::PowerOff, "{}", outcome.output);
    assert!(outcome.output.contains("=== GUEST UP"), "{}", outcome.output);
}

#[test]
fn two_boots_are_equal_even_if_all_devices_are_rebuilt_50_times_in_one() {
    let Some((output, hash, end)) = boot_icount(&[], |_| ()) else { return };
    let mut rebuilt = 0;
    let again = boot_icount(&moments(50, end), |machine| {
        machine.rebuild_devices().unwrap();
        rebuilt += 1;
    });
    assert_eq!(rebuilt, 50);
    let (output_again, hash_again, end_again) = again.unwrap();
    assert_eq!(output, output_again);
    assert_eq!((hash, end), (hash_again, end_again));
}
