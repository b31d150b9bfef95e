//! The 8042 keyboard controller at 60h and 64h with a PS/2 keyboard and a PS/2 mouse.

mod controller;
mod keyboard;
mod mouse;
mod password;
mod save_restore;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_mouse;
mod translate;

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusError, BusResult, Clock, Device, IrqLine, PortIo, Timed, VmTime,
};

use self::controller::{Controller, OutputPort, Wish};
pub use self::keyboard::Key;
pub use self::mouse::MouseButtons;
use crate::access::{byte_only, low_byte};
use crate::power::{PowerSink, ResetKind};
use crate::sys::{A20Sink, A20Source};

/// Output buffer (read) and input buffer for data (write).
const DATA: u16 = 0x60;
/// Status register (read) and input buffer for commands (write).
const COMMAND: u16 = 0x64;

/// The controller with its keyboard and mouse.
pub struct I8042 {
    controller: Controller,
    /// IRQ1 and IRQ12, as last driven.
    lines: (bool, bool),
    clock: Arc<dyn Clock>,
    irq1: IrqLine,
    irq12: IrqLine,
    a20: Arc<dyn A20Sink>,
    power: Arc<dyn PowerSink>,
}

impl I8042 {
    /// The controller's ports.
    pub const PORTS: [u16; 2] = [DATA, COMMAND];

    /// A controller after reset with a keyboard and a mouse. A20 is open.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        irq1: IrqLine,
        irq12: IrqLine,
        a20: Arc<dyn A20Sink>,
        power: Arc<dyn PowerSink>,
    ) -> Self {
        let controller = Controller::new(true);
        Self { controller, lines: (false, false), clock, irq1, irq12, a20, power }
    }

    /// The same with nothing at the auxiliary port.
    #[must_use]
    pub fn without_mouse(mut self) -> Self {
        self.controller.mouse = None;
        self
    }

    /// A key is pressed or released. A key that is held down is repeated by the keyboard.
    pub fn key_event(&mut self, key: Key, pressed: bool) {
        let now = self.clock.now();
        self.controller.keyboard.key(key, pressed, now);
        self.update(now);
    }

    /// The mouse is moved by so many counts to the right (`dx`) and away from the user (`dy`), its
    /// wheel by so many steps towards the user (`dz`), and these buttons are down. Counts are those
    /// of the resolution that the guest has set, whatever it is: a host's pointer knows no
    /// millimetres.
    pub fn mouse_event(&mut self, dx: i32, dy: i32, dz: i32, buttons: MouseButtons) {
        if let Some(mouse) = &mut self.controller.mouse {
            mouse.moved(dx, dy, dz, buttons);
        }
        self.update(self.clock.now());
    }

    /// Whether the guest has a driver that listens to the mouse.
    #[must_use]
    pub fn mouse_enabled(&self) -> bool {
        self.controller.mouse.as_ref().is_some_and(|mouse| mouse.enabled)
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
    fn update(&mut self, now: VmTime) {
        self.drive();
        self.controller.advance(now);
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
                self.update(self.clock.now());
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
        self.update(self.clock.now());
        self.grant(wish);
        Ok(())
    }
}

impl Timed for I8042 {
    /// When a key is repeated, or the mouse may report again.
    fn deadline(&self) -> Option<VmTime> {
        self.controller.deadline()
    }

    fn fire(&mut self, now: VmTime) {
        self.update(now);
    }
}

impl Device for I8042 {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        let a20 = (!self.wants_a20()).then_some(true);
        let (mouse, held) = (self.controller.mouse.is_some(), self.controller.keyboard.held);
        self.controller = Controller::new(mouse);
        self.controller.keyboard.held = held;
        self.update(self.clock.now());
        self.grant(Wish { a20, reset: false });
    }
}
