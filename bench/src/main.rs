//! How fast the processors execute our benchmark guests, in this process: for a quick look while
//! working on them. `cargo xtask bench` measures the whole program beside its peers.
//!
//!     cargo run --release -p trivium-bench [NAME...]

use std::time::{Duration, Instant};

use trivium_cpu::CpuModel;
use trivium_machine::testing;
use trivium_machine::{ClockMode, MachineConfig, RunEnd};

/// Runs of each guest; the median counts.
const RUNS: usize = 5;
const LIMIT: Duration = Duration::from_secs(600);

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    let loops = trivium_test_roms::LOOPS.iter().map(|body| (body.name, body.rom));
    let micro = trivium_test_roms::MICRO.iter().map(|(name, image, _)| (*name, *image));
    println!("{:<18} {:>12} {:>10} {:>8}", "guest", "instructions", "median ms", "M/s");
    for (name, image) in loops.chain(micro).filter(|(name, _)| wanted(name)) {
        match measure(image) {
            Ok((instructions, median)) => {
                let millions = instructions as f64 / median.as_secs_f64() / 1e6;
                let millis = median.as_secs_f64() * 1e3;
                println!("{name:<18} {instructions:>12} {millis:>10.1} {millions:>8.0}");
            }
            Err(error) => {
                eprintln!("trivium-bench: {name}: {error}");
                std::process::exit(1);
            }
        }
    }
}

/// Instructions that a guest executes from reset to power-off, and the median time of that. A REP
/// string instruction counts once.
fn measure(image: &[u8]) -> Result<(u64, Duration), String> {
    let mut times = Vec::with_capacity(RUNS);
    let mut instructions = 0;
    for _ in 0..RUNS {
        // An instruction is a nanosecond under icount.
        let clock = ClockMode::Icount { sleep: false };
        let start = Instant::now();
        instructions = run(image, clock)?;
        times.push(start.elapsed());
    }
    times.sort();
    times.get(RUNS / 2).map(|median| (instructions, *median)).ok_or("no runs".into())
}

/// Runs a guest to power-off; gives the virtual time that it took, in nanoseconds.
fn run(image: &[u8], clock: ClockMode) -> Result<u64, String> {
    let model = CpuModel::by_name("max").map_err(|error| error.to_string())?;
    let mut config = MachineConfig::new(model, 64 << 20);
    config.firmware = Some(image.to_vec());
    config.clock = clock;
    config.no_reboot = true;
    let mut machine = trivium_machine::Machine::new(config).map_err(|error| error.to_string())?;
    let (end, _) = testing::run_limited(&mut machine, LIMIT).map_err(|error| error.to_string())?;
    if end != RunEnd::PowerOff {
        return Err(format!("ended by {end:?}"));
    }
    Ok(machine.now().as_nanos())
}
