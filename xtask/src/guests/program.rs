//! A user space that is one static program of ours.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::cpio::Archive;
use crate::process;

const FLAGS: &[&str] = &["-std=gnu11", "-O2", "-static", "-s"];

/// Compiles `source` and makes `out/initrd` with it as `/init`; returns what it was made from.
pub fn build(
    source: &str,
    width: &str,
    work: &Path,
    out: &Path,
    tick: &mut dyn FnMut(),
) -> Result<Vec<String>> {
    let (file, program) = (work.join("init.c"), work.join("init"));
    fs::write(&file, source)?;
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(compiler);
    command.arg(width).args(FLAGS).arg(&file).arg("-o").arg(&program);
    process::capture(&mut command, tick)
        .with_context(|| format!("A static C library for {width} is needed (gcc-multilib)"))?;
    let path = out.join("initrd");
    let file = File::create(&path).with_context(|| format!("Cannot make {}", path.display()))?;
    write(GzEncoder::new(file, Compression::best()), &fs::read(&program)?)
        .and_then(GzEncoder::finish)
        .with_context(|| format!("Cannot write {}", path.display()))?;
    Ok(vec![format!("source of ours, {width}")])
}

fn write<W: std::io::Write>(out: W, init: &[u8]) -> std::io::Result<W> {
    let mut archive = Archive::new(out);
    archive.folder("dev", 0o755)?;
    // The kernel opens it for /init.
    archive.device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, init)?;
    archive.finish()
}
