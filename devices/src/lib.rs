//! The devices of a PC, each a register core that can be tested without a machine and a thin
//! adapter to the traits of `trivium-chipset`.

#![forbid(unsafe_code)]

mod access;
#[cfg(test)]
mod test_support;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

// Interrupts and time.
pub mod lost_ticks;
pub mod pic;
pub mod pit;
pub mod rtc;

// Bus masters of the ISA bridge.
pub mod dma;

// Keyboard, serial line and the small ports of the ISA bridge.
pub mod i8042;
pub mod parallel;
pub mod ports;
pub mod power;
pub mod sys;
pub mod uart16550;

// APICs, power management and the PCI bus.
pub mod acpi_pm;
pub mod apic;
pub mod hpet;
pub mod pci;
pub mod smbus;

// What only virtual machines have.
pub mod fw_cfg;
pub mod pvpanic;
pub mod vmcoreinfo;
