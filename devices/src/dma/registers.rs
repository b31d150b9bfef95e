//! The registers of one 8237A, as a program sees them (8237A data sheet, order number 231466).

use bitflags::bitflags;
use trivium_chipset::{BusError, BusResult};

/// Channels of a chip.
pub(super) const CHANNELS: usize = 4;
/// All four channels.
pub(super) const ALL: u8 = 0x0f;
/// Register addresses below are the channels' addresses (even) and counts (odd).
const FIRST_CONTROL: u8 = 8;
/// Write request, single mask and mode: the channel.
const CHANNEL: u8 = 3;
/// Write request and single mask: set the bit, or clear it.
const SET: u8 = 1 << 2;
/// Status: bits 7 to 4 are the requests.
const REQUEST_SHIFT: u32 = 4;

/// Addresses of the registers from 8 on. What one reads and what one writes differ.
mod address {
    pub(super) const STATUS: u8 = 0x8;
    pub(super) const COMMAND: u8 = 0x8;
    pub(super) const REQUEST: u8 = 0x9;
    pub(super) const SINGLE_MASK: u8 = 0xa;
    pub(super) const MODE: u8 = 0xb;
    pub(super) const CLEAR_FLIP_FLOP: u8 = 0xc;
    pub(super) const TEMPORARY: u8 = 0xd;
    pub(super) const MASTER_CLEAR: u8 = 0xd;
    pub(super) const CLEAR_MASK: u8 = 0xe;
    pub(super) const ALL_MASK: u8 = 0xf;
}

bitflags! {
    /// The command register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Command: u8 {
        /// Memory-to-memory enable.
        const MEMORY_TO_MEMORY = 1 << 0;
        /// Channel 0 address hold enable; in memory-to-memory transfers.
        const ADDRESS_HOLD = 1 << 1;
        /// Controller disable.
        const DISABLE = 1 << 2;
        /// Compressed timing; no effect, as transfers take no time.
        const COMPRESSED = 1 << 3;
        /// Rotating priority.
        const ROTATING = 1 << 4;
        /// Extended write; no effect, as transfers take no time.
        const EXTENDED_WRITE = 1 << 5;
        /// DREQ sense active low; no effect: the board's DREQs are active high.
        const DREQ_LOW = 1 << 6;
        /// DACK sense active high; no effect: the board's DACKs are active low.
        const DACK_HIGH = 1 << 7;
    }
}

/// What a transfer does (mode register, bits 3 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Addresses and TC, but no bus control signals; also what the illegal code does.
    Verify,
    /// From the device to memory.
    Write,
    /// From memory to the device.
    Read,
}

/// When transfers are made (mode register, bits 7 and 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Demand,
    Single,
    Block,
    Cascade,
}

/// A channel's mode register, without the channel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mode(pub(super) u8);

impl Mode {
    /// Cascade, and nothing else.
    pub(super) const CASCADE: Self = Self(0xc0);
    const AUTOINITIALIZE: u8 = 1 << 4;
    const DECREMENT: u8 = 1 << 5;

    pub(super) fn kind(self) -> Kind {
        match self.0 >> 2 & 3 {
            1 => Kind::Write,
            2 => Kind::Read,
            _ => Kind::Verify,
        }
    }

    pub(super) fn service(self) -> Service {
        match self.0 >> 6 {
            0 => Service::Demand,
            1 => Service::Single,
            2 => Service::Block,
            _ => Service::Cascade,
        }
    }

    pub(super) fn autoinitializes(self) -> bool {
        self.0 & Self::AUTOINITIALIZE != 0
    }

    pub(super) fn decrements(self) -> bool {
        self.0 & Self::DECREMENT != 0
    }
}

/// A channel's registers. Counts are the number of transfers less one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Channel {
    pub(super) mode: Mode,
    pub(super) base_address: u16,
    pub(super) base_count: u16,
    pub(super) address: u16,
    pub(super) count: u16,
}

impl Channel {
    /// Moves on by `transfers`; true at terminal count, when the count goes from 0 to FFFFh.
    pub(super) fn advance(&mut self, transfers: u32, hold: bool) -> bool {
        let step = transfers as u16;
        if !hold {
            self.address = match self.mode.decrements() {
                true => self.address.wrapping_sub(step),
                false => self.address.wrapping_add(step),
            };
        }
        let terminal = transfers > u32::from(self.count);
        self.count = self.count.wrapping_sub(step);
        terminal
    }

    /// Autoinitialization.
    pub(super) fn reload(&mut self) {
        self.address = self.base_address;
        self.count = self.base_count;
    }
}

/// One 8237A.
#[derive(Debug)]
pub(super) struct Controller {
    pub(super) channels: [Channel; CHANNELS],
    pub(super) command: Command,
    /// The request register.
    pub(super) requests: u8,
    /// The DREQ lines.
    pub(super) lines: u8,
    pub(super) mask: u8,
    /// Channels that reached terminal count since the status was last read.
    pub(super) terminal: u8,
    pub(super) temporary: u8,
    /// The first/last flip-flop: the next byte is the upper one.
    pub(super) upper: bool,
    /// The channel with the lowest priority, under rotating priority.
    pub(super) lowest: u8,
}

/// The bit of a channel.
pub(super) fn bit(channel: usize) -> u8 {
    1u8.checked_shl(channel as u32).unwrap_or(0)
}

fn with_bit(bits: u8, channel: u8, set: bool) -> u8 {
    if set { bits | 1 << (channel & CHANNEL) } else { bits & !(1 << (channel & CHANNEL)) }
}

fn with_byte(value: u16, upper: bool, byte: u8) -> u16 {
    let [low, high] = value.to_le_bytes();
    u16::from_le_bytes(if upper { [low, byte] } else { [byte, high] })
}

impl Controller {
    /// A chip after RESET.
    pub(super) fn new() -> Self {
        let mut chip = Self {
            channels: [Channel::default(); CHANNELS],
            command: Command::empty(),
            requests: 0,
            lines: 0,
            mask: ALL,
            terminal: 0,
            temporary: 0,
            upper: false,
            lowest: 3,
        };
        chip.master_clear();
        chip
    }

    /// Master clear, which does what RESET does: modes, addresses and counts stay.
    pub(super) fn master_clear(&mut self) {
        self.command = Command::empty();
        self.requests = 0;
        self.mask = ALL;
        self.terminal = 0;
        self.temporary = 0;
        self.upper = false;
        self.lowest = 3;
    }

    /// The next byte of a 16-bit register; moves the flip-flop on.
    fn flip(&mut self) -> bool {
        self.upper = !self.upper;
        !self.upper
    }

    /// Reads the register at an address from 0 to Fh.
    pub(super) fn read(&mut self, register: u8) -> BusResult<u8> {
        if register < FIRST_CONTROL {
            let upper = self.flip();
            let channel = self.channels.get(usize::from(register / 2));
            let channel = channel.ok_or(BusError::NoRegister)?;
            let value = if register.is_multiple_of(2) { channel.address } else { channel.count };
            let [low, high] = value.to_le_bytes();
            return Ok(if upper { high } else { low });
        }
        match register {
            address::STATUS => {
                let requests = (self.lines | self.requests) << REQUEST_SHIFT;
                Ok(requests | std::mem::take(&mut self.terminal))
            }
            address::TEMPORARY => Ok(self.temporary),
            // The PIIX3's "write all mask bits" register can be read (82371SB, RWAMB).
            address::ALL_MASK => Ok(self.mask),
            _ => Err(BusError::NoRegister),
        }
    }

    /// Writes the register at an address from 0 to Fh.
    pub(super) fn write(&mut self, register: u8, value: u8) {
        match register {
            0..FIRST_CONTROL => self.write_channel(register, value),
            address::COMMAND => self.command = Command::from_bits_retain(value),
            address::REQUEST => self.requests = with_bit(self.requests, value, value & SET != 0),
            address::SINGLE_MASK => self.mask = with_bit(self.mask, value, value & SET != 0),
            address::MODE => {
                if let Some(channel) = self.channels.get_mut(usize::from(value & CHANNEL)) {
                    channel.mode = Mode(value & !CHANNEL);
                }
            }
            address::CLEAR_FLIP_FLOP => self.upper = false,
            address::MASTER_CLEAR => self.master_clear(),
            address::CLEAR_MASK => self.mask = 0,
            address::ALL_MASK => self.mask = value & ALL,
            _ => {}
        }
    }

    /// Base and current registers are written together.
    fn write_channel(&mut self, register: u8, value: u8) {
        let upper = self.flip();
        let Some(channel) = self.channels.get_mut(usize::from(register / 2)) else { return };
        let (base, current) = match register % 2 {
            0 => (&mut channel.base_address, &mut channel.address),
            _ => (&mut channel.base_count, &mut channel.count),
        };
        *base = with_byte(*base, upper, value);
        *current = with_byte(*current, upper, value);
    }

    /// The channels in the order of their priority.
    pub(super) fn by_priority(&self) -> [usize; CHANNELS] {
        let first = match self.command.contains(Command::ROTATING) {
            true => usize::from(self.lowest) + 1,
            false => 0,
        };
        [0, 1, 2, 3].map(|place| (first + place) % CHANNELS)
    }
}
