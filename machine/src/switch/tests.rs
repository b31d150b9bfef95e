//! Machines that change their CPU on request and by time.

use std::time::Duration;

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;

use crate::config::{Accel, ClockMode, MachineConfig};
use crate::machine::Machine;
use crate::run::RunEnd;
use crate::switch::{SwitchConfig, SwitchEvery};

/// At the reset vector: writes FACEh to 500h and to its own code over and over.
/// `mov word [500h], 0face; inc bx; mov [600h], bx; jmp $-11`
const LOOP: &[u8] = &[
    0xc7, 0x06, 0x00, 0x05, 0xce, 0xfa, // mov word [500h], face
    0x43, // inc bx
    0x89, 0x1e, 0x00, 0x06, // mov [600h], bx
    0xeb, 0xf3, // jmp to the start
];

fn machine(clock: ClockMode, every: SwitchEvery) -> Machine {
    let mut rom = vec![0xf4; 4096];
    rom[..LOOP.len()].copy_from_slice(LOOP);
    // At the reset vector: jmp f000:f000.
    rom[0xff0..0xff5].copy_from_slice(&[0xea, 0x00, 0xf0, 0x00, 0xf0]);
    let mut config = MachineConfig::new(CpuModel::by_name("qemu64").unwrap(), 2 << 20);
    config.firmware = Some(rom);
    config.clock = clock;
    config.switch = Some(SwitchConfig { cpus: vec![Accel::Interp, Accel::Jit], every });
    Machine::new(config).unwrap()
}

const ICOUNT: ClockMode = ClockMode::Icount { sleep: false };

#[test]
fn a_request_changes_the_cpu_while_it_runs() {
    let mut machine = machine(ClockMode::Real, SwitchEvery::Request);
    let handle = machine.handle();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(1));
                handle.switch_cpu();
            }
            handle.stop();
        });
        assert_eq!(machine.run().unwrap(), RunEnd::Stopped);
    });
}

#[test]
fn turns_by_time_and_by_count_change_nothing_under_icount() {
    let end = VmTime::from_nanos(1_000_000);
    let hash = |every| {
        let mut machine = machine(ICOUNT, every);
        assert_eq!(machine.run_until(end).unwrap(), None);
        assert_eq!(machine.now(), end);
        machine.state_hash().unwrap()
    };
    let plain = hash(SwitchEvery::Request);
    assert_eq!(hash(SwitchEvery::Nanos(777)), plain);
    assert_eq!(hash(SwitchEvery::Instructions { range: 1..=100, seed: 3 }), plain);
}
