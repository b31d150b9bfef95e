//! A device under test, what may be done to it, and what must then hold.

use std::sync::Arc;

use trivium_chipset::{
    AccessWidth, BusResult, Clock, Device, ManualClock, PortIo, Section, VmTime,
};

use super::IrqLog;

/// The most that a device's saved state may take, in bytes, whatever a guest does.
pub const MAX_STATE: usize = 64 << 10;
/// No machine runs for 146 years.
const END_OF_TIME: VmTime = VmTime::from_nanos(1 << 62);

/// What a hostile guest, the passing of time, or the user may do to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reads a port.
    PortRead(u16, AccessWidth),
    /// Writes a port.
    PortWrite(u16, AccessWidth, u32),
    /// Reads so many bytes at an offset.
    MmioRead(u64, usize),
    /// Writes these bytes at an offset.
    MmioWrite(u64, Vec<u8>),
    /// Reads a double word of configuration space.
    ConfigRead(u8),
    /// Writes a value under a mask to a double word of configuration space.
    ConfigWrite(u8, u32, u32),
    /// So many nanoseconds pass.
    Advance(u64),
    /// Time passes up to the device's deadline, if it has one.
    NextDeadline,
    /// RESET#.
    Reset,
    /// The device is saved, dropped, made anew and restored.
    SaveRestore,
    /// Restores a state of which one byte was changed, and undoes that if it was accepted.
    Corrupt(usize, u8),
    /// Whatever else the device takes from the host; see [`Fixture::with_poke`].
    Poke(u8),
}

/// What a guest sees of a step.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Port(BusResult<u32>),
    Write(BusResult<()>),
    Bytes(BusResult<()>, Vec<u8>),
    Config(u32),
}

type Make<D> = Arc<dyn Fn(&Arc<ManualClock>, &Arc<IrqLog>) -> D>;

/// A device under test with everything it is wired to.
pub struct Fixture<D> {
    /// The device.
    pub device: D,
    /// The clock that the device reads.
    pub clock: Arc<ManualClock>,
    /// The interrupt lines that the device drives.
    pub irqs: Arc<IrqLog>,
    /// Makes the device anew on the same wires.
    make: Make<D>,
    /// What else the host may do to the device.
    poke: fn(&mut D, u8),
    /// Most calls at deadlines within one step; the last one is then late.
    max_fires: u32,
}

impl<D: Device> Fixture<D> {
    /// A device that `make` makes, on new wires.
    pub fn new(make: impl Fn(&Arc<ManualClock>, &Arc<IrqLog>) -> D + 'static) -> Self {
        Self::of(Arc::new(make))
    }

    fn of(make: Make<D>) -> Self {
        let (clock, irqs) = (ManualClock::new(), IrqLog::new());
        let device = make(&clock, &irqs);
        Self { device, clock, irqs, make, poke: |_, _| {}, max_fires: 10_000 }
    }

    /// Tells what else the host may do to the device.
    #[must_use]
    pub fn with_poke(self, poke: fn(&mut D, u8)) -> Self {
        Self { poke, ..self }
    }

    /// Makes a step with more than `fires` deadlines end with one late call.
    #[must_use]
    pub fn with_max_fires(self, fires: u32) -> Self {
        Self { max_fires: fires, ..self }
    }

    fn ports(&mut self) -> &mut dyn PortIo {
        self.device.pio().expect("a device with ports")
    }

    /// Reads a byte from a port that must exist.
    ///
    /// # Panics
    /// There is no such port.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = self.ports().read(port, AccessWidth::Byte).expect("a port that can be read");
        u8::try_from(value).expect("a byte")
    }

    /// Writes a byte to a port that must exist.
    ///
    /// # Panics
    /// There is no such port.
    pub fn write(&mut self, port: u16, value: u8) {
        let result = self.ports().write(port, AccessWidth::Byte, value.into());
        result.expect("a port that can be written");
    }

    /// Moves on by `nanos` nanoseconds, calling the device at its deadlines.
    ///
    /// # Panics
    /// A call does not move the deadline on.
    pub fn advance(&mut self, nanos: u64) {
        let end = self.clock.now().saturating_add(nanos).min(END_OF_TIME);
        // A fast timer over a long span: the last stretch is made in one late call.
        for _ in 0..self.max_fires {
            let Some(deadline) = self.deadline().filter(|&deadline| deadline <= end) else { break };
            self.clock.set(deadline.max(self.clock.now()));
            self.fire();
        }
        self.clock.set(end);
        if self.deadline().is_some_and(|deadline| deadline <= end) {
            self.fire();
        }
    }

    fn deadline(&mut self) -> Option<VmTime> {
        self.device.timed().and_then(|timed| timed.deadline())
    }

    fn fire(&mut self) {
        let now = self.clock.now();
        self.device.timed().expect("a device with a deadline").fire(now);
        let next = self.deadline();
        assert!(next.is_none_or(|next| next > now), "fire({now}) made no progress: {next:?}");
    }

    fn next_deadline(&mut self) {
        let now = self.clock.now();
        if let Some(deadline) = self.deadline() {
            self.advance(deadline.nanos_since(now));
        }
    }

    /// Saves, rebuilds and restores the device.
    ///
    /// # Panics
    /// The state is too large, is refused, or is another one after that.
    pub fn save_restore(&mut self) {
        let saved = self.device.save();
        let size = saved.data.len();
        assert!(size <= MAX_STATE, "{size} bytes of state");
        let mut rebuilt = (self.make)(&self.clock, &self.irqs);
        rebuilt.restore(&saved).expect("a device takes its own state");
        assert_eq!(rebuilt.save(), saved, "restore then save");
        self.device = rebuilt;
    }

    fn corrupt(&mut self, at: usize, to: u8) {
        let saved = self.device.save();
        let mut data = saved.data.clone();
        let length = data.len().max(1);
        if let Some(byte) = data.get_mut(at % length) {
            *byte = to;
        }
        let mut victim =
            Self::of(self.make.clone()).with_poke(self.poke).with_max_fires(self.max_fires);
        victim.clock.set(self.clock.now());
        let before = victim.device.save();
        if victim.device.restore(&Section { version: saved.version, data }).is_ok() {
            victim.advance(10_000_000);
            (victim.poke)(&mut victim.device, to);
            victim.save_restore();
        } else {
            assert_eq!(victim.device.save(), before, "a refused restore changes nothing");
        }
    }

    /// An access to the device's registers.
    fn access(&mut self, step: &Step) -> Option<Seen> {
        Some(match *step {
            Step::PortRead(port, width) => Seen::Port(self.device.pio()?.read(port, width)),
            Step::PortWrite(port, width, value) => {
                Seen::Write(self.device.pio()?.write(port, width, value))
            }
            Step::MmioRead(offset, length) => {
                let mut data = vec![0; length];
                let result = self.device.mmio()?.read(offset, &mut data);
                Seen::Bytes(result, data)
            }
            Step::MmioWrite(offset, ref data) => {
                Seen::Write(self.device.mmio()?.write(offset, data))
            }
            Step::ConfigRead(offset) => Seen::Config(self.device.pci()?.read(offset)),
            Step::ConfigWrite(offset, value, mask) => {
                self.device.pci()?.write(offset, value, mask);
                Seen::Nothing
            }
            _ => return None,
        })
    }

    /// Does one step; what was read is the result. An honest device is never saved.
    fn step(&mut self, step: &Step, honest: bool) -> Seen {
        if let Some(seen) = self.access(step) {
            return seen;
        }
        match *step {
            Step::Advance(nanos) => self.advance(nanos),
            Step::NextDeadline => self.next_deadline(),
            Step::Reset => self.device.reset(),
            Step::SaveRestore if !honest => self.save_restore(),
            Step::Corrupt(at, to) => self.corrupt(at, to),
            Step::Poke(what) => (self.poke)(&mut self.device, what),
            _ => {}
        }
        Seen::Nothing
    }
}

/// Runs the steps on two devices, one of which is saved, dropped, rebuilt and restored on the way:
/// both must read the same, drive the same interrupts and end in the same state.
///
/// # Panics
/// They do not.
pub fn check<D: Device>(fixture: impl Fn() -> Fixture<D>, steps: &[Step]) {
    let (mut honest, mut restored) = (fixture(), fixture());
    for step in steps {
        assert_eq!(honest.step(step, true), restored.step(step, false), "{step:?}");
        assert_eq!(honest.device.save(), restored.device.save(), "{step:?}");
    }
    restored.save_restore();
    assert_eq!(honest.irqs.changes(), restored.irqs.changes());
}
