//! A machine's state as bytes.
//!
//! First [`MAGIC`] and [`FORMAT`], then sections, each of
//!
//! ```text
//! length of the name, 1 byte; name; version, 4 bytes; length of the data, 4 bytes; data;
//! CRC-32 of all that, 4 bytes
//! ```
//!
//! with numbers in little-endian order: `machine`, `cpu/N` for each processor, `device/NAME` for
//! each device, `ram` for each 2 MiB of RAM that are not all zero, and `end`. A section of RAM is
//! the number of its first page, a bitmap of its pages that are not zero, and these pages.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use trivium_chipset::{Section, StateError, VmTime};
use trivium_cpu::CpuState;
use trivium_memory::image::{Bitmap, Block};
use trivium_memory::{MemoryError, PAGE_SIZE, RamImage};

use super::MachineState;

/// What a saved state begins with.
const MAGIC: [u8; 8] = *b"TRIVIUM\x1a";
/// The latest version of the frame that is described above.
const FORMAT: u32 = 1;
/// Versions of the sections that are not a device's.
const MACHINE_VERSION: u32 = 1;
const CPU_VERSION: u32 = 1;
const RAM_VERSION: u32 = 1;
const END_VERSION: u32 = 1;

const MACHINE: &str = "machine";
const CPU: &str = "cpu/";
const DEVICE: &str = "device/";
const RAM: &str = "ram";
const END: &str = "end";

/// More than the longest section that there is, in bytes.
const MOST_DATA: u32 = 16 << 20;
/// More than the most RAM that a machine can have, in bytes.
const MOST_RAM: u64 = 1 << 42;
/// More than the most processors and devices.
const MOST_SECTIONS: usize = 4096;

/// Why bytes are not the state of a machine.
#[derive(Debug, Error)]
pub enum FormatError {
    /// Something else.
    #[error("This is not the saved state of a machine")]
    Magic,
    /// Written by a later version of the program.
    #[error(
        "State has format {found}, this program knows up to {known}; use a later version of it"
    )]
    Format {
        /// The format that it has.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// The end is missing.
    #[error("State is incomplete: it ends after section '{after}'")]
    Truncated {
        /// The last section that is complete.
        after: String,
    },
    /// Bytes have changed.
    #[error("State is damaged: section '{name}' does not agree with its checksum")]
    Checksum {
        /// The section.
        name: String,
    },
    /// Something that this program does not know, at least not there.
    #[error("State has a section '{name}' that this program does not know, or not in that place")]
    Unexpected {
        /// The section.
        name: String,
    },
    /// A section's content is impossible.
    #[error("State has a section '{name}' that is refused: {source}")]
    Section {
        /// The section.
        name: String,
        /// What is wrong with it.
        source: StateError,
    },
    /// The host has no memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// It cannot be read.
    #[error("State cannot be read: {0}")]
    Read(#[source] io::Error),
}

/// What is known of the machine before all else.
#[derive(Serialize, Deserialize)]
struct Header {
    now: VmTime,
    cpus: u32,
    ram_size: u64,
}

/// A processor's state as a section.
pub(super) fn cpu_section(cpu: &CpuState) -> Section {
    Section::encode(CPU_VERSION, cpu)
}

fn write_section(out: &mut impl Write, name: &str, version: u32, data: &[&[u8]]) -> io::Result<()> {
    let too_long = |_| io::Error::from(io::ErrorKind::InvalidData);
    let length: usize = data.iter().map(|part| part.len()).sum();
    let name_length = [u8::try_from(name.len()).map_err(too_long)?];
    let length = u32::try_from(length).map_err(too_long)?.to_le_bytes();
    let version = version.to_le_bytes();
    let head: [&[u8]; 4] = [&name_length, name.as_bytes(), &version, &length];
    let mut checksum = crc32fast::Hasher::new();
    for part in head.iter().chain(data) {
        checksum.update(part);
        out.write_all(part)?;
    }
    out.write_all(&checksum.finalize().to_le_bytes())
}

fn write_block(out: &mut impl Write, block: &Block<'_>) -> io::Result<()> {
    let first_page = block.first_page.to_le_bytes();
    let bitmap = block.present.map(u64::to_le_bytes);
    let pages = block.pages();
    let parts: Vec<&[u8]> =
        [&first_page[..], bitmap.as_flattened()].into_iter().chain(pages).collect();
    write_section(out, RAM, RAM_VERSION, &parts)
}

impl MachineState {
    /// Writes the state. What takes it may compress it or write it to a file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { now, cpus, devices, ram } = self;
        out.write_all(&MAGIC)?;
        out.write_all(&FORMAT.to_le_bytes())?;
        let header = Header { now: *now, cpus: cpus.len() as u32, ram_size: ram.size() };
        let header = Section::encode(MACHINE_VERSION, &header);
        write_section(out, MACHINE, header.version, &[&header.data])?;
        for (number, cpu) in cpus.iter().enumerate() {
            let Section { version, data } = cpu_section(cpu);
            write_section(out, &format!("{CPU}{number}"), version, &[&data])?;
        }
        for (name, Section { version, data }) in devices {
            write_section(out, &format!("{DEVICE}{name}"), *version, &[data])?;
        }
        for block in ram.blocks() {
            write_block(out, &block)?;
        }
        write_section(out, END, END_VERSION, &[])
    }

    /// The state as [`Self::write_to`] writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let pages: usize = self.ram.blocks().map(|block| block.pages().count()).sum();
        let mut bytes = Vec::with_capacity((pages + 64) * PAGE_SIZE as usize);
        // Writing to memory cannot fail, and the sections of a machine are not too long.
        let written = self.write_to(&mut bytes);
        debug_assert!(written.is_ok());
        bytes
    }

    /// Reads a state that [`Self::write_to`] wrote, and nothing beyond its end.
    ///
    /// # Errors
    /// It is none, is incomplete or damaged, or of a later version.
    pub fn read_from(input: &mut impl Read) -> Result<Self, FormatError> {
        let mut reader = Reader { input, last: "the header".into() };
        reader.check_format()?;
        let (name, section) = reader.section()?;
        if name != MACHINE {
            return Err(FormatError::Unexpected { name });
        }
        let mut parse = Parse::new(name, &section)?;
        loop {
            let (name, section) = reader.section()?;
            if name == END {
                return parse.finish(name);
            }
            parse.take(name, section)?;
        }
    }

    /// The state that these bytes are: all of them.
    ///
    /// # Errors
    /// As [`Self::read_from`].
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, FormatError> {
        let state = Self::read_from(&mut bytes)?;
        match bytes.is_empty() {
            true => Ok(state),
            false => Err(FormatError::Unexpected { name: "after the end".into() }),
        }
    }
}

/// Takes sections from a stream.
struct Reader<'a, R> {
    input: &'a mut R,
    /// The last section that was complete.
    last: String,
}

impl<R: Read> Reader<'_, R> {
    fn check_format(&mut self) -> Result<(), FormatError> {
        let mut magic = [0; 8];
        self.fill(&mut magic)?;
        let mut found = [0; 4];
        if magic != MAGIC {
            return Err(FormatError::Magic);
        }
        self.fill(&mut found)?;
        match u32::from_le_bytes(found) {
            FORMAT => Ok(()),
            found => Err(FormatError::Format { found, known: FORMAT }),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FormatError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::Truncated { after: self.last.clone() },
            _ => FormatError::Read(error),
        })
    }

    fn number(&mut self, checksum: &mut crc32fast::Hasher) -> Result<u32, FormatError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        checksum.update(&bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    /// The next section and its name.
    fn section(&mut self) -> Result<(String, Section), FormatError> {
        let mut checksum = crc32fast::Hasher::new();
        let mut length = [0];
        self.fill(&mut length)?;
        checksum.update(&length);
        let mut name = vec![0; length[0].into()];
        self.fill(&mut name)?;
        checksum.update(&name);
        let name = String::from_utf8_lossy(&name).escape_debug().to_string();
        let version = self.number(&mut checksum)?;
        let length = self.number(&mut checksum)?;
        if length > MOST_DATA {
            return Err(FormatError::Checksum { name });
        }
        let mut data = Vec::new();
        // Not more is taken than there is, whatever the length says.
        let read = self.input.take(length.into()).read_to_end(&mut data);
        if read.map_err(FormatError::Read)? < length as usize {
            return Err(FormatError::Truncated { after: self.last.clone() });
        }
        checksum.update(&data);
        let mut sum = [0; 4];
        self.fill(&mut sum)?;
        if u32::from_le_bytes(sum) != checksum.finalize() {
            return Err(FormatError::Checksum { name });
        }
        self.last.clone_from(&name);
        Ok((name, Section { version, data }))
    }
}

/// A state of which some sections are there.
struct Parse {
    state: MachineState,
    cpus: usize,
}

impl Parse {
    fn new(name: String, section: &Section) -> Result<Self, FormatError> {
        let refused = |source| FormatError::Section { name: name.clone(), source };
        let Header { now, cpus, ram_size } = section.decode(MACHINE_VERSION).map_err(refused)?;
        if ram_size > MOST_RAM || ram_size % PAGE_SIZE != 0 {
            return Err(refused(StateError::Impossible("no machine has so much RAM")));
        }
        let ram = RamImage::new(ram_size)?;
        let state = MachineState { now, cpus: Vec::new(), devices: Vec::new(), ram };
        Ok(Self { state, cpus: cpus as usize })
    }

    fn take(&mut self, name: String, section: Section) -> Result<(), FormatError> {
        let refused = |source| FormatError::Section { name: name.clone(), source };
        if let Some(number) = name.strip_prefix(CPU) {
            let cpus = &mut self.state.cpus;
            if number != cpus.len().to_string() || cpus.len() == self.cpus {
                return Err(FormatError::Unexpected { name });
            }
            cpus.push(section.decode(CPU_VERSION).map_err(refused)?);
        } else if let Some(device) = name.strip_prefix(DEVICE) {
            let devices = &mut self.state.devices;
            let known = devices.iter().any(|(known, _)| known == device);
            if known || devices.len() == MOST_SECTIONS {
                return Err(FormatError::Unexpected { name });
            }
            devices.push((device.to_owned(), section));
        } else if name == RAM {
            self.take_ram(&section).map_err(refused)?;
        } else {
            return Err(FormatError::Unexpected { name });
        }
        Ok(())
    }

    fn take_ram(&mut self, section: &Section) -> Result<(), StateError> {
        if section.version != RAM_VERSION {
            return Err(StateError::Version { found: section.version, known: RAM_VERSION });
        }
        let (first_page, rest) = section.data.split_first_chunk().ok_or(StateError::Decode)?;
        let (bitmap, pages) =
            rest.split_first_chunk::<{ size_of::<Bitmap>() }>().ok_or(StateError::Decode)?;
        let mut present: Bitmap = Default::default();
        for (word, bytes) in present.iter_mut().zip(bitmap.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let count: usize = present.iter().map(|word| word.count_ones() as usize).sum();
        if pages.len() != count * PAGE_SIZE as usize {
            return Err(StateError::Decode);
        }
        let places = self
            .state
            .ram
            .block_mut(u64::from_le_bytes(*first_page), &present)
            .ok_or(StateError::Impossible("the pages lie beyond the end of RAM"))?;
        for (place, page) in places.zip(pages.chunks(PAGE_SIZE as usize)) {
            place.copy_from_slice(page);
        }
        Ok(())
    }

    fn finish(self, name: String) -> Result<MachineState, FormatError> {
        match self.state.cpus.len() == self.cpus {
            true => Ok(self.state),
            false => Err(FormatError::Unexpected { name }),
        }
    }
}
