//! `cargo xtask bench`: wall times side by side with what a user would pick instead.
//!
//! Contenders take turns (A, B, C, A, B, C, ...) so that a machine that grows slower or faster
//! meanwhile does so for all; medians are compared. Nothing is tuned for one of them: QEMU is
//! Debian's with one TCG thread, Bochs is Debian's, and every guest is the same to the byte.
//! The table is printed as markdown and the samples are kept in `target/bench/<scenario>.json`, from
//! which `--draw` makes a picture.

mod bochs;
mod chart;
pub mod child;
mod contender;
mod curve;
mod host;
mod linux;
mod memory;
mod peers;
mod report;
mod roms;
mod sample;
mod scenario;
mod warmup;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::{ci, guests, interrupt, process};
use child::Clock;
use contender::{CONTENDERS, Contender, Kind};
use host::Host;
use scenario::{SCENARIOS, Scenario};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// How often each contender runs each scenario; those marked as slow run once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Only these scenarios; all of them when none is named
    #[arg(long, value_name = "WHAT", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(SCENARIOS.iter().map(|s| s.name)))]
    only: Vec<String>,
    /// Only these contenders; all of them when none is named
    #[arg(long, value_name = "WHO", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(CONTENDERS.iter().map(|c| c.name)))]
    who: Vec<String>,
    /// What is measured as time; `cpu` suits a host that is busy with other things
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// Measure this program as Trivium, instead of building one
    #[arg(long, value_name = "FILE")]
    trivium: Option<PathBuf>,
    /// Where samples and working files go; `target/bench` when not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only draw the samples that are kept, all of them, as a PNG; `warmup` as warmup.png beside it
    #[arg(long, value_name = "FILE")]
    draw: Option<PathBuf>,
    /// Only list scenarios and contenders
    #[arg(long)]
    list: bool,
}

/// What every scenario needs.
#[derive(Clone)]
pub struct Context {
    /// How often each contender runs.
    pub runs: u32,
    /// What is measured as time.
    pub clock: Clock,
    /// Who takes part.
    pub contenders: Vec<&'static Contender>,
    /// Where results and working files go.
    pub dir: PathBuf,
}

impl Context {
    /// Those of the contenders that are machines.
    pub fn machines(&self) -> Vec<&'static Contender> {
        let all = self.contenders.iter().copied();
        all.filter(|contender| contender.kind != Kind::Native).collect()
    }
}

/// Runs the chosen scenarios and prints their tables.
pub fn run(args: &Args) -> Result<()> {
    let scenarios: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| is_chosen(scenario.name, &args.only)).collect();
    let contenders: Vec<&'static Contender> =
        CONTENDERS.iter().filter(|contender| is_chosen(contender.name, &args.who)).collect();
    if args.list {
        list(&scenarios, &contenders);
        return Ok(());
    }
    let dir = args.dir.clone().unwrap_or_else(|| ci::root().join("target/bench"));
    let context = Context { runs: args.runs, clock: args.clock, contenders, dir };
    fs::create_dir_all(&context.dir)
        .with_context(|| format!("Cannot make {}", context.dir.display()))?;
    if let Some(file) = &args.draw {
        peers::install_font()?;
        return chart::draw(&context.dir, file);
    }
    match &args.trivium {
        Some(program) => contender::use_trivium(program),
        None => build(&context)?,
    }
    guests::fetch_all()?;
    peers::install(&context.contenders)?;
    let host = host::describe(&context.contenders)?;
    println!("\n{host}");
    let mut failures = 0;
    for scenario in scenarios {
        failures += measure(&context, scenario, &host)?;
    }
    println!("Samples are in {}", context.dir.display());
    if failures > 0 {
        bail!("{failures} measurements failed; the tables say which");
    }
    Ok(())
}

/// Measures one scenario, prints and keeps it; gives the number of failures, of which the others
/// are to take no notice.
fn measure(context: &Context, scenario: &Scenario, host: &Host) -> Result<usize> {
    interrupt::check()?;
    let rows = match (scenario.run)(context) {
        Ok(rows) => rows,
        Err(error) => {
            interrupt::check()?;
            println!("### {}\n\nfailed: {error:#}\n", scenario.name);
            return Ok(1);
        }
    };
    println!("{}", report::markdown(scenario, &rows));
    report::save(&context.dir, scenario, host, &rows)?;
    Ok(rows.iter().filter(|row| row.error.is_some()).count())
}

fn is_chosen(name: &str, names: &[String]) -> bool {
    names.is_empty() || names.iter().any(|chosen| chosen == name)
}

fn list(scenarios: &[&Scenario], contenders: &[&Contender]) {
    println!("Scenarios:");
    scenarios.iter().for_each(|scenario| println!("  {:11} {}", scenario.name, scenario.about));
    println!("Contenders:");
    contenders.iter().for_each(|contender| println!("  {:16} {}", contender.name, contender.about));
}

/// Builds Trivium if it takes part.
fn build(context: &Context) -> Result<()> {
    if context.contenders.iter().any(|contender| matches!(contender.kind, Kind::Trivium { .. })) {
        println!("Building trivium");
        let arguments = ["build", "--quiet", "--release", "--package", "trivium"];
        let status = process::status(ci::cargo().args(arguments))?;
        if !status.success() {
            bail!("Trivium cannot be built ({status})");
        }
    }
    Ok(())
}
