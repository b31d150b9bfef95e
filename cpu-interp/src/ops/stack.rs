//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE, and how the stack is reached in every mode.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_cpu::model::Quirk;

use super::branch::{SS, below};
use crate::block::{Block, BlockCache};
use crate::cpu::{Cpu, Mode, RSP};
use crate::decode::{Context, Selection};
use crate::mem::{Addressing, Int, Rights, address_mask};
use crate::op::{Op, Stop};
use crate::{load, load_at, next, pick_address, store_at};

const RBP: u8 = 5;

impl Cpu {
    /// The stack pointer as far as the stack segment uses it.
    #[must_use]
    pub fn stack_pointer(&self) -> u64 {
        self.regs[usize::from(RSP)] & self.stack_mask
    }

    /// Sets the stack pointer as far as the stack segment uses it.
    pub fn set_stack_pointer(&mut self, value: u64) {
        let mask = self.stack_mask;
        let sp = &mut self.regs[usize::from(RSP)];
        // ESP is zero-extended in 64-bit registers; SP leaves the rest.
        *sp = if mask == 0xffff { *sp & !mask | value & mask } else { value & mask };
    }

    /// Pushes a value of `size` bytes (2, 4 or 8). Nothing is changed if it faults.
    ///
    /// # Errors
    /// #SS(0), #PF.
    pub fn push(&mut self, value: u64, size: u8) -> Result<(), Stop> {
        let sp = self.stack_pointer().wrapping_sub(u64::from(size)) & self.stack_mask;
        self.store_sized(SS, sp, size, value)?;
        self.set_stack_pointer(sp);
        Ok(())
    }

    /// The value of `size` bytes at `offset` bytes above the top of the stack.
    ///
    /// # Errors
    /// #SS(0), #PF.
    pub fn peek(&mut self, offset: u64, size: u8) -> Result<u64, Stop> {
        let sp = self.stack_pointer().wrapping_add(offset) & self.stack_mask;
        self.load_sized(SS, sp, size)
    }

    /// Takes `bytes` off the stack.
    pub fn drop_stack(&mut self, bytes: u64) {
        self.set_stack_pointer(self.stack_pointer().wrapping_add(bytes));
    }
}

fn push_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sp = below::<T>(cpu);
    let value = T::get(cpu, op.dst, 0);
    store_at!(T, sp, T::of(value), cpu, SS, rest, block);
    cpu.regs[usize::from(RSP)] = sp;
    next!(cpu, rest, block, links)
}

fn push_imm<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sp = below::<T>(cpu);
    store_at!(T, sp, T::of(op.imm), cpu, SS, rest, block);
    cpu.regs[usize::from(RSP)] = sp;
    next!(cpu, rest, block, links)
}

fn push_mem<A: Addressing, T: Int>(
    cpu: &mut Cpu,
    op: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let value = load!(A, T, cpu, op, rest, block);
    let sp = below::<T>(cpu);
    store_at!(T, sp, value, cpu, SS, rest, block);
    cpu.regs[usize::from(RSP)] = sp;
    next!(cpu, rest, block, links)
}

fn pop_reg<T: Int>(cpu: &mut Cpu, op: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sp = cpu.regs[usize::from(RSP)] & T::MASK;
    let value: u64 = load_at!(T, sp, cpu, SS, rest, block).into();
    cpu.regs[usize::from(RSP)] = sp.wrapping_add(T::BYTES as u64) & T::MASK;
    T::set(cpu, op.dst, 0, value);
    next!(cpu, rest, block, links)
}

fn leave<T: Int>(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    let sp = cpu.regs[usize::from(RBP)] & T::MASK;
    let value: u64 = load_at!(T, sp, cpu, SS, rest, block).into();
    cpu.regs[usize::from(RSP)] = sp.wrapping_add(T::BYTES as u64) & T::MASK;
    T::set(cpu, RBP, 0, value);
    next!(cpu, rest, block, links)
}

/// For [`Op::aux`] of the general PUSH: what is pushed.
mod operand {
    pub const REG: u8 = 0;
    pub const IMM: u8 = 1;
    pub const MEM: u8 = 2;
    pub const SEG: u8 = 3;
}

fn general_push(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = match op.aux {
        operand::REG => cpu.reg(op.dst, 0, op.size),
        operand::IMM => op.imm,
        operand::MEM => cpu.load_sized(op.seg, cpu.offset(op), op.size)?,
        _ => u64::from(cpu.segments.regs[usize::from(op.dst) % 6].selector),
    };
    if op.aux == operand::SEG && op.size == 4 && cpu.model.does(Quirk::PushSegmentWritesWord) {
        // Intel's processors since the P6 write only the selector's two bytes of the slot (SDM
        // vol. 2, PUSH); AMD's extend it with zeroes (APM vol. 3, PUSH).
        let sp = cpu.stack_pointer().wrapping_sub(4) & cpu.stack_mask;
        cpu.store_sized(SS, sp, 2, value)?;
        cpu.set_stack_pointer(sp);
        return Ok(());
    }
    cpu.push(value, op.size)
}

fn general_pop(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = cpu.peek(0, op.size)?;
    if !op.has_mem() {
        cpu.drop_stack(u64::from(op.size));
        cpu.set_reg(op.dst, 0, op.size, value);
        return Ok(());
    }
    // The address of the destination is computed with the stack pointer as it is afterwards.
    let before = cpu.regs[usize::from(RSP)];
    cpu.drop_stack(u64::from(op.size));
    let offset = cpu.offset(op);
    let stored = cpu.store_sized(op.seg, offset, op.size, value);
    if stored.is_err() {
        cpu.regs[usize::from(RSP)] = before;
    }
    stored
}

fn general_leave(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let frame = cpu.regs[usize::from(RBP)] & cpu.stack_mask;
    let value = cpu.load_sized(SS, frame, op.size)?;
    cpu.set_stack_pointer(frame.wrapping_add(u64::from(op.size)));
    cpu.set_reg(RBP, 0, op.size, value);
    Ok(())
}

fn pusha(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let (sp, size) = (cpu.stack_pointer(), u64::from(op.size));
    let slot = |n: u64, cpu: &Cpu| sp.wrapping_sub(size * (n + 1)) & cpu.stack_mask;
    for n in [0, 7] {
        let at = slot(n, cpu);
        let linear = cpu.linear(SS, at, size, true)?;
        cpu.probe(linear, size, true, Rights::Program)?;
    }
    for n in 0..8_u8 {
        // Of the stack pointer all is pushed, however much of it the stack uses.
        let value = cpu.regs[usize::from(n)];
        let at = slot(u64::from(n), cpu);
        cpu.store_sized(SS, at, op.size, value)?;
    }
    cpu.set_stack_pointer(sp.wrapping_sub(8 * size));
    Ok(())
}

fn popa(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mut values = [0; 8];
    for (slot, value) in (0_u64..).zip(values.iter_mut().rev()) {
        *value = cpu.peek(u64::from(op.size) * slot, op.size)?;
    }
    for (n, value) in (0_u8..).zip(values) {
        if n != RSP {
            cpu.set_reg(n, 0, op.size, value);
        }
    }
    cpu.drop_stack(8 * u64::from(op.size));
    Ok(())
}

/// ENTER: `imm` bytes of locals, `aux` (0 to 31) levels of nesting. Intel SDM vol. 2, ENTER.
fn enter(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let (size, mask) = (u64::from(op.size), cpu.stack_mask);
    let level = u64::from(op.aux % 32);
    let sp = cpu.stack_pointer();
    let rbp = cpu.regs[usize::from(RBP)];
    let frame = sp.wrapping_sub(size) & mask;
    // The frame's address is the whole stack pointer, however much of it the stack uses.
    let pointer = cpu.regs[usize::from(RSP)] & !mask | frame;
    // A fault leaves what was pushed before it below the stack pointer, as on a real processor.
    cpu.store_sized(SS, frame, op.size, rbp)?;
    for n in 1..=level {
        let value = match n == level {
            true => pointer,
            false => cpu.load_sized(SS, rbp.wrapping_sub(size * n) & mask, op.size)?,
        };
        cpu.store_sized(SS, frame.wrapping_sub(size * n) & mask, op.size, value)?;
    }
    let last = sp.wrapping_sub(size * (level + 1) + (op.imm & 0xffff)) & mask;
    let linear = cpu.linear(SS, last, 1, true)?;
    cpu.check_alignment(linear, size)?;
    cpu.probe(linear, 1, true, Rights::Program)?;
    cpu.set_reg(RBP, 0, op.size, pointer & address_mask(op.size));
    cpu.set_stack_pointer(last);
    Ok(())
}

/// The size of a stack slot that a PUSH or POP uses, in bytes.
fn slot_size(i: &Instruction) -> u8 {
    i.stack_pointer_increment().unsigned_abs() as u8
}

/// Whether the fast forms serve: the stack is flat and slots of this size are its usual ones.
fn is_plain(context: &Context, size: u8) -> bool {
    let mode = context.mode;
    match size {
        8 => mode.has(Mode::LONG),
        4 => !mode.has(Mode::LONG) && mode.has(Mode::FLAT) && mode.has(Mode::STACK32),
        _ => false,
    }
}

fn select_push(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    op.size = slot_size(i);
    op.aux = match i.op0_kind() {
        OpKind::Register if i.op0_register().is_segment_register() => operand::SEG,
        OpKind::Register => operand::REG,
        OpKind::Memory => operand::MEM,
        _ => operand::IMM,
    };
    let kind = context.address_kind(&op);
    if !is_plain(context, op.size) {
        return Selection::general(op, general_push);
    }
    let run: crate::op::Handler = match (op.aux, op.size) {
        (operand::REG, 8) => push_reg::<u64>,
        (operand::REG, _) => push_reg::<u32>,
        (operand::IMM, 8) => push_imm::<u64>,
        (operand::IMM, _) => push_imm::<u32>,
        (operand::MEM, 8) => pick_address!(kind, push_mem, u64),
        (operand::MEM, _) => pick_address!(kind, push_mem, u32),
        _ => return Selection::general(op, general_push),
    };
    Selection::memory(op, run)
}

fn select_pop(i: &Instruction, context: &Context) -> Option<Selection> {
    if i.op0_register().is_segment_register() {
        return None;
    }
    let mut op = context.op(i);
    op.size = slot_size(i);
    if op.has_mem() || !is_plain(context, op.size) {
        return Some(Selection::general(op, general_pop));
    }
    let wide = op.size == 8;
    Some(Selection::memory(op, if wide { pop_reg::<u64> } else { pop_reg::<u32> }))
}

fn select_leave(i: &Instruction, context: &Context) -> Selection {
    let mut op = context.op(i);
    op.size = match i.code() {
        Code::Leavew => 2,
        Code::Leaved => 4,
        _ => 8,
    };
    match op.size {
        size if !is_plain(context, size) => Selection::general(op, general_leave),
        8 => Selection::memory(op, leave::<u64>),
        _ => Selection::memory(op, leave::<u32>),
    }
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let sized = |size: u8| {
        let mut op = context.op(i);
        op.size = size;
        op
    };
    Some(match i.mnemonic() {
        M::Push => select_push(i, context),
        M::Pop => return select_pop(i, context),
        M::Leave => select_leave(i, context),
        M::Pusha => Selection::general(sized(2), pusha),
        M::Pushad => Selection::general(sized(4), pusha),
        M::Popa => Selection::general(sized(2), popa),
        M::Popad => Selection::general(sized(4), popa),
        M::Enter => {
            let size = match i.code() {
                Code::Enterw_imm16_imm8 => 2,
                Code::Enterd_imm16_imm8 => 4,
                _ => 8,
            };
            Selection::general(sized(size), enter)
        }
        _ => return None,
    })
}
