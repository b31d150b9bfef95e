//! A fake chipset in which any device is alone with a hostile guest: recorded interrupt lines, a
//! clock that is moved by hand, and the properties that every device must have. Property tests and
//! fuzzing share it.
//!
//! Whatever is done to a device, it does not panic; its saved state stays small; each call at a
//! deadline moves the deadline on; and save, drop, rebuild and restore change nothing that a guest
//! can see.

mod fixture;
mod irq_log;
mod lapic;
mod outside;
mod program;
mod smbus;
mod table;
#[cfg(test)]
mod tests;

pub use fixture::{Fixture, MAX_STATE, Step, check};
pub use irq_log::IrqLog;
pub use program::Space;
#[cfg(test)]
pub(crate) use table::poke_i8042;
pub use table::{TARGETS, Target};
