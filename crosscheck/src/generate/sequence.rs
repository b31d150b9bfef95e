//! Cases of several instructions: data flows between them, they branch, call and use the stack.

use trivium_cpu::bits::rflags;

use super::draft::Draft;
use super::encoding;
use super::operands::{self, Stream};
use super::segments::{DS, SS};
use super::settle::{RBP, RBX, RCX, RDI, RSI};
use super::table::Table;
use crate::case::Width;
use crate::layout::{DATA, STACK};

/// One of the pieces that a sequence is made of.
pub(super) enum Item {
    /// Bytes that need no more.
    Plain(Vec<u8>),
    /// An opcode with a displacement of so many bytes, to where an item begins.
    Branch(u8, u8, usize),
}

impl Item {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Branch(_, size, _) => 1 + usize::from(*size),
        }
    }
}

/// Opcodes: PUSH and POP of RAX, MOV of an immediate to RCX, and branches.
pub(super) const PUSH: u8 = 0x50;
pub(super) const POP: u8 = 0x58;
const MOV_RCX: u8 = 0xb9;
pub(super) const JCC: u8 = 0x70;
const LOOP: u8 = 0xe2;
pub(super) const CALL: u8 = 0xe8;
const JMP: u8 = 0xeb;
const RET: u8 = 0xc3;

/// The bytes of such a case; `None` if they hold what cannot be tested.
pub(super) fn code(draft: &mut Draft, table: &Table) -> Option<Vec<u8>> {
    let stream = begin(draft);
    let count = 2 + draft.rng.below(31) as usize;
    let items = items(draft, table, &stream, count);
    draft.code_at += 0x100 + draft.rng.below(0xd00);
    draft.limit = 20_000;
    let bytes = lay_out(&items);
    table.testable(draft.width, &bytes).then(|| encoding::cut(draft, bytes))
}

/// Points registers to memory, and takes away most of what would end the case at once.
pub(super) fn begin(draft: &mut Draft) -> Stream {
    let mut pointers = Vec::new();
    for (register, start) in [(RBX, 0x800), (RSI, 0x1000), (RDI, 0x1800), (RBP, 0x2800)] {
        let segment = if register == RBP { SS } else { DS };
        let linear = match register {
            RBP => STACK.start + 0x1400,
            // Across a page at times.
            _ => DATA.start + start + draft.rng.pick(&[0, 0, 0x7f8, 0x3e]),
        };
        let offset = linear.wrapping_sub(draft.base(segment));
        draft.pin(register, offset);
        pointers.push((register, linear));
    }
    draft.pin(RCX, 5);
    if draft.rng.percent(90) {
        draft.state.rflags &= !rflags::TF;
    }
    if draft.rng.percent(80) {
        let x87 = &mut draft.state.x87;
        (x87.control, x87.status) = (x87.control | 0x3f, x87.status & 0x7f7f);
    }
    Stream { pointers }
}

fn items(draft: &mut Draft, table: &Table, stream: &Stream, count: usize) -> Vec<Item> {
    let mut items = Vec::new();
    // Where a loop begins, if one is open.
    let mut head = None;
    // Calls, whose targets are not known yet.
    let mut calls = Vec::new();
    while items.len() < count {
        let here = items.len();
        match draft.rng.below(100) {
            0..=7 => items.push(Item::Plain(vec![PUSH + register(draft)])),
            8..=14 => items.push(Item::Plain(vec![POP + register(draft)])),
            15..=23 => {
                let opcode = JCC + draft.rng.below(16) as u8;
                let ahead = 1 + draft.rng.below(4) as usize;
                items.push(Item::Branch(opcode, 1, (here + ahead).min(count)));
            }
            24..=26 => {
                calls.push(here);
                let size = if draft.width == Width::Bits16 { 2 } else { 4 };
                items.push(Item::Branch(CALL, size, here));
            }
            27..=29 if head.is_none() => {
                items.push(Item::Plain(load_count(draft)));
                head = Some(here + 1);
            }
            30..=39 if head.is_some_and(|h| h < here) => {
                items.push(Item::Branch(LOOP, 1, head.take().unwrap_or(here)));
            }
            _ => items.extend(plain(draft, table, stream).map(Item::Plain)),
        }
    }
    if !calls.is_empty() {
        subroutine(draft, table, stream, &mut items, &calls);
    }
    items
}

/// A register for the stack: none that points to memory.
pub(super) fn register(draft: &mut Draft) -> u8 {
    draft.rng.pick(&[0, 2, 2, 0])
}

/// Loads RCX with a small number.
fn load_count(draft: &mut Draft) -> Vec<u8> {
    let count = 1 + draft.rng.below(6) as u8;
    match draft.width {
        Width::Bits16 => vec![MOV_RCX, count, 0],
        _ => vec![MOV_RCX, count, 0, 0, 0],
    }
}

/// What calls lead to, behind the others, which must not fall into it.
pub(super) fn subroutine(
    draft: &mut Draft,
    table: &Table,
    stream: &Stream,
    items: &mut Vec<Item>,
    calls: &[usize],
) {
    let over = items.len();
    items.push(Item::Branch(JMP, 1, 0));
    let entry = items.len();
    for _ in 0..draft.rng.below(4) {
        items.extend(plain(draft, table, stream).map(Item::Plain));
    }
    items.push(Item::Plain(vec![RET]));
    let end = items.len();
    if let Some(Item::Branch(_, _, target)) = items.get_mut(over) {
        *target = end;
    }
    for &call in calls {
        if let Some(Item::Branch(_, _, target)) = items.get_mut(call) {
            *target = entry;
        }
    }
}

/// An instruction that does not branch.
pub(super) fn plain(draft: &mut Draft, table: &Table, stream: &Stream) -> Option<Vec<u8>> {
    let class = draft.rng.weighted(&[(10, 0), (2, 1), (4, 2), (3, 3)]);
    let forms = &table.calm[class];
    let forms = if forms.is_empty() { &table.calm[0] } else { forms };
    if forms.is_empty() {
        return None;
    }
    for _ in 0..16 {
        let form = &table.forms[draft.rng.pick(forms)];
        // What is undefined flows into all that follows, and then no comparison means much.
        let vague = form.vague && draft.rng.percent(85);
        if super::table::testable(form, draft.width) && !vague {
            let (parts, _) = operands::build(draft, form, Some(stream));
            return Some(parts.bytes());
        }
    }
    None
}

/// The bytes of all items. A branch that is too far goes on behind itself.
pub(super) fn lay_out(items: &[Item]) -> Vec<u8> {
    let mut starts = Vec::with_capacity(items.len() + 1);
    let mut at = 0;
    for item in items {
        starts.push(at);
        at += item.len();
    }
    starts.push(at);
    let mut bytes = Vec::with_capacity(at);
    for (item, start) in items.iter().zip(&starts) {
        match item {
            Item::Plain(plain) => bytes.extend(plain),
            Item::Branch(opcode, size, target) => {
                let target = starts.get(*target).copied().unwrap_or(at) as i64;
                let to = target - (start + item.len()) as i64;
                let fits = *size > 1 || i8::try_from(to).is_ok();
                let to = if fits { to } else { 0 };
                bytes.push(*opcode);
                bytes.extend(&to.to_le_bytes()[..usize::from(*size)]);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_lead_to_where_items_begin() {
        let items = [
            Item::Branch(JMP, 1, 2),
            Item::Plain(vec![0x90; 3]),
            Item::Branch(LOOP, 1, 0),
            Item::Branch(CALL, 4, 4),
        ];
        let expected = [0xeb, 3, 0x90, 0x90, 0x90, 0xe2, 0xf9, 0xe8, 0, 0, 0, 0];
        assert_eq!(lay_out(&items), expected);
    }
}
