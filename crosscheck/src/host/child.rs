//! The process that runs the cases: starting it, asking it, noticing its end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::thread::futex;

use super::arena::{Arena, CONFIG, INPUT, PRISTINE, WORKING, control};
use super::encode::pristine;
use super::setup::Setup;
use super::{blob, elf};

/// How long to wait before looking whether the child still lives.
const LOOK: Duration = Duration::from_millis(10);
/// A child that gets no further for so long is ended.
const STUCK: Duration = Duration::from_secs(20);

/// How a batch ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it should; there may be cases left.
    Done,
    /// The child has ended, for this reason, while it ran the case behind those that are done.
    Died(String),
}

/// The process, and the memory that it shares with this one.
pub(super) struct Server {
    arena: Arena,
    executable: File,
    setup: Setup,
    pristine: Vec<u8>,
    xsave_words: u32,
    child: Option<Child>,
}

impl Server {
    /// Makes memory and program; starts nothing yet.
    pub(super) fn new(xsave_size: usize) -> io::Result<Self> {
        let program = elf::executable(blob::code());
        // Kernels before 6.3 do not know the flag, later ones may insist on it.
        let flags = MemfdFlags::CLOEXEC;
        let executable = memfd_create("trivium-host", flags | MemfdFlags::EXEC)
            .or_else(|_| memfd_create("trivium-host", flags))?;
        let mut executable = File::from(executable);
        executable.write_all(&program)?;
        Ok(Self {
            arena: Arena::new()?,
            executable,
            setup: Setup::new(blob::handler()),
            pristine: pristine(),
            xsave_words: (xsave_size / 8) as u32,
            child: None,
        })
    }

    /// The number of the process.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The last error of `modify_ldt`, negative; zero if there was none. Forgets it.
    pub(super) fn take_ldt_error(&self) -> i32 {
        self.arena.word(control::LDT_ERRNO).swap(0, Relaxed) as i32
    }

    /// Ends the child if there is one, and starts another. Afterwards it is ready to serve.
    pub(super) fn start(&mut self) -> io::Result<()> {
        self.end();
        self.arena.write(0, &[0; CONFIG]);
        self.arena.write(CONFIG, &self.setup.bytes());
        self.arena.write(WORKING, &self.pristine);
        self.arena.write(PRISTINE, &self.pristine);
        self.arena.word(control::PARENT).store(std::process::id(), Relaxed);
        self.arena.word(control::XSAVE_WORDS).store(self.xsave_words, Relaxed);
        self.arena.word(control::REQUEST).store(1, Release);
        let path = format!("/proc/self/fd/{}", self.executable.as_raw_fd());
        let mut command = Command::new(path);
        command.env_clear().stdin(self.arena.file()?).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn();
        self.child = Some(child.map_err(|e| io::Error::other(format!("no process: {e}")))?);
        match self.wait(1)? {
            End::Done => Ok(()),
            End::Died(how) => Err(io::Error::other(self.why_not_started(&how))),
        }
    }

    fn why_not_started(&self, how: &str) -> String {
        let call = self.arena.word(control::FAILED_CALL).load(Relaxed);
        if call == 0 {
            return format!("its process ended at once: {how}");
        }
        let errno = self.arena.word(control::FAILED_ERRNO).load(Relaxed) as i32;
        let error = io::Error::from_raw_os_error(errno.wrapping_neg());
        format!("its process may not call {}: {error}", self.setup.name(call))
    }

    /// Asks for a batch of `count` cases, whose records these are, and waits for its end.
    pub(super) fn serve(&mut self, records: &[u8], count: usize) -> io::Result<End> {
        self.arena.write(INPUT, records);
        self.arena.word(control::COUNT).store(count as u32, Relaxed);
        self.arena.word(control::FINISHED).store(0, Relaxed);
        let request = self.arena.word(control::REQUEST);
        let number = request.fetch_add(1, Release).wrapping_add(1);
        futex::wake(request, futex::Flags::empty(), 1)?;
        self.wait(number)
    }

    /// How many cases of the batch are done, and the records of their outcomes.
    pub(super) fn outcomes(&self, into: &mut Vec<u8>) -> usize {
        use super::arena::{OUTPUT, OUTPUT_SIZE, child_address};
        let mut end = [0; 8];
        self.arena.read(control::OUTPUT, &mut end);
        let len = u64::from_le_bytes(end).saturating_sub(child_address(OUTPUT));
        into.resize((len as usize).min(OUTPUT_SIZE), 0);
        self.arena.read(OUTPUT, into);
        self.arena.word(control::FINISHED).load(Acquire) as usize
    }

    /// Waits until a batch is done, or the child has ended.
    fn wait(&mut self, number: u32) -> io::Result<End> {
        let (mut progress, mut since, mut looked) = (0, Instant::now(), Instant::now());
        loop {
            let done = self.arena.word(control::DONE);
            let seen = done.load(Acquire);
            if seen == number {
                return Ok(End::Done);
            }
            let timeout = LOOK.try_into().ok();
            match futex::wait(done, futex::Flags::empty(), seen, timeout.as_ref()) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
                Err(error) => return Err(error.into()),
            }
            if looked.elapsed() < LOOK {
                continue;
            }
            looked = Instant::now();
            if let Some(how) = self.has_died()? {
                return Ok(End::Died(how));
            }
            let now = self.arena.word(control::FINISHED).load(Relaxed);
            if std::mem::replace(&mut progress, now) != now {
                since = looked;
            } else if since.elapsed() > STUCK {
                self.end();
                return Ok(End::Died("it got no further".to_owned()));
            }
        }
    }

    fn has_died(&mut self) -> io::Result<Option<String>> {
        let Some(child) = &mut self.child else { return Ok(Some("there is none".to_owned())) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status.map(describe))
    }

    /// Ends the child.
    pub(super) fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "unknown".to_owned(),
    }
}
