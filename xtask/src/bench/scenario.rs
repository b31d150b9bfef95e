//! The table of scenarios, and those that boot Linux or measure the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::Context;
use super::child::{self, Finished, Until};
use super::contender::{self, Contender, Guest, Kind, MEMORY_MIB};
use super::memory;
use super::roms;
use super::sample::{Metric, Row, Unit, interleave};
use crate::{ci, process};

/// Something that is measured.
pub struct Scenario {
    /// Its name on the command line and of its file.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Measures it.
    pub run: fn(&Context) -> Result<Vec<Row>>,
}

/// Every scenario, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "boot", about: "the reference guest from start to power-off", run: boot },
    Scenario {
        name: "jobs",
        about: "the whole of the reference guest, and each of its four jobs by its own clock",
        run: jobs,
    },
    Scenario { name: "loops", about: "compiled loops in a ROM, 64-bit", run: roms::loops },
    Scenario { name: "loops32", about: "the same loops in 32-bit code", run: roms::loops32 },
    Scenario {
        name: "vectors",
        about: "compiled loops of floating point and vectors, 64-bit",
        run: roms::vectors,
    },
    Scenario { name: "vectors32", about: "the same in 32-bit code", run: roms::vectors32 },
    Scenario { name: "micro", about: "classes of instructions in a ROM", run: roms::micro },
    Scenario {
        name: "accesses",
        about: "accesses to devices, and interrupts, in a ROM",
        run: roms::accesses,
    },
    Scenario { name: "start", about: "from exec to the first guest instruction", run: start },
    Scenario {
        name: "memory",
        about: "peak of resident memory without guest RAM while the reference guest boots",
        run: memory,
    },
    Scenario { name: "build", about: "a clean release build", run: build },
];

/// Longer than the slowest contender takes for the longest guest.
pub const LIMIT: Duration = Duration::from_secs(900);

/// The jobs of the reference guest and what each must print.
const JOBS: &[(&str, &str)] = &[
    ("loop", "200000"),
    ("sha256", "3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"),
    ("gzip", "16303"),
    ("fork", "200"),
];

/// What the ROM of `start` sends.
const MARK: u8 = 1;

fn boot(context: &Context) -> Result<Vec<Row>> {
    interleave(context, &context.machines(), |who| {
        let run = linux(who, "quickexit", &context.dir, |_| ())?;
        Ok(vec![Metric::seconds("boot to power-off", run.elapsed.seconds(context.clock))])
    })
}

fn jobs(context: &Context) -> Result<Vec<Row>> {
    interleave(context, &context.machines(), |who| {
        let run = linux(who, "", &context.dir, |_| ())?;
        ensure!(run.says("=== DONE"), "the guest did not say DONE: {}", run.last_words());
        let mut metrics = vec![Metric::seconds("whole guest", run.elapsed.seconds(context.clock))];
        for (name, result) in JOBS {
            metrics.push(Metric::seconds(format!("job {name}"), job(&run, name, result)?));
        }
        Ok(metrics)
    })
}

/// The seconds of `=== JOB <name> <seconds> s <result>`.
fn job(run: &Finished, name: &str, result: &str) -> Result<f64> {
    let start = format!("=== JOB {name} ");
    let found = run.lines.iter().find_map(|line| line.text.split_once(&start));
    let (_, rest) = found.with_context(|| format!("No result of job {name}"))?;
    let mut words = rest.split_whitespace();
    let seconds = words.next().and_then(|word| word.parse().ok());
    let printed = words.nth(1).unwrap_or_default();
    ensure!(printed == result, "Job {name} printed {printed} instead of {result}");
    seconds.with_context(|| format!("Job {name} printed no seconds"))
}

/// Boots the reference guest to its end.
fn linux(who: &Contender, append: &str, dir: &Path, tick: impl FnMut(u32)) -> Result<Finished> {
    let mut command = who.command(&Guest::Linux { append }, dir)?;
    let run = child::run(&mut command, Until::Exit, LIMIT, tick)?;
    ensure!(run.says("=== GUEST UP"), "the guest did not come up: {}", run.last_words());
    let status = run.status.map(|status| status.success());
    // Bochs takes a power-off for a panic of its own.
    if who.kind != Kind::Bochs && status != Some(true) {
        bail!("the guest did not power off: {}", run.last_words());
    }
    Ok(run)
}

fn start(context: &Context) -> Result<Vec<Row>> {
    let rom = context.dir.join("start.rom");
    contender::write(&rom, &start_rom())?;
    interleave(context, &context.machines(), |who| {
        let mut command = who.command(&Guest::Rom(&rom), &context.dir)?;
        let run = child::run(&mut command, Until::Byte(MARK), Duration::from_secs(30), |_| ())?;
        ensure!(run.status.is_none(), "it ended before the guest started: {}", run.last_words());
        let value = run.elapsed.seconds(context.clock) * 1e3;
        let name = "start to first guest output".into();
        Ok(vec![Metric { name, unit: Unit::Milliseconds, value }])
    })
}

/// A 64 KiB ROM that sends `MARK` on the first serial port and then loops.
fn start_rom() -> Vec<u8> {
    let code = [
        &[0xBA, 0xF8, 0x03][..], // mov dx, 3F8h
        &[0xB0, MARK],           // mov al, MARK
        &[0xEE],                 // out dx, al
        &[0xEB, 0xFE],           // jmp to itself; Bochs takes a halt for the end
    ]
    .concat();
    let reset = [0xEA, 0x00, 0x00, 0x00, 0xF0]; // jmp F000:0000
    let mut rom = vec![0xF4; 0x1_0000];
    rom.splice(..code.len(), code);
    rom.splice(0xFFF0..0xFFF0 + reset.len(), reset);
    rom
}

fn memory(context: &Context) -> Result<Vec<Row>> {
    interleave(context, &context.machines(), |who| {
        let mut peak = None;
        linux(who, "quickexit", &context.dir, |process| {
            peak = peak.max(memory::overhead_kib(process, MEMORY_MIB));
        })?;
        let kib = peak.context("No mapping of guest RAM was seen")?;
        let name = "peak resident without guest RAM".into();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let value = kib as f64 / 1024.0;
        Ok(vec![Metric { name, unit: Unit::Mebibytes, value }])
    })
}

/// Builds once, in a target folder of its own.
fn build(context: &Context) -> Result<Vec<Row>> {
    let ours: Vec<&'static Contender> =
        context.contenders.iter().copied().filter(|who| who.is_ours()).take(1).collect();
    let target: PathBuf = context.dir.join("build");
    let once = Context { runs: 1, contenders: ours, ..context.clone() };
    interleave(&once, &once.machines(), |_| {
        if target.exists() {
            fs::remove_dir_all(&target)?;
        }
        let mut cargo = ci::cargo();
        cargo.args(["build", "--release", "--package", "trivium", "--target-dir"]).arg(&target);
        let begin = Instant::now();
        process::capture(&mut cargo, || ())?;
        let value = begin.elapsed().as_secs_f64();
        fs::remove_dir_all(&target)?;
        Ok(vec![Metric::seconds("clean release build", value)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::child::{Line, Stamp};

    fn finished(text: &str) -> Finished {
        let lines = vec![Line { at: Stamp::default(), text: text.into() }];
        Finished::new(Stamp::default(), lines, None)
    }

    #[test]
    fn a_job_counts_only_with_the_right_result() {
        assert_eq!(job(&finished("=== JOB gzip 0.50 s 16303"), "gzip", "16303").unwrap(), 0.5);
        assert!(job(&finished("=== JOB gzip 0.50 s 16304"), "gzip", "16303").is_err());
        assert!(job(&finished("=== JOB loop 0.50 s 1"), "gzip", "16303").is_err());
    }

    #[test]
    fn the_start_rom_has_its_jump_at_the_reset_vector() {
        let rom = start_rom();
        assert_eq!(rom.len(), 0x1_0000);
        assert_eq!(rom[0xFFF0], 0xEA);
    }
}
