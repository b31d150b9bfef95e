//! The JIT: guest and host are of the same architecture, so blocks that run often are re-encoded
//! for the host, instruction by instruction, with their registers and memory operands replaced.
//!
//! It lives inside the interpreter: both have the same state, the same TLB and the same blocks. A
//! translated block is one whose first operation is `enter`; translated code comes
//! back to the operations of the block wherever it meets what it leaves to the interpreter.

#![warn(unsafe_op_in_unsafe_fn)]
// What dynasm makes of registers that are chosen at run time.
#![allow(clippy::useless_conversion)]

mod analyse;
mod code;
mod crossing;
mod emit;
mod enter;
#[cfg(test)]
mod eviction_tests;
#[cfg(test)]
mod exchange_tests;
mod host;
mod known;
mod mapping;
mod observe;
mod options;
pub mod planted;
mod regs;
mod select;
mod simd;
mod simd_state;
#[cfg(test)]
mod simd_tests;
mod spans;
mod superblock;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
#[cfg(test)]
mod testing_random;
mod translate;
mod x87;
mod x87_state;
#[cfg(test)]
mod x87_tests;

pub use code::CodeError;
pub use host::Host;
pub use observe::{Code, ExplainError, Report, Statistics, explain};
pub use options::{DEFAULT_MEMORY, JitOptions, MEMORY};
pub use translate::Jit;
