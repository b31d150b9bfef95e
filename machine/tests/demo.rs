//! The demo guest on a whole machine: it comes to its end, does the same every time under icount,
//! and does not notice that its devices are taken down and built again.

use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_machine::testing::{self, Console, moments};
use trivium_machine::{ClockMode, Machine, MachineConfig, RunEnd, StateHash};

const LIMIT: Duration = Duration::from_secs(120);

fn config(clock: ClockMode) -> MachineConfig {
    let mut config = MachineConfig::new(CpuModel::parse("max").unwrap(), 64 << 20);
    config.firmware = Some(trivium_test_roms::DEMO.to_vec());
    config.clock = clock;
    config.no_reboot = true;
    config
}

/// Runs the demo under icount; `pause` is called at each of the moments. Gives the output, the
/// final state and the moment of the end.
fn run_icount(
    moments: &[VmTime],
    mut pause: impl FnMut(&mut Machine),
) -> (String, StateHash, VmTime) {
    let console = Console::default();
    let mut config = config(ClockMode::Icount { sleep: false });
    config.serial[0] = Some(console.backend());
    let mut machine = Machine::new(config).unwrap();
    for moment in moments {
        assert_eq!(machine.run_until(*moment).unwrap(), None);
        assert_eq!(machine.now(), *moment);
        pause(&mut machine);
    }
    let end = testing::run_limited(&mut machine, LIMIT).unwrap();
    assert_eq!(end, (RunEnd::PowerOff, false), "{}", console.text());
    (console.text(), machine.state_hash().unwrap(), machine.now())
}

#[test]
fn the_demo_switches_the_machine_off() {
    let outcome = testing::run(config(ClockMode::Real), [], LIMIT).unwrap();
    assert_eq!(outcome.end, RunEnd::PowerOff, "{}", outcome.output);
    assert!(outcome.output.contains("Good night"));
    assert!(outcome.output.contains("results that were wrong"));
}

#[test]
fn under_icount_every_run_is_the_same() {
    let (output, hash, end) = run_icount(&[], |_| ());
    // Stopping on the way changes nothing either.
    let again = run_icount(&moments(10, end), |_| ());
    assert_eq!(output, again.0);
    assert_eq!((hash, end), (again.1, again.2));
}

#[test]
fn the_guest_does_not_notice_that_its_devices_are_rebuilt_or_its_state_restored() {
    let (output, hash, end) = run_icount(&[], |_| ());
    let rebuilt = run_icount(&moments(50, end), |machine| {
        machine.rebuild_devices().unwrap();
        let state = machine.save().unwrap();
        machine.restore(&state).unwrap();
    });
    assert_eq!(output, rebuilt.0);
    assert_eq!((hash, end), (rebuilt.1, rebuilt.2));
}
