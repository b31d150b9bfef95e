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
    pub(crate) fn require_cpl0(&mut self) -> Result<(), Stop> {
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
    // Real processors write nothing that does not change.
    match (raised, op.has_mem()) {
        (true, true) => cpu.store_operand(op, value.0)?,
        (true, false) => cpu.set_reg(op.dst, 0, 2, value.0.into()),
        (false, _) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, GDT, TestMachine, descriptor, sel};

    #[test]
    fn lgdt_with_16_bit_operands_takes_24_bits_of_base() {
        // lgdt [0xb000]; o16 lgdt [0xb000]
        let code = [0x0f, 0x01, 0x15, 0, 0xb0, 0, 0, 0x66, 0x0f, 0x01, 0x15, 0, 0xb0, 0, 0];
        let mut m = TestMachine::protected(&code);
        m.put(DATA, &[0x34, 0x12, 0x78, 0x56, 0x34, 0x12]);
        m.run(1);
        assert_eq!(m.state().segments.gdtr, TableRegister { base: 0x1234_5678, limit: 0x1234 });
        m.run(1);
        assert_eq!(m.state().segments.gdtr, TableRegister { base: 0x34_5678, limit: 0x1234 });
    }

    #[test]
    fn lidt_in_64_bit_code_takes_8_bytes_and_a_canonical_base() {
        // lidt [0xb000]
        let code = [0x0f, 0x01, 0x1c, 0x25, 0, 0xb0, 0, 0];
        let mut m = TestMachine::long(&code);
        m.put(DATA, &[0xff, 0x0f]);
        m.put_u64(DATA + 2, 0xffff_8000_0000_1000);
        m.run(1);
        assert_eq!(m.state().segments.idtr.base, 0xffff_8000_0000_1000);
        let mut m = TestMachine::long(&code);
        m.put_u64(DATA + 2, 0x8000_0000_0000);
        m.raises(Vector::GP, Some(0));
        TestMachine::long(&code).at_cpl3().raises(Vector::GP, Some(0));
    }

    #[test]
    fn sgdt_stores_what_was_loaded() {
        // sgdt [0xb000]
        let mut m = TestMachine::long(&[0x0f, 0x01, 0x04, 0x25, 0, 0xb0, 0, 0]);
        m.run(1);
        assert_eq!((m.get_u16(DATA), m.get_u64(DATA + 2)), (0xfff, GDT));
    }

    #[test]
    fn umip_keeps_descriptor_tables_and_machine_status_from_programs() {
        let codes: [&[u8]; 5] = [
            &[0x0f, 0x01, 0x04, 0x25, 0, 0xb0, 0, 0],
            &[0x0f, 0x01, 0x0c, 0x25, 0, 0xb0, 0, 0],
            &[0x0f, 0x00, 0xc0],
            &[0x0f, 0x00, 0xc8],
            &[0x0f, 0x01, 0xe0],
        ];
        for code in codes {
            let mut m = TestMachine::long(code).at_cpl3();
            m.run(1);
            assert_eq!(m.state().segments.cpl, 3, "allowed without UMIP");
            let mut m = TestMachine::long(code).at_cpl3();
            m.set(|s| s.control.cr4 |= cr4::UMIP);
            m.raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn ltr_wants_an_available_tss_and_makes_it_busy() {
        let code = [0x0f, 0x00, 0xd8]; // ltr ax
        let mut m = TestMachine::protected(&code);
        m.set(|s| s.general.regs[0] = sel::TSS.into());
        m.raises(Vector::GP, Some(sel::TSS.into()));
        let mut m = TestMachine::protected(&code);
        m.put_entry(sel::FREE, descriptor(0x1_2345, 0x67, 0x89));
        m.set(|s| s.general.regs[0] = sel::FREE.into());
        m.run(1);
        let tr = m.state().segments.tr;
        assert_eq!((tr.selector, tr.base, tr.attributes.0), (sel::FREE, 0x1_2345, 0x8b));
        assert_eq!(m.entry(sel::FREE) >> 40 & 0xff, 0x8b);
        let mut m = TestMachine::protected(&code);
        m.put_entry(sel::FREE, descriptor(0x1_2345, 0x67, 0x09));
        m.set(|s| s.general.regs[0] = sel::FREE.into());
        m.raises(Vector::NP, Some(sel::FREE.into()));
        TestMachine::protected(&code).raises(Vector::GP, Some(0));
    }

    #[test]
    fn ltr_in_long_mode_reads_16_bytes() {
        let mut m = TestMachine::long(&[0x0f, 0x00, 0xd8]);
        m.put_entry(sel::FREE, descriptor(0x1_2345, 0x67, 0x89));
        m.put_entry(sel::FREE + 8, 0xffff_8000);
        m.set(|s| s.general.regs[0] = sel::FREE.into());
        m.run(1);
        assert_eq!(m.state().segments.tr.base, 0xffff_8000_0001_2345);
        let mut m = TestMachine::long(&[0x0f, 0x00, 0xd8]);
        m.put_entry(sel::FREE, descriptor(0x1_2345, 0x67, 0x89));
        m.put_entry(sel::FREE + 8, 0x0000_8900_0000_0000);
        m.set(|s| s.general.regs[0] = sel::FREE.into());
        m.raises(Vector::GP, Some(sel::FREE.into()));
    }

    #[test]
    fn lldt_takes_null_and_ldts_only() {
        let code = [0x0f, 0x00, 0xd0]; // lldt ax
        let mut m = TestMachine::protected(&code);
        m.run(1);
        assert_eq!(m.state().segments.ldtr.attributes.0, 0);
        let mut m = TestMachine::protected(&code);
        m.set(|s| s.general.regs[0] = sel::DATA.into());
        m.raises(Vector::GP, Some(sel::DATA.into()));
        let mut m = TestMachine::protected(&code);
        m.put_entry(sel::FREE, descriptor(0xb000, 0xf, 0x82));
        m.set(|s| s.general.regs[0] = sel::FREE.into());
        m.run(1);
        assert_eq!(m.state().segments.ldtr.base, 0xb000);
    }

    #[test]
    fn protected_mode_instructions_are_undefined_in_real_and_virtual_8086_mode() {
        let codes: [&[u8]; 8] = [
            &[0x0f, 0x00, 0xd0],
            &[0x0f, 0x00, 0xd8],
            &[0x0f, 0x00, 0xc0],
            &[0x0f, 0x00, 0xc8],
            &[0x0f, 0x02, 0xc0],
            &[0x0f, 0x03, 0xc0],
            &[0x0f, 0x00, 0xe0],
            &[0x63, 0xc0],
        ];
        for code in codes {
            assert_eq!(TestMachine::real(code).run_to_handler(), Vector::UD as u8);
            let mut m = TestMachine::protected(code).in_v86(3);
            assert_eq!(m.run_to_handler(), Vector::UD as u8);
        }
    }

    /// Runs an instruction on EBX: gives ZF and EAX.
    fn ask(mut m: TestMachine, selector: u16) -> (bool, u64) {
        m.set(|s| s.general.regs[3] = selector.into());
        m.run(1);
        let state = m.state();
        (state.general.rflags & rflags::ZF != 0, state.general.regs[0])
    }

    #[test]
    fn lar_and_lsl_tell_what_the_privilege_may_know() {
        let lar = || TestMachine::protected(&[0x0f, 0x02, 0xc3]);
        assert_eq!(ask(lar(), sel::DATA), (true, 0xcf_9300));
        assert_eq!(ask(lar(), sel::TSS), (true, 0x00_8b00));
        assert_eq!(ask(lar().at_cpl3(), sel::DATA), (false, 0));
        assert_eq!(ask(lar(), 0), (false, 0));
        let lsl = || TestMachine::protected(&[0x0f, 0x03, 0xc3]);
        assert_eq!(ask(lsl(), sel::DATA), (true, 0xffff_ffff));
        assert_eq!(ask(lsl(), sel::TSS), (true, 0x67));
        assert_eq!(ask(lsl(), 0x2000), (false, 0));
    }

    #[test]
    fn verr_and_verw_tell_whether_an_access_would_do() {
        let verr = || TestMachine::protected(&[0x0f, 0x00, 0xe3]);
        let verw = || TestMachine::protected(&[0x0f, 0x00, 0xeb]);
        assert!(ask(verr(), sel::CODE).0);
        assert!(!ask(verw(), sel::CODE).0);
        assert!(ask(verw(), sel::DATA).0);
        assert!(!ask(verw().at_cpl3(), sel::DATA).0);
        assert!(ask(verw().at_cpl3(), sel::USER_DATA).0);
        assert!(!ask(verr(), sel::TSS).0);
    }

    #[test]
    fn arpl_raises_rpl_to_that_of_the_caller() {
        // arpl bx, cx
        let mut m = TestMachine::protected(&[0x63, 0xcb]);
        m.set(|s| (s.general.regs[3], s.general.regs[1]) = (0x10, 0x2b));
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.regs[3], state.general.rflags & rflags::ZF), (0x13, rflags::ZF));
    }
}
