//! Cases of privilege: one instruction that loads or checks a selector, or transfers control.

use trivium_cpu::bits::{cr0, cr4, efer, rflags};
use trivium_cpu::state::{Control, SS, Segment, SegmentAttributes, TableRegister};
use trivium_cpu::{CpuState, Exit, Vcpu};

use super::image::Image;
use super::instruction::{Instruction, encode};
use super::layout::{self, Stop as Ending};
use super::machine::{Ended, Machine};
use super::model::descriptor::{Cached, Descriptor};
use super::model::protection::{Check, Processor, Stop};
use super::report::{Divergence, Verdict};
use crate::engine::EngineError;

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// The processor, and memory.
    pub processor: Processor,
    /// What it executes.
    pub instruction: Instruction,
}

/// Runs a case on a CPU, which must keep budgets exactly, and holds the outcome against the
/// model's.
///
/// # Errors
/// The CPU failed.
pub fn check<V: Vcpu>(machine: &mut Machine<V>, case: &Case) -> Result<Verdict, EngineError> {
    let mut start = case.processor.clone();
    start.image.put(start.rip, &encode(&case.instruction));
    if start.lma {
        map_identity(&mut start.image);
    }
    let mut expected = start.clone();
    let stop = expected.execute(&case.instruction).err();
    if stop == Some(Stop::Unforeseeable) {
        return Ok(Verdict::Skipped);
    }
    let ended = machine.run(&start.image, &initial(&start), 1)?;
    let found = match stop {
        None => done(&expected, &case.instruction, &ended, machine.image()),
        Some(stop) => faulted(&start, &expected, stop, &ended, machine.image()),
    };
    if found.is_empty() {
        return Ok(Verdict::Agreed { ends_well: stop.is_none() });
    }
    Ok(Verdict::Diverged(Divergence {
        case: describe(&start, &case.instruction),
        expected: foretold(&expected, stop),
        differences: found,
    }))
}

/// Page tables that map the first 2 MiB to themselves, for everyone.
fn map_identity(image: &mut Image) {
    const FLAGS: u64 = 0x67;
    let tables = [layout::TABLES, layout::TABLES + 0x1000, layout::TABLES + 0x2000];
    for pair in tables.windows(2) {
        image.put_number(pair[0], pair[1] | FLAGS, 8);
    }
    image.put_number(tables[2], FLAGS | 1 << 7, 8);
}

fn segment(cached: Cached) -> Segment {
    let Cached { selector, base, limit, attributes } = cached;
    Segment { selector, base, limit, attributes: SegmentAttributes(attributes) }
}

/// The CPU's state when a case begins.
fn initial(start: &Processor) -> CpuState {
    let mut state = CpuState::default();
    state.general.regs = start.regs;
    state.general.rip = start.rip;
    state.general.rflags = start.rflags;
    let legacy = Control { cr0: cr0::PE | cr0::ET | cr0::NE, ..state.control };
    state.control = if start.lma {
        Control {
            cr0: legacy.cr0 | cr0::PG,
            cr3: layout::TABLES,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA,
            ..legacy
        }
    } else {
        legacy
    };
    let segments = &mut state.segments;
    segments.regs = start.segments.map(segment);
    segments.ldtr = segment(start.ldt.unwrap_or_default());
    segments.tr = segment(start.tr);
    let table = |table: super::model::descriptor::Table| TableRegister {
        base: table.base,
        limit: table.limit as u16,
    };
    (segments.gdtr, segments.idtr) = (table(start.gdt), table(start.idt));
    segments.cpl = start.cpl;
    state
}

const NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

/// Collects differences, a line each.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn add(&mut self, name: &str, model: u64, engine: u64) {
        if model != engine {
            self.0.push(format!("{name}: {model:#x} foretold, {engine:#x} found"));
        }
    }

    /// Of a null selector, there is nothing to say but that it is not present; and in IA-32e mode
    /// not even that of SS, which may be used.
    fn segment(&mut self, name: &str, model: Cached, engine: &Segment, lma: bool) {
        self.add(&format!("{name} selector"), model.selector.into(), engine.selector.into());
        let present = engine.attributes.has(SegmentAttributes::P);
        if model.attributes == 0 {
            if !(lma && name == NAMES[SS]) {
                self.add(&format!("{name} present"), 0, present.into());
            }
            return;
        }
        self.add(&format!("{name} base"), model.base, engine.base);
        self.add(&format!("{name} limit"), model.limit.into(), engine.limit.into());
        let attributes = engine.attributes.0.into();
        self.add(&format!("{name} attributes"), model.attributes.into(), attributes);
    }

    /// Memory, but for bytes that may hold anything.
    fn memory(&mut self, model: &Processor, image: &Image, vague: impl Fn(u64) -> u8) {
        if model.image.bytes() == image.bytes() {
            return;
        }
        const MOST_LINES: usize = 20;
        let bytes = model.image.bytes().iter().zip(image.bytes()).enumerate();
        for (offset, (&model, &engine)) in bytes.filter(|(_, (model, engine))| model != engine) {
            let at = Image::physical(offset);
            if (model ^ engine) & !vague(at) != 0 && self.0.len() < MOST_LINES {
                self.add(&format!("memory {at:#x}"), model.into(), engine.into());
            }
        }
    }
}

/// What differs after an instruction that is foretold to complete.
fn done(
    expected: &Processor,
    instruction: &Instruction,
    ended: &Ended,
    image: &Image,
) -> Vec<String> {
    let mut found = Differences::default();
    if ended.exit != Exit::Budget {
        let (stop, _) = layout::stopped(ended, image, expected.lma);
        return vec![format!("it ended with {stop}")];
    }
    let state = &ended.state;
    let rsp_mask = if expected.vague_rsp { 0xffff } else { !0 };
    for (n, (model, engine)) in expected.regs.iter().zip(&state.general.regs).enumerate() {
        let mask = match (n, instruction) {
            (4, _) => rsp_mask,
            // Vol. 2A, LAR: bits 16 to 19 are undefined.
            (1, Instruction::Check { check: Check::Lar, .. }) => !0xf_0000,
            _ => !0,
        };
        found.add(&format!("register {n}"), model & mask, engine & mask);
    }
    found.add("RIP", expected.rip, state.general.rip);
    found.add("RFLAGS", expected.rflags, state.general.rflags);
    found.add("CPL", expected.cpl.into(), state.segments.cpl.into());
    for (n, name) in NAMES.iter().enumerate() {
        found.segment(name, expected.segments[n], &state.segments.regs[n], expected.lma);
    }
    found.segment("LDTR", expected.ldt.unwrap_or_default(), &ldtr(state, expected), false);
    found.segment("TR", expected.tr, &state.segments.tr, false);
    found.memory(expected, image, |at| if expected.vague.contains(&at) { 0xff } else { 0 });
    found.0
}

/// LDTR; the selector of one that is null does not matter.
fn ldtr(state: &CpuState, expected: &Processor) -> Segment {
    let ldtr = state.segments.ldtr;
    let null = expected.ldt.is_none() && ldtr.selector & !3 == 0;
    Segment { selector: if null { 0 } else { ldtr.selector }, ..ldtr }
}

/// Where the handlers' stacks may be: a fault at CPL 0 is delivered on the stack as it is.
fn is_scratch(at: u64) -> bool {
    layout::TEST_STACKS.contains(&at)
        || (layout::HANDLER_STACK - 0x1000..layout::HANDLER_STACK).contains(&at)
}

/// What differs after an instruction that is foretold to fault: it must have changed nothing but
/// the accessed bits of descriptors that it read.
fn faulted(
    start: &Processor,
    expected: &Processor,
    stop: Stop,
    ended: &Ended,
    image: &Image,
) -> Vec<String> {
    let (ending, frame) = layout::stopped(ended, image, start.lma);
    let Stop::Fault(vector, error) = stop else { return Vec::new() };
    if ending != (Ending::Exception { vector, error, cr2: 0, rip: start.rip }) {
        return vec![format!("it ended with {ending}")];
    }
    let mut found = Differences::default();
    for (n, (model, engine)) in start.regs.iter().zip(&ended.state.general.regs).enumerate() {
        let engine = if n == 4 { frame.rsp } else { *engine };
        found.add(&format!("register {n}"), *model, engine);
    }
    found.add("RFLAGS, but for RF", start.rflags, frame.rflags & !rflags::RF);
    for (n, name) in NAMES.iter().enumerate() {
        let selector = start.segments[n].selector;
        match *name {
            "CS" => found.add(name, selector.into(), frame.cs.into()),
            "SS" => found.add(name, selector.into(), frame.ss.into()),
            _ => found.segment(name, start.segments[n], &ended.state.segments.regs[n], start.lma),
        }
    }
    let vague = |at: u64| match at {
        at if is_scratch(at) => 0xff,
        at if expected.read.iter().any(|&descriptor| descriptor + 5 == at) => 1,
        _ => 0,
    };
    found.memory(start, image, vague);
    found.0
}

/// What the model says, in a line.
fn foretold(expected: &Processor, stop: Option<Stop>) -> String {
    match stop {
        Some(Stop::Fault(vector, error)) => format!("vector {vector}, error code {error:#x}"),
        _ => {
            let cs = expected.segments[1].selector;
            format!("it completes: CPL {}, CS:RIP {cs:#x}:{:#x}", expected.cpl, expected.rip)
        }
    }
}

/// A descriptor for people.
fn show(name: &str, selector: u64, descriptor: Descriptor, upper: u64) -> String {
    let presence = if descriptor.present() { "" } else { ", not present" };
    format!(
        "{name} {selector:#x}: {:#018x} {:?}, DPL {}{presence}; next {upper:#x}",
        descriptor.0,
        descriptor.kind(),
        descriptor.dpl(),
    )
}

/// A case for people.
fn describe(start: &Processor, instruction: &Instruction) -> Vec<String> {
    let Processor { gdt, idt, ldt, tr, .. } = start;
    let mut lines = vec![
        format!("{:?} mode, CPL {}, {:?}", start.mode(), start.cpl, start.vendor),
        format!("{instruction:x?} at {:#x}, RFLAGS {:#x}", start.rip, start.rflags),
        format!(
            "limits: GDT {:#x}, IDT {:#x}, LDT {:x?}, TSS {:#x}",
            gdt.limit,
            idt.limit,
            ldt.map(|ldt| ldt.limit),
            tr.limit
        ),
    ];
    if let Instruction::FarReturn { .. } | Instruction::InterruptReturn { .. } = instruction {
        let bytes: Vec<_> =
            (0..80).map(|n| format!("{:02x}", start.image.byte(start.regs[4] + n))).collect();
        lines.push(format!("stack: {}", bytes.join(" ")));
    }
    if let Instruction::Interrupt { vector } = *instruction {
        let at = idt.base + u64::from(vector) * if start.lma { 16 } else { 8 };
        lines.push(show(
            "gate",
            vector.into(),
            Descriptor(start.image.get(at, 8)),
            start.image.get(at + 8, 8),
        ));
    }
    for level in 0..3 {
        let at = tr.base + 4 + 8 * level;
        lines.push(format!("stack {level}: {:#x}", start.image.get(at, 8)));
    }
    for at in read_by(start, instruction) {
        let image = &start.image;
        lines.push(show("descriptor at", at, Descriptor(image.get(at, 8)), image.get(at + 8, 8)));
    }
    lines
}

/// The descriptors that the model reads for an instruction.
fn read_by(start: &Processor, instruction: &Instruction) -> Vec<u64> {
    let mut model = start.clone();
    // What comes of it, the report tells elsewhere.
    let _ = model.execute(instruction);
    model.read.sort_unstable();
    model.read.dedup();
    model.read
}
