//! Takes single files out of a Debian archive.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use flate2::read::GzDecoder;

use super::catalogue::Member;
use crate::process;

/// Takes `members` of the package `deb` to `out`, by way of a folder in `work`.
pub fn members(
    deb: &Path,
    members: &[Member],
    work: &Path,
    out: &Path,
    tick: &mut dyn FnMut(),
) -> Result<()> {
    let tree = work.join("tree");
    fs::create_dir(&tree)?;
    extract(deb, &tree, members.iter().map(|member| member.pattern), tick)?;
    for member in members {
        let found = find(&tree, member.pattern)?;
        take(&found, &out.join(member.file))
            .with_context(|| format!("Cannot take {}", found.display()))?;
    }
    Ok(())
}

/// Moves a file to its place; one that is compressed is unpacked, unless its new name says that it
/// is to stay so.
fn take(from: &Path, to: &Path) -> std::io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let is_gzip = |path: &Path| path.extension().is_some_and(|extension| extension == "gz");
    if is_gzip(from) && !is_gzip(to) {
        let mut packed = GzDecoder::new(fs::File::open(from)?);
        std::io::copy(&mut packed, &mut fs::File::create(to)?)?;
        return Ok(());
    }
    fs::rename(from, to)
}

/// `dpkg-deb --fsys-tarfile deb | tar -x patterns`: a kernel package holds hundreds of megabytes of
/// modules that need not touch the disk.
fn extract<'a>(
    deb: &Path,
    tree: &Path,
    patterns: impl Iterator<Item = &'a str>,
    tick: &mut dyn FnMut(),
) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(deb)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("Cannot start dpkg-deb (is it installed?)")?;
    let archive = dpkg.stdout.take().context("dpkg-deb gave no output")?;
    let mut tar = Command::new("tar")
        .args(["-x", "--no-same-owner", "--wildcards", "-C"])
        .arg(tree)
        .args(patterns)
        .stdin(archive)
        .stderr(Stdio::null())
        .spawn()
        .context("Cannot start tar (is it installed?)")?;
    let unpacked = process::wait(&mut tar, tick);
    let read = process::wait(&mut dpkg, tick);
    if !read?.success() || !unpacked?.success() {
        bail!("Package {} is damaged or lacks the files that were expected", deb.display());
    }
    Ok(())
}

/// The one file under `tree` that `pattern` names; only its last part may have a `*`, at the end.
fn find(tree: &Path, pattern: &str) -> Result<PathBuf> {
    let path = tree.join(pattern.trim_start_matches("./"));
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("{pattern} names no file");
    };
    let name = name.to_string_lossy();
    let Some(prefix) = name.strip_suffix('*') else { return Ok(path) };
    let entries = fs::read_dir(folder).with_context(|| format!("Package has no {pattern}"))?;
    let mut found = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    });
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("Package should have exactly one {pattern}"),
    }
}
