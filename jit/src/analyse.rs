//! What must be known of a block before it is re-encoded: its instructions, and which operation of
//! the interpreter each belongs to.

use iced_x86::{Decoder, Instruction};
use trivium_interp::Cpu;
use trivium_interp::block::Block;
use trivium_interp::decode::{MAX_LEN, offered};
use trivium_interp::op::Op;

/// Bytes of a page.
const PAGE: usize = 4096;

/// An instruction of a block.
pub(crate) struct Guest {
    /// The instruction, with its guest address.
    pub(crate) instruction: Instruction,
    /// The operation that the interpreter has for it, by its place in the block.
    pub(crate) op: u8,
    /// The block's instructions from that operation on, if it begins the operation.
    pub(crate) rest: Option<u8>,
}

/// What a block ends with, where that is not an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its last instruction.
    Instruction,
    /// It goes on at this address.
    GoOn(u64),
}

/// The instructions of a block in their order. Those that do nothing, and jumps that were followed,
/// are not among them. What the list had before is lost.
pub(crate) fn instructions(cpu: &Cpu, block: &Block, ops: &[Op], list: &mut Vec<Guest>) -> End {
    list.clear();
    let mut next = 1;
    while let Some(op) = ops.get(next) {
        if op.len == 0 {
            return End::GoOn(op.imm);
        }
        next = decode_run(cpu, block, (ops, next), list);
    }
    End::Instruction
}

/// Bytes that are looked at together.
const RUN: usize = 128;

/// Decodes instructions that lie one behind the other, from an operation on, one at least; gives the
/// first operation that is not among them.
fn decode_run(
    cpu: &Cpu,
    block: &Block,
    (ops, first): (&[Op], usize),
    list: &mut Vec<Guest>,
) -> usize {
    let off = ops.get(first).map_or(0, |op| op.off);
    let mut bytes = [0; RUN];
    let start = block.key.offset.wrapping_add_signed(off.into());
    let in_page = PAGE - start % PAGE;
    let len = in_page.clamp(MAX_LEN, RUN);
    cpu.ram.read_slice(start, &mut bytes[..len]);
    if let Some((page, _)) = block.second_page {
        // It is one instruction, of bytes on both pages.
        cpu.ram.read_slice(page * PAGE, &mut bytes[in_page.min(MAX_LEN)..MAX_LEN]);
    }
    let options = offered::options(cpu.model.vendor, cpu.model.features);
    let rip = block.rip.wrapping_add(off as u64);
    let mut decoder = Decoder::with_ip(block.mode.bitness(), &bytes[..len], rip, options);
    for (number, op) in ops.iter().enumerate().skip(first) {
        let follows = decoder.ip() == block.rip.wrapping_add(op.off as u64);
        let is_there = number == first || decoder.position() + 2 * MAX_LEN <= len;
        if op.len == 0 || !follows || !is_there {
            return number;
        }
        let mut done = 0;
        // One operation may stand for two instructions.
        while done < op.len {
            let instruction = decoder.decode();
            let before = block.before.get(number).filter(|_| done == 0);
            let rest = before.map(|&before| block.target.count.saturating_sub(before));
            done += instruction.len().max(1) as u8;
            list.push(Guest { instruction, op: number as u8, rest });
        }
    }
    ops.len()
}
