//! Hostile configurations: any text as a command line and a configuration file. A fuzz target and
//! tests call this.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches};

use crate::config;
use crate::options::Options;

/// Parses a text: the arguments of `run`, one a line, then an empty line, then a file for
/// `--config`. What is accepted is written by `--print-config`, and that must say the same again.
///
/// # Panics
/// It does not.
pub fn configuration(text: &str) {
    let (arguments, file) = text.split_once("\n\n").unwrap_or((text, ""));
    let arguments = ["trivium", "run"].into_iter().chain(arguments.lines());
    let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
    let Some(used) = used(arguments, file) else { return };
    let again = used_again(&used);
    assert_eq!(again.as_deref(), Some(&*used), "written by --print-config");
}

/// What `--print-config` writes, if the configuration is accepted.
fn used(arguments: Vec<OsString>, file: &str) -> Option<String> {
    let merged = match config::merge(arguments, "--config FILE", file) {
        Ok(merged) => merged,
        Err(error) => {
            let line = format!("{error:#}");
            assert!(!line.contains('\n'), "one line: {line:?}");
            return None;
        }
    };
    let matches = match Options::command().try_get_matches_from(merged) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = crate::options::one_line(&error.render().to_string());
            return None;
        }
    };
    Options::from_arg_matches(&matches).ok()?;
    Some(config::used(matches.subcommand_matches("run")?).expect("what was parsed can be written"))
}

fn used_again(file: &str) -> Option<String> {
    used(vec!["trivium".into(), "run".into()], file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_configurations_are_accepted_or_refused() {
        let values = [
            "",
            "1",
            "-1",
            "1G",
            "99999999999999999999G",
            "=",
            "stdio",
            "tcp::",
            "tcp:1",
            "tcp:[::1]:70000",
            "unix:",
            "pty,connect",
            "file:",
            "base=2026-02-30",
            "\u{1f600}",
            "type=1,serial=x",
            "max,+",
            "0x10000",
            "icount,sleep=",
            "int,io",
            "a,b=c,d",
            "\0",
        ];
        let command = Options::command();
        let run = command.find_subcommand("run").expect("it is there");
        for name in run.get_arguments().filter_map(clap::Arg::get_long) {
            configuration(&format!("--kernel=k\n--{name}"));
            for value in values {
                configuration(&format!("--kernel=k\n--{name}={value}"));
                configuration(&format!("--kernel=k\n\n{name} = {value:?}"));
                configuration(&format!("--bios=b\n\n{name} = [{value:?}, 1]"));
            }
            for value in ["1", "-1", "1.5", "true", "[]", "{a = 1}", "1979-05-27", "[[1]]"] {
                configuration(&format!("--kernel=k\n\n{name} = {value}"));
            }
        }
    }
}
