//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, and the bases of FS and GS.
//!
//! Intel SDM vol. 2; vol. 3A, 5.8.7 and 5.8.8. AMD APM vol. 2, 6.1; vol. 3, SYSCALL and SYSRET.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_cpu::bits::{cr4, debug, efer, rflags};
use trivium_cpu::model::{Feature, Quirk};
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
    let here = cpu.code64() || cpu.model.does(Quirk::SyscallInAllProtectedModes) && cpu.protected();
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
    // The mask keeps the trap from the kernel's first instruction.
    cpu.single_step &= cpu.system_flags & rflags::TF != 0;
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
    if to_long && cpu.model.does(Quirk::SysretChecksAddress) && !cpu.canonical(rip) {
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
    cpu.segments.regs[SS] = match cpu.model.does(Quirk::SysretKeepsStackAttributes) {
        false => stack,
        // CPL is 3 whatever DPL says.
        true => Segment {
            selector: stack.selector,
            attributes: SegmentAttributes(old_stack.attributes.0 | 3 << 5),
            ..old_stack
        },
    };
    cpu.segments.cpl = 3;
    cpu.next_rip = rip;
    // The trap comes before the program's first instruction, unlike that after IRET.
    cpu.pending_debug |= if flags & rflags::TF != 0 { debug::DR6_BS } else { 0 };
    cpu.set_rflags(flags);
    cpu.update_mode();
    Ok(())
}

fn require_sysenter(cpu: &mut Cpu) -> Result<(), Stop> {
    let here = !cpu.long_mode() || cpu.model.does(Quirk::SysenterInLongMode);
    if !here || !cpu.model.has(Feature::Sep) {
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
    if cpu.model.does(Quirk::SysexitChecksPrivilegeFirst) {
        cpu.require_cpl0()?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, STACK, TestMachine, flat, sel};
    use trivium_cpu::Vector;
    use trivium_cpu::model::{CpuModel, Vendor};

    const SYSCALL: [u8; 2] = [0x0f, 0x05];
    const SYSRETQ: [u8; 3] = [0x48, 0x0f, 0x07];
    const SYSRETL: [u8; 2] = [0x0f, 0x07];
    const SYSENTER: [u8; 2] = [0x0f, 0x34];

    fn intel() -> CpuModel {
        CpuModel { vendor: Vendor::Intel, ..TestMachine::model() }
    }

    fn with_star(mut m: TestMachine) -> TestMachine {
        m.set(|s| {
            s.msrs.star = 0x0018_0008_0000_2000;
            s.msrs.lstar = 0xffff_8000_0000_1000;
            s.msrs.cstar = 0xffff_8000_0000_2000;
            s.msrs.sfmask = rflags::IF | rflags::TF | rflags::DF | rflags::CF;
            s.general.regs[RCX] = 0x4000;
            s.general.regs[R11] = 0x3f_7ed7;
        });
        m
    }

    #[test]
    fn syscall_saves_rip_and_flags_and_enters_flat_segments() {
        let mut m = with_star(TestMachine::long(&SYSCALL).at_cpl3());
        m.set(|s| s.general.rflags = 0x24_0603);
        m.run(1);
        let state = m.state();
        assert_eq!(state.general.rip, 0xffff_8000_0000_1000);
        assert_eq!((state.general.regs[RCX], state.general.regs[R11]), (CODE + 2, 0x24_0603));
        assert_eq!((state.general.rflags, state.segments.cpl), (0x24_0002, 0));
        assert_eq!(state.segments.regs[CS], flat(8, flat::CODE64));
        assert_eq!(state.segments.regs[SS], flat(16, flat::DATA));
        assert_eq!(state.general.regs[4], STACK);
    }

    #[test]
    fn syscall_needs_sce() {
        let mut m = TestMachine::long(&SYSCALL);
        m.set(|s| s.control.efer &= !efer::SCE);
        m.raises(Vector::UD, None);
    }

    #[test]
    fn sysret_goes_back_to_64_bit_code() {
        let mut m = with_star(TestMachine::long_with(intel(), &SYSRETQ));
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.segments.cpl), (0x4000, 3));
        assert_eq!(state.segments.regs[CS], flat(0x2b, flat::CODE64 | 0x60));
        assert_eq!(state.segments.regs[SS], flat(0x23, flat::DATA | 0x60));
        // RF and VM are not taken from R11.
        assert_eq!(state.general.rflags, 0x3c_7ed7);
    }

    #[test]
    fn sysret_that_sets_tf_is_followed_by_the_trap() {
        let mut m = with_star(TestMachine::long_with(intel(), &SYSRETQ));
        m.set(|s| s.general.regs[R11] |= rflags::TF);
        assert_eq!(m.run_to_handler(), Vector::DB as u8);
        let sp = m.reg(4);
        assert_eq!(m.get_u64(sp), 0x4000);
        assert_eq!(m.state().debug.dr6 & debug::DR6_BS, debug::DR6_BS);
    }

    #[test]
    fn sysret_to_compatibility_mode_cuts_the_address() {
        let mut m = with_star(TestMachine::long_with(intel(), &SYSRETL));
        m.set(|s| s.general.regs[RCX] = 0x1_0000_4000);
        m.run(1);
        let state = m.state();
        assert_eq!(state.general.rip, 0x4000);
        assert_eq!(state.segments.regs[CS], flat(0x1b, flat::CODE32 | 0x60));
    }

    #[test]
    fn sysret_to_a_bad_address_faults_before_on_intel_and_after_on_amd() {
        let mut m = with_star(TestMachine::long_with(intel(), &SYSRETQ));
        m.set(|s| s.general.regs[RCX] = 0x8000_0000_0000);
        m.raises(Vector::GP, Some(0));
        let mut m = with_star(TestMachine::long(&SYSRETQ));
        m.set(|s| s.general.regs[RCX] = 0x8000_0000_0000);
        assert_eq!(m.run_to_exception(), (Vector::GP as u8, 0));
        let sp = m.reg(4);
        assert_eq!(m.get_u64(sp + 16), 0x2b, "the fault is at CPL 3");
    }

    #[test]
    fn amd_sysret_leaves_the_attributes_of_ss() {
        let mut m = with_star(TestMachine::long(&SYSRETQ));
        m.set(|s| {
            s.segments.regs[SS] =
                super::super::stack::null_segment(super::super::descriptor::Selector(0), 0)
        });
        m.run(1);
        let ss = m.state().segments.regs[SS];
        assert_eq!((ss.selector, ss.attributes.0), (0x23, 0x60));
    }

    #[test]
    fn sysret_is_for_cpl0() {
        with_star(TestMachine::long(&SYSRETQ).at_cpl3()).raises(Vector::GP, Some(0));
    }

    #[test]
    fn compatibility_code_calls_on_amd_through_cstar() {
        let compatible = |m: TestMachine| {
            let mut m = with_star(m.at_cpl3());
            m.set(|s| s.segments.regs[CS] = flat(sel::USER_CODE32, 0xc0fb));
            m
        };
        let mut m = compatible(TestMachine::long(&SYSCALL));
        m.run(1);
        assert_eq!(m.state().general.rip, 0xffff_8000_0000_2000);
        compatible(TestMachine::long_with(intel(), &SYSCALL)).raises(Vector::UD, None);
    }

    fn with_sysenter(mut m: TestMachine) -> TestMachine {
        m.set(|s| {
            s.msrs.sysenter_cs = 8;
            s.msrs.sysenter_esp = 0x8000;
            s.msrs.sysenter_eip = 0x4000;
        });
        m
    }

    #[test]
    fn sysenter_and_sysexit() {
        // sysenter at CPL 3; at 4000h: sysexit
        let mut m = with_sysenter(TestMachine::protected(&SYSENTER).at_cpl3());
        m.put(0x4000, &[0x0f, 0x35]);
        m.set(|s| s.general.rflags |= rflags::IF);
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[4]), (0x4000, 0x8000));
        assert_eq!(state.general.rflags & rflags::IF, 0);
        assert_eq!(state.segments.regs[CS], flat(8, flat::CODE32));
        assert_eq!(state.segments.regs[SS], flat(16, flat::DATA));
        m.set(|s| (s.general.regs[RCX], s.general.regs[RDX]) = (0x7000, CODE));
        m.run(1);
        let state = m.state();
        assert_eq!((state.general.rip, state.general.regs[4]), (CODE, 0x7000));
        assert_eq!(state.segments.regs[CS], flat(0x1b, flat::CODE32 | 0x60));
        assert_eq!(state.segments.cpl, 3);
    }

    #[test]
    fn sysenter_without_a_segment_raises_gp_and_in_amds_long_mode_ud() {
        TestMachine::protected(&SYSENTER).raises(Vector::GP, Some(0));
        with_sysenter(TestMachine::long(&SYSENTER)).raises(Vector::UD, None);
        let mut m = with_sysenter(TestMachine::long_with(intel(), &SYSENTER));
        m.run(1);
        assert_eq!(m.state().segments.regs[CS], flat(8, flat::CODE64));
    }

    #[test]
    fn swapgs_exchanges_the_base_of_gs() {
        let mut m = TestMachine::long(&[0x0f, 0x01, 0xf8]);
        m.set(|s| (s.segments.regs[GS].base, s.msrs.kernel_gs_base) = (1, 2));
        m.run(1);
        let state = m.state();
        assert_eq!((state.segments.regs[GS].base, state.msrs.kernel_gs_base), (2, 1));
        TestMachine::long(&[0x0f, 0x01, 0xf8]).at_cpl3().raises(Vector::GP, Some(0));
        TestMachine::protected(&[0x0f, 0x01, 0xf8]).raises(Vector::UD, None);
    }

    #[test]
    fn programs_reach_the_bases_with_fsgsbase_alone() {
        // wrfsbase rax; rdfsbase rbx
        let code = [0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x48, 0x0f, 0xae, 0xc3];
        let mut m = TestMachine::long(&code).at_cpl3();
        m.set(|s| {
            s.control.cr4 |= cr4::FSGSBASE;
            s.general.regs[0] = 0x1234_5678_9abc;
        });
        m.run(2);
        assert_eq!(m.reg(3), 0x1234_5678_9abc);
        TestMachine::long(&code).at_cpl3().raises(Vector::UD, None);
        let mut m = TestMachine::long(&code);
        m.set(|s| {
            s.control.cr4 |= cr4::FSGSBASE;
            s.general.regs[0] = 1 << 63;
        });
        m.raises(Vector::GP, Some(0));
    }
}
