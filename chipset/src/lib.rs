//! What a device is: the traits of the buses it may sit on, its interrupt lines, virtual time,
//! and how its state is saved.
//!
//! A device is a plain register core that can be tested without a machine. It says through the
//! getters of [`Device`] which buses it sits on; a new kind of bus costs the others nothing.

#![forbid(unsafe_code)]

pub mod bus;
pub mod dma;
pub mod irq;
pub mod rate_limit;
pub mod state;
pub mod time;

pub use bus::{AccessWidth, BusError, BusResult, Mmio, PciConfig, PortIo};
pub use dma::{DmaError, DmaMemory};
pub use irq::{IrqLine, IrqSink, MsiMessage, MsiSink};
pub use rate_limit::RateLimit;
pub use state::{SaveRestore, Section, StateError};
pub use time::{Clock, ManualClock, NANOS_PER_SECOND, VmTime};

/// A device of the machine: what it can do is asked, never assumed.
pub trait Device: SaveRestore + Send {
    /// The device's I/O ports, if it has any.
    fn pio(&mut self) -> Option<&mut dyn PortIo> {
        None
    }

    /// The device's memory-mapped registers, if it has any.
    fn mmio(&mut self) -> Option<&mut dyn Mmio> {
        None
    }

    /// The device's PCI configuration space, if it is a PCI function.
    fn pci(&mut self) -> Option<&mut dyn PciConfig> {
        None
    }

    /// The device's timers, if it has any.
    fn timed(&mut self) -> Option<&mut dyn Timed> {
        None
    }

    /// Returns the device to its power-on state, as RESET# does.
    fn reset(&mut self);
}

/// A device that wants to be called at a moment of virtual time.
pub trait Timed {
    /// When [`Timed::fire`] wants to be called next. Asked after every access to the device and
    /// after every `fire`.
    fn deadline(&self) -> Option<VmTime>;

    /// Virtual time has reached the deadline; `now` may be later than it.
    fn fire(&mut self, now: VmTime);
}
