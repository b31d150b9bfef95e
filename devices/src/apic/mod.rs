//! The APICs: one local APIC per processor, the I/O APIC, and the messages between them.
//!
//! A local APIC never reaches another chip by itself. What must leave it (an interprocessor
//! interrupt, the end of a level-triggered interrupt) is handed back as a [`LapicAction`], so that
//! the board can deliver it once the APIC is unlocked.

pub mod bus;
mod ioapic;
mod local;
mod message;
mod timer;
mod vectors;

pub use ioapic::{IOAPIC_PINS, IoApic, IoApicRegisters};
pub use local::{
    ApicGeneration, ApicMode, LapicAction, LapicConfig, LapicRegisters, Lint, LocalApic, MsrFault,
    Requests,
};
pub use message::{BROADCAST, DeliveryMode, Destination, Message};
