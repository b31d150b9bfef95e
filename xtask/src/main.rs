//! Developer commands, run as `cargo xtask <command>`.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod exits;
mod fuzz;
mod guests;
mod interrupt;
mod process;
mod save_restore;
mod stress;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Trivium.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run what continuous integration runs: format, clippy, docs, guests, tests
    Ci(ci::Args),
    /// Measure side by side with QEMU and Bochs
    Bench(bench::Args),
    /// Measure KVM's exits a second beside QEMU's on the same /dev/kvm, and how soon a guest starts
    Exits(exits::Args),
    /// Run the fuzz targets, each for some minutes
    Fuzz(fuzz::Args),
    /// Fetch and build the real guests that tests and benchmarks boot
    Guests(guests::Args),
    /// Save, drop, rebuild and restore machines in mid-run
    SaveRestore(save_restore::Args),
    /// Run guests under load, whose programs check their own results
    Stress(stress::Args),
    /// Run the self-test ROMs under Trivium and QEMU, side by side
    Suite(suite::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = interrupt::install().and_then(|()| match cli.command {
        Command::Bench(args) => bench::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Exits(args) => exits::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Guests(args) => guests::run(&args),
        Command::SaveRestore(args) => save_restore::run(&args),
        Command::Stress(args) => stress::run(&args),
        Command::Suite(args) => suite::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
