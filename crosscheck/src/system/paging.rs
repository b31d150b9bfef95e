//! Cases of paging: a tree of page tables, and a few accesses through it.

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::model::{CpuModel, Feature};
use trivium_cpu::state::{CS, Control, ES, Segment, SegmentAttributes, Vector};
use trivium_cpu::{CpuState, Vcpu};

use super::image::Image;
use super::layout::{self, Stop};
use super::machine::{Ended, Machine};
use super::model::paging::{Features, Mode};
use super::model::program::{self, End, Exception, Start};
use super::report::{Divergence, Verdict};
use super::steps::{self, Program, Step};
use crate::engine::EngineError;

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// How the processor begins, and memory.
    pub start: Start,
    /// What the program does.
    pub steps: Vec<Step>,
    /// Where the addresses that it accesses lead to: for the report.
    pub entries: Vec<String>,
}

/// What a CPU model has of paging.
#[must_use]
pub fn features(model: &CpuModel) -> Features {
    Features {
        vendor: model.vendor,
        max_physical: u32::from(model.phys_bits),
        pse36: model.has(Feature::Pse36),
        page1gb: model.has(Feature::Pdpe1gb),
    }
}

/// Instructions of the longest program, and a HLT, are far fewer.
const BUDGET: u64 = 100;

/// Runs a case on a CPU, and holds the outcome against the model's.
///
/// # Errors
/// The CPU failed.
pub fn check<V: Vcpu>(machine: &mut Machine<V>, case: &Case) -> Result<Verdict, EngineError> {
    let program = steps::encode(&case.steps, case.start.long);
    let mut start = case.start.clone();
    start.image.put(start.code, &program.bytes);
    let Ok(expected) = program::run(&start, &case.steps, &program) else {
        return Ok(Verdict::Skipped);
    };
    let state = initial(&start);
    let ended = machine.run(&start.image, &state, BUDGET)?;
    let found = differences(&start, &expected, &ended, machine.image());
    if found.is_empty() {
        return Ok(Verdict::Agreed { ends_well: expected.exceptions[0].vector == 3 });
    }
    Ok(Verdict::Diverged(Divergence {
        case: describe(case, &program),
        expected: foretold(&expected),
        differences: found,
    }))
}

/// The processor's state when a case begins.
fn initial(start: &Start) -> CpuState {
    let registers = start.processor.registers;
    let mut state = CpuState::default();
    state.general.regs = start.regs;
    state.general.rip = start.code;
    state.general.rflags = rflags::FIXED | if registers.ac { rflags::AC } else { 0 };
    state.control = Control {
        cr0: registers.cr0,
        cr3: registers.cr3,
        cr4: registers.cr4,
        efer: registers.efer,
        pdptr: registers.pdpte,
        ..state.control
    };
    layout::set_tables(&mut state);
    let cpl = registers.cpl;
    let data = layout::flat(layout::data(cpl), layout::DATA);
    state.segments.regs = [data; 6];
    state.segments.regs[CS] = if start.long {
        layout::flat(layout::code64(cpl), layout::CODE64)
    } else {
        layout::flat(layout::code32(cpl), layout::CODE32)
    };
    state.segments.ldtr = Segment {
        selector: 0,
        base: start.ldt,
        limit: 0xffff,
        attributes: SegmentAttributes(SegmentAttributes::P | 2),
    };
    state.segments.cpl = cpl;
    let mut regs = [[0; 4]; 16];
    for (to, from) in regs.iter_mut().zip(&start.xmm) {
        to[..2].copy_from_slice(from);
    }
    state.vector = Vector { regs, ..state.vector };
    state
}

/// The bits of the control registers that all cases have set. Paging is theirs to vary.
pub const CR0: u64 = cr0::PE | cr0::ET | cr0::NE | cr0::PG;
/// The same of CR4.
pub const CR4: u64 = cr4::OSFXSR;
/// The same of EFER, in long mode.
pub const EFER_LONG: u64 = efer::LME | efer::LMA;

/// What differs, a line each.
fn differences(start: &Start, expected: &End, ended: &Ended, image: &Image) -> Vec<String> {
    let long = matches!(start.processor.mode(), Mode::Level4 | Mode::Level5);
    let (stop, frame) = layout::stopped(ended, image, long);
    let mut found = Vec::new();
    let foreseen = |&Exception { vector, error, cr2 }: &Exception| {
        stop == Stop::Exception { vector, error, cr2, rip: expected.rip }
    };
    if !expected.exceptions.iter().any(foreseen) {
        found.push(format!("it ended with {stop}"));
        return found;
    }
    let mut regs = ended.state.general.regs;
    regs[4] = frame.rsp;
    let mut differ = |name: String, model: u64, engine: u64| {
        if model != engine {
            found.push(format!("{name}: {model:#x} foretold, {engine:#x} found"));
        }
    };
    for (n, (model, engine)) in expected.regs.iter().zip(&regs).enumerate() {
        differ(format!("register {n}"), *model, *engine);
    }
    for (n, (model, engine)) in expected.xmm.iter().zip(&ended.state.vector.regs).enumerate() {
        differ(format!("XMM{n}"), model[0], engine[0]);
        differ(format!("XMM{n}, high half"), model[1], engine[1]);
    }
    let engine = &ended.state;
    differ("ES".into(), expected.es.into(), engine.segments.regs[ES].selector.into());
    differ("SS".into(), layout::data(start.processor.registers.cpl).into(), frame.ss.into());
    if start.processor.mode() == Mode::Pae {
        for (n, (model, engine)) in expected.pdpte.iter().zip(&engine.control.pdptr).enumerate() {
            differ(format!("PDPTE register {n}"), *model, *engine);
        }
    }
    compare_memory(expected, image, &mut found);
    found
}

/// The stack of the handlers, where exceptions leave their frames.
const SCRATCH: std::ops::Range<u64> = layout::HANDLER_STACK - 0x1000..layout::STACK;

fn compare_memory(expected: &End, image: &Image, found: &mut Vec<String>) {
    if expected.image.bytes() == image.bytes() {
        return;
    }
    const MOST_LINES: usize = 20;
    let bytes = expected.image.bytes().iter().zip(image.bytes()).enumerate();
    for (offset, (&model, &engine)) in bytes.filter(|(_, (model, engine))| model != engine) {
        let at = Image::physical(offset);
        let may = expected.may_set.iter().filter(|f| f.entry + u64::from(f.bit / 8) == at);
        let may = may.fold(0, |mask, flag| mask | 1 << (flag.bit % 8));
        if !SCRATCH.contains(&at) && (model | engine & may) != engine | model & may {
            found.push(format!("memory {at:#x}: {model:#04x} foretold, {engine:#04x} found"));
        }
        if found.len() > MOST_LINES {
            return;
        }
    }
}

/// What the model says, in a line.
fn foretold(expected: &End) -> String {
    let stops = expected.exceptions.iter().map(|&Exception { vector, error, cr2 }| {
        Stop::Exception { vector, error, cr2, rip: expected.rip }.to_string()
    });
    stops.collect::<Vec<_>>().join("; or ")
}

/// A case for people.
fn describe(case: &Case, program: &Program) -> Vec<String> {
    let start = &case.start;
    let processor = &start.processor;
    let registers = processor.registers;
    let features = processor.features;
    let mut lines = vec![
        format!(
            "{:?} paging, {}-bit code, CPL {}, AC {}",
            processor.mode(),
            if start.long { 64 } else { 32 },
            registers.cpl,
            u8::from(registers.ac),
        ),
        format!(
            "CR0 {:#x}, CR3 {:#x}, CR4 {:#x}, EFER {:#x}, MAXPHYADDR {}, {:?}{}",
            registers.cr0,
            registers.cr3,
            registers.cr4,
            registers.efer,
            features.max_physical,
            features.vendor,
            if features.page1gb { ", 1 GiB pages" } else { "" },
        ),
    ];
    if processor.mode() == Mode::Pae {
        lines.push(format!("PDPTE registers {:#x?}", registers.pdpte));
    }
    for (step, offset) in case.steps.iter().zip(&program.offsets) {
        lines.push(format!("{:#x}: {step:x?}", start.code + offset));
    }
    lines.extend(case.entries.iter().cloned());
    lines
}
