//! Cases of random bytes: do CPUs agree on what they are?

use super::draft::Draft;
use super::settle::{RBP, RBX, RDI, RSI};
use super::table::Table;
use crate::case::Width;
use crate::layout::{CODE, DATA, PAGE};

/// Opcodes and prefixes that lead into other tables.
const LEADS: [&[u8]; 14] = [
    &[0x0f],
    &[0x0f, 0x38],
    &[0x0f, 0x3a],
    &[0x66, 0x0f],
    &[0xf3, 0x0f],
    &[0xf2, 0x0f],
    &[0x66, 0x0f, 0x38],
    &[0x66, 0x0f, 0x3a],
    &[0xc5],
    &[0xc4],
    &[0x8f],
    &[0x62],
    &[0x0f, 0xae],
    &[0x0f, 0xc7],
];

/// Prefixes of all kinds.
const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

/// The bytes of such a case; `None` if they hold what cannot be tested.
pub(super) fn code(draft: &mut Draft, table: &Table) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    prefixes(draft, &mut bytes);
    match draft.rng.below(8) {
        0..=2 => bytes.extend(draft.rng.pick(&LEADS)),
        3 => bytes.push(0xd8 + draft.rng.below(8) as u8),
        _ => {}
    }
    let more = 1 + draft.rng.below(15);
    bytes.extend((0..more).map(|_| draft.rng.any() as u8));
    pointers(draft);
    place(draft, &mut bytes);
    let good = table.testable(draft.width, &bytes) && !loops(draft, &bytes);
    good.then_some(bytes)
}

fn prefixes(draft: &mut Draft, bytes: &mut Vec<u8>) {
    let count = match draft.rng.below(16) {
        0..=7 => 0,
        8..=12 => 1 + draft.rng.below(3),
        _ => 8 + draft.rng.below(8),
    };
    for _ in 0..count {
        bytes.push(draft.rng.pick(&PREFIXES));
    }
    if draft.width == Width::Bits64 && draft.rng.percent(25) {
        bytes.push(0x40 | draft.rng.below(16) as u8);
    }
}

/// Points registers to data, so that not every operand in memory faults.
pub(super) fn pointers(draft: &mut Draft) {
    let base = draft.base(super::segments::DS);
    for register in [RBX, RBP, RSI, RDI, 0, 1, 2] {
        if draft.rng.percent(60) {
            let linear = DATA.start + 0x1000 + draft.rng.below(0x2000);
            draft.pin(register, linear.wrapping_sub(base));
        }
    }
}

/// At the end of the region at times.
fn place(draft: &mut Draft, bytes: &mut Vec<u8>) {
    draft.code_at = super::encoding::region(draft.code_at).start + 0x100 + draft.rng.below(0x100);
    if draft.rng.percent(10) && CODE.contains(draft.code_at) {
        let keep = 1 + draft.rng.below(bytes.len() as u64);
        bytes.truncate(keep as usize);
        draft.code_at = CODE.end() - keep;
    } else if draft.rng.percent(5) {
        draft.code_at = super::encoding::region(draft.code_at).start + PAGE - 1;
    }
}

/// Whether the bytes hold a branch backwards: most of those never end.
fn loops(draft: &mut Draft, bytes: &[u8]) -> bool {
    let bits = draft.width.bits();
    let options = iced_x86::DecoderOptions::NONE;
    let mut decoder = iced_x86::Decoder::with_ip(bits, bytes, draft.code_at, options);
    let backwards = decoder.iter().any(|i| {
        let target = i.near_branch_target();
        i.near_branch16() != 0 && target <= i.ip() && target >= draft.code_at
    });
    backwards && !draft.rng.percent(3)
}
