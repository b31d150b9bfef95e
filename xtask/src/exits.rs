//! How many exits a second KVM makes under Trivium and under QEMU, and how soon a guest's first
//! instruction runs: ROMs of a few instructions in real mode, which every KVM has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// How to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Exits of each kind
    #[arg(long, default_value_t = 200_000)]
    count: u32,
    /// Runs of each, of which the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Trivium's program
    #[arg(long, default_value = "target/release/trivium")]
    trivium: PathBuf,
    /// QEMU's program
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
}

/// What is done again and again, in 16-bit code with a DS of 4 GiB: neither machine has a device there.
const KINDS: [(&str, &[u8]); 4] = [
    // IN AL, 84h
    ("port read", &[0xe4, 0x84]),
    // OUT 84h, AL
    ("port write", &[0xe6, 0x84]),
    // MOV AX, [D0000000h]
    ("MMIO read", &[0x67, 0xa1, 0, 0, 0, 0xd0]),
    // MOV [D0000000h], AX
    ("MMIO write", &[0x67, 0xa3, 0, 0, 0, 0xd0]),
];

/// The port of `isa-debug-exit`.
const EXIT_PORT: u16 = 0x501;

/// A ROM of 64 KiB that does something `count` times and ends the run.
fn rom(code: &[u8], count: u32) -> Vec<u8> {
    // LGDT CS:[100h]; MOV EAX, CR0; OR AL, 1; MOV CR0, EAX; MOV BX, 8; MOV DS, BX; AND AL, FEh;
    // MOV CR0, EAX: back in real mode DS keeps its limit. Then MOV ECX, count
    let mut start = vec![0x2e, 0x0f, 0x01, 0x16, 0x00, 0x01, 0x0f, 0x20, 0xc0, 0x0c, 1];
    start.extend([0x0f, 0x22, 0xc0, 0xbb, 8, 0, 0x8e, 0xdb, 0x24, 0xfe, 0x0f, 0x22, 0xc0]);
    start.extend([0x66, 0xb9]);
    start.extend(count.to_le_bytes());
    if count > 0 {
        let body = [code, &[0x66, 0x49]].concat();
        // DEC ECX; JNZ
        let back = 0_u8.wrapping_sub(body.len() as u8 + 2);
        start.extend(body);
        start.extend([0x75, back]);
    }
    // MOV DX, EXIT_PORT; XOR AL, AL; OUT DX, AL; HLT
    start.push(0xba);
    start.extend(EXIT_PORT.to_le_bytes());
    start.extend([0x30, 0xc0, 0xee, 0xf4]);
    let mut rom = vec![0xf4; 0x1_0000];
    rom[..start.len()].copy_from_slice(&start);
    // The table at F0110h with one flat segment for data.
    rom[0x100..0x106].copy_from_slice(&[15, 0, 0x10, 0x01, 0x0f, 0]);
    rom[0x118..0x120].copy_from_slice(&[0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]);
    // JMP FAR F000:0000: the reset vector's CS has another base.
    rom[0xfff0..0xfff5].copy_from_slice(&[0xea, 0, 0, 0, 0xf0]);
    rom
}

/// Runs a program until it ends by the guest's doing.
fn time(command: &mut Command) -> Result<Duration> {
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output().context("Cannot be started")?;
    let time = begin.elapsed();
    // `(value << 1) | 1` of `isa-debug-exit`.
    if output.status.code() != Some(1) {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(time)
}

/// The two programs with the same ROM.
fn commands(args: &Args, rom: &Path) -> [(&'static str, Command); 2] {
    let mut trivium = Command::new(&args.trivium);
    trivium.args(["run", "--accel", "kvm", "--memory", "16M", "--serial", "null"]);
    trivium.arg("--debug-exit").arg(format!("{EXIT_PORT:#x}")).arg("--bios").arg(rom);
    let mut qemu = Command::new(&args.qemu);
    qemu.args(["-accel", "kvm", "-M", "pc", "-m", "16", "-display", "none", "-vga", "none"]);
    qemu.args(["-nodefaults", "-no-user-config"]);
    qemu.arg("-device").arg(format!("isa-debug-exit,iobase={EXIT_PORT:#x}"));
    qemu.arg("-bios").arg(rom);
    [("trivium", trivium), ("qemu", qemu)]
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The medians of both programs for a ROM, run in turns.
fn medians(args: &Args, folder: &Path, image: &[u8]) -> Result<[Duration; 2]> {
    let path = folder.join("exits.rom");
    std::fs::write(&path, image)?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..args.runs.max(1) {
        for (times, (_, mut command)) in times.iter_mut().zip(commands(args, &path)) {
            interrupt::check()?;
            times.push(time(&mut command)?);
        }
    }
    Ok(times.map(median))
}

/// Measures, and says what was found.
pub fn run(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let idle = medians(args, folder.path(), &rom(&[], 0))?;
    println!("| | trivium | qemu | ratio |");
    println!("|---|---|---|---|");
    let millis = idle.map(|time| time.as_secs_f64() * 1e3);
    println!(
        "| start to the first instructions' exit, ms | {:.1} | {:.1} | {:.2} |",
        millis[0],
        millis[1],
        millis[0] / millis[1]
    );
    for (name, code) in KINDS {
        let times = medians(args, folder.path(), &rom(code, args.count))?;
        let rates: Vec<_> = times
            .iter()
            .zip(idle)
            .map(|(time, idle)| f64::from(args.count) / time.saturating_sub(idle).as_secs_f64())
            .collect();
        let thousands = [rates[0] / 1e3, rates[1] / 1e3];
        println!(
            "| {name}, thousand exits a second | {:.0} | {:.0} | {:.2} |",
            thousands[0],
            thousands[1],
            thousands[0] / thousands[1]
        );
    }
    Ok(())
}
