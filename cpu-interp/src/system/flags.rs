//! What changes RFLAGS: PUSHF, POPF, CLI, STI, CLAC, STAC, and the instructions on single flags.
//!
//! Intel SDM vol. 2, PUSHF, POPF, CLI, STI; vol. 3A, 20.3 and 20.4.

use iced_x86::{Code, Instruction, Mnemonic};
use trivium_cpu::Exception;
use trivium_cpu::bits::{cr4, rflags};
use trivium_cpu::model::Feature;

use super::iret::{guarded_flags, load_flags, set_virtual_interrupts};
use crate::block::{Block, BlockCache};
use crate::cpu::{Cpu, Mode, shadow};
use crate::decode::{Context, Selection};
use crate::next;
use crate::op::{Op, Stop};

fn gp(cpu: &mut Cpu) -> Stop {
    cpu.raise(Exception::gp(0))
}

/// Virtual-8086 code of IOPL below 3: CR4.VME decides.
fn v86_restricted(cpu: &Cpu) -> bool {
    cpu.v86() && cpu.iopl() < 3
}

impl Cpu {
    /// Whether VIF and VIP are both set where they mean something: the instruction at RIP is not
    /// begun, but #GP raised. Only IRET and task switches lead there. Intel SDM vol. 3A, 20.3.2
    /// and 20.4.
    pub(crate) fn virtual_interrupt_waits(&self) -> bool {
        const BOTH: u64 = rflags::VIF | rflags::VIP;
        let bit = if self.v86() { cr4::VME } else { cr4::PVI };
        self.system_flags & BOTH == BOTH && self.cpl() == 3 && self.iopl() < 3 && has_cr4(self, bit)
    }
}

fn has_cr4(cpu: &Cpu, bit: u64) -> bool {
    cpu.control.cr4 & bit != 0
}

fn pushf(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let mut flags = cpu.rflags() & !(rflags::VM | rflags::RF);
    if v86_restricted(cpu) {
        if !has_cr4(cpu, cr4::VME) || op.size != 2 {
            return Err(gp(cpu));
        }
        // The program sees its virtual interrupt flag, and IOPL 3.
        let virtual_if = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
        flags = flags & !rflags::IF | rflags::IOPL | virtual_if;
    }
    cpu.push(flags, op.size)
}

fn popf(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let unchanged = rflags::VM | rflags::VIF | rflags::VIP;
    if !v86_restricted(cpu) {
        let value = cpu.peek(0, op.size)?;
        let kept = guarded_flags(cpu) | unchanged;
        cpu.drop_stack(op.size.into());
        load_flags(cpu, value, op.size, kept);
        cpu.system_flags &= !rflags::RF;
        return Ok(());
    }
    if !has_cr4(cpu, cr4::VME) || op.size != 2 {
        return Err(gp(cpu));
    }
    let value = cpu.peek(0, 2)?;
    let pending = cpu.system_flags & rflags::VIP != 0;
    if value & rflags::TF != 0 || value & rflags::IF != 0 && pending {
        return Err(gp(cpu));
    }
    cpu.drop_stack(2);
    load_flags(cpu, value, 2, unchanged | rflags::IF | rflags::IOPL);
    set_virtual_interrupts(cpu, value & rflags::IF != 0);
    Ok(())
}

/// Which flag CLI and STI change.
enum Target {
    Real,
    Virtual,
}

/// Intel SDM vol. 2, tables of CLI and STI.
fn target(cpu: &mut Cpu) -> Result<Target, Stop> {
    let allowed = !cpu.protected() || cpu.cpl() <= cpu.iopl();
    let bit = if cpu.v86() { cr4::VME } else { cr4::PVI };
    if allowed {
        Ok(Target::Real)
    } else if cpu.cpl() == 3 && has_cr4(cpu, bit) {
        Ok(Target::Virtual)
    } else {
        Err(gp(cpu))
    }
}

fn cli(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    match target(cpu)? {
        Target::Real => cpu.system_flags &= !rflags::IF,
        Target::Virtual => set_virtual_interrupts(cpu, false),
    }
    Ok(())
}

fn sti(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    match target(cpu)? {
        Target::Real if cpu.system_flags & rflags::IF == 0 => {
            cpu.system_flags |= rflags::IF;
            if cpu.shadowed & shadow::STI == 0 {
                cpu.shadow |= shadow::STI;
            }
            cpu.look = true;
            cpu.leave = true;
        }
        Target::Real => {}
        Target::Virtual if cpu.system_flags & rflags::VIP != 0 => return Err(gp(cpu)),
        Target::Virtual => set_virtual_interrupts(cpu, true),
    }
    Ok(())
}

/// CLAC and STAC change the rights of data accesses; code is none the wiser.
fn set_ac(cpu: &mut Cpu, on: bool) -> Result<(), Stop> {
    if !cpu.model.has(Feature::Smap) || !cpu.mode.has(Mode::PROTECTED) && cpu.protected() {
        return Err(cpu.raise(Exception::ud()));
    }
    if cpu.cpl() > 0 {
        return Err(cpu.raise(Exception::ud()));
    }
    let flags = cpu.system_flags & !rflags::AC;
    cpu.system_flags = flags | if on { rflags::AC } else { 0 };
    cpu.update_mode();
    Ok(())
}

fn clac(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    set_ac(cpu, false)
}

fn stac(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    set_ac(cpu, true)
}

/// CLC, STC and CMC; `aux` is what to do with CF: AND it, then XOR it.
fn carry<const AND: bool, const XOR: bool>(
    cpu: &mut Cpu,
    _: &Op,
    rest: &[Op],
    block: &Block,
    links: &BlockCache,
) {
    let carry = AND && cpu.flags.cf();
    let value = if carry != XOR { rflags::CF } else { 0 };
    cpu.flags.set_some(rflags::CF, value);
    next!(cpu, rest, block, links)
}

fn cld(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    cpu.system_flags &= !rflags::DF;
    next!(cpu, rest, block, links)
}

fn std(cpu: &mut Cpu, _: &Op, rest: &[Op], block: &Block, links: &BlockCache) {
    cpu.system_flags |= rflags::DF;
    next!(cpu, rest, block, links)
}

/// SF, ZF, AF, PF and CF.
const LOW_STATUS: u64 = rflags::STATUS & 0xff;

fn require_lahf(cpu: &mut Cpu) -> Result<(), Stop> {
    match cpu.code64() && !cpu.model.has(Feature::LahfLm) {
        true => Err(cpu.raise(Exception::ud())),
        false => Ok(()),
    }
}

fn lahf(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_lahf(cpu)?;
    let flags = cpu.flags.get() & LOW_STATUS | rflags::FIXED;
    cpu.set_reg(0, 8, 1, flags);
    Ok(())
}

fn sahf(cpu: &mut Cpu, _: &Op) -> Result<(), Stop> {
    require_lahf(cpu)?;
    let value = cpu.reg(0, 8, 1);
    cpu.flags.set_some(LOW_STATUS, value);
    Ok(())
}

fn sized(i: &Instruction, context: &Context) -> Op {
    let mut op = context.op(i);
    op.size = match i.code() {
        Code::Pushfw | Code::Popfw => 2,
        Code::Pushfd | Code::Popfd => 4,
        _ => 8,
    };
    op
}

/// Chooses handlers for the instructions of this group.
#[must_use]
pub fn select(i: &Instruction, context: &Context) -> Option<Selection> {
    use Mnemonic as M;
    let op = || context.op(i);
    Some(match i.mnemonic() {
        M::Pushf | M::Pushfd | M::Pushfq => Selection::general(sized(i, context), pushf),
        M::Popf | M::Popfd | M::Popfq => Selection::general_end(sized(i, context), popf),
        // Nothing waits for CLI: interrupts come between blocks only.
        M::Cli => Selection::general(op(), cli),
        M::Sti => Selection::general(op(), sti),
        M::Clac => Selection::general(op(), clac),
        M::Stac => Selection::general(op(), stac),
        M::Clc => Selection::register(op(), carry::<false, false>),
        M::Stc => Selection::register(op(), carry::<false, true>),
        M::Cmc => Selection::register(op(), carry::<true, true>),
        M::Cld => Selection::register(op(), cld),
        M::Std => Selection::register(op(), std),
        M::Lahf => Selection::general(op(), lahf),
        M::Sahf => Selection::general(op(), sahf),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CODE, STACK, TestMachine};
    use trivium_cpu::Vector;

    fn with_flags(mut m: TestMachine, flags: u64) -> TestMachine {
        m.set(|s| s.general.rflags |= flags);
        m
    }

    #[test]
    fn pushf_hides_vm_and_rf() {
        let mut m = with_flags(TestMachine::protected(&[0x9c]), 0x3_0ed5 & !rflags::VM);
        m.run(1);
        assert_eq!(m.get_u32(STACK - 4), 0xed7 & !rflags::TF as u32);
    }

    #[test]
    fn popf_changes_what_privilege_allows() {
        let cases = [(0, 0, 0x24_7ed7), (3, 3, 0x24_7ed7), (3, 0, 0x24_4cd7)];
        for (cpl, iopl, expected) in cases {
            let mut m = TestMachine::long(&[0x9d]);
            if cpl == 3 {
                m = with_flags(m.at_cpl3(), iopl << 12);
            }
            m.put_u64(STACK, 0x3f_7ed7);
            m.run(1);
            assert_eq!(m.state().general.rflags, expected, "CPL {cpl}, IOPL {iopl}");
        }
    }

    #[test]
    fn popf_of_a_word_leaves_the_upper_flags() {
        let mut m = with_flags(TestMachine::long(&[0x66, 0x9d]), rflags::ID);
        m.put_u64(STACK, 0xed7);
        m.run(1);
        assert_eq!((m.state().general.rflags, m.reg(4)), (0x20_0ed7, STACK + 2));
    }

    #[test]
    fn virtual_8086_code_needs_iopl_3_for_flags() {
        for code in [0x9c, 0x9d, 0xfa, 0xfb] {
            TestMachine::protected(&[code]).in_v86(2).raises(Vector::GP, Some(0));
        }
        let mut m = TestMachine::protected(&[0x9c]).in_v86(3);
        m.run(1);
        assert_eq!(m.get_u16(STACK - 2), 0x3002);
    }

    #[test]
    fn virtual_mode_extensions_keep_a_virtual_if() {
        // sti; pushf; cli; popf
        let mut m = TestMachine::protected(&[0xfb, 0x9c, 0xfa, 0x9d]).in_v86(0);
        m.set(|s| s.control.cr4 |= cr4::VME);
        m.run(2);
        let flags = m.state().general.rflags;
        assert_eq!(flags & (rflags::VIF | rflags::IF), rflags::VIF);
        assert_eq!(m.get_u16(STACK - 2), 0x3202);
        m.run(1);
        assert_eq!(m.state().general.rflags & rflags::VIF, 0);
        m.run(1);
        assert_eq!(m.state().general.rflags & rflags::VIF, rflags::VIF);
        let mut m = with_flags(TestMachine::protected(&[0xfb]).in_v86(0), rflags::VIP);
        m.set(|s| s.control.cr4 |= cr4::VME);
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn vif_and_vip_together_raise_gp_before_an_instruction() {
        // iretd to virtual-8086 code with both set
        let frame = [CODE as u32 + 0x100, 0, 0x1a_0002, 0x8000, 0, 0, 0, 0, 0];
        for (cr4, faults) in [(cr4::VME, true), (0, false)] {
            let mut m = TestMachine::protected(&[0xcf]);
            m.put(CODE + 0x100, &[0x40, 0x40]);
            for (at, value) in (STACK..).step_by(4).zip(frame) {
                m.put(at, &value.to_le_bytes());
            }
            m.set(|s| s.control.cr4 |= cr4);
            m.run(1);
            assert_eq!(m.state().general.rip, CODE + 0x100);
            if faults {
                m.raises(Vector::GP, Some(0));
            } else {
                m.run(1);
                assert_eq!(m.reg(0), 1);
            }
        }
        let mut m =
            with_flags(TestMachine::protected(&[0x90]).at_cpl3(), rflags::VIF | rflags::VIP);
        m.set(|s| s.control.cr4 |= cr4::PVI);
        m.raises(Vector::GP, Some(0));
    }

    #[test]
    fn a_second_sti_or_mov_ss_casts_no_shadow_of_its_own() {
        // sti; cli; sti casts a new one: the flag changes again. mov ss twice; nop
        let mut m = with_flags(TestMachine::long(&[0x8e, 0xd0, 0x8e, 0xd0, 0x90]), rflags::IF);
        m.set(|s| s.general.regs[0] = crate::testing::sel::DATA.into());
        m.run(1);
        *m.bus.interrupt.lock().unwrap() = Some(0x40);
        assert_eq!(m.run_to_handler(), 0x40);
        assert_eq!(m.get_u64(STACK - 40), CODE + 4);
        // mov ss; sti: the second shadow is of another kind.
        let mut m = TestMachine::long(&[0x8e, 0xd0, 0xfb, 0x90, 0x90]);
        m.set(|s| s.general.regs[0] = crate::testing::sel::DATA.into());
        *m.bus.interrupt.lock().unwrap() = Some(0x40);
        assert_eq!(m.run_to_handler(), 0x40);
        assert_eq!(m.get_u64(STACK - 40), CODE + 4);
    }

    #[test]
    fn cli_in_the_shadow_of_sti_leaves_no_window() {
        // sti; cli; nop; hlt
        let mut m = TestMachine::long(&[0xfb, 0xfa, 0x90, 0xf4]);
        *m.bus.interrupt.lock().unwrap() = Some(0x40);
        assert_eq!(m.run(100), trivium_cpu::Exit::Halted);
        assert_eq!(m.state().general.rip, CODE + 4);
    }

    #[test]
    fn cli_and_sti_need_iopl_or_protected_mode_virtual_interrupts() {
        for code in [0xfa, 0xfb] {
            TestMachine::long(&[code]).at_cpl3().raises(Vector::GP, Some(0));
            let mut m = TestMachine::long(&[code]).at_cpl3();
            m.set(|s| s.control.cr4 |= cr4::PVI);
            m.run(1);
            let vif = if code == 0xfb { rflags::VIF } else { 0 };
            assert_eq!(m.state().general.rflags, vif | 2);
        }
    }

    #[test]
    fn interrupts_wait_for_the_instruction_after_sti() {
        // sti; nop; nop
        let mut m = TestMachine::long(&[0xfb, 0x90, 0x90]);
        *m.bus.interrupt.lock().unwrap() = Some(0x40);
        assert_eq!(m.run_to_handler(), 0x40);
        assert_eq!(m.get_u64(STACK - 40), CODE + 2);
        // With IF set already there is nothing to wait for.
        let mut m = with_flags(TestMachine::long(&[0xfb, 0x90]), rflags::IF);
        m.run(1);
        assert!(!m.state().events.interrupt_shadow);
    }

    #[test]
    fn clac_and_stac_are_undefined_for_programs() {
        for code in [[0x0f, 0x01, 0xca], [0x0f, 0x01, 0xcb]] {
            TestMachine::long(&code).at_cpl3().raises(Vector::UD, None);
        }
        let mut m = TestMachine::long(&[0x0f, 0x01, 0xcb]);
        m.run(1);
        assert_eq!(m.state().general.rflags, rflags::AC | 2);
    }

    #[test]
    fn smap_lets_the_kernel_at_user_pages_between_stac_and_clac() {
        // stac; mov eax, [0xb000]; clac; mov eax, [0xb000]
        let load = [0x8b, 0x04, 0x25, 0, 0xb0, 0x60, 0];
        let mut code = vec![0x0f, 0x01, 0xcb];
        code.extend(load);
        code.extend([0x0f, 0x01, 0xca]);
        code.extend(load);
        let mut m = TestMachine::long(&code);
        // Code and tables are the supervisor's; the data at 6 MiB is the user's.
        for page in 0..3 {
            m.put_u64(crate::testing::TABLES + 0x2000 + 8 * page, page << 21 | 0x83);
        }
        m.put_u64(crate::testing::TABLES + 0x2018, 0x87);
        m.set(|s| s.control.cr4 |= cr4::SMAP);
        assert_eq!(m.run_to_exception(), (Vector::PF as u8, 1));
        let sp = m.reg(4);
        assert_eq!(m.get_u64(sp + 8), CODE + 13);
    }

    #[test]
    fn single_flags() {
        // stc; cmc; cmc; std; clc; cld
        let mut m = TestMachine::long(&[0xf9, 0xf5, 0xf5, 0xfd, 0xf8, 0xfc]);
        for expected in [1, 0, 1, 0x401, 0x400, 0] {
            m.run(1);
            assert_eq!(m.state().general.rflags, expected | 2);
        }
    }

    #[test]
    fn lahf_and_sahf_move_the_low_byte() {
        // sahf; lahf
        let mut m = TestMachine::long(&[0x9e, 0x9f]);
        m.set(|s| s.general.regs[0] = 0xff00);
        m.run(2);
        assert_eq!((m.state().general.rflags, m.reg(0)), (0xd7, 0xd700));
    }
}
