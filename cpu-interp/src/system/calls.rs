//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, and the bases of FS and GS.
//!
//! Intel SDM vol. 2; vol. 3A, 5.8.7 and 5.8.8. AMD APM vol. 2, 6.1; vol. 3, SYSCALL and SYSRET.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_cpu::bits::{cr4, efer, rflags};
use trivium_cpu::model::{Feature, Vendor};
use trivium_cpu::state::{CS, FS, GS, SS, Segment, SegmentAttributes};

use crate::cpu::{Cpu, RSP};
use crate::decode::{Context, Selection};
use crate::op::{Op, Stop};

const RCX: usize = 1;
const RDX: usize = 2;
const R11: usize = 11;

/// Attributes of the segments that these instructions set without reading descriptors: present,
/// accessed, spanning 4 GiB; DPL is added.
mod flat {
    pub const CODE64: u16 = 0xa09b;
    pub const CODE32: u16 = 0xc09b;
    pub const DATA: u16 = 0xc093;
}

fn flat_segment(selector: u16, attributes: u16, dpl: u8) -> Segment {
    Segment {
        selector: selector & !3 | u16::from(dpl),
        base: 0,
        limit: u32::MAX,
        attributes: SegmentAttributes(attributes | u16::from(dpl) << 5),
    }
}

/// Enters flat segments of privilege `cpl`: CS at `selector`, SS at `stack`.
fn enter_flat(cpu: &mut Cpu, selector: u16, code: u16, stack: u16, cpl: u8) {
    cpu.segments.regs[CS] = flat_segment(selector, code, cpl);
    cpu.segments.regs[SS] = flat_segment(stack, flat::DATA, cpl);
    cpu.segments.cpl = cpl;
    cpu.update_mode();
}

fn ud(cpu: &mut Cpu) -> Stop {
    cpu.raise(Exception::ud())
}

fn gp(cpu: &mut Cpu) -> Stop {
    cpu.raise(Exception::gp(0))
}

/// SYSCALL and SYSRET work if EFER.SCE is set; on Intel's processors in 64-bit mode only.
fn require_syscall(cpu: &mut Cpu) -> Result<(), Stop> {
    let here = cpu.code64() || cpu.model.vendor == Vendor::Amd && cpu.protected();
    match cpu.control.efer & efer::SCE != 0 && here {
        true => Ok(()),
        false => Err(ud(cpu)),
    }
}

fn syscall(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_syscall(cpu)?;
    let selector = (cpu.msrs.star >> 32) as u16;
    let stack = (selector & !3).wrapping_add(8);
    cpu.regs[RCX] = cpu.next_rip;
    if !cpu.long_mode() {
        cpu.next_rip = cpu.msrs.star & 0xffff_ffff;
        enter_flat(cpu, selector, flat::CODE32, stack, 0);
        let flags = cpu.rflags() & !(rflags::IF | rflags::VM | rflags::RF);
        cpu.set_rflags(flags);
        return Ok(());
    }
    let flags = cpu.rflags() & !rflags::RF;
    cpu.regs[R11] = flags;
    cpu.next_rip = if cpu.code64() { cpu.msrs.lstar } else { cpu.msrs.cstar };
    cpu.flags.set_explicit(flags & !cpu.msrs.sfmask);
    let kept = !(cpu.msrs.sfmask | rflags::RF);
    cpu.system_flags = cpu.system_flags & kept | rflags::FIXED;
    enter_flat(cpu, selector, flat::CODE64, stack, 0);
    Ok(())
}

/// RFLAGS bits that SYSRET takes from R11. Intel SDM vol. 2, SYSRET.
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

fn sysret(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    require_syscall(cpu)?;
    cpu.require_cpl0()?;
    let base = (cpu.msrs.star >> 48) as u16;
    let to_long = op.size == 8;
    let rip = if to_long { cpu.regs[RCX] } else { cpu.regs[RCX] & 0xffff_ffff };
    let intel = cpu.model.vendor == Vendor::Intel;
    // AMD's processors go there, and fault at CPL 3.
    if to_long && intel && !cpu.canonical(rip) {
        return Err(gp(cpu));
    }
    let flags = match cpu.long_mode() {
        true => cpu.regs[R11] & SYSRET_FLAGS & !rflags::RF,
        false => cpu.rflags() & !rflags::RF | rflags::IF,
    };
    let (selector, code) = match to_long {
        true => (base.wrapping_add(16), flat::CODE64),
        false => (base, flat::CODE32),
    };
    let old_stack = cpu.segments.regs[SS];
    cpu.segments.regs[CS] = flat_segment(selector, code, 3);
    let stack = flat_segment(base.wrapping_add(8), flat::DATA, 3);
    cpu.segments.regs[SS] = match intel {
        true => stack,
        // AMD's processors set the selector alone; CPL is 3 whatever DPL says.
        false => Segment {
            selector: stack.selector,
            attributes: SegmentAttributes(old_stack.attributes.0 | 3 << 5),
            ..old_stack
        },
    };
    cpu.segments.cpl = 3;
    cpu.next_rip = rip;
    cpu.set_rflags(flags);
    cpu.update_mode();
    Ok(())
}

fn require_sysenter(cpu: &mut Cpu) -> Result<(), Stop> {
    let amd_long = cpu.model.vendor == Vendor::Amd && cpu.long_mode();
    if amd_long || !cpu.model.has(Feature::Sep) {
        return Err(ud(cpu));
    }
    if !cpu.protected() || cpu.msrs.sysenter_cs & 0xfffc == 0 {
        return Err(gp(cpu));
    }
    Ok(())
}

fn sysenter(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_sysenter(cpu)?;
    let long = cpu.long_mode();
    let mask = if long { !0 } else { 0xffff_ffff };
    let selector = cpu.msrs.sysenter_cs as u16 & !3;
    let code = if long { flat::CODE64 } else { flat::CODE32 };
    let flags = cpu.rflags() & !(rflags::VM | rflags::IF | rflags::RF);
    cpu.set_rflags(flags);
    enter_flat(cpu, selector, code, selector.wrapping_add(8), 0);
    cpu.regs[usize::from(RSP)] = cpu.msrs.sysenter_esp & mask;
    cpu.next_rip = cpu.msrs.sysenter_eip & mask;
    Ok(())
}

fn sysexit(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    require_sysenter(cpu)?;
    cpu.require_cpl0()?;
    let base = cpu.msrs.sysenter_cs as u16 & !3;
    let (rip, rsp) = (cpu.regs[RDX], cpu.regs[RCX]);
    if op.size == 8 {
        if !cpu.canonical(rip) || !cpu.canonical(rsp) {
            return Err(gp(cpu));
        }
        let stack = base.wrapping_add(40);
        enter_flat(cpu, base.wrapping_add(32), flat::CODE64, stack, 3);
        cpu.regs[usize::from(RSP)] = rsp;
        cpu.next_rip = rip;
    } else {
        let stack = base.wrapping_add(24);
        enter_flat(cpu, base.wrapping_add(16), flat::CODE32, stack, 3);
        cpu.regs[usize::from(RSP)] = rsp & 0xffff_ffff;
        cpu.next_rip = rip & 0xffff_ffff;
    }
    Ok(())
}

fn require_long(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.code64() { Ok(()) } else { Err(ud(cpu)) }
}

fn swapgs(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_long(cpu)?;
    cpu.require_cpl0()?;
    let base = cpu.segments.regs[GS].base;
    let other = std::mem::replace(&mut cpu.msrs.kernel_gs_base, base);
    cpu.set_base(GS, other);
    Ok(())
}

fn require_fsgsbase(cpu: &mut Cpu) -> Result<(), Stop> {
    require_long(cpu)?;
    match cpu.control.cr4 & cr4::FSGSBASE != 0 {
        true => Ok(()),
        false => Err(ud(cpu)),
    }
}

/// RDFSBASE, RDGSBASE; `aux` is the segment register.
fn read_base(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    require_fsgsbase(cpu)?;
    let base = cpu.segments.regs.get(usize::from(op.aux)).map_or(0, |s| s.base);
    let value = if op.size == 4 { base & 0xffff_ffff } else { base };
    cpu.set_reg(op.dst, 0, op.size, value);
    Ok(())
}

/// WRFSBASE, WRGSBASE; `aux` is the segment register.
fn write_base(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    require_fsgsbase(cpu)?;
    let value = cpu.reg(op.dst, 0, op.size);
    if !cpu.canonical(value) {
        return Err(gp(cpu));
    }
    cpu.set_base(op.aux.into(), value);
    Ok(())
}

/// Chooses functions for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let mut op = context.op(i);
    let mut base = |index: usize, f| {
        op.aux = index as u8;
        Some(Selection::general(op, f))
    };
    match i.mnemonic() {
        M::Rdfsbase => return base(FS, read_base),
        M::Rdgsbase => return base(GS, read_base),
        M::Wrfsbase => return base(FS, write_base),
        M::Wrgsbase => return base(GS, write_base),
        _ => {}
    }
    op.size = if matches!(i.code(), Code::Sysretq | Code::Sysexitq) { 8 } else { 4 };
    Some(match i.mnemonic() {
        M::Syscall => Selection::general_end(op, syscall),
        M::Sysret | M::Sysretq => Selection::general_end(op, sysret),
        M::Sysenter => Selection::general_end(op, sysenter),
        M::Sysexit | M::Sysexitq => Selection::general_end(op, sysexit),
        M::Swapgs => Selection::general(op, swapgs),
        _ => return None,
    })
}
