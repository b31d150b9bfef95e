//! `cargo xtask save-restore`: guests in pieces, between which the whole machine is saved, dropped,
//! built anew and restored. Each must end in the state in which it ends otherwise.

use anyhow::{Result, ensure};

use crate::{ci, process};

#[derive(clap::Args)]
pub struct Args {
    /// Moments at which each guest is interrupted
    #[arg(long, default_value_t = 200)]
    points: usize,
    /// What the moments are made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Guests: boot (the reference guest) and rom/CHAPTER; all if none is named
    guests: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut command = ci::cargo();
    command.args(["run", "--release", "--quiet", "--package", "trivium-machine"]);
    command.args(["--example", "save_restore", "--"]);
    command.args([args.points.to_string(), args.seed.to_string()]).args(&args.guests);
    let status = process::status(&mut command)?;
    ensure!(status.success(), "Not all guests end as they do without an interruption");
    Ok(())
}
