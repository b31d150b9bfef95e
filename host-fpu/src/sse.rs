//! SSE floating point: one marker type per instruction, all behind the trait [`SseOp`].
//!
//! MXCSR is loaded with the guest's control bits, all masks set and all flags clear, the
//! instruction runs, and the flags it raised are read back. Measured on Zen 5, loading MXCSR is
//! nearly free and reading it costs about 2 ns, so the usual case (reset control bits) does just
//! these two and leaves only flags behind in the host's MXCSR, which Rust's inline assembly rules
//! allow. Every other case also loads the host's control bits again.

mod dot;
mod format;
mod fused;
mod half;
mod ops;
mod round;
mod rounding;
#[cfg(test)]
mod tests;
mod unmasked;

use crate::{Mxcsr, V128};
use core::hint::cold_path;

pub use dot::{dppd, dpps};
pub use fused::*;
pub use half::{from_half, to_half};
pub use ops::*;
pub use rounding::{roundpd, roundps, roundsd, roundss};
#[doc(hidden)]
pub use unmasked::Lanes;

/// The control bits that Rust code runs with; its ABI fixes them.
static HOST_MXCSR: u32 = Mxcsr::MASKS;

/// What an SSE instruction gives when every exception is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseResult {
    /// The new destination. Instructions with a general register as destination give it in
    /// `value[0]`, zero-extended; COMISx and UCOMISx give ZF, PF and CF there, in their places in EFLAGS.
    pub value: V128,
    /// The exception flags that this instruction raised, whether or not they were set before.
    pub flags: u32,
}

/// A floating-point SSE instruction.
///
/// Operands are as the instruction has them; a scalar in memory or a general register is the low
/// part of `src`, an MMX register the low half. What `src` holds beyond the operand's size is ignored.
pub trait SseOp {
    /// Runs the instruction under the reset control bits.
    fn execute_default(dst: V128, src: V128) -> SseResult;

    /// Runs the instruction under the control bits of `mxcsr`, whose masks and flags do not matter.
    fn execute(mxcsr: u32, dst: V128, src: V128) -> SseResult;

    /// Runs the instruction for a guest. [`Mxcsr::raise`] then tells what becomes of its MXCSR and
    /// whether the value is to be written.
    #[inline(always)]
    fn apply(mxcsr: Mxcsr, dst: V128, src: V128) -> SseResult {
        if mxcsr.is_default() {
            return Self::execute_default(dst, src);
        }
        if mxcsr.unmasked() & (Mxcsr::OE | Mxcsr::UE) != 0 {
            cold_path();
            return Self::execute_unmasked(mxcsr, dst, src);
        }
        Self::execute(mxcsr.0, dst, src)
    }

    /// How it can overflow or underflow.
    #[doc(hidden)]
    const LANES: Option<Lanes> = None;

    /// Runs the instruction under the control bits of `mxcsr`, of which the overflow or the
    /// underflow mask is clear. The value is that of the masked response.
    fn execute_unmasked(mxcsr: Mxcsr, dst: V128, src: V128) -> SseResult {
        // FTZ has no effect while underflow is unmasked (SDM vol. 1, 10.2.3.3).
        let ignored = if mxcsr.unmasked() & Mxcsr::UE != 0 { Mxcsr::FTZ } else { 0 };
        let result = Self::execute(mxcsr.0 & !ignored, dst, src);
        match Self::LANES {
            Some(lanes) => SseResult { flags: lanes.flags(mxcsr, dst, src), ..result },
            None => result,
        }
    }
}

/// What to load into MXCSR to run an instruction under a guest's control bits.
#[inline(always)]
fn masked_control(mxcsr: u32) -> u32 {
    (mxcsr & (Mxcsr::DAZ | Mxcsr::RC | Mxcsr::FTZ)) | Mxcsr::MASKS
}
