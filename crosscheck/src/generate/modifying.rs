//! Cases of code that modifies itself: the next instruction, a later one, another page, or one
//! that has run already.

use super::draft::Draft;
use super::encoding;
use super::segments::{CS, DS};
use super::sequence::{self, Item};
use super::table::Table;
use crate::case::Width;
use crate::layout::{OPEN_CODE, PAGE, selector};

/// MOV of an immediate to memory: of a byte, and of more. Its ModR/M byte says disp32, relative to
/// RIP in 64-bit code.
const MOV_BYTE: u8 = 0xc6;
const MOV_MORE: u8 = 0xc7;
const DISPLACEMENT: u8 = 0x05;
/// XOR with a byte, which reads too.
const XOR_BYTE: u8 = 0x80;
const XOR: u8 = 6 << 3;
const NOP: u8 = 0x90;
/// MOV of an immediate to RAX and to RCX, and LOOP.
const MOV_RAX: u8 = 0xb8;
const MOV_RCX: u8 = 0xb9;
const LOOP: u8 = 0xe2;

/// A write to the code.
struct Write {
    /// The item that does it.
    item: usize,
    /// Bytes that it writes.
    size: usize,
    xor: bool,
    value: [u8; 4],
    /// Where it goes, from the beginning of the code.
    to: usize,
}

/// The bytes of such a case; `None` if they hold, or become, what cannot be tested.
pub(super) fn code(draft: &mut Draft, table: &Table) -> Option<Vec<u8>> {
    let stream = sequence::begin(draft);
    let count = 3 + draft.rng.below(10) as usize;
    let first = draft.rng.below(count as u64) as usize;
    let repeated = draft.rng.percent(25);
    let mut items: Vec<Item> = Vec::new();
    if repeated {
        items.push(Item::Plain(vec![MOV_RCX, 2, 0, 0, 0]));
    }
    let mut writes = Vec::new();
    for n in 0..count {
        let item = match draft.rng.below(10) {
            _ if n == first => write(draft, &mut writes, items.len()),
            0 => write(draft, &mut writes, items.len()),
            1..=4 => move_immediate(draft),
            _ => sequence::plain(draft, table, &stream)?,
        };
        items.push(Item::Plain(item));
    }
    if repeated {
        let back = 1 + draft.rng.below(count as u64) as usize;
        items.push(Item::Branch(LOOP, 1, back));
    }
    draft.code_at = place(draft);
    if draft.width == Width::Bits32 {
        draft.state.selectors[CS] = selector::CODE32;
    }
    draft.limit = 20_000;
    finish(draft, table, &items, writes)
}

/// MOV of an immediate to a register: it stays one when the immediate changes.
fn move_immediate(draft: &mut Draft) -> Vec<u8> {
    let mut bytes = vec![MOV_RAX + draft.rng.pick(&[0, 2]), 0, 0, 0, 0];
    for byte in &mut bytes[1..] {
        *byte = draft.rng.any() as u8;
    }
    bytes
}

/// Room for a write, and what it will be.
fn write(draft: &mut Draft, writes: &mut Vec<Write>, item: usize) -> Vec<u8> {
    let (size, xor) = draft.rng.pick(&[(1, false), (1, true), (4, false), (2, false)]);
    let value = (draft.rng.any() as u32).to_le_bytes();
    writes.push(Write { item, size, xor, value, to: 0 });
    vec![NOP; write_len(size)]
}

/// Bytes of a write: prefix, opcode, ModR/M, displacement, immediate.
const fn write_len(size: usize) -> usize {
    (size == 2) as usize + 6 + size
}

/// Across the two pages at times.
fn place(draft: &mut Draft) -> u64 {
    if draft.rng.percent(25) {
        OPEN_CODE.start + PAGE - draft.rng.below(40)
    } else {
        OPEN_CODE.start + 0x100 + draft.rng.below(0x100)
    }
}

/// Puts the writes into their places, and looks at what they make of the code.
fn finish(
    draft: &mut Draft,
    table: &Table,
    items: &[Item],
    mut writes: Vec<Write>,
) -> Option<Vec<u8>> {
    let mut bytes = sequence::lay_out(items);
    for write in &mut writes {
        let start: usize = items[..write.item].iter().map(Item::len).sum();
        let end = start + write_len(write.size);
        write.to = target(draft, start, end, bytes.len());
        let code = encode(draft, write, end);
        bytes.get_mut(start..end)?.copy_from_slice(&code);
    }
    let mut changed = bytes.clone();
    let mut good = table.testable(draft.width, &changed);
    for write in &writes {
        for (to, value) in changed.iter_mut().skip(write.to).zip(&write.value[..write.size]) {
            *to = if write.xor { *to ^ value } else { *value };
        }
        good &= table.testable(draft.width, &changed);
    }
    good.then(|| encoding::cut(draft, bytes))
}

/// What to write to: the next instruction, anything behind, or what has run.
fn target(draft: &mut Draft, start: usize, end: usize, len: usize) -> usize {
    match draft.rng.below(8) {
        0..=2 => end + draft.rng.below(2) as usize,
        3 => draft.rng.below(start.max(1) as u64) as usize,
        _ => end + draft.rng.below(len.saturating_sub(end).max(1) as u64) as usize,
    }
}

fn encode(draft: &mut Draft, write: &Write, end: usize) -> Vec<u8> {
    let at = draft.code_at + write.to as u64;
    let displacement = match draft.width {
        Width::Bits64 => at.wrapping_sub(draft.code_at + end as u64),
        _ => at.wrapping_sub(draft.base(DS)),
    };
    let mut code = Vec::with_capacity(12);
    match (write.size, write.xor) {
        (1, true) => code.extend([XOR_BYTE, XOR | DISPLACEMENT]),
        (1, false) => code.extend([MOV_BYTE, DISPLACEMENT]),
        (2, _) => code.extend([0x66, MOV_MORE, DISPLACEMENT]),
        _ => code.extend([MOV_MORE, DISPLACEMENT]),
    }
    code.extend(&displacement.to_le_bytes()[..4]);
    code.extend(&write.value[..write.size]);
    code
}
