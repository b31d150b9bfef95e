//! Control and debug registers, and what drops translations: MOV CRn, MOV DRn, LMSW, SMSW, CLTS,
//! INVLPG, INVPCID, XGETBV, XSETBV, RDPKRU, WRPKRU.
//!
//! Intel SDM vol. 2, MOV; vol. 3A, 2.5, 4.1, 4.10, 9.8.5; vol. 3B, 18.2.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::{cr0, cr4, debug, efer};
use trivium_cpu::model::{Feature, Quirk};
use trivium_cpu::state::{CS, SegmentAttributes as A};
use trivium_cpu::{CpuBus, Exception, Vector, walk};

use crate::cpu::{Cpu, SEG_BASE};
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};
use crate::pcid::PCID;

use super::descriptor::kind;

/// CR3 with CR4.PCIDE: translations of the new PCID are kept.
const NO_FLUSH: u64 = 1 << 63;

/// Bits of CR0 and CR4 on which translations depend.
const CR0_PAGING: u64 = cr0::PG | cr0::WP | cr0::PE;
const CR4_PAGING: u64 =
    cr4::PSE | cr4::PAE | cr4::PGE | cr4::LA57 | cr4::PCIDE | cr4::SMEP | cr4::SMAP | cr4::PKE;
/// Bits whose change makes PAE paging read its page-directory-pointer table anew. Intel SDM
/// vol. 3A, 4.4.1.
const CR0_PDPTR: u64 = cr0::CD | cr0::NW | cr0::PG;
const CR4_PDPTR: u64 = cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP;

fn gp(cpu: &mut Cpu) -> Stop {
    cpu.raise(Exception::gp(0))
}

/// The page-directory-pointer registers, if paging with these values has them.
fn pdptrs(cpu: &mut Cpu, cr0: u64, cr3: u64, cr4: u64) -> Result<Option<[u64; 4]>, Stop> {
    let pae = cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0 && cpu.control.efer & efer::LME == 0;
    if !pae {
        return Ok(None);
    }
    match walk::load_pdptrs(&cpu.memory, cr3, cpu.model.phys_bits) {
        Ok(pdptr) => Ok(Some(pdptr)),
        Err(exception) => Err(cpu.raise(exception)),
    }
}

impl Cpu {
    /// Writes CR0.
    ///
    /// # Errors
    /// #GP(0).
    fn write_cr0(&mut self, value: u64) -> Result<(), Stop> {
        let (old, control) = (self.control.cr0, self.control);
        let new = value & cr0::ALL | cr0::ET;
        let has = |bit| new & bit != 0;
        let turns_on = has(cr0::PG) && old & cr0::PG == 0;
        let turns_off = !has(cr0::PG) && old & cr0::PG != 0;
        let lme = control.efer & efer::LME != 0;
        let code64 = self.segments.regs[CS].attributes.has(A::L);
        let bad = value >> 32 != 0
            || has(cr0::PG) && !has(cr0::PE)
            || has(cr0::NW) && !has(cr0::CD)
            || turns_on && lme && (control.cr4 & cr4::PAE == 0 || code64 || self.has_narrow_task())
            || turns_off && (self.code64() || control.cr4 & cr4::PCIDE != 0);
        if bad {
            return Err(gp(self));
        }
        if (old ^ new) & CR0_PDPTR != 0
            && let Some(pdptr) = pdptrs(self, new, control.cr3, control.cr4)?
        {
            self.control.pdptr = pdptr;
        }
        self.control.cr0 = new;
        if turns_on && lme {
            self.control.efer |= efer::LMA;
        } else if turns_off {
            self.control.efer &= !efer::LMA;
        }
        self.after_control((old ^ new) & CR0_PAGING != 0);
        Ok(())
    }

    /// Whether TR is that of a 16-bit TSS, and the model does not take such a one into long mode.
    fn has_narrow_task(&self) -> bool {
        let kind = self.segments.tr.attributes.kind();
        self.model.does(Quirk::LongModeWantsWideTss)
            && matches!(kind, kind::TSS16 | kind::TSS16_BUSY)
    }

    /// Writes CR3.
    ///
    /// # Errors
    /// #GP(0).
    fn write_cr3(&mut self, value: u64) -> Result<(), Stop> {
        let pcide = self.control.cr4 & cr4::PCIDE != 0;
        let keep = pcide && value & NO_FLUSH != 0;
        let value = if pcide { value & !NO_FLUSH } else { value };
        if value >> self.model.phys_bits.min(63) != 0 {
            return Err(gp(self));
        }
        if let Some(pdptr) = pdptrs(self, self.control.cr0, value, self.control.cr4)? {
            self.control.pdptr = pdptr;
        }
        self.control.cr3 = value;
        self.update_paging();
        self.enter_pcid(if pcide { (value & PCID) as u16 } else { 0 }, keep);
        Ok(())
    }

    /// Writes CR4.
    ///
    /// # Errors
    /// #GP(0).
    fn write_cr4(&mut self, value: u64) -> Result<(), Stop> {
        let (old, control) = (self.control.cr4, self.control);
        let changes = |bit| (old ^ value) & bit != 0;
        let pcide_on = changes(cr4::PCIDE) && value & cr4::PCIDE != 0;
        let long = self.long_mode();
        let bad = value & !self.model.cr4_mask() != 0
            || long && value & cr4::PAE == 0
            || long && changes(cr4::LA57)
            || pcide_on && (!long || control.cr3 & PCID != 0);
        if bad {
            return Err(gp(self));
        }
        if changes(CR4_PDPTR)
            && let Some(pdptr) = pdptrs(self, control.cr0, control.cr3, value)?
        {
            self.control.pdptr = pdptr;
        }
        self.control.cr4 = value;
        self.after_control(changes(CR4_PAGING));
        Ok(())
    }

    /// Brings up to date what depends on control registers.
    pub(super) fn after_control(&mut self, paging: bool) {
        self.update_paging();
        self.update_mode();
        self.update_watch();
        if paging {
            self.flush_tlb(false);
        }
    }
}

fn mov_to_cr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let value = cpu.reg(op.src, 0, op.size);
    match op.dst {
        0 => cpu.write_cr0(value),
        2 => {
            cpu.control.cr2 = value;
            Ok(())
        }
        3 => cpu.write_cr3(value),
        4 => cpu.write_cr4(value),
        _ => Err(cpu.raise(Exception::ud())),
    }
}

fn mov_from_cr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let control = &cpu.control;
    let value = match op.src {
        0 => control.cr0,
        2 => control.cr2,
        3 => control.cr3,
        4 => control.cr4,
        _ => return Err(cpu.raise(Exception::ud())),
    };
    cpu.set_reg(op.dst, 0, op.size, value);
    Ok(())
}

fn mov_to_cr8(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let value = cpu.reg(op.src, 0, op.size);
    if value > 15 {
        return Err(gp(cpu));
    }
    bus.set_cr8(value as u8);
    cpu.look = true;
    Ok(())
}

fn mov_from_cr8(cpu: &mut Cpu, op: &Op, bus: &dyn CpuBus) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    cpu.set_reg(op.dst, 0, op.size, bus.cr8().into());
    Ok(())
}

/// The debug register that a number means: DR4 and DR5 are DR6 and DR7 unless CR4.DE is set.
fn debug_register(cpu: &mut Cpu, number: u8) -> Result<u8, Stop> {
    let aliases = cpu.control.cr4 & cr4::DE == 0;
    // AMD's processors look at the privilege first.
    if cpu.model.does(Quirk::DebugRegisterPrivilegeFirst) && number < 8 {
        cpu.require_cpl0()?;
    }
    let number = match number {
        0..=3 | 6 | 7 => number,
        4 | 5 if aliases => number + 2,
        _ => return Err(cpu.raise(Exception::ud())),
    };
    cpu.require_cpl0()?;
    if cpu.debug.dr7 & debug::DR7_GD != 0 {
        cpu.debug.dr6 = cpu.debug.dr6 & !debug::DR6_B | debug::DR6_BD;
        return Err(cpu.raise(Exception::plain(Vector::DB)));
    }
    Ok(number)
}

fn mov_to_dr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let number = debug_register(cpu, op.dst)?;
    let value = cpu.reg(op.src, 0, op.size);
    if number >= 6 && value >> 32 != 0 {
        return Err(gp(cpu));
    }
    match number {
        6 => cpu.debug.dr6 = value & DR6_WRITABLE | debug::DR6_FIXED,
        7 => cpu.debug.dr7 = value & !DR7_ZERO | debug::DR7_FIXED,
        n => cpu.debug.address[usize::from(n & 3)] = value,
    }
    cpu.update_watch();
    Ok(())
}

/// B0 to B3, BD, BS and BT.
const DR6_WRITABLE: u64 = 0xe00f;
/// Bits of DR7 that are always zero. Bit 11 is that of transactional memory.
const DR7_ZERO: u64 = 0xffff_ffff_0000_d800;

fn mov_from_dr(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let value = match debug_register(cpu, op.src)? {
        6 => cpu.debug.dr6,
        7 => cpu.debug.dr7,
        n => cpu.debug.address[usize::from(n & 3)],
    };
    cpu.set_reg(op.dst, 0, op.size, value);
    Ok(())
}

/// PE, MP, EM and TS; PE cannot be cleared.
fn lmsw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let value = match op.has_mem() {
        true => cpu.load_operand::<u16>(op)?.into(),
        false => cpu.reg(op.dst, 0, 2),
    };
    let kept = cpu.control.cr0 & !(cr0::MP | cr0::EM | cr0::TS);
    cpu.write_cr0(kept | value & 15)
}

fn smsw(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.check_umip()?;
    let value = cpu.control.cr0;
    if op.has_mem() {
        return cpu.store_operand(op, value as u16);
    }
    cpu.set_reg(op.dst, 0, op.size, value);
    Ok(())
}

fn clts(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    cpu.control.cr0 &= !cr0::TS;
    cpu.update_mode();
    Ok(())
}

fn invlpg(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()?;
    let base = cpu.regs[usize::from(SEG_BASE + op.seg)];
    let linear = cpu.offset(op).wrapping_add(base);
    let linear = if cpu.code64() { linear } else { linear & 0xffff_ffff };
    cpu.flush_page(linear);
    Ok(())
}

/// Intel SDM vol. 2, INVPCID.
fn invpcid(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    if !cpu.model.has(Feature::Invpcid) {
        return Err(cpu.raise(Exception::ud()));
    }
    cpu.require_cpl0()?;
    let kind = cpu.reg(op.dst, 0, op.size);
    let [pcid, linear] = cpu.load_operand::<[u64; 2]>(op)?;
    let pcide = cpu.control.cr4 & cr4::PCIDE != 0;
    let bad_pcid = pcid & !PCID != 0 || pcid != 0 && !pcide;
    match kind {
        0 if bad_pcid || !cpu.canonical(linear) => return Err(gp(cpu)),
        0 => cpu.flush_page_of(pcid as u16, linear),
        1 if bad_pcid => return Err(gp(cpu)),
        1 => cpu.flush_pcid(pcid as u16),
        3 => cpu.flush_tlb(true),
        2 => cpu.flush_tlb(false),
        _ => return Err(gp(cpu)),
    }
    Ok(())
}

fn ecx(cpu: &Cpu) -> u64 {
    cpu.reg(1, 0, 4)
}

fn edx_eax(cpu: &Cpu) -> u64 {
    cpu.reg(2, 0, 4) << 32 | cpu.reg(0, 0, 4)
}

fn put_edx_eax(cpu: &mut Cpu, value: u64) {
    cpu.set_reg(0, 0, 4, value & 0xffff_ffff);
    cpu.set_reg(2, 0, 4, value >> 32);
}

fn require_osxsave(cpu: &mut Cpu) -> Result<(), Stop> {
    match cpu.control.cr4 & cr4::OSXSAVE != 0 {
        true => Ok(()),
        false => Err(cpu.raise(Exception::ud())),
    }
}

fn xgetbv(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_osxsave(cpu)?;
    let value = match ecx(cpu) {
        0 => cpu.control.xcr0,
        1 if cpu.model.has(Feature::Xgetbv1) => cpu.control.xcr0 & in_use(cpu),
        _ => return Err(gp(cpu)),
    };
    put_edx_eax(cpu, value);
    Ok(())
}

/// The state components that are not in their initial configuration; x87 and SSE are said to be in
/// use always, as the manual allows. Intel SDM vol. 1, 13.6.
fn in_use(cpu: &Cpu) -> u64 {
    let upper = cpu.vector.regs.iter().any(|r| r[2] | r[3] != 0);
    xcr0::X87 | xcr0::SSE | if upper { xcr0::AVX } else { 0 }
}

/// XCR0. Intel SDM vol. 3A, 2.6.
mod xcr0 {
    pub const X87: u64 = 1 << 0;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
}

fn xsetbv(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_osxsave(cpu)?;
    cpu.require_cpl0()?;
    let value = edx_eax(cpu);
    let lone_avx = value & xcr0::AVX != 0 && value & xcr0::SSE == 0;
    let bad = value & !cpu.model.xcr0_mask() != 0 || value & xcr0::X87 == 0 || lone_avx;
    if ecx(cpu) != 0 || bad {
        return Err(gp(cpu));
    }
    cpu.control.xcr0 = value;
    cpu.update_mode();
    Ok(())
}

fn check_pkru(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.control.cr4 & cr4::PKE == 0 {
        return Err(cpu.raise(Exception::ud()));
    }
    if ecx(cpu) != 0 { Err(gp(cpu)) } else { Ok(()) }
}

fn rdpkru(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    check_pkru(cpu)?;
    put_edx_eax(cpu, cpu.control.pkru.into());
    Ok(())
}

fn wrpkru(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    check_pkru(cpu)?;
    let value = edx_eax(cpu);
    if value >> 32 != 0 {
        return Err(gp(cpu));
    }
    cpu.control.pkru = value as u32;
    cpu.after_control(true);
    Ok(())
}

fn mov(i: &Instruction, context: &Context) -> Option<Selection> {
    let mut op = context.op(i);
    if i.op_kind(0) != OpKind::Register || i.op_kind(1) != OpKind::Register {
        return None;
    }
    let (to, from) = (i.op_register(0), i.op_register(1));
    if to.is_cr() || to.is_dr() {
        op.size = from.size() as u8;
    }
    Some(match () {
        () if to.is_cr() && op.dst == 8 => Selection::system(op, mov_to_cr8),
        () if from.is_cr() && op.src == 8 => Selection::system(op, mov_from_cr8),
        () if to.is_cr() => Selection::general_end(op, mov_to_cr),
        () if from.is_cr() => Selection::general(op, mov_from_cr),
        () if to.is_dr() => Selection::general_end(op, mov_to_dr),
        () if from.is_dr() => Selection::general(op, mov_from_dr),
        () => return None,
    })
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let general = |f| Some(Selection::general(context.op(i), f));
    let ending = |f| Some(Selection::general_end(context.op(i), f));
    match i.mnemonic() {
        M::Mov => mov(i, context),
        M::Lmsw => ending(lmsw),
        M::Smsw => general(smsw),
        M::Clts => ending(clts),
        M::Invlpg => ending(invlpg),
        M::Invpcid => ending(invpcid),
        M::Xgetbv => general(xgetbv),
        M::Xsetbv => ending(xsetbv),
        M::Rdpkru => general(rdpkru),
        M::Wrpkru => ending(wrpkru),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, DATA, DEVICE, TABLES, TestMachine};

    const MOV_CR0_RAX: [u8; 3] = [0x0f, 0x22, 0xc0];
    const MOV_CR3_RAX: [u8; 3] = [0x0f, 0x22, 0xd8];
    const MOV_CR4_RAX: [u8; 3] = [0x0f, 0x22, 0xe0];

    fn with_rax(mut m: TestMachine, value: u64) -> TestMachine {
        m.set(|s| s.general.regs[0] = value);
        m
    }

    #[test]
    fn control_registers_are_for_cpl0() {
        let codes: [&[u8]; 8] = [
            &MOV_CR0_RAX,
            &[0x0f, 0x20, 0xc0],
            &[0x44, 0x0f, 0x22, 0xc0],
            &[0x0f, 0x23, 0xc0],
            &[0x0f, 0x06],
            &[0x0f, 0x01, 0xf0],
            &[0x0f, 0x01, 0x38],
            &[0x0f, 0x09],
        ];
        for code in codes {
            TestMachine::long(code).at_cpl3().raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn cr0_refuses_combinations_that_make_no_sense() {
        let base = cr0::PE | cr0::ET;
        let bad = [cr0::PG, base | cr0::NW, base | 1 << 32];
        for value in bad {
            with_rax(TestMachine::long(&MOV_CR0_RAX), value).raises(Vector::GP, Some(0));
        }
        // Paging cannot be turned off by 64-bit code.
        with_rax(TestMachine::long(&MOV_CR0_RAX), base).raises(Vector::GP, Some(0));
        let mut m = with_rax(TestMachine::protected(&MOV_CR0_RAX), 0x1ff0_ffc1);
        m.run(1);
        // ET is fixed, reserved bits are dropped.
        assert_eq!(m.state().control.cr0, 0x11);
    }

    #[test]
    fn cr4_refuses_bits_that_the_model_does_not_have() {
        let base = cr4::PAE;
        for value in [base | 1 << 13, base | 1 << 31, base | cr4::LA57, 0] {
            with_rax(TestMachine::long(&MOV_CR4_RAX), value).raises(Vector::GP, Some(0));
        }
        let mut m = with_rax(TestMachine::long(&MOV_CR4_RAX), base | cr4::PGE | cr4::SMEP);
        m.set(|s| s.control.cr4 = base);
        m.run(1);
        assert_eq!(m.state().control.cr4, base | cr4::PGE | cr4::SMEP);
    }

    #[test]
    fn pcide_needs_long_mode_and_pcid_0() {
        let value = cr4::PAE | cr4::PCIDE;
        with_rax(TestMachine::protected(&MOV_CR4_RAX), value).raises(Vector::GP, Some(0));
        let mut m = with_rax(TestMachine::long(&MOV_CR4_RAX), value);
        m.set(|s| s.control.cr3 |= 0x18);
        m.raises(Vector::GP, Some(0));
        // mov cr4, rax; mov cr3, rbx
        let mut m = with_rax(TestMachine::long(&[0x0f, 0x22, 0xe0, 0x0f, 0x22, 0xdb]), value);
        m.set(|s| s.general.regs[3] = NO_FLUSH | TABLES | 5);
        m.run(2);
        assert_eq!(m.state().control.cr3, TABLES | 5);
    }

    #[test]
    fn cr3_refuses_bits_beyond_the_physical_address() {
        for bit in [40, 52, 63] {
            let m = TestMachine::long(&MOV_CR3_RAX);
            with_rax(m, TABLES | 1 << bit).raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn a_write_of_cr3_drops_translations_that_are_not_global() {
        // mov rcx, [0x40b000 & ...]: read, change the table, read, mov cr3, read
        let load = |reg: u8| [0x48, 0x8b, 0x04 | (reg << 3), 0x25, 0, 0xb0, 0x40, 0];
        let mut code = Vec::new();
        code.extend(load(1));
        // mov [0x12010], rbx
        code.extend([0x48, 0x89, 0x1c, 0x25, 0x10, 0x20, 1, 0]);
        code.extend(load(2));
        code.extend(MOV_CR3_RAX);
        code.extend(load(6));
        let mut m = with_rax(TestMachine::long(&code), TABLES);
        m.put_u64(TABLES + 0x2010, 0x87);
        m.put_u64(DATA, 1);
        m.put_u64(0x1_b000, 2);
        m.set(|s| s.general.regs[3] = TABLES + 0x3000 | 7);
        m.put_u64(TABLES + 0x3000 + 8 * 0xb, 0x1_b007);
        m.run(5);
        // What is read between change and flush may be either.
        assert_eq!((m.reg(1), m.reg(6)), (1, 2));
    }

    #[test]
    fn long_mode_is_entered_by_turning_paging_on() {
        // mov cr0, eax; jmp 8:0x1010; at 0x1010: mov rax, rbx in 64-bit code
        let mut m = TestMachine::long(&[]);
        let code = [0x0f, 0x22, 0xc0, 0xea, 0x10, 0x10, 0, 0, 8, 0];
        m.put(CODE, &code);
        m.put(CODE + 0x10, &[0x48, 0x89, 0xd8]);
        m.set(|s| {
            s.control.cr0 = cr0::PE | cr0::ET;
            s.control.efer = efer::LME;
            s.segments.regs[CS] = crate::testing::flat(0, 0xc09b);
            s.general.regs[0] = cr0::PG | cr0::PE;
            s.general.regs[3] = 0x1_2345_6789;
        });
        m.run(1);
        assert_eq!(m.state().control.efer, efer::LME | efer::LMA);
        m.run(2);
        assert_eq!(m.reg(0), 0x1_2345_6789);
    }

    #[test]
    fn paging_with_lme_needs_pae_and_code_that_is_not_64_bit() {
        for (cr4, attributes) in [(0, 0xc09b), (cr4::PAE, 0xa09b)] {
            let mut m = with_rax(TestMachine::protected(&MOV_CR0_RAX), cr0::PG | cr0::PE);
            m.set(|s| {
                s.control.efer = efer::LME;
                s.control.cr4 = cr4;
                s.segments.regs[CS] = crate::testing::flat(8, attributes);
            });
            m.raises(Vector::GP, Some(0));
        }
    }

    #[test]
    fn pae_paging_reads_four_entries_and_refuses_reserved_bits() {
        let value = cr0::PG | cr0::PE;
        for (entry, good) in [(TABLES | 0x1001, true), (TABLES | 0x1007, false)] {
            let mut m = with_rax(TestMachine::protected(&MOV_CR0_RAX), value);
            m.put_u64(TABLES, entry);
            m.put_u64(TABLES + 0x1000, 0x83);
            m.set(|s| {
                s.control.cr3 = TABLES;
                s.control.cr4 = cr4::PAE;
            });
            if good {
                m.run(1);
                assert_eq!(m.state().control.pdptr, [entry, 0, 0, 0]);
            } else {
                m.raises(Vector::GP, Some(0));
            }
        }
    }

    #[test]
    fn cr8_is_the_task_priority_of_the_local_apic() {
        // mov cr8, rax; mov rbx, cr8
        let mut m =
            with_rax(TestMachine::long(&[0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc3]), 9);
        m.run(2);
        assert_eq!(m.reg(3), 9);
        assert_eq!(*m.bus.cr8.lock().unwrap(), 9);
        with_rax(TestMachine::long(&[0x44, 0x0f, 0x22, 0xc0]), 16).raises(Vector::GP, Some(0));
    }

    #[test]
    fn registers_that_do_not_exist_are_undefined() {
        for code in [[0x0f, 0x20, 0xc8], [0x0f, 0x22, 0xe8], [0x0f, 0x22, 0xf8]] {
            TestMachine::long(&code).raises(Vector::UD, None);
        }
    }

    #[test]
    fn dr4_and_dr5_are_dr6_and_dr7_unless_cr4_de_is_set() {
        let code = [0x0f, 0x21, 0xe0]; // mov rax, dr4
        let mut m = TestMachine::long(&code);
        m.run(1);
        assert_eq!(m.reg(0), debug::DR6_FIXED);
        let mut m = TestMachine::long(&code);
        m.set(|s| s.control.cr4 |= cr4::DE);
        m.raises(Vector::UD, None);
    }

    #[test]
    fn general_detect_faults_and_is_cleared_for_the_handler() {
        let mut m = TestMachine::long(&[0x0f, 0x21, 0xc0]);
        m.set(|s| s.debug.dr7 |= debug::DR7_GD);
        m.raises(Vector::DB, None);
        let found = m.state().debug;
        assert_eq!((found.dr6 & debug::DR6_BD, found.dr7), (debug::DR6_BD, debug::DR7_FIXED));
    }

    #[test]
    fn dr7_keeps_its_fixed_bits_and_refuses_the_upper_half() {
        let mut m = with_rax(TestMachine::long(&[0x0f, 0x23, 0xf8]), 0xffff_ffff);
        m.run(1);
        assert_eq!(m.state().debug.dr7, 0xffff_27ff);
        let m = TestMachine::long(&[0x0f, 0x23, 0xf8]);
        with_rax(m, 1 << 32).raises(Vector::GP, Some(0));
    }

    #[test]
    fn lmsw_cannot_leave_protected_mode() {
        let mut m = with_rax(TestMachine::protected(&[0x0f, 0x01, 0xf0]), 0xfff8);
        m.run(1);
        assert_eq!(m.state().control.cr0, cr0::PE | cr0::ET | cr0::TS);
    }

    #[test]
    fn clts_clears_ts_and_smsw_tells_cr0() {
        let mut m = TestMachine::long(&[0x0f, 0x06, 0x0f, 0x01, 0xe3]);
        m.set(|s| s.control.cr0 |= cr0::TS);
        m.run(2);
        let cr0 = m.state().control.cr0;
        assert_eq!((cr0 & cr0::TS, m.reg(3)), (0, cr0 & 0xffff_ffff));
    }

    #[test]
    fn invpcid_checks_type_and_descriptor() {
        // invpcid rax, [0xb000]
        let code = [0x66, 0x0f, 0x38, 0x82, 0x04, 0x25, 0, 0xb0, 0, 0];
        let bad = [(4, 0, 0), (0, 0x1000, 0), (0, 1, 0), (0, 0, 0x8000_0000_0000), (1, 1, 0)];
        for (kind, pcid, linear) in bad {
            let mut m = with_rax(TestMachine::long(&code), kind);
            m.put_u64(DATA, pcid);
            m.put_u64(DATA + 8, linear);
            m.raises(Vector::GP, Some(0));
        }
        for kind in 0..4 {
            let mut m = with_rax(TestMachine::long(&code), kind);
            m.run(1);
            assert_eq!(m.state().general.rip, CODE + 10);
        }
    }

    #[test]
    fn xgetbv_and_xsetbv_need_osxsave() {
        TestMachine::long(&[0x0f, 0x01, 0xd0]).raises(Vector::UD, None);
        TestMachine::long(&[0x0f, 0x01, 0xd1]).raises(Vector::UD, None);
    }

    #[test]
    fn pkru_needs_pke() {
        TestMachine::long(&[0x0f, 0x01, 0xee]).raises(Vector::UD, None);
    }

    #[test]
    fn invlpg_takes_any_address_and_reads_nothing() {
        // invlpg [rax]
        let mut m = with_rax(TestMachine::long(&[0x0f, 0x01, 0x38]), 0x8000_0000_0000);
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 3);
        let mut m = with_rax(TestMachine::long(&[0x0f, 0x01, 0x38]), DEVICE);
        m.run(1);
        assert_eq!(m.state().general.rip, CODE + 3);
    }
}
