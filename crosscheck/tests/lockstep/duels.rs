//! Two machines with a guest, of which one may be broken.

use std::sync::Arc;

use trivium_chipset::VmTime;
use trivium_cpu::{CpuModel, CpuState};
use trivium_crosscheck::hot;
use trivium_crosscheck::lockstep::{self, Pair, Progress, Side, Sync, Verdict, Wish};
use trivium_machine::{Accel, BlockLimits, ClockMode, Machine, MachineConfig, STACK_SIZE};

/// The interpreter beside the JIT.
pub const BOTH: [Accel; 2] = [Accel::Interp, Accel::Jit];

/// What two machines run.
pub enum Guest {
    /// A firmware image.
    Rom(&'static [u8]),
    /// What the processor and memory, from address 0 on, begin with.
    Loop(Box<CpuState>, Vec<u8>),
}

impl Guest {
    /// A loop of [`trivium_crosscheck::hot`].
    pub fn of_loop(number: u64) -> Self {
        let (state, memory) = hot::loop_guest(&number.to_le_bytes());
        Self::Loop(Box::new(state), memory)
    }

    /// Its firmware image.
    pub fn image(&self) -> Option<&'static [u8]> {
        match self {
            Self::Rom(image) => Some(image),
            Self::Loop(..) => None,
        }
    }
}

/// A machine of which nobody hears.
fn machine(accel: Accel, blocks: &Arc<BlockLimits>, image: Option<&[u8]>) -> Machine {
    let mut config = MachineConfig::new(CpuModel::by_name("max").unwrap(), 16 << 20);
    config.firmware = image.map(<[u8]>::to_vec);
    config.bare = image.is_none();
    config.debug_exit_port = Some(0x501);
    config.clock = ClockMode::Icount { sleep: false };
    config.no_reboot = true;
    config.accel = accel;
    config.blocks = blocks.clone();
    Machine::new(config).unwrap()
}

/// One of two machines; `around` breaks it while it runs, and while it is made.
pub fn side(accel: Accel, guest: &Guest, around: Option<fn(bool)>) -> Side {
    let blocks = Arc::default();
    if let Some(around) = around {
        around(true);
    }
    let mut machine = machine(accel, &blocks, guest.image());
    if let Some(around) = around {
        around(false);
    }
    if let Guest::Loop(state, memory) = guest {
        machine.memory().write_arena(0, memory);
        let mut frozen = machine.freeze().unwrap();
        frozen.cpus[0] = **state;
        machine.thaw(&frozen).unwrap();
    }
    let around = around.map(|around| Box::new(around) as Box<dyn FnMut(bool)>);
    Side { name: format!("{accel:?}"), machine, blocks, around }
}

pub fn on_large_stack<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK_SIZE).spawn(body).unwrap().join().unwrap()
}

/// What is called around the runs of two machines.
pub type Arounds = [Option<fn(bool)>; 2];

/// Machines that are as they should be.
pub const WHOLE: Arounds = [None; 2];

/// Runs a guest so many nanoseconds on two machines, which may be broken.
pub fn duel(
    guest: &Guest,
    accels: [Accel; 2],
    arounds: Arounds,
    sync: Sync,
    limit: u64,
) -> (Verdict, Pair) {
    let sides = [0, 1].map(|n| side(accels[n], guest, arounds[n]));
    let mut pair = Pair::new(sides).unwrap();
    let far = |progress: Progress| progress.now >= VmTime::from_nanos(limit);
    let host = |progress| if far(progress) { Wish::Stop } else { Wish::GoOn(Vec::new()) };
    let verdict = lockstep::run(&mut pair, sync, host).unwrap();
    (verdict, pair)
}
