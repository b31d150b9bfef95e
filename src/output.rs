//! Where a guest's characters go: the terminal, a file, a pseudo-terminal, a socket, nowhere.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use trivium_devices::parallel::ParallelBackend;
use trivium_devices::ports::DebugConsoleBackend;
use trivium_devices::uart16550::SerialBackend;

use crate::input::{self, Input};
use crate::options::SerialOption;

/// Characters that may wait for a slow reader before the guest has to.
const WAITING: usize = 1 << 16;

/// How often a guest that waits for a slow reader looks whether the run is to end.
const LOOK: Duration = Duration::from_millis(50);
/// How often the end looks whether all is written.
const POLL: Duration = Duration::from_millis(2);
/// How long readers may take for the rest when the user has ended the run.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The writing end that a device holds.
pub struct Output {
    sender: Option<Sender<u8>>,
    ending: Ending,
}

impl Output {
    fn send(&mut self, byte: u8) {
        // Once nobody reads any more, characters are lost, as on a real line.
        if self.sender.as_ref().is_some_and(|sender| !self.ending.send(sender, byte)) {
            self.sender = None;
        }
    }
}

/// Told when the user ends the run: then nobody waits any more for readers that are stuck.
#[derive(Debug, Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// The user ends the run.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sends a character, and waits for room as long as the run goes on; says whether it was sent.
    fn send(&self, to: &Sender<u8>, byte: u8) -> bool {
        let mut result = to.try_send(byte);
        while matches!(result, Err(TrySendError::Full(_))) && !self.is_told() {
            result = to.send_timeout(byte, LOOK).map_err(|error| match error {
                SendTimeoutError::Timeout(byte) => TrySendError::Full(byte),
                SendTimeoutError::Disconnected(byte) => TrySendError::Disconnected(byte),
            });
        }
        result.is_ok()
    }
}

impl SerialBackend for Output {
    fn transmit(&mut self, byte: u8) {
        self.send(byte);
    }
}

impl ParallelBackend for Output {
    fn print(&mut self, byte: u8) {
        self.send(byte);
    }
}

impl DebugConsoleBackend for Output {
    fn write(&mut self, byte: u8) {
        self.send(byte);
    }
}

/// The writers of a run: they end when the devices that write to them are gone.
#[derive(Default)]
pub struct Writers {
    threads: Vec<JoinHandle<()>>,
    ending: Ending,
}

impl Writers {
    /// Opens what an option names; `name` is the option with what it is for. What can be read from
    /// comes back too.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(
        &mut self,
        name: &str,
        option: &SerialOption,
    ) -> anyhow::Result<(Output, Option<Input>)> {
        Ok(match option {
            SerialOption::Null => (self.output(None), None),
            SerialOption::Stdio => (self.start(std::io::stdout()), None),
            SerialOption::File(path) => {
                let file = File::create(path)
                    .with_context(|| format!("{name}: cannot write {}", path.display()))?;
                (self.start(file), None)
            }
            SerialOption::Pty => {
                let master = open_pty(name)?;
                let copy = master.try_clone().with_context(|| name.to_string())?;
                (self.start(master), Some(Input::Endless(copy)))
            }
            SerialOption::Fifo(path) => {
                let (to_guest, from_guest) = input::open_fifos(name, path)?;
                (self.start(from_guest), Some(Input::Endless(to_guest)))
            }
            SerialOption::Socket(address) => {
                let (peer, input) = input::open_socket(name, address)?;
                (self.start(peer), Some(input))
            }
        })
    }

    fn start(&mut self, to: impl Write + Send + 'static) -> Output {
        let (sender, receiver) = bounded(WAITING);
        self.threads.push(std::thread::spawn(move || copy(&receiver, to)));
        self.output(Some(sender))
    }

    fn output(&self, sender: Option<Sender<u8>>) -> Output {
        Output { sender, ending: self.ending.clone() }
    }

    /// Who is to be told when the user ends the run.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// Waits until all is written; a little only, once the user has ended the run.
    pub fn finish(self) {
        let mut patience = LAST_WORDS;
        for thread in self.threads {
            while !thread.is_finished() && !patience.is_zero() {
                std::thread::park_timeout(POLL);
                if self.ending.is_told() {
                    patience = patience.saturating_sub(POLL);
                }
            }
        }
    }
}

/// Writes what comes until the senders are gone, many characters at a time if they come fast.
fn copy(from: &Receiver<u8>, mut to: impl Write) {
    let mut bytes = Vec::with_capacity(4096);
    while let Ok(first) = from.recv() {
        bytes.clear();
        bytes.push(first);
        bytes.extend(from.try_iter().take(4095));
        match to.write_all(&bytes).and_then(|()| to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
            // Nobody has opened the pseudo-terminal's other end: its characters are lost.
            _ => {}
        }
    }
}

fn open_pty(name: &str) -> anyhow::Result<File> {
    let failed = || format!("{name}: cannot open a pseudo-terminal");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).with_context(failed)?;
    grantpt(&master).and_then(|()| unlockpt(&master)).with_context(failed)?;
    let path = ptsname(&master, Vec::new()).with_context(failed)?;
    eprintln!("trivium: {name} is {}", path.to_string_lossy());
    Ok(File::from(master))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Instant;

    /// A reader that takes nothing until its channel is closed.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_to_a_stuck_reader_ends_when_the_user_ends_the_run() {
        let (_open, stuck) = mpsc::channel();
        let mut writers = Writers::default();
        let mut output = writers.start(Stuck(stuck));
        let ending = writers.ending();
        let guest = std::thread::spawn(move || (0..4 * WAITING).for_each(|_| output.send(b'x')));
        std::thread::sleep(2 * LOOK);
        assert!(!guest.is_finished(), "the guest waits for the reader");
        let begun = Instant::now();
        ending.tell();
        guest.join().expect("it ends");
        writers.finish();
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn all_is_written_before_the_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out");
        let mut writers = Writers::default();
        let mut output = writers.start(File::create(&path).expect("it can be made"));
        (0..3 * WAITING).for_each(|_| output.send(b'x'));
        drop(output);
        writers.finish();
        assert_eq!(std::fs::read(path).expect("it is there").len(), 3 * WAITING);
    }
}
