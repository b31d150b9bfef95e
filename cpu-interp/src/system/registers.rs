//! Control and debug registers, and what drops translations: MOV CRn, MOV DRn, LMSW, SMSW, CLTS,
//! INVLPG, INVPCID, INVD, WBINVD, XGETBV, XSETBV, RDPKRU, WRPKRU.
//!
//! Intel SDM vol. 2, MOV; vol. 3A, 2.5, 4.1, 4.10, 9.8.5; vol. 3B, 18.2.

use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::{cr0, cr4, debug, efer};
use trivium_cpu::model::Feature;
use trivium_cpu::state::{CS, SegmentAttributes as A};
use trivium_cpu::{CpuBus, Exception, Vector, walk};

use crate::cpu::{Cpu, SEG_BASE};
use crate::decode::{Context, Selection};
use crate::mem::{Rights, address_mask};
use crate::op::{Op, Stop};

/// CR3 with CR4.PCIDE: translations of the new PCID are kept.
const NO_FLUSH: u64 = 1 << 63;
/// The PCID in CR3.
const PCID: u64 = 0xfff;

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
            || turns_on && lme && (control.cr4 & cr4::PAE == 0 || code64)
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

    /// Writes CR3.
    ///
    /// # Errors
    /// #GP(0).
    fn write_cr3(&mut self, value: u64) -> Result<(), Stop> {
        let pcide = self.control.cr4 & cr4::PCIDE != 0;
        let value = if pcide { value & !NO_FLUSH } else { value };
        if value >> self.model.phys_bits.min(63) != 0 {
            return Err(gp(self));
        }
        if let Some(pdptr) = pdptrs(self, self.control.cr0, value, self.control.cr4)? {
            self.control.pdptr = pdptr;
        }
        self.control.cr3 = value;
        self.update_paging();
        // Translations are not kept apart by PCID, so none of another one may stay.
        self.flush_tlb(true);
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
    let number = match number {
        0..=3 | 6 | 7 => number,
        4 | 5 if aliases => number + 2,
        _ => return Err(cpu.raise(Exception::ud())),
    };
    cpu.require_cpl0()?;
    if cpu.debug.dr7 & debug::DR7_GD != 0 {
        cpu.debug.dr6 |= debug::DR6_BD;
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
        0 => cpu.flush_page(linear),
        1 if bad_pcid => return Err(gp(cpu)),
        1 | 3 => cpu.flush_tlb(true),
        2 => cpu.flush_tlb(false),
        _ => return Err(gp(cpu)),
    }
    Ok(())
}

/// INVD, WBINVD: there are no caches to write back.
fn cache_control(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    cpu.require_cpl0()
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

/// CLFLUSH and its like do nothing but be able to fault as a load does.
fn cache_line(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let at = cpu.offset(op) & address_mask(op.asize);
    let linear = cpu.linear(op.seg, at, 1, false)?;
    cpu.probe(linear, 1, false, Rights::Program)
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
        M::Invd | M::Wbinvd | M::Wbnoinvd => general(cache_control),
        M::Xgetbv => general(xgetbv),
        M::Xsetbv => ending(xsetbv),
        M::Rdpkru => general(rdpkru),
        M::Wrpkru => ending(wrpkru),
        M::Clflush | M::Clflushopt | M::Clwb | M::Cldemote => general(cache_line),
        _ => None,
    }
}
