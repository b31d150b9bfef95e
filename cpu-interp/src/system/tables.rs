//! Descriptor tables and what asks about descriptors: LGDT, LIDT, LLDT, LTR and their stores, LAR,
//! LSL, VERR, VERW, ARPL.

use iced_x86::{Instruction, Mnemonic};
use trivium_cpu::bits::{cr4, rflags};
use trivium_cpu::state::{Segment, TableRegister};
use trivium_cpu::{Exception, Vector};

use super::descriptor::{Descriptor, Selector, fault, kind};
use super::stack::null_segment;
use crate::cpu::{Cpu, Mode};
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

impl Cpu {
    /// Raises #GP(0) unless CPL is 0.
    pub(super) fn require_cpl0(&mut self) -> Result<(), Stop> {
        if self.cpl() == 0 { Ok(()) } else { Err(self.raise(Exception::gp(0))) }
    }

    /// Raises #UD in real and virtual-8086 mode.
    fn require_protected(&mut self) -> Result<(), Stop> {
        if self.mode.has(Mode::PROTECTED) { Ok(()) } else { Err(self.raise(Exception::ud())) }
    }

    /// Raises #GP(0) if CR4.UMIP keeps the instruction from CPL above 0.
    pub(super) fn check_umip(&mut self) -> Result<(), Stop> {
        if self.cpl() > 0 && self.control.cr4 & cr4::UMIP != 0 {
            return Err(self.raise(Exception::gp(0)));
        }
        Ok(())
    }

    /// A 16-bit operand: register `dst`, or memory.
    fn word_operand(&mut self, op: &Op) -> Result<u16, Stop> {
        if op.has_mem() { self.load_operand::<u16>(op) } else { Ok(self.reg(op.dst, 0, 2) as u16) }
    }

    /// Stores a selector: 16 bits to memory, zero-extended to a register.
    pub(super) fn put_word(&mut self, op: &Op, value: u16) -> Result<(), Stop> {
        if op.has_mem() {
            return self.store_operand(op, value);
        }
        self.set_reg(op.dst, 0, op.size, value.into());
        Ok(())
    }
}

/// The bytes of base that a table's pseudo-descriptor has.
fn base_size(cpu: &Cpu) -> u8 {
    if cpu.code64() { 8 } else { 4 }
}

/// Loads a pseudo-descriptor; `op.aux` is the number of bits of the base that count.
fn load_table(cpu: &mut Cpu, op: &Op) -> Result<TableRegister, Stop> {
    cpu.require_cpl0()?;
    let at = cpu.offset(op);
    let limit = cpu.load_seg::<u16>(op.seg, at)?;
    let next = at.wrapping_add(2) & address_mask(op.asize);
    let size = base_size(cpu);
    let base = cpu.load_sized(op.seg, next, size)? & crate::cpu::mask_of(op.aux.into());
    if size == 8 && !cpu.canonical(base) {
        return Err(cpu.raise(Exception::gp(0)));
    }
    Ok(TableRegister { base, limit })
}

fn lgdt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.segments.gdtr = load_table(cpu, op)?;
    Ok(())
}

fn lidt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.segments.idtr = load_table(cpu, op)?;
    Ok(())
}

fn store_table(cpu: &mut Cpu, op: &Op, table: TableRegister) -> Result<(), Stop> {
    cpu.check_umip()?;
    let at = cpu.offset(op);
    let next = at.wrapping_add(2) & address_mask(op.asize);
    let size = base_size(cpu);
    let linear = cpu.linear(op.seg, at, 2, true)?;
    cpu.probe(linear, 2, true, Rights::Program)?;
    cpu.store_sized(op.seg, next, size, table.base)?;
    cpu.store_seg(op.seg, at, table.limit)
}

fn sgdt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let table = cpu.segments.gdtr;
    store_table(cpu, op, table)
}

fn sidt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let table = cpu.segments.idtr;
    store_table(cpu, op, table)
}

/// LDT and TSS descriptors have 16 bytes in long mode.
fn system_segment(
    cpu: &mut Cpu,
    descriptor: &Descriptor,
    selector: Selector,
) -> Result<Segment, Stop> {
    let mut segment = descriptor.segment(selector);
    if cpu.long_mode() {
        segment.base |= cpu.upper_half(descriptor, Vector::GP)?;
        if !cpu.canonical(segment.base) {
            return Err(fault(cpu, Vector::GP, selector, 0));
        }
    }
    Ok(segment)
}

fn lldt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let selector = Selector(cpu.word_operand(op)?);
    cpu.segments.ldtr = if selector.is_null() {
        null_segment(selector, 0)
    } else {
        checked_ldt(cpu, selector, Vector::GP)?
    };
    Ok(())
}

/// A selector for LDTR; what is wrong with it raises `invalid`.
pub(super) fn checked_ldt(
    cpu: &mut Cpu,
    selector: Selector,
    invalid: Vector,
) -> Result<Segment, Stop> {
    if selector.0 & 4 != 0 {
        return Err(fault(cpu, invalid, selector, 0));
    }
    let descriptor = cpu.descriptor_or(selector, invalid, 0)?;
    if descriptor.system_kind() != Some(kind::LDT) {
        return Err(fault(cpu, invalid, selector, 0));
    }
    if !descriptor.present() {
        let vector = if invalid == Vector::GP { Vector::NP } else { invalid };
        return Err(fault(cpu, vector, selector, 0));
    }
    system_segment(cpu, &descriptor, selector)
}

fn ltr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let selector = Selector(cpu.word_operand(op)?);
    if selector.0 & 4 != 0 {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    let mut descriptor = cpu.descriptor_or(selector, Vector::GP, 0)?;
    let available = match descriptor.system_kind() {
        Some(kind::TSS16) => !cpu.long_mode(),
        Some(kind::TSS32) => true,
        _ => false,
    };
    if !available {
        return Err(fault(cpu, Vector::GP, selector, 0));
    }
    if !descriptor.present() {
        return Err(fault(cpu, Vector::NP, selector, 0));
    }
    system_segment(cpu, &descriptor, selector)?;
    cpu.set_type_bit(&mut descriptor, BUSY)?;
    cpu.segments.tr = system_segment(cpu, &descriptor, selector)?;
    Ok(())
}

/// The bit of a TSS's type that says that the task is running.
pub(super) const BUSY: u16 = 2;

fn sldt(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    let selector = cpu.segments.ldtr.selector;
    cpu.put_word(op, selector)
}

fn str(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    cpu.check_umip()?;
    let selector = cpu.segments.tr.selector;
    cpu.put_word(op, selector)
}

/// The descriptor of a selector, if LAR, LSL, VERR and VERW may tell of it.
fn visible(cpu: &mut Cpu, selector: Selector) -> Result<Option<Descriptor>, Stop> {
    if selector.is_null() {
        return Ok(None);
    }
    let privilege = selector.rpl().max(cpu.cpl());
    let found = cpu.descriptor(selector)?;
    Ok(found.filter(|d| d.is_conforming() || privilege <= d.dpl()))
}

fn set_zf(cpu: &mut Cpu, value: bool) {
    cpu.flags.set_some(rflags::ZF, if value { rflags::ZF } else { 0 });
}

/// The second operand of LAR and LSL.
fn selector_operand(cpu: &mut Cpu, op: &Op) -> Result<Selector, Stop> {
    let value = match op.has_mem() {
        true => cpu.load_operand::<u16>(op)?,
        false => cpu.reg(op.src, 0, 2) as u16,
    };
    Ok(Selector(value))
}

fn lar(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    let selector = selector_operand(cpu, op)?;
    let long = cpu.long_mode();
    let found = visible(cpu, selector)?.filter(|d| match d.system_kind() {
        None => true,
        Some(kind::LDT | kind::TSS32 | kind::TSS32_BUSY | kind::CALL_GATE32) => true,
        Some(kind::TSS16 | kind::TSS16_BUSY | kind::CALL_GATE16 | kind::TASK_GATE) => !long,
        Some(_) => false,
    });
    if let Some(descriptor) = found {
        cpu.set_reg(op.dst, 0, op.size, descriptor.raw >> 32 & 0x00ff_ff00);
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn lsl(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    let selector = selector_operand(cpu, op)?;
    let long = cpu.long_mode();
    let found = visible(cpu, selector)?.filter(|d| match d.system_kind() {
        None => true,
        Some(kind::LDT | kind::TSS32 | kind::TSS32_BUSY) => true,
        Some(kind::TSS16 | kind::TSS16_BUSY) => !long,
        Some(_) => false,
    });
    if let Some(descriptor) = found {
        cpu.set_reg(op.dst, 0, op.size, descriptor.limit().into());
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn verr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    let selector = Selector(cpu.word_operand(op)?);
    let found = visible(cpu, selector)?;
    set_zf(cpu, found.is_some_and(|d| d.is_readable()));
    Ok(())
}

fn verw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    let selector = Selector(cpu.word_operand(op)?);
    let found = visible(cpu, selector)?;
    set_zf(cpu, found.is_some_and(|d| d.is_writable_data()));
    Ok(())
}

fn arpl(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_protected()?;
    let selector = Selector(cpu.word_operand(op)?);
    let rpl = (cpu.reg(op.src, 0, 2) & 3) as u8;
    let raised = selector.rpl() < rpl;
    let value = if raised { selector.with_rpl(rpl) } else { selector };
    if op.has_mem() {
        cpu.store_operand(op, value.0)?;
    } else if raised {
        cpu.set_reg(op.dst, 0, 2, value.0.into());
    }
    set_zf(cpu, raised);
    Ok(())
}

/// LGDT and LIDT take 24 bits of base with 16-bit operands.
fn with_base_bits(i: &Instruction, context: &Context) -> Op {
    use iced_x86::Code as C;
    let mut op = context.op(i);
    op.aux = match i.code() {
        C::Lgdt_m1632_16 | C::Lidt_m1632_16 => 24,
        C::Lgdt_m1632 | C::Lidt_m1632 => 32,
        _ => 64,
    };
    op
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let general = |f| Some(Selection::general(context.op(i), f));
    match i.mnemonic() {
        M::Lgdt => Some(Selection::general_end(with_base_bits(i, context), lgdt)),
        M::Lidt => Some(Selection::general_end(with_base_bits(i, context), lidt)),
        M::Sgdt => general(sgdt),
        M::Sidt => general(sidt),
        M::Lldt => general(lldt),
        M::Ltr => general(ltr),
        M::Sldt => general(sldt),
        M::Str => general(str),
        M::Lar => general(lar),
        M::Lsl => general(lsl),
        M::Verr => general(verr),
        M::Verw => general(verw),
        M::Arpl => general(arpl),
        _ => None,
    }
}
