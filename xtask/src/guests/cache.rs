//! The folder that guests are kept in: where it is, what is complete, how a guest gets there.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::catalogue::Guest;
use crate::interrupt;

const MANIFEST: &str = "guest.json";

/// The cache of guests.
pub struct Cache {
    root: PathBuf,
}

/// What `guest.json` says.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    fingerprint: u32,
    /// The packages with their versions.
    pub packages: Vec<String>,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    name: String,
    size: u64,
}

impl Cache {
    /// The cache that the environment names, made when it is not there.
    pub fn open() -> Result<Self> {
        let root = root(|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from));
        let Some(root) = root else {
            bail!("No place for guests: set TRIVIUM_GUESTS, XDG_CACHE_HOME or HOME");
        };
        fs::create_dir_all(&root).with_context(|| format!("Cannot make {}", root.display()))?;
        let root = root.canonicalize()?;
        Ok(Self { root })
    }

    /// The folder of all guests.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one guest.
    pub fn guest(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The manifest of `guest` when it is of the present recipe and all files have their size.
    pub fn complete(&self, guest: &Guest) -> Option<Manifest> {
        let folder = self.guest(guest.name);
        let manifest = fs::read(folder.join(MANIFEST)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&manifest).ok()?;
        let size = |name: &str| Some(fs::metadata(folder.join(name)).ok()?.len());
        let whole = manifest.fingerprint == guest.fingerprint()
            && manifest.files.iter().map(|file| &file.name).eq(guest.files())
            && manifest.files.iter().all(|file| size(&file.name) == Some(file.size));
        whole.then_some(manifest)
    }

    /// Keeps other `guests` commands out; waits until one that runs has ended.
    pub fn lock(&self) -> Result<File> {
        let path = self.root.join(".lock");
        let file =
            File::create(&path).with_context(|| format!("Cannot make {}", path.display()))?;
        let mut told = false;
        loop {
            interrupt::check()?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if told => thread::sleep(Duration::from_millis(200)),
                Err(TryLockError::WouldBlock) => {
                    println!("  waiting for another `cargo xtask guests`");
                    told = true;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("Cannot lock {}", path.display()));
                }
            }
        }
    }

    /// A folder on the cache's file system that is removed when dropped.
    pub fn temporary(&self) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(&self.root)
            .with_context(|| format!("Cannot make a folder in {}", self.root.display()))
    }

    /// Renames `out`, which holds the files of `guest`, into place.
    pub fn commit(&self, guest: &Guest, out: &Path, packages: Vec<String>) -> Result<Vec<String>> {
        let mut files = Vec::new();
        for name in guest.files() {
            let file = fs::metadata(out.join(name)).with_context(|| format!("Made no {name}"))?;
            files.push(FileEntry { name: name.into(), size: file.len() });
        }
        let manifest = Manifest { fingerprint: guest.fingerprint(), packages, files };
        fs::write(out.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
        let target = self.guest(guest.name);
        if target.exists() {
            fs::remove_dir_all(&target)
                .with_context(|| format!("Cannot replace {}", target.display()))?;
        }
        fs::rename(out, &target).with_context(|| format!("Cannot make {}", target.display()))?;
        Ok(manifest.packages)
    }
}

/// Where the cache is, by the variables of the environment.
fn root(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let default = |base: PathBuf| base.join("trivium/guests");
    variable("TRIVIUM_GUESTS")
        .or_else(|| variable("XDG_CACHE_HOME").map(default))
        .or_else(|| variable("HOME").map(|home| default(home.join(".cache"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::catalogue::GUESTS;

    fn root_with(set: &[(&str, &str)]) -> Option<PathBuf> {
        root(|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_environment_names_the_cache() {
        let home = ("HOME", "/home/a");
        let xdg = ("XDG_CACHE_HOME", "/c");
        let own = ("TRIVIUM_GUESTS", "/g");
        assert_eq!(root_with(&[home, xdg, own]).unwrap(), Path::new("/g"));
        assert_eq!(root_with(&[home, xdg]).unwrap(), Path::new("/c/trivium/guests"));
        assert_eq!(root_with(&[home]).unwrap(), Path::new("/home/a/.cache/trivium/guests"));
        assert_eq!(root_with(&[]), None);
    }

    #[test]
    fn a_guest_with_a_damaged_file_is_not_complete() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache { root: dir.path().into() };
        let guest = &GUESTS[0];
        let work = cache.temporary().unwrap();
        let out = work.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("vmlinuz"), b"kernel").unwrap();
        assert!(cache.complete(guest).is_none());
        cache.commit(guest, &out, vec!["a 1".into()]).unwrap();
        assert_eq!(cache.complete(guest).unwrap().packages, ["a 1"]);
        fs::write(cache.guest(guest.name).join("vmlinuz"), b"kern").unwrap();
        assert!(cache.complete(guest).is_none());
    }
}
