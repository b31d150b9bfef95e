//! A guest whose CPU is changed by signals, as from a shell.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Between two signals: more than it takes to see one.
const PAUSE: Duration = Duration::from_millis(10);
/// The most signals that are sent to one guest.
const MOST: u32 = 100;
/// The fewest changes that some guest must have seen: a busy host may take signals together.
const ENOUGH: u32 = 10;

fn start(image: &std::path::Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_trivium"))
        .args(["-v", "run", "--accel", "jit", "--memory", "64M", "--serial", "stdio", "--bios"])
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Sends SIGUSR1 until the guest has ended; says how often.
fn pester(child: &mut Child) -> u32 {
    let id = process_id(child);
    let mut sent = 0;
    while sent < MOST && child.try_wait().expect("it can be waited for").is_none() {
        // SAFETY: the process is this one's child and was not waited for to its end.
        sent += u32::from(unsafe { libc::kill(id, libc::SIGUSR1) } == 0);
        std::thread::sleep(PAUSE);
    }
    sent
}

fn process_id(child: &Child) -> libc::pid_t {
    libc::pid_t::try_from(child.id()).expect("it is a process number")
}

/// How often it says that it has changed its CPU.
fn changes(messages: &str) -> u32 {
    let after = messages.split_once("changed its CPU ").map(|(_, after)| after);
    after.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Runs a program that checks its own result, with signals once it has begun. Gives how often they
/// were sent and how often the CPU was changed.
fn run(image: &[u8]) -> (u32, u32) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rom");
    std::fs::write(&path, image).expect("it can be written");
    let mut child = start(&path);
    let mut output = BufReader::new(child.stdout.take().expect("it is a pipe"));
    let mut text = String::new();
    output.read_line(&mut text).expect("the guest has begun");
    let sent = pester(&mut child);
    output.read_to_string(&mut text).expect("it is text");
    let mut messages = String::new();
    let mut errors = child.stderr.take().expect("it is a pipe");
    errors.read_to_string(&mut messages).expect("it is text");
    let status = child.wait().expect("it ends");
    assert!(status.success(), "{status}: {text}{messages}");
    assert!(text.contains(" done ") && !text.contains("wrong"), "{text}{messages}");
    (sent, changes(&messages))
}

#[test]
fn a_guest_completes_whose_cpu_is_changed_by_signals() {
    let mut seen = 0;
    for body in trivium_test_roms::LOOPS.iter().step_by(5) {
        let (sent, changed) = run(body.rom);
        println!("{}: {sent} signals, {changed} changes", body.name);
        assert!(changed <= sent, "{}: {changed} of {sent}", body.name);
        seen = seen.max(changed);
    }
    assert!(seen >= ENOUGH, "{seen}");
}
