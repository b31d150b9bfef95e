//! Cases of a loop that goes round so often that a translator makes of it what it makes of code
//! that runs hot: its body branches, calls, uses the stack, and walks through memory.

use super::draft::Draft;
use super::encoding;
use super::sequence::{self, CALL, Item, JCC, POP, PUSH};
use super::settle::{RBX, RCX, RDI, RSI};
use super::table::Table;
use crate::case::Width;

/// MOV of an immediate to RCX; DEC of it (FFh /1), and the condition "not zero".
const MOV_RCX: u8 = 0xb9;
const DEC_RCX: [u8; 2] = [0xff, 0xc9];
const NOT_ZERO: u8 = 5;
/// ADD of a byte to a register (83h /0), and the prefix for all of its 64 bits.
const ADD: u8 = 0x83;
const DIRECT: u8 = 0xc0;
const REX_W: u8 = 0x48;

/// The bytes of such a case; `None` if they hold what cannot be tested.
pub(super) fn code(draft: &mut Draft, table: &Table) -> Option<Vec<u8>> {
    let stream = sequence::begin(draft);
    let rounds = 8 + draft.rng.below(56);
    let mut items = vec![Item::Plain(load(draft.width, rounds as u8))];
    let end = 2 + draft.rng.below(14) as usize;
    let mut calls = Vec::new();
    while items.len() < end {
        let here = items.len();
        match draft.rng.below(100) {
            0..=5 => items.push(Item::Plain(vec![PUSH + sequence::register(draft)])),
            6..=11 => items.push(Item::Plain(vec![POP + sequence::register(draft)])),
            12..=23 => {
                let opcode = JCC + draft.rng.below(16) as u8;
                let ahead = 1 + draft.rng.below(4) as usize;
                items.push(Item::Branch(opcode, 1, (here + ahead).min(end)));
            }
            24..=27 => {
                calls.push(here);
                let size = if draft.width == Width::Bits16 { 2 } else { 4 };
                items.push(Item::Branch(CALL, size, here));
            }
            28..=37 => items.push(Item::Plain(walk(draft))),
            _ => items.extend(sequence::plain(draft, table, &stream).map(Item::Plain)),
        }
    }
    items.push(Item::Plain(DEC_RCX.to_vec()));
    items.push(Item::Branch(JCC + NOT_ZERO, 1, 1));
    if !calls.is_empty() {
        sequence::subroutine(draft, table, &stream, &mut items, &calls);
    }
    draft.code_at += 0x100 + draft.rng.below(0xe80);
    draft.limit = 20_000;
    let bytes = sequence::lay_out(&items);
    table.testable(draft.width, &bytes).then(|| encoding::cut(draft, bytes))
}

/// Loads RCX with how often the loop goes round.
fn load(width: Width, rounds: u8) -> Vec<u8> {
    match width {
        Width::Bits16 => vec![MOV_RCX, rounds, 0],
        _ => vec![MOV_RCX, rounds, 0, 0, 0],
    }
}

/// Moves a pointer on, or back.
fn walk(draft: &mut Draft) -> Vec<u8> {
    let register = draft.rng.pick(&[RBX, RSI, RDI]);
    let by = draft.rng.pick(&[1, 4, 8, 8, 16, 24, 64, 0xf8, 0xff]);
    let mut bytes = vec![ADD, DIRECT + register, by];
    if draft.width == Width::Bits64 {
        bytes.insert(0, REX_W);
    }
    bytes
}

const _: () = assert!(RCX == 1, "as in DEC_RCX");
