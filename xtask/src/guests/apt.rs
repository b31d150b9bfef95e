//! Debian packages through apt, with package lists of our own so that the machine's stay as they are.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use super::catalogue::Source;
use crate::process;

thread_local! {
    /// Architectures whose lists were read in this run.
    static UPDATED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// apt for one architecture.
pub struct Apt {
    arch: &'static str,
    options: Vec<String>,
}

/// A package as the lists name it.
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The size of its archive in bytes.
    pub size: u64,
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl Apt {
    /// Keeps the lists of `arch` under `state`.
    pub fn new(state: &Path, arch: &'static str) -> Result<Self> {
        let dir = state.join(arch);
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).with_context(|| format!("Cannot make {}", path.display()))?;
        }
        let settings = [
            ("APT::Architecture", arch.into()),
            ("APT::Architectures", arch.into()),
            ("Dir::State::lists", dir.join("lists").display().to_string()),
            ("Dir::Cache", dir.join("cache").display().to_string()),
            ("Acquire::Retries", "3".into()),
            ("Acquire::Languages", "none".into()),
            ("APT::Sandbox::User", String::new()),
        ];
        let options = settings.iter().map(|(key, value)| format!("-o{key}={value}")).collect();
        Ok(Self { arch, options })
    }

    /// Reads the package lists anew, once in a run.
    pub fn update(&self, tick: &mut dyn FnMut()) -> Result<()> {
        if UPDATED.with_borrow(|done| done.contains(self.arch)) {
            return Ok(());
        }
        // A source that has nothing for this architecture is an error of apt's but none of ours:
        // what counts is whether the package is found afterwards.
        if let Err(error) = process::capture(self.tool("apt-get").arg("update"), tick) {
            crate::interrupt::check()?;
            if self.lists_are_empty() {
                return Err(error);
            }
        }
        UPDATED.with_borrow_mut(|done| done.insert(self.arch));
        Ok(())
    }

    /// Finds the package that `source` means, and its version.
    pub fn resolve(&self, source: &Source) -> Result<Package> {
        let name = match source.depends {
            Some(prefix) => self.dependency(source.package, prefix)?,
            None => source.package.to_owned(),
        };
        let show = self.query(&["show", "--no-all-versions", &name])?;
        let missing = || anyhow!("Debian has no package {name} for {}", self.arch);
        let version = field(&show, "Version").ok_or_else(missing)?.to_owned();
        let size = field(&show, "Size").and_then(|size| size.parse().ok()).unwrap_or(0);
        Ok(Package { name, version, size })
    }

    /// Fetches the archive of `package` into `dir`; `tick` is told the bytes that have come.
    pub fn download(
        &self,
        package: &Package,
        dir: &Path,
        tick: &mut dyn FnMut(u64),
    ) -> Result<PathBuf> {
        let what = format!("{}={}", package.name, package.version);
        let mut command = self.tool("apt-get");
        command.args(["download", &what]).current_dir(dir);
        process::capture(&mut command, || tick(files_size(dir)))?;
        let archive = fs::read_dir(dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        archive.ok_or_else(|| anyhow!("apt-get left no archive of {}", package.name))
    }

    /// The first dependency of `package` whose name starts with `prefix`.
    fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let depends = self.query(&["depends", package])?;
        let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        match names.map(str::trim).find(|name| name.starts_with(prefix)) {
            Some(name) => Ok(name.to_owned()),
            None => bail!("Package {package} depends on no {prefix}* for {}", self.arch),
        }
    }

    fn query(&self, arguments: &[&str]) -> Result<String> {
        let output = process::capture(self.tool("apt-cache").args(arguments), || ())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.args(&self.options).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn lists_are_empty(&self) -> bool {
        !self.query(&["stats"]).is_ok_and(|stats| {
            stats.lines().any(|line| {
                line.trim()
                    .strip_prefix("Normal packages: ")
                    .is_some_and(|count| !count.starts_with("0"))
            })
        })
    }
}

/// The value of `name` in a stanza of a package list.
fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn files_size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_matched_by_its_whole_name() {
        let stanza = "Package: a\nInstalled-Size: 9\nSize: 12\nVersion: 1:2-3\n";
        assert_eq!(field(stanza, "Size"), Some("12"));
        assert_eq!(field(stanza, "Version"), Some("1:2-3"));
        assert_eq!(field(stanza, "Inst"), None);
    }
}
