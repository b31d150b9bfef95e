//! Bugs to plant: each breaks one thing in the interpreter, so that a test can show that
//! cross-checking finds it. Only in builds with the feature `planted-bugs`, and only in threads
//! that ask for one.

mod bugs;

use std::cell::Cell;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction};
use trivium_cpu::state::{Vector, X87};
use trivium_cpu::{CpuState, Exception};

use crate::block::Block;
use crate::cpu::Cpu;
use crate::decode::MAX_LEN;

pub use bugs::{BUGS, HARMLESS};

/// A bug.
pub struct Bug {
    /// What is wrong.
    pub name: &'static str,
    /// How it is brought about.
    pub(crate) how: How,
}

/// How a bug is brought about.
pub(crate) enum How {
    /// Instructions whose [`Code`] is named with this are taken for those named with that.
    Instead(&'static str, &'static str),
    /// After instructions whose [`Code`] is named so, this is done.
    After(&'static str, fn(&mut Cpu, &Before, &Instruction)),
    /// Before an exception is delivered, this is done.
    Exception(fn(&mut Cpu, &mut Exception)),
    /// When a state is loaded, this is done.
    Load(fn(&mut CpuState)),
}

/// What an instruction began with.
pub(crate) struct Before {
    pub regs: [u64; 16],
    pub rflags: u64,
    pub vector: Vector,
    pub x87: X87,
}

thread_local! {
    static PLANTED: Cell<Option<&'static Bug>> = const { Cell::new(None) };
}

/// Plants a bug in all interpreters that this thread runs, or takes it out.
pub fn plant(bug: Option<&'static Bug>) {
    PLANTED.set(bug);
}

/// Whether there is one: then instructions are run one by one.
pub(crate) fn any() -> bool {
    PLANTED.get().is_some()
}

/// The instruction that is executed in place of another.
pub(crate) fn instead(instruction: &Instruction) -> Instruction {
    let mut instruction = *instruction;
    if let Some(How::Instead(from, to)) = PLANTED.get().map(|bug| &bug.how)
        && let Some(operands) = name(instruction.code()).strip_prefix(from)
    {
        let wanted = format!("{to}{operands}");
        if let Some(code) = Code::values().find(|&code| name(code) == wanted) {
            instruction.set_code(code);
        }
    }
    instruction
}

fn name(code: Code) -> String {
    format!("{code:?}")
}

/// The instruction that a block begins with and what it begins with, if a bug may follow it.
pub(crate) fn before(cpu: &Cpu, block: Option<&Block>) -> Option<(Before, Instruction)> {
    let How::After(wanted, _) = &PLANTED.get()?.how else { return None };
    let block = block?;
    let in_page = (4096 - block.key.offset % 4096).min(MAX_LEN);
    let mut bytes = [0; MAX_LEN];
    cpu.memory.ram().read_slice(block.key.offset, &mut bytes[..in_page]);
    let bitness = cpu.mode.bitness();
    let instruction = Decoder::with_ip(bitness, &bytes, block.rip, DecoderOptions::NONE).decode();
    let mut regs = [0; 16];
    regs.copy_from_slice(&cpu.regs[..16]);
    let before = Before { regs, rflags: cpu.rflags(), vector: cpu.vector, x87: cpu.x87 };
    name(instruction.code()).starts_with(wanted).then_some((before, instruction))
}

/// Spoils what an instruction has done; an exception it raised has been delivered at CPL 0.
pub(crate) fn after(cpu: &mut Cpu, before: Option<(Before, Instruction)>) {
    if let Some((before, instruction)) = before
        && let Some(How::After(_, spoil)) = PLANTED.get().map(|bug| &bug.how)
        && cpu.cpl() == 3
    {
        spoil(cpu, &before, &instruction);
    }
}

/// Spoils an exception on its way.
pub(crate) fn exception(cpu: &mut Cpu) {
    if let Some(How::Exception(spoil)) = PLANTED.get().map(|bug| &bug.how) {
        let mut exception = cpu.exception;
        spoil(cpu, &mut exception);
        cpu.exception = exception;
    }
}

/// Spoils a state that is loaded.
pub(crate) fn load(state: &CpuState) -> CpuState {
    let mut state = *state;
    if let Some(How::Load(spoil)) = PLANTED.get().map(|bug| &bug.how) {
        spoil(&mut state);
    }
    state
}
