//! The System Management Bus: the PIIX4's host controller, the bus, and memory modules' EEPROMs.
//! System Management Bus Specification 1.0; 82371AB (PIIX4) data sheet (290562), section 7.3.

mod eeprom;
mod host;
mod spd;
mod target;
#[cfg(test)]
mod tests;

pub use eeprom::Eeprom;
pub(crate) use host::save_restore;
pub use host::{InterruptSelect, SMBUS_PORTS, SmbusHost};
pub use spd::{EEPROM_ADDRESS, MAX_MODULES, module_sizes, spd_eeproms, spd_of_module};
pub use target::{SmbusBus, SmbusTarget};
