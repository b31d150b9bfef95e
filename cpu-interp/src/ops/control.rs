//! Operations that stand for no instruction: going on to the next block, and instructions that
//! cannot be executed.

use std::collections::HashSet;
use std::sync::Mutex;

use iced_x86::Instruction;
use trivium_cpu::Exception;

use crate::block::{Block, BlockCache, follow};
use crate::cpu::Cpu;
use crate::decode::Selection;
use crate::op::{Op, Stop};

/// Goes on to the block at `imm`.
pub fn go_on(cpu: &mut Cpu, op: &Op, _: &[Op], block: &Block, links: &BlockCache) {
    follow(cpu, op.imm, 1, block, links)
}

fn raise_ud(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    Err(cpu.raise(Exception::ud()))
}

fn raise_gp(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    Err(cpu.raise(Exception::gp(0)))
}

/// Bytes that are no instruction.
#[must_use]
pub fn undefined() -> Selection {
    Selection::general_end(Op::new(crate::op::general_end), raise_ud)
}

/// An instruction that goes beyond the code segment's limit.
#[must_use]
pub fn beyond_limit() -> Selection {
    Selection::general_end(Op::new(crate::op::general_end), raise_gp)
}

/// An instruction that exists, but not in this CPU model or not here at all: #UD, and its name goes
/// to the log once.
#[must_use]
pub fn not_implemented(i: &Instruction) -> Selection {
    static LOGGED: Mutex<Option<HashSet<u32>>> = Mutex::new(None);
    let mut logged = LOGGED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if logged.get_or_insert_default().insert(i.mnemonic() as u32) {
        log::info!("The CPU has no instruction {:?}: #UD", i.mnemonic());
    }
    undefined()
}
