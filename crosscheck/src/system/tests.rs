//! The interpreter, held against the model.

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::state::SS;
use trivium_cpu::{Budget, Capabilities, CpuBus, CpuError, CpuState, Exit, Kick};

use super::*;

#[test]
fn the_interpreter_does_as_the_manual_says() {
    let report = run_interpreter(1, 0..20_000, &|| true).expect("the interpreter runs");
    assert_eq!(report.diverged, 0, "{report}");
    assert!(report.done > report.cases() / 4, "too few cases run to their end: {report}");
    assert!(report.faulted > report.cases() / 4, "too few cases fault: {report}");
    assert!(report.skipped < report.cases() / 10, "the model is at a loss too often: {report}");
}

/// A CPU with a flaw: each state that it is given is changed, or each that it gives.
struct Flawed {
    cpu: Interpreter,
    taken: fn(&mut CpuState),
    given: fn(&mut CpuState),
}

impl Vcpu for Flawed {
    fn run(&mut self, bus: &dyn CpuBus, budget: Budget) -> Result<Exit, CpuError> {
        self.cpu.run(bus, budget)
    }
    fn kicker(&self) -> Arc<dyn Kick> {
        self.cpu.kicker()
    }
    fn save(&mut self) -> Result<CpuState, CpuError> {
        let mut state = self.cpu.save()?;
        (self.given)(&mut state);
        Ok(state)
    }
    fn load(&mut self, state: &CpuState) -> Result<(), CpuError> {
        let mut state = *state;
        (self.taken)(&mut state);
        self.cpu.load(&state)
    }
    fn capabilities(&self) -> Capabilities {
        self.cpu.capabilities()
    }
}

#[test]
fn flaws_are_found() {
    type Change = fn(&mut CpuState);
    let none: Change = |_| ();
    let flaws: [(Change, Change); 12] = [
        (|s| s.control.cr0 |= cr0::WP, none),
        (|s| s.control.cr4 &= !cr4::SMEP, none),
        (|s| s.control.cr4 &= !cr4::SMAP, none),
        (|s| s.control.cr4 &= !cr4::PSE, none),
        (|s| s.control.efer &= !efer::NXE, none),
        (|s| s.general.rflags &= !rflags::AC, none),
        (|s| s.segments.gdtr.limit |= 0xfff, none),
        (|s| s.segments.ldtr.limit |= 0xfff, none),
        (|s| s.segments.tr.limit |= 0xfff, none),
        (none, |s| s.control.cr2 &= !0xfff),
        (none, |s| s.segments.regs[SS].attributes.0 &= !1),
        (none, |s| s.general.rflags &= !rflags::NT),
    ];
    for (number, (taken, given)) in flaws.into_iter().enumerate() {
        let make = |memory, model, scratch| {
            let cpu = interpreter(memory, model, scratch);
            Flawed { cpu, taken, given }
        };
        let report = run(1, 0..2000, &make, &|| true).expect("the interpreter runs");
        assert_ne!(report.diverged, 0, "flaw {number} is not found");
    }
}
