//! `cargo xtask fuzz`: runs the fuzz targets one after the other, for minutes each, and tells what
//! came of it in a table.
//!
//! It needs cargo-fuzz and a nightly compiler. What the targets learn is kept in
//! `target/fuzz/corpus`, what they find in `target/fuzz/findings`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;

use crate::ci::root;
use crate::process;

/// The target that runs programs on a device, and the variable that tells which.
const DEVICE: &str = "device";
const DEVICE_VARIABLE: &str = "TRIVIUM_FUZZ_DEVICE";

/// The other targets, and the longest input that makes sense, in bytes.
const TARGETS: &[(&str, u32)] = &[
    ("board", 1024),
    ("state", 256),
    ("boot", 8192),
    ("config", 512),
    ("code", 256),
    ("jit", 128),
    ("repro", 2048),
];
/// The same for devices.
const DEVICE_LENGTH: u32 = 1024;

/// Seconds that an input may take.
const TIMEOUT: u32 = 10;
/// Memory that a target may take, in MiB.
const MEMORY: u32 = 1024;

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// How long each target runs
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Only these targets; all of them when none is named
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    target: Vec<String>,
    /// Processes that share a target's work
    #[arg(long, default_value_t = 1)]
    jobs: u32,
    /// Only name the targets
    #[arg(long)]
    list: bool,
    /// Where the targets have been built by `cargo fuzz build`; they are built if not given
    #[arg(long, value_name = "DIR")]
    built: Option<PathBuf>,
}

/// A target, with the device that it is for.
struct Target {
    name: String,
    binary: &'static str,
    length: u32,
}

/// Runs the chosen targets; fails if one of them finds something.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.minutes > 0.0, "--minutes must be more than 0");
    let built = args.built.clone().map_or_else(build, Ok)?;
    let all = targets(&built)?;
    for name in &args.target {
        ensure!(all.iter().any(|target| target.name == *name), "There is no target {name}");
    }
    let is_chosen = |t: &&Target| args.target.is_empty() || args.target.contains(&t.name);
    let chosen: Vec<&Target> = all.iter().filter(is_chosen).collect();
    if args.list {
        chosen.iter().for_each(|target| println!("{}", target.name));
        return Ok(());
    }
    let mut reports = Vec::new();
    for (number, target) in chosen.iter().enumerate() {
        let title = format!("{}/{} {}", number + 1, chosen.len(), target.name);
        reports.push((target.name.as_str(), target.run(args, &built, &title)?));
    }
    print(&reports);
    let found = reports.iter().filter(|(_, report)| !report.is_good()).count();
    ensure!(found == 0, "{found} targets have found something: see target/fuzz/findings");
    Ok(())
}

/// Builds all targets, with checks of arithmetic, and says where they are.
fn build() -> Result<PathBuf> {
    let mut command = Command::new("rustup");
    // The code under test has no unsafe code but for guest memory, which no sanitizer knows.
    command.args(["run", "nightly", "cargo", "fuzz", "build", "--sanitizer", "none"]);
    // Else it would be the stable compiler that runs us.
    command.current_dir(root()).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    let status = process::status(&mut command)?;
    ensure!(status.success(), "Cannot build the fuzz targets; cargo-fuzz and nightly are needed");
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| root().join("fuzz/target"), PathBuf::from);
    let host = Command::new("rustc").arg("-vV").output().context("Cannot start rustc")?;
    let host = String::from_utf8_lossy(&host.stdout).into_owned();
    let host = host.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(target.join(host.context("rustc does not tell its host")?).join("release"))
}

/// All targets: those for devices are asked for their names.
fn targets(built: &Path) -> Result<Vec<Target>> {
    let mut command = Command::new(built.join(DEVICE));
    let output = process::capture(command.env(DEVICE_VARIABLE, "list"), || ())?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let devices = names.lines().map(|name| Target {
        name: name.to_owned(),
        binary: DEVICE,
        length: DEVICE_LENGTH,
    });
    let others =
        TARGETS.iter().map(|&(name, length)| Target { name: name.into(), binary: name, length });
    Ok(devices.chain(others).collect())
}

impl Target {
    fn run(&self, args: &Args, built: &Path, title: &str) -> Result<Report> {
        let folder = root().join("target/fuzz");
        let corpus = folder.join("corpus").join(&self.name);
        let findings = folder.join("findings").join(&self.name);
        for folder in [&corpus, &findings] {
            fs::create_dir_all(folder)
                .with_context(|| format!("Cannot create {}", folder.display()))?;
        }
        let log = folder.join(format!("{}.log", self.name));
        let file =
            || fs::File::create(&log).with_context(|| format!("Cannot write {}", log.display()));
        let seconds = (args.minutes * 60.0).ceil();
        let mut command = Command::new(built.join(self.binary));
        command.arg(&corpus).args(self.seeds()).env(DEVICE_VARIABLE, &self.name);
        command.arg(format!("-artifact_prefix={}/", findings.display()));
        command.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={}", self.length));
        command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
        command.arg("-print_final_stats=1");
        if args.jobs > 1 {
            command.arg(format!("-fork={}", args.jobs));
        }
        command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(file()?);
        let begun = Instant::now();
        let mut child = command.spawn().with_context(|| format!("Cannot start {}", self.name))?;
        let bar = ProgressBar::new_spinner().with_message(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        let status = process::wait(&mut child, &mut || {
            let left = Duration::from_secs_f64(seconds).saturating_sub(begun.elapsed());
            bar.set_message(format!("{title}: {} s left", left.as_secs()));
        })?;
        bar.finish_and_clear();
        let text = fs::read(&log).with_context(|| format!("Cannot read {}", log.display()))?;
        let report = Report::of(&String::from_utf8_lossy(&text), status.success(), begun.elapsed());
        println!("{title}: {}", report.verdict());
        Ok(report)
    }

    /// The folder of inputs that the tree has for the target.
    fn seeds(&self) -> Option<PathBuf> {
        Some(root().join("fuzz/seeds").join(&self.name)).filter(|folder| folder.is_dir())
    }
}

/// What came of a target.
#[derive(Debug, PartialEq)]
struct Report {
    time: Duration,
    executions: u64,
    edges: u64,
    /// The finding in a line, if there is one.
    finding: Option<String>,
}

impl Report {
    /// Reads what libFuzzer has written.
    fn of(log: &str, success: bool, time: Duration) -> Self {
        let number = |line: &str, before: &str| {
            let rest = line.split_once(before)?.1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let last = |before: &str| log.lines().rev().find_map(|line| number(line, before));
        // "#1234 DONE cov: 384 ft: ..." of one process, "#1234: cov: 384 ..." of several.
        let counts = log.lines().filter_map(|line| number(line.strip_prefix('#')?, ""));
        let executions = counts.max().unwrap_or(0);
        let said = ["panicked at", "ERROR: libFuzzer", "ALARM"];
        let finding = log.lines().find(|line| said.iter().any(|what| line.contains(what)));
        let finding = finding.map(str::trim).or((!success).then_some("it ended with an error"));
        Self {
            time,
            executions,
            edges: last("cov:").unwrap_or(0),
            finding: finding.map(Into::into),
        }
    }

    fn is_good(&self) -> bool {
        self.finding.is_none()
    }

    fn verdict(&self) -> String {
        self.finding.clone().unwrap_or_else(|| "nothing found".into())
    }

    fn per_second(&self) -> u64 {
        (self.executions as f64 / self.time.as_secs_f64().max(0.001)) as u64
    }
}

/// Prints the table as markdown.
fn print(reports: &[(&str, Report)]) {
    println!("\n| target | seconds | programs | a second | edges | result |");
    println!("|---|---:|---:|---:|---:|---|");
    for (name, report) in reports {
        let Report { time, executions, edges, .. } = report;
        let (rate, verdict) = (report.per_second(), report.verdict());
        println!("| {name} | {} | {executions} | {rate} | {edges} | {verdict} |", time.as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: seed corpus\n#2\tINITED cov: 10 ft: 11 corp: 1/1b\n\
                       #430609\tDONE   cov: 397 ft: 1983 corp: 711/61Kb lim: 715 exec/s: 4263\n\
                       Done 430609 runs in 101 second(s)\nstat::number_of_executed_units: 430609\n";

    #[test]
    fn a_log_is_read() {
        let report = Report::of(LOG, true, Duration::from_secs(101));
        assert_eq!((report.executions, report.edges, report.per_second()), (430_609, 397, 4263));
        assert!(report.is_good());
    }

    #[test]
    fn a_panic_is_the_finding() {
        let log =
            "#2\tINITED cov: 10\nthread '<unnamed>' panicked at devices/src/x.rs:1:2:\nboom\n";
        let report = Report::of(log, false, Duration::from_secs(1));
        assert!(report.verdict().contains("devices/src/x.rs:1:2"), "{report:?}");
        assert!(!Report::of("", false, Duration::from_secs(1)).is_good());
    }
}
