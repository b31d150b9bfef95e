//! The 8042 keyboard controller at 60h and 64h with a PS/2 keyboard.

mod controller;
mod keyboard;
mod save_restore;
#[cfg(test)]
mod tests;
mod translate;

use std::sync::Arc;

use trivium_chipset::{AccessWidth, BusError, BusResult, Device, IrqLine, PortIo};

use self::controller::{Controller, OutputPort, Wish};
use self::keyboard::Keyboard;
use crate::access::{byte_only, low_byte};
use crate::power::{PowerSink, ResetKind};
use crate::sys::{A20Sink, A20Source};

/// Output buffer (read) and input buffer for data (write).
const DATA: u16 = 0x60;
/// Status register (read) and input buffer for commands (write).
const COMMAND: u16 = 0x64;

/// The controller with its keyboard.
pub struct I8042 {
    controller: Controller,
    /// IRQ1 and IRQ12, as last driven.
    lines: (bool, bool),
    irq1: IrqLine,
    irq12: IrqLine,
    a20: Arc<dyn A20Sink>,
    power: Arc<dyn PowerSink>,
}

impl I8042 {
    /// The controller's ports.
    pub const PORTS: [u16; 2] = [DATA, COMMAND];

    /// A controller after reset with a keyboard and no mouse. A20 is open.
    #[must_use]
    pub fn new(
        irq1: IrqLine,
        irq12: IrqLine,
        a20: Arc<dyn A20Sink>,
        power: Arc<dyn PowerSink>,
    ) -> Self {
        Self { controller: Controller::new(), lines: (false, false), irq1, irq12, a20, power }
    }

    /// A key was pressed or released: its whole make or break code in scan code set 2 (E0h and F0h
    /// prefixes included). Repeating a held key is the host's business.
    pub fn key(&mut self, code: &[u8]) {
        if Keyboard::is_whole(code) {
            self.controller.keyboard.key(code);
            self.update();
        }
    }

    /// The keyboard's LEDs: Scroll Lock, Num Lock and Caps Lock from bit 0 on.
    #[must_use]
    pub fn leds(&self) -> u8 {
        self.controller.keyboard.leds
    }

    /// Whether the controller wants address line 20 open: for boards that restore the gate.
    #[must_use]
    pub fn wants_a20(&self) -> bool {
        self.controller.port.contains(OutputPort::A20)
    }

    /// Moves the next byte into the output buffer and makes the interrupts follow it.
    fn update(&mut self) {
        self.drive();
        self.controller.fill();
        self.drive();
    }

    fn drive(&mut self) {
        let lines = self.controller.irqs();
        if lines.0 != self.lines.0 {
            self.irq1.set(lines.0);
        }
        if lines.1 != self.lines.1 {
            self.irq12.set(lines.1);
        }
        self.lines = lines;
    }

    fn grant(&mut self, wish: Wish) {
        if let Some(open) = wish.a20 {
            self.a20.set_a20(A20Source::KeyboardController, open);
        }
        if wish.reset {
            self.power.reset(ResetKind::Soft);
        }
    }
}

impl PortIo for I8042 {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        byte_only(width)?;
        match port {
            DATA => {
                let value = self.controller.read_data();
                self.update();
                Ok(value.into())
            }
            COMMAND => Ok(self.controller.status().into()),
            _ => Err(BusError::NoRegister),
        }
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        byte_only(width)?;
        let value = low_byte(value);
        let wish = match port {
            DATA => self.controller.write_data(value),
            COMMAND => self.controller.write_command(value),
            _ => return Err(BusError::NoRegister),
        };
        self.update();
        self.grant(wish);
        Ok(())
    }
}

impl Device for I8042 {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn reset(&mut self) {
        let a20 = (!self.wants_a20()).then_some(true);
        self.controller = Controller::new();
        self.update();
        self.grant(Wish { a20, reset: false });
    }
}
