//! The reference guest's user space: a static busybox and an `/init` that works and powers off.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::catalogue::Member;
use super::cpio::Archive;

/// The first process of the guest.
pub const INIT: &str = include_str!("initrd/init.sh");
/// The first process of the guest that looks at its firmware's tables.
pub const TOOLS_INIT: &str = include_str!("initrd/tools.sh");

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

/// Makes `out/initrd` from programs that are in `tree`, and `init`.
pub fn build(tree: &Path, programs: &[&Member], init: &str, out: &Path) -> Result<()> {
    let mut files = Vec::new();
    for program in programs {
        let path = tree.join(program.file);
        let content = fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
        files.push((program.file, content));
    }
    let path = out.join("initrd");
    let file = File::create(&path).with_context(|| format!("Cannot make {}", path.display()))?;
    write(GzEncoder::new(file, Compression::best()), &files, init)
        .and_then(GzEncoder::finish)
        .with_context(|| format!("Cannot write {}", path.display()))?;
    Ok(())
}

fn write<W: std::io::Write>(out: W, files: &[(&str, Vec<u8>)], init: &str) -> std::io::Result<W> {
    let mut archive = Archive::new(out);
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder, 0o755)?;
    }
    let libraries: BTreeSet<&Path> =
        files.iter().flat_map(|(name, _)| Path::new(name).ancestors().skip(1)).collect();
    for folder in libraries.iter().filter_map(|path| path.to_str()) {
        if !folder.is_empty() && folder != "bin" {
            archive.folder(folder, 0o755)?;
        }
    }
    // The kernel opens it for /init before anything is mounted on /dev.
    archive.device("dev/console", 0o600, (5, 1))?;
    for (name, content) in files {
        archive.file(name, 0o755, content)?;
    }
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    archive.file("init", 0o755, init.as_bytes())?;
    archive.finish()
}
