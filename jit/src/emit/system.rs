//! DIV and IDIV, and instructions on flags that are not the arithmetic ones: as long as they cannot
//! fault and nobody waits for what they allow, translated code does them itself.

use std::mem::offset_of;

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind};
use trivium_cpu::bits::{cr4, rflags};
use trivium_cpu::state::{Control, Segments};
use trivium_interp::Cpu;
use trivium_interp::cpu::{Mode, Space, TLB_ADDRESS};
use trivium_interp::native::{Native, NativeSites};

use super::memory::At;
use super::{Emitted, Emitter};
use crate::enter::Exit;
use crate::regs::{Home, at, near, number_of};
use crate::x87::selector;

pub(super) const SYSTEM_FLAGS: i32 = at(offset_of!(Cpu, system_flags));
const CPL: i32 = at(offset_of!(Cpu, segments) + offset_of!(Segments, cpl));
const NATIVE: usize = offset_of!(Cpu, native);
const HELD: i32 = at(NATIVE + offset_of!(Native, held));
const WANTED: i32 = at(NATIVE + offset_of!(Native, wanted));

const CR4: i32 = at(offset_of!(Cpu, control) + offset_of!(Control, cr4));
const SPACE: i32 = at(offset_of!(Cpu, space));
const TLB: i32 = at(offset_of!(Cpu, tlb));
const TLBS: i32 = at(offset_of!(Cpu, tlbs));
const SITES: usize = NATIVE + offset_of!(Native, sites);
/// Of accesses by supervisors.
const SITES_FILLED: i32 = at(SITES + offset_of!(NativeSites, filled));
const SITES_TLB: i32 = at(SITES + offset_of!(NativeSites, tlb));

/// Whether an instruction is one of these.
pub(super) fn is_one(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Div
            | M::Idiv
            | M::Pushf
            | M::Popf
            | M::Pushfq
            | M::Pushfd
            | M::Popfq
            | M::Popfd
            | M::Cli
            | M::Sti
            | M::Cld
            | M::Std
            | M::Stac
            | M::Clac
            | M::Swapgs
    )
}

/// The flags that the host's are the guest's.
const ARITHMETIC: i32 =
    (rflags::CF | rflags::PF | rflags::AF | rflags::ZF | rflags::SF | rflags::OF) as i32;
/// Those that POPF may change otherwise.
const SYSTEM: i32 =
    (rflags::TF | rflags::IF | rflags::DF | rflags::IOPL | rflags::NT | rflags::AC | rflags::ID)
        as i32;
/// RFLAGS of the host but for the arithmetic flags, as far as programs may set them.
const HOST: i32 = rflags::FIXED as i32 | rflags::IF as i32;

impl Emitter {
    /// Emits one of these instructions.
    pub(super) fn system(&mut self, i: &Instruction, op: u8) -> Emitted {
        let long = self.word() == 8;
        if i.mnemonic() != Mnemonic::Div && !self.routines.host.bmi2() {
            return Emitted::Not;
        }
        match i.mnemonic() {
            Mnemonic::Div | Mnemonic::Idiv => self.divide(i, op),
            Mnemonic::Cld => self.set_direction(0),
            Mnemonic::Std => self.set_direction(rflags::DF as i32),
            Mnemonic::Swapgs if long && !self.mode.has(Mode::USER) => self.swap_gs(op),
            Mnemonic::Stac if !self.mode.has(Mode::USER) => self.allow_user_pages(op),
            Mnemonic::Clac if !self.mode.has(Mode::USER) => self.forbid_user_pages(op),
            Mnemonic::Pushfq if long => self.pushf(op),
            Mnemonic::Pushfd if !long => self.pushf(op),
            Mnemonic::Pushf if !self.is_flat() => self.pushf(op),
            Mnemonic::Popf if !self.is_flat() => self.popf(op),
            Mnemonic::Popfq if long => self.popf(op),
            Mnemonic::Popfd if !long => self.popf(op),
            Mnemonic::Cli if !self.mode.has(Mode::USER) => self.cli(op),
            // Its shadow reaches over the next instruction, which must be here too.
            Mnemonic::Sti if !self.mode.has(Mode::USER) && !self.is_last => self.sti(op),
            _ => Emitted::Not,
        }
    }

    /// MOV from a segment register to one of 32 or 64 bits.
    pub(super) fn read_segment(&mut self, i: &Instruction) -> Emitted {
        let to = i.op0_register();
        if i.op0_kind() != OpKind::Register || to.size() < 4 {
            return Emitted::Not;
        }
        let from = selector(i.op1_register().number());
        let number = number_of(to);
        match self.homes.of(number) {
            Home::Host(host) => dynasm!(self.asm ; .arch x64 ; movzx Rd(host), WORD [r14 + from]),
            Home::Memory => dynasm!(self.asm
                ; .arch x64
                ; movzx ecx, WORD [r14 + from]
                ; mov [BYTE r14 + near(number)], rcx
            ),
        }
        Emitted::Done
    }

    pub(super) fn resume(&mut self, op: u8) -> DynamicLabel {
        self.stub(Exit::Resume { block: self.block, op }, None)
    }

    /// DIV and IDIV of 32 and 64 bits, of dividends that need no more than the divisor's width.
    fn divide(&mut self, i: &Instruction, op: u8) -> Emitted {
        let memory = i.op0_kind() == OpKind::Memory;
        let size = if memory { i.memory_size().size() } else { i.op0_register().size() };
        if size < 4 || memory && !self.has_way(i, false) {
            return Emitted::Not;
        }
        let wide = size == 8;
        if memory {
            let way = self.way(1);
            let At { plus, .. } = self.operand(i, way, (size, 1), false, op);
            match wide {
                true => dynasm!(self.asm ; .arch x64 ; mov r8, [r8 + r9 + plus]),
                false => dynasm!(self.asm ; .arch x64 ; mov r8d, [r8 + r9 + plus]),
            }
        } else {
            let number = number_of(i.op0_register());
            match (self.homes.of(number), wide) {
                (Home::Host(host), true) => dynasm!(self.asm ; .arch x64 ; mov r8, Rq(host)),
                (Home::Host(host), false) => dynasm!(self.asm ; .arch x64 ; mov r8d, Rd(host)),
                (Home::Memory, true) => {
                    dynasm!(self.asm ; .arch x64 ; mov r8, [BYTE r14 + near(number)]);
                }
                (Home::Memory, false) => {
                    dynasm!(self.asm ; .arch x64 ; mov r8d, [BYTE r14 + near(number)]);
                }
            }
        }
        let out = self.resume(op);
        dynasm!(self.asm ; .arch x64 ; mov rcx, r8 ; jrcxz >refused);
        if i.mnemonic() == Mnemonic::Div {
            match wide {
                true => dynasm!(self.asm ; .arch x64 ; mov rcx, rdx),
                false => dynasm!(self.asm ; .arch x64 ; mov ecx, edx),
            }
        } else {
            // Neither by -1, nor of a dividend that is not one of the divisor's width.
            match wide {
                true => dynasm!(self.asm
                    ; .arch x64
                    ; lea rcx, [r8 + 1]
                    ; jrcxz >refused
                    ; mov ecx, 63
                    ; sarx r9, rax, rcx
                    ; not r9
                    ; lea rcx, [rdx + r9 + 1]
                ),
                false => dynasm!(self.asm
                    ; .arch x64
                    ; lea ecx, [r8 + 1]
                    ; jrcxz >refused
                    ; mov ecx, 31
                    ; sarx r9d, eax, ecx
                    ; not r9d
                    ; lea ecx, [rdx + r9 + 1]
                ),
            }
        }
        dynasm!(self.asm ; .arch x64 ; jrcxz >good ; refused:);
        self.jump_out(out);
        // The flags are to stay as they are.
        dynasm!(self.asm
            ; .arch x64
            ; good:
            ; mov r9, rax
            ; lahf
            ; seto al
            ; mov rcx, rax
            ; mov rax, r9
        );
        match (i.mnemonic() == Mnemonic::Div, wide) {
            (true, true) => dynasm!(self.asm ; .arch x64 ; div r8),
            (true, false) => dynasm!(self.asm ; .arch x64 ; div r8d),
            (false, true) => dynasm!(self.asm ; .arch x64 ; idiv r8),
            (false, false) => dynasm!(self.asm ; .arch x64 ; idiv r8d),
        }
        dynasm!(self.asm
            ; .arch x64
            ; mov r9, rax
            ; mov rax, rcx
            ; add al, 127
            ; sahf
            ; mov rax, r9
        );
        Emitted::Done
    }

    fn pushf(&mut self, op: u8) -> Emitted {
        let word = self.word();
        let at = self.reach_stack(-word, true, op);
        dynasm!(self.asm
            ; .arch x64
            ; lea r8, [Rq(at.base) + r9 + at.plus]
            ; pushfq
            ; pop rcx
            ; mov r9d, ARITHMETIC
            ; pext rcx, rcx, r9
            ; pdep rcx, rcx, r9
            ; mov r9, [r14 + SYSTEM_FLAGS]
            ; lea rcx, [rcx + r9]
        );
        match word {
            8 => dynasm!(self.asm ; .arch x64 ; mov [r8], rcx),
            2 => dynasm!(self.asm ; .arch x64 ; mov [r8], cx),
            _ => dynasm!(self.asm ; .arch x64 ; mov [r8], ecx),
        }
        self.move_stack(-word);
        Emitted::Done
    }

    /// POPF where no other flags than the arithmetic ones change.
    fn popf(&mut self, op: u8) -> Emitted {
        let word = self.word();
        let at = self.reach_stack(0, false, op);
        self.load_target(at);
        let out = self.resume(op);
        let system = if word == 2 { SYSTEM & 0xffff } else { SYSTEM };
        dynasm!(self.asm
            ; .arch x64
            ; mov r9d, system
            ; mov rcx, [r14 + SYSTEM_FLAGS]
            ; pext rcx, rcx, r9
            ; not rcx
            ; pext r9, r8, r9
            ; lea rcx, [rcx + r9 + 1]
        );
        self.unless_zero(out);
        dynasm!(self.asm
            ; .arch x64
            ; mov r9d, ARITHMETIC
            ; pext r8, r8, r9
            ; pdep r8, r8, r9
            ; lea r8, [r8 + HOST]
            ; push r8
            ; popfq
        );
        self.move_stack(word);
        Emitted::Done
    }

    fn set_direction(&mut self, to: i32) -> Emitted {
        self.set_flag(rflags::DF, to);
        Emitted::Done
    }

    /// STAC where AC was clear and SMAP holds: the TLB in use is then the one with users' pages. What
    /// accesses have found without them, they may still use.
    fn allow_user_pages(&mut self, op: u8) -> Emitted {
        self.only_at_cpl_0(op);
        let out = self.resume(op);
        dynasm!(self.asm
            ; .arch x64
            ; mov ecx, cr4::SMAP as i32
            ; mov r9, [r14 + CR4]
            ; pext rcx, r9, rcx
            ; jrcxz >refused
            ; movzx ecx, BYTE [r14 + SPACE]
            ; jrcxz >without
            ; refused:
        );
        self.jump_out(out);
        dynasm!(self.asm
            ; .arch x64
            ; without:
            ; mov [r14 + SITES_TLB], rcx
            ; movzx ecx, BYTE [r14 + SITES_FILLED]
            ; lea ecx, [rcx + rcx]
            ; mov [r14 + SITES_FILLED], cl
        );
        self.exchange_tlb(Space::Supervisor, Space::SupervisorAc);
        self.set_flag(rflags::AC, rflags::AC as i32);
        self.user_pages = true;
        Emitted::Done
    }

    /// CLAC after that, if no access remembers a translation that it has found in between.
    fn forbid_user_pages(&mut self, op: u8) -> Emitted {
        self.only_at_cpl_0(op);
        let out = self.resume(op);
        dynasm!(self.asm
            ; .arch x64
            ; movzx ecx, BYTE [r14 + SPACE]
            ; lea rcx, [rcx - Space::SupervisorAc as i32]
            ; jrcxz >with
            ; refused:
        );
        self.jump_out(out);
        dynasm!(self.asm
            ; .arch x64
            ; with:
            ; movzx ecx, BYTE [r14 + SITES_FILLED]
            ; lea r9, [rcx - 1]
            ; xchg rcx, r9
            ; jrcxz <refused
            ; rorx ecx, r9d, 1
            ; mov [r14 + SITES_FILLED], cl
        );
        self.exchange_tlb(Space::SupervisorAc, Space::Supervisor);
        dynasm!(self.asm ; .arch x64 ; mov [r14 + SITES_TLB], r9);
        self.set_flag(rflags::AC, 0);
        (self.user_pages, self.known_spans) = (false, 0);
        Emitted::Done
    }

    /// Puts another TLB in use, whose address is then in R9.
    fn exchange_tlb(&mut self, from: Space, to: Space) {
        let aside = |space: Space| TLBS + 8 * space as i32;
        dynasm!(self.asm
            ; .arch x64
            ; mov rcx, [r14 + TLB]
            ; mov [r14 + aside(from)], rcx
            ; mov r9, [r14 + aside(to)]
            ; mov QWORD [r14 + aside(to)], 0
            ; mov [r14 + TLB], r9
            ; mov [BYTE r14 + near(TLB_ADDRESS)], r9
            ; mov BYTE [r14 + SPACE], to as i8
        );
    }

    fn cli(&mut self, op: u8) -> Emitted {
        self.only_at_cpl_0(op);
        self.set_flag(rflags::IF, 0);
        Emitted::Done
    }

    /// STI while nothing waits for it: what comes later is looked at in any case.
    fn sti(&mut self, op: u8) -> Emitted {
        self.only_at_cpl_0(op);
        let out = self.resume(op);
        dynasm!(self.asm
            ; .arch x64
            ; mov r9, [r14 + WANTED]
            ; movzx r9d, BYTE [r9]
            ; movzx ecx, BYTE [r14 + HELD]
            ; lea ecx, [rcx + r9]
        );
        self.unless_zero(out);
        self.set_flag(rflags::IF, rflags::IF as i32);
        Emitted::Done
    }

    /// Between CPL 0 and 3, the I/O privilege level decides: that is the interpreter's.
    pub(super) fn only_at_cpl_0(&mut self, op: u8) {
        let out = self.resume(op);
        dynasm!(self.asm ; .arch x64 ; movzx ecx, BYTE [r14 + CPL]);
        self.unless_zero(out);
    }

    /// Sets a flag that is not an arithmetic one to all or nothing of itself.
    fn set_flag(&mut self, flag: u64, to: i32) {
        dynasm!(self.asm
            ; .arch x64
            ; mov rcx, [r14 + SYSTEM_FLAGS]
            ; mov r9d, !(flag as i32)
            ; pext rcx, rcx, r9
            ; pdep rcx, rcx, r9
            ; lea rcx, [rcx + to]
            ; mov [r14 + SYSTEM_FLAGS], rcx
        );
    }
}
