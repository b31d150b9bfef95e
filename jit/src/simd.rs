//! Instructions on vector and MMX registers: which are copied, and what they need before.

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpKind, Register};
use trivium_interp::cpu::Mode;

use crate::emit::{CALL, Emitted, Emitter};
use crate::enter::Exit;
use crate::simd_state::{AVX_IDLE, SSE_IDLE};
use crate::x87_state::MMX;
use crate::{x87, x87_state};

/// What an instruction needs of the registers that are loaded late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// What SSE needs of the vector registers.
    pub(crate) sse: bool,
    /// What AVX needs of them.
    pub(crate) avx: bool,
    /// The x87 unit, or its registers as MMX registers.
    pub(crate) x87: bool,
}

/// Which of these are at hand, as far as is known at a place in a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AtHand(Needs);

impl Needs {
    /// Bits of [`Self::bits`].
    pub(crate) const SSE: u8 = 1;
    pub(crate) const AVX: u8 = 2;
    pub(crate) const X87: u8 = 4;

    /// As a number.
    pub(crate) fn bits(self) -> u8 {
        let table = [(self.sse, Self::SSE), (self.avx, Self::AVX), (self.x87, Self::X87)];
        table.iter().filter(|(needed, _)| *needed).map(|(_, bit)| bit).sum()
    }

    /// From [`Self::bits`].
    pub(crate) fn from_bits(bits: u8) -> Self {
        let has = |bit| bits & bit != 0;
        Self { sse: has(Self::SSE), avx: has(Self::AVX), x87: has(Self::X87) }
    }
}

impl AtHand {
    /// What is to be loaded by those who come from outside.
    pub(crate) fn needs(self) -> Needs {
        self.0
    }

    /// Whether the x87 unit is.
    pub(crate) fn has_x87(self) -> bool {
        self.0.x87
    }
}

/// A way to load the registers, emitted after the code.
pub(crate) struct Load {
    from: DynamicLabel,
    back: DynamicLabel,
    refused: DynamicLabel,
    routine: u64,
}

/// Whether an instruction is copied, and what it needs; nothing if it is not one of those here, or
/// the interpreter's.
pub(crate) fn needs(i: &Instruction, mode: Mode) -> Option<Needs> {
    use Mnemonic as M;
    let none = Needs::default();
    let vectors = match i.code().encoding() {
        EncodingKind::Legacy => Needs { sse: true, ..none },
        EncodingKind::VEX => Needs { avx: true, ..none },
        _ => return None,
    };
    match i.mnemonic() {
        // Operands that are chosen by another operand, or that are not where it says.
        M::Maskmovdqu | M::Maskmovq | M::Vmaskmovdqu => return None,
        M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq => return None,
        // With VEX.W they have no meaning there.
        M::Vpinsrd | M::Vpextrd if !mode.has(Mode::LONG) => return None,
        // Whether that has to do with MMX, processors disagree.
        M::Cvtpi2ps if i.op1_kind() == OpKind::Memory => return None,
        M::Crc32 | M::Movnti => return (operands(i) && !has_vector(i)).then_some(none),
        M::Sfence | M::Lfence | M::Mfence => return Some(none),
        M::Vzeroupper | M::Vzeroall => return Some(vectors),
        M::Stmxcsr | M::Vstmxcsr => return operands(i).then_some(vectors),
        M::Emms => return Some(Needs { x87: true, ..none }),
        _ => {}
    }
    let x87 = has(i, Register::is_mm);
    // These obey MXCSR even where they load what they convert.
    let converts = matches!(i.mnemonic(), M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi);
    let needs = Needs { x87, ..if converts || has_vector(i) { vectors } else { none } };
    (needs != none && operands(i)).then_some(needs)
}

/// Whether an instruction does nothing but advise.
fn is_hint(i: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        i.mnemonic(),
        M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetch | M::Prefetchw
    )
}

fn kinds(i: &Instruction) -> impl Iterator<Item = (OpKind, Register)> {
    (0..i.op_count()).map(|n| (i.op_kind(n), i.op_register(n)))
}

fn is_vector(register: Register) -> bool {
    register.is_xmm() || register.is_ymm()
}

fn has(i: &Instruction, is: impl Fn(Register) -> bool) -> bool {
    kinds(i).any(|(_, register)| is(register))
}

fn has_vector(i: &Instruction) -> bool {
    has(i, is_vector)
}

/// Whether all operands are vector, MMX and general registers, plain memory and immediates.
fn operands(i: &Instruction) -> bool {
    kinds(i).all(|(kind, register)| match kind {
        OpKind::Register => is_vector(register) || register.is_mm() || register.is_gpr(),
        OpKind::Memory => !i.is_vsib() && i.memory_base() != Register::EIP,
        OpKind::Immediate8 | OpKind::Immediate8_2nd => true,
        _ => false,
    })
}

/// What a memory operand's address must be a multiple of, lest #GP be raised. Intel SDM vol. 2A,
/// 2.4, and vol. 1, 14.9: all 16 bytes of legacy SSE, but for the moves that say so and the
/// strings; of AVX only the moves that say so.
pub(crate) fn alignment(i: &Instruction) -> usize {
    use Mnemonic as M;
    let size = i.memory_size().size();
    match i.mnemonic() {
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => 1,
        M::Pcmpestri | M::Pcmpestrm | M::Pcmpistri | M::Pcmpistrm => 1,
        M::Pcmpestri64 | M::Pcmpestrm64 => 1,
        M::Vmovaps | M::Vmovapd | M::Vmovdqa => size,
        M::Vmovntps | M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa => size,
        _ if i.code().encoding() == EncodingKind::Legacy && size == 16 => 16,
        _ => 1,
    }
}

impl Emitter {
    /// Emits an instruction on registers that are loaded late, or beside these, for operation `op`.
    pub(crate) fn vector_or_x87(&mut self, i: &Instruction, op: u8) -> Emitted {
        if is_hint(i) {
            return Emitted::Done;
        }
        if x87::is_copied(i, &self.notes) {
            self.load(Needs { x87: true, ..Needs::default() }, op);
            return self.x87(i, op);
        }
        let Some(needs) = needs(i, self.mode).filter(|_| self.routines.host.has_all_of(i)) else {
            return Emitted::Not;
        };
        self.load(needs, op);
        if matches!(i.mnemonic(), Mnemonic::Vzeroupper | Mnemonic::Vzeroall) {
            return self.zero(i);
        }
        let emitted = self.copy(i, op);
        if emitted == Emitted::Done && needs.x87 {
            dynasm!(self.asm ; .arch x64 ; mov BYTE [r14 + MMX], 1);
        }
        emitted
    }

    /// VZEROUPPER and VZEROALL, which outside of 64-bit code see eight registers.
    fn zero(&mut self, i: &Instruction) -> Emitted {
        match (i.mnemonic(), self.mode.has(Mode::LONG)) {
            (Mnemonic::Vzeroupper, true) => dynasm!(self.asm ; .arch x64 ; vzeroupper),
            (_, true) => dynasm!(self.asm ; .arch x64 ; vzeroall),
            (Mnemonic::Vzeroupper, false) => {
                for n in 0..8 {
                    dynasm!(self.asm ; .arch x64 ; vmovaps Rx(n), Rx(n));
                }
            }
            (_, false) => {
                for n in 0..8 {
                    dynasm!(self.asm ; .arch x64 ; vpxor Rx(n), Rx(n), Rx(n));
                }
            }
        }
        Emitted::Done
    }

    /// Loads what an instruction needs and may not be at hand.
    fn load(&mut self, needs: Needs, op: u8) {
        let at_hand = &mut self.simd.0;
        let routines = self.routines;
        let wanted = [
            (needs.sse, &mut at_hand.sse, SSE_IDLE, routines.load_sse),
            (needs.avx, &mut at_hand.avx, AVX_IDLE, routines.load_avx),
            (needs.x87, &mut at_hand.x87, x87_state::IDLE, routines.load_x87),
        ]
        .map(|(wanted, known, idle, routine)| {
            let wanted = wanted && !std::mem::replace(known, *known || wanted);
            wanted.then_some((idle, routine))
        });
        for (idle, routine) in wanted.into_iter().flatten() {
            self.load_unless(idle, routine, op);
        }
    }

    /// Calls a routine to load registers unless the byte at `idle` is 0; the interpreter goes on
    /// if it does not.
    fn load_unless(&mut self, idle: i32, routine: u64, op: u8) {
        let [from, back] = [0; 2].map(|_| self.asm.new_dynamic_label());
        let refused = self.stub(Exit::Resume { block: self.block, op }, None);
        self.loads.push(Load { from, back, refused, routine });
        dynasm!(self.asm
            ; .arch x64
            ; movzx ecx, BYTE [r14 + idle]
            ; jrcxz =>back
        );
        self.jump_out(from);
        dynasm!(self.asm ; .arch x64 ; =>back);
    }

    /// Emits the ways to load the registers.
    pub(crate) fn emit_loads(&mut self) {
        for load in std::mem::take(&mut self.loads) {
            dynasm!(self.asm ; .arch x64 ; =>load.from);
            self.go_to(CALL, load.routine);
            dynasm!(self.asm
                ; .arch x64
                ; jrcxz >loaded
                ; jmp =>load.refused
                ; loaded:
                ; jmp =>load.back
            );
            self.note_parted();
        }
    }
}
