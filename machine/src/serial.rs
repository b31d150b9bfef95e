//! Serial ports with input from the host, which waits outside until the receiver has room.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use trivium_chipset::{
    AccessWidth, BusResult, Device, PortIo, SaveRestore, Section, StateError, Timed, VmTime,
};
use trivium_devices::uart16550::{SerialBackend, Uart16550};

use crate::control::lock;

/// The most that waits for one port, in bytes; what comes then is lost.
const MOST_WAITING: usize = 1 << 20;

/// Characters on their way to a serial port.
#[derive(Debug, Default)]
pub(crate) struct SerialInput {
    bytes: Mutex<VecDeque<u8>>,
    /// Whether there are any: read on every access to the port.
    waits: AtomicBool,
}

impl SerialInput {
    /// Adds characters; gives how many there was room for.
    pub(crate) fn push(&self, bytes: &[u8]) -> usize {
        let mut waiting = lock(&self.bytes);
        let taken = bytes.len().min(MOST_WAITING.saturating_sub(waiting.len()));
        waiting.extend(bytes.iter().take(taken));
        self.waits.store(!waiting.is_empty(), Ordering::Release);
        taken
    }

    /// Gives the port as many as it takes.
    fn feed(&self, uart: &mut Uart16550) {
        if !self.waits.load(Ordering::Acquire) || !uart.wants_input() {
            return;
        }
        let mut waiting = lock(&self.bytes);
        let taken = uart.receive(waiting.make_contiguous());
        let taken = taken.min(waiting.len());
        waiting.drain(..taken);
        self.waits.store(!waiting.is_empty(), Ordering::Release);
    }
}

/// A far end that outlives the port, for ports that are taken down and built again.
#[derive(Clone)]
pub(crate) struct SharedBackend(Arc<Mutex<Box<dyn SerialBackend>>>);

impl SharedBackend {
    pub(crate) fn new(backend: Box<dyn SerialBackend>) -> Self {
        Self(Arc::new(Mutex::new(backend)))
    }
}

impl SerialBackend for SharedBackend {
    fn transmit(&mut self, byte: u8) {
        lock(&self.0).transmit(byte);
    }

    fn set_break(&mut self, on: bool) {
        lock(&self.0).set_break(on);
    }
}

/// A serial port of the board.
pub(crate) struct SerialPort {
    uart: Uart16550,
    input: Arc<SerialInput>,
}

impl SerialPort {
    pub(crate) fn new(uart: Uart16550, input: Arc<SerialInput>) -> Self {
        Self { uart, input }
    }

    /// Input has come from the host.
    pub(crate) fn feed(&mut self) {
        self.input.feed(&mut self.uart);
    }

    /// The line was in the break condition.
    pub(crate) fn receive_break(&mut self) {
        self.uart.receive_break();
    }
}

impl PortIo for SerialPort {
    fn read(&mut self, port: u16, width: AccessWidth) -> BusResult<u32> {
        let result = PortIo::read(&mut self.uart, port, width);
        self.feed();
        result
    }

    fn write(&mut self, port: u16, width: AccessWidth, value: u32) -> BusResult<()> {
        let result = PortIo::write(&mut self.uart, port, width, value);
        self.feed();
        result
    }
}

impl Timed for SerialPort {
    /// Input that waits is taken at the line's pace: see [`Uart16550::receives_from`].
    fn deadline(&self) -> Option<VmTime> {
        let waits = self.input.waits.load(Ordering::Acquire);
        let input = if waits { self.uart.receives_from() } else { None };
        self.uart.deadline().into_iter().chain(input).min()
    }

    fn fire(&mut self, now: VmTime) {
        self.uart.fire(now);
        self.feed();
    }
}

impl Device for SerialPort {
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        Some(self)
    }

    fn timed(&mut self) -> Option<&mut dyn Timed> {
        Some(self)
    }

    fn reset(&mut self) {
        self.uart.reset();
    }
}

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Saved {
    uart: Section,
    /// What has arrived from the host and waits for room.
    waiting: VecDeque<u8>,
}

impl SaveRestore for SerialPort {
    fn save(&self) -> Section {
        let Self { uart, input } = self;
        let waiting = lock(&input.bytes).clone();
        Section::encode(VERSION, &Saved { uart: uart.save(), waiting })
    }

    fn restore(&mut self, section: &Section) -> Result<(), StateError> {
        let Saved { uart, waiting } = section.decode(VERSION)?;
        if waiting.len() > MOST_WAITING {
            return Err(StateError::Impossible("more input waits than can"));
        }
        self.uart.restore(&uart)?;
        self.input.waits.store(!waiting.is_empty(), Ordering::Release);
        *lock(&self.input.bytes) = waiting;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trivium_chipset::{IrqLine, ManualClock};

    struct Nobody;
    impl SerialBackend for Nobody {
        fn transmit(&mut self, _: u8) {}
    }

    #[test]
    fn input_waits_until_the_receiver_has_room() {
        let input = Arc::<SerialInput>::default();
        let uart = Uart16550::new(ManualClock::new(), IrqLine::unconnected(), Box::new(Nobody));
        let mut port = SerialPort::new(uart, input.clone());
        assert_eq!(input.push(b"PC16550D"), 8);
        port.feed();
        let mut read = || PortIo::read(&mut port, 0x3f8, AccessWidth::Byte).unwrap() as u8;
        let line: Vec<u8> = (0..8).map(|_| read()).collect();
        assert_eq!(line, b"PC16550D");
    }

    #[test]
    fn input_comes_at_the_pace_of_a_line_with_a_baud_rate() {
        let (clock, input) = (ManualClock::new(), Arc::<SerialInput>::default());
        let uart = Uart16550::new(clock.clone(), IrqLine::unconnected(), Box::new(Nobody));
        let mut port = SerialPort::new(uart.with_baud_timing(), input.clone());
        for (register, value) in [(3, 0x83), (0, 12), (1, 0), (3, 0x03), (2, 0x01)] {
            PortIo::write(&mut port, 0x3f8 + register, AccessWidth::Byte, value).unwrap();
        }
        input.push(b"9600 baud");
        port.feed();
        let mut moments = Vec::new();
        while let Some(at) = port.deadline().filter(|_| input.waits.load(Ordering::Relaxed)) {
            clock.set(at);
            port.fire(at);
            moments.push(at.as_nanos() / 1_000);
        }
        // 10 bits at 9,600 baud are 1,041.67 µs.
        assert_eq!(moments, (1..9).map(|n| n * 10_416_670 / 10_000).collect::<Vec<u64>>());
    }

    #[test]
    fn what_waits_is_bounded() {
        let input = SerialInput::default();
        assert_eq!(input.push(&vec![0; MOST_WAITING + 1]), MOST_WAITING);
        assert_eq!(input.push(&[0]), 0);
    }
}
