//! Loading segment registers: MOV, POP, LDS, LES, LFS, LGS, LSS.
//!
//! Intel SDM vol. 2, MOV; vol. 3A, 5.6.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::model::{Feature, Quirk};
use trivium_cpu::state::{CS, SS, Segment, SegmentAttributes};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Selector, fault};
use super::stack::null_segment;
use crate::cpu::{Cpu, Mode, shadow};
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

/// Present, data, writable, accessed: what a load in real mode makes of a segment.
const REAL_DATA: u16 = 0x93;
/// The same for CS.
const REAL_CODE: u16 = 0x9b;
/// The attributes of every segment in virtual-8086 mode.
const V86: u16 = 0xf3;

/// A segment register after a load in real mode: the limit and the default size stay, so that
/// segments of 4 GiB set up in protected mode remain so.
pub(super) fn real_segment(old: &Segment, index: usize, selector: u16) -> Segment {
    use SegmentAttributes as A;
    let kind = if index == CS { REAL_CODE } else { REAL_DATA };
    Segment {
        selector,
        base: u64::from(selector) << 4,
        limit: if old.attributes.has(A::P) { old.limit } else { 0xffff },
        attributes: SegmentAttributes(old.attributes.0 & (A::DB | A::G) | kind),
    }
}

/// A segment register in virtual-8086 mode.
pub(super) fn v86_segment(selector: u16) -> Segment {
    Segment { attributes: SegmentAttributes(V86), ..Segment::real_mode(selector) }
}

impl Cpu {
    /// Loads a segment register other than CS.
    ///
    /// # Errors
    /// #GP, #NP, #SS, #PF.
    pub(super) fn load_segment(&mut self, index: usize, selector: u16) -> Result<(), Stop> {
        let segment = self.checked_segment(index, selector)?;
        self.put_segment(index, segment);
        self.update_mode();
        Ok(())
    }

    fn put_segment(&mut self, index: usize, segment: Segment) {
        if let Some(place) = self.segments.regs.get_mut(index) {
            *place = segment;
        }
    }

    /// What a load of a segment register other than CS gives.
    pub(super) fn checked_segment(&mut self, index: usize, value: u16) -> Result<Segment, Stop> {
        let old = self.segments.regs.get(index).copied().unwrap_or(Segment::real_mode(0));
        if self.v86() {
            return Ok(v86_segment(value));
        }
        if !self.protected() {
            return Ok(real_segment(&old, index, value));
        }
        let selector = Selector(value);
        match (index == SS, selector.is_null()) {
            (true, true) => self.null_stack(selector),
            (true, false) => self.checked_stack(selector, self.cpl(), Vector::GP, 0),
            (false, true) => Ok(self.null_data(&old, selector)),
            (false, false) => self.checked_data(selector, Vector::GP, 0),
        }
    }

    /// 64-bit code of CPL 0 to 2 may do without a stack segment.
    fn null_stack(&mut self, selector: Selector) -> Result<Segment, Stop> {
        if self.code64() && self.cpl() != 3 && selector.rpl() == self.cpl() {
            return Ok(null_segment(selector, self.cpl()));
        }
        Err(self.raise(Exception::gp(0)))
    }

    /// AMD's processors keep base and limit, unless they say that they do not. APM vol. 2, 4.5.2;
    /// vol. 3, appendix E, Fn8000_0021.
    pub(super) fn null_data(&self, old: &Segment, selector: Selector) -> Segment {
        let null = null_segment(selector, 0);
        let keeps = self.model.does(Quirk::NullSelectorKeepsBase)
            && !self.model.has(Feature::NullSelClrBase);
        if keeps { Segment { base: old.base, limit: old.limit, ..null } } else { null }
    }

    /// A data segment. What is wrong with it raises `invalid`, but #NP if it is not present.
    ///
    /// # Errors
    /// `invalid`, #NP, #PF.
    pub(super) fn checked_data(
        &mut self,
        selector: Selector,
        invalid: Vector,
        ext: u32,
    ) -> Result<Segment, Stop> {
        let mut descriptor = self.descriptor_or(selector, invalid, ext)?;
        let guarded = !descriptor.is_conforming();
        let privilege = selector.rpl().max(self.cpl());
        if !descriptor.is_readable() || guarded && privilege > descriptor.dpl() {
            return Err(fault(self, invalid, selector, ext));
        }
        if !descriptor.present() {
            return Err(fault(self, Vector::NP, selector, ext));
        }
        self.mark_accessed(&mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// Nulls the data segments that a less privileged level may not use. Intel SDM vol. 2, IRET
    /// and RET.
    pub(super) fn drop_privileged_segments(&mut self, cpl: u8) {
        use SegmentAttributes as A;
        for index in [0, 3, 4, 5] {
            let segment = self.segments.regs[index];
            let attributes = segment.attributes;
            let conforming = attributes.has(A::CODE | A::EXPAND_DOWN);
            if attributes.has(A::P) && attributes.dpl() < cpl && !conforming {
                self.segments.regs[index] = self.null_data(&segment, Selector(0));
            }
        }
    }
}

fn mov_to_segment(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = match op.has_mem() {
        true => cpu.load_operand::<u16>(op)?,
        false => cpu.reg(op.src, 0, 2) as u16,
    };
    load_from_instruction(cpu, op.dst, value)
}

fn load_from_instruction(cpu: &mut Cpu, number: u8, value: u16) -> Result<(), Stop> {
    let index = usize::from(number);
    if index == CS {
        return Err(cpu.raise(Exception::ud()));
    }
    cpu.load_segment(index, value)?;
    if index == SS {
        // Interrupts and debug traps wait until the stack pointer is loaded too.
        if cpu.shadowed & shadow::MOV_SS == 0 {
            cpu.shadow |= shadow::MOV_SS;
            cpu.single_step = false;
        }
    }
    Ok(())
}

/// To memory go 16 bits always; a register of 32 or 64 bits is zero-extended.
fn mov_from_segment(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let selector = cpu.segments.regs[usize::from(op.src) % 6].selector;
    if op.has_mem() {
        return cpu.store_operand(op, selector);
    }
    cpu.set_reg(op.dst, 0, op.size, selector.into());
    Ok(())
}

fn pop_segment(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = cpu.peek(0, op.size)? as u16;
    let before = cpu.stack_mask;
    load_from_instruction(cpu, op.dst, value)?;
    // The stack that was popped from is the old one.
    let after = std::mem::replace(&mut cpu.stack_mask, before);
    cpu.drop_stack(op.size.into());
    cpu.stack_mask = after;
    Ok(())
}

/// LDS and its like: `aux` is the segment register, `size` that of the offset.
fn load_far_pointer(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.offset(op);
    let value = cpu.load_sized(op.seg, at, op.size)?;
    let next = at.wrapping_add(op.size.into()) & crate::mem::address_mask(op.asize);
    let selector = cpu.load_seg::<u16>(op.seg, next)?;
    cpu.load_segment(op.aux.into(), selector)?;
    cpu.set_reg(op.dst, 0, op.size, value);
    Ok(())
}

fn far_pointer(i: &Instruction, context: &Context, segment: usize) -> Selection {
    let mut op = context.op(i);
    op.aux = segment as u8;
    Selection::general_end(op, load_far_pointer)
}

fn mov(i: &Instruction, context: &Context) -> Option<Selection> {
    let op = context.op(i);
    let is_segment = |n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_segment_register();
    if is_segment(0) {
        // FS and GS change nothing that 64-bit code is decoded for.
        let long = context.mode.has(Mode::LONG) && op.dst >= 4;
        return Some(match long {
            true => Selection::general(op, mov_to_segment),
            false => Selection::general_end(op, mov_to_segment),
        });
    }
    is_segment(1).then(|| Selection::general(op, mov_from_segment))
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    Some(match i.mnemonic() {
        M::Mov => return mov(i, context),
        M::Pop if i.op0_register().is_segment_register() => {
            let mut op = context.op(i);
            op.size = i.stack_pointer_increment().unsigned_abs() as u8;
            Selection::general_end(op, pop_segment)
        }
        M::Les => far_pointer(i, context, 0),
        M::Lss => far_pointer(i, context, SS),
        M::Lds => far_pointer(i, context, 3),
        M::Lfs => far_pointer(i, context, 4),
        M::Lgs => far_pointer(i, context, 5),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, DATA, RAM, STACK, TestMachine, descriptor, sel};
    use trivium_cpu::Exit;
    use trivium_cpu::bits::rflags;
    use trivium_cpu::model::CpuModel;
    use trivium_cpu::state::{DS, ES, FS, GS};

    const MOV_DS_AX: [u8; 2] = [0x8e, 0xd8];
    const MOV_SS_AX: [u8; 2] = [0x8e, 0xd0];

    fn with_ax(mut machine: TestMachine, value: u16) -> TestMachine {
        machine.set(|s| s.general.regs[0] = value.into());
        machine
    }

    #[test]
    fn a_null_selector_may_be_loaded_but_not_used() {
        // mov ds, ax; mov eax, [0xb000]
        let mut m = with_ax(TestMachine::protected(&[0x8e, 0xd8, 0xa1, 0, 0xb0, 0, 0]), 2);
        m.run(1);
        let ds = m.state().segments.regs[DS];
        assert_eq!((ds.selector, ds.attributes.has(SegmentAttributes::P)), (2, false));
        m.raises(Vector::GP, Some(0));
        let mut m = with_ax(TestMachine::protected(&MOV_SS_AX), 0);
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn ss_wants_rpl_and_dpl_to_be_cpl_and_a_writable_segment() {
        let base = || TestMachine::protected(&MOV_SS_AX);
        with_ax(base(), sel::DATA | 1).raises(Vector::GP, Some(sel::DATA.into()));
        with_ax(base(), sel::USER_DATA).raises(Vector::GP, Some(0x20));
        with_ax(base(), sel::CODE).raises(Vector::GP, Some(sel::CODE.into()));
        let mut m = with_ax(base(), sel::FREE);
        m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc091));
        m.raises(Vector::GP, Some(sel::FREE.into()));
    }

    #[test]
    fn data_segments_want_privilege_unless_they_are_conforming_code() {
        let base = || TestMachine::protected(&MOV_DS_AX);
        with_ax(base().at_cpl3(), sel::DATA | 3).raises(Vector::GP, Some(sel::DATA.into()));
        with_ax(base(), sel::DATA | 3).raises(Vector::GP, Some(sel::DATA.into()));
        with_ax(base(), sel::TSS).raises(Vector::GP, Some(sel::TSS.into()));
        let mut m = with_ax(base().at_cpl3(), sel::FREE);
        // Conforming, readable, DPL 0.
        m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc09f));
        m.run(1);
        assert_eq!(m.state().segments.regs[DS].selector, sel::FREE);
        let mut m = with_ax(base(), sel::FREE);
        // Code that cannot be read.
        m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc099));
        m.raises(Vector::GP, Some(sel::FREE.into()));
    }

    #[test]
    fn absence_is_np_for_data_and_ss_for_the_stack() {
        for (code, vector) in [(MOV_DS_AX, Vector::NP), (MOV_SS_AX, Vector::SS)] {
            let mut m = with_ax(TestMachine::protected(&code), sel::FREE);
            m.put_entry(sel::FREE, descriptor(0, 0xf_ffff, 0xc013));
            m.raises(vector, Some(sel::FREE.into()));
        }
    }

    #[test]
    fn a_selector_beyond_the_table_raises_gp() {
        let mut m = with_ax(TestMachine::protected(&MOV_DS_AX), 0x1000);
        m.raises(Vector::GP, Some(0x1000));
        // No LDT is loaded.
        let mut m = with_ax(TestMachine::protected(&MOV_DS_AX), 0xc);
        m.set(|s| s.segments.ldtr.attributes.0 = 0);
        m.raises(Vector::GP, Some(0xc));
    }

    #[test]
    fn a_descriptor_whose_address_is_not_canonical_raises_gp() {
        // mov ds, ax
        let mut m = TestMachine::long(&[0x8e, 0xd8]);
        m.set(|s| {
            s.segments.ldtr.attributes.0 = 0x82;
            (s.segments.ldtr.base, s.segments.ldtr.limit) = (0x7fff_ffff_fff8, 0xffff);
            s.general.regs[0] = 8 | 4;
        });
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn a_load_sets_the_accessed_bit() {
        let mut m = with_ax(TestMachine::protected(&MOV_DS_AX), sel::FREE);
        let entry = descriptor(0x1234_5678, 0x5_4321, 0x4092);
        m.put_entry(sel::FREE, entry);
        m.run(1);
        let ds = m.state().segments.regs[DS];
        assert_eq!((ds.base, ds.limit, ds.attributes.0), (0x1234_5678, 0x5_4321, 0x4093));
        assert_eq!(m.entry(sel::FREE), entry | 1 << 40);
    }

    #[test]
    fn mov_to_cs_is_undefined() {
        TestMachine::protected(&[0x8e, 0xc8]).raises(Vector::UD, None);
    }

    #[test]
    fn interrupts_wait_for_the_instruction_after_mov_ss() {
        // mov ss, ax; inc ecx; inc edx
        let mut m = with_ax(TestMachine::protected(&[0x8e, 0xd0, 0x41, 0x42]), sel::DATA);
        m.set(|s| s.general.rflags |= rflags::IF);
        m.run(1);
        assert!(m.state().events.interrupt_shadow);
        *m.bus.interrupt.lock().unwrap() = Some(0x30);
        assert_eq!(m.run_to_handler(), 0x30);
        let sp = m.reg(4);
        assert_eq!((m.reg(1), m.get_u32(sp)), (1, CODE as u32 + 3));
    }

    #[test]
    fn real_mode_leaves_limit_and_default_size() {
        // mov ds, ax
        let mut m = with_ax(TestMachine::real(&MOV_DS_AX), 0x1234);
        m.set(|s| s.segments.regs[DS].limit = u32::MAX);
        m.run(1);
        let ds = m.state().segments.regs[DS];
        assert_eq!((ds.selector, ds.base, ds.limit), (0x1234, 0x1_2340, u32::MAX));
    }

    #[test]
    fn virtual_8086_mode_loads_as_an_8086_does() {
        let mut m = with_ax(TestMachine::protected(&MOV_DS_AX).in_v86(0), 0xffff);
        m.run(1);
        let ds = m.state().segments.regs[DS];
        assert_eq!((ds.base, ds.limit, ds.attributes.0), (0xf_fff0, 0xffff, 0xf3));
    }

    #[test]
    fn pop_takes_a_slot_of_the_operand_size() {
        // pop ds; o16 pop es; pop fs
        let mut m = TestMachine::protected(&[0x1f, 0x66, 0x07, 0x0f, 0xa1]);
        m.put(STACK, &[0x10, 0, 0xff, 0xff, 0x23, 0, 0x23, 0, 0, 0]);
        m.run(3);
        let state = m.state();
        let selectors = [DS, ES, FS].map(|n| state.segments.regs[n].selector);
        assert_eq!((selectors, state.general.regs[4]), ([0x10, 0x23, 0x23], STACK + 10));
    }

    #[test]
    fn a_pop_that_faults_leaves_the_stack_pointer() {
        let mut m = TestMachine::protected(&[0x1f]);
        m.put(STACK, &0x1000_u32.to_le_bytes());
        m.raises(Vector::GP, Some(0x1000));
        assert_eq!(m.reg(4), STACK - 16);
    }

    #[test]
    fn a_far_pointer_loads_both_or_none() {
        // les ebx, [0xb000]
        let code = [0xc4, 0x1d, 0, 0xb0, 0, 0];
        let mut m = TestMachine::protected(&code);
        m.put(DATA, &[0x78, 0x56, 0x34, 0x12, 0x23, 0]);
        m.run(1);
        assert_eq!((m.reg(3), m.state().segments.regs[ES].selector), (0x1234_5678, 0x23));
        let mut m = TestMachine::protected(&code);
        m.put(DATA, &[0x78, 0x56, 0x34, 0x12, 0x30, 0]);
        m.raises(Vector::GP, Some(0x30));
    }

    #[test]
    fn sixty_four_bit_code_may_have_a_null_stack_but_not_at_cpl3() {
        let mut m = with_ax(TestMachine::long(&MOV_SS_AX), 0);
        m.run(1);
        assert_eq!(m.state().segments.regs[SS].selector, 0);
        with_ax(TestMachine::long(&MOV_SS_AX).at_cpl3(), 3).raises(Vector::GP, Some(0));
    }

    #[test]
    fn loads_of_fs_and_gs_set_their_base_in_64_bit_code_too() {
        // mov fs, eax; mov rbx, fs:[0]
        let code = [0x8e, 0xe0, 0x64, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0];
        let mut m = with_ax(TestMachine::long(&code), sel::FREE);
        m.put_entry(sel::FREE, descriptor(DATA, 0xffff, 0x4093));
        m.put_u64(DATA, 0x1122_3344_5566_7788);
        m.run(2);
        assert_eq!(m.reg(3), 0x1122_3344_5566_7788);
    }

    #[test]
    fn null_keeps_the_base_on_amd_processors_that_do_not_say_otherwise() {
        let code = [0x8e, 0xe8]; // mov gs, ax
        for (model, base) in [("max", 0), ("qemu64", 0x5000)] {
            let model = CpuModel::by_name(model).unwrap();
            let mut m = with_ax(TestMachine::long_with(model, &code), 0);
            m.set(|s| s.segments.regs[GS].base = 0x5000);
            m.run(1);
            assert_eq!(m.state().segments.regs[GS].base, base);
        }
    }

    #[test]
    fn a_page_fault_on_the_descriptor_names_its_address() {
        let mut m = with_ax(TestMachine::long(&MOV_DS_AX), 0x40);
        m.set(|s| s.segments.gdtr.base = 8 * RAM);
        // The handler's own code segment cannot be read either, and so on: a triple fault.
        assert_eq!(m.run(10), Exit::Shutdown);
        assert_eq!(m.state().control.cr2, 8 * RAM + 8);
    }
}
