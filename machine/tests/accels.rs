//! The JIT's runs under icount are the interpreter's, to the last bit of the state.

use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_machine::testing;
use trivium_machine::{
    Accel, ClockMode, DEFAULT_JIT_MEMORY, Machine, MachineConfig, RunEnd, StateHash,
};

const LIMIT: Duration = Duration::from_secs(600);

/// Code memory that is always full, in bytes.
const LITTLE: usize = 64 << 10;

fn machine(image: &[u8], accel: Accel, code_memory: usize) -> Machine {
    let mut config = MachineConfig::new(CpuModel::parse("max").unwrap(), 16 << 20);
    config.firmware = Some(image.to_vec());
    config.debug_exit_port = Some(0x501);
    config.clock = ClockMode::Icount { sleep: false };
    config.no_reboot = true;
    config.accel = accel;
    config.jit.memory = code_memory;
    Machine::new(config).unwrap()
}

/// Milliseconds of virtual time at which states are compared, beside the end.
const MOMENTS: [u64; 4] = [1, 5, 20, 80];

/// Runs a self-test to its end, and says what the state was at some moments.
fn run(image: &[u8], accel: Accel, code_memory: usize) -> (RunEnd, Vec<(VmTime, StateHash)>) {
    let mut machine = machine(image, accel, code_memory);
    let mut hashes = Vec::new();
    for moment in MOMENTS {
        let end = machine.run_until(VmTime::from_nanos(moment * 1_000_000)).unwrap();
        hashes.push((machine.now(), machine.state_hash().unwrap()));
        if let Some(end) = end {
            return (end, hashes);
        }
    }
    let (end, timed_out) = testing::run_limited(&mut machine, LIMIT).unwrap();
    assert!(!timed_out);
    hashes.push((machine.now(), machine.state_hash().unwrap()));
    (end, hashes)
}

#[test]
fn every_self_test_goes_through_the_same_states() {
    for (name, image) in trivium_test_roms::SUITE {
        let interpreted = run(image, Accel::Interp, LITTLE);
        for code_memory in [DEFAULT_JIT_MEMORY, LITTLE] {
            assert_eq!(run(image, Accel::Jit, code_memory), interpreted, "{name}: {code_memory}");
        }
    }
}
