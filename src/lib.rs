//! `trivium`: an x86 PC in software. The command line and its configuration, nothing else.

#![forbid(unsafe_code)]

mod config;
mod console;
mod cpus;
mod crosscheck;
mod explain;
#[doc(hidden)]
pub mod hostile;
mod input;
mod jit;
mod log;
mod options;
mod output;
mod reference;
mod report;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use options::{Command, Options};

/// What the user asked for cannot be done: usage or configuration.
const USAGE: u8 = 2;

/// The whole program: does what the arguments of the process say.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match config::arguments(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => return complain(&error),
    };
    let parsed = Options::command().try_get_matches_from(arguments);
    let parsed = parsed.and_then(|m| Options::from_arg_matches(&m).map(|options| (m, options)));
    let (matches, options) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return complain_of_usage(&error),
    };
    log::start(options.verbose);
    let done = match options.command {
        Command::Run(options) => {
            let wanted = options.print_config.as_ref().zip(matches.subcommand_matches("run"));
            let printed = wanted.map_or(Ok(()), |(path, matches)| config::print(matches, path));
            printed.and_then(|()| run::run(*options))
        }
        Command::Demo(options) => run::demo(&options),
        Command::Crosscheck(options) => crosscheck::crosscheck(&options),
        Command::Explain(options) => explain::explain(&options),
        Command::Cpus => cpus::cpus(),
        Command::Models => reference::models(),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man { directory } => reference::man(&directory),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => complain(&error),
    }
}

/// A mistake in one line.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("trivium: {error:#}");
    ExitCode::from(USAGE)
}

/// Help goes to standard output; a mistake becomes one line.
fn complain_of_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    eprintln!("trivium: {}", options::one_line(&error.render().to_string()));
    ExitCode::from(USAGE)
}
