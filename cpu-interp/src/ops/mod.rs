//! The instruction groups. Each chooses handlers for the instructions it knows; the first that
//! knows one takes it.

pub mod alu;
pub mod control;

use iced_x86::Instruction;

use crate::decode::{Context, Selection};

type Select = fn(&Instruction, &Context) -> Option<Selection>;

/// All groups, those of the most frequent instructions first.
const GROUPS: &[Select] = &[alu::select];

/// The operation of an instruction, if it is implemented.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    GROUPS.iter().find_map(|group| group(i, context))
}
