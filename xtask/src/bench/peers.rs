//! Installs the peers that are missing, through apt.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::chart;
use super::contender::{Contender, Kind};
use crate::process;

/// A program or file, and the package it is in.
const QEMU: &[(&str, &str)] = &[("qemu-system-x86_64", "qemu-system-x86")];
const BOCHS: &[(&str, &str)] = &[
    ("bochs", "bochs"),
    // One of its user interfaces; without it apt takes one that needs a desktop.
    ("bochs", "bochs-term"),
    ("/usr/share/seabios/bios.bin", "seabios"),
    ("grub-mkrescue", "grub-common"),
    ("/usr/lib/grub/i386-pc/boot.img", "grub-pc-bin"),
    ("xorriso", "xorriso"),
    ("mformat", "mtools"),
];

/// Installs what `contenders` need and the machine does not have.
pub fn install(contenders: &[&Contender]) -> Result<()> {
    let needed = contenders.iter().flat_map(|contender| match contender.kind {
        Kind::Trivium { .. } | Kind::Native => [].iter(),
        Kind::QemuTcg => QEMU.iter(),
        Kind::Bochs => BOCHS.iter(),
    });
    install_all(needed)
}

/// Installs what the chart is written with.
pub fn install_font() -> Result<()> {
    install_all([(chart::FONT, "fonts-dejavu-core")].iter())
}

fn install_all<'a>(needed: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Result<()> {
    let missing: Vec<&str> =
        needed.filter(|(file, _)| !is_present(file)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("Installing {}", missing.join(" "));
    let install = || -> Result<()> {
        process::capture(apt().arg("update"), || ())?;
        let options = ["install", "--yes", "--no-install-recommends"];
        process::capture(apt().args(options).args(&missing), || ())?;
        Ok(())
    };
    install().with_context(|| {
        format!("Cannot install {} (leave peers out with --who)", missing.join(" "))
    })
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    command
}

fn is_present(file: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    Path::new(file).is_absolute() && Path::new(file).exists()
        || env::split_paths(&path).any(|folder| folder.join(file).is_file())
}
