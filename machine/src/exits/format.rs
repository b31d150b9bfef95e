//! The format of traces of exits.
//!
//! A line of text, `trivium exits 1 cpu=NAME overhead_ns=N`, and then records of 48 bytes each; their
//! numbers are little-endian:
//!
//! | offset | size | what |
//! |---:|---:|---|
//! | 0 | 8 | when it began, in nanoseconds of the host's clock since the machine was made |
//! | 8 | 8 | linear address of the instruction |
//! | 16 | 8 | detail: port, guest-physical address, MSR, vector (and error code << 32), or the instruction's bytes |
//! | 24 | 8 | what it cost in nanoseconds, until the guest's code was entered again |
//! | 32 | 8 | how much of that was spent in the board and its devices |
//! | 40 | 2 | accesses to devices in it |
//! | 42 | 1 | reason, a [`trivium_cpu::ExitReason`] |
//! | 43 | 1 | number of the virtual processor |
//! | 44 | 1 | width of the access in bytes |
//! | 45 | 1 | width of the code in bits, or 0 |
//! | 46 | 2 | zero |

use std::io::{BufRead, BufReader, Read};

use thiserror::Error;
use trivium_cpu::ExitReason;

/// What the first line begins with.
const MAGIC: &str = "trivium exits 1";
/// Bytes of a record.
const SIZE: usize = 48;
/// More than a first line can have.
const LONGEST_LINE: u64 = 1 << 10;

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The kind of CPU: `interp`, `jit`.
    pub cpu: String,
    /// What an exit seems to cost in which nothing is done, in nanoseconds.
    pub overhead_ns: u32,
}

/// An exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// When it began, in nanoseconds of the host's clock.
    pub time_ns: u64,
    /// Linear address of the instruction.
    pub linear: u64,
    /// Port, guest-physical address, MSR, vector with the error code above it, or code.
    pub detail: u64,
    /// What it cost, in nanoseconds.
    pub cost_ns: u64,
    /// How much of that was the board's.
    pub device_ns: u64,
    /// Accesses to devices.
    pub accesses: u16,
    /// Why.
    pub reason: ExitReason,
    /// The virtual processor.
    pub cpu: u8,
    /// Width of the access in bytes.
    pub width: u8,
    /// Width of the code in bits, or 0 if it is not known.
    pub bits: u8,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            time_ns: 0,
            linear: 0,
            detail: 0,
            cost_ns: 0,
            device_ns: 0,
            accesses: 0,
            reason: ExitReason::Other,
            cpu: 0,
            width: 0,
            bits: 0,
        }
    }
}

/// Why a file is no trace of exits.
#[derive(Debug, Error)]
pub enum FormatError {
    /// It does not begin as one.
    #[error("it is no trace of exits: its first line is not '{MAGIC} ...'")]
    Magic,
    /// It ends within a record.
    #[error("it ends within a record")]
    Cut,
    /// A record has a reason that there is not.
    #[error("record {0} has an unknown reason")]
    Reason(usize),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] std::io::Error),
}

impl Header {
    /// The first line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{MAGIC} cpu={} overhead_ns={}\n", self.cpu, self.overhead_ns).into_bytes()
    }

    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix(MAGIC)?.strip_suffix('\n')?;
        let value = |name| rest.split(' ').find_map(|word| word.strip_prefix(name));
        Some(Self {
            cpu: value("cpu=")?.to_owned(),
            overhead_ns: value("overhead_ns=")?.parse().ok()?,
        })
    }
}

impl Record {
    /// As it is in a file.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let Self { time_ns, linear, detail, cost_ns, device_ns, .. } = *self;
        let Self { accesses, reason, cpu, width, bits, .. } = *self;
        let mut bytes = [0; SIZE];
        let words = [time_ns, linear, detail, cost_ns, device_ns];
        for (place, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes[40..42].copy_from_slice(&accesses.to_le_bytes());
        [bytes[42], bytes[43], bytes[44], bytes[45]] = [reason as u8, cpu, width, bits];
        bytes
    }

    /// From a file; none if its reason is none.
    fn from_bytes(bytes: &[u8; SIZE]) -> Option<Self> {
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or_default();
        Some(Self {
            time_ns: next(),
            linear: next(),
            detail: next(),
            cost_ns: next(),
            device_ns: next(),
            accesses: u16::from_le_bytes([bytes[40], bytes[41]]),
            reason: *ExitReason::ALL.get(usize::from(bytes[42]))?,
            cpu: bytes[43],
            width: bytes[44],
            bits: bytes[45],
        })
    }
}

/// Reads a whole file.
///
/// # Errors
/// It is no trace of exits, or cannot be read.
pub fn read(file: impl Read) -> Result<(Header, Vec<Record>), FormatError> {
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    let line = str::from_utf8(&line).map_err(|_| FormatError::Magic)?;
    let header = Header::parse(line).ok_or(FormatError::Magic)?;
    let mut records = Vec::new();
    loop {
        let mut bytes = Vec::new();
        file.by_ref().take(SIZE as u64).read_to_end(&mut bytes)?;
        match <&[u8; SIZE]>::try_from(bytes.as_slice()) {
            Ok(bytes) => {
                let number = records.len();
                records.push(Record::from_bytes(bytes).ok_or(FormatError::Reason(number))?);
            }
            Err(_) if bytes.is_empty() => return Ok((header, records)),
            Err(_) => return Err(FormatError::Cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let header = Header { cpu: "jit".into(), overhead_ns: 20 };
        let record = Record {
            time_ns: 1,
            linear: 0xffff_ffff_8100_0000,
            detail: 0x3f8,
            cost_ns: 300,
            device_ns: 100,
            accesses: 1,
            reason: ExitReason::PortWrite,
            cpu: 2,
            width: 1,
            bits: 64,
        };
        [header.to_bytes(), record.to_bytes().to_vec()].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let (header, records) = read(file().as_slice()).unwrap();
        assert_eq!((header.cpu.as_str(), header.overhead_ns, records.len()), ("jit", 20, 1));
        assert_eq!([header.to_bytes(), records[0].to_bytes().to_vec()].concat(), file());
    }

    #[test]
    fn every_reason_has_its_place_in_the_table() {
        for (value, reason) in ExitReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, value);
        }
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let good = file();
        assert!(matches!(read(&b"\x7fELF"[..]), Err(FormatError::Magic)));
        assert!(matches!(read(&good[..good.len() - 1]), Err(FormatError::Cut)));
        let mut wrong = good.clone();
        let at = wrong.len() - 6;
        wrong[at] = 200;
        assert!(matches!(read(wrong.as_slice()), Err(FormatError::Reason(0))));
        assert!(read(&b"trivium exits 1 cpu=\xff\n"[..]).is_err());
    }
}
