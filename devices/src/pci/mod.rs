//! The PCI bus of the board `pc`: configuration mechanisms #1 and #2, bus 0, the chip set's own
//! functions (82441FX host bridge, PIIX3 ISA bridge, PIIX4 power management), and what all functions
//! are made of: configuration space, base address registers, capabilities.

pub mod bar;
pub mod config_space;
mod host;
mod i440fx;
pub mod msi;
mod piix3;
mod piix4_pm;
#[cfg(test)]
mod tests;

pub use bar::{AddressSpace, Bar, Bars, Window, WindowSink};
pub use host::{Bdf, PciError, PciHost};
pub use i440fx::{HostBridgeObserver, I440fx, PamRegion, Smram};
pub use msi::MsiCapability;
pub use piix3::{Piix3, PirqObserver};
pub use piix4_pm::Piix4Pm;
