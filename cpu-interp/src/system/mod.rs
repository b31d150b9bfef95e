//! System behaviour: segments, gates, exception and interrupt delivery, control registers, MSRs,
//! CPUID, ports.

pub mod cache;
pub mod calls;
pub mod descriptor;
pub mod far;
pub mod flags;
pub mod interrupt;
pub mod io;
pub mod iret;
pub mod monitor;
pub mod msr;
pub mod registers;
pub mod segments;
pub mod smm;
mod smm_layout;
pub mod software;
mod stack;
pub mod tables;
mod task;

use iced_x86::Instruction;

use crate::decode::{Context, Selection};

type Select = fn(&Instruction, &Context) -> Option<Selection>;

const GROUPS: &[Select] = &[
    io::select,
    flags::select,
    calls::select,
    segments::select,
    registers::select,
    cache::select,
    msr::select,
    iret::select,
    far::select,
    software::select,
    tables::select,
    monitor::select,
    smm::select,
];

/// Chooses functions for system instructions, and those that do nothing.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    GROUPS.iter().find_map(|group| group(i, context))
}
