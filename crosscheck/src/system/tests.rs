//! The interpreter, held against the model.

use std::sync::Arc;

use trivium_interp::{Interpreter, Topology};

use super::*;

fn interpreter(
    memory: Arc<trivium_memory::GuestMemory>,
    model: Arc<CpuModel>,
    scratch: usize,
) -> Interpreter {
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: 1_000_000_000, apic_hz: 1_000_000_000 };
    Interpreter::new(memory, model, topology, scratch)
}

#[test]
fn the_interpreter_does_as_the_manual_says() {
    let report = run(1, 20_000, &interpreter).expect("the interpreter runs");
    assert_eq!(report.diverged, 0, "{report}");
    assert!(report.done > report.cases() / 4, "too few cases run to their end: {report}");
    assert!(report.faulted > report.cases() / 10, "too few cases fault: {report}");
}
