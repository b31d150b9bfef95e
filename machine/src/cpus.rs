//! Where processors come from: one place that makes each kind.

use std::sync::Arc;

use trivium_cpu::{CpuModel, Vcpu};
use trivium_interp::{BlockLimits, Interpreter, Topology};
use trivium_jit::{CodeError, Jit, JitOptions};
use trivium_kvm::{Host, KvmError, KvmVcpu, Place, Relay, Report, Sample, Stepper};
use trivium_memory::GuestMemory;

use crate::config::{Accel, KvmOptions};
use crate::doorbells::Doorbells;
use crate::error::MachineError;
use crate::kernel_chips::ChipSeat;
use crate::switch::{SwitchConfig, Switcher};

/// What a processor is made with.
pub(crate) struct VcpuParts<'a> {
    pub(crate) memory: &'a Arc<GuestMemory>,
    pub(crate) model: &'a Arc<CpuModel>,
    pub(crate) topology: Topology,
    /// Arena offset of a page of its own.
    pub(crate) scratch: usize,
    /// What is chosen of the JIT.
    pub(crate) jit: &'a JitOptions,
    /// What is chosen of KVM.
    pub(crate) kvm: KvmOptions,
    /// How large blocks of code become.
    pub(crate) blocks: &'a Arc<BlockLimits>,
    /// Where KVM's interrupt chips go, if it has some.
    pub(crate) seat: &'a Arc<ChipSeat>,
    /// What is rung by writes of the guest's.
    pub(crate) bells: &'a Arc<Doorbells>,
}

/// A processor of the kind that is asked for, after RESET#.
///
/// # Errors
/// The host refuses what this kind needs.
pub(crate) fn new_vcpu(accel: Accel, parts: &VcpuParts<'_>) -> Result<Box<dyn Vcpu>, MachineError> {
    Ok(match accel {
        Accel::Interp => Box::new(interpreter(parts)),
        Accel::Jit => jit(parts)?,
        Accel::Kvm => match parts.kvm.counted {
            Some(sample) => Box::new(stepper(parts, sample)?),
            None => Box::new(kvm(parts)?),
        },
        Accel::KvmJit => relay(parts, jit(parts)?)?,
        Accel::KvmInterp => relay(parts, Box::new(interpreter(parts)))?,
    })
}

fn jit(parts: &VcpuParts<'_>) -> Result<Box<dyn Vcpu>, MachineError> {
    let jit = Box::new(Jit::with_options(parts.jit)?);
    let cpu = interpreter(parts).with_translator(jit);
    Ok(match &parts.jit.statistics {
        Some(statistics) => Box::new(cpu.with_counts(statistics.counts())),
        None => Box::new(cpu),
    })
}

/// KVM with an exact count of instructions, and the interpreter beside it.
fn stepper(parts: &VcpuParts<'_>, sample: Sample) -> Result<Stepper, KvmError> {
    if let Some(info) = Report::of_host()?.lacks(&Stepper::NEEDED) {
        return Err(KvmError::Lacks(info.what));
    }
    let other = Box::new(interpreter(parts));
    let phys_bits = parts.model.phys_bits;
    Ok(Stepper::new(kvm(parts)?, other, parts.memory.clone(), phys_bits, sample))
}

/// KVM with another CPU behind it; that CPU alone where there is no KVM.
fn relay(parts: &VcpuParts<'_>, other: Box<dyn Vcpu>) -> Result<Box<dyn Vcpu>, MachineError> {
    let (kvm, report) = match (kvm(parts), Report::of_host()) {
        (Ok(kvm), Ok(report)) => (kvm, report),
        (Err(error), _) | (_, Err(error)) => {
            log::warn!("{}: the other CPU runs alone", first_sentence(&error.to_string()));
            return Ok(other);
        }
    };
    let level = parts.kvm.level.unwrap_or_else(|| report.level());
    Ok(Box::new(Relay::new(kvm, other, level)))
}

/// Whether this host lets the JIT work.
///
/// # Errors
/// It does not: why.
pub fn jit_works() -> Result<(), CodeError> {
    Jit::with_options(&JitOptions::default()).map(drop)
}

/// The kind of CPU that serves best on this host, and why.
#[must_use]
pub fn best_accel() -> (Accel, String) {
    let kvm = Report::of_host();
    if kvm.is_ok_and(Report::is_whole) {
        return (Accel::KvmJit, "this host's KVM runs whole systems".into());
    }
    let without = match Report::of_host() {
        Ok(_) => "this host's KVM does not run whole systems well".to_owned(),
        Err(error) => first_sentence(&error.to_string()),
    };
    match jit_works() {
        Ok(()) => (Accel::Jit, without),
        Err(error) => (Accel::Interp, format!("{without}, and there is no JIT: {error}")),
    }
}

/// What an error says before it says what to do.
fn first_sentence(text: &str) -> String {
    text.split(';').next().unwrap_or(text).to_owned()
}

/// The model as these kinds of CPU can be it.
///
/// # Errors
/// The host's KVM cannot be used.
pub(crate) fn model_for(
    accels: &[Accel],
    options: KvmOptions,
    model: CpuModel,
) -> Result<CpuModel, MachineError> {
    let is_counted = options.counted.is_some();
    if !is_counted && !accels.iter().any(|accel| accel.uses_kvm()) {
        return Ok(model);
    }
    // Another CPU behind KVM does what the kernel cannot; what user-level code finds is the host's.
    let offered = match accels.contains(&Accel::Kvm) && !is_counted {
        true => trivium_kvm::offered(&Host::open(0)?.supported_cpuid()?),
        false => trivium_kvm::of_host(),
    };
    let (reduced, missing) = trivium_kvm::reduce(&model, offered);
    if !missing.is_empty() {
        log::info!("This host's KVM does without {}: so does the guest", missing.join(", "));
    }
    Ok(reduced)
}

fn kvm(parts: &VcpuParts<'_>) -> Result<KvmVcpu, KvmError> {
    let Topology { apic_id, cpus, tsc_hz, apic_hz } = parts.topology;
    let place = Place { apic_id, cpus, tsc_hz, apic_hz };
    let (memory, model) = (parts.memory.clone(), parts.model.clone());
    let mut vcpu = KvmVcpu::with_irqchip(memory, model, place, parts.kvm.irqchip)?;
    if let Some(chips) = vcpu.chips() {
        let seat = parts.seat.clone();
        seat.take(chips);
        vcpu.on_end_of_interrupt(Box::new(move |vector| seat.end_of_interrupt(vector)));
    }
    if let Some(watcher) = vcpu.take_watcher() {
        parts.bells.attach(watcher)?;
    }
    Ok(vcpu)
}

/// A processor whose CPUs take turns.
///
/// # Errors
/// The host refuses what the first of them needs.
pub(crate) fn new_switcher(
    config: &SwitchConfig,
    parts: &VcpuParts<'_>,
) -> Result<Switcher, MachineError> {
    let VcpuParts { topology, scratch, kvm, .. } = *parts;
    let (memory, model) = (parts.memory.clone(), parts.model.clone());
    let (jit, blocks) = (parts.jit.clone(), parts.blocks.clone());
    let (seat, bells) = (parts.seat.clone(), parts.bells.clone());
    // Only one of them runs at a time, so one scratch page is enough.
    let new = move |accel| {
        let (memory, model, jit, blocks) = (&memory, &model, &jit, &blocks);
        let (seat, bells) = (&seat, &bells);
        let parts = VcpuParts { memory, model, topology, scratch, jit, kvm, blocks, seat, bells };
        new_vcpu(accel, &parts)
    };
    Switcher::new(config, Box::new(new))
}

fn interpreter(parts: &VcpuParts<'_>) -> Interpreter {
    let (memory, model) = (parts.memory.clone(), parts.model.clone());
    Interpreter::new(memory, model, parts.topology, parts.scratch).with_limits(parts.blocks.clone())
}
