//! KVM as a CPU: the third kind of [`trivium_cpu::Vcpu`], over the same guest memory as the others
//! and with the same chips outside of the kernel.
//!
//! What KVM cannot do, and there are hosts on which that is much, comes back as [`Cannot`] with the
//! state as it was before.

mod chips;
mod cpuid;
pub mod doorbell;
mod error;
#[cfg(test)]
mod faulty;
mod guest;
mod host;
mod ioctls;
mod island;
mod kick;
pub mod probe;
mod relay;
mod slots;
mod state;
mod stepper;
#[cfg(test)]
mod testing;
mod vcpu;

pub use chips::{BoardChips, ChipState, Irqchip, KernelChips};
pub use cpuid::{Place, of_host, offered, reduce};
pub use error::{Cannot, KvmError};
pub use host::{Host, HostCaps};
pub use ioctls::{HostExit, Ioctls, RunFields};
pub use probe::{BEHAVIOURS, Behaviour, BehaviourInfo, Finding, Report};
pub use relay::{Level, Relay, RelayCounts};
pub use state::{PagingMode, is_v86, paging_mode};
pub use stepper::{OWN, Own, Sample, Stepper, Steps};
pub use vcpu::{Counts, KvmExit, KvmVcpu, UserEnd, UserExit};
