//! The reference guest's user space: a static busybox and an `/init` that works and powers off.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::catalogue::Member;
use super::cpio::Archive;
use super::unpack;

/// The first process of the guest.
pub const INIT: &str = include_str!("initrd/init.sh");

/// The commands of busybox that get a name of their own.
pub const APPLETS: &[&str] = &[
    "cat",
    "date",
    "dd",
    "dmesg",
    "echo",
    "free",
    "grep",
    "gzip",
    "halt",
    "ls",
    "mount",
    "poweroff",
    "ps",
    "reboot",
    "sh",
    "sha256sum",
    "sleep",
    "true",
    "uname",
    "vi",
    "wc",
];

/// Makes `out/initrd` from the archive of a busybox-static package.
pub fn build(deb: &Path, work: &Path, out: &Path, tick: &mut dyn FnMut()) -> Result<()> {
    let member = Member { pattern: "./bin/busybox", file: "busybox" };
    unpack::members(deb, &[member], work, work, tick)?;
    let busybox = fs::read(work.join("busybox")).context("Cannot read busybox")?;
    let path = out.join("initrd");
    let file = File::create(&path).with_context(|| format!("Cannot make {}", path.display()))?;
    write(GzEncoder::new(file, Compression::best()), &busybox)
        .and_then(GzEncoder::finish)
        .with_context(|| format!("Cannot write {}", path.display()))?;
    Ok(())
}

fn write<W: std::io::Write>(out: W, busybox: &[u8]) -> std::io::Result<W> {
    let mut archive = Archive::new(out);
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder, 0o755)?;
    }
    // The kernel opens it for /init before anything is mounted on /dev.
    archive.device("dev/console", 0o600, (5, 1))?;
    archive.file("bin/busybox", 0o755, busybox)?;
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.finish()
}
