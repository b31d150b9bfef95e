//! What changes RFLAGS: PUSHF, POPF, CLI, STI, CLAC, STAC, and the instructions on single flags.
//!
//! Intel SDM vol. 2, PUSHF, POPF, CLI, STI; vol. 3A, 20.3 and 20.4.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_cpu::bits::{cr4, rflags};
use trivium_cpu::model::Feature;

use super::iret::{guarded_flags, load_flags, set_virtual_interrupts};
use crate::block::{Block, BlockCache};
use crate::cpu::{Cpu, Mode};
use crate::decode::{Context, Selection};
use crate::next;
use crate::op::{Op, Stop};

fn gp(cpu: &mut Cpu) -> Stop {
    cpu.raise(Exception::gp(0))
}

/// Virtual-8086 code of IOPL below 3: CR4.VME decides.
fn v86_restricted(cpu: &Cpu) -> bool {
    cpu.v86() && cpu.iopl() < 3
}

fn has_cr4(cpu: &Cpu, bit: u64) -> bool {
    cpu.control.cr4 & bit != 0
}

fn pushf(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mut flags = cpu.rflags() & !(rflags::VM | rflags::RF);
    if v86_restricted(cpu) {
        if !has_cr4(cpu, cr4::VME) || op.size != 2 {
            return Err(gp(cpu));
        }
        // The program sees its virtual interrupt flag, and IOPL 3.
        let virtual_if = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
        flags = flags & !rflags::IF | rflags::IOPL | virtual_if;
    }
    cpu.push(flags, op.size)
}

fn popf(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let unchanged = rflags::VM | rflags::VIF | rflags::VIP;
    if !v86_restricted(cpu) {
        let value = cpu.peek(0, op.size)?;
        let kept = guarded_flags(cpu) | unchanged;
        cpu.drop_stack(op.size.into());
        load_flags(cpu, value, op.size, kept);
        return Ok(());
    }
    if !has_cr4(cpu, cr4::VME) || op.size != 2 {
        return Err(gp(cpu));
    }
    let value = cpu.peek(0, 2)?;
    let pending = cpu.system_flags & rflags::VIP != 0;
    if value & rflags::TF != 0 || value & rflags::IF != 0 && pending {
        return Err(gp(cpu));
    }
    cpu.drop_stack(2);
    load_flags(cpu, value, 2, unchanged | rflags::IF | rflags::IOPL);
    set_virtual_interrupts(cpu, value & rflags::IF != 0);
    Ok(())
}

/// Which flag CLI and STI change.
enum Target {
    Real,
    Virtual,
}

/// Intel SDM vol. 2, tables of CLI and STI.
fn target(cpu: &mut Cpu) -> Result<Target, Stop> {
    let allowed = !cpu.protected() || cpu.cpl() <= cpu.iopl();
    let bit = if cpu.v86() { cr4::VME } else { cr4::PVI };
    if allowed {
        Ok(Target::Real)
    } else if cpu.cpl() == 3 && has_cr4(cpu, bit) {
        Ok(Target::Virtual)
    } else {
        Err(gp(cpu))
    }
}

fn cli(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    match target(cpu)? {
        Target::Real => cpu.system_flags &= !rflags::IF,
        Target::Virtual => set_virtual_interrupts(cpu, false),
    }
    Ok(())
}

fn sti(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    match target(cpu)? {
        Target::Real if cpu.system_flags & rflags::IF == 0 => {
            cpu.system_flags |= rflags::IF;
            cpu.interrupt_shadow = true;
            cpu.look = true;
        }
        Target::Real => {}
        Target::Virtual if cpu.system_flags & rflags::VIP != 0 => return Err(gp(cpu)),
        Target::Virtual => set_virtual_interrupts(cpu, true),
    }
    Ok(())
}

/// CLAC and STAC change the rights of data accesses; code is none the wiser.
fn set_ac(cpu: &mut Cpu, on: bool) -> Result<(), Stop> {
    if !cpu.model.has(Feature::Smap) || !cpu.mode.has(Mode::PROTECTED) && cpu.protected() {
        return Err(cpu.raise(Exception::ud()));
    }
    if cpu.cpl() > 0 {
        return Err(cpu.raise(Exception::ud()));
    }
    let flags = cpu.system_flags & !rflags::AC;
    cpu.system_flags = flags | if on { rflags::AC } else { 0 };
    cpu.update_mode();
    Ok(())
}

fn clac(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    set_ac(cpu, false)
}

fn stac(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    set_ac(cpu, true)
}

/// CLC, STC and CMC; `aux` is what to do with CF: AND it, then XOR it.
fn carry<const AND: bool, const XOR: bool>(
    cpu: &mut Cpu,
    _: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let carry = AND && cpu.flags.cf();
    let value = if carry != XOR { rflags::CF } else { 0 };
    cpu.flags.set_some(rflags::CF, value);
    next!(cpu, rest, block, links)
}

fn cld(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    cpu.system_flags &= !rflags::DF;
    next!(cpu, rest, block, links)
}

fn std(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    cpu.system_flags |= rflags::DF;
    next!(cpu, rest, block, links)
}

/// SF, ZF, AF, PF and CF.
const LOW_STATUS: u64 = rflags::STATUS & 0xff;

fn require_lahf(cpu: &mut Cpu) -> Result<(), Stop> {
    match cpu.code64() && !cpu.model.has(Feature::LahfLm) {
        true => Err(cpu.raise(Exception::ud())),
        false => Ok(()),
    }
}

fn lahf(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_lahf(cpu)?;
    let flags = cpu.flags.get() & LOW_STATUS | rflags::FIXED;
    cpu.set_reg(0, 8, 1, flags);
    Ok(())
}

fn sahf(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_lahf(cpu)?;
    let value = cpu.reg(0, 8, 1);
    cpu.flags.set_some(LOW_STATUS, value);
    Ok(())
}

fn sized(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    op.size = match i.code() {
        Code::Pushfw | Code::Popfw => 2,
        Code::Pushfd | Code::Popfd => 4,
        _ => 8,
    };
    op
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let op = || context.op(i);
    Some(match i.mnemonic() {
        M::Pushf | M::Pushfd | M::Pushfq => Selection::general(sized(i, context), pushf),
        M::Popf | M::Popfd | M::Popfq => Selection::general_end(sized(i, context), popf),
        // Nothing waits for CLI: interrupts come between blocks only.
        M::Cli => Selection::general(op(), cli),
        M::Sti => Selection::general_end(op(), sti),
        M::Clac => Selection::general(op(), clac),
        M::Stac => Selection::general(op(), stac),
        M::Clc => Selection::register(op(), carry::<false, false>),
        M::Stc => Selection::register(op(), carry::<false, true>),
        M::Cmc => Selection::register(op(), carry::<true, true>),
        M::Cld => Selection::register(op(), cld),
        M::Std => Selection::register(op(), std),
        M::Lahf => Selection::general(op(), lahf),
        M::Sahf => Selection::general(op(), sahf),
        _ => return None,
    })
}
