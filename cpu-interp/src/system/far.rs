//! Far JMP, CALL and RET: direct, through call gates, and to tasks.
//!
//! Intel SDM vol. 2, JMP, CALL, RET; vol. 3A, 5.8.

use iced_x86::{Code, Instruction, OpKind};
use trivium_cpu::model::Quirk;
use trivium_cpu::state::{CS, SS, Segment, SegmentAttributes as A};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Descriptor, Selector, fault, kind};
use super::iret::{OuterFrame, checked_return, leave_to, outer_stack};
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

/// Immediate: `disp` is the selector, `imm` the offset. Else memory, with `aux` bytes of offset.
fn target(cpu: &mut Cpu, op: &Op) -> Result<Target, Stop> {
    if !op.has_mem() {
        return Ok(Target { selector: Selector(op.disp as u16), rip: op.imm });
    }
    let at = cpu.offset(op);
    let rip = cpu.load_sized(op.seg, at, op.aux)?;
    let next = at.wrapping_add(op.aux.into()) & address_mask(op.asize);
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
            let gate = open_gate(cpu, &descriptor, false)?;
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
    let selector = selector.with_rpl(cpl);
    cpu.check_target(&descriptor.segment(selector), rip)?;
    cpu.mark_accessed(&mut descriptor)?;
    Ok(descriptor.segment(selector))
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

/// Checks a call gate and the code segment behind it; only a CALL may lead to more privilege.
fn open_gate(cpu: &mut Cpu, gate: &Descriptor, is_call: bool) -> Result<Gate, Stop> {
    let (cpl, long) = (cpu.cpl(), cpu.long_mode());
    let upper = if long { cpu.upper_half(gate, Vector::GP)? } else { 0 };
    if gate.dpl() < cpl.max(gate.selector.rpl()) {
        return Err(fault(cpu, Vector::GP, gate.selector, 0));
    }
    if !gate.present() {
        return Err(fault(cpu, Vector::NP, gate.selector, 0));
    }
    let selector = gate.gate_selector();
    let mut descriptor = cpu.descriptor_or(selector, Vector::GP, 0)?;
    let bad_mode = long && descriptor.attributes().0 & (A::L | A::DB) != A::L;
    let inner = !descriptor.is_conforming() && descriptor.dpl() < cpl;
    if !descriptor.is_code() || descriptor.dpl() > cpl || bad_mode || inner && !is_call {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, 0));
    }
    let size = match (long, gate.attributes().kind()) {
        (true, _) => 8,
        (_, kind::CALL_GATE32) => 4,
        _ => 2,
    };
    let rip = (gate.gate_offset() | upper) & address_mask(size);
    let level = if inner { descriptor.dpl() } else { cpl };
    let selector = selector.with_rpl(level);
    // Of a new stack, the checks come first. Intel SDM vol. 2, CALL.
    if !inner {
        cpu.check_target(&descriptor.segment(selector), rip)?;
    }
    cpu.mark_accessed(&mut descriptor)?;
    let cs = descriptor.segment(selector);
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
            let gate = open_gate(cpu, &descriptor, true)?;
            match gate.inner {
                true => call_inner(cpu, &gate),
                false => push_and_go(cpu, gate.size, gate.cs, gate.rip),
            }
        }
        Some(k) => to_task(cpu, &descriptor, k, Switch::Call),
    }
}

fn push_and_go(cpu: &mut Cpu, size: u8, cs: Segment, rip: u64) -> Result<(), Stop> {
    let old = cpu.segments.regs[CS];
    let frame = [old.selector.into(), cpu.next_rip];
    if cpu.model.does(Quirk::FarCallPushesInNewMode) {
        cpu.segments.regs[CS] = cs;
        cpu.update_mode();
    }
    let stack = Stack::present(cpu, 0);
    match cpu.push_all(&stack, size, &frame) {
        Ok(sp) => cpu.set_stack_pointer(sp),
        Err(stop) => {
            cpu.segments.regs[CS] = old;
            cpu.update_mode();
            return Err(stop);
        }
    }
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
    cpu.check_target(&gate.cs, gate.rip)?;
    cpu.enter_stack(stack.segment, sp, stack.mask);
    cpu.segments.cpl = cpl;
    go(cpu, gate.cs, gate.rip);
    Ok(())
}

/// `imm` is the number of bytes of parameters.
fn ret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let step = u64::from(op.size);
    // Real processors read the selector first.
    let value = cpu.peek(step, op.size)?;
    let rip = cpu.peek(0, op.size)?;
    let selector = Selector(value as u16);
    let parameters = op.imm & 0xffff;
    let taken = 2 * step + parameters;
    if !cpu.mode.has(Mode::PROTECTED) {
        let cs = plain_code(cpu, Target { selector, rip })?;
        cpu.drop_stack(taken);
        go(cpu, cs, rip);
        return Ok(());
    }
    let outer = selector.rpl() != cpu.cpl();
    let frame = match outer {
        true => Some(OuterFrame::new(cpu, taken, op.size)?),
        false => None,
    };
    let cs = checked_return(cpu, selector, rip, outer)?;
    let Some(frame) = frame else {
        cpu.drop_stack(2 * step);
        go(cpu, cs, rip);
        // In the mode that it returns to.
        cpu.drop_stack(parameters);
        return Ok(());
    };
    let stack = outer_stack(cpu, frame, &cs, rip)?;
    leave_to(cpu, cs, selector.rpl(), stack);
    cpu.drop_stack(parameters);
    cpu.next_rip = rip;
    Ok(())
}

/// REX.W.
const REX_W: u8 = 8;

fn with_target(i: &Instruction, context: &Context, size: u8) -> Op {
    let mut op = context.op(i);
    op.size = size;
    op.aux = size;
    if size == 4 && context.rex & REX_W != 0 {
        // Pointers with a 64-bit offset are Intel's; what a call pushes is 64 bits wide anyway.
        op.size = 8;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, DATA, STACK, STACK0, TSS, TestMachine, descriptor, gate, sel};
    use trivium_cpu::model::{CpuModel, Vendor};

    /// jmp far 0x40:0x12345678
    const JMP: [u8; 7] = [0xea, 0x78, 0x56, 0x34, 0x12, 0x40, 0];
    /// call far 0x40:0x12345678
    const CALL: [u8; 7] = [0x9a, 0x78, 0x56, 0x34, 0x12, 0x40, 0];
    const LRET: [u8; 1] = [0xcb];

    fn with_entry(code: &[u8], entry: u64) -> TestMachine {
        let mut m = TestMachine::protected(code);
        m.put_entry(sel::FREE, entry);
        m
    }

    #[test]
    fn real_mode_jumps_keep_the_limit_of_cs() {
        let mut m = TestMachine::real(&[0xea, 0x34, 0x12, 0, 0x10]);
        m.run(1);
        let state = m.state();
        let cs = state.segments.regs[CS];
        assert_eq!((cs.selector, cs.base, cs.limit), (0x1000, 0x1_0000, 0xffff));
        assert_eq!(state.general.rip, 0x1234);
        // jmp dword far 0:0x12340
        let mut m = TestMachine::real(&[0x66, 0xea, 0x40, 0x23, 1, 0, 0, 0]);
        assert_eq!(m.run_to_handler(), Vector::GP as u8);
    }

    #[test]
    fn the_first_jump_to_protected_mode_sets_the_code_size() {
        // mov cr0, eax; jmp 8:0x1010; then at 0x1010 mov eax, 0x12345678 in 32-bit code
        let mut m = TestMachine::real(&[0x0f, 0x22, 0xc0, 0xea, 0x10, 0x10, 8, 0]);
        m.put(CODE + 0x10, &[0xb8, 0x78, 0x56, 0x34, 0x12]);
        m.put(0x2008, &descriptor(0, 0xf_ffff, 0xc09a).to_le_bytes());
        m.set(|s| {
            s.general.regs[0] = 0x11;
            s.segments.gdtr.base = 0x2000;
        });
        m.run(3);
        assert_eq!(m.reg(0), 0x1234_5678);
    }

    #[test]
    fn direct_jumps_check_type_privilege_presence_and_limit() {
        let free = u32::from(sel::FREE);
        let cases = [
            (descriptor(0, 0xf_ffff, 0xc093), Vector::GP, free),
            // DPL 3 is not CPL.
            (descriptor(0, 0xf_ffff, 0xc0fb), Vector::GP, free),
            (descriptor(0, 0xf_ffff, 0xc01b), Vector::NP, free),
            (descriptor(0, 0xffff, 0x409b), Vector::GP, 0),
            (descriptor(0, 0, 0x82), Vector::GP, free),
        ];
        for (entry, vector, code) in cases {
            with_entry(&JMP, entry).raises(vector, Some(code));
            with_entry(&CALL, entry).raises(vector, Some(code));
        }
        // Null.
        TestMachine::protected(&[0xea, 0, 0, 0, 0, 3, 0]).raises(Vector::GP, Some(0));
    }

    #[test]
    fn a_jump_through_a_gate_to_more_privilege_raises_gp_even_if_the_code_is_absent() {
        // jmp far 0x43:0
        let mut m = TestMachine::protected(&[0xea, 0, 0, 0, 0, 0x43, 0]).at_cpl3();
        let absent = sel::FREE + 8;
        m.put_entry(sel::FREE, gate(absent, 0, 0xec));
        m.put_entry(absent, descriptor(0, 0xf_ffff, 0xc01b));
        m.raises(Vector::GP, Some(absent.into()));
    }

    #[test]
    fn a_gates_stack_is_checked_before_its_offset() {
        // call far 0x43:0, to code at CPL 1 that ends before the offset; SS1 is null.
        let mut m = TestMachine::protected(&[0x9a, 0, 0, 0, 0, 0x43, 0]).at_cpl3();
        let code = sel::FREE + 8;
        m.put_entry(sel::FREE, gate(code, 0x1000, 0xec));
        m.put_entry(code, descriptor(0, 0xfff, 0x40bb));
        m.raises(Vector::TS, Some(0));
    }

    #[test]
    fn the_cached_descriptor_of_cs_is_marked_accessed_as_the_one_in_memory() {
        for code in [JMP, CALL] {
            let mut m = with_entry(&code, descriptor(0, 0xf_ffff, 0xc09a));
            m.run(1);
            assert_eq!(m.state().segments.regs[CS].attributes.0, 0xc09b);
        }
    }

    #[test]
    fn conforming_code_runs_at_the_callers_privilege() {
        let mut m = with_entry(&JMP, descriptor(0, 0xf_ffff, 0xc09e)).at_cpl3();
        m.run(1);
        let state = m.state();
        assert_eq!((state.segments.cpl, state.segments.regs[CS].selector), (3, sel::FREE | 3));
        assert_eq!(m.entry(sel::FREE) >> 40 & 1, 1);
    }

    #[test]
    fn a_call_pushes_cs_and_eip() {
        let mut m = with_entry(&CALL, descriptor(0, 0xf_ffff, 0xc09b));
        m.run(1);
        assert_eq!((m.reg(4), m.get_u32(STACK - 8)), (STACK - 8, CODE as u32 + 7));
        assert_eq!(m.get_u32(STACK - 4), sel::CODE.into());
        assert_eq!(m.state().general.rip, 0x1234_5678);
    }

    #[test]
    fn a_call_without_stack_changes_nothing() {
        let mut m = with_entry(&CALL, descriptor(0, 0xf_ffff, 0xc09b));
        // Expand-down: nothing below 0x8ffc.
        m.set(|s| {
            s.segments.regs[SS] =
                Segment { limit: (STACK - 5) as u32, ..crate::testing::flat(sel::DATA, 0x4097) };
        });
        m.put(STACK - 4, &[0xaa; 4]);
        // #SS cannot be pushed there either.
        m.run(1);
        assert_eq!(m.get_u32(STACK - 4), 0xaaaa_aaaa);
        assert_eq!(m.state().segments.regs[CS].selector, sel::CODE);
    }

    #[test]
    fn a_call_gate_to_more_privilege_copies_parameters() {
        // call far 0x43:0
        let mut m = TestMachine::protected(&[0x9a, 0, 0, 0, 0, 0x43, 0]).at_cpl3();
        m.put_entry(sel::FREE, gate(sel::CODE, 0xc000, 0xec) | 2 << 32);
        m.put(STACK, &[1, 0, 0, 0, 2, 0, 0, 0]);
        m.run(1);
        let state = m.state();
        assert_eq!((state.segments.cpl, state.general.rip), (0, 0xc000));
        assert_eq!(state.general.regs[4], STACK0 - 24);
        let frame: Vec<u32> = (1..=6).map(|n| m.get_u32(STACK0 - 4 * n)).collect();
        let expected =
            [sel::USER_DATA.into(), STACK as u32, 2, 1, sel::USER_CODE.into(), CODE as u32 + 7];
        assert_eq!(frame, expected);
    }

    #[test]
    fn and_a_far_return_takes_them_off_both_stacks() {
        // call far 0x43:0; at 0xc000: retf 8
        let mut m = TestMachine::protected(&[0x9a, 0, 0, 0, 0, 0x43, 0]).at_cpl3();
        m.put_entry(sel::FREE, gate(sel::CODE, 0xc000, 0xec) | 2 << 32);
        m.put(0xc000, &[0xca, 8, 0]);
        m.run(2);
        let state = m.state();
        assert_eq!((state.segments.cpl, state.general.rip), (3, CODE + 7));
        assert_eq!(state.general.regs[4], STACK + 8);
        assert_eq!(state.segments.regs[SS].selector, sel::USER_DATA);
    }

    #[test]
    fn call_gates_check_their_own_privilege_and_presence() {
        let call = [0x9a, 0, 0, 0, 0, 0x43, 0];
        let cases = [
            (gate(sel::CODE, 0xc000, 0x8c), Vector::GP, 0x40),
            (gate(sel::CODE, 0xc000, 0x6c), Vector::NP, 0x40),
            (gate(sel::DATA, 0xc000, 0xec), Vector::GP, 0x10),
            (gate(0, 0xc000, 0xec), Vector::GP, 0),
        ];
        for (entry, vector, code) in cases {
            let mut m = TestMachine::protected(&call).at_cpl3();
            m.put_entry(sel::FREE, entry);
            m.raises(vector, Some(code));
        }
        // A jump cannot raise privilege.
        let mut m = TestMachine::protected(&[0xea, 0, 0, 0, 0, 0x43, 0]).at_cpl3();
        m.put_entry(sel::FREE, gate(sel::CODE, 0xc000, 0xec));
        m.raises(Vector::GP, Some(sel::CODE.into()));
    }

    #[test]
    fn a_gate_with_a_bad_stack_in_the_tss_raises_ts() {
        let mut m = TestMachine::protected(&[0x9a, 0, 0, 0, 0, 0x43, 0]).at_cpl3();
        m.put_entry(sel::FREE, gate(sel::CODE, 0xc000, 0xec));
        m.put_entry(sel::FREE + 8, descriptor(0, 0xf_ffff, 0xc09f));
        m.put(TSS + 8, &sel::USER_DATA.to_le_bytes());
        // The handler runs at CPL 3.
        m.put_u64(crate::testing::IDT + 8 * 10, gate(sel::FREE + 8, 0xc000, 0x8e));
        m.put(0xc000, &[0xeb, 0xfe]);
        m.run(1);
        assert_eq!((m.state().general.rip, m.get_u32(STACK - 16)), (0xc000, 0x20));
    }

    #[test]
    fn far_pointers_in_memory_in_64_bit_code() {
        // rex.w jmp far [0xb000]; AMD's processors do not have the form with a 64-bit offset.
        let intel = CpuModel { vendor: Vendor::Intel, ..TestMachine::model() };
        let mut m = TestMachine::long_with(intel, &[0x48, 0xff, 0x2c, 0x25, 0, 0xb0, 0, 0]);
        m.put_u64(DATA, 0xffff_8000_0000_1234);
        m.put(DATA + 8, &sel::CODE.to_le_bytes());
        m.run(1);
        assert_eq!(m.state().general.rip, 0xffff_8000_0000_1234);
    }

    #[test]
    fn amds_far_calls_of_64_bits_read_32_and_push_64() {
        // rex.w call far [0xb000]
        let mut m = TestMachine::long(&[0x48, 0xff, 0x1c, 0x25, 0, 0xb0, 0, 0]);
        m.put(DATA, &0x1234_u32.to_le_bytes());
        m.put(DATA + 4, &sel::CODE.to_le_bytes());
        let rsp = m.state().general.regs[4];
        m.run(1);
        assert_eq!(m.state().general.rip, 0x1234);
        assert_eq!(m.state().general.regs[4], rsp - 16);
    }

    #[test]
    fn long_mode_gates_have_16_bytes_and_lead_to_64_bit_code() {
        // call far [0xb000] at CPL 3
        let mut m = TestMachine::long(&[0xff, 0x1c, 0x25, 0, 0xb0, 0, 0]).at_cpl3();
        m.put(DATA, &[0, 0, 0, 0, 0x43, 0]);
        m.put_entry(sel::FREE, gate(sel::CODE, 0xc000, 0xec));
        m.put_entry(sel::FREE + 8, 0xffff_8000);
        m.run(1);
        let state = m.state();
        assert_eq!((state.segments.cpl, state.general.rip), (0, 0xffff_8000_0000_c000));
        assert_eq!(state.segments.regs[SS].selector, 0);
        let frame: Vec<u64> = (1..=4).map(|n| m.get_u64(STACK0 - 8 * n)).collect();
        let expected = [sel::USER_DATA.into(), STACK, sel::USER_CODE.into(), CODE + 7];
        assert_eq!(frame, expected);
    }

    #[test]
    fn returns_to_64_bit_code() {
        // retfq
        let mut m = TestMachine::long(&[0x48, 0xcb]);
        m.put_u64(STACK, 0x4000);
        m.put_u64(STACK + 8, sel::CODE.into());
        m.run(1);
        assert_eq!((m.state().general.rip, m.reg(4)), (0x4000, STACK + 16));
    }

    #[test]
    fn returns_to_more_privilege_are_refused() {
        let mut m = TestMachine::protected(&LRET).at_cpl3();
        m.put(STACK, &[0, 0x40, 0, 0, 8, 0, 0, 0]);
        m.raises(Vector::GP, Some(8));
    }
}
