//! x87 instructions: which are copied, and how the place of the last of them is noted.

use std::arch::x86_64::__cpuid;
use std::mem::offset_of;
use std::sync::LazyLock;

use dynasmrt::{DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use trivium_cpu::model::{CpuModel, Quirk};
use trivium_cpu::state::{CS, Segment, Segments};
use trivium_interp::Cpu;

use crate::emit::{Emitted, Emitter, Way};
use crate::enter::Exit;
use crate::regs::at;
use crate::x87_state::{
    CONTROL_WORD, LAST_CS, LAST_DP, LAST_DS, LAST_IP, LAST_OPCODE, MASKS, host_can,
};

/// What is known of the unit's last instruction at a place in a block.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notes {
    /// The opcode of the instruction that is being emitted, if it is of the unit.
    pub(crate) opcode: u16,
    /// The host does FCOMI as the guest's processor does.
    pub(crate) compares_alike: bool,
    /// Of PUSH of a segment register, 16 bits are stored whatever the size is.
    pub(crate) pushes_word: bool,
    /// What is still to be noted: RIP and opcode.
    pending: Option<(u64, u16)>,
    /// The code segment has been noted.
    pub(crate) segment: bool,
}

impl Notes {
    /// Those of a block's beginning, for a processor.
    pub(crate) fn new(model: &CpuModel) -> Self {
        let compares_alike = model.does(Quirk::FcomiKeepsC1) == host_is_amd();
        let pushes_word = model.does(Quirk::PushSegmentWritesWord);
        Self { compares_alike, pushes_word, ..Self::default() }
    }
}

/// Whether the host is of AMD's kind.
fn host_is_amd() -> bool {
    // Asked once: where the host is itself a guest, CPUID takes tens of microseconds.
    static IS_AMD: LazyLock<bool> = LazyLock::new(|| {
        // EBX of leaf 0, in AuthenticAMD and HygonGenuine.
        [*b"Auth", *b"Hygo"].contains(&__cpuid(0).ebx.to_le_bytes())
    });
    *IS_AMD
}

/// Whether an instruction is copied, or done as well as copied.
pub(crate) fn is_copied(i: &Instruction, notes: &Notes) -> bool {
    use Mnemonic as M;
    let listed = match i.mnemonic() {
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => notes.compares_alike,
        other => matches!(
            other,
            M::Fld
                | M::Fst
                | M::Fstp
                | M::Fild
                | M::Fist
                | M::Fistp
                | M::Fisttp
                | M::Fbld
                | M::Fbstp
                | M::Fxch
                | M::Fadd
                | M::Faddp
                | M::Fiadd
                | M::Fsub
                | M::Fsubp
                | M::Fisub
                | M::Fsubr
                | M::Fsubrp
                | M::Fisubr
                | M::Fmul
                | M::Fmulp
                | M::Fimul
                | M::Fdiv
                | M::Fdivp
                | M::Fidiv
                | M::Fdivr
                | M::Fdivrp
                | M::Fidivr
                | M::Fcom
                | M::Fcomp
                | M::Fcompp
                | M::Ficom
                | M::Ficomp
                | M::Fucom
                | M::Fucomp
                | M::Fucompp
                | M::Ftst
                | M::Fxam
                | M::Fsqrt
                | M::Frndint
                | M::Fscale
                | M::Fprem
                | M::Fprem1
                | M::F2xm1
                | M::Fsin
                | M::Fcos
                | M::Fsincos
                | M::Fptan
                | M::Fpatan
                | M::Fyl2x
                | M::Fyl2xp1
                | M::Fxtract
                | M::Fabs
                | M::Fchs
                | M::Fld1
                | M::Fldz
                | M::Fldpi
                | M::Fldl2t
                | M::Fldl2e
                | M::Fldlg2
                | M::Fldln2
                | M::Fcmovb
                | M::Fcmovnb
                | M::Fcmove
                | M::Fcmovne
                | M::Fcmovbe
                | M::Fcmovnbe
                | M::Fcmovu
                | M::Fcmovnu
                | M::Fincstp
                | M::Fdecstp
                | M::Ffree
                | M::Fnop
                | M::Fnstcw
                | M::Fldcw
                | M::Fnstsw
                | M::Wait
        ),
    };
    listed && host_can() && operands(i)
}

/// Whether all operands are registers of the stack, AX, and memory in an ordinary segment, as the
/// place of that is noted without the segment's base.
fn operands(i: &Instruction) -> bool {
    (0..i.op_count()).all(|n| match i.op_kind(n) {
        OpKind::Register => true,
        OpKind::Memory => {
            let special = [Register::FS, Register::GS].contains(&i.memory_segment());
            !special && i.memory_base() != Register::EIP
        }
        _ => false,
    })
}

/// Whether an instruction leaves no trace in the pointers and the opcode.
fn is_control(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Fnstcw | Mnemonic::Fldcw | Mnemonic::Fnstsw | Mnemonic::Wait)
}

fn has_memory(i: &Instruction) -> bool {
    (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory)
}

/// The place of a segment's selector in the state.
pub(crate) fn selector(segment: usize) -> i32 {
    let regs = offset_of!(Cpu, segments) + offset_of!(Segments, regs);
    at(regs + size_of::<Segment>() * segment + offset_of!(Segment, selector))
}

impl Emitter {
    /// Emits an instruction of the unit, which is at hand.
    pub(crate) fn x87(&mut self, i: &Instruction, op: u8) -> Emitted {
        if has_memory(i) && !self.is_plain(i, false) {
            // It is the offset that is noted, not the linear address.
            return Emitted::Not;
        }
        match i.mnemonic() {
            // There are no exceptions that it could wait for.
            Mnemonic::Wait => return Emitted::Done,
            Mnemonic::Fldcw => return self.load_control(i, op),
            _ => {}
        }
        let emitted = self.copy(i, op);
        if emitted == Emitted::Done && !is_control(i) {
            if has_memory(i) {
                self.note_operand(i);
            }
            self.notes.pending = Some((i.ip(), self.notes.opcode));
        }
        emitted
    }

    /// Notes where the operand is, whose address R8 has but for an offset.
    fn note_operand(&mut self, i: &Instruction) {
        let segment = selector(i.memory_segment().number());
        dynasm!(self.asm
            ; .arch x64
            ; lea rcx, [r8 + self.operand_offset]
            ; mov [r14 + LAST_DP], rcx
            ; movzx ecx, WORD [r14 + segment]
            ; mov [r14 + LAST_DS], cx
        );
    }

    /// Notes what is to be noted before `i`, which may leave translated code. A run of instructions
    /// on registers has only its last one noted.
    pub(crate) fn note_x87(&mut self, i: Option<&Instruction>) {
        let notes = self.notes;
        let on_registers =
            |i: &Instruction| is_copied(i, &notes) && !has_memory(i) && !is_control(i);
        if self.simd.has_x87() && i.is_some_and(on_registers) {
            return;
        }
        let Some((place, opcode)) = self.notes.pending.take() else { return };
        match i32::try_from(place as i64) {
            Ok(short) => dynasm!(self.asm ; .arch x64 ; mov QWORD [r14 + LAST_IP], short),
            Err(_) => dynasm!(self.asm
                ; .arch x64
                ; mov rcx, QWORD place as i64
                ; mov [r14 + LAST_IP], rcx
            ),
        }
        dynasm!(self.asm ; .arch x64 ; mov WORD [r14 + LAST_OPCODE], opcode as i16);
        if !std::mem::replace(&mut self.notes.segment, true) {
            dynasm!(self.asm
                ; .arch x64
                ; movzx ecx, WORD [r14 + selector(CS)]
                ; mov [r14 + LAST_CS], cx
            );
        }
    }

    /// FLDCW, of words that mask all exceptions; the word is looked at in a place that nobody else
    /// can change.
    fn load_control(&mut self, i: &Instruction, op: u8) -> Emitted {
        if !self.is_plain(i, false) {
            return Emitted::Not;
        }
        self.linear_address(i, 0);
        self.reach(Way::Alone, 2, false, op);
        let out = self.stub(Exit::Resume { block: self.block, op }, None);
        dynasm!(self.asm
            ; .arch x64
            ; movzx ecx, WORD [r8 + r9]
            ; mov [r14 + CONTROL_WORD], cx
            ; not ecx
            ; mov r8d, MASKS
        );
        self.routines.host.any_of_r8(&mut self.asm);
        dynasm!(self.asm
            ; .arch x64
            ; jrcxz >masked
        );
        self.jump_out(out);
        dynasm!(self.asm
            ; .arch x64
            ; masked:
            ; fldcw [r14 + CONTROL_WORD]
        );
        Emitted::Done
    }
}
