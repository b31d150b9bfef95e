//! The interpreter: the semantics of record.
//!
//! Guest code is decoded once into blocks of compact operations ([`op::Op`]), whose handlers call
//! one another as their last act. [`run`] holds the loop around them: it finds and makes blocks,
//! serves what handlers leave to it, and delivers interrupts.

#![forbid(unsafe_code)]

pub mod block;
mod block_limits;
mod code_segments;
pub mod counts;
pub mod cpu;
pub mod decode;
#[cfg(test)]
mod feature_tests;
pub mod flags;
#[cfg(test)]
mod limits_tests;
pub mod mem;
pub mod native;
pub mod op;
pub mod ops;
mod pcid;
#[cfg(feature = "planted-bugs")]
pub mod planted;
#[cfg(test)]
mod priority_tests;
pub mod run;
pub mod system;
#[cfg(test)]
mod testing;
pub mod tlb;
mod watch;
#[cfg(test)]
mod watch_tests;

pub use block_limits::BlockLimits;
pub use cpu::{Cpu, Topology};
pub use run::Interpreter;
