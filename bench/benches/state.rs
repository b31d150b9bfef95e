//! How long it takes to save, hash and restore a machine of 512 MiB: medians, and in parentheses the
//! best, both in milliseconds.
//!
//!     cargo bench -p trivium-bench --bench state

use std::time::{Duration, Instant};

use trivium_cpu::CpuModel;
use trivium_machine::testing::{self, guest_file};
use trivium_machine::{ClockMode, KernelConfig, Machine, MachineConfig, MachineState};
use trivium_memory::GuestPhysAddr;

/// Runs of each; the median counts.
const RUNS: usize = 9;
const RAM: u64 = 512 << 20;
const LIMIT: Duration = Duration::from_secs(120);

type Error = Box<dyn std::error::Error>;
type Measure = fn(&mut Machine) -> Result<Duration, Error>;

fn main() -> Result<(), Error> {
    println!("{:<28} {:>15} {:>15} {:>15}", "512 MiB of RAM", "empty", "booted", "full");
    let mut machines = [empty()?, booted()?, full()?];
    let rows: [(&str, Measure); 6] = [
        ("save and hash", |machine| time(|| Ok((machine.save()?, machine.state_hash()?)))),
        ("save", |machine| time(|| Ok(machine.save()?))),
        ("hash", |machine| time(|| Ok(machine.state_hash()?))),
        ("restore what has not changed", |machine| {
            let state = machine.save()?;
            time(|| Ok::<_, Error>(machine.restore(&state)?))
        }),
        ("to bytes", |machine| {
            let state = machine.save()?;
            time(|| Ok(state.to_bytes()))
        }),
        ("from bytes", |machine| {
            let bytes = machine.save()?.to_bytes();
            time(|| Ok(MachineState::from_bytes(&bytes)?))
        }),
    ];
    for (name, measure) in rows {
        let mut row = format!("{name:<28}");
        for machine in &mut machines {
            match machine {
                Some(machine) => row += &format!(" {:>15}", several(|| measure(machine))?),
                None => row += &format!(" {:>15}", "no guest"),
            }
        }
        println!("{row}");
    }
    Ok(())
}

/// How long it takes, without the time that it takes to drop what comes out.
fn time<T>(f: impl FnOnce() -> Result<T, Error>) -> Result<Duration, Error> {
    let start = Instant::now();
    let kept = f()?;
    let took = start.elapsed();
    drop(kept);
    Ok(took)
}

/// Median and best of some runs, in milliseconds.
fn several(mut measure: impl FnMut() -> Result<Duration, Error>) -> Result<String, Error> {
    let mut times = (0..RUNS).map(|_| measure()).collect::<Result<Vec<_>, _>>()?;
    times.sort();
    let millis = |run: usize| times.get(run).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Ok(format!("{:.0} ({:.0})", millis(RUNS / 2), millis(0)))
}

fn config() -> Result<MachineConfig, Error> {
    let mut config = MachineConfig::new(CpuModel::by_name("max")?, RAM);
    config.clock = ClockMode::Icount { sleep: false };
    config.no_reboot = true;
    Ok(config)
}

/// A machine before its first instruction.
fn empty() -> Result<Option<Machine>, Error> {
    let mut config = config()?;
    config.firmware = Some(trivium_test_roms::DEMO.to_vec());
    Ok(Some(Machine::new(config)?))
}

/// A machine on which the reference guest has come up, if that has been fetched.
fn booted() -> Result<Option<Machine>, Error> {
    let (Some(image), Some(initrd)) =
        (guest_file("cloud", "vmlinuz"), guest_file("initrd", "initrd"))
    else {
        return Ok(None);
    };
    let mut config = config()?;
    config.kernel = Some(KernelConfig {
        image,
        initrd: Some(initrd),
        command_line: "console=ttyS0 panic=-1 quickexit".into(),
        ..KernelConfig::default()
    });
    let mut machine = Machine::new(config)?;
    testing::run_limited(&mut machine, LIMIT)?;
    Ok(Some(machine))
}

/// A machine without a page of zeroes.
fn full() -> Result<Option<Machine>, Error> {
    let machine = empty()?;
    let mut content = vec![0; 1 << 20];
    for (place, number) in content.chunks_mut(8).zip(1_u64..) {
        place.copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    if let Some(machine) = &machine {
        for start in (0..RAM).step_by(content.len()).filter(|start| *start != 0) {
            machine.memory().write(GuestPhysAddr(start), &content)?;
        }
    }
    Ok(machine)
}
