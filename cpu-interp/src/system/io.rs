//! IN, OUT, INS, OUTS, HLT, and what does nothing here: NOP, fences, prefetches.
//!
//! Intel SDM vol. 1, chapter 19; vol. 2.

use iced_x86::{Code, Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::rflags;
use trivium_cpu::state::Activity;
use trivium_cpu::{CpuBus, Exception};

use super::interrupt::is_wide_tss;
use super::software::IO_MAP;
use crate::block::{Block, BlockCache};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::next;
use crate::op::{Op, Stop, StopReason};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;
/// Number of ES.
const ES: u8 = 0;

/// Iterations of INS or OUTS before a look at what others want.
const CHUNK: u32 = 4096;

impl Cpu {
    /// Whether the program may use a port: by IOPL, else by the map in the TSS. Intel SDM vol. 1,
    /// 19.5.2.
    ///
    /// # Errors
    /// #GP(0), #PF.
    fn check_port(&mut self, port: u16, width: u8) -> Result<(), Stop> {
        let free = !self.protected() || !self.v86() && self.cpl() <= self.iopl();
        if free || self.map_allows(port, width)? {
            return Ok(());
        }
        Err(self.raise(Exception::gp(0)))
    }

    fn map_allows(&mut self, port: u16, width: u8) -> Result<bool, Stop> {
        let tr = self.segments.tr;
        if !is_wide_tss(&tr) || tr.limit < 103 {
            return Ok(false);
        }
        let at = self.table_address(tr.base, IO_MAP);
        let map = self.load_linear::<u16>(at, Rights::Processor)?;
        let offset = u64::from(map) + u64::from(port / 8);
        // Two bytes are read always, so that the ports of one access may be in both.
        if offset + 1 > tr.limit.into() {
            return Ok(false);
        }
        let at = self.table_address(tr.base, offset);
        let bits = self.load_linear::<u16>(at, Rights::Processor)?;
        let mask = (1_u16 << width.min(8)) - 1;
        Ok(bits >> (port & 7) & mask == 0)
    }
}

/// The port: immediate, or DX if `aux` is set.
fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.aux != 0 { cpu.reg(RDX, 0, 2) as u16 } else { op.imm as u16 & 0xff }
}

fn port_in(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let port = port(cpu, op);
    cpu.check_port(port, op.size)?;
    let value = bus.pio_read(port, op.size);
    cpu.set_reg(RAX, 0, op.size, value.into());
    Ok(())
}

fn port_out(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    let port = port(cpu, op);
    cpu.check_port(port, op.size)?;
    bus.pio_write(port, op.size, cpu.reg(RAX, 0, op.size) as u32);
    // The port may have made an interrupt come or go.
    cpu.look = true;
    Ok(())
}

/// RSI, RDI or RCX as far as the address size goes.
fn counter(cpu: &Cpu, register: u8, op: &Op) -> u64 {
    cpu.regs[usize::from(register)] & address_mask(op.asize)
}

fn advance(cpu: &mut Cpu, register: u8, op: &Op) {
    let step = u64::from(op.size);
    let down = cpu.system_flags & rflags::DF != 0;
    let old = counter(cpu, register, op);
    let new = if down { old.wrapping_sub(step) } else { old.wrapping_add(step) };
    cpu.set_reg(register, 0, op.asize, new & address_mask(op.asize));
}

fn one_in(cpu: &mut Cpu, op: &Op, port: u16, bus: &dyn CpuBus) -> Result<(), Stop> {
    let at = counter(cpu, RDI, op);
    let linear = cpu.linear(ES, at, op.size.into(), true)?;
    cpu.probe(linear, op.size.into(), true, Rights::Program)?;
    let value = bus.pio_read(port, op.size);
    cpu.store_sized(ES, at, op.size, value.into())?;
    advance(cpu, RDI, op);
    Ok(())
}

fn one_out(cpu: &mut Cpu, op: &Op, port: u16, bus: &dyn CpuBus) -> Result<(), Stop> {
    let value = cpu.load_sized(op.seg, counter(cpu, RSI, op), op.size)?;
    bus.pio_write(port, op.size, value as u32);
    advance(cpu, RSI, op);
    Ok(())
}

type One = fn(&mut Cpu, &Op, u16, &dyn CpuBus) -> Result<(), Stop>;

/// Does one iteration, or with REP as many as RCX says, stopping now and then.
fn repeat(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus, one: One) -> Result<(), Stop> {
    let port = cpu.reg(RDX, 0, 2) as u16;
    let repeats = op.prefixes & (Op::REP | Op::REPNE) != 0;
    if repeats && counter(cpu, RCX, op) == 0 {
        return Ok(());
    }
    cpu.check_port(port, op.size)?;
    cpu.look = true;
    if !repeats {
        return one(cpu, op, port, bus);
    }
    for done in 0..CHUNK {
        match one(cpu, op, port, bus) {
            Ok(()) => {}
            // What was loaded from devices is counted from where the instruction was begun.
            Err(Stop) if done > 0 && cpu.stop == StopReason::MmioRead => break,
            Err(Stop) => return Err(Stop),
        }
        let left = counter(cpu, RCX, op).wrapping_sub(1) & address_mask(op.asize);
        cpu.set_reg(RCX, 0, op.asize, left);
        if left == 0 {
            return Ok(());
        }
        if cpu.attention.is_wanted() {
            break;
        }
    }
    cpu.stop = StopReason::Again;
    Err(Stop)
}

fn ins(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    repeat(cpu, op, bus, one_in)
}

fn outs(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    repeat(cpu, op, bus, one_out)
}

fn hlt(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    cpu.activity = Activity::Halted;
    cpu.look = true;
    Ok(())
}

fn nop(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    next!(cpu, rest, block, links)
}

/// IN and OUT: the port is in operand `n`.
fn with_port(i: &Instruction, context: &Context, n: u32) -> Op {
    let mut op = context.op(i);
    op.aux = u8::from(i.op_kind(n) == OpKind::Register);
    let data = i.op_register(1 - n);
    op.size = data.size() as u8;
    op
}

/// INS and OUTS: the address size is that of the string operand.
fn with_string(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    op.size = i.memory_size().size() as u8;
    for n in 0..i.op_count() {
        op.asize = match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => 2,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => 8,
            _ => continue,
        };
    }
    op
}

/// Hints and fences: memory is in order, and nothing is done ahead of time. RDSSP is a NOP without
/// shadow stacks.
fn is_nop(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        i.mnemonic(),
        M::Nop
            | M::Pause
            | M::Endbr32
            | M::Endbr64
            | M::Rdsspd
            | M::Rdsspq
            | M::Lfence
            | M::Mfence
            | M::Sfence
            | M::Prefetch
            | M::Prefetchw
            | M::Prefetchwt1
            | M::Prefetchnta
            | M::Prefetcht0
            | M::Prefetcht1
            | M::Prefetcht2
            | M::Reservednop
    )
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    if is_nop(i) && i.code() != Code::INVALID {
        return Some(Selection::register(context.op(i), nop));
    }
    Some(match i.mnemonic() {
        M::In => Selection::system(with_port(i, context, 1), port_in),
        M::Out => Selection::system(with_port(i, context, 0), port_out),
        M::Insb | M::Insw | M::Insd => Selection::system(with_string(i, context), ins),
        M::Outsb | M::Outsw | M::Outsd => Selection::system(with_string(i, context), outs),
        M::Hlt => Selection::general_end(context.op(i), hlt),
        M::Monitor | M::Mwait => crate::ops::control::undefined(),
        _ => return None,
    })
}
