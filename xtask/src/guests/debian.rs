//! A root of Debian with some programs, as an initial RAM disk.
//!
//! Debian's mmdebstrap makes the tree, which needs root or user namespaces. It is packed without
//! documentation and the like, and not compressed, so that what is measured is not a decompressor.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use crate::process;

/// Debian's release, from which all guests are.
const SUITE: &str = "bookworm";
const MIRROR: &str = "deb http://deb.debian.org/debian bookworm main";

/// What a tree of Debian is made from.
pub struct Tree {
    /// Debian's name of the architecture.
    arch: &'static str,
    /// What is installed beside the essential packages.
    pub packages: &'static [&'static str],
    /// What goes into the folder `bench`, with which names; scripts, mostly.
    pub files: &'static [(&'static str, &'static str)],
}

/// For benchmarks: the first process is systemd, or a script that works with the programs.
pub const BENCH: Tree = Tree {
    arch: "amd64",
    packages: &["systemd-sysv", "udev", "tcc", "libc6-dev", "python3", "sqlite3", "openssl"],
    files: &[("work.sh", include_str!("../../../bench/guest/work.sh"))],
};

/// For load: the first process is a script.
pub const STRESS: Tree = stress("amd64");
/// The same, 32-bit.
pub const STRESS386: Tree = stress("i386");

const fn stress(arch: &'static str) -> Tree {
    Tree {
        arch,
        packages: &["stress-ng", "tcc", "libc6-dev"],
        files: &[("stress.sh", include_str!("../../../bench/guest/stress.sh")), ("known.c", KNOWN)],
    }
}

/// A program that prints what it has computed: the same wherever it is compiled and run.
pub const KNOWN: &str = include_str!("../../../bench/guest/known.c");

/// Folders that stay empty, and what is left out: nothing of it is used.
const LEFT_OUT: &[&str] = &[
    "boot",
    "dev",
    "proc",
    "run",
    "sys",
    "usr/lib/udev/hwdb.bin",
    "usr/lib/udev/hwdb.d",
    "usr/lib/i386-linux-gnu/gconv",
    "usr/lib/i386-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/share/doc",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
];

/// Makes `out/initrd` of `tree`; `mmdebstrap` is that program. Returns what it was made from.
pub fn build(
    tree: &Tree,
    mmdebstrap: &Path,
    work: &Path,
    out: &Path,
    tick: &mut dyn FnMut(),
) -> Result<Vec<String>> {
    let root = work.join("root");
    let mut command = Command::new("perl");
    command.arg(mmdebstrap).args(["--quiet", "--variant=minbase", "--mode=auto"]);
    // The processor runs both, so no other program has to.
    command.arg(format!("--architectures={}", tree.arch)).arg("--skip=check/qemu");
    command.arg(format!("--include={}", tree.packages.join(",")));
    for folder in ["doc", "info", "locale", "man"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command.args(["--format=directory", SUITE]).arg(&root).arg(MIRROR);
    process::capture(&mut command, &mut *tick).context("The tree of Debian cannot be made")?;
    let folder = root.join("bench");
    fs::create_dir(&folder)?;
    for (name, content) in tree.files {
        fs::write(folder.join(name), content)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
    }
    if tree.packages.contains(&"openssl") {
        let mut key = Command::new("openssl");
        key.args(["genrsa", "-out"]).arg(folder.join("key.pem")).arg("2048");
        process::capture(&mut key, tick)?;
    }
    let path = out.join("initrd");
    let file = File::create(&path).with_context(|| format!("Cannot make {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.device("dev/console", 0o600, (5, 1))?;
    pack(&mut archive, &root, &root).context("The tree cannot be packed")?;
    archive.finish()?;
    ensure!(fs::metadata(&path)?.len() < 512 << 20, "The tree has become too large for a RAM disk");
    Ok(vec![format!("{SUITE} with {}", tree.packages.join(" "))])
}

/// Adds what is in `folder` of the tree at `root`, in the order of names.
fn pack<W: io::Write>(archive: &mut Archive<W>, root: &Path, folder: &Path) -> io::Result<()> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        let data = fs::symlink_metadata(&path)?;
        let inside = path.strip_prefix(root).unwrap_or(&path);
        let Some(name) = inside.to_str() else { continue };
        let mode = data.permissions().mode() & 0o7777;
        if data.is_symlink() {
            archive.link(name, &fs::read_link(&path)?.to_string_lossy())?;
        } else if data.is_dir() {
            archive.folder(name, mode)?;
            if !LEFT_OUT.contains(&name) {
                pack(archive, root, &path)?;
            }
        } else if data.is_file() && !LEFT_OUT.contains(&name) {
            archive.file(name, mode, &fs::read(&path)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_keeps_its_folder() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["dev/pts", "etc"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("etc/hosts"), "localhost").unwrap();
        std::os::unix::fs::symlink("etc/hosts", root.path().join("link")).unwrap();
        let mut archive = Archive::new(Vec::new());
        pack(&mut archive, root.path(), root.path()).unwrap();
        let bytes = String::from_utf8(archive.finish().unwrap()).unwrap();
        let places =
            ["dev\0", "etc\0", "etc/hosts\0", "link\0"].map(|name| bytes.find(name).unwrap());
        assert!(places.is_sorted(), "a folder comes before what is in it");
        assert!(!bytes.contains("pts"));
    }
}
