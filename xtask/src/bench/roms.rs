//! Instructions a second in the ROMs of the `test-roms` crate.
//!
//! A ROM prints `loop NAME start` and `loop NAME tsc TICKS` around its work; the time is taken where
//! those lines arrive, not from the guest's own clock. The work of a micro-benchmark is a number of
//! instructions that its ROM states. A compiled loop depends on the C compiler: its instructions are
//! counted by QEMU, whose TSC counts them under `-icount shift=0`. The same loop as a program of the
//! host says itself how long it took.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use trivium_test_roms::{ACCESSES, Group, LOOPS, MICRO};

use super::Context;
use super::child::{self, Clock, Finished, Until};
use super::contender::{self, CONTENDERS, Contender, Guest, Kind};
use super::peers;
use super::sample::{Metric, Row, Unit, geometric_means, interleave};

/// Longer than the slowest contender takes for the longest ROM.
const LIMIT: Duration = Duration::from_secs(120);

/// Compiled loops in general registers, in long mode.
pub fn loops(context: &Context) -> Result<Vec<Row>> {
    compiled(context, Group::General, 64)
}

/// The same in 32-bit protected mode.
pub fn loops32(context: &Context) -> Result<Vec<Row>> {
    compiled(context, Group::General, 32)
}

/// Compiled loops of floating point and vectors, in long mode.
pub fn vectors(context: &Context) -> Result<Vec<Row>> {
    compiled(context, Group::Vector, 64)
}

/// The same in 32-bit protected mode.
pub fn vectors32(context: &Context) -> Result<Vec<Row>> {
    compiled(context, Group::Vector, 32)
}

/// The compiled loops of a group, and their geometric mean.
fn compiled(context: &Context, group: Group, bits: u32) -> Result<Vec<Row>> {
    let (rom, program) = (context.dir.join("loop.rom"), context.dir.join("loop.elf"));
    let mut rows = Vec::new();
    for body in LOOPS.iter().filter(|body| body.group == group && body.bits == bits) {
        contender::write(&rom, body.rom)?;
        contender::write(&program, body.program)?;
        fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        let guest = Guest::Loop { rom: &rom, program: &program, avx: body.avx };
        let instructions = count(body.name, &guest, &context.dir)?;
        rows.extend(measure(context, &context.contenders, body.name, &guest, instructions)?);
    }
    rows.extend(geometric_means(context, &rows));
    Ok(rows)
}

/// One ROM for each class of instructions.
pub fn micro(context: &Context) -> Result<Vec<Row>> {
    counted(context, MICRO)
}

/// One ROM for each kind of access to a device, and of interrupt.
pub fn accesses(context: &Context) -> Result<Vec<Row>> {
    counted(context, ACCESSES)
}

/// ROMs that say how much they do.
fn counted(context: &Context, roms: &[(&str, &[u8], u64)]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, image, instructions) in roms {
        let rom = context.dir.join("micro.rom");
        contender::write(&rom, image)?;
        let guest = Guest::Rom(&rom);
        rows.extend(measure(context, &context.machines(), name, &guest, *instructions)?);
    }
    Ok(rows)
}

#[expect(clippy::cast_precision_loss, reason = "counts of instructions are far below 2^53")]
fn measure(
    context: &Context,
    contenders: &[&'static Contender],
    name: &str,
    guest: &Guest<'_>,
    instructions: u64,
) -> Result<Vec<Row>> {
    interleave(context, contenders, |who| {
        let mut command = who.command(guest, &context.dir)?;
        let run = run(&mut command, name, who)?;
        let seconds = match who.kind {
            Kind::Native => spent(&run, name, context.clock)?,
            _ => {
                let (begin, end) = (marker(&run, name, "start")?, marker(&run, name, "tsc ")?);
                run.lines[end].at.since(run.lines[begin].at, context.clock)
            }
        };
        ensure!(seconds > 0.0, "{name} was over before its start was seen");
        let value = instructions as f64 / 1e6 / seconds;
        Ok(vec![Metric { name: name.into(), unit: Unit::MillionsPerSecond, value }])
    })
}

/// Runs a ROM to its end; an error if its checksum is not what it must be.
fn run(command: &mut Command, name: &str, who: &Contender) -> Result<Finished> {
    let run = child::run(command, Until::Exit, LIMIT, |_| ())?;
    ensure!(!run.says(&format!("loop {name} wrong")), "{name} has a wrong checksum");
    ensure!(run.says(&format!("loop {name} done")), "{name} is not done: {}", run.last_words());
    // Bochs takes a power-off for a panic of its own.
    let is_off = run.status.is_some_and(|status| status.success());
    ensure!(is_off || who.kind == Kind::Bochs, "{name} did not power off");
    Ok(run)
}

/// The index of the line that starts with `loop NAME WORD`.
fn marker(run: &Finished, name: &str, word: &str) -> Result<usize> {
    let text = format!("loop {name} {word}");
    let found = run.lines.iter().position(|line| line.text.contains(&text));
    found.with_context(|| format!("No line with {text:?}"))
}

/// The seconds of `loop NAME spent WALL CPU`.
fn spent(run: &Finished, name: &str, clock: Clock) -> Result<f64> {
    let line = &run.lines[marker(run, name, "spent ")?].text;
    let mut last = line.rsplit(' ');
    let (cpu, wall) = (last.next(), last.next());
    let digits = if clock == Clock::Cpu { cpu } else { wall };
    let nanoseconds = u64::from_str_radix(digits.unwrap_or_default(), 16);
    let nanoseconds = nanoseconds.with_context(|| format!("No time in {line:?}"))?;
    Ok(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// How many instructions the work of a ROM takes, by QEMU's count.
fn count(name: &str, guest: &Guest<'_>, dir: &Path) -> Result<u64> {
    let qemu = CONTENDERS.iter().find(|who| who.kind == Kind::QemuTcg);
    let qemu = qemu.context("QEMU is not among the contenders")?;
    peers::install(&[qemu])?;
    let mut command = qemu.command(guest, dir)?;
    command.args(["-icount", "shift=0"]);
    let run = run(&mut command, name, qemu)?;
    let line = &run.lines[marker(&run, name, "tsc ")?].text;
    let ticks = line.split_whitespace().last().unwrap_or_default();
    u64::from_str_radix(ticks, 16).with_context(|| format!("No count in {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::child::{Line, Stamp};

    #[test]
    fn a_program_of_the_host_says_what_it_spent_by_both_clocks() {
        let text = "loop sort spent 0000000077359400 000000003B9ACA00".to_owned();
        let run = Finished::new(Stamp::default(), vec![Line { at: Stamp::default(), text }], None);
        assert_eq!(spent(&run, "sort", Clock::Wall).unwrap(), 2.0);
        assert_eq!(spent(&run, "sort", Clock::Cpu).unwrap(), 1.0);
        assert!(spent(&run, "list", Clock::Cpu).is_err());
    }
}
