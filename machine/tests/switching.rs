//! Machines that change their CPU while they run do what they would have done anyway: under icount
//! to the last bit of the state.

use std::ops::RangeInclusive;
use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_machine::testing::{self, Console, guest_file};
use trivium_machine::{
    Accel, ClockMode, KernelConfig, Machine, MachineConfig, RunEnd, StateHash, SwitchConfig,
    SwitchEvery,
};

const LIMIT: Duration = Duration::from_secs(600);

/// Every this many instructions, by chance.
fn every(range: RangeInclusive<u64>, seed: u64) -> Option<SwitchConfig> {
    let cpus = Accel::INTERCHANGEABLE.to_vec();
    Some(SwitchConfig { cpus, every: SwitchEvery::Instructions { range, seed } })
}

/// Every this many milliseconds of virtual time.
fn every_ms(millis: u64) -> Option<SwitchConfig> {
    let cpus = Accel::INTERCHANGEABLE.to_vec();
    Some(SwitchConfig { cpus, every: SwitchEvery::Nanos(millis * 1_000_000) })
}

fn rom(image: &[u8], switch: Option<SwitchConfig>) -> Machine {
    let mut config = MachineConfig::new(CpuModel::parse("max").unwrap(), 16 << 20);
    config.firmware = Some(image.to_vec());
    config.debug_exit_port = Some(0x501);
    config.clock = ClockMode::Icount { sleep: false };
    config.no_reboot = true;
    config.switch = switch;
    Machine::new(config).unwrap()
}

/// Runs a self-test to its end, or so far.
fn run(
    image: &[u8],
    switch: Option<SwitchConfig>,
    limit: u64,
) -> (Option<RunEnd>, VmTime, StateHash) {
    let mut machine = rom(image, switch);
    let end = machine.run_until(VmTime::from_nanos(limit)).unwrap();
    (end, machine.now(), machine.state_hash().unwrap())
}

/// Far enough for every self-test, in instructions.
const TO_THE_END: u64 = 400_000_000;

#[test]
fn every_self_test_goes_through_the_same_states_when_it_changes_its_cpu() {
    for (name, image) in trivium_test_roms::SUITE {
        let plain = run(image, None, TO_THE_END);
        assert_eq!(run(image, every(1..=2000, 1), TO_THE_END), plain, "{name}");
    }
}

/// Between any two instructions: also in an interrupt's shadow, between the iterations of a REP, in
/// system-management mode, and with events that wait.
#[test]
fn the_cpu_may_change_after_every_single_instruction() {
    for (name, image) in trivium_test_roms::SUITE {
        let limit = 300_000;
        let plain = run(image, None, limit);
        for range in [1..=1, 1..=7] {
            assert_eq!(run(image, every(range.clone(), 5), limit), plain, "{name} {range:?}");
        }
    }
}

/// Saved here, written, read, and loaded there at random points of random self-tests: the state that
/// comes out is the one that went in, and the guest does not notice.
#[test]
fn states_pass_between_the_cpus_at_random_points() {
    let end = VmTime::from_nanos(3_000_000);
    for (seed, (name, image)) in (1..).zip(trivium_test_roms::SUITE) {
        let plain = run(image, None, end.as_nanos());
        let mut machines = Accel::INTERCHANGEABLE.iter().map(|&accel| {
            let mut config = MachineConfig::new(CpuModel::parse("max").unwrap(), 16 << 20);
            config.firmware = Some(image.to_vec());
            config.debug_exit_port = Some(0x501);
            config.clock = ClockMode::Icount { sleep: false };
            config.no_reboot = true;
            config.accel = accel;
            Machine::new(config).unwrap()
        });
        let (mut here, mut there) = (machines.next().unwrap(), machines.next().unwrap());
        let mut ended = false;
        for moment in testing::moments_of(seed, 20, end) {
            ended = here.run_until(moment).unwrap().is_some();
            if ended {
                break;
            }
            let state = here.save().unwrap();
            there.restore(&state).unwrap();
            assert_eq!(there.save().unwrap(), state, "{name} at {moment}");
            std::mem::swap(&mut here, &mut there);
        }
        if !ended {
            here.run_until(end).unwrap();
        }
        assert_eq!((here.now(), here.state_hash().unwrap()), (plain.1, plain.2), "{name}");
    }
}

/// The reference guest, which ends as soon as it is up.
fn boot(
    switch: Option<SwitchConfig>,
    clock: ClockMode,
    until: Option<VmTime>,
) -> Option<(RunEnd, String, StateHash, VmTime)> {
    let console = Console::default();
    let mut config = MachineConfig::new(CpuModel::parse("max").ok()?, 512 << 20);
    config.kernel = Some(KernelConfig {
        image: guest_file("cloud", "vmlinuz")?,
        initrd: Some(guest_file("initrd", "initrd")?),
        command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
        ..KernelConfig::default()
    });
    config.clock = clock;
    config.accel = Accel::Jit;
    config.no_reboot = true;
    config.serial[0] = Some(console.backend());
    config.switch = switch;
    let mut machine = Machine::new(config).unwrap();
    let end = match until {
        Some(until) => machine.run_until(until).unwrap().unwrap_or(RunEnd::Stopped),
        None => testing::run_limited(&mut machine, LIMIT).unwrap().0,
    };
    Some((end, console.text(), machine.state_hash().unwrap(), machine.now()))
}

const ICOUNT: ClockMode = ClockMode::Icount { sleep: false };

/// Set to boot to power-off where continuous integration boots for a while.
fn in_full() -> bool {
    std::env::var_os("TRIVIUM_SWITCH_FULL").is_some_and(|value| value == "1")
}

#[test]
fn linux_boots_the_same_when_the_cpu_changes_every_few_thousand_instructions() {
    let until = (!in_full()).then(|| VmTime::from_nanos(600_000_000));
    let Some(plain) = boot(None, ICOUNT, until) else { return };
    let switched = boot(every(1000..=10_000, 1), ICOUNT, until).unwrap();
    assert!(switched == plain, "{}\n{:?} and {:?}", switched.1, switched.2, plain.2);
}

#[test]
fn linux_powers_off_when_the_cpu_changes_every_few_milliseconds() {
    if !in_full() {
        println!("SKIP: TRIVIUM_SWITCH_FULL=1 boots to power-off");
        return;
    }
    let Some(plain) = boot(None, ICOUNT, None) else { return };
    for millis in [100, 10] {
        let switched = boot(every_ms(millis), ICOUNT, None).unwrap();
        assert!(switched == plain, "{millis} ms: {}", switched.1);
        let (end, text, ..) = boot(every_ms(millis), ClockMode::Real, None).unwrap();
        assert_eq!(end, RunEnd::PowerOff, "{text}");
        assert!(text.contains("=== GUEST UP"), "{text}");
    }
}
