//! IRET in every mode, and the checks that it shares with far returns.
//!
//! Intel SDM vol. 2, IRET; vol. 3A, 6.12 to 6.14 and 20.2.

use iced_x86::{Code, Instruction};
use trivium_cpu::bits::{cr4, rflags};
use trivium_cpu::model::Quirk;
use trivium_cpu::state::{CS, SS, Segment, SegmentAttributes as A};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Selector, fault};
use super::segments::{real_segment, v86_segment};
use super::stack::null_segment;
use super::task;
use crate::cpu::{Cpu, RSP};
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

/// Bits that no IRET changes.
const KEPT_ALWAYS: u64 = rflags::VM | rflags::VIF | rflags::VIP;

/// Sets RFLAGS to `value` but for the bits of `kept`; of 16-bit values, the upper bits are kept
/// too.
pub(super) fn load_flags(cpu: &mut Cpu, value: u64, size: u8, kept: u64) {
    let upper = if size == 2 { !0xffff } else { 0 };
    let kept = kept | upper;
    let flags = value & !kept | cpu.rflags() & kept;
    cpu.set_rflags(flags);
}

/// The bits of RFLAGS that CPL and IOPL keep from being changed.
pub(super) fn guarded_flags(cpu: &Cpu) -> u64 {
    let mut kept = 0;
    if cpu.cpl() > 0 {
        kept |= rflags::IOPL | KEPT_ALWAYS;
    }
    if cpu.cpl() > cpu.iopl() {
        kept |= rflags::IF;
    }
    kept
}

fn iret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    // NMIs may come again whatever it returns from, and even if it faults. Intel SDM vol. 3A,
    // 6.7.1.
    cpu.nmi_masked = false;
    cpu.look |= cpu.nmi_pending;
    if !cpu.protected() {
        real(cpu, op)
    } else if cpu.v86() {
        v86(cpu, op)
    } else {
        protected(cpu, op)
    }
}

fn pop_three(cpu: &mut Cpu, size: u8) -> Result<[u64; 3], Stop> {
    let step = u64::from(size);
    // The manuals leave open which fault comes first; real processors read the flags first.
    let flags = cpu.peek(2 * step, size)?;
    Ok([cpu.peek(0, size)?, cpu.peek(step, size)?, flags])
}

/// Where a return to an outer level finds the stack's segment and pointer, and these once they are
/// read.
pub(super) struct OuterFrame {
    /// Bytes above the top of the stack.
    at: u64,
    size: u8,
    read: Option<(Selector, u64)>,
}

impl OuterFrame {
    /// AMD's processors read it before they look at the code segment (APM vol. 3, IRET, RETF).
    ///
    /// # Errors
    /// #PF, #SS.
    pub(super) fn new(cpu: &mut Cpu, at: u64, size: u8) -> Result<Self, Stop> {
        let mut frame = Self { at, size, read: None };
        if cpu.model.does(Quirk::OuterStackReadFirst) {
            frame.values(cpu)?;
        }
        Ok(frame)
    }

    fn values(&mut self, cpu: &mut Cpu) -> Result<(Selector, u64), Stop> {
        if let Some(values) = self.read {
            return Ok(values);
        }
        let selector = cpu.peek(self.at + u64::from(self.size), self.size)?;
        let values = (Selector(selector as u16), cpu.peek(self.at, self.size)?);
        self.read = Some(values);
        Ok(values)
    }
}

/// Real mode, and virtual-8086 mode that may.
fn real(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let [rip, selector, flags] = pop_three(cpu, op.size)?;
    return_real(cpu, op, rip, selector)?;
    load_flags(cpu, flags, op.size, KEPT_ALWAYS);
    Ok(())
}

fn return_real(cpu: &mut Cpu, op: &Op, rip: u64, selector: u64) -> Result<(), Stop> {
    let old = cpu.segments.regs[CS];
    let selector = selector as u16;
    let cs = match cpu.v86() {
        true => v86_segment(selector),
        false => real_segment(&old, CS, selector),
    };
    if rip > cs.limit.into() {
        return Err(cpu.raise(Exception::gp(0)));
    }
    cpu.drop_stack(3 * u64::from(op.size));
    cpu.segments.regs[CS] = cs;
    cpu.next_rip = rip;
    cpu.update_mode();
    Ok(())
}

/// With IOPL below 3, only with the help of virtual-8086 mode extensions. Intel SDM vol. 3A, 20.3.
fn v86(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if cpu.iopl() == 3 {
        let [rip, selector, flags] = pop_three(cpu, op.size)?;
        return_real(cpu, op, rip, selector)?;
        load_flags(cpu, flags, op.size, KEPT_ALWAYS | rflags::IOPL);
        return Ok(());
    }
    if cpu.control.cr4 & cr4::VME == 0 || op.size != 2 {
        return Err(cpu.raise(Exception::gp(0)));
    }
    let [rip, selector, flags] = pop_three(cpu, op.size)?;
    let pending = cpu.system_flags & rflags::VIP != 0;
    if flags & rflags::TF != 0 || flags & rflags::IF != 0 && pending {
        return Err(cpu.raise(Exception::gp(0)));
    }
    return_real(cpu, op, rip, selector)?;
    load_flags(cpu, flags, op.size, KEPT_ALWAYS | rflags::IOPL | rflags::IF);
    set_virtual_interrupts(cpu, flags & rflags::IF != 0);
    Ok(())
}

/// Sets or clears RFLAGS.VIF.
pub(super) fn set_virtual_interrupts(cpu: &mut Cpu, on: bool) {
    let flags = cpu.rflags() & !rflags::VIF;
    cpu.set_rflags(flags | if on { rflags::VIF } else { 0 });
}

fn protected(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if cpu.system_flags & rflags::NT != 0 {
        if cpu.long_mode() {
            return Err(cpu.raise(Exception::gp(0)));
        }
        return task::return_from_task(cpu);
    }
    let [rip, selector, flags] = pop_three(cpu, op.size)?;
    if flags & rflags::VM != 0 && op.size == 4 && cpu.cpl() == 0 && !cpu.long_mode() {
        return to_v86(cpu, rip, selector, flags);
    }
    let selector = Selector(selector as u16);
    let outer = selector.rpl() != cpu.cpl() || cpu.code64();
    let frame = match outer {
        true => Some(OuterFrame::new(cpu, 3 * u64::from(op.size), op.size)?),
        false => None,
    };
    let cs = checked_return(cpu, selector, rip, outer)?;
    // What may be changed is decided by the privilege that is left.
    let kept = guarded_flags(cpu) | rflags::VM;
    if let Some(frame) = frame {
        let stack = outer_stack(cpu, frame, &cs, rip)?;
        leave_to(cpu, cs, selector.rpl(), stack);
    } else {
        cpu.drop_stack(3 * u64::from(op.size));
        cpu.segments.regs[CS] = cs;
        cpu.update_mode();
    }
    cpu.next_rip = rip;
    load_flags(cpu, flags, op.size, kept);
    Ok(())
}

/// From CPL 0 to virtual-8086 mode. Intel SDM vol. 3A, 20.2.5.
fn to_v86(cpu: &mut Cpu, rip: u64, selector: u64, flags: u64) -> Result<(), Stop> {
    let mut values = [0; 6];
    for (value, slot) in values.iter_mut().zip(3_u64..) {
        *value = cpu.peek(4 * slot, 4)?;
    }
    let [sp, ss, es, ds, fs, gs] = values;
    if rip > 0xffff {
        return Err(cpu.raise(Exception::gp(0)));
    }
    for (place, selector) in cpu.segments.regs.iter_mut().zip([es, selector, ss, ds, fs, gs]) {
        *place = v86_segment(selector as u16);
    }
    cpu.segments.cpl = 3;
    cpu.regs[usize::from(RSP)] = sp;
    cpu.next_rip = rip;
    cpu.set_rflags(flags);
    cpu.update_mode();
    Ok(())
}

/// The code segment that IRET and far RET go to, `outer` if to another stack too. Intel SDM
/// vol. 2, RET.
///
/// # Errors
/// #GP, #NP, #PF.
pub(super) fn checked_return(
    cpu: &mut Cpu,
    selector: Selector,
    rip: u64,
    outer: bool,
) -> Result<Segment, Stop> {
    let mut descriptor = cpu.descriptor_or(selector, Vector::GP, 0)?;
    let rpl = selector.rpl();
    let reachable = match descriptor.is_conforming() {
        true => descriptor.dpl() <= rpl,
        false => descriptor.dpl() == rpl,
    };
    let both = cpu.long_mode() && descriptor.has(A::L | A::DB);
    if !descriptor.is_code() || rpl < cpu.cpl() || !reachable || both {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, 0));
    }
    if !outer || !cpu.model.does(Quirk::OuterStackCheckedFirst) {
        cpu.check_target(&descriptor.segment(selector), rip)?;
    }
    cpu.mark_accessed(&mut descriptor)?;
    Ok(descriptor.segment(selector))
}

/// The stack of a level that is returned to.
pub(super) struct OuterStack {
    segment: Segment,
    sp: u64,
}

/// The stack of a return to `rip` of `cs`, checked.
///
/// # Errors
/// #GP, #SS, #PF.
pub(super) fn outer_stack(
    cpu: &mut Cpu,
    mut frame: OuterFrame,
    cs: &Segment,
    rip: u64,
) -> Result<OuterStack, Stop> {
    let (selector, sp) = frame.values(cpu)?;
    let segment = outer_segment(cpu, selector, cs)?;
    if cpu.model.does(Quirk::OuterStackCheckedFirst) {
        cpu.check_target(cs, rip)?;
    }
    Ok(OuterStack { segment, sp })
}

fn outer_segment(cpu: &mut Cpu, selector: Selector, cs: &Segment) -> Result<Segment, Stop> {
    let cpl = Selector(cs.selector).rpl();
    if !selector.is_null() {
        return cpu.checked_stack(selector, cpl, Vector::GP, 0);
    }
    let to_long = cpu.long_mode() && cs.attributes.has(A::L);
    if !to_long || cpl == 3 || selector.rpl() != cpl {
        return Err(cpu.raise(Exception::gp(0)));
    }
    Ok(null_segment(selector, cpl))
}

/// Changes privilege, code and stack. Segments that the new privilege may not use are nulled.
pub(super) fn leave_to(cpu: &mut Cpu, cs: Segment, cpl: u8, stack: OuterStack) {
    let outer = cpl > cpu.cpl();
    cpu.segments.regs[CS] = cs;
    cpu.segments.regs[SS] = stack.segment;
    cpu.segments.cpl = cpl;
    if outer {
        cpu.drop_privileged_segments(cpl);
    }
    cpu.update_mode();
    cpu.set_stack_pointer(stack.sp);
}

impl Cpu {
    /// Whether RIP may be `rip` in a code segment: #GP(0) if not.
    pub(super) fn check_target(&mut self, cs: &Segment, rip: u64) -> Result<(), Stop> {
        let good = match self.long_mode() && cs.attributes.has(A::L) {
            true => self.canonical(rip),
            false => rip <= cs.limit.into(),
        };
        if good { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut op = context.op(i);
    op.size = match i.code() {
        Code::Iretw => 2,
        Code::Iretd => 4,
        Code::Iretq => 8,
        _ => return None,
    };
    Some(Selection::general_end(op, iret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{STACK, TestMachine, descriptor, sel};
    use trivium_cpu::model::Vendor;

    const IRETD: [u8; 1] = [0xcf];
    const IRETQ: [u8; 2] = [0x48, 0xcf];

    fn put32(m: &mut TestMachine, values: &[u32]) {
        for (at, value) in (STACK..).step_by(4).zip(values) {
            m.put(at, &value.to_le_bytes());
        }
    }

    fn put64(m: &mut TestMachine, values: &[u64]) {
        for (at, value) in (STACK..).step_by(8).zip(values) {
            m.put_u64(at, *value);
        }
    }

    #[test]
    fn real_mode_pops_words() {
        let mut m = TestMachine::real(&IRETD);
        m.put(STACK, &[0x34, 0x12, 0, 0x10, 0xd7, 0x7f]);
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.segments.regs[CS].base), (0x1234, 0x1_0000));
        assert_eq!((state.general.rflags, state.general.regs[4]), (0x7fd7, STACK + 6));
    }

    #[test]
    fn same_privilege_pops_three() {
        let mut m = TestMachine::protected(&IRETD);
        put32(&mut m, &[0x4000, sel::CODE.into(), 0x24_0ed7]);
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[4]), (0x4000, STACK + 12));
        assert_eq!(state.general.rflags, 0x24_0ed7);
    }

    #[test]
    fn less_privilege_pops_five_and_nulls_privileged_segments() {
        let mut m = TestMachine::protected(&IRETD);
        put32(&mut m, &[0x4000, sel::USER_CODE.into(), 0x3202, 0x8000, sel::USER_DATA.into()]);
        m.set(|s| s.segments.regs[4] = crate::testing::flat(sel::USER_DATA, 0xc0f3));
        m.run(1);
        let state = m.state();
        assert_eq!((state.segments.cpl, state.general.regs[4]), (3, 0x8000));
        let selectors = state.segments.regs.map(|s| s.selector);
        assert_eq!(selectors, [0, sel::USER_CODE, sel::USER_DATA, 0, sel::USER_DATA, 0]);
        assert_eq!(state.general.rflags, 0x3202);
    }

    #[test]
    fn programs_change_neither_iopl_nor_if() {
        let mut m = TestMachine::protected(&IRETD).at_cpl3();
        put32(&mut m, &[0x4000, sel::USER_CODE.into(), 0x1f_7ed7]);
        m.run(1);
        let flags = m.state().general.rflags;
        // RF is loaded whatever the privilege.
        assert_eq!(flags, 0x05_4cd7, "{flags:#x}");
    }

    #[test]
    fn returns_check_the_code_segment() {
        let cases = [
            (0_u32, Vector::GP, 0_u32),
            (0x1000, Vector::GP, 0x1000),
            (sel::DATA.into(), Vector::GP, sel::DATA.into()),
            // DPL 3, but RPL 0.
            (0x28, Vector::GP, 0x28),
            (sel::FREE.into(), Vector::NP, sel::FREE.into()),
        ];
        for (selector, vector, code) in cases {
            let mut m = TestMachine::protected(&IRETD);
            m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc01b));
            put32(&mut m, &[0x4000, selector, 2]);
            m.raises(vector, Some(code));
        }
        // To more privilege.
        let mut m = TestMachine::protected(&IRETD).at_cpl3();
        put32(&mut m, &[0x4000, sel::CODE.into(), 2]);
        m.raises(Vector::GP, Some(sel::CODE.into()));
    }

    #[test]
    fn returns_check_the_limit_and_the_stack() {
        let mut m = TestMachine::protected(&IRETD);
        m.put_entry(sel::FREE, descriptor(0, 0xfff, 0x409b));
        put32(&mut m, &[0x1000, sel::FREE.into(), 2]);
        m.raises(Vector::GP, Some(0));
        for (ss, code) in [(0_u32, 0), (sel::DATA.into(), 0x10), (0x20, 0x20)] {
            let mut m = TestMachine::protected(&IRETD);
            put32(&mut m, &[0x4000, sel::USER_CODE.into(), 2, 0x8000, ss]);
            m.raises(Vector::GP, Some(code));
        }
    }

    #[test]
    fn to_virtual_8086_mode_pops_nine() {
        let mut m = TestMachine::protected(&IRETD);
        put32(&mut m, &[0x4000, 0x100, 0x2_0202, 0x8000, 0x200, 0x300, 0x400, 0x500, 0x600]);
        m.run(1);
        let state = m.state();
        let selectors = state.segments.regs.map(|s| s.selector);
        assert_eq!(selectors, [0x300, 0x100, 0x200, 0x400, 0x500, 0x600]);
        assert_eq!((state.segments.cpl, state.general.regs[4]), (3, 0x8000));
        assert_eq!(state.general.rflags, 0x2_0202);
        assert!(state.segments.regs.iter().all(|s| s.attributes.0 == 0xf3 && s.limit == 0xffff));
    }

    #[test]
    fn virtual_8086_code_needs_iopl_3_and_cannot_change_it() {
        TestMachine::protected(&IRETD).in_v86(2).raises(Vector::GP, Some(0));
        let mut m = TestMachine::protected(&IRETD).in_v86(3);
        m.put(STACK, &[0, 0x40, 0, 0, 2, 2]);
        m.run(1);
        assert_eq!(m.state().general.rflags, 0x2_3202);
    }

    #[test]
    fn sixty_four_bit_returns_pop_the_stack_always() {
        let mut m = TestMachine::long(&IRETQ);
        put64(&mut m, &[0x4000, sel::CODE.into(), 0x246, 0x8888, 0]);
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[4]), (0x4000, 0x8888));
        assert_eq!((state.segments.regs[SS].selector, state.general.rflags), (0, 0x246));
    }

    #[test]
    fn a_null_stack_is_refused_at_cpl3_and_for_32_bit_code() {
        for (cs, ss) in [(sel::USER_CODE, 3), (sel::USER_CODE32, 3), (sel::USER_CODE, 0)] {
            let mut m = TestMachine::long(&IRETQ);
            put64(&mut m, &[0x4000, cs.into(), 2, 0x8000, ss]);
            m.raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn sixty_four_bit_code_returns_to_compatibility_mode() {
        let mut m = TestMachine::long(&IRETQ);
        let frame = [0x4000, sel::USER_CODE32.into(), 0x202, 0x1_0000_8000, sel::USER_DATA.into()];
        put64(&mut m, &frame);
        m.put(0x4000, &[0x40]); // inc eax
        m.run(2);
        let state = m.state();
        assert_eq!((state.general.regs[0], state.general.regs[4]), (1, 0x8000));
    }

    #[test]
    fn a_return_address_that_is_not_canonical_raises_gp() {
        let mut m = TestMachine::long(&IRETQ);
        put64(&mut m, &[0x8000_0000_0000, sel::CODE.into(), 2, 0x8000, 0]);
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn intels_check_the_stack_before_the_return_address_and_amds_after() {
        // SS is a selector of code.
        let ss = sel::USER_CODE;
        for (vendor, code) in [(Vendor::Intel, u32::from(ss & !3)), (Vendor::Amd, 0)] {
            let model = trivium_cpu::CpuModel { vendor, ..TestMachine::model() };
            let mut m = TestMachine::long_with(model, &IRETQ);
            put64(&mut m, &[0x8000_0000_0000, sel::USER_CODE.into(), 2, 0x8000, ss.into()]);
            m.raises(Vector::GP, Some(code));
        }
    }

    #[test]
    fn nmis_come_again_even_if_iret_faults() {
        let mut m = TestMachine::protected(&IRETD).in_v86(2);
        m.set(|s| (s.events.nmi_masked, s.events.nmi_pending) = (true, true));
        assert_eq!(m.run_to_handler(), Vector::NMI as u8);
        // #GP was raised, and the NMI came before its handler's first instruction.
        let sp = m.reg(4);
        assert_eq!(m.get_u32(sp), (crate::testing::HANDLERS + 16 * 13) as u32);
    }

    #[test]
    fn nt_is_refused_in_long_mode() {
        let mut m = TestMachine::long(&IRETQ);
        m.set(|s| s.general.rflags |= rflags::NT);
        m.raises(Vector::GP, Some(0));
    }
}
