//! `--config FILE.toml`: the options of `run` from a file, by the same names. What the command line
//! says wins.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory};
use toml::{Table, Value};

use crate::options::Options;

/// The option itself, which a file may not have.
const CONFIG: &str = "config";

/// Two ways to say what to boot: one on the command line puts the other, in a file, aside.
const EITHER: [&[&str]; 2] =
    [&["bios"], &["kernel", "initrd", "append", "module", "smbios", "acpi-table"]];

/// The arguments with those of the file that `--config` names, if it is there.
///
/// # Errors
/// The file cannot be read, or is none of ours.
pub fn arguments(given: Vec<OsString>) -> Result<Vec<OsString>> {
    let words = words(&given);
    let path = words.iter().any(|word| word == "run").then(|| config_path(&words)).flatten();
    let Some(path) = path else { return Ok(given) };
    let name = format!("--{CONFIG} {}", path.display());
    let text = fs::read_to_string(&path).with_context(|| name.clone())?;
    merge(given, &name, &text)
}

fn words(arguments: &[OsString]) -> Vec<String> {
    arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// The arguments with those of a file with this text. The file is called `name`.
///
/// # Errors
/// It is none of ours.
pub fn merge(given: Vec<OsString>, name: &str, text: &str) -> Result<Vec<OsString>> {
    let words = words(&given);
    let Some(run) = words.iter().position(|word| word == "run") else { return Ok(given) };
    let table: Table = text.parse().map_err(|e| anyhow!("{name}: {}", one_line(&e)))?;
    let command = Options::command();
    let command = command.find_subcommand("run").context("there is a command 'run'")?;
    let mut all = given;
    let mut place = run + 1;
    for (key, value) in &table {
        let options = option(command, key, value).map_err(|e| anyhow!("{name}: {e}"))?;
        if is_said(command, key, &words) || is_put_aside(command, key, &words) {
            continue;
        }
        for option in options {
            all.insert(place, option.into());
            place += 1;
        }
    }
    Ok(all)
}

fn config_path(words: &[String]) -> Option<PathBuf> {
    let flag = format!("--{CONFIG}");
    words.iter().enumerate().find_map(|(n, word)| match word.strip_prefix(&flag)? {
        "" => words.get(n + 1).map(PathBuf::from),
        rest => rest.strip_prefix('=').map(PathBuf::from),
    })
}

/// What is wrong with a file, without the picture of it.
fn one_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(" ")
}

/// An option of the file as arguments.
fn option(command: &Command, key: &str, value: &Value) -> Result<Vec<String>> {
    let known = command.get_arguments().find(|a| a.get_long() == Some(key) && key != CONFIG);
    let Some(argument) = known else {
        bail!("there is no option '{key}'; the names are those of 'trivium run --help'");
    };
    let is_flag = !argument.get_action().takes_values();
    let one = |value: &Value| -> Result<Vec<String>> {
        Ok(match value {
            Value::Boolean(on) if is_flag => {
                if *on {
                    vec![format!("--{key}")]
                } else {
                    Vec::new()
                }
            }
            _ if is_flag => bail!("'{key}' is true or false"),
            Value::String(text) => vec![format!("--{key}={text}")],
            Value::Integer(number) => vec![format!("--{key}={number}")],
            _ => bail!("'{key}' is a string, a number or a list of them"),
        })
    };
    match value {
        Value::Array(values) => {
            values.iter().try_fold(Vec::new(), |all, value| Ok([all, one(value)?].concat()))
        }
        value => one(value),
    }
}

/// Whether the command line has the option.
fn is_said(command: &Command, key: &str, words: &[String]) -> bool {
    let long = format!("--{key}");
    let argument = command.get_arguments().find(|a| a.get_long() == Some(key));
    let short = argument.and_then(clap::Arg::get_short).map(|c| format!("-{c}"));
    words.iter().any(|word| {
        let rest = word.strip_prefix(&long);
        let by_short = short.as_ref().is_some_and(|s| word.starts_with(s.as_str()));
        rest.is_some_and(|r| r.is_empty() || r.starts_with('=')) || by_short
    })
}

/// Whether the command line says something else in its place.
fn is_put_aside(command: &Command, key: &str, words: &[String]) -> bool {
    let others = EITHER.iter().filter(|group| !group.contains(&key));
    let belongs = EITHER.iter().any(|group| group.contains(&key));
    belongs && others.flat_map(|group| *group).any(|other| is_said(command, other, words))
}

/// The options that a run uses, as such a file.
///
/// # Errors
/// None that is known: what was parsed can be written.
pub fn used(matches: &ArgMatches) -> Result<String> {
    let command = Options::command();
    let command = command.find_subcommand("run").context("there is a command 'run'")?;
    let mut table = Table::new();
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        let skipped = ["config", "print_config", "help", "verbose"].contains(&id);
        let Some(name) = argument.get_long().filter(|_| !skipped) else { continue };
        if !argument.get_action().takes_values() {
            table.insert(name.into(), Value::Boolean(matches.get_flag(id)));
            continue;
        }
        let Some(raw) = matches.get_raw(id) else { continue };
        // An empty text that nobody gave would stand in the way of others.
        let is_default = matches.value_source(id) == Some(ValueSource::DefaultValue);
        if is_default && raw.clone().all(OsStr::is_empty) {
            continue;
        }
        let mut values: Vec<_> =
            raw.map(|text| Value::String(text.to_string_lossy().into_owned())).collect();
        let many = matches!(argument.get_action(), clap::ArgAction::Append);
        let value = match (many, values.pop()) {
            (false, Some(last)) => last,
            (true, Some(last)) => {
                values.push(last);
                Value::Array(values)
            }
            (_, None) => continue,
        };
        table.insert(name.into(), value);
    }
    Ok(toml::to_string(&table)?)
}

/// Writes the options that a run uses to a file, or to standard output for `-`.
///
/// # Errors
/// The file cannot be written.
pub fn print(matches: &ArgMatches, path: &Path) -> Result<()> {
    let text = used(matches)?;
    if path == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("--print-config {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn with_file(content: &str, arguments: &[&str]) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("machine.toml");
        fs::write(&path, content).expect("it can be written");
        let mut all: Vec<OsString> = vec!["trivium".into(), "run".into(), "--config".into()];
        all.push(path.into());
        all.extend(arguments.iter().map(OsString::from));
        let all = super::arguments(all)?;
        Ok(all.iter().map(|a| a.to_string_lossy().into_owned()).collect())
    }

    const FILE: &str = "memory = '1G'\nkernel = 'vmlinuz'\nno-reboot = true\nsmp = 1\n\
                        serial = ['stdio', 'null']\nprint-state-hash = false\n";

    #[test]
    fn a_file_says_what_the_command_line_does_not() {
        let all = with_file(FILE, &[]).expect("it is good");
        for option in ["--memory=1G", "--kernel=vmlinuz", "--no-reboot", "--serial=null"] {
            assert!(all.iter().any(|a| a == option), "{option}: {all:?}");
        }
        assert!(!all.iter().any(|a| a == "--print-state-hash"));
        assert!(Options::try_parse_from(&all).is_ok(), "{all:?}");
    }

    #[test]
    fn the_command_line_wins() {
        let all = with_file(FILE, &["-m", "64M", "--serial=pty", "--bios", "rom"]).expect("good");
        for option in ["--memory=1G", "--serial=null", "--serial=stdio", "--kernel=vmlinuz"] {
            assert!(!all.iter().any(|a| a == option), "{option}: {all:?}");
        }
        assert!(Options::try_parse_from(&all).is_ok(), "{all:?}");
    }

    /// Values that options take in these tests; others take any text, or have a default.
    const SAMPLES: &[(&str, &str)] = &[
        ("accel", "interp"),
        ("switch-every", "1000..2000-insns,seed=3"),
        ("switch-cpus", "jit"),
        ("machine", "pc"),
        ("cpu", "qemu64,+avx"),
        ("memory", "64M,share,reserved=16M"),
        ("smp", "1"),
        ("display", "none"),
        ("serial", "null"),
        ("parallel", "file:out"),
        ("debugcon", "null"),
        ("clock", "icount,sleep=off"),
        ("rtc", "86400"),
        ("debug-exit", "0x501"),
        ("trace", "io"),
        ("smbios", "type=1,serial=1"),
        ("fw-cfg", "opt/x,string=y"),
        ("kvm", "level=user"),
        ("jit-host", "no-bmi2"),
    ];

    /// All options of `run` that a file may have.
    fn options() -> Vec<clap::Arg> {
        let command = Options::command();
        let run = command.find_subcommand("run").expect("it is there");
        let not_here = ["config", "print-config", "help"];
        let arguments = run.get_arguments().filter(|a| {
            a.get_long().is_some_and(|long| !not_here.contains(&long)) && !a.is_global_set()
        });
        arguments.cloned().collect()
    }

    /// An option's line in a file.
    fn line(argument: &clap::Arg) -> String {
        let name = argument.get_long().expect("it has a name");
        if !argument.get_action().takes_values() {
            return format!("{name} = true\n");
        }
        let sample = SAMPLES.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let default = argument.get_default_values().first().and_then(|value| value.to_str());
        let value = sample.or(default.filter(|text| !text.is_empty())).unwrap_or("text");
        format!("{name} = '{value}'\n")
    }

    /// What `run` makes of a file, written as a file again.
    fn printed(content: &str) -> String {
        let all = with_file(content, &[]).expect("it is a good file");
        let matches = Options::command().try_get_matches_from(&all);
        let matches = matches.unwrap_or_else(|error| panic!("{content}\n{error}"));
        used(matches.subcommand_matches("run").expect("it is there")).expect("it can be written")
    }

    #[test]
    fn every_option_of_the_command_line_is_one_of_files_and_is_printed() {
        let [firmware, kernel] = EITHER;
        for without in [firmware, kernel] {
            let chosen = |a: &clap::Arg| !without.contains(&a.get_long().unwrap_or_default());
            let options: Vec<_> = options().into_iter().filter(chosen).collect();
            let file: String = options.iter().map(line).collect();
            let text = printed(&file);
            let table: Table = text.parse().expect("it is TOML");
            for option in &options {
                let name = option.get_long().unwrap_or_default();
                assert!(table.contains_key(name), "{name} is not in\n{text}");
            }
            assert_eq!(table.len(), options.len(), "{text}");
            assert_eq!(printed(&text), text, "what is printed does the same");
        }
    }

    #[test]
    fn what_was_not_said_can_be_read_back_too() {
        for boot in ["kernel = 'k'", "bios = 'b'"] {
            let text = printed(boot);
            assert_eq!(printed(&text), text);
            assert!(text.contains("memory = \"128M\"") && text.contains("clock = \"real\""));
        }
    }

    #[test]
    fn a_bad_file_is_told_of_in_a_line() {
        let complaint = |content| with_file(content, &[]).expect_err("bad").to_string();
        for (content, named) in [
            ("memroy = '1G'", "'memroy'"),
            ("config = 'other'", "'config'"),
            ("no-reboot = 3", "'no-reboot'"),
            ("kernel = 1.5", "'kernel'"),
            ("kernel = ", "machine.toml"),
        ] {
            let line = complaint(content);
            assert!(line.contains(named) && line.contains("machine.toml"), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn what_was_used_is_a_file_that_does_the_same() {
        let first = with_file(FILE, &["--append", "console=ttyS0"]).expect("good");
        let matches = Options::command().try_get_matches_from(&first).expect("good");
        let run = matches.subcommand_matches("run").expect("it is there");
        let text = used(run).expect("it can be written");
        let second = with_file(&text, &[]).expect("good");
        let again = Options::command().try_get_matches_from(&second).expect("good");
        let again = again.subcommand_matches("run").expect("it is there");
        assert_eq!(used(again).expect("it can be written"), text);
        assert!(text.contains("append = \"console=ttyS0\""), "{text}");
    }
}
