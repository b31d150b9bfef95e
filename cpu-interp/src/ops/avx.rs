//! AVX, AVX2 and the rest of VEX-encoded SIMD.
//!
//! A VEX instruction on 256 bits is, but for few, an SSE instruction on each half of 128 bits, with
//! a destination of its own. So most of it is tables: the mnemonic, what is loaded, and what the
//! SSE instruction computes. To add one, add it to the table of its form.

mod compare;
mod float;
mod form;
mod fused;
#[cfg(test)]
mod fused_tests;
mod gather;
mod half;
mod integer;
mod moves;
mod permute;

use iced_x86::{EncodingKind, Instruction};

pub use form::{three, two};
pub use integer::{from_singles, singles};

use crate::decode::{Context, Selection};

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    if i.code().encoding() != EncodingKind::VEX {
        return None;
    }
    float::select(i, context)
        .or_else(|| integer::select(i, context))
        .or_else(|| moves::select(i, context))
        .or_else(|| permute::select(i, context))
        .or_else(|| compare::select(i, context))
        .or_else(|| gather::select(i, context))
        .or_else(|| fused::select(i, context))
        .or_else(|| half::select(i, context))
}
