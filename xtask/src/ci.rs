//! `cargo xtask ci`: the steps that continuous integration runs, in its order.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::{guests, interrupt, process};

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args)]
pub struct Args {
    /// Only name the steps
    #[arg(long)]
    list: bool,
    /// The steps to run; all of them when none is named
    #[arg(value_parser = PossibleValuesParser::new(STEPS.iter().map(|step| step.name)))]
    step: Vec<String>,
}

struct Step {
    name: &'static str,
    about: &'static str,
    action: Action,
}

enum Action {
    /// `cargo` with these arguments and this variable in its environment.
    Cargo(&'static [&'static str], Option<(&'static str, &'static str)>),
    /// The guests that the tests boot.
    Guests,
}

const STEPS: &[Step] = &[
    Step {
        name: "format",
        about: "the code is formatted by rustfmt",
        action: Action::Cargo(&["fmt", "--all", "--check"], None),
    },
    Step {
        name: "clippy",
        about: "the compiler and clippy have no warning, and Cargo.lock is up to date",
        action: Action::Cargo(
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
            None,
        ),
    },
    Step {
        name: "docs",
        about: "rustdoc has no warning",
        action: Action::Cargo(
            &["doc", "--workspace", "--no-deps", "--locked"],
            Some(("RUSTDOCFLAGS", "-D warnings")),
        ),
    },
    Step { name: "guests", about: "the guests can be fetched", action: Action::Guests },
    Step {
        name: "test",
        about: "the README's test command passes with no guest skipped",
        action: Action::Cargo(&["test", "--release"], Some(("TRIVIUM_REQUIRE_GUESTS", "1"))),
    },
    Step {
        name: "crosscheck",
        about: "the interpreter does as this processor in 300,000 cases of today's seed",
        action: Action::Cargo(
            &[
                "run",
                "--release",
                "--locked",
                "--quiet",
                "--",
                "crosscheck",
                "--cpus",
                "interp,host",
                "--cases",
                "300000",
                "--seed",
                "today",
                "--findings",
                "target/crosscheck-findings",
            ],
            None,
        ),
    },
];

/// Runs the chosen steps; stops at the first that fails.
pub fn run(args: &Args) -> Result<()> {
    let is_chosen = |step: &&Step| args.step.is_empty() || args.step.iter().any(|n| n == step.name);
    let steps: Vec<&Step> = STEPS.iter().filter(is_chosen).collect();
    if args.list {
        steps.iter().for_each(|step| println!("{:8} {}", step.name, step.about));
        return Ok(());
    }
    let start = Instant::now();
    let mut times = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("== {}/{} {}: {}", index + 1, steps.len(), step.name, step.about);
        let begin = Instant::now();
        step.run()?;
        times.push((step.name, begin.elapsed()));
        println!("== {} passed in {}", step.name, seconds(begin.elapsed()));
    }
    let summary: Vec<_> =
        times.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
    println!("== All passed in {}: {}", seconds(start.elapsed()), summary.join(", "));
    Ok(())
}

impl Step {
    fn run(&self) -> Result<()> {
        interrupt::check()?;
        match self.action {
            Action::Guests => guests::fetch_all(),
            Action::Cargo(arguments, variable) => {
                let mut command = cargo();
                command.args(arguments).envs(variable);
                let status = process::status(&mut command)?;
                if !status.success() {
                    bail!("Step {} failed ({status}): cargo {}", self.name, arguments.join(" "));
                }
                Ok(())
            }
        }
    }
}

/// The cargo that runs us, in the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The root of the workspace: as `cargo xtask` says, else where we were compiled.
pub fn root() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.parent().map_or_else(PathBuf::new, Into::into)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
