//! The two 8237A DMA controllers of a PC with their page registers: channels 0 to 3 move bytes,
//! channels 5 to 7 words; channel 4 is where the first chip is cascaded into the second
//! (82371SB data sheet, "DMA controller").

mod registers;
mod save_restore;
#[cfg(test)]
mod tests;
mod transfer;

use std::sync::{Arc, Mutex, PoisonError};

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, DmaMemory, PortIo};

use self::registers::{Command, Controller, Mode, Service, bit};
pub use self::transfer::Transferred;
use self::transfer::{Bus, Peer};
use crate::access::{byte_only, low_byte};

/// The first chip's registers; the upper 16 ports are the same again.
const CHIP1: std::ops::RangeInclusive<u16> = 0x00..=0x1f;
/// The second chip's registers, each at an even port and the odd one after it.
const CHIP2: std::ops::RangeInclusive<u16> = 0xc0..=0xdf;
/// The page registers. 80h, which is no channel's, is [`crate::ports::PostPort`].
const PAGES: std::ops::RangeInclusive<u16> = 0x81..=0x8f;
/// Where in [`PAGES`], less 80h, a channel's page register is. Channel 4 has none; memory is
/// refreshed with 8Fh.
const PAGE_OF_CHANNEL: [usize; 8] = [0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa];
/// The channel that the first chip is cascaded into, by its number on the second chip.
const CASCADE: usize = 0;

/// The DMA controllers.
pub struct Dma {
    chips: [Controller; 2],
    pages: [u8; 16],
    memory: Arc<dyn DmaMemory>,
}

impl Dma {
    /// The ports, as first and count.
    pub const PORTS: [(u16, u16); 3] = [(0x00, 0x20), (0x81, 0x0f), (0xc0, 0x20)];

    /// Controllers after power-up: all channels are masked, channel 4 is in cascade mode.
    #[must_use]
    pub fn new(memory: Arc<dyn DmaMemory>) -> Self {
        let mut dma =
            Self { chips: [Controller::new(), Controller::new()], pages: [0; 16], memory };
        dma.reset();
        dma
    }

    /// What the channels of a chip reach, beside the chip itself.
    fn parts(&mut self, chip: usize) -> (&mut Controller, Bus<'_>) {
        let page = |channel: usize| {
            let place = PAGE_OF_CHANNEL.get(4 * chip + channel).copied().unwrap_or(0);
            self.pages.get(place).copied().unwrap_or(0)
        };
        let bus = Bus { memory: &*self.memory, pages: [0, 1, 2, 3].map(page), words: chip == 1 };
        let [first, second] = &mut self.chips;
        (if chip == 0 { first } else { second }, bus)
    }

    /// Whether the second chip passes the first one's requests for the bus on.
    fn is_cascaded(&self) -> bool {
        let [_, second] = &self.chips;
        let [channel, ..] = &second.channels;
        second.mask & bit(CASCADE) == 0
            && !second.command.contains(Command::DISABLE)
            && channel.mode.service() == Service::Cascade
    }

    /// Whether a chip gets the bus.
    fn has_bus(&self, chip: usize) -> bool {
        chip == 1 || self.is_cascaded()
    }

    /// Does what takes no device.
    fn run(&mut self) {
        for chip in 0..2 {
            if self.has_bus(chip) {
                let (controller, bus) = self.parts(chip);
                controller.run(&bus);
            }
        }
    }

    fn set_request(&mut self, channel: usize, high: bool) {
        let (controller, _) = self.parts(channel / 4);
        let line = bit(channel % 4);
        controller.lines = if high { controller.lines | line } else { controller.lines & !line };
        self.run();
    }

    fn serve(&mut self, channel: usize, peer: Peer<'_>) -> Transferred {
        let chip = channel / 4;
        if !self.has_bus(chip) {
            return Transferred::default();
        }
        let (controller, bus) = self.parts(chip);
        controller.serve(channel % 4, &bus, peer)
    }
}

#[cfg(any(test, feature = "testing"))]
impl Dma {
    /// What devices may do, for tests: drive a request, offer bytes, ask for bytes.
    pub(crate) fn poke(&mut self, what: u8) {
        let channel = usize::from(what & 7);
        match what >> 6 {
            0 => self.set_request(channel, what & 8 != 0),
            1 => _ = self.serve(channel, Peer::Gives(&[what; 99])),
            _ => _ = self.serve(channel, Peer::Takes(&mut [0; 4097])),
        }
    }
}

/// Which register a port is.
enum Register {
    Chip(usize, u8),
    Page(usize),
}

fn register(port: u16) -> BusResult<Register> {
    match port {
        _ if CHIP1.contains(&port) => Ok(Register::Chip(0, (port & 0xf) as u8)),
        _ if CHIP2.contains(&port) => Ok(Register::Chip(1, (port >> 1 & 0xf) as u8)),
        _ if PAGES.contains(&port) => Ok(Register::Page(usize::from(port & 0xf))),
        _ => Err(BusError::NoRegister),
    }
}

impl PortIo for Dma {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        let value = match register(port)? {
            Register::Chip(chip, address) => self.parts(chip).0.read(address)?,
            Register::Page(page) => self.pages.get(page).copied().unwrap_or(0),
        };
        Ok(value.into())
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        let value = low_byte(value);
        match register(port)? {
            Register::Chip(chip, address) => {
                self.parts(chip).0.write(address, value);
                self.run();
            }
            Register::Page(page) => {
                if let Some(register) = self.pages.get_mut(page) {
                    *register = value;
                }
            }
        }
        Ok(())
    }
}

impl Device for Dma {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    /// Devices take their requests back themselves. Channel 4 "defaults to cascade mode".
    fn reset(&mut self) {
        let [first, second] = &mut self.chips;
        first.master_clear();
        second.master_clear();
        let [cascade, ..] = &mut second.channels;
        cascade.mode = Mode::CASCADE;
    }
}

/// A device's end of a channel: its DREQ, DACK, TC and data lines. A device may use it while it is
/// locked itself; the controllers never call devices.
///
/// Transfers take no time. A device asks for them when it would have made them, and may find its
/// channel masked or at its end: then fewer bytes go than it has, and it tries again later or
/// reports an overrun.
#[derive(Clone)]
pub struct DmaChannel {
    dma: Arc<Mutex<Dma>>,
    number: usize,
}

impl DmaChannel {
    /// The device's end of channel 0 to 3 (bytes) or 5 to 7 (words); channel 4 is no device's.
    #[must_use]
    pub fn new(dma: Arc<Mutex<Dma>>, number: u8) -> Option<Self> {
        let number = usize::from(number);
        (number < PAGE_OF_CHANNEL.len() && number != 4).then_some(Self { dma, number })
    }

    fn with<R>(&self, f: impl FnOnce(&mut Dma) -> R) -> R {
        f(&mut self.dma.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drives DREQ, which the status register shows.
    pub fn set_request(&self, high: bool) {
        self.with(|dma| dma.set_request(self.number, high));
    }

    /// Offers bytes for memory; they are taken as if DREQ were high meanwhile. A channel that is
    /// programmed for another direction takes them and moves nothing.
    pub fn to_memory(&self, data: &[u8]) -> Transferred {
        self.with(|dma| dma.serve(self.number, Peer::Gives(data)))
    }

    /// Asks for bytes from memory, as if DREQ were high meanwhile. Where there is no memory they
    /// are FFh, and so they are on a channel that is programmed for another direction.
    pub fn from_memory(&self, data: &mut [u8]) -> Transferred {
        self.with(|dma| dma.serve(self.number, Peer::Takes(data)))
    }
}
