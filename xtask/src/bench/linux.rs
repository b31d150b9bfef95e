//! Guests with Linux: their kernel, their user space, and what is measured of each.

use anyhow::{Context as _, Result, bail, ensure};

use super::Context;
use super::child::{self, Clock, Finished, Until};
use super::contender::{Contender, Guest, Kind};
use super::sample::{Metric, Row, geometric_means, interleave};
use super::scenario::LIMIT;
use crate::guests;

/// A guest with Linux, by the names of the guests' cache.
#[derive(Clone, Copy)]
pub struct Linux {
    /// Guest and file of the kernel.
    pub kernel: (&'static str, &'static str),
    /// Guest and file of the initial RAM disk.
    pub initrd: (&'static str, &'static str),
    /// The kernel's command line.
    pub command_line: &'static str,
    /// RAM in MiB.
    pub memory_mib: u64,
}

const fn reference(
    kernel: &'static str,
    initrd: &'static str,
    command_line: &'static str,
) -> Linux {
    Linux { kernel: (kernel, "vmlinuz"), initrd: (initrd, "initrd"), command_line, memory_mib: 512 }
}

const WHOLE: &str = "console=ttyS0 panic=-1";
const QUICK: &str = "console=ttyS0 panic=-1 quickexit";
const QUIET: &str = "console=ttyS0 panic=-1 quiet";

/// The reference guest, to its power-off without jobs.
pub const REFERENCE: Linux = reference("cloud", "initrd", QUICK);
const REFERENCE_JOBS: Linux = reference("cloud", "initrd", WHOLE);
const REFERENCE32: Linux = reference("linux686pae", "initrd386", QUICK);
const REFERENCE32_JOBS: Linux = reference("linux686pae", "initrd386", WHOLE);
const PATHS: Linux = reference("cloud", "paths", QUIET);
const PATHS32: Linux = reference("linux686pae", "paths386", QUIET);

const fn installer(guest: &'static str) -> Linux {
    Linux {
        kernel: (guest, "linux"),
        initrd: (guest, "initrd.gz"),
        command_line: "console=ttyS0 TERM=vt102",
        memory_mib: 1024,
    }
}

/// Debian with systemd as the first process.
const SYSTEMD: Linux = debian("console=ttyS0 panic=-1 quiet rdinit=/usr/lib/systemd/systemd");
/// Debian with a script that works as the first process.
const WORK: Linux = debian("console=ttyS0 panic=-1 quiet rdinit=/bench/work.sh");

const fn debian(command_line: &'static str) -> Linux {
    let (kernel, initrd) = (("cloud", "vmlinuz"), ("debian", "initrd"));
    Linux { kernel, initrd, command_line, memory_mib: 1024 }
}

/// The jobs of the reference guest and what each must print.
const JOBS: &[(&str, &str)] = &[
    ("loop", "200000"),
    ("sha256", "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"),
    ("gzip", "16303"),
    ("fork", "200"),
];

/// The reference guest from start to power-off.
pub fn boot(context: &Context) -> Result<Vec<Row>> {
    to_power_off(context, REFERENCE)
}

/// The 32-bit one.
pub fn boot32(context: &Context) -> Result<Vec<Row>> {
    to_power_off(context, REFERENCE32)
}

fn to_power_off(context: &Context, linux: Linux) -> Result<Vec<Row>> {
    interleave(context, &context.machines(), |who| {
        let run = run(context, who, linux, |_| ())?;
        Ok(vec![Metric::seconds("boot to power-off", run.elapsed.seconds(context.clock))])
    })
}

/// The whole of the reference guest, and each job.
pub fn jobs(context: &Context) -> Result<Vec<Row>> {
    all_jobs(context, REFERENCE_JOBS)
}

/// The same of the 32-bit one.
pub fn jobs32(context: &Context) -> Result<Vec<Row>> {
    all_jobs(context, REFERENCE32_JOBS)
}

fn all_jobs(context: &Context, linux: Linux) -> Result<Vec<Row>> {
    interleave(context, &context.machines(), |who| {
        let run = run(context, who, linux, |_| ())?;
        ensure!(run.says("=== DONE"), "the guest did not say DONE: {}", run.last_words());
        let mut metrics = vec![Metric::seconds("whole guest", run.elapsed.seconds(context.clock))];
        for (name, result) in JOBS {
            let seconds = job(&run, name, result, context.clock)?;
            metrics.push(Metric::seconds(format!("job {name}"), seconds));
        }
        Ok(metrics)
    })
}

/// The seconds from the guest's line before to `=== JOB <name> <seconds> s <result>`; those that the
/// guest prints are by its own clock, which may go wrong.
fn job(run: &Finished, name: &str, result: &str, clock: Clock) -> Result<f64> {
    let own: Vec<_> = run.lines.iter().filter(|line| line.text.contains("=== ")).collect();
    let start = format!("=== JOB {name} ");
    let first = own.windows(2).find_map(|pair| match pair {
        [before, line] => Some((before.at, line.at, line.text.split_once(&start)?.1)),
        _ => None,
    });
    let (begin, end, rest) = first.with_context(|| format!("No result of job {name}"))?;
    let printed = rest.split_whitespace().nth(2).unwrap_or_default();
    ensure!(printed == result, "Job {name} printed {printed} instead of {result}");
    Ok(end.since(begin, clock))
}

/// The kernel's paths, by a 64-bit kernel.
pub fn paths(context: &Context) -> Result<Vec<Row>> {
    between_marks(context, PATHS)
}

/// The kernel's paths, by a 32-bit kernel.
pub fn paths32(context: &Context) -> Result<Vec<Row>> {
    between_marks(context, PATHS32)
}

/// What a guest puts between lines of `=== BEGIN <name>` and `=== END <name>`, and the mean.
fn between_marks(context: &Context, linux: Linux) -> Result<Vec<Row>> {
    let mut rows = interleave(context, &context.machines(), |who| {
        let run = run(context, who, linux, |_| ())?;
        ensure!(run.says("=== DONE"), "the guest did not say DONE: {}", run.last_words());
        marks(&run, context.clock)
    })?;
    rows.extend(geometric_means(context, &rows));
    Ok(rows)
}

fn marks(run: &Finished, clock: Clock) -> Result<Vec<Metric>> {
    let marked = |word: &'static str| {
        run.lines.iter().filter_map(move |line| Some((line.at, line.text.split_once(word)?.1)))
    };
    let first_word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    let mut metrics = Vec::new();
    for (begin, name) in marked("=== BEGIN ").map(|(at, rest)| (at, first_word(rest))) {
        let end = marked("=== END ").find(|(_, rest)| first_word(rest) == name);
        let (end, _) = end.with_context(|| format!("{name} has no end: {}", run.last_words()))?;
        metrics.push(Metric::seconds(name, end.since(begin, clock)));
    }
    ensure!(!metrics.is_empty(), "the guest marked nothing: {}", run.last_words());
    Ok(metrics)
}

/// Debian's installer to its first question.
pub fn installer64(context: &Context) -> Result<Vec<Row>> {
    to_text(context, installer("installer-amd64"), "first question", "Choose the language")
}

/// The 32-bit one.
pub fn installer32(context: &Context) -> Result<Vec<Row>> {
    to_text(context, installer("installer-i386"), "first question", "Choose the language")
}

/// Debian from start until systemd has somebody ask for a name on the serial line.
pub fn systemd(context: &Context) -> Result<Vec<Row>> {
    guests::fetch_one("debian")?;
    to_text(context, SYSTEMD, "start to login", "login: ")
}

/// Programs of Debian at work.
pub fn work(context: &Context) -> Result<Vec<Row>> {
    guests::fetch_one("debian")?;
    between_marks(context, WORK)
}

/// From start until the guest has printed `text`.
fn to_text(context: &Context, linux: Linux, name: &str, text: &'static str) -> Result<Vec<Row>> {
    interleave(context, &context.machines(), |who| {
        let mut command = who.command(&Guest::Linux(linux), &context.dir)?;
        let run = child::run(&mut command, Until::Text(text), LIMIT, |_| ())?;
        ensure!(run.status.is_none(), "it ended before: {}", run.last_words());
        Ok(vec![Metric::seconds(name, run.elapsed.seconds(context.clock))])
    })
}

/// Runs a guest to its power-off.
pub fn run(
    context: &Context,
    who: &Contender,
    linux: Linux,
    tick: impl FnMut(u32),
) -> Result<Finished> {
    let mut command = who.command(&Guest::Linux(linux), &context.dir)?;
    let run = child::run(&mut command, Until::Exit, LIMIT, tick)?;
    ensure!(run.says("=== "), "the guest did not come up: {}", run.last_words());
    let status = run.status.map(|status| status.success());
    // Bochs takes a power-off for a panic of its own.
    if who.kind != Kind::Bochs && status != Some(true) {
        bail!("the guest did not power off: {}", run.last_words());
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::child::{Line, Stamp};

    fn finished(text: &str) -> Finished {
        let line = |text: &str| Line { at: Stamp::default(), text: text.into() };
        Finished::new(Stamp::default(), text.lines().map(line).collect(), None)
    }

    #[test]
    fn a_job_counts_only_with_the_right_result() {
        let gzip = |line: &str| {
            let run = finished(&format!("=== GUEST UP 6.1\n[ 1.0] noise\n{line}"));
            job(&run, "gzip", "16303", Clock::Wall)
        };
        assert_eq!(gzip("=== JOB gzip 0.50 s 16303").unwrap(), 0.0);
        assert!(gzip("=== JOB gzip 0.50 s 16304").is_err());
        assert!(gzip("=== JOB loop 0.50 s 1").is_err());
    }

    #[test]
    fn every_mark_needs_its_end() {
        let names = |text: &str| -> Result<Vec<String>> {
            let metrics = marks(&finished(text), Clock::Wall)?;
            Ok(metrics.into_iter().map(|metric| metric.name).collect())
        };
        let both = "=== BEGIN a 1\n=== END a 1\n[ 1.0] === BEGIN b 1\n=== END b 1";
        assert_eq!(names(both).unwrap(), ["a", "b"]);
        assert!(names("=== BEGIN a 1\n=== END b 1").is_err());
        assert!(names("nothing").is_err());
    }
}
