//! Whole-machine tests: every guest on every kind of CPU. Here is what they share.

mod firmware;
mod guests;
mod loaders;
mod roms;
mod save_restore;
mod suite;

use std::time::Duration;

use trivium_cpu::CpuModel;
use trivium_machine::testing::{self, Outcome, Step, guest_file};
use trivium_machine::{Accel, Board, KernelConfig, MachineConfig};

/// All kinds of CPU. A test that runs a guest runs it on each.
const ACCELS: &[Accel] = &[Accel::Interp, Accel::Jit];

/// Host time that no guest here needs.
const LIMIT: Duration = Duration::from_secs(900);

/// A guest that boots by its kernel.
struct Guest {
    /// The kernel, as guest and file.
    kernel: (&'static str, &'static str),
    /// The initial RAM disk, as guest and file.
    initrd: Option<(&'static str, &'static str)>,
    /// The kernel's command line.
    command_line: &'static str,
    /// RAM in MiB.
    memory_mib: u64,
}

/// The board `pc` with all that it has.
const PC: Hardware = Hardware { board: Board::Pc, model: "max" };

/// What a guest runs on, besides the kind of CPU.
#[derive(Clone, Copy)]
struct Hardware {
    board: Board,
    /// The CPU model.
    model: &'static str,
}

/// A machine without anything to boot.
fn machine(accel: Accel, memory_mib: u64, hardware: Hardware) -> MachineConfig {
    let model = CpuModel::by_name(hardware.model).expect("the model is there");
    let mut config = MachineConfig::new(model, memory_mib << 20);
    config.board = hardware.board;
    config.accel = accel;
    config.no_reboot = true;
    config
}

impl Guest {
    /// Runs it on the board `pc` with one kind of CPU; nothing if it has not been fetched.
    fn run(&self, accel: Accel, script: &[Step]) -> Option<Outcome> {
        self.run_on(accel, PC, script)
    }

    /// Runs it on one kind of CPU; nothing if it has not been fetched.
    fn run_on(&self, accel: Accel, hardware: Hardware, script: &[Step]) -> Option<Outcome> {
        let mut config = machine(accel, self.memory_mib, hardware);
        let initrd = match self.initrd {
            Some((guest, file)) => Some(guest_file(guest, file)?),
            None => None,
        };
        config.kernel = Some(KernelConfig {
            image: guest_file(self.kernel.0, self.kernel.1)?,
            initrd,
            command_line: self.command_line.into(),
            ..KernelConfig::default()
        });
        let outcome = testing::run(config, script.to_vec(), LIMIT).expect("the machine runs");
        assert!(!outcome.timed_out, "{}", outcome.output);
        Some(outcome)
    }
}
