//! What comes in on a guest's lines from other programs: pseudo-terminals, pipes, sockets.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::options::{SocketAddress, SocketOption};

/// How long to wait where there is nothing to wait for.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes bytes; gives how many there was room for.
type Deliver<'a> = &'a mut dyn FnMut(&[u8]) -> usize;

/// Where bytes come from.
pub enum Input {
    /// A file that never ends for good: others open and close its far end.
    Endless(File),
    /// One program after another, each on a connection of its own.
    Listener(Listener, Peer),
    /// A program that we have connected to.
    Connection(Stream, Peer),
}

impl Input {
    /// Reads as long as there may come something.
    pub fn serve(self, deliver: Deliver<'_>) {
        match self {
            Self::Endless(mut file) => loop {
                pour(&mut file, deliver);
                sleep(PAUSE);
            },
            Self::Listener(listener, peer) => loop {
                match listener.accept() {
                    Ok(stream) => converse(stream, &peer, deliver),
                    Err(_) => sleep(PAUSE),
                }
            },
            Self::Connection(stream, peer) => converse(stream, &peer, deliver),
        }
    }
}

/// Reads a connection to its end; meanwhile the guest's characters go there.
fn converse(mut stream: Stream, peer: &Peer, deliver: Deliver<'_>) {
    *peer.lock() = stream.try_clone().ok();
    pour(&mut stream, deliver);
    *peer.lock() = None;
}

/// Reads to the end.
fn pour(from: &mut dyn Read, deliver: Deliver<'_>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let taken = deliver(rest).min(rest.len());
            rest = &rest[taken..];
            if !rest.is_empty() {
                // The guest does not read: so the far end waits.
                sleep(PAUSE);
            }
        }
    }
}

/// Where the guest's characters go: to the program that is connected, if there is one.
#[derive(Clone, Default)]
pub struct Peer(Arc<Mutex<Option<Stream>>>);

impl Peer {
    fn lock(&self) -> MutexGuard<'_, Option<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut stream = self.lock();
        if let Some(open) = stream.as_mut()
            && open.write_all(bytes).is_err()
        {
            // It has gone, or reads nothing for too long: its characters are lost, as without it.
            *stream = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A connection.
pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn try_clone(&self) -> std::io::Result<Self> {
        // A program that does not read may not hold the guest up for ever.
        let limit = Some(Duration::from_secs(5));
        match self {
            Self::Unix(stream) => {
                stream.set_write_timeout(limit)?;
                stream.try_clone().map(Self::Unix)
            }
            Self::Tcp(stream) => {
                stream.set_write_timeout(limit)?;
                stream.set_nodelay(true)?;
                stream.try_clone().map(Self::Tcp)
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A socket that programs connect to.
pub enum Listener {
    /// Its file goes away with it.
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Self::Unix(listener, _) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Self::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Opens a socket, or connects to one.
///
/// # Errors
/// That fails; the message names the option and the address.
pub fn open_socket(name: &str, option: &SocketOption) -> anyhow::Result<(Peer, Input)> {
    let peer = Peer::default();
    let connection = |stream| (peer.clone(), Input::Connection(stream, peer.clone()));
    let listener = |listener| (peer.clone(), Input::Listener(listener, peer.clone()));
    Ok(match (&option.address, option.connect) {
        (SocketAddress::Unix(path), true) => {
            let stream = UnixStream::connect(path);
            let failed = || format!("{name}: cannot connect to {}", path.display());
            connection(Stream::Unix(stream.with_context(failed)?))
        }
        (SocketAddress::Unix(path), false) => listener(listen_unix(name, path)?),
        (SocketAddress::Tcp(host, port), true) => {
            let stream = TcpStream::connect((host.as_str(), *port));
            let failed = || format!("{name}: cannot connect to {host}:{port}");
            connection(Stream::Tcp(stream.with_context(failed)?))
        }
        (SocketAddress::Tcp(host, port), false) => {
            let socket = TcpListener::bind((host.as_str(), *port));
            let socket =
                socket.with_context(|| format!("{name}: cannot listen on {host}:{port}"))?;
            if let Ok(address) = socket.local_addr() {
                eprintln!("trivium: {name} is on {address}");
            }
            listener(Listener::Tcp(socket))
        }
    })
}

/// Listens in the file system. A socket that a program before us has left there is replaced.
fn listen_unix(name: &str, path: &Path) -> anyhow::Result<Listener> {
    let failed = || format!("{name}: cannot listen on {}", path.display());
    let stale = path.metadata().is_ok_and(|m| m.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused);
    if stale {
        std::fs::remove_file(path).with_context(failed)?;
    }
    let socket = UnixListener::bind(path).with_context(failed)?;
    Ok(Listener::Unix(socket, path.to_owned()))
}

/// Opens PATH.in and PATH.out, made where there are none: to the guest and from it.
///
/// # Errors
/// They cannot be made or opened, or are no pipes.
pub fn open_fifos(name: &str, path: &Path) -> anyhow::Result<(File, File)> {
    let open = |end: &str| {
        let mut path = path.as_os_str().to_owned();
        path.push(end);
        let path = PathBuf::from(path);
        let failed = || format!("{name}: cannot open the pipe {}", path.display());
        if !path.exists() {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &path, FileType::Fifo, mode, 0).with_context(failed)?;
        }
        if !path.metadata().with_context(failed)?.file_type().is_fifo() {
            bail!("{name}: {} is not a named pipe; remove it, or name another", path.display());
        }
        // Opened for both, so that nobody has to be at the far end.
        OpenOptions::new().read(true).write(true).open(&path).with_context(failed)
    };
    Ok((open(".in")?, open(".out")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Serves an input in a thread; what is delivered comes out of the channel.
    fn serve(input: Input) -> mpsc::Receiver<Vec<u8>> {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            input.serve(&mut |bytes| {
                // Half of it at a time: the rest must come again.
                let taken = bytes.len().div_ceil(2);
                let _ = send.send(bytes[..taken].to_vec());
                taken
            });
        });
        receive
    }

    fn gather(from: &mpsc::Receiver<Vec<u8>>, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(from.recv_timeout(Duration::from_secs(10)).expect("it arrives"));
        }
        all
    }

    #[test]
    fn programs_connect_one_after_another() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("line");
        let address = SocketAddress::Unix(path.clone());
        let option = SocketOption { address, connect: false };
        let (mut peer, input) = open_socket("--serial", &option).expect("it opens");
        let received = serve(input);
        for _ in 0..2 {
            let mut program = UnixStream::connect(&path).expect("somebody listens");
            program.write_all(b"hello").expect("it is written");
            assert_eq!(gather(&received, 5), b"hello");
            peer.write_all(b"guest").expect("that never fails");
            let mut said = [0; 5];
            program.read_exact(&mut said).expect("the guest's characters arrive");
            assert_eq!(&said, b"guest");
        }
        peer.write_all(b"to nobody").expect("that never fails");
    }

    #[test]
    fn a_pipe_needs_nobody_at_its_far_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("line");
        let (to_guest, mut from_guest) = open_fifos("--serial", &path).expect("they open");
        let received = serve(Input::Endless(to_guest));
        from_guest.write_all(b"boot").expect("there is room in the pipe");
        let mut far =
            OpenOptions::new().write(true).open(path.with_extension("in")).expect("a pipe");
        far.write_all(b"root").expect("it is written");
        assert_eq!(gather(&received, 4), b"root");
        std::fs::write(folder.path().join("plain.in"), b"").expect("a file");
        let error = open_fifos("--serial", &folder.path().join("plain")).expect_err("no pipe");
        assert!(error.to_string().contains("not a named pipe"), "{error}");
    }
}
