//! Boards: which chips a machine has, where they answer, and how they are wired.

mod bus;
mod cpu_bus;
mod fpu;
mod isa;
mod pc;
mod pci;
mod ports;
mod setup;
#[cfg(test)]
mod tests;
mod windows;

pub(crate) use cpu_bus::VcpuBus;
pub(crate) use isa::IsaParts;
pub(crate) use pc::{BoardParts, PcBoard, SharedConsole};
