//! Code that is not flat: of 16 bits, in real and virtual-8086 mode, and in segments with bases and
//! limits.
//!
//! Bases and limits are read from the state where they are needed, so that no block depends on them but
//! on those of its code segment. Offsets are cut to the size of the address, compared with the segment's
//! limit (`NativeLimits`), and added to its base. What is not allowed, and segments that expand down,
//! the interpreter does.

use std::mem::offset_of;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Code, EncodingKind, Instruction, Mnemonic, OpKind, Register};
use trivium_cpu::state::{CS, SS};
use trivium_interp::Cpu;
use trivium_interp::cpu::{Mode, SEG_BASE};
use trivium_interp::decode::context::segment_number;
use trivium_interp::native::{Native, NativeLimits};

use super::memory::At;
use super::{Emitted, Emitter, Way};
use crate::enter::Exit;
use crate::planted::{self, Bug};
use crate::regs::{Home, RSP_HOME, at, near, number_of};

const LIMITS: usize = offset_of!(Cpu, native) + offset_of!(Native, limits);

/// Where the limit of a segment is, for loads or for stores.
const fn limit(segment: u8, write: bool) -> i32 {
    let table = match write {
        false => offset_of!(NativeLimits, read),
        true => offset_of!(NativeLimits, write),
    };
    at(LIMITS + table) + 8 * segment as i32
}

/// Whether code of a mode, in a code segment of a limit, needs no checks of segmentation, and has
/// stack slots and branches of its own size.
pub(crate) fn is_flat(mode: Mode, limit: u32) -> bool {
    let wide = mode.has(Mode::CODE32) && mode.has(Mode::STACK32);
    mode.has(Mode::LONG) || mode.has(Mode::FLAT) && wide && limit == u32::MAX
}

/// Bytes of an instruction's stack slot, or of its branch.
pub(super) fn slot(i: &Instruction) -> i32 {
    use Mnemonic as M;
    match (i.code(), i.mnemonic()) {
        (Code::Retnw | Code::Retnw_imm16 | Code::Leavew, _) => return 2,
        (_, M::Ret | M::Leave) => return 4,
        (_, M::Push | M::Pop | M::Pushf | M::Popf | M::Pushfd | M::Popfd) => {
            return i.stack_pointer_increment().abs();
        }
        _ => {}
    }
    match i.op0_kind() {
        OpKind::NearBranch16 => 2,
        OpKind::NearBranch32 => 4,
        OpKind::Register => i.op0_register().size() as i32,
        _ => i.memory_size().size() as i32,
    }
}

impl Emitter {
    /// Whether the code is flat.
    pub(crate) fn is_flat(&self) -> bool {
        is_flat(self.mode, self.limit)
    }

    /// Whether virtual-8086 mode is what the code is for.
    fn is_v86(&self) -> bool {
        self.mode.has(Mode::USER) && !self.mode.has(Mode::PROTECTED)
    }

    /// Whether an instruction is one that is only translated in flat code.
    pub(super) fn is_for_flat_code(&self, i: &Instruction) -> bool {
        use Mnemonic as M;
        let flags = matches!(i.mnemonic(), M::Pushf | M::Popf | M::Pushfd | M::Popfd);
        // What AVX is to be outside of protected mode, the interpreter knows.
        let encoded = i.code().encoding() != EncodingKind::Legacy;
        // There the I/O privilege level decides.
        flags && self.is_v86()
            || encoded && !self.mode.has(Mode::PROTECTED)
            || i.is_string_instruction()
    }

    /// The address size of a memory operand, in bytes.
    pub(super) fn address_size(&self, i: &Instruction) -> u8 {
        let registers = [i.memory_base(), i.memory_index()];
        if let Some(register) = registers.iter().find(|&&register| register != Register::None) {
            return register.size() as u8;
        }
        match i.memory_displ_size() {
            0 | 1 => (self.mode.bitness() / 8) as u8,
            2 => 2,
            4 => 4,
            _ => 8,
        }
    }

    /// Whether a memory operand is one that can be reached.
    pub(super) fn has_way(&self, i: &Instruction, write: bool) -> bool {
        self.is_plain(i, write) || self.is_segmented(i, write)
    }

    /// Whether a memory operand is one that is reached with the checks of segmentation.
    fn is_segmented(&self, i: &Instruction, write: bool) -> bool {
        // There it has no limit to be checked.
        let no_limit = self.mode.has(Mode::FLAT) && i.memory_segment() == Register::CS && write;
        !self.mode.has(Mode::LONG) && !no_limit
    }

    /// Finds the memory operand of an instruction; it is then at the sum of what this gives and R9.
    pub(super) fn operand(
        &mut self,
        i: &Instruction,
        way: Way,
        (size, alignment): (usize, usize),
        write: bool,
        op: u8,
    ) -> At {
        let way = match self.is_plain(i, write) {
            true => {
                self.linear_address(i, -way.back());
                way
            }
            false => {
                self.segmented_address(i, size, write, op);
                Way::Alone
            }
        };
        let plus = match alignment {
            1 => self.reach(way, size, write, op),
            _ => {
                self.reach_aligned(size, alignment, write, op);
                0
            }
        };
        At::sum(8, plus)
    }

    /// Puts the linear address of a memory operand into R8, with the checks of segmentation.
    fn segmented_address(&mut self, i: &Instruction, size: usize, write: bool, op: u8) {
        self.offset_in_r8(i);
        self.add_segment(segment_number(i.memory_segment()), size, write, op);
    }

    /// Puts the effective address into R8.
    fn offset_in_r8(&mut self, i: &Instruction) {
        let is_short = self.address_size(i) == 2;
        let mask = if is_short { 0xffff } else { 0xffff_ffff };
        match self.address_operand(i, 0) {
            None => return self.constant(8, i.memory_displacement64() & mask),
            Some((memory, _)) => {
                if let Ok(lea) = Instruction::with2(Code::Lea_r32_m, Register::R8D, memory) {
                    self.raw(&lea);
                }
            }
        }
        if is_short && !planted::has(Bug::OffsetNotCut) {
            dynasm!(self.asm ; .arch x64 ; movzx r8d, r8w);
        }
    }

    /// Makes of the offset in R8 a linear address, if so many bytes there are in the segment.
    fn add_segment(&mut self, segment: u8, size: usize, write: bool, op: u8) {
        let last = size as i32 - 1;
        if (!self.mode.has(Mode::FLAT) || segment >= 4) && !planted::has(Bug::NoLimits) {
            let out = self.stub(Exit::Resume { block: self.block, op }, None);
            dynasm!(self.asm
                ; .arch x64
                ; mov rcx, [r14 + limit(segment, write)]
                ; lea rcx, [rcx + r8 + last]
                // Nothing above 32 bits.
                ; bswap rcx
                ; mov ecx, ecx
                ; jrcxz >within
            );
            self.jump_out(out);
            dynasm!(self.asm ; .arch x64 ; within:);
        }
        let segment = segment ^ u8::from(planted::has(Bug::NeighboursBase));
        dynasm!(self.asm
            ; .arch x64
            ; mov r9, [BYTE r14 + near(SEG_BASE + segment)]
            ; lea r8d, [r8 + r9]
        );
    }

    /// Finds a word of the stack so far from where a register leads; it is then at the sum of what this
    /// gives and R9.
    pub(super) fn segmented_stack(&mut self, from: At, size: usize, write: bool, op: u8) -> At {
        dynasm!(self.asm ; .arch x64 ; lea r8d, [Rq(from.base) + from.plus]);
        if !self.mode.has(Mode::STACK32) {
            dynasm!(self.asm ; .arch x64 ; movzx r8d, r8w);
        }
        self.add_segment(SS as u8, size, write, op);
        At::sum(8, self.reach(Way::Alone, size, write, op))
    }

    /// LEAVE.
    pub(super) fn segmented_leave(&mut self, op: u8) -> Emitted {
        const RBP: u8 = 5;
        let word = self.word();
        let at = self.segmented_stack(At::sum(RBP, 0), word as usize, false, op);
        match self.mode.has(Mode::STACK32) {
            true => dynasm!(self.asm ; .arch x64 ; lea Rd(RSP_HOME), [rbp + word]),
            false => dynasm!(self.asm ; .arch x64 ; lea ecx, [rbp + word] ; mov Rw(RSP_HOME), cx),
        }
        self.load_word(at, RBP);
        Emitted::Done
    }

    /// LEA of 16 bits, or of an address of 16 bits.
    pub(super) fn short_lea(&mut self, i: &Instruction) -> Emitted {
        let to = i.op0_register();
        let Home::Host(host) = self.homes.of(number_of(to)) else { return Emitted::Not };
        self.offset_in_r8(i);
        match to.size() {
            2 => dynasm!(self.asm ; .arch x64 ; mov Rw(host), r8w),
            _ => dynasm!(self.asm ; .arch x64 ; mov Rd(host), r8d),
        }
        Emitted::Done
    }

    /// Loads R8 with the target of a branch, zero-extended.
    pub(super) fn load_target(&mut self, at: At) {
        let At { base, scale, plus } = at;
        match (self.word(), scale) {
            (2, _) => dynasm!(self.asm ; .arch x64 ; movzx r8d, WORD [Rq(base) + r9 + plus]),
            (_, 1) => self.load_word(at, 8),
            (8, 2) => dynasm!(self.asm ; .arch x64 ; mov r8, [r9 + Rq(base) * 2 + plus]),
            (8, 4) => dynasm!(self.asm ; .arch x64 ; mov r8, [r9 + Rq(base) * 4 + plus]),
            (8, _) => dynasm!(self.asm ; .arch x64 ; mov r8, [r9 + Rq(base) * 8 + plus]),
            (_, 2) => dynasm!(self.asm ; .arch x64 ; mov r8d, [r9 + Rq(base) * 2 + plus]),
            (_, 4) => dynasm!(self.asm ; .arch x64 ; mov r8d, [r9 + Rq(base) * 4 + plus]),
            (_, _) => dynasm!(self.asm ; .arch x64 ; mov r8d, [r9 + Rq(base) * 8 + plus]),
        }
    }

    /// Leaves a branch to the interpreter if its target, in R8, is not in the code segment.
    pub(super) fn check_target(&mut self, op: u8) {
        let greatest = if self.word() == 2 { 0xffff } else { u32::MAX };
        if self.mode.has(Mode::LONG) || self.limit >= greatest {
            return;
        }
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        self.constant(1, (u32::MAX - self.limit).into());
        dynasm!(self.asm
            ; .arch x64
            ; lea rcx, [rcx + r8]
            ; bswap rcx
            ; mov ecx, ecx
            ; jrcxz >within
        );
        self.jump_out(out);
        dynasm!(self.asm ; .arch x64 ; within:);
    }
}

const _: () = assert!(CS == 1 && SS == 2);
