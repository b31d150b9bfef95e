//! What an 8237A does with the bus: the transfers of a channel, software requests, and
//! memory-to-memory transfers (8237A data sheet, "transfer modes").

use trivium_chipset::DmaMemory;

use super::registers::{CHANNELS, Channel, Command, Controller, Kind, Service, bit};

/// Transfers are cut at these addresses, so that memory takes each part or refuses it.
const CUT: u32 = 4096;
/// What an ISA bus reads as when nobody drives it.
const FLOATING: u8 = 0xff;

/// What a transfer achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transferred {
    /// The bytes that went over the bus.
    pub bytes: usize,
    /// Whether the last of them was the channel's last: the device saw TC.
    pub terminal_count: bool,
}

/// Who answers DACK.
pub(super) enum Peer<'a> {
    /// A device that gives these bytes.
    Gives(&'a [u8]),
    /// A device that takes these bytes.
    Takes(&'a mut [u8]),
    /// No device: the data lines float.
    Nobody,
}

/// Memory as a chip's channels reach it.
pub(super) struct Bus<'a> {
    pub(super) memory: &'a dyn DmaMemory,
    /// The channels' page registers: address lines 16 to 23.
    pub(super) pages: [u8; CHANNELS],
    /// Whether addresses count words of two bytes.
    pub(super) words: bool,
}

impl Bus<'_> {
    fn width(&self) -> u32 {
        if self.words { 2 } else { 1 }
    }

    /// Word addresses are on lines 1 to 16: bit 0 of the page register is not used.
    fn address(&self, channel: usize, address: u16) -> u32 {
        let page = u32::from(self.pages.get(channel).copied().unwrap_or(0));
        match self.words {
            true => (page & 0xfe) << 16 | u32::from(address) << 1,
            false => page << 16 | u32::from(address),
        }
    }

    fn read(&self, address: u32, data: &mut [u8]) {
        if self.memory.read(address.into(), data).is_err() {
            data.fill(FLOATING);
        }
    }

    /// What no memory takes is lost.
    fn write(&self, address: u32, data: &[u8]) {
        let _ = self.memory.write(address.into(), data);
    }

    /// How many of a channel's transfers, at most `wanted`, go to consecutive addresses.
    fn stretch(&self, number: usize, channel: &Channel, wanted: u32) -> u32 {
        if channel.mode.decrements() {
            return wanted.min(1);
        }
        let at = self.address(number, channel.address);
        let to_wrap = 0x1_0000 - u32::from(channel.address);
        let to_cut = (CUT - at % CUT) / self.width();
        wanted.min(u32::from(channel.count) + 1).min(to_wrap).min(to_cut)
    }
}

impl Controller {
    /// Whether a channel whose device requests it may have the bus.
    fn is_open(&self, number: usize) -> bool {
        self.mask & bit(number) == 0
            && !self.command.contains(Command::DISABLE)
            && self.channels.get(number).is_some_and(|c| c.mode.service() != Service::Cascade)
            && !(self.command.contains(Command::MEMORY_TO_MEMORY) && number == 0)
    }

    /// A device's request: as many transfers as it wants, or as there are up to terminal count.
    pub(super) fn serve(&mut self, number: usize, bus: &Bus<'_>, peer: Peer<'_>) -> Transferred {
        match self.is_open(number) {
            true => self.transfer(number, bus, peer),
            false => Transferred::default(),
        }
    }

    fn transfer(&mut self, number: usize, bus: &Bus<'_>, mut peer: Peer<'_>) -> Transferred {
        let width = bus.width();
        let offered = match &peer {
            Peer::Gives(data) => data.len() as u32 / width,
            Peer::Takes(data) => data.len() as u32 / width,
            Peer::Nobody => u32::MAX,
        };
        let (mut made, mut terminal_count) = (0, false);
        while made < offered && !terminal_count {
            let Some(channel) = self.channels.get_mut(number) else { break };
            let transfers = bus.stretch(number, channel, offered - made);
            let at = bus.address(number, channel.address);
            let range = (made * width) as usize..((made + transfers) * width) as usize;
            cycles(bus, channel.mode.kind(), at, range, &mut peer);
            terminal_count = channel.advance(transfers, false);
            made += transfers;
        }
        if made > 0 {
            self.lowest = number as u8;
        }
        if terminal_count {
            self.end_of_process(number);
        }
        Transferred { bytes: (made * width) as usize, terminal_count }
    }

    /// EOP at a channel's terminal count.
    fn end_of_process(&mut self, number: usize) {
        self.terminal |= bit(number);
        self.requests &= !bit(number);
        let Some(channel) = self.channels.get_mut(number) else { return };
        if channel.mode.autoinitializes() {
            channel.reload();
        } else {
            self.mask |= bit(number);
        }
    }

    /// Whether a channel has something to do that takes no device: a software request in block
    /// mode, which no mask stops, or a memory-to-memory transfer.
    fn is_due(&self, number: usize) -> bool {
        let software = self.requests & bit(number) != 0;
        if number == 0 && self.command.contains(Command::MEMORY_TO_MEMORY) {
            return software || self.lines & !self.mask & bit(number) != 0;
        }
        let service = self.channels.get(number).map(|channel| channel.mode.service());
        software && service == Some(Service::Block)
    }

    /// Does, once each and by priority, what takes no device.
    pub(super) fn run(&mut self, bus: &Bus<'_>) {
        let mut left = [0, 1, 2, 3].map(|number| self.is_due(number));
        for _ in 0..CHANNELS {
            if self.command.contains(Command::DISABLE) {
                return;
            }
            let due = |number: &usize| left.get(*number) == Some(&true);
            let Some(number) = self.by_priority().into_iter().find(due) else { return };
            if let Some(place) = left.get_mut(number) {
                *place = false;
            }
            if number == 0 && self.command.contains(Command::MEMORY_TO_MEMORY) {
                self.copy(bus);
            } else {
                self.transfer(number, bus, Peer::Nobody);
            }
        }
    }

    /// A memory-to-memory transfer: from where channel 0 points to where channel 1 does, until
    /// channel 1's terminal count.
    fn copy(&mut self, bus: &Bus<'_>) {
        let hold = self.command.contains(Command::ADDRESS_HOLD);
        loop {
            let [source, destination, ..] = &mut self.channels;
            let mut data = [0];
            bus.read(bus.address(0, source.address), &mut data);
            [self.temporary] = data;
            bus.write(bus.address(1, destination.address), &data);
            // Channel 0's own count sets no TC; it may make the channel autoinitialize.
            if source.advance(1, hold) && source.mode.autoinitializes() {
                source.reload();
            }
            if destination.advance(1, false) {
                break;
            }
        }
        self.lowest = 1;
        self.requests &= !bit(0);
        self.end_of_process(1);
    }
}

/// The cycles of transfers to consecutive addresses.
fn cycles(bus: &Bus<'_>, kind: Kind, at: u32, range: std::ops::Range<usize>, peer: &mut Peer<'_>) {
    match (kind, peer) {
        (Kind::Write, Peer::Gives(data)) => bus.write(at, data.get(range).unwrap_or_default()),
        (Kind::Write, Peer::Nobody) => {
            bus.write(at, [FLOATING; CUT as usize].get(..range.len()).unwrap_or_default());
        }
        (Kind::Read, Peer::Takes(data)) => bus.read(at, data.get_mut(range).unwrap_or_default()),
        // A device that listens while nobody drives the data lines.
        (_, Peer::Takes(data)) => data.get_mut(range).unwrap_or_default().fill(FLOATING),
        (_, Peer::Gives(_) | Peer::Nobody) => {}
    }
}
