//! Holds CPUs against each other: the same case on two engines must end the same.
//!
//! A [`Case`] is a little user-level code with the state and memory that it begins with. An
//! [`Engine`] runs it until an exception ends it and gives back an [`Outcome`].

#![deny(unsafe_code)]

pub mod allow;
pub mod anything;
pub mod campaign;
pub mod case;
pub mod compare;
pub mod duel;
pub mod engine;
pub mod generate;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub mod host;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
#[path = "host/elsewhere.rs"]
pub mod host;
pub mod hot;
pub mod layout;
pub mod lockstep;
pub mod minimise;
pub mod outcome;
pub mod report;
pub mod repro;
pub mod state;
pub mod system;
pub mod vcpu;

pub use case::{Case, CaseId, Kind, LdtEntry, Patch, Width};
pub use engine::{Engine, EngineError};
pub use outcome::{Change, Outcome, Stop};
pub use state::UserState;
