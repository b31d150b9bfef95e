//! `cargo xtask stress`: guests under load, whose programs check their own results.
//!
//! Each is Debian in a RAM disk. It compiles a program with tcc and runs it, which must print what the
//! host's compiler makes it print; and runs `stress-ng --verify` for some minutes, which must find
//! nothing wrong. What came out on the serial line is left in the folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::bench::child::{self, Finished, Until};
use crate::guests::{self, KNOWN};
use crate::process;

#[derive(clap::Args)]
pub struct Args {
    /// Guests to run: their width in bits
    #[arg(value_parser = ["64", "32"], default_values = ["64", "32"])]
    widths: Vec<String>,
    /// Minutes of load for each
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What runs the guest
    #[arg(long, default_value = "jit")]
    accel: String,
    /// Where the guests' output goes
    #[arg(long, default_value = "target/stress")]
    dir: PathBuf,
    /// Fail unless the guest has changed its CPU so often, by options such as `-- --switch-every 100ms`
    #[arg(long, default_value_t = 0)]
    switches: u64,
    /// The trivium to run; built if not given
    #[arg(long)]
    trivium: Option<PathBuf>,
    /// More options of `trivium run`
    #[arg(last = true)]
    options: Vec<String>,
}

/// What a guest may take over its load: to boot, to compile, and for stressors to come to their end.
const SLACK: Duration = Duration::from_secs(900);

/// Runs the guests that `args` names.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.minutes > 0.0 && args.minutes < 1e6, "--minutes must be a time");
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("Cannot create {}", args.dir.display()))?;
    let trivium = args.trivium.clone().map_or_else(crate::suite::build, Ok)?;
    let expected = native(&args.dir)?;
    for width in &args.widths {
        let guest = run_one(args, &trivium, width).with_context(|| format!("{width}-bit guest"))?;
        let report = judge(&guest, &expected).with_context(|| format!("{width}-bit guest"))?;
        let changes = changes(&guest.messages);
        ensure!(changes >= args.switches, "{width}-bit guest: it changed its CPU {changes} times");
        println!("{width}-bit guest on {}: {report}{}", args.accel, told(changes));
    }
    Ok(())
}

/// How often the emulator says that the guest has changed its CPU.
fn changes(messages: &[String]) -> u64 {
    let after = messages.iter().filter_map(|line| line.split_once("changed its CPU "));
    after.filter_map(|(_, after)| after.split(' ').next()?.parse::<u64>().ok()).sum()
}

fn told(changes: u64) -> String {
    if changes == 0 { String::new() } else { format!(", {changes} changes of the CPU") }
}

/// What the host's compiler makes the program print.
fn native(dir: &Path) -> Result<Vec<String>> {
    let (source, program) = (dir.join("known.c"), dir.join("known"));
    fs::write(&source, KNOWN).with_context(|| format!("Cannot write {}", source.display()))?;
    process::capture(Command::new("cc").arg("-O2").arg("-o").arg(&program).arg(&source), || ())?;
    let output = process::capture(&mut Command::new(fs::canonicalize(&program)?), || ())?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn run_one(args: &Args, trivium: &Path, width: &str) -> Result<Finished> {
    let (kernel, initrd) = match width {
        "32" => ("linux686pae", "stress386"),
        _ => ("cloud", "stress"),
    };
    guests::fetch_one(kernel)?;
    guests::fetch_one(initrd)?;
    let seconds = (args.minutes * 60.0) as u64;
    let mut command = Command::new(trivium);
    command.args(["-v", "run", "--accel", &args.accel, "--memory", "1024M", "--no-reboot"]);
    command.arg("--kernel").arg(guests::path(kernel, "vmlinuz")?);
    command.arg("--initrd").arg(guests::path(initrd, "initrd")?);
    let line = format!("console=ttyS0 panic=-1 quiet rdinit=/bench/stress.sh stress={seconds}");
    command.args(["--append", &line]).args(&args.options);
    let limit = Duration::from_secs(seconds) * 2 + SLACK;
    let run = child::run(&mut command, Until::Exit, limit, |_| ())?;
    let text: String = run.lines.iter().map(|line| format!("{}\n", line.text)).collect();
    let path = args.dir.join(format!("{width}-{}.txt", args.accel));
    fs::write(&path, text).with_context(|| format!("Cannot write {}", path.display()))?;
    Ok(run)
}

/// Whether all went as it must, in a line.
fn judge(run: &Finished, expected: &[String]) -> Result<String> {
    let texts: Vec<&str> = run.lines.iter().map(|line| line.text.trim_end()).collect();
    for how in ["run", "program"] {
        let begin = format!("=== KNOWN BEGIN {how}");
        let printed = texts.iter().skip_while(|text| **text != begin).skip(1);
        let printed: Vec<&str> =
            printed.take_while(|text| !text.starts_with("=== ")).copied().collect();
        ensure!(printed == expected, "known.c ({how}) printed {printed:?} and not {expected:?}");
    }
    let status = texts.iter().find_map(|text| text.strip_prefix("=== STRESS "));
    let Some(status) = status else { bail!("stress-ng did not end: {}", run.last_words()) };
    let failed = texts.iter().find(|text| text.contains("stress-ng: fail:"));
    ensure!(failed.is_none(), "{}", failed.unwrap_or(&""));
    ensure!(status == "0", "stress-ng ended with {status}");
    ensure!(run.says("=== DONE"), "it did not come to its end: {}", run.last_words());
    let after = texts.iter().skip_while(|text| !text.starts_with("=== STRESS ")).skip(1);
    let complaint = after.take_while(|text| **text != "=== DONE").next();
    ensure!(complaint.is_none(), "the kernel complained: {}", complaint.unwrap_or(&""));
    let end = texts.iter().rev().find(|text| text.contains("run completed"));
    let end = end.and_then(|text| text.split_once("] ")).map_or("", |(_, text)| text);
    Ok(format!("known.c as on the host, {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::child::{Line, Stamp};

    fn judged(text: &str) -> Result<String> {
        let line = |text: &str| Line { at: Stamp::default(), text: text.into() };
        let run = Finished::new(Stamp::default(), text.lines().map(line).collect(), None);
        judge(&run, &["5".to_owned()])
    }

    const GOOD: &str = "=== KNOWN BEGIN run\n5\n=== KNOWN END\n=== KNOWN BEGIN program\r\n5\r\n\
        === KNOWN END\nstress-ng: info: [9] successful run completed in 60.00s\n=== STRESS 0\n\
        === DONE";

    #[test]
    fn a_guest_is_good_that_prints_what_it_must_and_finds_nothing_wrong() {
        assert!(judged(GOOD).unwrap().contains("successful run"));
    }

    #[test]
    fn changes_of_the_cpu_are_counted_from_what_the_emulator_says() {
        let says = |text: &str| changes(&[text.to_owned(), "info: the end".to_owned()]);
        assert_eq!(says("info: The processor changed its CPU 512 times, in 9.81 us each"), 512);
        assert_eq!(says("info: The processor ran"), 0);
    }

    #[test]
    fn anything_else_is_a_failure() {
        for (from, to) in [
            ("5\r\n", "6\r\n"),
            ("STRESS 0", "STRESS 2"),
            ("=== STRESS 0", ""),
            ("=== STRESS 0", "stress-ng: fail:  [9] wrong\n=== STRESS 0"),
            ("=== STRESS 0", "=== STRESS 0\nBUG: oops"),
            ("=== DONE", ""),
        ] {
            assert!(judged(&GOOD.replace(from, to)).is_err(), "{from} {to}");
        }
    }
}
