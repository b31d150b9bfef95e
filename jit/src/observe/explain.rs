//! A block by itself, without a guest around it: what the interpreter makes of it, what the JIT
//! knows of it, and what that becomes.

use std::fmt::Write;
use std::sync::Arc;

use iced_x86::{InstructionInfoFactory, OpAccess, RflagsBits, UsedRegister};
use thiserror::Error;
use trivium_cpu::model::CpuModel;
use trivium_interp::block::{Block, Key};
use trivium_interp::cpu::{Mode, SEG_BASE, ZERO};
use trivium_interp::decode::{self, DecodeError, MAX_LEN, Source};
use trivium_interp::op::{Op, no_general, system};
use trivium_interp::{Cpu, Topology};
use trivium_memory::{FlatMap, GuestMemory, Region, RegionKind};

use super::Observer;
use super::listing::guest;
use crate::analyse::instructions;
use crate::code::CodeError;
use crate::known::Known;
use crate::spans;
use crate::translate::Jit;

const PAGE: u64 = 4096;

/// Why a block cannot be shown.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// The bytes end before the first instruction does, or there are none.
    #[error("The code ends within its first instruction")]
    Truncated,
    /// The width is none of code.
    #[error("Code has 16, 32 or 64 bits")]
    Bits,
    /// The host does not let code be translated.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The host gives no memory.
    #[error("There is no memory for the block: {0}")]
    Memory(String),
}

/// Code to be shown.
#[derive(Debug, Clone, Copy)]
pub struct Code<'a> {
    /// Its bytes, from the block's first on. A block ends at its page's end.
    pub bytes: &'a [u8],
    /// The address of the first.
    pub rip: u64,
    /// 64, 32 (flat code of protected mode) or 16 (real mode).
    pub bits: u32,
    /// Whether it is user code, at privilege level 3.
    pub user: bool,
}

impl Code<'_> {
    fn mode(&self) -> Result<Mode, ExplainError> {
        let flat = Mode::FLAT | Mode::PROTECTED | Mode::OPEN_FS | Mode::OPEN_GS;
        let mode = match self.bits {
            64 => Mode::LONG | Mode::FLAT | Mode::PROTECTED,
            32 => Mode::CODE32 | Mode::STACK32 | flat,
            16 => 0,
            _ => return Err(ExplainError::Bits),
        };
        Ok(Mode(mode | if self.user && mode != 0 { Mode::USER } else { 0 }))
    }
}

/// Shows what becomes of the block at the beginning of some code, on processors of a model.
///
/// # Errors
/// There is no block, or the host refuses what the JIT needs.
pub fn explain(code: &Code<'_>, model: &CpuModel) -> Result<String, ExplainError> {
    let mode = code.mode()?;
    let start = code.rip & (PAGE - 1);
    let cpu = &mut processor(code, start, model)?;
    let mut page = [0; PAGE as usize];
    cpu.ram.read_slice(0, &mut page);
    let end = (start as usize + code.bytes.len()).min(page.len());
    let source = Source {
        bytes: &page[..end],
        start: start as usize,
        rip: code.rip,
        limit: if mode.has(Mode::PROTECTED) { u64::MAX } else { 0xffff },
        vendor: model.vendor,
        features: model.features,
    };
    let mut decoded = decode::decode(&source, mode).map_err(|error| match error {
        DecodeError::Truncated => ExplainError::Truncated,
    })?;
    decoded.add_entry();
    let limit = source.limit as u32;
    let key = Key { offset: start as usize, rip: code.rip, mode, limit, base: 0 };
    let mut block = decoded.to_block(key, None);
    block.target.len = decoded.ops.len() as u8;
    let mut text = String::new();
    write_guest(&mut text, cpu, &block, &decoded.ops);
    write_operations(&mut text, &block, &decoded.ops);
    write_known(&mut text, cpu, &block, &decoded.ops);
    write_translation(&mut text, cpu, &block, &decoded.ops)?;
    Ok(text)
}

/// A processor whose memory has the code where its address says, in the first page.
fn processor(code: &Code<'_>, start: u64, model: &CpuModel) -> Result<Cpu, ExplainError> {
    let failed = |error: &dyn std::fmt::Display| ExplainError::Memory(error.to_string());
    let size = 16 * PAGE;
    let memory = GuestMemory::new(size, 1).map_err(|error| failed(&error))?;
    memory.set_map(FlatMap::new(&[Region::new(0, size, RegionKind::Ram { offset: 0 })]));
    let scratch = memory.scratch(0, 1).unwrap_or(0);
    let len = code.bytes.len().min((PAGE - start) as usize + MAX_LEN);
    let bytes = code.bytes.get(..len).unwrap_or_default();
    memory.ram().write_slice(start as usize, bytes);
    let hz = 1_000_000_000;
    let topology = Topology { apic_id: 0, cpus: 1, tsc_hz: hz, apic_hz: hz };
    Ok(Cpu::new(Arc::new(memory), Arc::new(*model), topology, scratch))
}

fn title(text: &mut String, title: &str) {
    let space = if text.is_empty() { "" } else { "\n" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{space}{title}");
}

fn write_guest(text: &mut String, cpu: &Cpu, block: &Block, ops: &[Op]) {
    title(text, "Guest code");
    let mut guests = Vec::new();
    instructions(cpu, block, ops, &mut guests);
    for step in guests {
        let i = step.instruction;
        let at = block.key.offset.wrapping_add(i.ip().wrapping_sub(block.rip) as usize);
        let mut bytes = vec![0; i.len()];
        cpu.ram.read_slice(at, &mut bytes);
        let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{:60} {}", guest(&i), bytes.join(" "));
    }
}

fn write_operations(text: &mut String, block: &Block, ops: &[Op]) {
    title(text, "Operations of the interpreter");
    for (number, op) in ops.iter().enumerate() {
        let before = block.before.get(number).copied().unwrap_or_default();
        let _ = writeln!(text, "{number:4}  after {before:2}  {}", operation(number, block, op));
    }
}

/// An operation in words.
fn operation(number: usize, block: &Block, op: &Op) -> String {
    if number == 0 && block.has_entry {
        return "counts how often the block is entered".into();
    }
    let rip = block.rip.wrapping_add(op.off as u64);
    if op.len == 0 {
        return format!("goes on at {:x}", op.imm);
    }
    let is_system = op.run as usize == system as trivium_interp::op::Handler as usize;
    let by = match (
        is_system,
        op.general as usize == no_general as trivium_interp::op::GeneralFn as usize,
    ) {
        (true, _) => "outer loop",
        (false, false) => "function",
        (false, true) => "handler",
    };
    let mut text = format!("{rip:x} {by:<10} {} bytes, {:2}-bit", op.len, op.size * 8);
    let register = |n: u8| match n {
        0..16 => format!("r{n}"),
        n => format!("s{}", n.saturating_sub(SEG_BASE)),
    };
    if op.dst != ZERO {
        let _ = write!(text, ", to {}", register(op.dst));
    }
    if op.src != ZERO {
        let _ = write!(text, ", from {}", register(op.src));
    }
    if op.has_mem() {
        let base = if op.base == ZERO { "0".into() } else { register(op.base) };
        let _ = write!(text, ", at s{}:[{base}", op.seg);
        if op.index != ZERO {
            let _ = write!(text, " + {} * {}", register(op.index), 1_u32 << (op.scale & 3));
        }
        let _ = write!(text, " + {:#x}]", op.disp);
    }
    if op.imm != 0 {
        let _ = write!(text, ", number {:#x}", op.imm);
    }
    text
}

fn write_known(text: &mut String, cpu: &Cpu, block: &Block, ops: &[Op]) {
    title(text, "What is known");
    let mut guests = Vec::new();
    instructions(cpu, block, ops, &mut guests);
    let list: Vec<_> = guests.iter().map(|guest| guest.instruction).collect();
    let word = if block.mode.has(Mode::LONG) { 8 } else { 4 };
    let mut factory = InstructionInfoFactory::new();
    let mut facts = Vec::new();
    let (known, room) = (&mut Known::default(), &mut spans::Room::default());
    let spans = spans::find(list.iter(), word, spans::LIMIT, known, (&mut facts, room));
    for (i, facts) in list.iter().zip(&facts) {
        let info = factory.info(i);
        let names = |is: fn(OpAccess) -> bool| registers(info.used_registers(), is);
        let (reads, writes) = (names(is_read), names(spans::is_write));
        let flags = (flags(i.rflags_read()), flags(i.rflags_modified()));
        let _ = write!(
            text,
            "{:16x}  reads {:<20} writes {:<16} flags {:>6} -> {:<6}",
            i.ip(),
            format!("{reads},"),
            format!("{writes},"),
            flags.0,
            flags.1
        );
        if let Some(member) = facts.span {
            let _ = write!(text, "  span {} at {}", member.number, member.offset);
        }
        let end = text.trim_end().len();
        text.truncate(end);
        text.push('\n');
    }
    for (number, span) in spans.iter().enumerate() {
        let what = if span.write { "stored to" } else { "loaded" };
        let _ =
            writeln!(text, "  span {number}: {} bytes, {what}, one look into the TLB", span.len);
    }
}

fn is_read(access: OpAccess) -> bool {
    use OpAccess as A;
    matches!(access, A::Read | A::CondRead | A::ReadWrite | A::ReadCondWrite)
}

fn registers(used: &[UsedRegister], is: impl Fn(OpAccess) -> bool) -> String {
    let names = used.iter().filter(|used| is(used.access()));
    let mut names: Vec<_> =
        names.map(|used| format!("{:?}", used.register()).to_lowercase()).collect();
    names.dedup();
    if names.is_empty() { "-".into() } else { names.join(" ") }
}

fn flags(bits: u32) -> String {
    let table = [
        (RflagsBits::OF, 'O'),
        (RflagsBits::SF, 'S'),
        (RflagsBits::ZF, 'Z'),
        (RflagsBits::AF, 'A'),
        (RflagsBits::PF, 'P'),
        (RflagsBits::CF, 'C'),
    ];
    let text: String = table.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, c)| c).collect();
    if text.is_empty() { "-".into() } else { text }
}

fn write_translation(
    text: &mut String,
    cpu: &mut Cpu,
    block: &Block,
    ops: &[Op],
) -> Result<(), ExplainError> {
    title(text, "Translation");
    let mut jit = Jit::new()?;
    jit.observer = Observer::collecting();
    trivium_interp::run::Translator::translate(&mut jit, cpu, block, ops);
    match jit.observer.collected() {
        Some(listing) => text.push_str(listing.trim_end()),
        None => text.push_str("none: all of it is left to the interpreter"),
    }
    text.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> CpuModel {
        CpuModel::by_name("max").expect("it is there")
    }

    #[test]
    fn a_block_is_shown_as_code_operations_facts_and_translation() {
        // push rbp; mov rbp, rsp; mov eax, [rbp+16]; rdtsc; pop rbp; ret
        let bytes = &[0x55, 0x48, 0x89, 0xe5, 0x8b, 0x45, 0x10, 0x0f, 0x31, 0x5d, 0xc3];
        let code = Code { bytes, rip: 0xffff_ffff_8100_0ff0, bits: 64, user: false };
        let text = explain(&code, &model()).expect("it is code");
        for wanted in [
            "ffffffff81000ff4  mov eax, [rbp + 0x10]",
            "8b 45 10",
            "counts how often the block is entered",
            "interpreter: system",
            "span 0: 20 bytes, stored to, one look into the TLB",
            "seldom run",
        ] {
            let text: String = text.replace(" + ", "+");
            assert!(text.contains(&wanted.replace(" + ", "+")), "{wanted}: {text}");
        }
    }

    #[test]
    fn what_is_no_code_is_refused_and_what_is_left_to_the_interpreter_is_said_to_be() {
        let code = Code { bytes: &[0x48, 0x8b], rip: 0x1000, bits: 64, user: true };
        assert!(matches!(explain(&code, &model()), Err(ExplainError::Truncated)));
        assert!(matches!(explain(&Code { bits: 8, ..code }, &model()), Err(ExplainError::Bits)));
        let real = Code { bytes: &[0xcd, 0x10], rip: 0x7c00, bits: 16, user: false };
        let text = explain(&real, &model()).expect("it is code");
        assert!(text.contains("none: all of it"), "{text}");
    }
}
