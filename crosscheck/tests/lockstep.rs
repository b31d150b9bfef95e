//! Machines in lockstep: those that agree, and those of which one is broken, which are brought down
//! to the instruction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trivium_chipset::VmTime;
use trivium_cpu::CpuModel;
use trivium_crosscheck::lockstep::{
    self, Found, LockstepFile, Pair, Progress, Side, Sync, Verdict, Wish,
};
use trivium_machine::testing::guest_file;
use trivium_machine::{
    Accel, BlockLimits, ClockMode, KernelConfig, Machine, MachineConfig, STACK_SIZE,
};

/// A machine of which nobody hears, with what it is to boot.
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
fn side(accel: Accel, image: &[u8], around: Option<fn(bool)>) -> Side {
    let blocks = Arc::default();
    if let Some(around) = around {
        around(true);
    }
    let machine = machine(accel, &blocks, Some(image));
    if let Some(around) = around {
        around(false);
    }
    let around = around.map(|around| Box::new(around) as Box<dyn FnMut(bool)>);
    Side { name: format!("{accel:?}"), machine, blocks, around }
}

fn on_large_stack<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(STACK_SIZE).spawn(body).unwrap().join().unwrap()
}

/// Runs a self-test so many nanoseconds on two machines, of which the second may be broken.
fn duel(
    image: &[u8],
    accels: [Accel; 2],
    around: Option<fn(bool)>,
    sync: Sync,
    limit: u64,
) -> (Verdict, Pair) {
    let [first, second] = accels;
    let sides = [side(first, image, None), side(second, image, around)];
    let mut pair = Pair::new(sides).unwrap();
    let far = |progress: Progress| progress.now >= VmTime::from_nanos(limit);
    let host = |progress| if far(progress) { Wish::Stop } else { Wish::GoOn(Vec::new()) };
    let verdict = lockstep::run(&mut pair, sync, host).unwrap();
    (verdict, pair)
}

/// Longer than it takes to locate a bug.
const MINUTE: Duration = Duration::from_secs(60);

const BOTH: [Accel; 2] = [Accel::Interp, Accel::Jit];

#[test]
fn machines_that_are_not_broken_agree_at_every_kind_of_point() {
    on_large_stack(|| {
        for (name, image) in guests() {
            let (verdict, _) = duel(image, BOTH, None, Sync::Every(200_000), 2_000_000);
            let good = matches!(verdict, Verdict::Stopped(_) | Verdict::Agreed(..));
            assert!(good, "{name}: {verdict:?}");
        }
        for sync in [Sync::Block, Sync::Exit, Sync::Every(1), Sync::Every(97)] {
            let (verdict, _) = duel(trivium_test_roms::DEMO, BOTH, None, sync, 5_000);
            let good = matches!(verdict, Verdict::Stopped(_) | Verdict::Agreed(..));
            assert!(good, "{sync:?}: {verdict:?}");
        }
    });
}

/// Programs with code of all kinds, 64-bit code first.
fn guests() -> Vec<(&'static str, &'static [u8])> {
    let loops = trivium_test_roms::LOOPS.iter().step_by(6).map(|body| (body.name, body.rom));
    let suite = ["exceptions", "segmentation", "protection", "long", "v86"];
    let suite = trivium_test_roms::SUITE.iter().filter(|(name, _)| suite.contains(name));
    loops.chain([("demo", trivium_test_roms::DEMO)]).chain(suite.copied()).collect()
}

/// Runs programs until a broken machine differs.
fn find(accels: [Accel; 2], around: fn(bool)) -> Option<(&'static [u8], Found)> {
    guests().into_iter().find_map(|(_, image)| {
        let sync = Sync::Every(200_000);
        let limit = if accels[1] == Accel::Jit { 3_000_000 } else { 1_000_000 };
        let (verdict, mut pair) = duel(image, accels, Some(around), sync, limit);
        match verdict {
            Verdict::Diverged(difference) => {
                Some((image, lockstep::locate(&mut pair, difference).unwrap()))
            }
            _ => None,
        }
    })
}

mod broken {
    //! What breaks a machine, by thread.

    use std::cell::Cell;

    use trivium_interp::planted as interp;
    use trivium_jit::planted as jit;

    thread_local! {
        pub static JIT: Cell<Option<jit::Bug>> = const { Cell::new(None) };
        pub static INTERP: Cell<Option<&'static interp::Bug>> = const { Cell::new(None) };
    }

    pub fn jit(begins: bool) {
        jit::plant(JIT.get().filter(|_| begins));
    }

    pub fn interp(begins: bool) {
        interp::plant(INTERP.get().filter(|_| begins));
    }
}

/// The bugs planted in the JIT that these programs come upon soon; other tests find the others.
const IN_JIT: &[trivium_jit::planted::Bug] = {
    use trivium_jit::planted::Bug as B;
    &[B::WrongPlace, B::FlagsClobbered, B::WrongCount, B::HighByteMixedUp]
};

/// The same of the interpreter's, by the instructions that they are in.
const IN_INTERPRETER: &[&str] = &["ADC", "JLE"];

/// The most instructions that a bug of translated code is brought down to.
const MOST: u64 = 64;

#[test]
fn bugs_planted_in_what_is_emitted_are_located() {
    on_large_stack(|| {
        let mut missed = Vec::new();
        for &bug in IN_JIT {
            broken::JIT.set(Some(bug));
            let start = Instant::now();
            let Some((_, found)) = find(BOTH, broken::jit) else {
                missed.push(format!("{bug:?}: not found"));
                continue;
            };
            let took = start.elapsed();
            println!("{bug:?}: {took:?}\n{}", lockstep::render(&found, ["interp", "jit"]));
            if !found.is_small || found.instructions > MOST || took > MINUTE {
                missed.push(format!("{bug:?}: {} instructions, {took:?}", found.instructions));
            }
        }
        assert!(missed.is_empty(), "{missed:#?}");
    });
}

#[test]
fn bugs_planted_in_the_interpreter_are_located_to_the_instruction_and_run_again_from_a_file() {
    on_large_stack(|| {
        let mut missed = Vec::new();
        let first = |name: &'static str| name.split(' ').next().unwrap_or_default();
        let all = trivium_interp::planted::BUGS.iter();
        for bug in all.filter(|bug| IN_INTERPRETER.contains(&first(bug.name))) {
            broken::INTERP.set(Some(bug));
            let start = Instant::now();
            let Some((image, found)) = find([Accel::Interp; 2], broken::interp) else {
                missed.push(format!("{}: not found", bug.name));
                continue;
            };
            let took = start.elapsed();
            let shown = lockstep::render(&found, ["interp", "broken"]);
            println!("{}: {took:?}\n{shown}", bug.name);
            let mnemonic = first(bug.name).to_lowercase();
            let is_it = found.code.iter().any(|line| line.contains(&mnemonic));
            if !found.is_small || found.instructions != 1 || !is_it || took > MINUTE {
                missed.push(format!("{}: {} instructions", bug.name, found.instructions));
            }
            if !again(&found, image) {
                missed.push(format!("{}: its file does not show it", bug.name));
            }
        }
        assert!(missed.is_empty(), "{missed:#?}");
    });
}

/// The beginning of the reference guest's boot.
#[test]
fn linux_boots_in_lockstep() {
    on_large_stack(|| {
        let side = |accel: Accel| -> Option<Side> {
            let mut config = MachineConfig::new(CpuModel::by_name("max").unwrap(), 512 << 20);
            config.kernel = Some(KernelConfig {
                image: guest_file("cloud", "vmlinuz")?,
                initrd: Some(guest_file("initrd", "initrd")?),
                command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
                ..KernelConfig::default()
            });
            config.clock = ClockMode::Icount { sleep: false };
            config.accel = accel;
            let blocks = config.blocks.clone();
            let machine = Machine::new(config).unwrap();
            Some(Side { name: format!("{accel:?}"), machine, blocks, around: None })
        };
        let (Some(first), Some(second)) = (side(Accel::Interp), side(Accel::Jit)) else { return };
        let mut pair = Pair::new([first, second]).unwrap();
        let far = VmTime::from_nanos(300_000_000);
        let verdict = lockstep::run(&mut pair, Sync::default(), |progress| {
            if progress.now >= far { Wish::Stop } else { Wish::GoOn(Vec::new()) }
        });
        let verdict = verdict.unwrap();
        assert!(matches!(verdict, Verdict::Stopped(_)), "{verdict:?}");
    });
}

/// Whether a file of what was found shows the same to who reads it.
fn again(found: &Found, image: &[u8]) -> bool {
    let cpus = ["interp", "broken"].map(str::to_owned);
    let text = LockstepFile::new(found, cpus, Vec::new(), Some(image)).to_text().unwrap();
    assert!(text.len() < 2 << 20, "{} bytes", text.len());
    let file = LockstepFile::parse(&text).unwrap();
    let firmware = file.firmware().unwrap();
    let image = firmware.as_deref().unwrap();
    let broken = Some(broken::interp as fn(bool));
    let sides = || [side(Accel::Interp, image, None), side(Accel::Interp, image, broken)];
    let state = file.state().unwrap();
    file.run(&state, sides()).unwrap() == found.differences
}
