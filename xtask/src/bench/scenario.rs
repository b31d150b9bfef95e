//! The table of scenarios, and those that measure the program rather than a guest.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use super::child::{self, Until};
use super::contender::{self, Contender, Guest};
use super::linux::{self, REFERENCE};
use super::memory;
use super::roms;
use super::sample::{Metric, Row, Unit, interleave};
use super::warmup;
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
    Scenario {
        name: "boot",
        about: "the reference guest from start to power-off",
        run: linux::boot,
    },
    Scenario {
        name: "jobs",
        about: "the whole of the reference guest, and each of its four jobs",
        run: linux::jobs,
    },
    Scenario { name: "boot32", about: "the same with a 32-bit kernel", run: linux::boot32 },
    Scenario { name: "jobs32", about: "its jobs with a 32-bit kernel", run: linux::jobs32 },
    Scenario {
        name: "installer",
        about: "Debian's installer from start to its first question",
        run: linux::installer64,
    },
    Scenario { name: "installer32", about: "the 32-bit installer", run: linux::installer32 },
    Scenario { name: "systemd", about: "Debian with systemd to its login", run: linux::systemd },
    Scenario { name: "work", about: "programs of Debian at work", run: linux::work },
    Scenario { name: "paths", about: "the kernel's paths, in a 64-bit guest", run: linux::paths },
    Scenario { name: "paths32", about: "the same in a 32-bit guest", run: linux::paths32 },
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
    Scenario {
        name: "warmup",
        about: "instructions a second from a cold start on, by windows of time",
        run: warmup::warmup,
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

/// What the ROM of `start` sends.
const MARK: u8 = 1;

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
        linux::run(context, who, REFERENCE, |process| {
            peak = peak.max(memory::overhead_kib(process, REFERENCE.memory_mib));
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

    #[test]
    fn the_start_rom_has_its_jump_at_the_reset_vector() {
        let rom = start_rom();
        assert_eq!(rom.len(), 0x1_0000);
        assert_eq!(rom[0xFFF0], 0xEA);
    }
}
