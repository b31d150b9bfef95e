//! The 8042 with the firmware of a PS/2's keyboard controller (IBM PS/2 Hardware Interface Technical
//! Reference, "Keyboard and auxiliary device controller"). No auxiliary device is attached.

use std::collections::VecDeque;

use bitflags::bitflags;

use super::keyboard::Keyboard;
use super::translate::Translator;
use crate::access::warn_once;

bitflags! {
    /// The status register.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Status: u8 {
        /// Output buffer full.
        const OBF = 1 << 0;
        /// Input buffer full: never seen, as commands take no time.
        const IBF = 1 << 1;
        /// System flag: the self-test has passed.
        const SYS = 1 << 2;
        /// The last write was a command (64h), not data (60h).
        const COMMAND = 1 << 3;
        /// The keyboard is not locked.
        const UNLOCKED = 1 << 4;
        /// The output buffer's byte came from the auxiliary device.
        const AUX_OBF = 1 << 5;
        /// A device did not answer in time.
        const TIMEOUT = 1 << 6;
    }

    /// The configuration byte, byte 0 of the controller's memory.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Config: u8 {
        /// IRQ1 when the output buffer has a byte of the keyboard.
        const KBD_INT = 1 << 0;
        /// IRQ12 when the output buffer has a byte of the auxiliary device.
        const AUX_INT = 1 << 1;
        /// The system flag.
        const SYS = 1 << 2;
        /// The keyboard's clock is held low.
        const KBD_DISABLE = 1 << 4;
        /// The auxiliary device's clock is held low.
        const AUX_DISABLE = 1 << 5;
        /// Set 2 is translated into set 1.
        const TRANSLATE = 1 << 6;
    }

    /// The output port, P2.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct OutputPort: u8 {
        /// RC#: low resets the CPU.
        const RC = 1 << 0;
        /// Gate A20.
        const A20 = 1 << 1;
        /// The auxiliary device's data line.
        const AUX_DATA = 1 << 2;
        /// The auxiliary device's clock line.
        const AUX_CLOCK = 1 << 3;
        /// IRQ1.
        const KBD_OBF = 1 << 4;
        /// IRQ12.
        const AUX_OBF = 1 << 5;
        /// The keyboard's clock line.
        const KBD_CLOCK = 1 << 6;
        /// The keyboard's data line.
        const KBD_DATA = 1 << 7;
    }
}

/// Bytes of the controller's memory.
pub(super) const MEMORY_SIZE: usize = 32;
/// Answers that wait for the output buffer; later ones are lost.
pub(super) const ANSWERS: usize = 8;

const SELF_TEST_PASSED: u8 = 0x55;
const INTERFACE_OK: u8 = 0x00;
const NO_PASSWORD: u8 = 0xf1;
/// What the controller gives in the place of an answer that no device sent.
const RESEND: u8 = 0xfe;
/// The input port, P1: keyboard not locked, colour display, the manufacturing jumper is off.
const INPUT_PORT: u8 = 0xb0;
/// The test inputs: both clock lines idle.
const TEST_INPUTS: u8 = 0x00;

/// Where a byte for the output buffer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The controller or the keyboard.
    Keyboard,
    /// The auxiliary device, or a command that feigns it.
    Aux,
    /// The controller, as no auxiliary device answered.
    AuxTimeout,
}

/// Where the next data byte goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataTo {
    Keyboard,
    Memory(u8),
    OutputPort,
    KeyboardBuffer,
    AuxBuffer,
    Aux,
}

/// What a write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wish {
    pub(super) a20: Option<bool>,
    pub(super) reset: bool,
}

/// The controller with its keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) keyboard: Keyboard,
    pub(super) translator: Translator,
    pub(super) config: Config,
    /// The controller's memory but for the configuration byte.
    pub(super) memory: [u8; MEMORY_SIZE],
    /// The pins of the output port that a guest sets: RC and A20.
    pub(super) port: OutputPort,
    /// The output buffer is full.
    pub(super) full: Option<Source>,
    /// The byte in it, or the last one that was.
    pub(super) output: u8,
    /// Answers of the controller; they go before bytes of the keyboard.
    pub(super) answers: VecDeque<(u8, Source)>,
    pub(super) data_to: DataTo,
    pub(super) last_was_command: bool,
}

impl Controller {
    /// A controller after reset: its pins are high, so A20 is open; it translates.
    pub(super) fn new() -> Self {
        Self {
            keyboard: Keyboard::new(),
            translator: Translator::default(),
            config: Config::TRANSLATE,
            memory: [0; MEMORY_SIZE],
            port: OutputPort::RC | OutputPort::A20,
            full: None,
            output: 0,
            answers: VecDeque::with_capacity(ANSWERS),
            data_to: DataTo::Keyboard,
            last_was_command: false,
        }
    }

    /// Reads port 64h.
    pub(super) fn status(&self) -> u8 {
        let mut status = match self.full {
            None => Status::empty(),
            Some(Source::Keyboard) => Status::OBF,
            Some(Source::Aux) => Status::OBF | Status::AUX_OBF,
            Some(Source::AuxTimeout) => Status::OBF | Status::AUX_OBF | Status::TIMEOUT,
        };
        status.set(Status::SYS, self.config.contains(Config::SYS));
        status.set(Status::COMMAND, self.last_was_command);
        (status | Status::UNLOCKED).bits()
    }

    /// Reads port 60h. An empty buffer gives its last byte again.
    pub(super) fn read_data(&mut self) -> u8 {
        self.full = None;
        self.output
    }

    /// Whether IRQ1 and IRQ12 are high.
    pub(super) fn irqs(&self) -> (bool, bool) {
        match self.full {
            None => (false, false),
            Some(Source::Keyboard) => (self.config.contains(Config::KBD_INT), false),
            Some(Source::Aux | Source::AuxTimeout) => {
                (false, self.config.contains(Config::AUX_INT))
            }
        }
    }

    /// Fills the output buffer, if it is empty and there is something for it.
    pub(super) fn fill(&mut self) {
        if self.full.is_some() {
            return;
        }
        let next = self.answers.pop_front().or_else(|| self.take_from_keyboard());
        if let Some((byte, source)) = next {
            self.output = byte;
            self.full = Some(source);
        }
    }

    fn take_from_keyboard(&mut self) -> Option<(u8, Source)> {
        if self.config.contains(Config::KBD_DISABLE) {
            return None;
        }
        loop {
            let byte = self.keyboard.send()?;
            let byte = if self.config.contains(Config::TRANSLATE) {
                self.translator.translate(byte)
            } else {
                Some(byte)
            };
            if let Some(byte) = byte {
                return Some((byte, Source::Keyboard));
            }
        }
    }

    fn answer(&mut self, byte: u8, source: Source) {
        if self.answers.len() < ANSWERS {
            self.answers.push_back((byte, source));
        }
    }

    /// Writes port 60h: data for the last command, or for the keyboard.
    pub(super) fn write_data(&mut self, value: u8) -> Wish {
        self.last_was_command = false;
        match std::mem::replace(&mut self.data_to, DataTo::Keyboard) {
            DataTo::Keyboard => {
                // Sending to the keyboard switches its clock on.
                self.config.remove(Config::KBD_DISABLE);
                self.keyboard.receive(value);
            }
            DataTo::Memory(0) => self.config = Config::from_bits_truncate(value),
            DataTo::Memory(at) => {
                if let Some(byte) = self.memory.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
            DataTo::OutputPort => return self.set_port(OutputPort::from_bits_retain(value)),
            DataTo::KeyboardBuffer => self.answer(value, Source::Keyboard),
            DataTo::AuxBuffer => self.answer(value, Source::Aux),
            DataTo::Aux => {
                self.config.remove(Config::AUX_DISABLE);
                self.answer(RESEND, Source::AuxTimeout);
            }
        }
        Wish::default()
    }

    fn set_port(&mut self, value: OutputPort) -> Wish {
        let a20 = value.contains(OutputPort::A20);
        let changed = a20 != self.port.contains(OutputPort::A20);
        self.port.set(OutputPort::A20, a20);
        // RC# resets this chip as well, so that the pin is high again at once.
        Wish { a20: changed.then_some(a20), reset: !value.contains(OutputPort::RC) }
    }

    /// The output port as command D0h reads it.
    fn port(&self) -> OutputPort {
        let (irq1, irq12) = self.irqs();
        let mut port = self.port | OutputPort::KBD_DATA | OutputPort::AUX_DATA;
        port.set(OutputPort::KBD_OBF, irq1);
        port.set(OutputPort::AUX_OBF, irq12);
        port.set(OutputPort::KBD_CLOCK, !self.config.contains(Config::KBD_DISABLE));
        port.set(OutputPort::AUX_CLOCK, !self.config.contains(Config::AUX_DISABLE));
        port
    }

    /// Writes port 64h: a command. It ends a command that still awaits its data.
    pub(super) fn write_command(&mut self, command: u8) -> Wish {
        self.last_was_command = true;
        self.data_to = DataTo::Keyboard;
        match command {
            0x20 => self.answer(self.config.bits(), Source::Keyboard),
            0x21..=0x3f => {
                let byte = self.memory.get(usize::from(command & 0x1f)).copied().unwrap_or(0);
                self.answer(byte, Source::Keyboard);
            }
            0x60..=0x7f => self.data_to = DataTo::Memory(command & 0x1f),
            0xa4 => self.answer(NO_PASSWORD, Source::Keyboard),
            0xa7 => self.config.insert(Config::AUX_DISABLE),
            0xa8 => self.config.remove(Config::AUX_DISABLE),
            0xa9 | 0xab => self.answer(INTERFACE_OK, Source::Keyboard),
            0xaa => self.self_test(),
            0xad => self.config.insert(Config::KBD_DISABLE),
            0xae => self.config.remove(Config::KBD_DISABLE),
            0xc0 => self.answer(INPUT_PORT, Source::Keyboard),
            0xd0 => self.answer(self.port().bits(), Source::Keyboard),
            0xd1 => self.data_to = DataTo::OutputPort,
            0xd2 => self.data_to = DataTo::KeyboardBuffer,
            0xd3 => self.data_to = DataTo::AuxBuffer,
            0xd4 => self.data_to = DataTo::Aux,
            // Not IBM's, but common: gate A20 without a data byte.
            0xdd => return self.set_port(self.port - OutputPort::A20),
            0xdf => return self.set_port(self.port | OutputPort::A20),
            0xe0 => self.answer(TEST_INPUTS, Source::Keyboard),
            // "Pulse output port": bits 3 to 0 that are 0 pulse low. Only RC# is worth a pulse.
            0xf0..=0xff => return Wish { reset: command & 1 == 0, ..Wish::default() },
            _ => warn_once!("8042: command {command:02x}h is unknown"),
        }
        Wish::default()
    }

    /// The self-test empties the buffers and sets the system flag.
    fn self_test(&mut self) {
        self.answers.clear();
        self.full = None;
        self.config.insert(Config::SYS);
        self.answer(SELF_TEST_PASSED, Source::Keyboard);
    }
}
