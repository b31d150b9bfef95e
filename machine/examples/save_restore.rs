//! Runs guests in pieces: at random moments the machine is saved, dropped, built anew and restored.
//! The end must be that of a run in one piece. `cargo xtask save-restore` runs this.
//!
//!     save_restore POINTS SEED [GUEST...]
//!
//! Guests are `boot`, the reference guest, and `rom/NAME` for each of our ROMs; all by default.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use trivium_cpu::CpuModel;
use trivium_machine::testing::{Pieces, guest_file, moments_of};
use trivium_machine::{ClockMode, KernelConfig, MachineConfig};

const LIMIT: Duration = Duration::from_secs(900);
/// The port of isa-debug-exit that self-tests write to.
const DEBUG_EXIT: u16 = 0x501;

type Error = Box<dyn std::error::Error>;

/// A guest and how its machine is made.
struct Guest {
    name: String,
    config: Box<dyn Fn() -> MachineConfig + Sync>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("save_restore: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Error> {
    let mut arguments = std::env::args().skip(1);
    let usage = "use: save_restore POINTS SEED [GUEST...]";
    let points: usize = arguments.next().ok_or(usage)?.parse()?;
    let seed: u64 = arguments.next().ok_or(usage)?.parse()?;
    let wanted: Vec<String> = arguments.collect();
    let mut guests = guests()?;
    if let Some(unknown) = wanted.iter().find(|name| guests.iter().all(|g| g.name != **name)) {
        return Err(format!("there is no guest '{unknown}'").into());
    }
    guests.retain(|guest| wanted.is_empty() || wanted.contains(&guest.name));
    let mut good = true;
    for guest in &guests {
        good &= check(guest, points, seed)?;
    }
    Ok(good)
}

fn check(guest: &Guest, points: usize, seed: u64) -> Result<bool, Error> {
    let bar = ProgressBar::new(points as u64).with_message(guest.name.clone());
    bar.set_style(ProgressStyle::with_template("{msg:22} {bar:30} {pos}/{len} {eta}")?);
    let start = Instant::now();
    let pieces = Pieces { config: &guest.config, script: &[], limit: LIMIT };
    let whole = pieces.whole()?;
    let moments = moments_of(seed, points, whole.now);
    let cut = pieces.cut(&moments, |cuts| {
        bar.set_position(cuts as u64);
        true
    })?;
    bar.finish_and_clear();
    let (name, count, seconds) = (&guest.name, moments.len(), start.elapsed().as_secs_f64());
    if cut.as_ref() == Some(&whole) {
        let (now, hash) = (whole.now, whole.hash);
        println!("{name:22} {count:4} points, {now}, state {hash} ({seconds:.1} s)");
        return Ok(true);
    }
    let difference = pieces.first_difference(&moments)?;
    let difference = difference.unwrap_or_else(|| "none is found beside one that stops".into());
    println!("{name:22} DIFFERS {difference}");
    Ok(false)
}

fn config(memory_mib: u64) -> MachineConfig {
    // The model is there: `guests` has looked.
    let model = CpuModel::by_name("max").unwrap_or_else(|error| panic!("{error}"));
    let mut config = MachineConfig::new(model, memory_mib << 20);
    config.clock = ClockMode::Icount { sleep: false };
    config.no_reboot = true;
    config.debug_exit_port = Some(DEBUG_EXIT);
    config
}

fn guests() -> Result<Vec<Guest>, Error> {
    CpuModel::by_name("max")?;
    let mut guests = Vec::new();
    if let (Some(image), Some(initrd)) =
        (guest_file("cloud", "vmlinuz"), guest_file("initrd", "initrd"))
    {
        let kernel = KernelConfig {
            image,
            initrd: Some(initrd),
            command_line: "console=ttyS0 panic=-1 quickexit".to_owned(),
            ..KernelConfig::default()
        };
        let config = move || MachineConfig { kernel: Some(kernel.clone()), ..config(512) };
        guests.push(Guest { name: "boot".into(), config: Box::new(config) });
    }
    let demo = ("demo", trivium_test_roms::DEMO, 64);
    let suite = trivium_test_roms::SUITE.iter().map(|(name, image)| (*name, *image, 16));
    for (name, image, memory) in std::iter::once(demo).chain(suite) {
        let config = move || MachineConfig { firmware: Some(image.to_vec()), ..config(memory) };
        guests.push(Guest { name: format!("rom/{name}"), config: Box::new(config) });
    }
    Ok(guests)
}
