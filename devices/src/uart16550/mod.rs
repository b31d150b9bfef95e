//! The 16550A serial port. Characters leave at once, whatever the baud rate; only the receiver's
//! character timeout knows it.

mod core;
mod registers;
mod save_restore;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bitflags::bitflags;
use trivium_chipset::{AccessWidth, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime};

use self::core::{Core, Effect, Received};
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
        Self { core: Core::new(), timeout_at: None, line: false, clock, irq, backend }
    }

    /// Characters arrive on the line; says how many of them fitted, the rest is to come again when
    /// [`Self::wants_input`].
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let room = if self.core.is_loopback() { 0 } else { self.core.room() };
        let taken = bytes.len().min(room);
        for &byte in bytes.iter().take(taken) {
            self.core.receive(Received { byte, errors: Lsr::empty() });
        }
        if taken > 0 {
            self.restart_timeout();
            self.drive();
        }
        taken
    }

    /// A break arrives on the line. Like a real one, it overruns a full receiver.
    pub fn receive_break(&mut self) {
        if !self.core.is_loopback() {
            self.core.receive_break();
            self.restart_timeout();
            self.drive();
        }
    }

    /// Whether [`Self::receive`] would take a character.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.core.is_loopback() && self.core.room() > 0
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

    /// The FIFO was written or read: the timeout begins anew.
    fn restart_timeout(&mut self) {
        self.timeout_at = None;
        self.start_timeout();
    }

    /// Starts the timeout if it should be running and is not, and stops it in the opposite case.
    fn start_timeout(&mut self) {
        if !self.core.awaits_timeout() {
            self.timeout_at = None;
        } else if self.timeout_at.is_none() {
            self.timeout_at = Some(self.clock.now().saturating_add(self.timeout_nanos()));
        }
    }

    fn timeout_nanos(&self) -> u64 {
        let divisor = u64::from(self.core.divisor.max(1));
        let clocks =
            TIMEOUT_CHARACTERS * self.core.half_bits_per_character() * divisor * CLOCKS_PER_BIT / 2;
        VmTime::from_ticks(clocks, HERTZ).as_nanos()
    }

    /// The character timeout comes if its time has come.
    fn sync(&mut self, now: VmTime) {
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.core.timeout = true;
            self.drive();
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Quiet => {}
            Effect::Transmit(byte) => {
                // INTR falls between the characters: an edge-triggered controller needs that.
                self.drive();
                if !self.core.is_loopback() {
                    self.backend.transmit(byte);
                }
                self.core.transmitted(byte);
                if self.core.is_loopback() {
                    self.restart_timeout();
                }
            }
            Effect::Break(on) => self.backend.set_break(on),
        }
    }

    /// Reads register `offset` (0 to 7).
    pub fn read_register(&mut self, offset: u8) -> u8 {
        self.sync(self.clock.now());
        let before = self.core.receiver.len();
        let value = self.core.read(offset);
        if self.core.receiver.len() != before {
            self.restart_timeout();
        }
        self.drive();
        value
    }

    /// Writes register `offset` (0 to 7).
    pub fn write_register(&mut self, offset: u8, value: u8) {
        self.sync(self.clock.now());
        let effect = self.core.write(offset, value);
        self.apply(effect);
        self.start_timeout();
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
        self.timeout_at
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
        self.drive();
    }
}
