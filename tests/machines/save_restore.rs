//! Machines that are saved, dropped, built anew and restored in mid-run end as those that are not.
//! `cargo xtask save-restore` does the same at more moments.

use trivium_machine::testing::{Pieces, guest_file, moments};
use trivium_machine::{Accel, ClockMode, KernelConfig, MachineConfig};

use crate::{ACCELS, LIMIT, machine};

fn config(accel: Accel, memory_mib: u64) -> MachineConfig {
    let mut config = machine(accel, memory_mib, crate::PC);
    config.clock = ClockMode::Icount { sleep: false };
    config.debug_exit_port = Some(0x501);
    config
}

/// Cuts a run at so many moments.
fn check(name: &str, config: &(dyn Fn() -> MachineConfig + Sync), cuts: usize) {
    let pieces = Pieces { config, script: &[], limit: LIMIT };
    let whole = pieces.whole().expect("the machine runs");
    let moments = moments(cuts, whole.now);
    let cut = pieces.cut(&moments, |_| true).expect("a machine takes its own state");
    if cut.as_ref() != Some(&whole) {
        let difference = pieces.first_difference(&moments).expect("the machine runs");
        panic!("{name}: {difference:?}");
    }
}

#[test]
fn a_boot_of_linux_does_not_notice() {
    let (Some(image), Some(initrd)) =
        (guest_file("cloud", "vmlinuz"), guest_file("initrd", "initrd"))
    else {
        return;
    };
    let kernel = KernelConfig {
        image,
        initrd: Some(initrd),
        command_line: "console=ttyS0 panic=-1 quickexit".into(),
        ..KernelConfig::default()
    };
    for accel in ACCELS {
        let with_kernel = || MachineConfig { kernel: Some(kernel.clone()), ..config(*accel, 512) };
        check("boot", &with_kernel, 12);
    }
}

#[test]
fn no_self_test_notices() {
    for (name, image) in trivium_test_roms::SUITE {
        for accel in ACCELS {
            let with_rom =
                || MachineConfig { firmware: Some(image.to_vec()), ..config(*accel, 16) };
            check(name, &with_rom, 5);
        }
    }
}
