//! The PCI bus of the board `pc`: configuration mechanism #1, bus 0, and the chip set's own
//! functions (82441FX host bridge, PIIX3 ISA bridge, PIIX4 power management).

mod config_space;
mod host;
mod i440fx;
mod piix3;
mod piix4_pm;
#[cfg(test)]
mod tests;

pub use host::{Bdf, PciError, PciHost};
pub use i440fx::{HostBridgeObserver, I440fx, PamRegion, Smram};
pub use piix3::{Piix3, PirqObserver};
pub use piix4_pm::{Piix4Pm, PmWindowObserver};
