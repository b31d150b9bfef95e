//! The saved state of the DMA controllers.

use serde::{Deserialize, Serialize};
use trivium_chipset::{SaveRestore, Section, StateError};

use super::Dma;
use super::registers::{ALL, Channel, Command, Controller, Mode};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct SavedDma {
    chips: [SavedChip; 2],
    pages: [u8; 16],
}

#[derive(Serialize, Deserialize)]
struct SavedChip {
    channels: [SavedChannel; 4],
    command: u8,
    requests: u8,
    lines: u8,
    mask: u8,
    terminal: u8,
    temporary: u8,
    upper: bool,
    lowest: u8,
}

#[derive(Serialize, Deserialize)]
struct SavedChannel {
    mode: u8,
    base_address: u16,
    base_count: u16,
    address: u16,
    count: u16,
}

impl SavedChannel {
    fn of(channel: &Channel) -> Self {
        let Channel { mode: Mode(mode), base_address, base_count, address, count } = *channel;
        Self { mode, base_address, base_count, address, count }
    }

    fn into_channel(self) -> Result<Channel, StateError> {
        let Self { mode, base_address, base_count, address, count } = self;
        if mode & 3 != 0 {
            return Err(StateError::Impossible("mode of an 8237A channel"));
        }
        Ok(Channel { mode: Mode(mode), base_address, base_count, address, count })
    }
}

impl SavedChip {
    fn of(chip: &Controller) -> Self {
        let Controller {
            channels,
            command,
            requests,
            lines,
            mask,
            terminal,
            temporary,
            upper,
            lowest,
        } = chip;
        Self {
            channels: channels.each_ref().map(SavedChannel::of),
            command: command.bits(),
            requests: *requests,
            lines: *lines,
            mask: *mask,
            terminal: *terminal,
            temporary: *temporary,
            upper: *upper,
            lowest: *lowest,
        }
    }

    fn into_chip(self) -> Result<Controller, StateError> {
        let Self {
            channels: [a, b, c, d],
            command,
            requests,
            lines,
            mask,
            terminal,
            temporary,
            upper,
            lowest,
        } = self;
        if (requests | lines | mask | terminal) & !ALL != 0 || lowest > 3 {
            return Err(StateError::Impossible("channel of an 8237A"));
        }
        Ok(Controller {
            channels: [a.into_channel()?, b.into_channel()?, c.into_channel()?, d.into_channel()?],
            command: Command::from_bits_retain(command),
            requests,
            lines,
            mask,
            terminal,
            temporary,
            upper,
            lowest,
        })
    }
}

impl SaveRestore for Dma {
    fn save(&self) -> Section {
        let Self { chips, pages, memory: _ } = self;
        let saved = SavedDma { chips: chips.each_ref().map(SavedChip::of), pages: *pages };
        Section::encode(VERSION, &saved)
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let SavedDma { chips: [first, second], pages } = section.decode(VERSION)?;
        let chips = [first.into_chip()?, second.into_chip()?];
        *self = Self { chips, pages, memory: self.memory.clone() };
        Ok(())
    }
}
