//! A serial EEPROM of 256 bytes, as memory modules have one, with its write protection on.
//! 24C02 data sheets; JEDEC Standard 21-C, 4.1.2.

use trivium_chipset::{SaveRestore, Section, StateError};

use super::target::SmbusTarget;

const VERSION: u32 = 1;

/// The EEPROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eeprom {
    data: Box<[u8; 256]>,
    /// The address counter.
    at: u8,
    /// The next byte that is written is the address.
    wants_address: bool,
}

impl Eeprom {
    /// An EEPROM with this content.
    #[must_use]
    pub fn new(data: [u8; 256]) -> Self {
        Self { data: Box::new(data), at: 0, wants_address: false }
    }
}

impl SmbusTarget for Eeprom {
    fn start(&mut self, read: bool) -> bool {
        self.wants_address = !read;
        true
    }

    /// The first byte sets the address counter. Those after it are acknowledged and, the write
    /// protect pin being high, lost.
    fn write(&mut self, byte: u8) -> bool {
        if std::mem::take(&mut self.wants_address) {
            self.at = byte;
        }
        true
    }

    /// The counter goes on by one, from the end to the start.
    fn read(&mut self) -> u8 {
        let value = self.data[usize::from(self.at)];
        self.at = self.at.wrapping_add(1);
        value
    }
}

/// What it holds is the machine's configuration, not its state.
impl SaveRestore for Eeprom {
    fn save(&self) -> Section {
        let Self { data: _, at, wants_address } = self;
        Section::encode(VERSION, &(*at, *wants_address))
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        (self.at, self.wants_address) = section.decode(VERSION)?;
        Ok(())
    }
}
