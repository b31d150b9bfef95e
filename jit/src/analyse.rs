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
/// are not among them.
pub(crate) fn instructions(cpu: &Cpu, block: &Block, ops: &[Op]) -> (Vec<Guest>, End) {
    let mut list = Vec::with_capacity(ops.len() + 2);
    for (number, op) in ops.iter().enumerate().skip(1) {
        if op.len == 0 {
            return (list, End::GoOn(op.imm));
        }
        let mut done = 0;
        // One operation may stand for two instructions.
        while done < op.len {
            let instruction = decode(cpu, block, op.off + i16::from(done));
            done += instruction.len().max(1) as u8;
            list.push(Guest { instruction, op: number as u8 });
        }
    }
    (list, End::Instruction)
}

/// Decodes the instruction at a distance from a block's first.
fn decode(cpu: &Cpu, block: &Block, off: i16) -> Instruction {
    let mut bytes = [0; MAX_LEN];
    let start = block.key.offset.wrapping_add_signed(off.into());
    cpu.ram.read_slice(start, &mut bytes);
    if let Some((page, _)) = block.second_page {
        // It is one instruction, of bytes on both pages.
        let first = (PAGE - start % PAGE).min(MAX_LEN);
        cpu.ram.read_slice(page * PAGE, &mut bytes[first..]);
    }
    let options = offered::options(cpu.model.vendor, cpu.model.features);
    let rip = block.rip.wrapping_add(off as u64);
    Decoder::with_ip(block.mode.bitness(), &bytes, rip, options).decode()
}
