//! Bochs has neither `-kernel` nor options enough: it gets a GRUB CD and a configuration file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::contender::{self, Guest};
use super::linux::Linux;
use crate::{guests, process};

/// Debian's SeaBIOS and its BIOS for the standard VGA, which Bochs runs too.
const BIOS: &str = "/usr/share/seabios/bios.bin";
const VGA_BIOS: &str = "/usr/share/seabios/vgabios-stdvga.bin";

/// What holds for every guest. `rfb` needs neither an X server nor a terminal, and waits for
/// nobody; what has no host device here is left out.
const COMMON: &str = r#"display_library: rfb, options="timeout=0"
plugin_ctrl: speaker=0
cpu: model=corei7_sandy_bridge_2600k, ips=100000000, reset_on_triple_fault=0
clock: sync=none
com1: enabled=1, mode=file, dev=/dev/stdout
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"#;

/// The command that runs `guest`; its configuration goes to `dir`.
pub fn command(guest: &Guest<'_>, dir: &Path) -> Result<Command> {
    let mut text = COMMON.to_owned();
    writeln!(text, "megs: {}", guest.memory_mib())?;
    writeln!(text, "log: {}", dir.join("bochs.log").display())?;
    match guest {
        Guest::Linux(linux) => {
            let iso = iso(linux, dir)?;
            writeln!(text, "romimage: file={BIOS}\nvgaromimage: file={VGA_BIOS}")?;
            writeln!(text, "ata0-master: type=cdrom, path={}, status=inserted", iso.display())?;
            writeln!(text, "boot: cdrom")?;
        }
        Guest::Rom(rom) | Guest::Loop { rom, .. } => {
            writeln!(text, "romimage: file={}\nvgaromimage: file={VGA_BIOS}", rom.display())?;
        }
    }
    let (config, start) = (dir.join("bochsrc"), dir.join("bochs-commands"));
    contender::write(&config, text.as_bytes())?;
    // Debian's Bochs stops in its debugger before the first instruction: go on.
    contender::write(&start, b"c\n")?;
    let mut command = Command::new("bochs");
    command.arg("-q").arg("-f").arg(config).arg("-rc").arg(start);
    Ok(command)
}

/// A CD that starts the guest.
fn iso(linux: &Linux, dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("cd");
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    for ((guest, file), name) in [(linux.kernel, "vmlinuz"), (linux.initrd, "initrd")] {
        let from = guests::path(guest, file)?;
        fs::copy(&from, boot.join(name)).with_context(|| format!("Copy of {}", from.display()))?;
    }
    let menu = format!(
        "set timeout=0\nmenuentry linux {{\n  linux /boot/vmlinuz {}\n  \
         initrd /boot/initrd\n}}\n",
        linux.command_line
    );
    contender::write(&boot.join("grub/grub.cfg"), menu.as_bytes())?;
    let iso = dir.join("linux.iso");
    let mut command = Command::new("grub-mkrescue");
    command.args(["-d", "/usr/lib/grub/i386-pc", "-o"]).arg(&iso).arg(&tree);
    process::capture(&mut command, || ())?;
    Ok(iso)
}
