//! Repeated string instructions that something ends half-way: a fault, a limit, a comparison, or
//! the trap after each step.

use iced_x86::OpCodeOperandKind as Kind;
use trivium_cpu::bits::rflags;

use super::draft::Draft;
use super::encoding;
use super::form::Form;
use super::operands;
use super::segments::{DS, ES};
use super::settle::{RCX, RDI, RSI};
use super::table::Table;
use crate::layout::{DATA, READ_ONLY, STACK};

/// Where ranges of addresses end, one way or the other.
const EDGES: [u64; 8] = [
    DATA.start,
    DATA.start + 0x1000,
    DATA.start + 0x2000,
    DATA.start + 0x3000,
    READ_ONLY.start,
    READ_ONLY.end(),
    STACK.start,
    STACK.end(),
];

/// The most iterations that a case asks for, but for those that run to the end of a segment.
const ITERATIONS: u64 = 200;

/// The bytes of such a case.
pub(super) fn code(draft: &mut Draft, form: &Form, table: &Table) -> Option<Vec<u8>> {
    let (mut parts, chosen) = operands::build(draft, form, None);
    let manner = chosen.manner?;
    let size = (form.memory.size() as u64).max(1);
    let back = draft.rng.percent(40);
    draft.state.rflags &= !(rflags::DF | rflags::TF);
    draft.state.rflags |= if back { rflags::DF } else { 0 };
    draft.state.rflags |= if draft.rng.percent(10) { rflags::TF } else { 0 };
    let count = match draft.rng.below(10) {
        0 => 0xffff,
        _ => draft.rng.below(ITERATIONS),
    };
    draft.pin_low(RCX, manner.bits, count);
    let segment = manner.segment.unwrap_or(DS);
    let from = start(draft, size, back);
    let to = match draft.rng.below(4) {
        // Overlapping.
        0 => from.wrapping_add(draft.rng.between(-20, 20) as u64),
        _ => start(draft, size, back),
    };
    for kind in &form.operands {
        let (register, segment, linear) = match kind {
            Kind::seg_rSI => (RSI, segment, from),
            Kind::es_rDI => (RDI, ES, to),
            _ => continue,
        };
        let offset = linear.wrapping_sub(draft.base(segment));
        draft.pin_low(register, manner.bits, offset);
    }
    likeness(draft, form, from, to);
    parts.prefixes.retain(|p| !matches!(p, 0xf2 | 0xf3));
    let prefix = draft.rng.pick(&[0xf2, 0xf3, 0xf3]);
    parts.prefixes.push(prefix);
    draft.limit = 200_000;
    let bytes = parts.bytes();
    let found = encoding::decode(draft.width, &bytes).code();
    encoding::place(draft, bytes.len());
    let good = found == form.code || table.plain(draft.width, found);
    good.then(|| encoding::cut(draft, bytes))
}

/// Where to begin so that an edge is some iterations away.
fn start(draft: &mut Draft, size: u64, back: bool) -> u64 {
    let edge = draft.rng.pick(&EDGES);
    let away = size * draft.rng.below(ITERATIONS / 2) + draft.rng.below(size) * draft.rng.below(2);
    if back { edge.wrapping_add(away) } else { edge.wrapping_sub(away) }
}

/// Makes both ranges alike, and like RAX, for some of the way, so that comparisons go on.
fn likeness(draft: &mut Draft, form: &Form, from: u64, to: u64) {
    let compares = matches!(form.mnemonic, iced_x86::Mnemonic::Cmpsb | iced_x86::Mnemonic::Cmpsw)
        || matches!(form.mnemonic, iced_x86::Mnemonic::Cmpsd | iced_x86::Mnemonic::Cmpsq)
        || matches!(form.mnemonic, iced_x86::Mnemonic::Scasb | iced_x86::Mnemonic::Scasw)
        || matches!(form.mnemonic, iced_x86::Mnemonic::Scasd | iced_x86::Mnemonic::Scasq);
    if !compares || draft.rng.percent(15) {
        return;
    }
    let byte = draft.rng.any() as u8;
    draft.pin(0, u64::from_ne_bytes([byte; 8]));
    let len = draft.rng.below(800);
    for linear in [from, to] {
        let run = vec![byte; len as usize];
        draft.put(linear.wrapping_sub(len / 2), &run);
    }
}
