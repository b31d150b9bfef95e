//! The machine: a board with its chips wired up, virtual time, processors that run, and how they
//! all start, stop, and are saved.
//!
//! Make a [`MachineConfig`], a [`Machine`] of it, and [`Machine::run`] it; meanwhile other threads
//! reach it through its [`MachineHandle`].

#![forbid(unsafe_code)]

mod apics;
mod board;
mod boot;
mod config;
mod control;
mod cpus;
mod dma;
mod doorbells;
mod error;
pub mod exits;
mod handle;
mod kernel_chips;
mod layout;
mod machine;
mod pass_on;
mod router;
mod rtc;
mod run;
#[cfg(test)]
mod run_tests;
mod serial;
mod state;
mod switch;
pub mod testing;
pub mod time;
mod timers;
mod trace;

pub use config::{
    Accel, Board, ClockMode, ConfigError, KernelConfig, KvmOptions, MAX_CPUS, MAX_FIRMWARE,
    MachineConfig, MemoryConfig, ModuleConfig, SERIAL_PORTS, TraceCategories, TraceConfig,
};
pub use cpus::{best_accel, jit_works};
pub use dma::GuestDma;
pub use doorbells::InterruptEvent;
pub use error::{MachineError, RestoreError};
pub use handle::MachineHandle;
pub use machine::Machine;
pub use run::{RunEnd, STACK_SIZE};
pub use state::{FormatError, Frozen, MachineState, StateHash};
pub use switch::{SwitchConfig, SwitchEvery};
pub use trivium_interp::BlockLimits;
pub use trivium_interp::run::WARM;
pub use trivium_jit::{
    Code, CodeError, DEFAULT_MEMORY as DEFAULT_JIT_MEMORY, ExplainError, Host as JitHost,
    JitOptions, MEMORY as JIT_MEMORY, Report as JitReport, Statistics, explain,
};
pub use trivium_kvm::{self as kvm, Level as KvmLevel};
pub use trivium_memory::MemoryOptions;
