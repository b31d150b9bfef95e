//! Pre-decoded operations: what a guest instruction becomes before it is executed.
//!
//! An [`Op`] is a handler pointer and resolved operands. A handler does its work and calls the
//! next operation's handler as its very last act, so that the compiler makes a jump of the call:
//! a run of operations never goes back to a loop. What a handler may not do, lest the jump become
//! a call: take the address of something on its stack, or call a slow path and go on afterwards.
//! It records what it needs and returns instead; see [`crate::run`].

use crate::block::{Block, BlockCache, follow_indirect};
use crate::cpu::Cpu;

/// Executes an operation and those after it.
pub type Handler = fn(&mut Cpu, &Op, &[Op], &Block, &BlockCache);

/// Executes one instruction that is not worth a handler of its own; called by [`general`] and
/// [`general_end`].
pub type GeneralFn = fn(&mut Cpu, &Op) -> Result<(), Stop>;

/// Executes one instruction that needs the platform; called by the outer loop.
pub type SystemFn = fn(&mut Cpu, &Op, &dyn trivium_cpu::CpuBus) -> Result<(), Stop>;

/// An instruction was not completed; [`Cpu::stop`] says why. It is empty so that results stay in
/// registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop;

/// One pre-decoded operation: 48 bytes. Running guests touch many, so their size counts.
#[derive(Clone, Copy)]
pub struct Op {
    /// Executes it.
    pub run: Handler,
    /// What [`general`] and [`general_end`] call.
    pub general: GeneralFn,
    /// Immediate, sign-extended to the operand size; for direct branches the target's RIP.
    pub imm: u64,
    /// Displacement; RIP-relative ones are already absolute.
    pub disp: u64,
    /// Index of the destination register in [`Cpu::regs`].
    pub dst: u8,
    /// Index of the source register.
    pub src: u8,
    /// Index of the base register, [`crate::cpu::ZERO`] for none.
    pub base: u8,
    /// Index of the index register, [`crate::cpu::ZERO`] for none.
    pub index: u8,
    /// Log2 of the scale.
    pub scale: u8,
    /// Number of the memory operand's segment register, 0 to 5.
    pub seg: u8,
    /// 8 for AH, CH, DH and BH as destination, else 0.
    pub dst_shift: u8,
    /// The same of the source.
    pub src_shift: u8,
    /// The instruction's RIP, counted from the block's.
    pub off: i16,
    /// Length in bytes.
    pub len: u8,
    /// Operand size in bytes.
    pub size: u8,
    /// Address size in bytes: 2, 4 or 8.
    pub asize: u8,
    /// Prefixes: [`Op::LOCK`], [`Op::REP`], [`Op::REPNE`]; and what of it matters to an access that
    /// the TLB cannot serve.
    pub prefixes: u8,
    /// Free for the instruction group: condition, sub-operation, third register.
    pub aux: u8,
    /// A second such.
    pub aux2: u8,
}

impl Op {
    /// LOCK was there.
    pub const LOCK: u8 = 1;
    /// F3 was there and means REP or REPE.
    pub const REP: u8 = 2;
    /// F2 was there and means REPNE.
    pub const REPNE: u8 = 4;
    /// The memory operand's segment was chosen by a prefix or the address, and `seg` is not DS/SS
    /// by default.
    pub const MEM: u8 = 8;
    /// It does nothing but load its memory operand, extended by zeroes, into `dst`.
    pub const LOAD: u8 = 16;
    /// It does nothing but store `src` in its memory operand.
    pub const STORE: u8 = 32;
    /// It does nothing but store `imm` in its memory operand.
    pub const STORE_IMMEDIATE: u8 = 64;

    /// Index of the memory operand's segment base in [`Cpu::regs`].
    #[inline(always)]
    #[must_use]
    pub fn seg_base(&self) -> u8 {
        crate::cpu::SEG_BASE + self.seg
    }

    /// Whether the instruction has a memory operand.
    #[inline(always)]
    #[must_use]
    pub fn has_mem(&self) -> bool {
        self.prefixes & Self::MEM != 0
    }
}

/// Goes on with the next operation of the block, as a tail call.
#[macro_export]
#[doc(hidden)]
macro_rules! next {
    ($cpu:ident, $rest:ident, $block:ident, $links:ident) => {
        match $rest.split_first() {
            Some((op, rest)) => (op.run)($cpu, op, rest, $block, $links),
            None => $crate::op::cut($cpu, $block),
        }
    };
}

/// The operations that were to be run are done: the run was cut short before the block's end.
#[cold]
pub fn cut(cpu: &mut Cpu, block: &Block) {
    cpu.stop_at(StopReason::Cut, 0, block);
}

/// Why a run of operations came back to the outer loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The operations given were done.
    Cut,
    /// A block boundary with the quantum used up; `Cpu::rip` is set.
    Quantum,
    /// The next block is not linked: `Cpu::rip` is set; the link to set is `Cpu::stop_link`.
    Unlinked,
    /// A memory access by a handler needs help: `Cpu::miss`. The operation has changed nothing.
    Miss,
    /// The operation wants to be done by the outer loop, with the platform at hand.
    System,
    /// The operation is complete and set `Cpu::rip`; a new block is to be looked up.
    Done,
    /// As `Done`, but the instruction is to be begun again (REP between iterations).
    Again,
    /// The operation raised `Cpu::exception`.
    Exception,
    /// The block was entered often enough to be translated.
    Warm,
    /// As `Quantum`; it ends at this block again and again.
    Hot,
    /// The operation, which has changed nothing, leads to a translated block at `Cpu::native.target`
    /// that translated code does not know of.
    Jump,
    /// The operation, which has changed nothing, is of a block that is to be translated anew.
    Anew,
    /// The operation, which was not begun, is where translated code was to be left.
    AtCut,
    /// The operation needs a value of a device: `Cpu::mmio_wanted`.
    MmioRead,
}

/// The first operation of a block that may be translated: counts how often the block is entered.
pub fn count(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    match block.cold.get() {
        0 => cpu.stop_at(StopReason::Warm, rest.len(), block),
        cold => {
            block.cold.set(cold - 1);
            next!(cpu, rest, block, links)
        }
    }
}

/// Runs an instruction through its [`GeneralFn`] and goes on in the block.
pub fn general(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    cpu.rip = block.rip.wrapping_add(op.off as u64);
    if (op.general)(cpu, op).is_err() || cpu.leave {
        return stopped(cpu, op, rest, block);
    }
    next!(cpu, rest, block, links)
}

#[cold]
fn stopped(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block) {
    if cpu.stop == StopReason::Cut {
        cpu.stop = StopReason::Done;
        cpu.next_rip = cpu.rip_after(block, op);
    }
    cpu.stop_at(cpu.stop, rest.len(), block);
}

/// Runs an instruction that ends its block through its [`GeneralFn`]: one that may change RIP, the
/// mode, or what the processor attends to. It finds the address of the next instruction in
/// `Cpu::next_rip` and may change it. If nothing is to be done before that one, it is gone on with.
pub fn general_end(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    cpu.rip = block.rip.wrapping_add(op.off as u64);
    cpu.next_rip = cpu.rip.wrapping_add(u64::from(op.len)) & cpu.ip_mask;
    match (op.general)(cpu, op) {
        Ok(()) if cpu.goes_on(block) => follow_indirect(cpu, cpu.next_rip, block, links),
        Ok(()) => cpu.stop_at(StopReason::Done, rest.len(), block),
        Err(Stop) => cpu.stop_at(cpu.stop, rest.len(), block),
    }
}

const _: () = assert!(size_of::<Op>() == 48);

/// Leaves an instruction to its block's [`SystemFn`].
pub fn system(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, _: &BlockCache) {
    cpu.stop_at(StopReason::System, rest.len(), block);
}

/// The [`GeneralFn`] of operations that have none.
pub fn no_general(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    Err(cpu.raise(trivium_cpu::Exception::ud()))
}
