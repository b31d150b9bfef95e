//! Helpers for the tests of all devices: recorded interrupt lines, and the property that every
//! device must have: hostile accesses do not panic, and save, drop, rebuild, restore changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use proptest::prelude::*;
use trivium_chipset::{
    AccessWidth, Clock, Device, IrqLine, IrqSink, ManualClock, NANOS_PER_SECOND, Section, VmTime,
};

/// An interrupt router that writes down what is driven.
#[derive(Default)]
pub(crate) struct IrqLog(Mutex<Vec<(u32, bool)>>);

impl IrqSink for IrqLog {
    fn set_level(&self, pin: u32, _: u32, high: bool) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = log.iter().rev().find(|entry| entry.0 == pin).is_some_and(|entry| entry.1);
        if before != high {
            log.push((pin, high));
        }
    }
}

impl IrqLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A line to input `pin`.
    pub(crate) fn line(self: &Arc<Self>, pin: u32) -> IrqLine {
        IrqLine::new(self.clone(), pin, pin)
    }

    /// All changes of level so far, as (pin, level).
    pub(crate) fn changes(&self) -> Vec<(u32, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The present level of input `pin`.
    pub(crate) fn level(&self, pin: u32) -> bool {
        self.changes().iter().rev().find(|entry| entry.0 == pin).is_some_and(|entry| entry.1)
    }

    /// How often input `pin` rose.
    pub(crate) fn rises(&self, pin: u32) -> usize {
        self.changes().iter().filter(|&&entry| entry == (pin, true)).count()
    }
}

/// What a hostile guest, the passing of time, or the user may do to a device.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    PortRead(u16, AccessWidth),
    PortWrite(u16, AccessWidth, u32),
    MmioRead(u64, usize),
    MmioWrite(u64, Vec<u8>),
    ConfigRead(u8),
    ConfigWrite(u8, u32, u32),
    Advance(u64),
    Reset,
    SaveRestore,
    /// Restores a state of which one byte was changed, and undoes that if it was accepted.
    Corrupt(usize, u8),
    /// Whatever else the device takes from the host; see [`Fixture::poke`].
    Poke(u8),
}

fn width() -> impl Strategy<Value = AccessWidth> {
    prop_oneof![
        8 => Just(AccessWidth::Byte),
        1 => Just(AccessWidth::Word),
        1 => Just(AccessWidth::Dword),
    ]
}

/// Spans from the nanosecond to years, most of them short.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..2_000u64,
        8 => 0..10_000_000u64,
        4 => 0..5 * NANOS_PER_SECOND,
        1 => any::<u32>().prop_map(|seconds| u64::from(seconds) * NANOS_PER_SECOND / 100),
    ]
}

fn common_step() -> BoxedStrategy<Step> {
    prop_oneof![
        6 => span().prop_map(Step::Advance),
        3 => Just(Step::SaveRestore),
        1 => Just(Step::Reset),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, to)| Step::Corrupt(at, to)),
        4 => any::<u8>().prop_map(Step::Poke),
    ]
    .boxed()
}

/// Steps for a device with I/O ports.
pub(crate) fn port_steps(ports: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let port = proptest::sample::select(ports.to_vec());
    let value = prop_oneof![any::<u8>().prop_map(u32::from), any::<u32>()];
    let access = prop_oneof![
        (port.clone(), width()).prop_map(|(port, width)| Step::PortRead(port, width)),
        (port, width(), value).prop_map(|(port, width, value)| {
            Step::PortWrite(port, width, value & width.mask())
        }),
    ];
    proptest::collection::vec(prop_oneof![3 => access, 1 => common_step()], 1..120)
}

/// Steps for a device with memory-mapped registers at these offsets, and some elsewhere.
pub(crate) fn mmio_steps(offsets: &[u64]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let offset = prop_oneof![
        8 => proptest::sample::select(offsets.to_vec()),
        1 => any::<u64>(),
    ];
    let length = prop_oneof![8 => Just(4usize), 2 => Just(8usize), 1 => 1..65usize];
    // Small numbers make things happen soon; random ones make everything else happen.
    let low = prop_oneof![any::<u32>(), 0..0x1_0000u32, Just(0)];
    let data = (low, any::<[u8; 60]>())
        .prop_map(|(low, high)| low.to_le_bytes().into_iter().chain(high).collect::<Vec<u8>>());
    let access = prop_oneof![
        (offset.clone(), length.clone()).prop_map(|(offset, len)| Step::MmioRead(offset, len)),
        (offset, length, data).prop_map(|(offset, length, mut data)| {
            data.truncate(length);
            Step::MmioWrite(offset, data)
        }),
    ];
    proptest::collection::vec(prop_oneof![3 => access, 1 => common_step()], 1..120)
}

/// Steps for a PCI function that has these ports as well.
pub(crate) fn pci_steps(ports: &[u16]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let mask = any::<[bool; 4]>().prop_map(|enabled| {
        enabled.into_iter().fold(0, |mask, byte| mask << 8 | if byte { 0xff } else { 0 })
    });
    let dword = (0..64u8).prop_map(|index| index * 4);
    let config = prop_oneof![
        dword.clone().prop_map(Step::ConfigRead),
        (dword, any::<u32>(), mask)
            .prop_map(|(offset, value, mask)| { Step::ConfigWrite(offset, value & mask, mask) }),
    ];
    let config = proptest::collection::vec(config, 1..60);
    if ports.is_empty() {
        return config.boxed();
    }
    (config, port_steps(ports))
        .prop_map(|(config, mut steps)| {
            steps.extend(config);
            steps
        })
        .prop_shuffle()
        .boxed()
}

/// A device under test with everything it is wired to.
pub(crate) struct Fixture<D> {
    pub(crate) device: D,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) irqs: Arc<IrqLog>,
    /// Makes the device anew on the same wires.
    pub(crate) make: fn(&Arc<ManualClock>, &Arc<IrqLog>) -> D,
    /// What else the host may do to the device.
    pub(crate) poke: fn(&mut D, u8),
}

impl<D: Device> Fixture<D> {
    pub(crate) fn new(make: fn(&Arc<ManualClock>, &Arc<IrqLog>) -> D) -> Self {
        let (clock, irqs) = (ManualClock::new(), IrqLog::new());
        Self { device: make(&clock, &irqs), clock, irqs, make, poke: |_, _| {} }
    }

    pub(crate) fn with_poke(self, poke: fn(&mut D, u8)) -> Self {
        Self { poke, ..self }
    }

    /// Reads a byte from a port that must exist.
    pub(crate) fn read(&mut self, port: u16) -> u8 {
        let value = self.device.pio().unwrap().read(port, AccessWidth::Byte).unwrap();
        u8::try_from(value).unwrap()
    }

    /// Writes a byte to a port that must exist.
    pub(crate) fn write(&mut self, port: u16, value: u8) {
        self.device.pio().unwrap().write(port, AccessWidth::Byte, value.into()).unwrap();
    }

    /// Moves on by `nanos` nanoseconds, calling the device at its deadlines.
    pub(crate) fn advance(&mut self, nanos: u64) {
        let end = self.clock.now().saturating_add(nanos);
        // A fast timer over a long span: the last stretch is made in one late call.
        for _ in 0..10_000 {
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
        self.device.timed().unwrap().fire(now);
        let next = self.deadline();
        assert!(next.is_none_or(|next| next > now), "fire({now}) made no progress: {next:?}");
    }

    /// Saves, rebuilds and restores the device.
    pub(crate) fn save_restore(&mut self) {
        let saved = self.device.save();
        let mut rebuilt = (self.make)(&self.clock, &self.irqs);
        rebuilt.restore(&saved).unwrap();
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
        let mut victim = Fixture::new(self.make).with_poke(self.poke);
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

    /// Does one step; what was read is the result.
    fn step(&mut self, step: &Step, honest: bool) -> String {
        match *step {
            Step::PortRead(port, width) => {
                format!("{:?}", self.device.pio().unwrap().read(port, width))
            }
            Step::PortWrite(port, width, value) => {
                format!("{:?}", self.device.pio().unwrap().write(port, width, value))
            }
            Step::MmioRead(offset, length) => {
                let mut data = vec![0; length];
                let result = self.device.mmio().unwrap().read(offset, &mut data);
                format!("{result:?} {data:?}")
            }
            Step::MmioWrite(offset, ref data) => {
                format!("{:?}", self.device.mmio().unwrap().write(offset, data))
            }
            Step::ConfigRead(offset) => format!("{}", self.device.pci().unwrap().read(offset)),
            Step::ConfigWrite(offset, value, mask) => {
                self.device.pci().unwrap().write(offset, value, mask);
                String::new()
            }
            Step::Advance(nanos) => {
                self.advance(nanos);
                String::new()
            }
            Step::Reset => {
                self.device.reset();
                String::new()
            }
            Step::SaveRestore if honest => String::new(),
            Step::SaveRestore => {
                self.save_restore();
                String::new()
            }
            Step::Corrupt(at, to) => {
                self.corrupt(at, to);
                String::new()
            }
            Step::Poke(what) => {
                (self.poke)(&mut self.device, what);
                String::new()
            }
        }
    }
}

/// Runs the steps on two devices, one of which is saved, dropped, rebuilt and restored on the way:
/// both must read the same, drive the same interrupts and end in the same state.
pub(crate) fn check<D: Device>(fixture: impl Fn() -> Fixture<D>, steps: &[Step]) {
    let (mut honest, mut restored) = (fixture(), fixture());
    for step in steps {
        assert_eq!(honest.step(step, true), restored.step(step, false), "{step:?}");
        assert_eq!(honest.device.save(), restored.device.save(), "{step:?}");
    }
    assert_eq!(honest.irqs.changes(), restored.irqs.changes());
}
