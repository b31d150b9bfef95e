//! Cases of one instruction.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};

use super::draft::Draft;
use super::form::Form;
use super::noise;
use super::operands;
use super::parts::{Late, Parts};
use super::settle;
use super::table::Table;
use crate::case::Width;
use crate::layout::{CODE, OPEN_CODE, PAGE, Region};

/// The bytes of a case of one instruction, and its state in the draft. `None` if noise has made
/// something of it that cannot be tested.
pub(super) fn code(draft: &mut Draft, form: &Form, table: &Table) -> Option<Vec<u8>> {
    settle::before(draft, form);
    let (mut parts, chosen) = operands::build(draft, form, None);
    settle::after(draft, form, &chosen);
    let noisy = draft.rng.percent(25);
    if noisy {
        noise::add(draft, &mut parts);
    }
    let len = parts.bytes().len();
    place(draft, len);
    resolve(draft, &mut parts);
    let bytes = parts.bytes();
    let found = decode(draft.width, &bytes).code();
    let good = found == form.code || found == Code::INVALID || table.plain(draft.width, found);
    if noisy && !good {
        return None;
    }
    Some(cut(draft, bytes))
}

/// The part of code that is in the region where it begins.
pub(super) fn cut(draft: &Draft, mut bytes: Vec<u8>) -> Vec<u8> {
    let room = region(draft.code_at).end() - draft.code_at;
    bytes.truncate(room as usize);
    bytes
}

/// What bytes decode to, with INT3 behind them.
pub(super) fn decode(width: Width, bytes: &[u8]) -> Instruction {
    let mut padded = [0xcc; 15];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    Decoder::new(width.bits(), &padded, DecoderOptions::NONE).decode()
}

/// The region of code that an address is in.
pub(super) fn region(address: u64) -> Region {
    if OPEN_CODE.contains(address) { OPEN_CODE } else { CODE }
}

/// Chooses where in its region code of so many bytes lies: it may cross pages, and the region's
/// end.
pub(super) fn place(draft: &mut Draft, len: usize) {
    let region = region(draft.code_at);
    let len = len as u64;
    let rng = &mut draft.rng;
    let offset = match rng.below(100) {
        0..=84 => 0x100 + rng.below(0x200),
        // Across a page.
        85..=90 => PAGE - rng.below(len + 1),
        // Up to the end of the region.
        91..=95 => region.len - len,
        // Past it.
        _ => region.len - 1 - rng.below(len),
    };
    draft.code_at = region.start + offset.min(region.len - 1);
}

/// Fills in what depends on where the instruction ends.
pub(super) fn resolve(draft: &mut Draft, parts: &mut Parts) {
    let len = parts.bytes().len() as u64;
    let next = draft.code_at + len;
    match parts.late {
        Late::No => {}
        Late::Displacement(target) => {
            parts.displacement = super::parts::Bytes::new(target.wrapping_sub(next), 4);
        }
        Late::Branch(size) => {
            let to = branch(draft, len, size);
            parts.immediate = super::parts::Bytes::new(to as u64, size);
        }
    }
}

/// How far to branch: to INT3 as a rule, never to the instruction itself.
fn branch(draft: &mut Draft, len: u64, size: u8) -> i64 {
    let rng = &mut draft.rng;
    let far = size > 1;
    let to = match rng.below(20) {
        0..=9 => rng.between(0, 0x60),
        10..=13 => rng.between(-0x70, -(len as i64) - 1),
        14..=15 => rng.pick(&[127, -128, 1]),
        16..=18 if far => rng.between(-0x80, 0xd00),
        19 if far => rng.any() as i32 as i64 >> rng.below(24),
        _ => rng.between(0, 127),
    };
    if to == -(len as i64) { 0 } else { to }
}
