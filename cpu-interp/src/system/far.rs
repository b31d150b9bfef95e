//! Far JMP, CALL and RET: direct, through call gates, and to tasks.
//!
//! Intel SDM vol. 2, JMP, CALL, RET; vol. 3A, 5.8.

use iced_x86::{Code, Instruction, OpKind};
use trivium_cpu::state::{CS, SS, Segment, SegmentAttributes as A};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Descriptor, Selector, fault, kind};
use super::iret::{checked_return, leave_to, outer_stack};
use super::segments::{real_segment, v86_segment};
use super::stack::{Stack, null_segment};
use super::task::{self, Switch};
use crate::cpu::{Cpu, Mode, RSP};
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

/// The target of a far transfer, as the instruction has it.
#[derive(Clone, Copy)]
struct Target {
    selector: Selector,
    rip: u64,
}

/// Immediate: `disp` is the selector, `imm` the offset. Else memory.
fn target(cpu: &mut Cpu, op: &Op) -> Result<Target, Stop> {
    if !op.has_mem() {
        return Ok(Target { selector: Selector(op.disp as u16), rip: op.imm });
    }
    let at = cpu.offset(op);
    let rip = cpu.load_sized(op.seg, at, op.size)?;
    let next = at.wrapping_add(op.size.into()) & address_mask(op.asize);
    let selector = Selector(cpu.load_seg::<u16>(op.seg, next)?);
    Ok(Target { selector, rip })
}

/// The code segment at `selector` in real and virtual-8086 mode.
fn plain_code(cpu: &mut Cpu, target: Target) -> Result<Segment, Stop> {
    let old = cpu.segments.regs[CS];
    let cs = match cpu.v86() {
        true => v86_segment(target.selector.0),
        false => real_segment(&old, CS, target.selector.0),
    };
    match target.rip > cs.limit.into() {
        true => Err(cpu.raise(Exception::gp(0))),
        false => Ok(cs),
    }
}

fn go(cpu: &mut Cpu, cs: Segment, rip: u64) {
    cpu.segments.regs[CS] = cs;
    cpu.next_rip = rip;
    cpu.update_mode();
}

fn jmp(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = target(cpu, op)?;
    if !cpu.mode.has(Mode::PROTECTED) {
        let cs = plain_code(cpu, target)?;
        go(cpu, cs, target.rip);
        return Ok(());
    }
    let descriptor = cpu.descriptor_or(target.selector, Vector::GP, 0)?;
    let (cs, rip) = match descriptor.system_kind() {
        None => (direct(cpu, descriptor, target.rip)?, target.rip),
        Some(k) if is_call_gate(cpu, k) => {
            let gate = open_gate(cpu, &descriptor)?;
            if gate.inner {
                return Err(fault(cpu, Vector::GP, Selector(gate.cs.selector), 0));
            }
            (gate.cs, gate.rip)
        }
        Some(k) => return to_task(cpu, &descriptor, k, Switch::Jump),
    };
    go(cpu, cs, rip);
    Ok(())
}

/// A code segment reached without a gate, for JMP and CALL.
fn direct(cpu: &mut Cpu, mut descriptor: Descriptor, rip: u64) -> Result<Segment, Stop> {
    let (selector, cpl) = (descriptor.selector, cpu.cpl());
    let reachable = match descriptor.is_conforming() {
        true => descriptor.dpl() <= cpl,
        false => selector.rpl() <= cpl && descriptor.dpl() == cpl,
    };
    let both = cpu.long_mode() && descriptor.has(A::L | A::DB);
    if !descriptor.is_code() || !reachable || both {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, 0));
    }
    let segment = descriptor.segment(selector.with_rpl(cpl));
    cpu.check_target(&segment, rip)?;
    cpu.mark_accessed(&mut descriptor)?;
    Ok(segment)
}

fn is_call_gate(cpu: &Cpu, kind: u8) -> bool {
    kind == kind::CALL_GATE32 || kind == kind::CALL_GATE16 && !cpu.long_mode()
}

/// A call gate that may be used, and where it leads.
struct Gate {
    /// The code segment, RPL being the privilege that it is entered with.
    cs: Segment,
    rip: u64,
    /// It leads to a more privileged level.
    inner: bool,
    /// Size of what is pushed, in bytes.
    size: u8,
    /// Parameters to be copied, of `size` bytes each.
    parameters: u8,
}

/// Checks a call gate and the code segment behind it.
fn open_gate(cpu: &mut Cpu, gate: &Descriptor) -> Result<Gate, Stop> {
    let (cpl, long) = (cpu.cpl(), cpu.long_mode());
    if gate.dpl() < cpl.max(gate.selector.rpl()) {
        return Err(fault(cpu, Vector::GP, gate.selector, 0));
    }
    if !gate.present() {
        return Err(fault(cpu, Vector::NP, gate.selector, 0));
    }
    let upper = if long { cpu.upper_half(gate, Vector::GP)? } else { 0 };
    let selector = gate.gate_selector();
    let mut descriptor = cpu.descriptor_or(selector, Vector::GP, 0)?;
    let bad_mode = long && descriptor.attributes().0 & (A::L | A::DB) != A::L;
    if !descriptor.is_code() || descriptor.dpl() > cpl || bad_mode {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, 0));
    }
    let inner = !descriptor.is_conforming() && descriptor.dpl() < cpl;
    let size = match (long, gate.attributes().kind()) {
        (true, _) => 8,
        (_, kind::CALL_GATE32) => 4,
        _ => 2,
    };
    let rip = (gate.gate_offset() | upper) & address_mask(size);
    let level = if inner { descriptor.dpl() } else { cpl };
    let cs = descriptor.segment(selector.with_rpl(level));
    cpu.check_target(&cs, rip)?;
    cpu.mark_accessed(&mut descriptor)?;
    let parameters = if long { 0 } else { (gate.raw >> 32 & 31) as u8 };
    Ok(Gate { cs, rip, inner, size, parameters })
}

/// Through a task gate or to a TSS. Intel SDM vol. 3A, 7.3.
fn to_task(cpu: &mut Cpu, descriptor: &Descriptor, kind: u8, switch: Switch) -> Result<(), Stop> {
    let selector = descriptor.selector;
    let known = matches!(kind, kind::TASK_GATE | kind::TSS16 | kind::TSS32);
    let privilege = selector.rpl().max(cpu.cpl());
    if cpu.long_mode() || !known || descriptor.dpl() < privilege {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, 0));
    }
    let tss = if kind == kind::TASK_GATE { descriptor.gate_selector() } else { selector };
    task::switch_to(cpu, tss, switch)
}

fn call(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let target = target(cpu, op)?;
    if !cpu.mode.has(Mode::PROTECTED) {
        let cs = plain_code(cpu, target)?;
        return push_and_go(cpu, op.size, cs, target.rip);
    }
    let descriptor = cpu.descriptor_or(target.selector, Vector::GP, 0)?;
    match descriptor.system_kind() {
        None => {
            let cs = direct(cpu, descriptor, target.rip)?;
            push_and_go(cpu, op.size, cs, target.rip)
        }
        Some(k) if is_call_gate(cpu, k) => {
            let gate = open_gate(cpu, &descriptor)?;
            match gate.inner {
                true => call_inner(cpu, &gate),
                false => push_and_go(cpu, gate.size, gate.cs, gate.rip),
            }
        }
        Some(k) => to_task(cpu, &descriptor, k, Switch::Call),
    }
}

fn push_and_go(cpu: &mut Cpu, size: u8, cs: Segment, rip: u64) -> Result<(), Stop> {
    let stack = Stack::present(cpu, 0);
    let frame = [cpu.segments.regs[CS].selector.into(), cpu.next_rip];
    let sp = cpu.push_all(&stack, size, &frame)?;
    cpu.set_stack_pointer(sp);
    go(cpu, cs, rip);
    Ok(())
}

/// Offset of RSP0 in the 64-bit TSS.
const RSP0: u64 = 4;

/// To a more privileged level: the stack is changed and the parameters copied. Intel SDM vol. 3A,
/// 5.8.5.
fn call_inner(cpu: &mut Cpu, gate: &Gate) -> Result<(), Stop> {
    let cpl = (gate.cs.selector & 3) as u8;
    let stack = if gate.size == 8 {
        let rsp = cpu.rsp_of_tss(RSP0 + 8 * u64::from(cpl), 0)?;
        let segment = null_segment(Selector(cpl.into()), cpl);
        Stack { segment, ..Stack::long(rsp, Rights::Processor, 0) }
    } else {
        cpu.stack_of_tss(cpl, 0)?
    };
    let old = cpu.segments;
    let mut frame = [0; 35];
    let count = usize::from(gate.parameters);
    frame[0] = old.regs[SS].selector.into();
    frame[1] = cpu.regs[usize::from(RSP)];
    for n in 0..count {
        // The first one pushed is the one at the highest address.
        let at = (count - 1 - n) as u64 * u64::from(gate.size);
        frame[2 + n] = cpu.peek(at, gate.size)?;
    }
    frame[2 + count] = old.regs[CS].selector.into();
    frame[3 + count] = cpu.next_rip;
    let values = frame.get(..4 + count).unwrap_or_default();
    let sp = cpu.push_all(&stack, gate.size, values)?;
    cpu.enter_stack(stack.segment, sp, stack.mask);
    cpu.segments.cpl = cpl;
    go(cpu, gate.cs, gate.rip);
    Ok(())
}

/// `imm` is the number of bytes of parameters.
fn ret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let step = u64::from(op.size);
    let (rip, value) = (cpu.peek(0, op.size)?, cpu.peek(step, op.size)?);
    let selector = Selector(value as u16);
    let parameters = op.imm & 0xffff;
    let taken = 2 * step + parameters;
    if !cpu.mode.has(Mode::PROTECTED) {
        let cs = plain_code(cpu, Target { selector, rip })?;
        cpu.drop_stack(taken);
        go(cpu, cs, rip);
        return Ok(());
    }
    let cs = checked_return(cpu, selector, rip)?;
    if selector.rpl() == cpu.cpl() {
        cpu.drop_stack(taken);
        go(cpu, cs, rip);
        return Ok(());
    }
    let stack = outer_stack(cpu, taken, op.size, &cs, selector.rpl())?;
    leave_to(cpu, cs, selector.rpl(), stack);
    cpu.drop_stack(parameters);
    cpu.next_rip = rip;
    Ok(())
}

fn with_target(i: &Instruction, context: &Context, size: u8) -> Op {
    let mut op = context.op(i);
    op.size = size;
    if matches!(i.op0_kind(), OpKind::FarBranch16 | OpKind::FarBranch32) {
        op.disp = i.far_branch_selector().into();
        op.imm = match i.op0_kind() {
            OpKind::FarBranch16 => i.far_branch16().into(),
            _ => i.far_branch32().into(),
        };
    }
    op
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let (size, function): (u8, crate::op::GeneralFn) = match i.code() {
        Code::Jmp_ptr1616 | Code::Jmp_m1616 => (2, jmp),
        Code::Jmp_ptr1632 | Code::Jmp_m1632 => (4, jmp),
        Code::Jmp_m1664 => (8, jmp),
        Code::Call_ptr1616 | Code::Call_m1616 => (2, call),
        Code::Call_ptr1632 | Code::Call_m1632 => (4, call),
        Code::Call_m1664 => (8, call),
        Code::Retfw | Code::Retfw_imm16 => (2, ret),
        Code::Retfd | Code::Retfd_imm16 => (4, ret),
        Code::Retfq | Code::Retfq_imm16 => (8, ret),
        _ => return None,
    };
    Some(Selection::general_end(with_target(i, context, size), function))
}
