//! Control and status words, initialisation, and the stack pointer.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::cr0;
use trivium_cpu::{Exception, Vector};
use trivium_host_fpu::x87::{control, status};

use super::{BUSY, EMPTY};
use crate::cpu::Cpu;
use crate::decode::{Context, Selection};
use crate::op::{GeneralFn, Op, Stop};

/// Bits of the control word that exist, and the one that is always set.
pub const CONTROL_MASK: u16 = 0x1f3f;
pub const CONTROL_FIXED: u16 = 0x40;

/// What instructions do first that do not wait for earlier exceptions.
pub fn begin_no_wait(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.x87_blocked {
        return Err(cpu.raise(Exception::plain(Vector::NM)));
    }
    Ok(())
}

/// The state after FNINIT. Intel SDM vol. 2, FINIT.
pub fn initialise(cpu: &mut Cpu) {
    let x87 = &mut cpu.x87;
    x87.control = control::INIT;
    x87.status = 0;
    x87.tags = 0xffff;
    x87.last_ip = 0;
    x87.last_cs = 0;
    x87.last_dp = 0;
    x87.last_ds = 0;
    x87.last_opcode = 0;
}

fn fninit(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)?;
    initialise(cpu);
    cpu.x87_release_ferr();
    Ok(())
}

fn fnclex(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)?;
    cpu.x87.status &= !(status::EXCEPTIONS | status::SF | status::ES | BUSY);
    cpu.x87_release_ferr();
    Ok(())
}

fn fnstcw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)?;
    let word = cpu.x87.control;
    cpu.store_operand(op, word)
}

fn fldcw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    let word: u16 = cpu.load_operand(op)?;
    cpu.x87.control = word & CONTROL_MASK | CONTROL_FIXED;
    cpu.x87_update_summary();
    Ok(())
}

fn fnstsw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)?;
    let word = cpu.x87.status;
    if op.has_mem() {
        return cpu.store_operand(op, word);
    }
    cpu.set_reg(0, 0, 2, word.into());
    Ok(())
}

/// WAIT: #NM if CR0.MP and CR0.TS are both set, whatever CR0.EM is.
fn wait(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    let both = cr0::MP | cr0::TS;
    if cpu.control.cr0 & both == both {
        return Err(cpu.raise(Exception::plain(Vector::NM)));
    }
    cpu.x87_check_pending()
}

fn fnop(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    Ok(())
}

/// FNENI, FNDISI and FNSETPM did something on the 8087 and 80287. Intel SDM vol. 3B, 23.18.
fn nothing(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    begin_no_wait(cpu)
}

fn turn<const BY: u8>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    cpu.x87_set_top(cpu.x87_top().wrapping_add(BY));
    cpu.x87.status &= !status::C1;
    Ok(())
}

/// FFREE and FFREEP, which is in no manual.
fn free<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.x87_begin()?;
    cpu.x87_note(op);
    let register = cpu.x87_physical(op.dst);
    cpu.x87_set_tag(register, EMPTY);
    cpu.x87.status &= !status::C1;
    if POP {
        cpu.x87_pop();
    }
    Ok(())
}

/// Chooses handlers for the instructions of this part.
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let function: GeneralFn = match i.mnemonic() {
        M::Fninit => fninit,
        M::Fnclex => fnclex,
        M::Fnstcw => fnstcw,
        M::Fldcw => fldcw,
        M::Fnstsw => fnstsw,
        M::Wait => wait,
        M::Fnop => fnop,
        M::Fneni | M::Fndisi | M::Fnsetpm => nothing,
        M::Fincstp => turn::<1>,
        M::Fdecstp => turn::<7>,
        M::Ffree => free::<false>,
        M::Ffreep => free::<true>,
        _ => return None,
    };
    Some(Selection::general(context.op(i), function))
}
