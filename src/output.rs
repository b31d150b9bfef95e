//! Where a guest's characters go: the terminal, a file, a pseudo-terminal, a socket, nowhere.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::thread::JoinHandle;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use trivium_devices::parallel::ParallelBackend;
use trivium_devices::ports::DebugConsoleBackend;
use trivium_devices::uart16550::SerialBackend;

use crate::input::{self, Input};
use crate::options::SerialOption;

/// Characters that may wait for a slow reader before the guest has to.
const WAITING: usize = 1 << 16;

/// The writing end that a device holds.
pub struct Output(Option<Sender<u8>>);

impl Output {
    fn send(&mut self, byte: u8) {
        // Once nobody reads any more, characters are lost, as on a real line.
        if self.0.as_ref().is_some_and(|sender| sender.send(byte).is_err()) {
            self.0 = None;
        }
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
pub struct Writers(Vec<JoinHandle<()>>);

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
            SerialOption::Null => (Output(None), None),
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
        self.0.push(std::thread::spawn(move || copy(&receiver, to)));
        Output(Some(sender))
    }

    /// Waits until all is written.
    pub fn finish(self) {
        for thread in self.0 {
            let _ = thread.join();
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
