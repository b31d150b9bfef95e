//! A divergence as people read it: where, which instructions, what differs.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use trivium_chipset::VmTime;
use trivium_cpu::CpuState;
use trivium_cpu::state::CS;

use super::LockstepError;
use super::file::Found;
use super::locate::Blocks;
use super::pair::{Pair, bitness};

/// The most instructions that are shown.
const MOST_SHOWN: u64 = 64;

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Puts together what was found: the machines agreed where they were last committed, and differ at
/// `until`.
pub(super) fn found(
    pair: &mut Pair,
    until: VmTime,
    blocks: Blocks,
    differences: Vec<String>,
    is_small: bool,
) -> Result<Found, LockstepError> {
    let instructions = until.nanos_since(pair.agreed());
    let code = code(pair, instructions)?;
    let state = pair.state()?;
    let Blocks { most, warm, quantum } = blocks;
    let flags = pair.tolerated;
    Ok(Found {
        state,
        instructions,
        block: most,
        warm,
        quantum,
        flags,
        code,
        differences,
        is_small,
    })
}

/// The last instructions that the first machine runs from where both agreed.
fn code(pair: &mut Pair, instructions: u64) -> Result<Vec<String>, LockstepError> {
    let shown = instructions.min(MOST_SHOWN);
    let from = pair.agreed().saturating_add(instructions - shown);
    pair.roll_back()?;
    pair.run_until(from)?;
    let mut lines = Vec::new();
    for step in 0..shown {
        let machine = &mut pair.sides[0].machine;
        if let Some(cpu) = machine.freeze()?.cpus.first() {
            lines.push(line(cpu, &machine.code_at_rip(cpu)));
        }
        pair.run_until(from.saturating_add(step + 1))?;
    }
    Ok(lines)
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
    let (from, count) = (found.state.now, found.instructions);
    let what = match (found.is_small, count) {
        (true, 1) => "The instruction that makes them differ:".to_owned(),
        (true, _) if count <= MOST_SHOWN && found.quantum == 0 => {
            format!("They differ after these {count} instructions, translated together:")
        }
        (true, _) => format!("They differ after {count} instructions, translated anew. The last:"),
        (false, _) => {
            format!(
                "They differ within {count} instructions, depending on what was before. The last:"
            )
        }
    };
    writeln!(out, "{first} and {second} agree at {from}. {what}")?;
    for line in &found.code {
        writeln!(out, "  {line}")?;
    }
    if let Some(cpu) = found.state.cpus.first() {
        writeln!(out, "before:")?;
        for (values, names) in cpu.general.regs.chunks(4).zip(NAMES.chunks(4)) {
            for (value, name) in values.iter().zip(names) {
                write!(out, "{name:>5} {value:016x}")?;
            }
            writeln!(out)?;
        }
        let (rip, flags) = (cpu.general.rip, cpu.general.rflags);
        writeln!(out, "  rip {rip:016x} rflags {flags:08x} cpl {}", cpu.segments.cpl)?;
    }
    writeln!(out, "after, {first} and {second}:")?;
    for difference in &found.differences {
        writeln!(out, "  {difference}")?;
    }
    let pages: usize = found.state.ram.blocks().map(|block| block.pages().count()).sum();
    writeln!(out, "{pages} pages of memory are needed to see it again")
}
