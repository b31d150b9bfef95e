//! Where processors come from: one place that makes each kind.

use std::sync::Arc;

use trivium_cpu::{CpuModel, Vcpu};
use trivium_interp::{Interpreter, Topology};
use trivium_jit::{Jit, JitOptions};
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
    /// What is chosen of the JIT.
    pub(crate) jit: &'a JitOptions,
}

/// A processor of the kind that is asked for, after RESET#.
///
/// # Errors
/// The host refuses what this kind needs.
pub(crate) fn new_vcpu(accel: Accel, parts: &VcpuParts<'_>) -> Result<Box<dyn Vcpu>, MachineError> {
    Ok(match accel {
        Accel::Interp => Box::new(interpreter(parts)),
        Accel::Jit => {
            let jit = Box::new(Jit::with_options(parts.jit)?);
            let cpu = interpreter(parts).with_translator(jit);
            match &parts.jit.statistics {
                Some(statistics) => Box::new(cpu.with_counts(statistics.counts())),
                None => Box::new(cpu),
            }
        }
    })
}

fn interpreter(parts: &VcpuParts<'_>) -> Interpreter {
    let (memory, model) = (parts.memory.clone(), parts.model.clone());
    Interpreter::new(memory, model, parts.topology, parts.scratch)
}
