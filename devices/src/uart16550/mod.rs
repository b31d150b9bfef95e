//! The 16550A serial port. Characters leave at once, whatever the baud rate, and only the receiver's
//! character timeout knows it; unless [`Uart16550::with_baud_timing`] asks for the line's own pace.
//! Without that there are no bits on the line either, and all eight of a character pass whatever LCR
//! says: software that relies on firmware having set it is understood where there is no firmware.

mod core;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_baud;

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime};

use self::core::{Core, Effect, Loaded, Received};
use self::registers::{Lsr, Msr};
use crate::access::{byte_only, low_byte};

/// Ports of one serial port, of which the first is aligned to as many.
const PORTS: u16 = 8;
/// The crystal of a PC's serial ports.
const HERTZ: u64 = 1_843_200;
/// Clocks of the crystal, divided by the divisor, in a bit.
const CLOCKS_PER_BIT: u64 = 16;
/// "At least one character is in the FIFO, the most recent one was received longer than 4
/// continuous character times ago, and the most recent read of the FIFO as well."
const TIMEOUT_CHARACTERS: u64 = 4;

/// The far end of the serial line.
pub trait SerialBackend: Send {
    /// Takes one character.
    fn transmit(&mut self, byte: u8);

    /// The line goes into the break condition, or out of it. Most far ends do not care.
    fn set_break(&mut self, _on: bool) {}
}

bitflags! {
    /// The lines that come from a modem, at their places in MSR.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ModemLines: u8 {
        /// Clear to send.
        const CTS = 1 << 4;
        /// Data set ready.
        const DSR = 1 << 5;
        /// Ring indicator.
        const RI = 1 << 6;
        /// Data carrier detect.
        const DCD = 1 << 7;
    }
}

/// A 16550A.
pub struct Uart16550 {
    core: Core,
    /// When the character timeout comes, if it is running.
    timeout_at: Option<VmTime>,
    /// Characters take their time on the line.
    paced: bool,
    /// When the character in the transmitter's shift register has left.
    shifted_at: VmTime,
    /// When THRE's delayed interrupt comes.
    thr_empty_at: Option<VmTime>,
    /// Before this, the receiver takes no character.
    receives_at: VmTime,
    /// INTR, as last driven.
    line: bool,
    clock: Arc<dyn Clock>,
    irq: IrqLine,
    backend: Box<dyn SerialBackend>,
}

impl Uart16550 {
    /// The number of ports; the first must be a multiple of it (3F8h, 2F8h, 3E8h, 2E8h).
    pub const PORTS: u16 = PORTS;

    /// A port after reset, whose output goes to `backend`. CTS, DSR and DCD are on.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, irq: IrqLine, backend: Box<dyn SerialBackend>) -> Self {
        Self {
            core: Core::new(),
            timeout_at: None,
            paced: false,
            shifted_at: VmTime::ZERO,
            thr_empty_at: None,
            receives_at: VmTime::ZERO,
            line: false,
            clock,
            irq,
            backend,
        }
    }

    /// The same port with a line that has a baud rate: characters leave and arrive one after the
    /// other, in virtual time.
    #[must_use]
    pub fn with_baud_timing(self) -> Self {
        Self { paced: true, ..self }
    }

    /// Characters arrive on the line; says how many of them fitted, the rest is to come again when
    /// [`Self::wants_input`].
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let now = self.clock.now();
        self.sync(now);
        let room = match self.receives_from() {
            Some(from) if from <= now && self.paced => 1,
            Some(_) if !self.paced => self.core.room(),
            _ => 0,
        };
        let taken = bytes.len().min(room);
        let mask = if self.paced { self.core.word_mask() } else { 0xff };
        for &byte in bytes.iter().take(taken) {
            let byte = byte & mask;
            self.core.receive(Received { byte, errors: Lsr::empty() });
        }
        if taken > 0 {
            self.receives_at = now.saturating_add(self.character_nanos());
            self.restart_timeout(now);
            self.drive();
        }
        taken
    }

    /// The moment from which [`Self::receive`] would take a character; none as long as the guest
    /// does not make room.
    #[must_use]
    pub fn receives_from(&self) -> Option<VmTime> {
        let open = !self.core.is_loopback() && self.core.room() > 0;
        open.then_some(if self.paced { self.receives_at } else { VmTime::ZERO })
    }

    /// A break arrives on the line. Like a real one, it overruns a full receiver.
    pub fn receive_break(&mut self) {
        if !self.core.is_loopback() {
            self.core.receive_break();
            self.restart_timeout(self.clock.now());
            self.drive();
        }
    }

    /// Whether [`Self::receive`] would take a character.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.receives_from().is_some_and(|from| !self.paced || from <= self.clock.now())
    }

    /// The modem's lines change.
    pub fn set_modem_lines(&mut self, lines: ModemLines) {
        self.core.set_lines(Msr::from_bits_truncate(lines.bits()));
        self.drive();
    }

    /// INTR is level-triggered by IIR: high while any enabled interrupt is pending.
    fn drive(&mut self) {
        let high = self.core.intr();
        if self.line != high {
            self.line = high;
            self.irq.set(high);
        }
    }

    /// The FIFO was written or read at `now`: the timeout begins anew.
    fn restart_timeout(&mut self, now: VmTime) {
        self.timeout_at = None;
        self.start_timeout(now);
    }

    /// Starts the timeout if it should be running and is not, and stops it in the opposite case.
    fn start_timeout(&mut self, now: VmTime) {
        if !self.core.awaits_timeout() {
            self.timeout_at = None;
        } else if self.timeout_at.is_none() {
            let nanos = TIMEOUT_CHARACTERS * self.character_nanos();
            self.timeout_at = Some(now.saturating_add(nanos));
        }
    }

    /// The time of a character on the line.
    fn character_nanos(&self) -> u64 {
        self.half_bits_nanos(self.core.half_bits_per_character())
    }

    fn half_bits_nanos(&self, half_bits: u64) -> u64 {
        let divisor = u64::from(self.core.divisor.max(1));
        VmTime::from_ticks(half_bits * divisor * CLOCKS_PER_BIT / 2, HERTZ).as_nanos()
    }

    /// What was to come until `now` has come: characters leave, interrupts and the character
    /// timeout come.
    fn sync(&mut self, now: VmTime) {
        let Some(next) = self.next_event().filter(|next| *next <= now) else { return };
        let mut next = Some(next);
        while let Some(at) = next.filter(|at| *at <= now) {
            if self.thr_empty_at.is_some_and(|due| due <= at) {
                self.thr_empty_at = None;
                self.core.thr_is_empty();
            } else if self.core.transmitter.shifting.is_some() && self.shifted_at <= at {
                self.finish_character(at);
            } else {
                self.timeout_at = None;
                self.core.timeout = true;
            }
            self.drive();
            next = self.next_event();
        }
    }

    /// What comes next by itself.
    fn next_event(&self) -> Option<VmTime> {
        let shifted = self.core.transmitter.shifting.map(|_| self.shifted_at);
        [self.timeout_at, self.thr_empty_at, shifted].into_iter().flatten().min()
    }

    /// The last bit of the character in the shift register has left, at `at`.
    fn finish_character(&mut self, at: VmTime) {
        let Some(byte) = self.core.transmitter.shifting.take() else { return };
        if self.core.is_loopback() {
            self.core.receive(Received { byte, errors: Lsr::empty() });
            self.restart_timeout(at);
        } else {
            self.backend.transmit(byte);
        }
        self.begin_character(at);
    }

    /// The shift register takes the next character at `at`, if there is one.
    fn begin_character(&mut self, at: VmTime) {
        let Some(loaded) = self.core.load_shift_register() else { return };
        self.shifted_at = at.saturating_add(self.character_nanos());
        let without_stop_bit =
            self.half_bits_nanos(self.core.half_bits_per_character().saturating_sub(2));
        self.thr_empty_at =
            (loaded == Loaded::EmptyLater).then(|| at.saturating_add(without_stop_bit));
    }

    fn apply(&mut self, effect: Effect, now: VmTime) {
        match effect {
            Effect::Quiet => {}
            Effect::Transmit(byte) if self.paced => {
                self.thr_empty_at = None;
                self.drive();
                self.core.queue(byte);
                self.begin_character(now);
            }
            Effect::Transmit(byte) => {
                // INTR falls between the characters: an edge-triggered controller needs that.
                self.drive();
                if !self.core.is_loopback() {
                    self.backend.transmit(byte);
                }
                self.core.transmitted(byte);
                if self.core.is_loopback() {
                    self.restart_timeout(now);
                }
            }
            Effect::Break(on) => self.backend.set_break(on),
        }
    }

    /// Looks at the clock only if something is to come: that takes longer than all the rest of an
    /// access.
    fn sync_if_it_matters(&mut self) {
        if self.next_event().is_some() {
            self.sync(self.clock.now());
        }
    }

    /// Reads register `offset` (0 to 7).
    pub fn read_register(&mut self, offset: u8) -> u8 {
        self.sync_if_it_matters();
        let before = self.core.receiver.len();
        let value = self.core.read(offset);
        if self.core.receiver.len() != before {
            self.restart_timeout(self.clock.now());
        }
        self.drive();
        value
    }

    /// Writes register `offset` (0 to 7).
    pub fn write_register(&mut self, offset: u8, value: u8) {
        let now = self.clock.now();
        self.sync(now);
        let effect = self.core.write(offset, value);
        self.apply(effect, now);
        self.start_timeout(now);
        self.drive();
    }
}

/// The register of a port.
fn offset(port: u16) -> u8 {
    low_byte((port % PORTS).into())
}

impl PortIo for Uart16550 {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        Ok(self.read_register(offset(port)).into())
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        self.write_register(offset(port), low_byte(value));
        Ok(())
    }
}

impl Timed for Uart16550 {
    fn deadline(&self) -> Option<VmTime> {
        self.next_event()
    }

    fn fire(&mut self, now: VmTime) {
        self.sync(now);
    }
}

impl Device for Uart16550 {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        self.core.reset();
        self.timeout_at = None;
        self.thr_empty_at = None;
        self.receives_at = VmTime::ZERO;
        self.drive();
    }
}
