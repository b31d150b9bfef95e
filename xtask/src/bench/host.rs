//! On what was measured, and which versions took part.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::Serialize;

use super::contender::{self, Contender, Kind};
use crate::{ci, process};

/// The host and the contenders' versions.
#[derive(Serialize)]
pub struct Host {
    cpu: String,
    threads: usize,
    kernel: String,
    unix_time: u64,
    versions: Vec<(&'static str, String)>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Host: {}, {} threads, {}", self.cpu, self.threads, self.kernel)?;
        for (name, version) in &self.versions {
            writeln!(f, "- {name}: {version}")?;
        }
        Ok(())
    }
}

/// Asks the host and `contenders` who they are.
pub fn describe(contenders: &[&'static Contender]) -> Result<Host> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let version = |who: &&'static Contender| -> Result<(&'static str, String)> {
        Ok((who.name, format!("{}; {}", version(who.kind)?, who.about)))
    };
    Ok(Host {
        cpu: cpu_model(),
        threads: thread::available_parallelism().map_or(1, Into::into),
        kernel: first_line(Command::new("uname").arg("-sr"))?,
        unix_time: now,
        versions: contenders.iter().map(version).collect::<Result<_>>()?,
    })
}

fn version(kind: Kind) -> Result<String> {
    match kind {
        Kind::Trivium { .. } => {
            let version = first_line(Command::new(contender::trivium()).arg("--version"))?;
            if contender::is_foreign() {
                return Ok(format!("{version} (a program of the user's)"));
            }
            let mut git = Command::new("git");
            git.args(["describe", "--always", "--dirty"]).current_dir(ci::root());
            let revision = first_line(&mut git).unwrap_or_else(|_| "no git".into());
            Ok(format!("{version} ({revision})"))
        }
        Kind::Native => first_line(Command::new("cc").arg("--version")),
        Kind::QemuTcg => first_line(Command::new("qemu-system-x86_64").arg("--version")),
        Kind::Bochs => first_line(Command::new("dpkg-query").args([
            "-W",
            "-f=${Package} ${Version}\\n",
            "bochs",
        ])),
    }
}

fn first_line(command: &mut Command) -> Result<String> {
    let output = process::capture(command, || ())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(':'));
    model.map_or_else(|| "unknown processor".into(), |(_, name)| name.trim().to_owned())
}
