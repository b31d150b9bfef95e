//! How other threads reach a machine, whether it runs or not.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use trivium_devices::i8042::{Key, MouseButtons};

use crate::board::PcBoard;
use crate::config::SERIAL_PORTS;
use crate::control::{Control, Request, lock};
use crate::serial::SerialInput;
use crate::switch::Kicks;

/// What others want of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// There is input for this serial port.
    SerialInput(usize),
    /// A break on the line of this serial port.
    SerialBreak(usize),
    /// A key is pressed or released.
    Key(Key, bool),
    /// The mouse is moved, its wheel turned, or its buttons change.
    Mouse(i32, i32, i32, MouseButtons),
    /// The power button was pressed.
    PowerButton,
}

/// Reaches a machine from any thread. Dropping it changes nothing.
#[derive(Clone)]
pub struct MachineHandle {
    control: Arc<Control>,
    serial: Arc<[Arc<SerialInput>; SERIAL_PORTS]>,
    messages: Sender<Message>,
    switches: Arc<[Arc<Kicks>]>,
}

impl MachineHandle {
    pub(crate) fn new(
        control: Arc<Control>,
        serial: Arc<[Arc<SerialInput>; SERIAL_PORTS]>,
    ) -> (Self, Receiver<Message>) {
        let (messages, receiver) = unbounded();
        (Self { control, serial, messages, switches: Arc::default() }, receiver)
    }

    /// Tells it of the processors' CPUs.
    pub(crate) fn set_switches(&mut self, switches: Vec<Arc<Kicks>>) {
        self.switches = switches.into();
    }

    /// Each processor goes over to the next of its CPUs ([`crate::SwitchConfig`]), before its next
    /// instruction.
    pub fn switch_cpu(&self) {
        for (kicks, processor) in self.switches.iter().zip(self.control.processors()) {
            kicks.switch();
            processor.kick();
        }
    }

    /// Characters arrive at serial port `port` (0 for COM1 to 3). They wait until the guest takes
    /// them; a mebibyte at most, beyond which they are lost. Gives how many there was room for.
    pub fn serial_input(&self, port: usize, bytes: &[u8]) -> usize {
        let Some(input) = self.serial.get(port) else { return 0 };
        let taken = input.push(bytes);
        self.send(Message::SerialInput(port));
        taken
    }

    /// A break arrives at serial port `port` (0 for COM1 to 3).
    pub fn send_break(&self, port: usize) {
        self.send(Message::SerialBreak(port));
    }

    /// A key is pressed or released. The keyboard itself repeats a key that is held down.
    pub fn key_event(&self, key: Key, pressed: bool) {
        self.send(Message::Key(key, pressed));
    }

    /// The mouse is moved by so many counts to the right and away from the user, its wheel by so
    /// many steps towards the user, and these buttons are down.
    pub fn mouse_event(&self, dx: i32, dy: i32, dz: i32, buttons: MouseButtons) {
        self.send(Message::Mouse(dx, dy, dz, buttons));
    }

    /// The power button is pressed: an ACPI guest is asked to switch off.
    pub fn press_power_button(&self) {
        self.send(Message::PowerButton);
    }

    /// Ends the run, or the next one at once: [`crate::RunEnd::Stopped`].
    pub fn stop(&self) {
        self.control.request(Request::Stop);
    }

    fn send(&self, message: Message) {
        // Fails only when the machine is gone.
        if self.messages.send(message).is_ok() {
            self.control.wake_events();
        }
    }
}

impl PcBoard {
    /// Does what others want.
    pub(crate) fn handle(&self, message: Message) {
        match message {
            Message::SerialInput(port) | Message::SerialBreak(port) => {
                let Some(device) = self.serial.get(port).and_then(Option::as_ref) else { return };
                let mut serial = lock(device);
                match message {
                    Message::SerialBreak(_) => serial.receive_break(),
                    _ => serial.feed(),
                }
                drop(serial);
                self.refresh_timers();
            }
            Message::Key(key, pressed) => {
                lock(&self.keyboard).key_event(key, pressed);
                self.refresh_timers();
            }
            Message::Mouse(dx, dy, dz, buttons) => {
                lock(&self.keyboard).mouse_event(dx, dy, dz, buttons);
                self.refresh_timers();
            }
            Message::PowerButton => {
                if let Some(pci) = &self.pci {
                    lock(&pci.power).pm().press_power_button();
                }
            }
        }
    }
}
