//! The 8042 with the firmware of a PS/2's keyboard controller (IBM PS/2 Hardware Interface Technical
//! Reference, "Keyboard and auxiliary device controller").

use std::collections::VecDeque;
use trivium_chipset::guest_log;

use bitflags::bitflags;

use trivium_chipset::VmTime;

use super::keyboard::Keyboard;
use super::mouse::Mouse;
use super::password::Password;
use super::translate::Translator;

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
        /// A byte came with the wrong parity: never seen, as lines here have no noise.
        const PARITY = 1 << 7;
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
/// Answers that wait for the output buffer; later ones are lost. The longest is the diagnostic
/// dump's: 16 bytes of memory, the two ports and the program status word, three codes each.
pub(super) const ANSWERS: usize = 19 * 3;
/// Where in the controller's memory it is told what to say when the password is enabled and when
/// it was typed, and which two keys do not count while it is.
const SECURITY_ON: usize = 0x13;
const SECURITY_OFF: usize = 0x14;
const SECURITY_IGNORED: [usize; 2] = [0x16, 0x17];

const SELF_TEST_PASSED: u8 = 0x55;
const INTERFACE_OK: u8 = 0x00;
const PASSWORD: u8 = 0xfa;
const NO_PASSWORD: u8 = 0xf1;
/// What the controller gives in the place of an answer that no device sent.
const RESEND: u8 = 0xfe;
/// The input port, P1: keyboard not locked, colour display, the manufacturing jumper is off.
const INPUT_PORT: u8 = 0xb0;
/// Test inputs: the clock lines of the keyboard and of the auxiliary device.
const TEST_KBD_CLOCK: u8 = 1 << 0;
const TEST_AUX_CLOCK: u8 = 1 << 1;
/// The make codes of the hexadecimal digits in set 1, and of the space between numbers.
const DIGITS: [u8; 16] = [
    0x0b, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x1e, 0x30, 0x2e, 0x20, 0x12, 0x21,
];
const SPACE: u8 = 0x39;
/// The program status word of the controller's firmware: bit 3 is always 1.
const PSW: u8 = 0x08;

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
    Password,
}

/// What a write asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wish {
    pub(super) a20: Option<bool>,
    pub(super) reset: bool,
}

/// Half of the input port, which command C1h or C2h shows in the status register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Poll {
    Low,
    High,
}

/// The controller with its keyboard and mouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub(super) keyboard: Keyboard,
    pub(super) mouse: Option<Mouse>,
    pub(super) password: Password,
    /// Shown in the status register's upper half until the next write.
    pub(super) poll: Option<Poll>,
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
    pub(super) fn new(mouse: bool) -> Self {
        Self {
            keyboard: Keyboard::new(),
            mouse: mouse.then(Mouse::new),
            password: Password::default(),
            poll: None,
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
        let status = (status | Status::UNLOCKED).bits();
        match self.poll {
            None => status,
            Some(Poll::Low) => status & 0x0f | INPUT_PORT << 4,
            Some(Poll::High) => status & 0x0f | INPUT_PORT & 0xf0,
        }
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
        let next = self
            .answers
            .pop_front()
            .or_else(|| self.take_from_keyboard())
            .or_else(|| self.take_from_mouse());
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
            let Some(byte) = byte else { continue };
            if !self.password.is_enabled() {
                return Some((byte, Source::Keyboard));
            }
            if self.password.compare(byte, SECURITY_IGNORED.map(|at| self.memory_at(at))) {
                self.tell_security(SECURITY_OFF);
                return self.answers.pop_front();
            }
        }
    }

    fn take_from_mouse(&mut self) -> Option<(u8, Source)> {
        if self.config.contains(Config::AUX_DISABLE) {
            return None;
        }
        let mouse = self.mouse.as_mut()?;
        // While the password is enabled, the mouse is not heard either.
        while self.password.is_enabled() {
            mouse.send()?;
        }
        mouse.send().map(|byte| (byte, Source::Aux))
    }

    /// Lets keyboard and mouse do what it is time for.
    pub(super) fn advance(&mut self, now: VmTime) {
        let may_send = !self.config.contains(Config::KBD_DISABLE);
        self.keyboard.advance(now, may_send);
        if let Some(mouse) = &mut self.mouse {
            mouse.advance(now);
        }
    }

    /// When [`Self::advance`] has something to do.
    pub(super) fn deadline(&self) -> Option<VmTime> {
        let mouse = self.mouse.as_ref().and_then(Mouse::deadline);
        [self.keyboard.deadline(), mouse].into_iter().flatten().min()
    }

    fn memory_at(&self, at: usize) -> u8 {
        self.memory.get(at).copied().unwrap_or(0)
    }

    /// What the memory wants said when the password is enabled, or was typed.
    fn tell_security(&mut self, at: usize) {
        let byte = self.memory_at(at);
        if byte != 0 {
            self.answer(byte, Source::Keyboard);
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
        self.poll = None;
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
                match &mut self.mouse {
                    Some(mouse) => mouse.receive(value),
                    None => self.answer(RESEND, Source::AuxTimeout),
                }
            }
            DataTo::Password => {
                if self.password.load(value) {
                    self.data_to = DataTo::Password;
                }
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
        self.poll = None;
        self.data_to = DataTo::Keyboard;
        match command {
            0x20 => self.answer(self.config.bits(), Source::Keyboard),
            0x21..=0x3f => {
                self.answer(self.memory_at((command & 0x1f).into()), Source::Keyboard);
            }
            0x60..=0x7f => self.data_to = DataTo::Memory(command & 0x1f),
            0xa4 => {
                let installed = self.password.is_installed();
                self.answer(if installed { PASSWORD } else { NO_PASSWORD }, Source::Keyboard);
            }
            0xa5 => {
                self.password.begin();
                self.data_to = DataTo::Password;
            }
            0xa6 => {
                if self.password.enable() {
                    self.tell_security(SECURITY_ON);
                }
            }
            0xa7 => self.config.insert(Config::AUX_DISABLE),
            0xa8 => self.config.remove(Config::AUX_DISABLE),
            0xa9 | 0xab => self.answer(INTERFACE_OK, Source::Keyboard),
            0xaa => self.self_test(),
            0xac => self.dump(),
            0xad => self.config.insert(Config::KBD_DISABLE),
            0xae => self.config.remove(Config::KBD_DISABLE),
            0xc0 => self.answer(INPUT_PORT, Source::Keyboard),
            0xc1 => self.poll = Some(Poll::Low),
            0xc2 => self.poll = Some(Poll::High),
            0xd0 => self.answer(self.port().bits(), Source::Keyboard),
            0xd1 => self.data_to = DataTo::OutputPort,
            0xd2 => self.data_to = DataTo::KeyboardBuffer,
            0xd3 => self.data_to = DataTo::AuxBuffer,
            0xd4 => self.data_to = DataTo::Aux,
            // Not IBM's, but common: gate A20 without a data byte.
            0xdd => return self.set_port(self.port - OutputPort::A20),
            0xdf => return self.set_port(self.port | OutputPort::A20),
            0xe0 => self.answer(self.test_inputs(), Source::Keyboard),
            // "Pulse output port": bits 3 to 0 that are 0 pulse low. Only RC# is worth a pulse.
            0xf0..=0xff => return Wish { reset: command & 1 == 0, ..Wish::default() },
            _ => guest_log!(Warn, "8042: command {command:02x}h is unknown"),
        }
        Wish::default()
    }

    /// The clock lines, which are high unless the controller holds them low.
    fn test_inputs(&self) -> u8 {
        let line = |off, bit| if self.config.contains(off) { 0 } else { bit };
        line(Config::KBD_DISABLE, TEST_KBD_CLOCK) | line(Config::AUX_DISABLE, TEST_AUX_CLOCK)
    }

    /// The diagnostic dump: "16 bytes of the controller's memory, the input port, the output port
    /// and the program status word, in scan code format".
    fn dump(&mut self) {
        let [_, memory @ ..] = self.memory;
        let port = self.port().bits();
        let head = std::iter::once(self.config.bits()).chain(memory.into_iter().take(15));
        for byte in head.chain([INPUT_PORT, port, PSW]) {
            for digit in [byte >> 4, byte & 0xf] {
                self.answer(DIGITS.get(usize::from(digit)).copied().unwrap_or(0), Source::Keyboard);
            }
            self.answer(SPACE, Source::Keyboard);
        }
    }

    /// The self-test empties the buffers and sets the system flag.
    fn self_test(&mut self) {
        self.answers.clear();
        self.full = None;
        self.config.insert(Config::SYS);
        self.answer(SELF_TEST_PASSED, Source::Keyboard);
    }
}
