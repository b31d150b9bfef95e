//! Where processors come from: one place that makes each kind.

use std::sync::Arc;

use trivium_cpu::{CpuModel, Vcpu};
use trivium_interp::{Interpreter, Topology};
use trivium_jit::Jit;
use trivium_memory::GuestMemory;

use crate::config::Accel;
use crate::error::MachineError;

/// What a processor is made with.
pub(crate) struct VcpuParts<'a> {
    pub(crate) memory: &'a Arc<GuestMemory>,
    pub(crate) model: &'a Arc<CpuModel>,
    pub(crate) topology: Topology,
    /// Arena offset of a page of its own.
    pub(crate) scratch: usize,
}

/// A processor of the kind that is asked for, after RESET#.
///
/// # Errors
/// The host refuses what this kind needs.
pub(crate) fn new_vcpu(accel: Accel, parts: &VcpuParts<'_>) -> Result<Box<dyn Vcpu>, MachineError> {
    Ok(match accel {
        Accel::Interp => Box::new(interpreter(parts)),
        Accel::Jit => Box::new(interpreter(parts).with_translator(Box::new(Jit::new()?))),
    })
}

fn interpreter(parts: &VcpuParts<'_>) -> Interpreter {
    let (memory, model) = (parts.memory.clone(), parts.model.clone());
    Interpreter::new(memory, model, parts.topology, parts.scratch)
}
