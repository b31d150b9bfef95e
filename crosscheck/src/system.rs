//! System level: random cases of paging and privilege, held against a reference model.
//!
//! User-level code is held against a real processor; what user code cannot see is held against
//! [`model`], which is small and written from the manuals' tables alone.

pub mod generate;
pub mod image;
pub mod instruction;
pub mod layout;
pub mod machine;
pub mod model;
pub mod paging;
pub mod privilege;
pub mod report;
pub mod steps;

use std::ops::Range;
use std::sync::Arc;

use trivium_cpu::Vcpu;
use trivium_cpu::model::{CpuModel, ModelError, Vendor};
use trivium_interp::{Interpreter, Topology};
use trivium_memory::GuestMemory;

use crate::engine::EngineError;
use image::Image;
use machine::{Machine, MakeVcpu};
pub use report::{Divergence, Finding, Report, Verdict};

/// The processors on which cases run: their name, what they have, whose they are, MAXPHYADDR.
const PROCESSORS: [(&str, &str, Vendor, u8); 4] = [
    ("max,+la57 of AMD with 40 bits", "max,+la57", Vendor::Amd, 40),
    ("max,+la57 of Intel with 46 bits", "max,+la57", Vendor::Intel, 46),
    ("max of Intel with 36 bits and no 1 GiB pages", "max,-pdpe1gb", Vendor::Intel, 36),
    ("max,+la57 of AMD with 52 bits and no 1 GiB pages", "max,+la57,-pdpe1gb", Vendor::Amd, 52),
];

fn model_of(spec: &str, vendor: Vendor, phys_bits: u8) -> Result<CpuModel, ModelError> {
    Ok(CpuModel { vendor, phys_bits, ..CpuModel::parse(spec)? })
}

/// Runs cases of a seed, by their numbers, on CPUs that `make` makes, while `go_on` says so before
/// each.
///
/// # Errors
/// A CPU cannot be made, or fails.
pub fn run<V: Vcpu>(
    seed: u64,
    cases: Range<u64>,
    make: MakeVcpu<'_, V>,
    go_on: &dyn Fn() -> bool,
) -> Result<Report, EngineError> {
    let failed = |e| EngineError::Host { engine: "system", source: std::io::Error::other(e) };
    let mut machines = Vec::new();
    for (name, spec, vendor, phys_bits) in PROCESSORS {
        let model = model_of(spec, vendor, phys_bits).map_err(failed)?;
        machines.push((name, Machine::new(model, make)?));
    }
    let mut report = Report { seed, ..Report::default() };
    let blank = Image::with_data();
    for index in cases.take_while(|_| go_on()) {
        let number = (index / 2 % machines.len() as u64) as usize;
        let Some((name, machine)) = machines.get_mut(number) else { continue };
        if index % 2 == 0 {
            let case = generate::paging::case(seed, index, machine.model(), &blank);
            report.add("paging", index, name, paging::check(machine, &case)?);
        } else {
            let case = generate::privilege::case(seed, index, machine.model(), &blank);
            report.add("privilege", index, name, privilege::check(machine, &case)?);
        }
    }
    Ok(report)
}

/// [`run`] on interpreters.
///
/// # Errors
/// An interpreter fails.
pub fn run_interpreter(
    seed: u64,
    cases: Range<u64>,
    go_on: &dyn Fn() -> bool,
) -> Result<Report, EngineError> {
    run(seed, cases, &interpreter, go_on)
}

fn interpreter(memory: Arc<GuestMemory>, model: Arc<CpuModel>, scratch: usize) -> Interpreter {
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };
    Interpreter::new(memory, model, topology, scratch)
}

#[cfg(test)]
mod tests;
