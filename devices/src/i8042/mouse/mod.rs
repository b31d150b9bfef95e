//! The PS/2 mouse on the auxiliary port (IBM PS/2 Hardware Technical Reference, "Mouse"), with the
//! wheel of Microsoft's IntelliMouse and the five buttons of its Explorer once a driver asks.

mod packet;

use std::collections::VecDeque;

use trivium_chipset::{NANOS_PER_SECOND, VmTime, guest_log};

pub use self::packet::MouseButtons;
pub(super) use self::packet::{COUNTS, Counter, Kind, Movement, WHEEL_STEPS};

/// The most bytes that wait to be sent: those of one answer with a packet.
pub(super) const QUEUE: usize = 8;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;
/// The answer to a second mistake in a row.
const ERROR: u8 = 0xfc;
const BAT_OK: u8 = 0xaa;

/// 100 reports a second.
const DEFAULT_RATE: u8 = 100;
/// 4 counts per millimetre.
const DEFAULT_RESOLUTION: u8 = 2;
/// "Valid sample rates" in reports per second.
const RATES: [u8; 7] = [10, 20, 40, 60, 80, 100, 200];
/// 8 counts per millimetre.
const MAX_RESOLUTION: u8 = 3;
/// The sample rates by which a driver asks for the wheel, and for five buttons.
const KNOCK_WHEEL: [u8; 3] = [200, 100, 80];
const KNOCK_BUTTONS: [u8; 3] = [200, 200, 80];

/// Commands.
mod command {
    pub(super) const SCALING_1: u8 = 0xe6;
    pub(super) const SCALING_2: u8 = 0xe7;
    pub(super) const RESOLUTION: u8 = 0xe8;
    pub(super) const STATUS: u8 = 0xe9;
    pub(super) const STREAM: u8 = 0xea;
    pub(super) const READ_DATA: u8 = 0xeb;
    pub(super) const RESET_WRAP: u8 = 0xec;
    pub(super) const WRAP: u8 = 0xee;
    pub(super) const REMOTE: u8 = 0xf0;
    pub(super) const IDENTIFY: u8 = 0xf2;
    pub(super) const SAMPLE_RATE: u8 = 0xf3;
    pub(super) const ENABLE: u8 = 0xf4;
    pub(super) const DISABLE: u8 = 0xf5;
    pub(super) const DEFAULT: u8 = 0xf6;
    pub(super) const RESEND: u8 = 0xfe;
    pub(super) const RESET: u8 = 0xff;
}

/// The parameter byte that a command awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Resolution,
    SampleRate,
}

/// The mouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mouse {
    /// Bytes that wait to be sent.
    pub(super) queue: VecDeque<u8>,
    /// What was last said, for the resend command.
    pub(super) last: Vec<u8>,
    pub(super) awaited: Option<Parameter>,
    pub(super) kind: Kind,
    /// Reports are made.
    pub(super) enabled: bool,
    /// Reports are made only when asked for.
    pub(super) remote: bool,
    /// Every byte is sent back.
    pub(super) wrap: bool,
    /// Scaling 2:1.
    pub(super) double: bool,
    /// 0 to 3.
    pub(super) resolution: u8,
    /// Reports per second.
    pub(super) rate: u8,
    /// The last three sample rates, if nothing else came between.
    pub(super) knock: [u8; 3],
    /// The last command was a mistake.
    pub(super) mistaken: bool,
    pub(super) movement: Movement,
    pub(super) buttons: MouseButtons,
    /// The buttons of the last report.
    pub(super) told: MouseButtons,
    /// The next report is made not before this.
    pub(super) next_report: VmTime,
}

impl Mouse {
    /// A mouse after its power-on test, whose result it has already told.
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(QUEUE),
            last: Vec::new(),
            awaited: None,
            kind: Kind::Standard,
            enabled: false,
            remote: false,
            wrap: false,
            double: false,
            resolution: DEFAULT_RESOLUTION,
            rate: DEFAULT_RATE,
            knock: [0; 3],
            mistaken: false,
            movement: Movement::default(),
            buttons: MouseButtons::empty(),
            told: MouseButtons::empty(),
            next_report: VmTime::ZERO,
        }
    }

    /// It was moved by so many counts to the right and away from the user, its wheel by so many
    /// steps towards the user, and these buttons are down.
    pub(super) fn moved(&mut self, dx: i32, dy: i32, dz: i32, buttons: MouseButtons) {
        self.movement.add(dx, dy, dz);
        self.buttons = buttons;
    }

    fn has_news(&self) -> bool {
        let streams = self.enabled && !self.remote && !self.wrap && self.awaited.is_none();
        let buttons = self.buttons != self.told || !self.movement.is_none(self.kind);
        streams && self.queue.is_empty() && buttons
    }

    /// When there will be a report.
    pub(super) fn deadline(&self) -> Option<VmTime> {
        self.has_news().then_some(self.next_report)
    }

    /// Makes a report, if it is time and there is something to tell.
    pub(super) fn advance(&mut self, now: VmTime) {
        if self.has_news() && self.next_report <= now {
            let period = NANOS_PER_SECOND / u64::from(self.rate.max(1));
            self.next_report = now.saturating_add(period);
            let packet = self.report(self.double);
            self.say(&packet);
        }
    }

    fn report(&mut self, double: bool) -> Vec<u8> {
        self.told = self.buttons;
        self.movement.report(self.kind, self.buttons, double)
    }

    /// The next byte for the controller.
    pub(super) fn send(&mut self) -> Option<u8> {
        self.queue.pop_front()
    }

    fn say(&mut self, bytes: &[u8]) {
        self.queue.clear();
        self.queue.extend(bytes);
        self.last = bytes.to_vec();
    }

    /// A byte from the controller: a command, or the parameter byte of one. It ends what the mouse
    /// was sending.
    pub(super) fn receive(&mut self, byte: u8) {
        self.queue.clear();
        if self.wrap && !matches!(byte, command::RESET_WRAP | command::RESET) {
            self.say(&[byte]);
            return;
        }
        match self.awaited.take() {
            Some(awaited) => self.take_parameter(awaited, byte),
            None => self.command(byte),
        }
    }

    fn take_parameter(&mut self, awaited: Parameter, byte: u8) {
        match awaited {
            Parameter::Resolution if byte <= MAX_RESOLUTION => self.resolution = byte,
            Parameter::SampleRate if RATES.contains(&byte) => self.set_rate(byte),
            Parameter::Resolution | Parameter::SampleRate => {
                self.refuse();
                // It may be said again.
                if self.mistaken {
                    self.awaited = Some(awaited);
                }
                return;
            }
        }
        self.acknowledge();
    }

    fn set_rate(&mut self, rate: u8) {
        self.rate = rate;
        let [_, second, third] = self.knock;
        self.knock = [second, third, rate];
        match self.knock {
            KNOCK_WHEEL if self.kind == Kind::Standard => self.kind = Kind::IntelliMouse,
            KNOCK_BUTTONS => self.kind = Kind::Explorer,
            _ => {}
        }
    }

    fn command(&mut self, byte: u8) {
        if !matches!(byte, command::SAMPLE_RATE | command::IDENTIFY) {
            self.knock = [0; 3];
        }
        if !matches!(byte, command::READ_DATA | command::RESEND) {
            self.movement = Movement::default();
        }
        match byte {
            command::SCALING_1 => self.double = false,
            command::SCALING_2 => self.double = true,
            command::RESOLUTION => self.awaited = Some(Parameter::Resolution),
            command::SAMPLE_RATE => self.awaited = Some(Parameter::SampleRate),
            command::STREAM => self.remote = false,
            command::REMOTE => self.remote = true,
            command::WRAP => self.wrap = true,
            command::RESET_WRAP => self.wrap = false,
            command::ENABLE => self.enabled = true,
            command::DISABLE => self.enabled = false,
            command::DEFAULT => self.set_default(),
            command::STATUS => return self.answer(&self.status()),
            command::IDENTIFY => return self.answer(&[self.kind as u8]),
            command::READ_DATA => {
                // "Scaling has no effect on what this command reads."
                let packet = self.report(false);
                return self.answer(&packet);
            }
            command::RESEND => {
                let last = std::mem::take(&mut self.last);
                self.mistaken = false;
                return self.say(&last);
            }
            command::RESET => {
                let buttons = self.buttons;
                *self = Self { buttons, told: buttons, ..Self::new() };
                return self.answer(&[BAT_OK, self.kind as u8]);
            }
            _ => {
                guest_log!(Warn, "Mouse: command {byte:02x}h is unknown");
                return self.refuse();
            }
        }
        self.acknowledge();
    }

    fn set_default(&mut self) {
        self.enabled = false;
        self.remote = false;
        self.double = false;
        self.resolution = DEFAULT_RESOLUTION;
        self.rate = DEFAULT_RATE;
    }

    /// The three bytes of the status request.
    fn status(&self) -> [u8; 3] {
        let flag = |on: bool, bit: u8| u8::from(on) << bit;
        let first = flag(self.remote, 6)
            | flag(self.enabled, 5)
            | flag(self.double, 4)
            | flag(self.buttons.contains(MouseButtons::LEFT), 2)
            | flag(self.buttons.contains(MouseButtons::MIDDLE), 1)
            | flag(self.buttons.contains(MouseButtons::RIGHT), 0);
        [first, self.resolution, self.rate]
    }

    fn acknowledge(&mut self) {
        self.answer(&[]);
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.mistaken = false;
        self.say(&[&[ACK], bytes].concat());
    }

    /// "If the mouse receives an invalid byte it asks for it again, and at a second one tells an
    /// error."
    fn refuse(&mut self) {
        let answer = if self.mistaken { ERROR } else { RESEND };
        self.mistaken = !self.mistaken;
        self.say(&[answer]);
    }
}
