//! Loading segment registers: MOV, POP, LDS, LES, LFS, LGS, LSS.
//!
//! Intel SDM vol. 2, MOV; vol. 3A, 5.6.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::model::{Feature, Vendor};
use trivium_cpu::state::{CS, SS, Segment, SegmentAttributes};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Selector, fault};
use super::stack::null_segment;
use crate::cpu::{Cpu, Mode};
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
        let keeps = self.model.vendor == Vendor::Amd && !self.model.has(Feature::NullSelClrBase);
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
        // Interrupts wait until the stack pointer is loaded too.
        cpu.interrupt_shadow = true;
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
