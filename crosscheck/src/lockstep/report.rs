//! A divergence as people read it: where, which instructions, what differs.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use trivium_chipset::VmTime;
use trivium_cpu::CpuState;
use trivium_cpu::state::CS;

use super::LockstepError;
use super::cut::{Cut, From};
use super::file::Found;
use super::locate::Blocks;
use super::pair::{Pair, bitness};

/// The most instructions that are shown.
const MOST_SHOWN: u64 = 64;
/// Instructions that are shown before the one that goes wrong, where it needs others.
const BEFORE: u64 = 7;

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Puts together what was found: the machines agreed where they were last committed, and differ at a
/// moment, if they run from there or from the start; or where they are cut.
pub(super) fn found(
    pair: &mut Pair,
    (until, from): (VmTime, From),
    blocks: Blocks,
    differences: Vec<String>,
    cut: Option<Cut>,
) -> Result<Found, LockstepError> {
    let instructions = until.nanos_since(pair.agreed());
    let (first, last) = cut.map_or((0, instructions), |cut| (cut.agree, cut.differ));
    let shown = if cut.is_some() { last - first + BEFORE } else { MOST_SHOWN };
    let (code, before) = code(pair, first, last, shown)?;
    let history = match (from, cut) {
        (From::Start, Some(_)) => pair.short_history(),
        _ => None,
    };
    if history.is_some() {
        pair.begin_again()?;
    }
    let Blocks { most, warm, quantum, .. } = blocks;
    Ok(Found {
        state: pair.state()?,
        is_small: from == From::Snapshot,
        history,
        instructions,
        cut,
        block: most,
        warm,
        quantum,
        flags: pair.tolerated,
        before,
        code,
        differences,
    })
}

/// The last instructions that the first machine runs up to `last` after where both agreed, and the
/// processor before the one of number `first`.
fn code(
    pair: &mut Pair,
    first: u64,
    last: u64,
    shown: u64,
) -> Result<(Vec<String>, CpuState), LockstepError> {
    let start = pair.agreed();
    pair.roll_back()?;
    let mut before = pair.first_cpu()?;
    let mut lines = Vec::new();
    let from = last.saturating_sub(shown);
    if first < from {
        pair.run_until(start.saturating_add(first))?;
        before = pair.first_cpu()?;
    }
    for step in from..last {
        pair.run_until(start.saturating_add(step))?;
        let machine = &mut pair.sides[0].machine;
        if let Some(cpu) = machine.freeze()?.cpus.first() {
            lines.push(line(cpu, &machine.code_at_rip(cpu)));
            if step == first {
                before = *cpu;
            }
        }
    }
    Ok((lines, before))
}

/// The instruction that a processor is at.
fn line(cpu: &CpuState, code: &[u8]) -> String {
    let (rip, cs) = (cpu.general.rip, cpu.segments.regs[CS].selector);
    let mut decoder = Decoder::with_ip(bitness(cpu), code, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let mut text = String::new();
    IntelFormatter::new().format(&instruction, &mut text);
    let bytes = code.get(..instruction.len().max(1)).unwrap_or_default();
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{cs:04x}:{rip:016x}  {:<32} {text}", bytes.join(" "))
}

/// A divergence in full.
#[must_use]
pub fn render(found: &Found, cpus: [&str; 2]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, found, cpus);
    out
}

fn write(out: &mut String, found: &Found, cpus: [&str; 2]) -> std::fmt::Result {
    let [first, second] = cpus;
    let (from, count) = (found.agreed(), found.instructions);
    let what = match (found.cut, found.is_small, count) {
        (Some(Cut { agree, differ, .. }), ..) => {
            let ones = if differ - agree == 1 {
                "one".to_owned()
            } else {
                format!("{} ones", differ - agree)
            };
            format!("They agree {agree} instructions later, and differ after the next {ones}:")
        }
        (_, true, 1) => "The instruction that makes them differ:".to_owned(),
        (_, true, _) if count <= MOST_SHOWN && found.quantum == 0 => {
            format!("They differ after these {count} instructions, translated together:")
        }
        (_, true, _) => {
            format!("They differ after {count} instructions, translated anew. The last:")
        }
        (_, false, _) => {
            format!(
                "They differ within {count} instructions, depending on what was before. The last:"
            )
        }
    };
    writeln!(out, "{first} and {second} agree at {from}. {what}")?;
    for line in &found.code {
        writeln!(out, "  {line}")?;
    }
    let cpu = &found.before;
    writeln!(out, "before:")?;
    for (values, names) in cpu.general.regs.chunks(4).zip(NAMES.chunks(4)) {
        for (value, name) in values.iter().zip(names) {
            write!(out, "{name:>5} {value:016x}")?;
        }
        writeln!(out)?;
    }
    let (rip, flags) = (cpu.general.rip, cpu.general.rflags);
    writeln!(out, "  rip {rip:016x} rflags {flags:08x} cpl {}", cpu.segments.cpl)?;
    writeln!(out, "after, {first} and {second}:")?;
    for difference in &found.differences {
        writeln!(out, "  {difference}")?;
    }
    let pages: usize = found.state.ram.blocks().map(|block| block.pages().count()).sum();
    writeln!(out, "{pages} pages of memory are needed to see it again")
}
