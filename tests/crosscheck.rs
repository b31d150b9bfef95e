//! `trivium crosscheck` as its user meets it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn crosscheck(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trivium"))
        .arg("crosscheck")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The engine that every host has, against itself.
const SAME: [&str; 2] = ["--cpus", "interp,interp"];

#[test]
fn every_mistake_is_one_line_with_status_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).expect("it can be written");
    };
    file("broken.json", "{\"version\": 1, \"case\": ");
    file("old.json", "{\"version\": 77}");
    file("log.jsonl", "this is no log\n");
    std::fs::create_dir(folder.path().join("empty")).expect("it can be made");
    let cases: &[(&[&str], &str)] = &[
        (&["--cpus", "interp,warp"], "warp"),
        (&["--cpus", "interp"], "--cpus"),
        (&["--cpus", "manual,host"], "--cpus"),
        (&["--cpus", "interp,manual", "--only", "ADD"], "--only"),
        (&["--cases", "0"], "--cases"),
        (&["--jobs", "0"], "--jobs"),
        (&["--shard", "0/4"], "--shard"),
        (&["--shard", "5/4"], "--shard"),
        (&["--seed", "tomorrow"], "--seed"),
        (&["--kinds", "nice"], "--kinds"),
        (&["--widths", "8"], "--widths"),
        (&["--only", "NO_SUCH_CODE"], "--only"),
        (&["--cpu", "z80"], "--cpu"),
        (&["--resume"], "--log"),
        (&["--repro", "missing.json"], "missing.json"),
        (&["--repro", "broken.json"], "broken.json"),
        (&["--repro", "old.json"], "version 77"),
        (&["--corpus", "missing"], "missing"),
        (&["--corpus", "empty"], "empty"),
        (&["--log", "log.jsonl"], "--resume"),
        (&["--log", "log.jsonl", "--resume"], "log.jsonl"),
        (&["--log", "missing/log.jsonl"], "missing/log.jsonl"),
    ];
    for (arguments, named) in cases {
        let mut all = arguments.to_vec();
        if !arguments.contains(&"--cpus") {
            all.extend(SAME);
        }
        let output = crosscheck(folder.path(), &all);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?}: {said}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert_eq!(left.len(), 4, "nothing half written: {left:?}");
}

#[test]
fn damaged_files_of_machines_that_differed_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = r#"{"version": 1, "kind": "lockstep", "cpus": ["interp", "jit"],
        "options": ["--memory", "16M"], "instructions": 1, "block": 64, "warm": 50, "flags": 0,
        "differences": [], "state": "00"}"#;
    let damaged: &[(&str, &str, &str)] = &[
        ("\"version\": 1", "\"version\": 7", "version 7"),
        ("\"state\": \"00\"", "\"state\": \"0x\"", "its state is not in hexadecimal"),
        ("\"state\": \"00\"", "\"state\": \"00\"", "its state is refused"),
        ("\"instructions\": 1, ", "", "instructions"),
    ];
    for (from, to, named) in damaged {
        let file = folder.path().join("damaged.json");
        std::fs::write(file, whole.replacen(from, to, 1)).expect("it can be written");
        let output = crosscheck(folder.path(), &["--repro", "damaged.json"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{to}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{to}: {said}");
        assert!(said.contains("damaged.json") && said.contains(named), "{to}: {said}");
    }
}

#[test]
fn a_campaign_is_resumed_where_it_ended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let campaign = |cases: &str, more: &[&str]| {
        let mut all = vec!["--cases", cases, "--jobs", "2", "--log", "log.jsonl"];
        all.extend(SAME);
        all.extend(more);
        crosscheck(folder.path(), &all)
    };
    let output = campaign("4000", &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.contains(" 0 divergences"), "{said}");
    let log = folder.path().join("log.jsonl");
    let whole = std::fs::read_to_string(&log).expect("the log is there");
    assert_eq!(whole.lines().count(), 5, "the plan and four chunks");
    // As a crash leaves it: two chunks, and the beginning of a third.
    let torn: String = whole.lines().take(3).map(|l| format!("{l}\n")).collect();
    std::fs::write(&log, torn + "{\"chunk\":3,\"ca").expect("it can be written");
    let output = campaign("4000", &["--resume"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let again = std::fs::read_to_string(&log).expect("the log is there");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again), sorted(&whole));
    let last = |text: &str| text.lines().last().map(without_rate);
    assert_eq!(last(&text(&output.stdout)), last(&said));
    // The log of another campaign is left alone.
    let output = campaign("5000", &["--resume"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&log).expect("it is there"), again);
}

fn without_rate(line: &str) -> String {
    line.rsplit_once(", ").map_or(line, |(rest, _)| rest).to_owned()
}

#[test]
fn shards_run_their_part() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut all = vec!["--cases", "4500", "--shard", "2/2", "--jobs", "1"];
    all.extend(SAME);
    let output = crosscheck(folder.path(), &all);
    let said = text(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    let numbers: Vec<u64> =
        last.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect();
    // Chunks 1 and 3: 2,000 cases, run or skipped.
    let skipped = last.split(" skipped").next().and_then(|s| s.rsplit(' ').next()?.parse().ok());
    assert_eq!(
        numbers.first().copied().zip(skipped).map(|(a, b): (u64, u64)| a + b),
        Some(2000),
        "{last}"
    );
}

#[test]
fn the_interpreter_does_as_the_manual_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cases = ["--cpus", "interp,manual", "--cases", "3001", "--seed", "7", "--jobs", "3"];
    let output = crosscheck(folder.path(), &cases);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(
        said.starts_with("3001 cases of seed 7: ") && said.contains(" 0 divergences"),
        "{said}"
    );
}
