//! Runs one emulator and notes when what came out of it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::interrupt;

/// How often the child is looked after while it says nothing.
const TICK: Duration = Duration::from_millis(50);

/// When a run is over.
#[derive(Clone, Copy)]
pub enum Until {
    /// The emulator ends by itself.
    Exit,
    /// This byte comes out; the emulator is then killed.
    Byte(u8),
    /// This text comes out; the emulator is then killed.
    Text(&'static str),
}

/// What time means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Clock {
    /// Time as it passes.
    Wall,
    /// Processor time of all the emulator's threads: for hosts that are busy with other things.
    Cpu,
}

/// A moment since the start of the process.
#[derive(Clone, Copy, Default)]
pub struct Stamp {
    wall: Duration,
    cpu: Duration,
}

/// A line of the guest's serial output.
pub struct Line {
    /// When its last byte came.
    pub at: Stamp,
    /// The line without its end.
    pub text: String,
}

/// A run that is over.
pub struct Finished {
    /// From the start of the process to what ended the run.
    pub elapsed: Stamp,
    /// The lines that came out.
    pub lines: Vec<Line>,
    /// How the emulator ended, unless it was killed.
    pub status: Option<ExitStatus>,
    /// The emulator's own messages.
    pub messages: Vec<String>,
}

enum Event {
    Line(Line),
    Found(Stamp),
    End(Stamp),
}

/// What moments are read from.
#[derive(Clone, Copy)]
struct Watch {
    start: Instant,
    process: Pid,
}

impl Watch {
    fn now(self) -> Stamp {
        let cpu = clock_getcpuclockid(self.process).and_then(clock_gettime);
        Stamp { wall: self.start.elapsed(), cpu: cpu.map_or(Duration::ZERO, Duration::from) }
    }
}

impl Stamp {
    /// Seconds since the start.
    pub fn seconds(self, clock: Clock) -> f64 {
        match clock {
            Clock::Wall => self.wall.as_secs_f64(),
            Clock::Cpu => self.cpu.as_secs_f64(),
        }
    }

    /// Seconds from `begin` to this moment.
    pub fn since(self, begin: Stamp, clock: Clock) -> f64 {
        self.seconds(clock) - begin.seconds(clock)
    }
}

impl Finished {
    /// A run without complaint.
    pub fn new(elapsed: Stamp, lines: Vec<Line>, status: Option<ExitStatus>) -> Self {
        Self { elapsed, lines, status, messages: Vec::new() }
    }

    /// Whether some line has `text` in it.
    pub fn says(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.text.contains(text))
    }

    /// The last line of the guest and that of the emulator, for error messages.
    pub fn last_words(&self) -> String {
        let spoken = self.lines.iter().rev().map(|line| line.text.trim());
        let guest = spoken.into_iter().find(|text| !text.is_empty()).unwrap_or("no output");
        match self.messages.last() {
            None => guest.to_owned(),
            Some(complaint) => format!("{guest}; {complaint}"),
        }
    }
}

/// Runs `command` until `until` or for `limit` at most; `tick` is called with the process number
/// now and then.
pub fn run(
    command: &mut Command,
    until: Until,
    limit: Duration,
    mut tick: impl FnMut(u32),
) -> Result<Finished> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut messages = tempfile::tempfile().context("Cannot make a temporary file")?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(messages.try_clone()?);
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("Cannot start {name}"))?;
    let Some(output) = child.stdout.take() else { bail!("{name} has no output") };
    let (sender, events) = mpsc::channel();
    // It ends with the pipe, or when it finds nobody listening; nothing waits for it, as a child of
    // the child may keep the pipe open.
    let process = Pid::from_raw(i32::try_from(child.id())?);
    let watch = Watch { start, process };
    thread::spawn(move || read(output, until, watch, &sender));
    let finished = follow(&mut child, &events, start, limit, &mut tick);
    if finished.is_err() || !matches!(&finished, Ok(done) if done.status.is_some()) {
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut finished = finished.with_context(|| format!("Run of {name}"))?;
    finished.messages = lines_of(&mut messages).unwrap_or_default();
    Ok(finished)
}

fn follow(
    child: &mut Child,
    events: &Receiver<Event>,
    start: Instant,
    limit: Duration,
    tick: &mut dyn FnMut(u32),
) -> Result<Finished> {
    let mut lines = Vec::new();
    loop {
        interrupt::check()?;
        match events.recv_timeout(TICK) {
            Ok(Event::Line(line)) => lines.push(line),
            Ok(Event::Found(elapsed)) => return Ok(Finished::new(elapsed, lines, None)),
            Ok(Event::End(elapsed)) => {
                let status = Some(child.wait()?);
                return Ok(Finished::new(elapsed, lines, status));
            }
            Err(RecvTimeoutError::Disconnected) => bail!("its output cannot be read"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if start.elapsed() > limit {
            let last =
                lines.iter().rev().map(|line: &Line| line.text.trim()).find(|t| !t.is_empty());
            bail!("no end after {} s; last line: {}", limit.as_secs(), last.unwrap_or("none"));
        }
        tick(child.id());
    }
}

/// Cuts `output` into lines; each `Event` is stamped when its last byte was read.
fn read(mut output: impl Read, until: Until, watch: Watch, events: &Sender<Event>) {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let at = watch.now();
        for byte in buffer.iter().take(count) {
            line.push(*byte);
            let event = match (until, *byte) {
                (Until::Byte(end), byte) if byte == end => Event::Found(at),
                (Until::Text(end), _) if line.ends_with(end.as_bytes()) => Event::Found(at),
                (_, b'\n') => Event::Line(Line { at, text: text(&std::mem::take(&mut line)) }),
                _ => continue,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    }
    let at = watch.now();
    let _ = events.send(Event::Line(Line { at, text: text(&line) }));
    let _ = events.send(Event::End(at));
}

fn lines_of(file: &mut File) -> Option<Vec<String>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Some(lines.map(str::to_owned).collect())
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn shell(script: &str, until: Until, limit: Duration) -> Result<Finished> {
        run(Command::new("sh").args(["-c", script]), until, limit, |_| ())
    }

    #[test]
    fn lines_are_stamped_in_order() {
        let script = "echo one; sleep 0.1; printf 'two\\r\\n'";
        let run = shell(script, Until::Exit, Duration::from_secs(10)).unwrap();
        assert!(run.says("two") && run.status.unwrap().success());
        assert_eq!(run.last_words(), "two");
        assert!(run.lines[1].at.since(run.lines[0].at, Clock::Wall) >= 0.05);
    }

    #[test]
    fn processor_time_does_not_pass_while_the_child_sleeps() {
        let run = shell("sleep 0.5; echo", Until::Exit, Duration::from_secs(10)).unwrap();
        assert!(run.elapsed.seconds(Clock::Cpu) < 0.4);
        assert!(run.elapsed.seconds(Clock::Wall) >= 0.5);
    }

    #[test]
    fn what_the_emulator_complains_of_is_kept() {
        let run = shell("echo cannot >&2; exit 2", Until::Exit, Duration::from_secs(10)).unwrap();
        assert_eq!(run.last_words(), "no output; cannot");
    }

    #[test]
    fn a_byte_ends_the_run() {
        let script = "printf 'x\\001'; sleep 60";
        let run = shell(script, Until::Byte(1), Duration::from_secs(10)).unwrap();
        assert!(run.elapsed.seconds(Clock::Wall) < 5.0);
    }

    #[test]
    fn a_text_ends_the_run_before_its_line_does() {
        let run = shell("printf 'host login: '; sleep 60", Until::Text("login:"), LONG).unwrap();
        assert!(run.elapsed.seconds(Clock::Wall) < 5.0 && run.status.is_none());
    }

    #[test]
    fn a_run_without_end_is_an_error() {
        let run = shell("echo stuck; exec sleep 60", Until::Exit, Duration::from_millis(300));
        let error = format!("{:#}", run.err().unwrap());
        assert!(error.contains("last line: stuck"), "{error}");
    }
}
