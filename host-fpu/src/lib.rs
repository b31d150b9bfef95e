//! x87 and SSE arithmetic performed by the host's own floating-point units, behind a safe interface.
//!
//! An interpreter that must give bit-exact results (NaN payloads, rounding in every mode, flags,
//! unsupported encodings) gets them from the very instruction it emulates: each operation here
//! loads the guest's control word or MXCSR, executes the instruction, reads the exception flags
//! back and leaves the host's control bits as they were. No operation can raise SIGFPE.
//!
//! - [`sse`]: SSE to SSE4.1 arithmetic, comparisons and conversions under a guest [`Mxcsr`].
//! - [`x87`]: x87 arithmetic, transfers and transcendentals under a guest [`X87Env`].
//! - [`simd`]: integer, logical and shuffling SIMD, which has no flags: SSE2 to SSE4.2, and the
//!   64-bit MMX forms.
//!
//! Vectors are `[u64; 2]`, low half first, as the guest's XMM registers are kept.
//!
//! # Limits
//!
//! Results that the manuals leave to the implementation (RCPPS, RSQRTPS, the x87
//! transcendentals, tininess of x87 results) are the host processor's. SIMD operations are
//! performed with every exception masked: [`Mxcsr::raise`] tells whether the guest takes #XM, in
//! which case its destination is not written, as on hardware.

#[cfg(not(target_arch = "x86_64"))]
compile_error!("trivium-host-fpu executes x86 instructions and needs an x86-64 host");

mod f80;
mod mxcsr;
pub mod simd;
pub mod sse;
pub mod x87;

pub use f80::F80;
pub use mxcsr::Mxcsr;
pub use sse::{SseOp, SseResult};
pub use x87::{X87Env, X87Result};

/// A 128-bit vector register, low quadword first.
pub type V128 = [u64; 2];
