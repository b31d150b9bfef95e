//! `trivium`: an x86 PC in software. The command line and its configuration, nothing else.

#![forbid(unsafe_code)]

mod console;
mod log;
mod options;
mod output;
mod reference;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;
use options::{Command, Options};

/// What the user asked for cannot be done: usage or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => return complain_of_usage(&error),
    };
    log::start(options.verbose);
    let done = match options.command {
        Command::Run(options) => run::run(*options),
        Command::Demo(options) => run::demo(&options),
        Command::Models => reference::models(),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man { directory } => reference::man(&directory),
    };
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("trivium: {error:#}");
            ExitCode::from(USAGE)
        }
    }
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
