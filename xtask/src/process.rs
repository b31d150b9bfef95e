//! Child processes that end with us and whose failures read as one line.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs `command` to its end with no standard input and both outputs collected; `tick` is called
/// while it runs. Fails with the child's last line when its status is not zero.
pub fn capture(command: &mut Command, mut tick: impl FnMut()) -> Result<Output> {
    let name = program(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| not_started(&name))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, &mut tick)?;
    let output = Output { status, stdout: join(stdout), stderr: join(stderr) };
    if !status.success() {
        bail!("{name} failed ({status}): {}", last_line(&output.stderr));
    }
    Ok(output)
}

/// Runs `command` with our own outputs and no standard input; returns its status.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    let name = program(command);
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| not_started(&name))?;
    wait(&mut child, &mut || ())
}

/// Waits for `child`; when the user interrupts us, ends it first.
pub fn wait(child: &mut Child, tick: &mut dyn FnMut()) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            // Ctrl-C reaches the whole foreground group, so the child may be gone before we look.
            interrupt::check()?;
            return Ok(status);
        }
        if interrupt::requested() {
            let _ = child.kill();
            let _ = child.wait();
        }
        interrupt::check()?;
        tick();
        thread::sleep(POLL);
    }
}

/// Reads a pipe to its end on a thread of its own, so that no child blocks on a full one.
fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> Option<JoinHandle<Vec<u8>>> {
    let mut pipe = pipe?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    }))
}

fn join(reader: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reader.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn not_started(name: &str) -> String {
    format!("Cannot start {name} (is it installed?)")
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_last_line_of_standard_error() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo second >&2; exit 3"]);
        let error = capture(&mut command, || ()).unwrap_err().to_string();
        assert!(error.ends_with(": second"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = capture(&mut Command::new("trivium-no-such-tool"), || ()).unwrap_err();
        assert!(format!("{error:#}").contains("trivium-no-such-tool"));
    }

    #[test]
    fn more_output_than_a_pipe_holds_does_not_block() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 1000000 /dev/zero"]);
        assert_eq!(capture(&mut command, || ()).unwrap().stdout.len(), 1_000_000);
    }
}
