//! `cargo xtask suite`: the self-tests of `test-roms/suite` under Trivium and under QEMU's TCG, side by
//! side.
//!
//! Each run leaves its report in the folder, as `CHAPTER.trivium.tap` and `CHAPTER.qemu.tap`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use trivium_test_roms::SUITE;

use crate::{interrupt, process};

/// How often a running machine is looked at.
const POLL: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub struct Args {
    /// Chapters to run; all if none is named
    chapters: Vec<String>,
    /// CPU model, under both
    #[arg(long, default_value = "max")]
    cpu: String,
    /// Where ROMs and reports go
    #[arg(long, default_value = "target/suite")]
    dir: PathBuf,
    /// The trivium to run; built if not given
    #[arg(long)]
    trivium: Option<PathBuf>,
    /// The QEMU to run
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// Do not run QEMU
    #[arg(long)]
    no_qemu: bool,
    /// Seconds after which a run is stopped
    #[arg(long, default_value_t = 120)]
    limit: u64,
}

pub fn run(args: &Args) -> Result<()> {
    for name in &args.chapters {
        ensure!(SUITE.iter().any(|(chapter, _)| chapter == name), "There is no chapter {name}");
    }
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("Cannot create {}", args.dir.display()))?;
    let trivium = args.trivium.clone().map_or_else(build, Ok)?;
    let wanted = |name: &str| args.chapters.is_empty() || args.chapters.iter().any(|n| n == name);
    let mut failed = 0;
    println!("{:14} {:>6}  {:24} QEMU", "chapter", "checks", "Trivium");
    for (name, image) in SUITE.iter().filter(|(name, _)| wanted(name)) {
        let rom = args.dir.join(format!("suite-{name}.bin"));
        fs::write(&rom, image).with_context(|| format!("Cannot write {}", rom.display()))?;
        let ours = report(args, name, "trivium", &mut trivium_command(&trivium, &rom, &args.cpu))?;
        let qemu = match args.no_qemu {
            true => "not run".to_owned(),
            false => report(args, name, "qemu", &mut qemu_command(args, &rom))?.verdict(),
        };
        failed += usize::from(!ours.is_good());
        println!("{name:14} {:>6}  {:24} {qemu}", ours.checks, ours.verdict());
    }
    ensure!(failed == 0, "{failed} chapters do not pass under Trivium");
    Ok(())
}

/// Builds the release binary and says where it is.
pub fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status =
        process::status(Command::new(cargo).args(["build", "--release", "--package", "trivium"]))?;
    ensure!(status.success(), "Cannot build trivium");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    Ok(target.join("release/trivium"))
}

fn trivium_command(trivium: &Path, rom: &Path, cpu: &str) -> Command {
    let mut command = Command::new(trivium);
    command.args(["run", "--debug-exit", "-m", "16M", "--cpu", cpu]);
    command.args(["--parallel", "null", "--debugcon", "null", "--bios"]).arg(rom);
    command
}

fn qemu_command(args: &Args, rom: &Path) -> Command {
    let mut command = Command::new(&args.qemu);
    command.args(["-accel", "tcg", "-machine", "pc", "-m", "16", "-display", "none"]);
    command.args(["-device", "isa-debug-exit,iobase=0x501,iosize=2", "-no-reboot"]);
    command.args(["-device", "vmcoreinfo", "-parallel", "null", "-debugcon", "null"]);
    command.args(["-serial", "stdio", "-monitor", "none", "-cpu", &args.cpu, "-bios"]).arg(rom);
    command
}

/// What a report says.
struct Report {
    checks: usize,
    failed: usize,
    /// The plan came: the ROM has run to its end.
    ended: bool,
}

impl Report {
    fn of(text: &str) -> Self {
        let failed = text.lines().filter(|line| line.starts_with("not ok ")).count();
        let passed = text.lines().filter(|line| line.starts_with("ok ")).count();
        let ended = text.lines().any(|line| line.starts_with("1.."));
        Self { checks: passed + failed, failed, ended }
    }

    fn is_good(&self) -> bool {
        self.ended && self.failed == 0
    }

    fn verdict(&self) -> String {
        match (self.ended, self.failed) {
            (true, 0) => "all pass".to_owned(),
            (true, failed) => format!("{failed} of {} differ", self.checks),
            (false, failed) => format!("{failed} of {} differ, then stopped", self.checks),
        }
    }
}

/// Runs a machine until it ends or the limit is over, and reads what it has printed.
fn report(args: &Args, name: &str, who: &str, command: &mut Command) -> Result<Report> {
    let path = args.dir.join(format!("{name}.{who}.tap"));
    let file = File::create(&path).with_context(|| format!("Cannot write {}", path.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("Cannot start {}", command.get_program().to_string_lossy()))?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if interrupt::requested() || begun.elapsed() > Duration::from_secs(args.limit) {
            let _ = child.kill();
            let _ = child.wait();
        }
        interrupt::check()?;
        std::thread::sleep(POLL);
    }
    let text = fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
    Ok(Report::of(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_its_plan_has_not_ended() {
        let report = Report::of("TAP version 13\nok 1 - a\nnot ok 2 - b\n");
        assert_eq!(report.verdict(), "1 of 2 differ, then stopped");
        assert!(!report.is_good() && !Report::of("").is_good());
        assert!(Report::of("ok 1 - a\n1..1\n").is_good());
    }
}
