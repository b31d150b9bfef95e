//! The x86 architecture in neutral terms: the state of a CPU, its exceptions, how it walks page
//! tables, CPU models, and the traits by which CPUs and platforms meet.
//!
//! Nothing here knows how instructions are executed, or what the platform is made of.

#![forbid(unsafe_code)]

pub mod bits;
pub mod cpuid;
pub mod exception;
pub mod model;
pub mod msr;
pub mod null_bus;
pub mod state;
pub mod vcpu;
pub mod walk;

pub use cpuid::CpuidContext;
pub use exception::{Exception, Vector};
pub use model::{CpuModel, Feature, FeatureSet, ModelError};
pub use null_bus::NullBus;
pub use state::CpuState;
pub use vcpu::{
    Budget, Capabilities, CpuBus, CpuError, Exit, ExitReason, Kick, MsrFault, ResetKind, Vcpu,
};

/// A guest-virtual (linear) address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestVirtAddr(pub u64);
