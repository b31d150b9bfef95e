//! The instruction groups. Each chooses handlers for the instructions it knows; the first that
//! knows one takes it.

pub mod alu;
pub mod amd3d;
pub mod atomic;
pub mod avx;
pub mod bcd;
pub mod bits;
pub mod bmi;
pub mod branch;
pub mod control;
pub mod crypto;
pub mod direct;
pub mod fxsave;
#[cfg(test)]
mod fxsave_tests;
pub mod misc;
pub mod mmx;
pub mod mov;
pub mod muldiv;
pub mod random;
pub mod shift;
pub mod sse4a;
pub mod sse_4;
pub mod sse_float;
pub mod sse_form;
pub mod sse_int;
pub mod sse_moves;
pub mod sse_strings;
#[cfg(test)]
mod sse_tests;
pub mod stack;
pub mod string;
pub mod x87;
pub mod xsave;

use iced_x86::Instruction;

use crate::decode::{Context, Selection};

type Select = fn(&Instruction, &Context) -> Option<Selection>;

/// All groups, those of the most frequent instructions first.
const GROUPS: &[Select] = &[
    mov::select,
    alu::select,
    branch::select,
    stack::select,
    shift::select,
    bits::select,
    muldiv::select,
    string::select,
    atomic::select,
    bmi::select,
    avx::select,
    sse_moves::select,
    sse_int::select,
    crate::system::select,
    sse_float::select,
    sse_4::select,
    sse4a::select,
    sse_strings::select,
    mmx::select,
    amd3d::select,
    fxsave::select,
    xsave::select,
    x87::select,
    bcd::select,
    misc::select,
    crypto::select,
    random::select,
    direct::select,
];

/// The operation of an instruction, if it is implemented.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    GROUPS.iter().find_map(|group| group(i, context))
}
