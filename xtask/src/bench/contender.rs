//! Who is measured, and the command line with which each runs a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

use super::bochs;
use super::linux::Linux;
use crate::{ci, guests};

/// RAM in MiB for a ROM.
const ROM_MEMORY_MIB: u64 = 512;

/// A program that runs guests.
pub struct Contender {
    /// Its name in tables and on the command line.
    pub name: &'static str,
    /// Which program with which settings.
    pub about: &'static str,
    /// How it is started.
    pub kind: Kind,
    /// Whether it runs each scenario only once.
    pub is_slow: bool,
}

/// How a contender is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This project, with an accelerator.
    Trivium {
        /// What follows `--accel`.
        accel: &'static str,
    },
    /// QEMU with one thread of TCG.
    QemuTcg,
    /// Bochs.
    Bochs,
    /// No emulator: the guest's code in a process of the host.
    Native,
}

/// Every contender; the one that ratios refer to is `BASELINE`.
pub const CONTENDERS: &[Contender] = &[
    Contender {
        name: "trivium-interp",
        about: "trivium run --accel interp",
        kind: Kind::Trivium { accel: "interp" },
        is_slow: false,
    },
    Contender {
        name: "trivium-jit",
        about: "trivium run --accel jit",
        kind: Kind::Trivium { accel: "jit" },
        is_slow: false,
    },
    Contender {
        name: "qemu-tcg",
        about: "qemu-system-x86_64 -accel tcg,thread=single (-cpu qemu64, its default; max for loops with AVX)",
        kind: Kind::QemuTcg,
        is_slow: false,
    },
    Contender {
        name: "bochs",
        about: "Debian's bochs, which is built with its debugger; Linux from a GRUB CD; run once",
        kind: Kind::Bochs,
        is_slow: true,
    },
    Contender {
        name: "native",
        about: "the same machine code in a process of the host; compiled loops only",
        kind: Kind::Native,
        is_slow: false,
    },
];

/// The contender that others are compared with.
pub const BASELINE: &str = "qemu-tcg";

/// A guest to run.
pub enum Guest<'a> {
    /// Linux.
    Linux(Linux),
    /// A ROM in place of the BIOS.
    Rom(&'a Path),
    /// A compiled loop: a ROM, and a program of the host with the same code.
    Loop {
        /// The ROM.
        rom: &'a Path,
        /// The program.
        program: &'a Path,
        /// Whether it needs a processor with AVX.
        avx: bool,
    },
}

impl Guest<'_> {
    /// RAM in MiB.
    pub fn memory_mib(&self) -> u64 {
        match self {
            Guest::Linux(linux) => linux.memory_mib,
            Guest::Rom(_) | Guest::Loop { .. } => ROM_MEMORY_MIB,
        }
    }
}

impl Contender {
    /// Whether it is this project.
    pub fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Trivium { .. })
    }

    /// The command that runs `guest` with its serial port on standard output; `dir` is for files
    /// that are needed on the way.
    pub fn command(&self, guest: &Guest<'_>, dir: &Path) -> Result<Command> {
        match self.kind {
            Kind::Trivium { accel } => trivium_command(accel, guest),
            Kind::QemuTcg => qemu_command(guest),
            Kind::Bochs => bochs::command(guest, dir),
            Kind::Native => native_command(guest),
        }
    }
}

/// The program that is measured as Trivium, when it is not the one that is built.
static TRIVIUM: OnceLock<PathBuf> = OnceLock::new();

/// Measures `program` instead of the one that `cargo build --release` leaves.
pub fn use_trivium(program: &Path) {
    TRIVIUM.get_or_init(|| program.to_owned());
}

/// Whether it is not the one that is built from this source.
pub fn is_foreign() -> bool {
    TRIVIUM.get().is_some()
}

/// The program that is measured as Trivium.
pub fn trivium() -> PathBuf {
    if let Some(program) = TRIVIUM.get() {
        return program.clone();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| "target".into());
    ci::root().join(target).join("release/trivium")
}

fn trivium_command(accel: &str, guest: &Guest<'_>) -> Result<Command> {
    let mut command = Command::new(trivium());
    command.args(["run", "--accel", accel, "--memory", &format!("{}M", guest.memory_mib())]);
    command.args(["--serial", "stdio", "--display", "none", "--no-reboot"]);
    match guest {
        Guest::Linux(linux) => linux_options(&mut command, "--", linux)?,
        Guest::Rom(rom) | Guest::Loop { rom, .. } => {
            command.arg("--bios").arg(rom);
        }
    }
    Ok(command)
}

/// No network card, so that both machines have the same devices to start.
fn qemu_command(guest: &Guest<'_>) -> Result<Command> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=single", "-m", &guest.memory_mib().to_string()]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none", "-nic", "none"]);
    command.arg("-no-reboot");
    match guest {
        Guest::Linux(linux) => linux_options(&mut command, "-", linux)?,
        Guest::Rom(rom) | Guest::Loop { rom, .. } => {
            command.arg("-bios").arg(rom);
            if let Guest::Loop { avx: true, .. } = guest {
                command.args(["-cpu", "max"]);
            }
        }
    }
    Ok(command)
}

/// Kernel, initial RAM disk and command line, which are called alike by both.
fn linux_options(command: &mut Command, dash: &str, linux: &Linux) -> Result<()> {
    for (option, (guest, file)) in [("kernel", linux.kernel), ("initrd", linux.initrd)] {
        command.arg(format!("{dash}{option}")).arg(guests::path(guest, file)?);
    }
    command.arg(format!("{dash}append")).arg(linux.command_line);
    Ok(())
}

fn native_command(guest: &Guest<'_>) -> Result<Command> {
    match guest {
        Guest::Loop { program, .. } => Ok(Command::new(program)),
        Guest::Linux(_) | Guest::Rom(_) => bail!("This needs a machine"),
    }
}

/// Writes `bytes` to a file that a command names.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("Cannot write {}", path.display()))
}
